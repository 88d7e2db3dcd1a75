//! Table `run`. It is written by [`crate::batch::write`].

use std::collections::HashMap;

use chrono::{DateTime, TimeDelta, Utc};
use deadbeat_domain::ids::{MonitorId, ProjectId, RunKey};
use deadbeat_domain::run::{Contest, Outcome, Run, RunDetail, RunStatus};
use uuid::Uuid;

use crate::monitor::Stateful;
use crate::page::Page;
use crate::{Reader, StoreError, StoreResult, Tx};

struct Row {
    id: Uuid,
    monitor_id: Uuid,
    run_id: Option<Uuid>,
    status: String,
    started_at: Option<DateTime<Utc>>,
    finished_at: Option<DateTime<Utc>>,
    deadline_at: Option<DateTime<Utc>>,
    duration_ms: Option<i64>,
    exit_code: Option<i16>,
    task: Option<String>,
    task_id: Option<String>,
    worker: Option<String>,
    retries: i32,
    error: Option<String>,
    outcome: Option<String>,
    attempt: Option<Uuid>,
    attempts: i32,
    contest: Option<String>,
    events: Vec<Uuid>,
}

impl TryFrom<Row> for Run {
    type Error = StoreError;

    fn try_from(row: Row) -> StoreResult<Self> {
        Ok(Self {
            key: RunKey(row.id),
            run_id: row.run_id,
            status: RunStatus::parse(&row.status)
                .ok_or_else(|| StoreError::Corrupt(format!("run status {}", row.status)))?,
            started_at: row.started_at,
            finished_at: row.finished_at,
            deadline_at: row.deadline_at,
            duration: row.duration_ms.map(TimeDelta::milliseconds),
            exit_code: row.exit_code.and_then(|code| u8::try_from(code).ok()),
            detail: RunDetail {
                task: row.task,
                task_id: row.task_id,
                worker: row.worker,
                retries: row.retries,
                error: row.error,
                outcome: row.outcome.as_deref().and_then(Outcome::parse),
                attempt: row.attempt,
                published_at: None,
                event: None,
                is_retried: false,
            },
            attempts: row.attempts,
            contest: row.contest.as_deref().and_then(Contest::parse),
            events: row.events,
        })
    }
}

/// Loads into locked monitors what the rules need: their open runs, and what they have of the given run ids, since a start or an end
/// may come late; and how long their runs take.
///
/// # Errors
/// When the database is away, or a row cannot be read.
pub async fn load_into<M: Stateful>(tx: &mut Tx, monitors: &mut [M], run_ids: &[Uuid]) -> StoreResult<()> {
    if monitors.iter().all(|monitor| monitor.open_runs() == 0) && run_ids.is_empty() {
        return Ok(());
    }
    let ids: Vec<Uuid> = monitors.iter().map(|monitor| monitor.id().0).collect();
    let rows = sqlx::query_as!(
        Row,
        "SELECT id, monitor_id, run_id, status, started_at, finished_at, deadline_at, duration_ms, exit_code, task, task_id, worker,
            retries, error, outcome, attempt, attempts, contest, events
        FROM run
        WHERE monitor_id = ANY($1)
            AND (status = 'open' OR run_id = ANY($2))
        ORDER BY id",
        &ids,
        run_ids
    )
    .fetch_all(tx.conn())
    .await?;
    let places: HashMap<Uuid, usize> = ids.iter().copied().zip(0..).collect();
    for row in rows {
        if let Some(&place) = places.get(&row.monitor_id) {
            monitors[place].state_mut().runs.push(Run::try_from(row)?);
        }
    }
    for (id, baseline) in crate::baseline::of_monitors(tx, &ids).await? {
        if let Some(&place) = places.get(&id.0) {
            monitors[place].state_mut().baseline = Some(baseline);
        }
    }
    Ok(())
}

/// A monitor's runs, newest first.
///
/// # Errors
/// When the database is away, or a row cannot be read.
pub async fn list(
    reader: &Reader,
    project: ProjectId,
    monitor: MonitorId,
    page: Page<Uuid>,
) -> StoreResult<Vec<Run>> {
    let rows = sqlx::query_as!(
        Row,
        "SELECT id, monitor_id, run_id, status, started_at, finished_at, deadline_at, duration_ms, exit_code, task, task_id, worker,
            retries, error, outcome, attempt, attempts, contest, events
        FROM run
        WHERE monitor_id = (SELECT id FROM monitor WHERE project_id = $1 AND id = $2)
            AND ($3::uuid IS NULL OR id < $3)
        ORDER BY id DESC
        LIMIT $4",
        project.0,
        monitor.0,
        page.after,
        page.limit
    )
    .fetch_all(reader.pool())
    .await?;
    rows.into_iter().map(Run::try_from).collect()
}
