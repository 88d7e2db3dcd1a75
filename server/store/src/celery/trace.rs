//! Tables `trace` and `open_trace`: the reported stages of each run, and the runs that have begun but not ended.

pub mod history;
pub mod stage;
pub mod task;
pub mod unbegun;

use std::collections::HashMap;

use chrono::{DateTime, TimeDelta, Utc};
use deadbeat_domain::celery::trace::{Stage, Trace};
use deadbeat_domain::ids::{MonitorId, ProjectId};
use sqlx::types::Json;
use uuid::Uuid;

use crate::monitor::batch::column;
use crate::{Reader, StoreResult, Tx};

/// A trace, and the run that it belongs to.
#[derive(Debug, Clone, PartialEq)]
pub struct Stored {
    /// The project.
    pub project_id: ProjectId,
    /// The client's run id.
    pub run_id: Uuid,
    /// The Celery application's name.
    pub app: String,
    /// The entry, if Beat sent the run.
    pub entry: Option<String>,
    /// The entry's monitor. It may have been deleted since.
    pub monitor_id: Option<MonitorId>,
    /// When the server received the first report about the run. Never changes.
    pub heard_first_at: DateTime<Utc>,
    /// Its reported stages.
    pub trace: Trace,
}

struct Row {
    project_id: Uuid,
    run_id: Uuid,
    app: String,
    entry: Option<String>,
    monitor_id: Option<Uuid>,
    task: Option<String>,
    task_id: Option<String>,
    slot: Option<DateTime<Utc>>,
    eta: Option<DateTime<Utc>>,
    published_at: Option<DateTime<Utc>>,
    heard_first_at: DateTime<Utc>,
    stages: Json<Vec<Stage>>,
    more_stages: i32,
    more_starts: i32,
}

impl From<Row> for Stored {
    fn from(row: Row) -> Self {
        Self {
            project_id: ProjectId(row.project_id),
            run_id: row.run_id,
            app: row.app,
            entry: row.entry,
            monitor_id: row.monitor_id.map(MonitorId),
            heard_first_at: row.heard_first_at,
            trace: Trace {
                task: row.task,
                task_id: row.task_id,
                slot: row.slot,
                eta: row.eta,
                published_at: row.published_at,
                stages: row.stages.0,
                more_stages: row.more_stages,
                more_starts: row.more_starts,
            },
        }
    }
}

macro_rules! select {
    ($tail:tt $(, $argument:expr)* $(,)?) => {
        sqlx::query_as!(
            Row,
            r#"
            SELECT trace.project_id, trace.run_id, app, entry, monitor_id, task, task_id, slot, eta, published_at, heard_first_at,
                stages AS "stages: Json<Vec<Stage>>", more_stages, more_starts
            FROM trace
            "# + $tail
            $(, $argument)*
        )
    };
}

/// Locks the stored traces of these runs. `runs` must be sorted by key, so that two writers never wait for each other.
///
/// # Errors
/// If the database is away, or a row cannot be read.
pub async fn lock(tx: &mut Tx, runs: &[(ProjectId, Uuid)]) -> StoreResult<Vec<Stored>> {
    let rows = select!(
        "JOIN UNNEST($1::uuid[], $2::uuid[]) WITH ORDINALITY AS asked (project_id, run_id, place)
            ON trace.project_id = asked.project_id AND trace.run_id = asked.run_id
        ORDER BY place
        FOR NO KEY UPDATE OF trace",
        &column(runs, |(project, _)| project.0),
        &column(runs, |(_, run)| *run),
    )
    .fetch_all(tx.conn())
    .await?;
    Ok(rows.into_iter().map(Stored::from).collect())
}

/// Writes traces that were not stored. False: another process has stored some of them in the meantime, so the caller
/// must start again.
///
/// # Errors
/// If the database is away.
pub async fn insert(tx: &mut Tx, new: &[&Stored]) -> StoreResult<bool> {
    let states = column(new, |one| one.trace.state());
    let done = sqlx::query!(
        "INSERT INTO trace (project_id, run_id, app, entry, monitor_id, task, task_id, state, queue, worker, slot, eta, published_at,
            received_at, started_at, finished_at, wait_seconds, run_seconds, attempts, retries, redelivered, error, heard_first_at,
            heard_at, stages, more_stages, more_starts)
        SELECT * FROM UNNEST($1::uuid[], $2::uuid[], $3::text[], $4::text[], $5::uuid[], $6::text[], $7::text[], $8::text[], $9::text[],
            $10::text[], $11::timestamptz[], $12::timestamptz[], $13::timestamptz[], $14::timestamptz[], $15::timestamptz[],
            $16::timestamptz[], $17::float8[], $18::float8[], $19::int4[], $20::int4[], $21::bool[], $22::text[], $23::timestamptz[],
            $24::timestamptz[], $25::jsonb[], $26::int4[], $27::int4[])
        ON CONFLICT DO NOTHING",
        &column(new, |one| one.project_id.0),
        &column(new, |one| one.run_id),
        &column(new, |one| one.app.as_str()) as &[&str],
        &column(new, |one| one.entry.as_deref()) as &[Option<&str>],
        &column(new, |one| one.monitor_id.map(|id| id.0)) as &[Option<Uuid>],
        &column(new, |one| one.trace.task.as_deref()) as &[Option<&str>],
        &column(new, |one| one.trace.task_id.as_deref()) as &[Option<&str>],
        &column(&states, |state| state.as_str()) as &[&str],
        &column(new, |one| one.trace.queue()) as &[Option<&str>],
        &column(new, |one| one.trace.worker()) as &[Option<&str>],
        &column(new, |one| one.trace.slot) as &[Option<DateTime<Utc>>],
        &column(new, |one| one.trace.eta) as &[Option<DateTime<Utc>>],
        &column(new, |one| one.trace.published_at) as &[Option<DateTime<Utc>>],
        &column(new, |one| one.trace.received_at()) as &[Option<DateTime<Utc>>],
        &column(new, |one| one.trace.started_at()) as &[Option<DateTime<Utc>>],
        &column(new, |one| one.trace.finished_at()) as &[Option<DateTime<Utc>>],
        &column(new, |one| one.trace.wait().map(seconds)) as &[Option<f64>],
        &column(new, |one| one.trace.run_seconds()) as &[Option<f64>],
        &column(new, |one| one.trace.attempts()),
        &column(new, |one| one.trace.retries()),
        &column(new, |one| one.trace.redelivered()),
        &column(new, |one| one.trace.error()) as &[Option<&str>],
        &column(new, |one| one.heard_first_at),
        &column(new, |one| one.trace.heard_at().unwrap_or(one.heard_first_at)),
        &column(new, |one| Json(&one.trace.stages)) as &[Json<&Vec<Stage>>],
        &column(new, |one| one.trace.more_stages),
        &column(new, |one| one.trace.more_starts),
    )
    .execute(tx.conn())
    .await?;
    Ok(done.rows_affected() == new.len() as u64)
}

/// Writes traces that were stored before. The caller holds their locks.
///
/// # Errors
/// If the database is away.
pub async fn update(tx: &mut Tx, changed: &[&Stored]) -> StoreResult<()> {
    let states = column(changed, |one| one.trace.state());
    sqlx::query!(
        "UPDATE trace
        SET task = new.task, task_id = new.task_id, state = new.state, queue = new.queue, worker = new.worker, slot = new.slot,
            eta = new.eta, published_at = new.published_at, received_at = new.received_at, started_at = new.started_at,
            finished_at = new.finished_at, wait_seconds = new.wait_seconds, run_seconds = new.run_seconds, attempts = new.attempts,
            retries = new.retries, redelivered = new.redelivered, error = new.error, heard_at = new.heard_at, stages = new.stages,
            more_stages = new.more_stages, more_starts = new.more_starts
        FROM UNNEST($1::uuid[], $2::uuid[], $3::text[], $4::text[], $5::text[], $6::text[], $7::text[], $8::timestamptz[],
            $9::timestamptz[], $10::timestamptz[], $11::timestamptz[], $12::timestamptz[], $13::timestamptz[], $14::float8[],
            $15::float8[], $16::int4[], $17::int4[], $18::bool[], $19::text[], $20::timestamptz[], $21::jsonb[], $22::int4[],
            $23::int4[])
            AS new (project_id, run_id, task, task_id, state, queue, worker, slot, eta, published_at, received_at, started_at,
                finished_at, wait_seconds, run_seconds, attempts, retries, redelivered, error, heard_at, stages, more_stages,
                more_starts)
        WHERE trace.project_id = new.project_id AND trace.run_id = new.run_id",
        &column(changed, |one| one.project_id.0),
        &column(changed, |one| one.run_id),
        &column(changed, |one| one.trace.task.as_deref()) as &[Option<&str>],
        &column(changed, |one| one.trace.task_id.as_deref()) as &[Option<&str>],
        &column(&states, |state| state.as_str()) as &[&str],
        &column(changed, |one| one.trace.queue()) as &[Option<&str>],
        &column(changed, |one| one.trace.worker()) as &[Option<&str>],
        &column(changed, |one| one.trace.slot) as &[Option<DateTime<Utc>>],
        &column(changed, |one| one.trace.eta) as &[Option<DateTime<Utc>>],
        &column(changed, |one| one.trace.published_at) as &[Option<DateTime<Utc>>],
        &column(changed, |one| one.trace.received_at()) as &[Option<DateTime<Utc>>],
        &column(changed, |one| one.trace.started_at()) as &[Option<DateTime<Utc>>],
        &column(changed, |one| one.trace.finished_at()) as &[Option<DateTime<Utc>>],
        &column(changed, |one| one.trace.wait().map(seconds)) as &[Option<f64>],
        &column(changed, |one| one.trace.run_seconds()) as &[Option<f64>],
        &column(changed, |one| one.trace.attempts()),
        &column(changed, |one| one.trace.retries()),
        &column(changed, |one| one.trace.redelivered()),
        &column(changed, |one| one.trace.error()) as &[Option<&str>],
        &column(changed, |one| one.trace.heard_at().unwrap_or(one.heard_first_at)),
        &column(changed, |one| Json(&one.trace.stages)) as &[Json<&Vec<Stage>>],
        &column(changed, |one| one.trace.more_stages),
        &column(changed, |one| one.trace.more_starts),
    )
    .execute(tx.conn())
    .await?;
    Ok(())
}

/// Notes which runs have begun (again, or in another worker), and which have ended. The caller holds the locks of their
/// traces, or has just inserted them.
///
/// # Errors
/// If the database is away.
pub async fn note_open(tx: &mut Tx, opened: &[&Stored], closed: &[&Stored]) -> StoreResult<()> {
    if !closed.is_empty() {
        let closed = column(closed, |one| (one.project_id, one.run_id));
        forget_open(tx, &closed).await?;
    }
    if !opened.is_empty() {
        sqlx::query!(
            "INSERT INTO open_trace (project_id, run_id, app, worker, started_at, heard_at)
            SELECT * FROM UNNEST($1::uuid[], $2::uuid[], $3::text[], $4::text[], $5::timestamptz[], $6::timestamptz[])
            ON CONFLICT (project_id, run_id) DO UPDATE SET worker = excluded.worker, heard_at = excluded.heard_at",
            &column(opened, |one| one.project_id.0),
            &column(opened, |one| one.run_id),
            &column(opened, |one| one.app.as_str()) as &[&str],
            &column(opened, |one| one.trace.worker()) as &[Option<&str>],
            &column(opened, |one| one.trace.started_at().unwrap_or(one.heard_first_at)),
            &column(opened, |one| one.trace.heard_at().unwrap_or(one.heard_first_at)),
        )
        .execute(tx.conn())
        .await?;
    }
    Ok(())
}

/// Finds runs that have begun, and whose end nobody will report:
/// * their worker has been gone since before `gone_before`;
/// * or the worker was restarted after they began, and no report about them came since. If several live processes have
///   the worker's name, this rule does not apply: nobody knows which of them began a run;
/// * or they began before `began_before`.
///
/// Locks nothing: a writer of stages locks the trace before the note of its run, and the reverse order could deadlock.
///
/// # Errors
/// If the database is away.
pub async fn abandoned(
    reader: &Reader,
    gone_before: DateTime<Utc>,
    began_before: DateTime<Utc>,
    limit: i64,
) -> StoreResult<Vec<(ProjectId, Uuid)>> {
    let rows = sqlx::query!(
        "SELECT open_trace.project_id, open_trace.run_id
        FROM open_trace
        LEFT JOIN worker
            ON worker.project_id = open_trace.project_id AND worker.app = open_trace.app AND worker.name = open_trace.worker
        WHERE open_trace.started_at < $2
            OR open_trace.heard_at < $1
                AND (
                    worker.id IS NULL
                    OR worker.status IN ('down', 'paused') AND worker.last_seen_at < $1
                    -- Clocks and ways differ by seconds.
                    OR jsonb_array_length(worker.incarnations) = 1
                        AND (worker.snapshot ->> 'started_at')::timestamptz > open_trace.started_at + interval '5 s'
                )
        ORDER BY open_trace.project_id, open_trace.run_id
        LIMIT $3",
        gone_before,
        began_before,
        limit
    )
    .fetch_all(reader.pool())
    .await?;
    Ok(rows
        .into_iter()
        .map(|row| (ProjectId(row.project_id), row.run_id))
        .collect())
}

/// Deletes the notes of begun runs.
///
/// # Errors
/// If the database is away.
pub async fn forget_open(tx: &mut Tx, runs: &[(ProjectId, Uuid)]) -> StoreResult<()> {
    sqlx::query!(
        "DELETE FROM open_trace
        USING UNNEST($1::uuid[], $2::uuid[]) AS old (project_id, run_id)
        WHERE open_trace.project_id = old.project_id AND open_trace.run_id = old.run_id",
        &column(runs, |(project, _)| project.0),
        &column(runs, |(_, run)| *run),
    )
    .execute(tx.conn())
    .await?;
    Ok(())
}

/// Returns a run with all its stages.
///
/// # Errors
/// When the database is away, or the row cannot be read.
pub async fn get(reader: &Reader, project: ProjectId, run: Uuid) -> StoreResult<Option<Stored>> {
    let row = select!(
        "WHERE trace.project_id = $1 AND trace.run_id = $2",
        project.0,
        run
    )
    .fetch_optional(reader.pool())
    .await?;
    Ok(row.map(Stored::from))
}

/// Returns when these runs were sent, by their senders' reports and the server's clock. Leaves out runs whose sender has not reported yet.
///
/// # Errors
/// If the database is away.
pub async fn sent_at(
    reader: &Reader,
    project: ProjectId,
    runs: &[Uuid],
) -> StoreResult<HashMap<Uuid, DateTime<Utc>>> {
    let rows = sqlx::query!(
        r#"SELECT run_id, published_at AS "published_at!"
        FROM trace
        WHERE project_id = $1 AND run_id = ANY($2) AND published_at IS NOT NULL AND stages @> '[{"kind": "published"}]'"#,
        project.0,
        runs
    )
    .fetch_all(reader.pool())
    .await?;
    Ok(rows
        .into_iter()
        .map(|row| (row.run_id, row.published_at))
        .collect())
}

/// Returns the first project after `after` that has traces. The project itself may have been deleted.
///
/// # Errors
/// If the database is away.
pub async fn next_project(tx: &mut Tx, after: Option<ProjectId>) -> StoreResult<Option<ProjectId>> {
    let found = sqlx::query_scalar!(
        "SELECT project_id FROM trace WHERE ($1::uuid IS NULL OR project_id > $1) ORDER BY project_id LIMIT 1",
        after.map(|id| id.0)
    )
    .fetch_optional(tx.conn())
    .await?;
    Ok(found.map(ProjectId))
}

/// Deletes at most `limit` of a project's traces whose first report came before `before`. Returns how many.
///
/// # Errors
/// If the database is away.
pub async fn trim(tx: &mut Tx, project: ProjectId, before: DateTime<Utc>, limit: i64) -> StoreResult<u64> {
    let done = sqlx::query!(
        "WITH old AS MATERIALIZED (
            SELECT run_id FROM trace WHERE project_id = $1 AND heard_first_at < $2 ORDER BY heard_first_at LIMIT $3
        ), note AS (
            DELETE FROM open_trace USING old WHERE open_trace.project_id = $1 AND open_trace.run_id = old.run_id
        )
        DELETE FROM trace USING old WHERE trace.project_id = $1 AND trace.run_id = old.run_id",
        project.0,
        before,
        limit
    )
    .execute(tx.conn())
    .await?;
    Ok(done.rows_affected())
}

/// Returns a span in seconds.
pub(crate) fn seconds(span: TimeDelta) -> f64 {
    span.num_microseconds().unwrap_or(i64::MAX) as f64 / 1e6
}
