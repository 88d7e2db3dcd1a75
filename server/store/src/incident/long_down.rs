//! Table `incident`: the open incidents that have lasted long, and when the server wrote the reminder about it.

use chrono::{DateTime, Utc};

use super::{Incident, Row};
use crate::error::each;
use crate::monitor::batch::column;
use crate::{StoreResult, Tx, Unreadable};

/// Claims open incidents that began by `opened_by` and have no reminder about it yet. Notes `now` as the time of that reminder. Puts the
/// next usual reminder off by one period, so that two messages do not come at once. An incident that cannot be read counts as claimed, so
/// that the next sweep does not find it again.
///
/// # Errors
/// If the database is away.
pub async fn claim_long_down(
    tx: &mut Tx,
    opened_by: DateTime<Utc>,
    now: DateTime<Utc>,
    limit: i64,
) -> StoreResult<Vec<Result<Incident, Unreadable>>> {
    let due = sqlx::query!(
        "SELECT id, project_id FROM incident
        WHERE resolved_at IS NULL AND long_reminded_at IS NULL AND opened_at <= $1
        ORDER BY opened_at
        LIMIT $2
        FOR UPDATE SKIP LOCKED",
        opened_by,
        limit
    )
    .fetch_all(tx.conn())
    .await?;
    if due.is_empty() {
        return Ok(Vec::new());
    }
    let rows = sqlx::query_as!(
        Row,
        "UPDATE incident
        SET long_reminded_at = $1, remind_at = CASE
            WHEN remind_at IS NOT NULL THEN $1::timestamptz + make_interval(secs => project.reminder_seconds)
        END
        FROM project
        WHERE project.id = incident.project_id
            AND (incident.project_id, incident.id) IN (SELECT * FROM UNNEST($3::uuid[], $2::uuid[]))
        RETURNING incident.id, project_id, subject_kind, subject_id, subject_name, cause, summary, evidence, repair, opened_at,
            resolved_at, acknowledged_at, acknowledged_by, remind_at, inferred, severity, flapping",
        now,
        &column(&due, |row| row.id),
        &column(&due, |row| row.project_id)
    )
    .fetch_all(tx.conn())
    .await?;
    Ok(each(rows, |row| (row.project_id, row.id)))
}
