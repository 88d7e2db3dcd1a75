//! Reads table `trace`: the list of runs, newest first.

use std::fmt;
use std::str::FromStr;

use chrono::{DateTime, Utc};
use deadbeat_domain::celery::trace::TraceState;
use deadbeat_domain::ids::{MonitorId, ProjectId};
use uuid::Uuid;

use crate::celery::trace::{Stored, seconds};
use crate::page::Page;
use crate::{Reader, StoreError, StoreResult};

/// The filter of a list of runs.
#[derive(Debug, Clone, Default)]
pub struct Filter {
    /// The task's name.
    pub task: Option<String>,
    /// The client's run id, which Celery's task id yields.
    pub run_id: Option<Uuid>,
    /// The states to include.
    pub states: Option<Vec<TraceState>>,
    /// The worker's node name.
    pub worker: Option<String>,
    /// The queue.
    pub queue: Option<String>,
    /// The monitor.
    pub monitor_id: Option<MonitorId>,
    /// Runs whose first report came at or after this time.
    pub from: Option<DateTime<Utc>>,
    /// Runs whose first report came before this time.
    pub to: Option<DateTime<Utc>>,
}

/// A place in the list of runs, newest first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    /// When the server received the first report about the run.
    pub heard_first_at: DateTime<Utc>,
    /// Orders the runs whose first reports came at the same instant.
    pub run_id: Uuid,
}

/// Prints the place as a cursor: microseconds since 1970, and the run id.
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

/// A run, as a list shows it.
#[derive(Debug, Clone, PartialEq)]
pub struct Summary {
    /// The client's run id.
    pub run_id: Uuid,
    /// The Celery application's name.
    pub app: String,
    /// The entry, if Beat sent the run.
    pub entry: Option<String>,
    /// The entry's monitor. It may have been deleted since.
    pub monitor_id: Option<MonitorId>,
    /// The task's name.
    pub task: Option<String>,
    /// Celery's task id.
    pub task_id: Option<String>,
    /// Its state.
    pub state: TraceState,
    /// Its queue.
    pub queue: Option<String>,
    /// The worker that reported it last.
    pub worker: Option<String>,
    /// The slot for which Beat sent it.
    pub slot: Option<DateTime<Utc>>,
    /// The earliest time at which it may begin.
    pub eta: Option<DateTime<Utc>>,
    /// When it was published.
    pub published_at: Option<DateTime<Utc>>,
    /// When a worker received it.
    pub received_at: Option<DateTime<Utc>>,
    /// When it first began.
    pub started_at: Option<DateTime<Utc>>,
    /// When it ended.
    pub finished_at: Option<DateTime<Utc>>,
    /// The time from its publishing, or its ETA, to its first start.
    pub wait_seconds: Option<f64>,
    /// How long its last attempt took.
    pub run_seconds: Option<f64>,
    /// The number of attempts that began.
    pub attempts: i32,
    /// Celery's count of retries.
    pub retries: i32,
    /// True if the broker delivered it more than once.
    pub redelivered: bool,
    /// The last exception's class.
    pub error: Option<String>,
    /// When the server received the first report about it.
    pub heard_first_at: DateTime<Utc>,
    /// When its last stage happened.
    pub heard_at: DateTime<Utc>,
}

impl Summary {
    /// Returns the run's place in the list.
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

/// Returns a project's runs, newest first: of the next `examined` runs after the page's place, those that match the filter. Also returns the place
/// at which to continue. None: there are no more runs.
///
/// # Errors
/// If the database is away, or a row cannot be read.
pub async fn list(
    reader: &Reader,
    project: ProjectId,
    filter: &Filter,
    page: Page<Place>,
    examined: i64,
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
        examined,
        page.limit
    )
    .fetch_all(reader.pool())
    .await?;
    let is_full = rows.first().is_some_and(|row| row.seen >= examined);
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
