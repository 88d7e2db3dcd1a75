//! What an owner may do with the account as a whole: export what is stored about it, and delete it.

use deadbeat_domain::people::access::{Access, Actor};
use deadbeat_domain::people::account::{AccountAct, EVENTS};
use deadbeat_domain::people::audit::{Act, Entry};
use deadbeat_store::people::account::event;
use deadbeat_store::people::account::session::Session;
use serde_json::{Value, json};

use super::{Client, factor, session, trail};
use crate::people::audit;
use crate::{ServiceError, Services};

/// Returns what the server stores about a person, as one JSON object without secrets: the account, sessions, known addresses, the trail, and
/// the projects with the role there. The data of projects belong to the projects.
///
/// # Errors
/// If the database cannot be reached.
pub async fn export(services: &Services, own: &Session, client: &Client) -> Result<Value, ServiceError> {
    let (account, reader) = (&own.account, services.reader());
    let sessions = session::list(services, own).await?;
    let factor = factor::state(services, own).await?;
    let addresses = deadbeat_store::people::account::known_addresses(&reader, account.id).await?;
    let events = event::list(&reader, account.id, EVENTS).await?;
    let projects = deadbeat_store::people::project::of_account(&reader, account.id).await?;
    let created_at = deadbeat_store::people::account::created_at(&reader, account.id).await?;
    let role = |access: &Access| match access.actor() {
        Actor::Account { role, .. } => role.as_str(),
        _ => "",
    };
    let data = json!({
        "exported_at": services.now(),
        "account": {
            "id": account.id,
            "email": account.email,
            "created_at": created_at,
            "second_factor": factor.map(|on| json!({"since": on.since, "recovery_codes_left": on.codes_left})),
        },
        "sessions": sessions.iter().map(|one| json!({
            "id": one.id,
            "created_at": one.created_at,
            "seen_at": one.seen_at,
            "proved_at": one.proved_at,
            "expires_at": one.expires_at,
            "address": one.address,
            "device": one.device,
            "is_this_one": one.id == own.id,
        })).collect::<Vec<_>>(),
        "known_addresses": addresses.iter().map(|(address, at)| json!({"address": address, "signed_in_at": at})).collect::<Vec<_>>(),
        "events": events.iter().map(|one| json!({
            "at": one.at, "action": one.action, "address": one.address, "device": one.device,
        })).collect::<Vec<_>>(),
        "projects": projects.iter().map(|one| json!({
            "id": one.project.id, "name": one.project.name, "role": role(&one.access),
        })).collect::<Vec<_>>(),
    });
    let mut tx = services.store.begin().await?;
    trail::note(services, &mut tx, AccountAct::Exported, account.id, client).await?;
    tx.commit().await?;
    trail::log(AccountAct::Exported, account.id, client);
    Ok(data)
}

/// Deletes the account of a session. The caller has checked that the owner proved to be the owner lately. Audit trails keep the account's id
/// as a pseudonym; its projects note that a member is gone.
///
/// # Errors
/// [`ServiceError::Conflict`] if a project would have no owner, or the database cannot be reached.
pub async fn delete(services: &Services, own: &Session, client: &Client) -> Result<(), ServiceError> {
    let (id, now) = (own.account.id, services.now());
    let memberships = deadbeat_store::people::project::of_account(&services.reader(), id).await?;
    let mut tx = services.store.begin().await?;
    deadbeat_store::people::account::lock(&mut tx, id).await?;
    let alone = deadbeat_store::people::account::lock_owned_alone(&mut tx, id).await?;
    if !alone.is_empty() {
        return Err(ServiceError::Conflict(format!(
            "you are the only owner of {}; give each of these projects another owner, or delete it first",
            alone.join(", ")
        )));
    }
    for one in &memberships {
        let access = one.access.from(client.address());
        let entry = Entry::new(&access, one.project.id, Act::MemberAccountDeleted, id.0, now);
        audit::note(&mut tx, entry);
    }
    deadbeat_store::people::account::delete(&mut tx, id).await?;
    tx.commit().await?;
    trail::log(AccountAct::Deleted, id, client);
    Ok(())
}
