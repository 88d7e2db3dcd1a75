//! Tables `trace` and `open_trace`: what was told of each run, and which runs have begun and not ended.

use std::fmt;
use std::str::FromStr;

use chrono::{DateTime, TimeDelta, Utc};
use deadbeat_domain::ids::{MonitorId, ProjectId};
use deadbeat_domain::limits::{TASK_RUNS_LOOKED_AT, TASKS_SHOWN};
use deadbeat_domain::trace::{Outcome, Stage, Trace, TraceState};
use sqlx::types::Json;
use uuid::Uuid;

use crate::batch::column;
use crate::page::Page;
use crate::{Reader, StoreError, StoreResult, Tx};

/// A trace with whose it is.
#[derive(Debug, Clone, PartialEq)]
pub struct Stored {
    /// The project.
    pub project_id: ProjectId,
    /// The client's run id.
    pub run_id: Uuid,
    /// The Celery application's name.
    pub app: String,
    /// Of what Beat sent: the entry.
    pub entry: Option<String>,
    /// The entry's monitor; it may be gone since.
    pub monitor_id: Option<MonitorId>,
    /// When the first of it was heard: never changes.
    pub heard_first_at: DateTime<Utc>,
    /// What was told.
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

/// Locks what is stored of these runs, in the order of the keys, which must be sorted: so two writers never wait for each other.
///
/// # Errors
/// When the database is away, or a row cannot be read.
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

/// Writes traces that were not there. False: some of them are there by now, since another process was quicker; all is to be done again.
///
/// # Errors
/// When the database is away.
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

/// Writes traces that were there. The caller holds their locks.
///
/// # Errors
/// When the database is away.
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

/// Notes which runs have begun (anew, or elsewhere) and which have ended. The caller holds the locks of their traces, or has just written them.
///
/// # Errors
/// When the database is away.
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

/// Runs that have begun, of which nobody will tell the end: their worker has been gone since before `gone_before`, or they began before
/// `began_before`. Nothing is locked: who writes stages takes the trace first, and this note of it then.
///
/// # Errors
/// When the database is away.
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
                AND (worker.id IS NULL OR worker.status IN ('down', 'paused') AND worker.last_seen_at < $1)
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

/// Removes notes of runs that have begun.
///
/// # Errors
/// When the database is away.
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

/// What a list of runs is narrowed to.
#[derive(Debug, Clone, Default)]
pub struct Filter {
    /// The task's name.
    pub task: Option<String>,
    /// The run that Celery's task id names.
    pub run_id: Option<Uuid>,
    /// Any of these.
    pub states: Option<Vec<TraceState>>,
    /// The worker's node name.
    pub worker: Option<String>,
    /// The queue.
    pub queue: Option<String>,
    /// The monitor.
    pub monitor_id: Option<MonitorId>,
    /// First heard at or after this.
    pub from: Option<DateTime<Utc>>,
    /// First heard before this.
    pub to: Option<DateTime<Utc>>,
}

/// A place in the list of runs, newest first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    /// When the run was first heard of.
    pub heard_first_at: DateTime<Utc>,
    /// Among those of one instant.
    pub run_id: Uuid,
}

/// As a cursor: microseconds since 1970, and the run id.
impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}-{}",
            self.heard_first_at.timestamp_micros(),
            self.run_id.simple()
        )
    }
}

impl FromStr for Place {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let (micros, run_id) = text.split_once('-').ok_or(())?;
        let micros: u64 = micros.parse().map_err(|_| ())?;
        let micros = i64::try_from(micros).map_err(|_| ())?;
        Ok(Self {
            heard_first_at: DateTime::from_timestamp_micros(micros).ok_or(())?,
            run_id: Uuid::try_parse(run_id).map_err(|_| ())?,
        })
    }
}

/// A run as a list shows it.
#[derive(Debug, Clone, PartialEq)]
pub struct Summary {
    /// The client's run id.
    pub run_id: Uuid,
    /// The Celery application's name.
    pub app: String,
    /// Of what Beat sent: the entry.
    pub entry: Option<String>,
    /// The entry's monitor; it may be gone since.
    pub monitor_id: Option<MonitorId>,
    /// The task's name.
    pub task: Option<String>,
    /// Celery's task id.
    pub task_id: Option<String>,
    /// How it stands.
    pub state: TraceState,
    /// Its queue.
    pub queue: Option<String>,
    /// The worker that was last heard of it.
    pub worker: Option<String>,
    /// Since when its entry was due.
    pub slot: Option<DateTime<Utc>>,
    /// Not to be run before.
    pub eta: Option<DateTime<Utc>>,
    /// When it was published.
    pub published_at: Option<DateTime<Utc>>,
    /// When a worker took it.
    pub received_at: Option<DateTime<Utc>>,
    /// When it first began.
    pub started_at: Option<DateTime<Utc>>,
    /// When it ended.
    pub finished_at: Option<DateTime<Utc>>,
    /// From its publishing, or its ETA, to its first start.
    pub wait_seconds: Option<f64>,
    /// Of its last attempt.
    pub run_seconds: Option<f64>,
    /// Attempts that began.
    pub attempts: i32,
    /// Celery's count of retries.
    pub retries: i32,
    /// Whether the broker delivered it more than once.
    pub redelivered: bool,
    /// The last exception's class.
    pub error: Option<String>,
    /// When the first of it was heard.
    pub heard_first_at: DateTime<Utc>,
    /// When the last of it happened.
    pub heard_at: DateTime<Utc>,
}

impl Summary {
    /// Where it stands in the list.
    #[must_use]
    pub fn place(&self) -> Place {
        Place {
            heard_first_at: self.heard_first_at,
            run_id: self.run_id,
        }
    }
}

impl From<&Stored> for Summary {
    fn from(stored: &Stored) -> Self {
        let trace = &stored.trace;
        Self {
            run_id: stored.run_id,
            app: stored.app.clone(),
            entry: stored.entry.clone(),
            monitor_id: stored.monitor_id,
            task: trace.task.clone(),
            task_id: trace.task_id.clone(),
            state: trace.state(),
            queue: trace.queue().map(str::to_owned),
            worker: trace.worker().map(str::to_owned),
            slot: trace.slot,
            eta: trace.eta,
            published_at: trace.published_at,
            received_at: trace.received_at(),
            started_at: trace.started_at(),
            finished_at: trace.finished_at(),
            wait_seconds: trace.wait().map(seconds),
            run_seconds: trace.run_seconds(),
            attempts: trace.attempts(),
            retries: trace.retries(),
            redelivered: trace.redelivered(),
            error: trace.error().map(str::to_owned),
            heard_first_at: stored.heard_first_at,
            heard_at: trace.heard_at().unwrap_or(stored.heard_first_at),
        }
    }
}

/// A project's runs, newest first: of the next `looked_at` runs after the page's place those that the filter lets through. Answers where
/// to go on looking; None: that was all.
///
/// # Errors
/// When the database is away, or a row cannot be read.
pub async fn list(
    reader: &Reader,
    project: ProjectId,
    filter: &Filter,
    page: Page<Place>,
    looked_at: i64,
) -> StoreResult<(Vec<Summary>, Option<Place>)> {
    let states: Option<Vec<String>> = filter
        .states
        .as_ref()
        .map(|states| states.iter().map(|state| state.as_str().to_owned()).collect());
    let rows = sqlx::query!(
        r#"
        WITH near AS MATERIALIZED (
            -- One of these, by the index that serves it; the others end before they begin.
            (
                SELECT run_id, heard_first_at, state, worker, queue, task, monitor_id
                FROM trace
                WHERE $6::text IS NULL AND $7::uuid IS NULL AND $8::uuid IS NULL AND project_id = $1
                    AND heard_first_at >= coalesce($2, '-infinity'::timestamptz)
                    AND heard_first_at < coalesce($3, 'infinity'::timestamptz)
                    AND (heard_first_at, run_id) < (coalesce($4, 'infinity'::timestamptz), $5::uuid)
                ORDER BY heard_first_at DESC, run_id DESC
                LIMIT $12
            )
            UNION ALL (
                SELECT run_id, heard_first_at, state, worker, queue, task, monitor_id
                FROM trace
                WHERE $6 IS NOT NULL AND $7 IS NULL AND $8 IS NULL AND task = $6 AND project_id = $1
                    AND heard_first_at >= coalesce($2, '-infinity'::timestamptz)
                    AND heard_first_at < coalesce($3, 'infinity'::timestamptz)
                    AND (heard_first_at, run_id) < (coalesce($4, 'infinity'::timestamptz), $5::uuid)
                ORDER BY heard_first_at DESC, run_id DESC
                LIMIT $12
            )
            UNION ALL (
                SELECT run_id, heard_first_at, state, worker, queue, task, monitor_id
                FROM trace
                WHERE $7 IS NULL AND $8 IS NOT NULL AND monitor_id = $8 AND project_id = $1
                    AND heard_first_at >= coalesce($2, '-infinity'::timestamptz)
                    AND heard_first_at < coalesce($3, 'infinity'::timestamptz)
                    AND (heard_first_at, run_id) < (coalesce($4, 'infinity'::timestamptz), $5::uuid)
                ORDER BY heard_first_at DESC, run_id DESC
                LIMIT $12
            )
            UNION ALL (
                SELECT run_id, heard_first_at, state, worker, queue, task, monitor_id
                FROM trace
                WHERE $7 IS NOT NULL AND run_id = $7 AND project_id = $1
                    AND heard_first_at >= coalesce($2, '-infinity'::timestamptz)
                    AND heard_first_at < coalesce($3, 'infinity'::timestamptz)
                    AND (heard_first_at, run_id) < (coalesce($4, 'infinity'::timestamptz), $5::uuid)
                ORDER BY heard_first_at DESC, run_id DESC
                LIMIT $12
            )
        ), seen AS MATERIALIZED (
            SELECT run_id, heard_first_at,
                ($6 IS NULL OR task = $6) AND ($8 IS NULL OR monitor_id = $8) AND ($9::text[] IS NULL OR state = ANY($9))
                    AND ($10::text IS NULL OR worker = $10) AND ($11::text IS NULL OR queue = $11) AS is_wanted
            FROM near
        ), wanted AS (
            SELECT run_id, heard_first_at FROM seen WHERE is_wanted ORDER BY heard_first_at DESC, run_id DESC LIMIT $13
        ), last AS (
            SELECT run_id, heard_first_at FROM seen ORDER BY heard_first_at, run_id LIMIT 1
        )
        SELECT trace.run_id, app, entry, monitor_id, task, task_id, state, queue, worker, slot, eta, published_at, received_at, started_at,
            finished_at, wait_seconds, run_seconds, attempts, retries, redelivered, error, trace.heard_first_at, heard_at,
            wanted.run_id IS NOT NULL AS "is_wanted!", (SELECT count(*) FROM seen) AS "seen!"
        FROM (SELECT run_id FROM wanted UNION SELECT run_id FROM last) AS found
        JOIN trace ON trace.project_id = $1 AND trace.run_id = found.run_id
        LEFT JOIN wanted ON wanted.run_id = found.run_id
        ORDER BY trace.heard_first_at DESC, trace.run_id DESC
        "#,
        project.0,
        filter.from,
        filter.to,
        page.after.map(|place| place.heard_first_at),
        page.after.map_or(Uuid::max(), |place| place.run_id),
        filter.task,
        filter.run_id,
        filter.monitor_id.map(|id| id.0),
        states.as_deref(),
        filter.worker,
        filter.queue,
        looked_at,
        page.limit
    )
    .fetch_all(reader.pool())
    .await?;
    let is_full = rows.first().is_some_and(|row| row.seen >= looked_at);
    let last = rows.last().map(|row| Place {
        heard_first_at: row.heard_first_at,
        run_id: row.run_id,
    });
    let summaries = rows
        .into_iter()
        .filter(|row| row.is_wanted)
        .map(|row| {
            Ok(Summary {
                run_id: row.run_id,
                app: row.app,
                entry: row.entry,
                monitor_id: row.monitor_id.map(MonitorId),
                task: row.task,
                task_id: row.task_id,
                state: TraceState::parse(&row.state)
                    .ok_or_else(|| StoreError::Corrupt(format!("trace state {}", row.state)))?,
                queue: row.queue,
                worker: row.worker,
                slot: row.slot,
                eta: row.eta,
                published_at: row.published_at,
                received_at: row.received_at,
                started_at: row.started_at,
                finished_at: row.finished_at,
                wait_seconds: row.wait_seconds,
                run_seconds: row.run_seconds,
                attempts: row.attempts,
                retries: row.retries,
                redelivered: row.redelivered,
                error: row.error,
                heard_first_at: row.heard_first_at,
                heard_at: row.heard_at,
            })
        })
        .collect::<StoreResult<Vec<Summary>>>()?;
    Ok((summaries, last.filter(|_| is_full)))
}

/// A run with all its stages.
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

/// What a task's runs come to.
#[derive(Debug, Clone, PartialEq)]
pub struct TaskStats {
    /// The task's name; None: of runs of which nobody said it.
    pub task: Option<String>,
    /// Runs that were looked at.
    pub runs: i64,
    /// Those among them that have ended.
    pub ended: i64,
    /// And of these, that failed.
    pub failed: i64,
    /// Half of the runs waited for no longer, in seconds.
    pub wait_p50: Option<f64>,
    /// 95 % of the runs waited for no longer.
    pub wait_p95: Option<f64>,
    /// Half of the runs took no longer, in seconds.
    pub run_p50: Option<f64>,
    /// 95 % of the runs took no longer.
    pub run_p95: Option<f64>,
    /// The newest of them.
    pub last_heard_first_at: DateTime<Utc>,
}

impl TaskStats {
    /// Which part of those that ended failed; None: none has ended.
    #[must_use]
    pub fn failure_ratio(&self) -> Option<f64> {
        (self.ended > 0).then(|| self.failed as f64 / self.ended as f64)
    }
}

/// What the runs of a stretch come to, task by task.
#[derive(Debug, Clone, PartialEq)]
pub struct Tasks {
    /// Those with the most runs first.
    pub tasks: Vec<TaskStats>,
    /// Where the runs that were looked at begin.
    pub from: DateTime<Utc>,
    /// Where they end.
    pub to: DateTime<Utc>,
    /// How many runs were looked at.
    pub looked_at: i64,
}

impl Tasks {
    /// How many minutes the stretch has had so far; never none at all.
    #[must_use]
    pub fn minutes(&self, now: DateTime<Utc>) -> f64 {
        let covered = self.to.min(now) - self.from;
        (covered.num_milliseconds() as f64 / 60_000.0).max(1.0 / 60.0)
    }
}

/// The tasks of a project's newest runs of a stretch: [`TASK_RUNS_LOOKED_AT`] runs and [`TASKS_SHOWN`] tasks at most.
///
/// # Errors
/// When the database is away.
pub async fn tasks(
    reader: &Reader,
    project: ProjectId,
    from: DateTime<Utc>,
    to: DateTime<Utc>,
) -> StoreResult<Tasks> {
    let failures: Vec<String> = Outcome::ALL
        .into_iter()
        .filter(|outcome| outcome.is_failure())
        .map(|outcome| outcome.as_str().to_owned())
        .collect();
    let rows = sqlx::query!(
        r#"
        WITH seen AS MATERIALIZED (
            SELECT task, state, wait_seconds, run_seconds, heard_first_at
            FROM trace
            WHERE project_id = $1 AND heard_first_at >= $2 AND heard_first_at < $3
            ORDER BY heard_first_at DESC
            LIMIT $4
        )
        SELECT task, count(*) AS "runs!", count(*) FILTER (WHERE state NOT IN ('published', 'received', 'started', 'retried')) AS "ended!",
            count(*) FILTER (WHERE state = ANY($5)) AS "failed!",
            percentile_cont(0.5) WITHIN GROUP (ORDER BY wait_seconds) AS wait_p50,
            percentile_cont(0.95) WITHIN GROUP (ORDER BY wait_seconds) AS wait_p95,
            percentile_cont(0.5) WITHIN GROUP (ORDER BY run_seconds) AS run_p50,
            percentile_cont(0.95) WITHIN GROUP (ORDER BY run_seconds) AS run_p95,
            max(heard_first_at) AS "last_heard_first_at!",
            (SELECT count(*) FROM seen) AS "seen!", (SELECT min(heard_first_at) FROM seen) AS oldest
        FROM seen
        GROUP BY task
        ORDER BY count(*) DESC, task
        LIMIT $6
        "#,
        project.0,
        from,
        to,
        TASK_RUNS_LOOKED_AT,
        &failures,
        TASKS_SHOWN
    )
    .fetch_all(reader.pool())
    .await?;
    let (looked_at, oldest) = rows.first().map_or((0, None), |row| (row.seen, row.oldest));
    let tasks = rows
        .into_iter()
        .map(|row| TaskStats {
            task: row.task,
            runs: row.runs,
            ended: row.ended,
            failed: row.failed,
            wait_p50: row.wait_p50,
            wait_p95: row.wait_p95,
            run_p50: row.run_p50,
            run_p95: row.run_p95,
            last_heard_first_at: row.last_heard_first_at,
        })
        .collect();
    Ok(Tasks {
        tasks,
        from: oldest
            .filter(|_| looked_at >= TASK_RUNS_LOOKED_AT)
            .unwrap_or(from),
        to,
        looked_at,
    })
}

/// The first project after one that has traces, whether or not it still exists.
///
/// # Errors
/// When the database is away.
pub async fn next_project(tx: &mut Tx, after: Option<ProjectId>) -> StoreResult<Option<ProjectId>> {
    let found = sqlx::query_scalar!(
        "SELECT project_id FROM trace WHERE ($1::uuid IS NULL OR project_id > $1) ORDER BY project_id LIMIT 1",
        after.map(|id| id.0)
    )
    .fetch_optional(tx.conn())
    .await?;
    Ok(found.map(ProjectId))
}

/// Removes a project's traces that were first heard of before `before`, at most `limit`; answers how many.
///
/// # Errors
/// When the database is away.
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

fn seconds(span: TimeDelta) -> f64 {
    span.num_microseconds().unwrap_or(i64::MAX) as f64 / 1e6
}
