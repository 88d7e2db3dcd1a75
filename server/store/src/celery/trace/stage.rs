//! Finds out how far the newest run of a monitor got, from table `trace`.

use chrono::{DateTime, Utc};
use deadbeat_domain::ids::{MonitorId, ProjectId};
use uuid::Uuid;

use crate::monitor::batch::column;
use crate::{StoreResult, Tx};

/// The last stages of a run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunProgress {
    /// The run's monitor.
    pub monitor_id: MonitorId,
    /// The client's run id.
    pub run_id: Uuid,
    /// Celery's task id.
    pub task_id: Option<String>,
    /// The queue that it was sent to.
    pub queue: Option<String>,
    /// When it was sent.
    pub published_at: Option<DateTime<Utc>>,
    /// When a worker received it.
    pub received_at: Option<DateTime<Utc>>,
    /// When it first began.
    pub started_at: Option<DateTime<Utc>>,
    /// When it ended.
    pub finished_at: Option<DateTime<Utc>>,
    /// The number of attempts that began.
    pub attempts: i32,
    /// The worker that reported it last.
    pub worker: Option<String>,
    /// When its last stage was reported.
    pub heard_at: DateTime<Utc>,
    /// True if a worker dropped the message because it was too old.
    pub is_expired: bool,
}

/// Returns how far one run of each of these monitors got. That is the first run sent since an instant or, without one, the newest run.
///
/// # Errors
/// If the database is away.
pub async fn of_monitors(
    tx: &mut Tx,
    monitors: &[(ProjectId, MonitorId)],
    since: &[Option<DateTime<Utc>>],
) -> StoreResult<Vec<RunProgress>> {
    let rows = sqlx::query!(
        // The run with the newest report is not always the one sent last. So read a few runs, and choose among them.
        r#"
        SELECT asked.id AS "monitor_id!", newest.run_id, newest.task_id, newest.queue, newest.published_at, newest.received_at,
            newest.started_at, newest.finished_at, newest.attempts, newest.worker, newest.heard_at,
            newest.state = 'expired' AS "is_expired!"
        FROM UNNEST($1::uuid[], $2::timestamptz[], $3::uuid[]) AS asked (id, since, project_id)
        CROSS JOIN LATERAL (
            SELECT run_id, task_id, queue, published_at, received_at, started_at, finished_at, attempts, worker, heard_at, state
            FROM (
                SELECT *
                FROM trace
                -- Not `=`: before the table is analyzed, PostgreSQL would read the index of the whole project beside the monitor's.
                WHERE monitor_id = asked.id AND trace.project_id IS NOT DISTINCT FROM asked.project_id
                ORDER BY heard_first_at DESC
                LIMIT 64
            ) AS recent
            ORDER BY coalesce(published_at >= asked.since, false) DESC,
                CASE WHEN published_at >= asked.since THEN published_at END,
                coalesce(published_at, heard_first_at) DESC, heard_at DESC
            LIMIT 1
        ) AS newest
        "#,
        &column(monitors, |(_, id)| id.0),
        since as &[Option<DateTime<Utc>>],
        &column(monitors, |(project, _)| project.0)
    )
    .fetch_all(tx.conn())
    .await?;
    Ok(rows
        .into_iter()
        .map(|row| RunProgress {
            monitor_id: MonitorId(row.monitor_id),
            run_id: row.run_id,
            task_id: row.task_id,
            queue: row.queue,
            published_at: row.published_at,
            received_at: row.received_at,
            started_at: row.started_at,
            finished_at: row.finished_at,
            attempts: row.attempts,
            worker: row.worker,
            heard_at: row.heard_at,
            is_expired: row.is_expired,
        })
        .collect())
}
