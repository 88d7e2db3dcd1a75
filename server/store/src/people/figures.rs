//! Figures of one project.

use chrono::{DateTime, Utc};
use deadbeat_domain::ids::ProjectId;

use crate::{Reader, StoreResult};

/// Sums over the things of a project.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ProjectFigures {
    /// Monitors by the status that is shown: new, up, late, down, paused.
    pub monitors: [i64; 5],
    /// Incidents that are open.
    pub open_incidents: i64,
    /// Open incidents that nobody has acknowledged.
    pub unacknowledged_incidents: i64,
    /// Deliveries that wait to be sent.
    pub pending_deliveries: i64,
    /// Channels.
    pub channels: i64,
}

/// Returns the figures of a project.
///
/// # Errors
/// When the database is away.
pub async fn read(reader: &Reader, project: ProjectId, now: DateTime<Utc>) -> StoreResult<ProjectFigures> {
    let monitors = crate::monitor::counts(reader, project, now).await?;
    let row = sqlx::query!(
        r#"SELECT
            (SELECT count(*) FROM incident WHERE project_id = $1 AND resolved_at IS NULL) AS "open!",
            (SELECT count(*) FROM incident WHERE project_id = $1 AND resolved_at IS NULL AND acknowledged_at IS NULL) AS "unacknowledged!",
            (SELECT count(*) FROM delivery WHERE project_id = $1 AND status = 'pending') AS "pending!",
            (SELECT count(*) FROM channel WHERE project_id = $1) AS "channels!""#,
        project.0
    )
    .fetch_one(reader.pool())
    .await?;
    Ok(ProjectFigures {
        monitors,
        open_incidents: row.open,
        unacknowledged_incidents: row.unacknowledged,
        pending_deliveries: row.pending,
        channels: row.channels,
    })
}
