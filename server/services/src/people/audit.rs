//! The audit trail: who changed what in a project, when, and from where (ADR 044).
//!
//! Every use case that changes something for a person or a key notes one entry for each changed thing ([`note`]), in the transaction of the
//! change. Pings and events note nothing.

use deadbeat_domain::ids::AuditEntryId;
use deadbeat_domain::people::access::Access;
use deadbeat_domain::people::audit::Entry;
use deadbeat_domain::people::permission::Action;
use deadbeat_store::Tx;
use deadbeat_store::people::audit::{Filter, Stored};

use crate::{ServiceError, Services};

/// Notes an entry; the commit of the transaction writes it.
pub(crate) fn note(tx: &mut Tx, entry: Entry) {
    deadbeat_store::people::audit::note(tx, entry);
}

/// Returns the entries of a project before `before`, newest first, at most `limit`.
///
/// # Errors
/// If the access does not allow this, or the database is away.
pub async fn list(
    services: &Services,
    access: &Access,
    filter: &Filter,
    before: Option<AuditEntryId>,
    limit: i64,
) -> Result<Vec<Stored>, ServiceError> {
    let project = access.may(Action::ReadAudit)?;
    Ok(deadbeat_store::people::audit::list(&services.reader(), project, filter, before, limit).await?)
}
