//! Table `incident`: who acknowledged an incident, and when.

use chrono::{DateTime, Utc};
use deadbeat_domain::ids::{IncidentId, ProjectId};

use super::{Incident, Row};
use crate::{StoreResult, Tx};

/// Notes that a person acknowledged an incident, which ends its reminders. The first acknowledgement stays. Returns the incident, and whether this
/// acknowledgement is the first one. None: the project has no such incident.
///
/// # Errors
/// If the database is away, or [`crate::StoreError::Corrupt`] when the row cannot be read.
pub async fn acknowledge(
    tx: &mut Tx,
    project: ProjectId,
    id: IncidentId,
    by: &str,
    now: DateTime<Utc>,
) -> StoreResult<Option<(Incident, bool)>> {
    let before = sqlx::query_scalar!(
        "SELECT acknowledged_at FROM incident WHERE project_id = $1 AND id = $2 FOR NO KEY UPDATE",
        project.0,
        id.0
    )
    .fetch_optional(tx.conn())
    .await?;
    let Some(before) = before else {
        return Ok(None);
    };
    let row = sqlx::query_as!(
        Row,
        "UPDATE incident
        SET acknowledged_by = CASE WHEN acknowledged_at IS NULL THEN $4 ELSE acknowledged_by END,
            acknowledged_at = coalesce(acknowledged_at, $3), remind_at = NULL
        WHERE project_id = $1 AND id = $2
        RETURNING id, project_id, subject_kind, subject_id, subject_name, cause, summary, evidence, repair, opened_at, resolved_at,
            acknowledged_at, acknowledged_by, remind_at, inferred, severity, flapping",
        project.0,
        id.0,
        now,
        by
    )
    .fetch_one(tx.conn())
    .await?;
    Ok(Some((Incident::try_from(row)?, before.is_none())))
}
