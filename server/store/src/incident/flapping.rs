//! Table `incident`: incidents of monitors that no longer flap.

use deadbeat_domain::ids::MonitorKey;
use deadbeat_domain::incident::Fact;

use super::{Incident, Row};
use crate::error::each;
use crate::monitor::batch::column;
use crate::{StoreError, StoreResult, Tx, Unreadable};

/// Notes that monitors no longer flap while their incidents stay open, each with a fact for the evidence. Returns the
/// incidents.
///
/// # Errors
/// If the database is away.
pub async fn end_flapping(
    tx: &mut Tx,
    monitors: &[(MonitorKey, Fact)],
) -> StoreResult<Vec<Result<Incident, Unreadable>>> {
    let facts: Vec<serde_json::Value> = monitors
        .iter()
        .map(|(_, fact)| serde_json::to_value(fact).map_err(|error| StoreError::Corrupt(error.to_string())))
        .collect::<StoreResult<_>>()?;
    let rows = sqlx::query_as!(
        Row,
        "UPDATE incident
        SET flapping = false, evidence = evidence || calm.fact
        FROM UNNEST($1::uuid[], $2::uuid[], $3::jsonb[]) AS calm (project_id, monitor_id, fact)
        WHERE incident.project_id = calm.project_id AND subject_kind = 'monitor' AND subject_id = calm.monitor_id AND resolved_at IS NULL
            AND flapping
        RETURNING incident.id, incident.project_id, subject_kind, subject_id, subject_name, cause, summary, evidence, repair, opened_at,
            resolved_at, acknowledged_at, acknowledged_by, remind_at, inferred, severity, flapping",
        &column(monitors, |((project, _), _)| project.0),
        &column(monitors, |((_, id), _)| id.0),
        &facts
    )
    .fetch_all(tx.conn())
    .await?;
    Ok(each(rows, |row| (row.project_id, row.id)))
}
