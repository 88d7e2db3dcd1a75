//! Table `baseline`: how long the runs of Beat's entries take. It is learned in [`crate::monitor::batch::write`].

use deadbeat_domain::ids::MonitorId;
use deadbeat_domain::monitor::baseline::Baseline;
use uuid::Uuid;

use crate::monitor::batch::column;
use crate::{StoreResult, Tx};

/// Begins to learn how long the runs of monitors take, or notes whether that bounds them.
///
/// # Errors
/// When the database is away.
pub async fn begin(tx: &mut Tx, monitors: &[(MonitorId, bool)]) -> StoreResult<()> {
    sqlx::query!(
        "INSERT INTO baseline (monitor_id, bounds, runs, usual, shortest, longest)
        SELECT monitor_id, bounds, 0, 0, 0, 0 FROM UNNEST($1::uuid[], $2::bool[]) AS new (monitor_id, bounds)
        ON CONFLICT (monitor_id) DO UPDATE SET bounds = excluded.bounds WHERE baseline.bounds <> excluded.bounds",
        &column(monitors, |(id, _)| id.0),
        &column(monitors, |(_, bounds)| *bounds)
    )
    .execute(tx.conn())
    .await?;
    Ok(())
}

/// What was learned of these monitors.
///
/// # Errors
/// When the database is away.
pub async fn of_monitors(tx: &mut Tx, monitors: &[Uuid]) -> StoreResult<Vec<(MonitorId, Baseline)>> {
    let rows = sqlx::query!(
        "SELECT monitor_id, bounds, runs, usual, shortest, longest, odd FROM baseline WHERE monitor_id = ANY($1)",
        monitors
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
