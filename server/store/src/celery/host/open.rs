//! The open incidents about hosts, and their texts.

use deadbeat_domain::ids::{IncidentId, ProjectId};
use deadbeat_domain::incident::cause::Cause;
use deadbeat_domain::incident::{Fact, Repair, Subject, SubjectKind};
use uuid::Uuid;

use crate::{StoreError, StoreResult, Tx};

/// The new text of an open incident.
#[derive(Debug, Clone, PartialEq)]
pub struct RewrittenText {
    /// Its subject.
    pub subject: Subject,
    /// Its cause.
    pub cause: Cause,
    /// The fault in one sentence.
    pub summary: String,
    /// The facts that support the cause.
    pub evidence: Vec<Fact>,
    /// How to repair the fault.
    pub repair: Vec<Repair>,
}

/// An open incident about a host.
#[derive(Debug, Clone, PartialEq)]
pub struct Open {
    /// The incident.
    pub id: IncidentId,
    /// The project that owns it.
    pub project_id: ProjectId,
    /// The host.
    pub subject: Subject,
    /// Its summary.
    pub summary: String,
}

/// Locks the oldest open incident about the silence of one of these parts.
///
/// # Errors
/// If the database is away.
pub async fn about_part(tx: &mut Tx, project: ProjectId, parts: &[Uuid]) -> StoreResult<Option<IncidentId>> {
    let id = sqlx::query_scalar!(
        "SELECT id
        FROM incident
        WHERE project_id = $1 AND subject_kind IN ('beat', 'worker') AND subject_id = ANY($2) AND resolved_at IS NULL
            AND cause IN ('BEAT_DOWN', 'WORKER_LOST')
        ORDER BY opened_at, id
        LIMIT 1
        FOR UPDATE",
        project.0,
        parts
    )
    .fetch_optional(tx.conn())
    .await?;
    Ok(id.map(IncidentId))
}

/// Rewrites the subject, the cause and the text of an open incident. This sends no alert.
///
/// # Errors
/// If the database is away.
pub async fn rewrite(
    tx: &mut Tx,
    project: ProjectId,
    id: IncidentId,
    alerted: &RewrittenText,
) -> StoreResult<()> {
    sqlx::query!(
        "UPDATE incident
        SET subject_kind = $2, subject_id = $3, subject_name = $4, cause = $5, summary = $6, evidence = $7, repair = $8
        WHERE id = $1 AND project_id = $9 AND resolved_at IS NULL",
        id.0,
        alerted.subject.kind.as_str(),
        alerted.subject.id,
        alerted.subject.name,
        alerted.cause.as_str(),
        alerted.summary,
        serde_json::to_value(&alerted.evidence).map_err(|error| StoreError::Corrupt(error.to_string()))?,
        serde_json::to_value(&alerted.repair).map_err(|error| StoreError::Corrupt(error.to_string()))?,
        project.0
    )
    .execute(tx.conn())
    .await?;
    Ok(())
}

/// Returns the open incidents about hosts, in id order.
///
/// # Errors
/// When the database is away.
pub async fn open_after(tx: &mut Tx, after: Option<IncidentId>, limit: i64) -> StoreResult<Vec<Open>> {
    let rows = sqlx::query!(
        "SELECT id, project_id, subject_id, subject_name, summary
        FROM incident
        WHERE subject_kind = 'host' AND resolved_at IS NULL AND ($1::uuid IS NULL OR id > $1)
        ORDER BY id
        LIMIT $2",
        after.map(|id| id.0),
        limit
    )
    .fetch_all(tx.conn())
    .await?;
    Ok(rows
        .into_iter()
        .map(|row| Open {
            id: IncidentId(row.id),
            project_id: ProjectId(row.project_id),
            subject: Subject {
                kind: SubjectKind::Host,
                id: row.subject_id,
                name: row.subject_name,
            },
            summary: row.summary,
        })
        .collect())
}
