//! Table `run`. [`crate::monitor::batch::write`] writes it.

use std::collections::HashMap;

use chrono::{DateTime, TimeDelta, Utc};
use deadbeat_domain::ids::{MonitorId, MonitorKey, ProjectId, RunKey};
use deadbeat_domain::monitor::run::orphan::{Orphan, Orphaned};
use deadbeat_domain::monitor::run::{Contest, Outcome, Run, RunDetail, RunStatus};
use uuid::Uuid;

use crate::monitor::Stateful;
use crate::monitor::batch::column;
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
    incarnation: Option<Uuid>,
    acks_late: bool,
    orphaned: Option<String>,
    orphaned_at: Option<DateTime<Utc>>,
    ended_at: Option<DateTime<Utc>>,
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
            ended_at: row.ended_at,
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
                incarnation: row.incarnation,
                acks_late: row.acks_late,
            },
            attempts: row.attempts,
            contest: row.contest.as_deref().and_then(Contest::parse),
            events: row.events,
            orphan: row
                .orphaned_at
                .zip(row.orphaned.as_deref().and_then(Orphaned::parse))
                .map(|(since, how)| Orphan { since, how }),
        })
    }
}

/// The most ended runs of one run id that a signal loads, newest first. A late start or end belongs to one of these.
pub const LOADED_RUNS_OF_ID: i64 = 8;
/// The most ended runs of one run id that a monitor keeps. A client may send the same run id with every ping, and each
/// end adds a row.
pub const KEPT_RUNS_OF_ID: i64 = 100;
/// The most ended runs of one run id that one call of [`prune`] deletes. It is more than a batch can add, so the number
/// of kept runs shrinks to the limit.
const PRUNED_AT_ONCE: i64 = 1_024;

/// Loads the runs and baselines of locked monitors that the rules need: open runs, the newest ended runs of the run ids that signals name (`named`: a
/// monitor and a run id), and the usual duration.
///
/// It reads at most [`deadbeat_domain::limits::OPEN_RUNS`] rows for each monitor, and [`LOADED_RUNS_OF_ID`] for each named run id.
///
/// # Errors
/// When the database is away, or a row cannot be read.
pub async fn load_into<M: Stateful>(
    tx: &mut Tx,
    monitors: &mut [M],
    named: &[(MonitorId, Uuid)],
) -> StoreResult<()> {
    if monitors.iter().all(|monitor| monitor.open_runs() == 0) && named.is_empty() {
        return Ok(());
    }
    let keys: Vec<MonitorKey> = monitors.iter().map(Stateful::key).collect();
    let places: HashMap<MonitorId, usize> = keys.iter().map(|(_, id)| *id).zip(0..).collect();
    let named: Vec<(MonitorKey, Uuid)> = named
        .iter()
        .filter_map(|(monitor, run_id)| Some((keys[*places.get(monitor)?], *run_id)))
        .collect();
    let rows = sqlx::query_as!(
        Row,
        r#"SELECT id AS "id!", monitor_id AS "monitor_id!", run_id, status AS "status!", started_at, finished_at, deadline_at, duration_ms,
            exit_code, task, task_id, worker, retries AS "retries!", error, outcome, attempt, attempts AS "attempts!", contest,
            events AS "events!", incarnation, acks_late AS "acks_late!", orphaned, orphaned_at, ended_at
        FROM (
            SELECT open.*
            FROM UNNEST($1::uuid[], $5::uuid[]) AS asked (monitor_id, project_id)
                -- OFFSET keeps the question one of each monitor, which the index `run_open` answers, however few runs are open.
                CROSS JOIN LATERAL (
                    SELECT run.*
                    FROM run
                    WHERE run.project_id = asked.project_id AND run.monitor_id = asked.monitor_id AND status = 'open'
                    OFFSET 0
                ) AS open
            UNION ALL
            SELECT ended.*
            FROM UNNEST($2::uuid[], $3::uuid[], $6::uuid[]) AS named (monitor_id, run_id, project_id)
                CROSS JOIN LATERAL (
                    SELECT run.*
                    FROM run
                    WHERE run.project_id = named.project_id AND run.monitor_id = named.monitor_id AND run.run_id = named.run_id
                        AND status <> 'open'
                    ORDER BY id DESC
                    LIMIT $4
                ) AS ended
        ) AS wanted
        ORDER BY id"#,
        &column(&keys, |(_, monitor)| monitor.0),
        &column(&named, |((_, monitor), _)| monitor.0),
        &column(&named, |(_, run_id)| *run_id),
        LOADED_RUNS_OF_ID,
        &column(&keys, |(project, _)| project.0),
        &column(&named, |((project, _), _)| project.0)
    )
    .fetch_all(tx.conn())
    .await?;
    for row in rows {
        if let Some(&place) = places.get(&MonitorId(row.monitor_id)) {
            monitors[place].state_mut().runs.push(Run::try_from(row)?);
        }
    }
    for (id, baseline) in crate::monitor::baseline::of_monitors(tx, &keys).await? {
        if let Some(&place) = places.get(&id) {
            monitors[place].state_mut().baseline = Some(baseline);
        }
    }
    Ok(())
}

/// Deletes the ended runs of these monitors and run ids beyond the newest [`KEPT_RUNS_OF_ID`]. The caller holds the
/// monitors' locks.
///
/// The work of one call is bounded. A longer backlog shrinks with every call.
///
/// # Errors
/// If the database is away.
pub async fn prune(tx: &mut Tx, named: &[(MonitorKey, Uuid)]) -> StoreResult<u64> {
    let done = sqlx::query!(
        // Pass the ids as one list: with a join, PostgreSQL may read all runs of the project to find them.
        "DELETE FROM run
        WHERE project_id = ANY($5) AND monitor_id = ANY($1) AND id = ANY(ARRAY(
            SELECT surplus.id
            FROM UNNEST($1::uuid[], $2::uuid[], $5::uuid[]) AS named (monitor_id, run_id, project_id)
                CROSS JOIN LATERAL (
                    SELECT run.id
                    FROM run
                    WHERE run.project_id = named.project_id AND run.monitor_id = named.monitor_id AND run.run_id = named.run_id
                        AND status <> 'open'
                    ORDER BY run.id DESC
                    OFFSET $3
                    LIMIT $4
                ) AS surplus
        ))",
        &column(named, |((_, monitor), _)| monitor.0),
        &column(named, |(_, run_id)| *run_id),
        KEPT_RUNS_OF_ID,
        PRUNED_AT_ONCE,
        &column(named, |((project, _), _)| project.0)
    )
    .execute(tx.conn())
    .await?;
    Ok(done.rows_affected())
}

/// Returns a monitor's runs, newest first.
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
            retries, error, outcome, attempt, attempts, contest, events, incarnation, acks_late, orphaned, orphaned_at, ended_at
        FROM run
        WHERE project_id = $1 AND monitor_id = (SELECT id FROM monitor WHERE project_id = $1 AND id = $2)
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
