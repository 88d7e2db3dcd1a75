//! Table `audit_entry`: the audit trail (ADR 044).
//!
//! A use case notes the entries of its transaction ([`note`]); [`Tx::commit`] writes them. So a transaction that is rolled back leaves no entry.

use chrono::{DateTime, Utc};
use deadbeat_domain::ids::{AuditEntryId, ProjectId};
use deadbeat_domain::people::audit::Entry;
use uuid::Uuid;

use crate::connection::line::Line;
use crate::monitor::batch::column;
use crate::{Reader, StoreResult, Tx};

/// Notes an entry of a transaction; its commit writes it.
pub fn note(tx: &mut Tx, entry: Entry) {
    tx.audited.push(entry);
}

/// Writes the noted entries in one statement.
pub(crate) async fn write(line: &mut Line, entries: &[Entry]) -> StoreResult<()> {
    if entries.is_empty() {
        return Ok(());
    }
    sqlx::query!(
        "INSERT INTO audit_entry (id, project_id, at, actor_kind, actor_id, remote_addr, action, subject_id, subject_name, changed)
        SELECT id, project_id, at, actor_kind, actor_id, remote_addr, action, subject_id, subject_name, changed::text[]
        FROM UNNEST($1::uuid[], $2::uuid[], $3::timestamptz[], $4::text[], $5::uuid[], $6::text[], $7::text[], $8::uuid[], $9::text[], $10::text[])
            AS new (id, project_id, at, actor_kind, actor_id, remote_addr, action, subject_id, subject_name, changed)",
        &column(entries, |one| one.id.0),
        &column(entries, |one| one.project_id.0),
        &column(entries, |one| one.at),
        &column(entries, |one| one.by.kind().to_owned()),
        &column(entries, |one| one.by.id()) as &[Option<Uuid>],
        &column(entries, |one| one.from.map(|address| address.to_string())) as &[Option<String>],
        &column(entries, |one| one.act.as_str().to_owned()),
        &column(entries, |one| one.subject_id),
        &column(entries, |one| one.subject_name.clone()) as &[Option<String>],
        // The names of fields are words of the API: no quoting is needed.
        &column(entries, |one| format!("{{{}}}", one.changed.join(","))),
    )
    .execute(line)
    .await?;
    Ok(())
}

/// An entry as stored. A newer server may have written acts that this one does not know, so they stay texts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stored {
    /// The entry's id.
    pub id: AuditEntryId,
    /// When the actor acted.
    pub at: DateTime<Utc>,
    /// `account`, `api_key`, `link`, `service`, `operator` or `system`.
    pub actor_kind: String,
    /// The id of the account or key, or of the channel whose link was used.
    pub actor_id: Option<Uuid>,
    /// The present name of the account, key or channel. None: it was deleted, or has no name.
    pub actor_name: Option<String>,
    /// The client's address.
    pub remote_addr: Option<String>,
    /// What the actor did, as `monitor.created`.
    pub action: String,
    /// The changed thing's id.
    pub subject_id: Uuid,
    /// The changed thing's name at that time.
    pub subject_name: Option<String>,
    /// The names of the fields that the actor set.
    pub changed: Vec<String>,
}

/// Which entries a reader wants. The default wants all.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Filter {
    /// Only entries about this thing.
    pub subject_id: Option<Uuid>,
    /// Only entries of this actor.
    pub actor_id: Option<Uuid>,
    /// Only entries with this action.
    pub action: Option<String>,
    /// Only entries from this time on.
    pub since: Option<DateTime<Utc>>,
    /// Only entries from before this time.
    pub until: Option<DateTime<Utc>>,
}

/// Returns a project's entries before `before`, newest first, at most `limit`.
///
/// # Errors
/// If the database is away.
pub async fn list(
    reader: &Reader,
    project: ProjectId,
    filter: &Filter,
    before: Option<AuditEntryId>,
    limit: i64,
) -> StoreResult<Vec<Stored>> {
    let rows = sqlx::query!(
        r#"SELECT entry.id, at, actor_kind, actor_id, remote_addr, action, subject_id, subject_name, changed,
            CASE actor_kind
                WHEN 'account' THEN (SELECT email FROM account WHERE account.id = actor_id)
                WHEN 'api_key' THEN (SELECT name FROM api_key WHERE api_key.id = actor_id AND api_key.project_id = $1)
                WHEN 'link' THEN (SELECT name FROM channel WHERE channel.id = actor_id AND channel.project_id = $1)
            END AS actor_name
        FROM audit_entry AS entry
        WHERE entry.project_id = $1 AND ($2::uuid IS NULL OR entry.id < $2)
            AND ($3::uuid IS NULL OR subject_id = $3) AND ($4::uuid IS NULL OR actor_id = $4) AND ($5::text IS NULL OR action = $5)
            AND ($6::timestamptz IS NULL OR at >= $6) AND ($7::timestamptz IS NULL OR at < $7)
        ORDER BY entry.id DESC
        LIMIT $8"#,
        project.0,
        before.map(|id| id.0),
        filter.subject_id,
        filter.actor_id,
        filter.action,
        filter.since,
        filter.until,
        limit
    )
    .fetch_all(reader.pool())
    .await?;
    Ok(rows
        .into_iter()
        .map(|row| Stored {
            id: AuditEntryId(row.id),
            at: row.at,
            actor_kind: row.actor_kind,
            actor_id: row.actor_id,
            actor_name: row.actor_name,
            remote_addr: row.remote_addr,
            action: row.action,
            subject_id: row.subject_id,
            subject_name: row.subject_name,
            changed: row.changed,
        })
        .collect())
}
