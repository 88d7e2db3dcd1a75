//! Table `stage`: how far the newest run of a monitor got before it began.

use chrono::{DateTime, Utc};
use deadbeat_domain::ids::MonitorId;
use uuid::Uuid;

use crate::batch::column;
use crate::{StoreResult, Tx};

/// What is known of a run before it begins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stage {
    /// Whose run.
    pub monitor_id: MonitorId,
    /// The client's run id.
    pub run_id: Uuid,
    /// Celery's task id.
    pub task_id: Option<String>,
    /// Where it was sent to.
    pub queue: Option<String>,
    /// When it was sent.
    pub published_at: Option<DateTime<Utc>>,
    /// When a worker took it.
    pub received_at: Option<DateTime<Utc>>,
    /// Which one.
    pub worker: Option<String>,
    /// When the last of this was heard.
    pub heard_at: DateTime<Utc>,
}

/// Writes stages, at most one a monitor: what is new of the same run is added, and a newer run takes an older one's place.
///
/// # Errors
/// When the database is away.
pub async fn write(tx: &mut Tx, stages: &[Stage]) -> StoreResult<()> {
    sqlx::query!(
        "INSERT INTO stage AS stored (monitor_id, run_id, task_id, queue, published_at, received_at, worker, heard_at)
        SELECT new.*
        FROM UNNEST($1::uuid[], $2::uuid[], $3::text[], $4::text[], $5::timestamptz[], $6::timestamptz[], $7::text[], $8::timestamptz[])
            AS new (monitor_id, run_id, task_id, queue, published_at, received_at, worker, heard_at)
        JOIN monitor ON monitor.id = new.monitor_id
        ORDER BY new.monitor_id
        ON CONFLICT (monitor_id) DO UPDATE
        SET run_id = excluded.run_id, task_id = excluded.task_id,
            queue = CASE WHEN stored.run_id = excluded.run_id THEN coalesce(excluded.queue, stored.queue) ELSE excluded.queue END,
            published_at = CASE WHEN stored.run_id = excluded.run_id THEN coalesce(excluded.published_at, stored.published_at)
                ELSE excluded.published_at END,
            received_at = CASE WHEN stored.run_id = excluded.run_id THEN coalesce(excluded.received_at, stored.received_at)
                ELSE excluded.received_at END,
            worker = CASE WHEN stored.run_id = excluded.run_id THEN coalesce(excluded.worker, stored.worker) ELSE excluded.worker END,
            heard_at = greatest(stored.heard_at, excluded.heard_at)
        WHERE stored.run_id = excluded.run_id OR stored.heard_at <= excluded.heard_at",
        &column(stages, |stage| stage.monitor_id.0),
        &column(stages, |stage| stage.run_id),
        &column(stages, |stage| stage.task_id.clone()) as &[Option<String>],
        &column(stages, |stage| stage.queue.clone()) as &[Option<String>],
        &column(stages, |stage| stage.published_at) as &[Option<DateTime<Utc>>],
        &column(stages, |stage| stage.received_at) as &[Option<DateTime<Utc>>],
        &column(stages, |stage| stage.worker.clone()) as &[Option<String>],
        &column(stages, |stage| stage.heard_at),
    )
    .execute(tx.conn())
    .await?;
    Ok(())
}

/// What is known of these monitors' newest runs.
///
/// # Errors
/// When the database is away.
pub async fn of_monitors(tx: &mut Tx, monitors: &[Uuid]) -> StoreResult<Vec<Stage>> {
    let rows = sqlx::query!(
        "SELECT monitor_id, run_id, task_id, queue, published_at, received_at, worker, heard_at FROM stage WHERE monitor_id = ANY($1)",
        monitors
    )
    .fetch_all(tx.conn())
    .await?;
    Ok(rows
        .into_iter()
        .map(|row| Stage {
            monitor_id: MonitorId(row.monitor_id),
            run_id: row.run_id,
            task_id: row.task_id,
            queue: row.queue,
            published_at: row.published_at,
            received_at: row.received_at,
            worker: row.worker,
            heard_at: row.heard_at,
        })
        .collect())
}
