//! Accounts, projects, API keys, and what each has used of its limits.

pub mod account;
pub mod api_key;
pub mod audit;
pub mod chosen;
pub mod figures;
pub mod invitation;
pub mod member;
pub mod project;
pub mod quota;

use deadbeat_domain::people::access::Actor;
use uuid::Uuid;

/// Returns the actor that made something, as columns: the kind of actor, and the id of an account or key.
pub(crate) fn creator(actor: Actor) -> (&'static str, Option<Uuid>) {
    match actor {
        Actor::Account { id, .. } => ("account", Some(id.0)),
        Actor::Key { id, .. } => ("key", Some(id.0)),
        Actor::Operator => ("operator", None),
        Actor::System => ("system", None),
    }
}
