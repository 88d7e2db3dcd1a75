//! Table `baseline`: how long the runs of Beat's entries take. [`crate::monitor::batch::write`] updates it from
//! successful runs.

use deadbeat_domain::ids::{MonitorId, MonitorKey};
use deadbeat_domain::monitor::baseline::Baseline;

use crate::monitor::batch::column;
use crate::{StoreResult, Tx};

/// Makes monitors learn how long their runs take, or changes whether the learned length limits the runs.
///
/// # Errors
/// If the database is away.
pub async fn begin(tx: &mut Tx, monitors: &[(MonitorKey, bool)]) -> StoreResult<()> {
    sqlx::query!(
        "INSERT INTO baseline (project_id, monitor_id, bounds, runs, usual, shortest, longest)
        SELECT project_id, monitor_id, bounds, 0, 0, 0, 0
        FROM UNNEST($1::uuid[], $2::bool[], $3::uuid[]) AS new (monitor_id, bounds, project_id)
        ON CONFLICT (monitor_id, project_id) DO UPDATE SET bounds = excluded.bounds WHERE baseline.bounds <> excluded.bounds",
        &column(monitors, |((_, id), _)| id.0),
        &column(monitors, |(_, bounds)| *bounds),
        &column(monitors, |((project, _), _)| project.0)
    )
    .execute(tx.conn())
    .await?;
    Ok(())
}

/// Returns the learned lengths of these monitors' runs.
///
/// # Errors
/// If the database is away.
pub async fn of_monitors(tx: &mut Tx, monitors: &[MonitorKey]) -> StoreResult<Vec<(MonitorId, Baseline)>> {
    let rows = sqlx::query!(
        // OFFSET stops PostgreSQL from joining the whole table. So it finds each monitor's row by the key, however few
        // rows there are.
        "SELECT learned.*
        FROM UNNEST($1::uuid[], $2::uuid[]) AS asked (monitor_id, project_id)
            CROSS JOIN LATERAL (
                SELECT monitor_id, bounds, runs, usual, shortest, longest, odd
                FROM baseline
                WHERE baseline.project_id = asked.project_id AND baseline.monitor_id = asked.monitor_id
                OFFSET 0
            ) AS learned",
        &column(monitors, |(_, id)| id.0),
        &column(monitors, |(project, _)| project.0)
    )
    .fetch_all(tx.conn())
    .await?;
    let read = rows.into_iter().map(|row| {
        let baseline = Baseline {
            bounds: row.bounds,
            runs: row.runs,
            usual: row.usual,
            shortest: row.shortest,
            longest: row.longest,
            odd: row.odd,
        };
        (MonitorId(row.monitor_id), baseline)
    });
    Ok(read.collect())
}
