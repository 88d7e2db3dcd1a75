//! Table `worker`.

pub mod orphan;
pub mod queues;
pub mod stranger;

use chrono::{DateTime, Utc};
use deadbeat_domain::celery::switch::Switch;
use deadbeat_domain::celery::worker::incarnation::Incarnation;
use deadbeat_domain::ids::{ApiKeyId, ProjectId, WorkerId};
use deadbeat_domain::monitor::status::Status;
use serde_json::Value;
use uuid::Uuid;

use crate::celery::queue::trouble;
use crate::error::each;
use crate::page::Page;
use crate::{Reader, StoreError, StoreResult, Tx, Unreadable};

/// A worker as stored.
#[derive(Debug, Clone, PartialEq)]
pub struct Worker {
    /// Its id.
    pub id: WorkerId,
    /// The project that owns it.
    pub project_id: ProjectId,
    /// The Celery application's name.
    pub app: String,
    /// Celery's node name.
    pub name: String,
    /// Its last snapshot.
    pub snapshot: Value,
    /// The queues that it consumes.
    pub queues: Vec<String>,
    /// When its counts of tasks last changed, or when it was last idle.
    pub progress_at: DateTime<Utc>,
    /// When the server received its first report.
    pub created_at: DateTime<Utc>,
    /// The processes that have reported under its name.
    pub incarnations: Vec<Incarnation>,
    /// The state that the rules work on.
    pub state: Switch,
}

struct Row {
    id: Uuid,
    project_id: Uuid,
    app: String,
    name: String,
    status: String,
    period_seconds: f64,
    grace_seconds: f64,
    last_seen_at: Option<DateTime<Utc>>,
    deadline_at: Option<DateTime<Utc>>,
    snapshot: Value,
    queues: Vec<String>,
    progress_at: DateTime<Utc>,
    created_at: DateTime<Utc>,
    trouble: Option<String>,
    trouble_since: Option<DateTime<Utc>>,
    incarnations: Value,
}

impl Worker {
    /// Returns the argument that a person types after `celery -A`.
    #[must_use]
    pub fn typed(&self) -> &str {
        let said = self.snapshot.get("project").and_then(Value::as_str);
        said.unwrap_or(&self.app)
    }
}

impl TryFrom<Row> for Worker {
    type Error = StoreError;

    fn try_from(row: Row) -> StoreResult<Self> {
        Ok(Self {
            id: WorkerId(row.id),
            project_id: ProjectId(row.project_id),
            app: row.app,
            name: row.name,
            snapshot: row.snapshot,
            queues: row.queues,
            progress_at: row.progress_at,
            created_at: row.created_at,
            incarnations: serde_json::from_value(row.incarnations).map_err(|error| {
                StoreError::Corrupt(format!("incarnations of worker {}: {error}", row.id))
            })?,
            state: Switch {
                status: status(&row.status)?,
                period_seconds: row.period_seconds,
                grace_seconds: row.grace_seconds,
                last_seen_at: row.last_seen_at,
                deadline_at: row.deadline_at,
                trouble: trouble("worker", row.trouble.as_deref())?,
                since: row.trouble_since,
            },
        })
    }
}

fn status(text: &str) -> StoreResult<Status> {
    Status::parse(text).ok_or_else(|| StoreError::Corrupt(format!("worker status {text}")))
}

macro_rules! select {
    ($tail:tt $(, $argument:expr)* $(,)?) => {
        sqlx::query_as!(
            Row,
            r#"
            SELECT id, project_id, app, name, status, period_seconds, grace_seconds, last_seen_at, deadline_at, snapshot, queues, progress_at,
                created_at, trouble, trouble_since, incarnations
            FROM worker
            "# + $tail
            $(, $argument)*
        )
    };
}

/// Locks the worker of a name. None: no worker of that name has ever reported.
///
/// # Errors
/// If the database is away.
pub async fn lock(tx: &mut Tx, project: ProjectId, app: &str, name: &str) -> StoreResult<Option<Worker>> {
    select!(
        "WHERE project_id = $1 AND app = $2 AND name = $3 FOR UPDATE",
        project.0,
        app,
        name
    )
    .fetch_optional(tx.conn())
    .await?
    .map(Worker::try_from)
    .transpose()
}

/// Writes a new worker. If another transaction has written one of that name, that one stays unchanged.
///
/// # Errors
/// If the database is away.
pub async fn insert(tx: &mut Tx, worker: &Worker) -> StoreResult<()> {
    let state = &worker.state;
    sqlx::query!(
        "INSERT INTO worker (id, project_id, app, name, status, period_seconds, grace_seconds, last_seen_at, deadline_at, check_after,
            snapshot, queues, progress_at, created_at)
        VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $9, $10, $11, $12, $13)
        ON CONFLICT (project_id, app, name) DO NOTHING",
        worker.id.0,
        worker.project_id.0,
        worker.app,
        worker.name,
        state.status.as_str(),
        state.period_seconds,
        state.grace_seconds,
        state.last_seen_at,
        state.deadline_at,
        worker.snapshot,
        &worker.queues,
        worker.progress_at,
        worker.created_at
    )
    .execute(tx.conn())
    .await?;
    Ok(())
}

/// Writes a worker's state, and the key of its report (None: it did not report). The evaluator judges the worker when
/// its deadline passes, or at `judge_at`. Moves `check_after` only if necessary, or if the sweep wants it
/// (`moves_check`).
///
/// # Errors
/// If the database is away.
pub async fn update(
    tx: &mut Tx,
    worker: &Worker,
    moves_check: bool,
    judge_at: Option<DateTime<Utc>>,
    reported_with: Option<ApiKeyId>,
) -> StoreResult<()> {
    let state = &worker.state;
    sqlx::query!(
        "UPDATE worker
        SET status = $2, period_seconds = $3, grace_seconds = $4, last_seen_at = $5, deadline_at = $6, snapshot = $7, queues = $8,
            progress_at = $9, trouble = $11, trouble_since = $12, told_with = coalesce($13, told_with),
            incarnations = $14,
            check_after = CASE WHEN $10 THEN least($6::timestamptz, $15::timestamptz) ELSE least(check_after, $6, $15) END
        WHERE id = $1 AND project_id = $16",
        worker.id.0,
        state.status.as_str(),
        state.period_seconds,
        state.grace_seconds,
        state.last_seen_at,
        state.deadline_at,
        worker.snapshot,
        &worker.queues,
        worker.progress_at,
        moves_check,
        state.trouble.map(|cause| cause.as_str()),
        state.since,
        reported_with.map(|key| key.0),
        serde_json::to_value(&worker.incarnations).unwrap_or_else(|_| Value::Array(Vec::new())),
        judge_at,
        worker.project_id.0
    )
    .execute(tx.conn())
    .await?;
    Ok(())
}

/// Claims workers whose `check_after` has passed. Skips locked rows.
///
/// # Errors
/// If the database is away.
pub async fn claim_overdue(
    tx: &mut Tx,
    now: DateTime<Utc>,
    limit: i64,
) -> StoreResult<Vec<Result<Worker, Unreadable>>> {
    let rows = select!(
        "WHERE check_after <= $1 ORDER BY check_after LIMIT $2 FOR UPDATE SKIP LOCKED",
        now,
        limit
    )
    .fetch_all(tx.conn())
    .await?;
    Ok(each(rows, |row| (row.project_id, row.id)))
}

/// Puts an unreadable worker aside until `until`.
///
/// # Errors
/// If the database is away.
pub async fn set_aside(tx: &mut Tx, project: ProjectId, id: Uuid, until: DateTime<Utc>) -> StoreResult<()> {
    // A worker without a deadline stays without one: `greatest` alone would arm a worker that nobody expects to report.
    sqlx::query!(
        "UPDATE worker
        SET check_after = $2, deadline_at = CASE WHEN deadline_at IS NOT NULL THEN greatest(deadline_at, $2) END
        WHERE id = $1 AND project_id = $3",
        id,
        until,
        project.0
    )
    .execute(tx.conn())
    .await?;
    Ok(())
}

/// Returns the number of workers of a project.
///
/// # Errors
/// When the database is away.
pub async fn count(tx: &mut Tx, project: ProjectId) -> StoreResult<i64> {
    Ok(sqlx::query_scalar!(
        r#"SELECT count(*) AS "count!" FROM worker WHERE project_id = $1"#,
        project.0
    )
    .fetch_one(tx.conn())
    .await?)
}

/// Makes room for new workers of a project: deletes paused workers, beginning with the one that stopped first. Returns
/// how many.
///
/// # Errors
/// If the database is away.
pub async fn forget_oldest(tx: &mut Tx, project: ProjectId, limit: i64) -> StoreResult<u64> {
    let done = sqlx::query!(
        "DELETE FROM worker
        WHERE project_id = $1 AND id IN (
            SELECT id FROM worker WHERE project_id = $1 AND status = 'paused' ORDER BY last_seen_at LIMIT $2 FOR UPDATE SKIP LOCKED
        )",
        project.0,
        limit
    )
    .execute(tx.conn())
    .await?;
    Ok(done.rows_affected())
}

/// Returns a project's workers, newest first.
///
/// # Errors
/// When the database is away.
pub async fn list(reader: &Reader, project: ProjectId, page: Page<WorkerId>) -> StoreResult<Vec<Worker>> {
    let rows = select!(
        "WHERE project_id = $1 AND ($2::uuid IS NULL OR id < $2) ORDER BY id DESC LIMIT $3",
        project.0,
        page.after.map(|id| id.0),
        page.limit
    )
    .fetch_all(reader.pool())
    .await?;
    rows.into_iter().map(Worker::try_from).collect()
}

/// Returns the workers of one application, by name.
///
/// # Errors
/// When the database is away.
pub async fn of_app(tx: &mut Tx, project: ProjectId, app: &str) -> StoreResult<Vec<Worker>> {
    let rows = select!("WHERE project_id = $1 AND app = $2 ORDER BY name", project.0, app)
        .fetch_all(tx.conn())
        .await?;
    rows.into_iter().map(Worker::try_from).collect()
}

/// Returns the workers of one application that are up. Leaves out unreadable rows, so that the caller can judge the others.
///
/// # Errors
/// If the database is away.
pub async fn up_of_app(tx: &mut Tx, project: ProjectId, app: &str) -> StoreResult<Vec<Worker>> {
    let rows = select!(
        "WHERE project_id = $1 AND app = $2 AND status = 'up' ORDER BY name",
        project.0,
        app
    )
    .fetch_all(tx.conn())
    .await?;
    Ok(rows
        .into_iter()
        .filter_map(|row| Worker::try_from(row).ok())
        .collect())
}

/// Returns the workers of a project's other applications on the same broker.
///
/// # Errors
/// If the database is away, or a row cannot be read.
pub async fn beside(tx: &mut Tx, project: ProjectId, app: &str, broker: &str) -> StoreResult<Vec<Worker>> {
    let rows = select!(
        "WHERE project_id = $1 AND app <> $2
            AND app IN (SELECT broker.app FROM broker WHERE broker.project_id = $1 AND sample->>'identity' = $3)
        ORDER BY app, name",
        project.0,
        app,
        broker
    )
    .fetch_all(tx.conn())
    .await?;
    rows.into_iter().map(Worker::try_from).collect()
}

/// The number of an application's workers with one status.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Count {
    /// The Celery application's name.
    pub app: String,
    /// The workers' status.
    pub status: Status,
    /// True if the workers have a fault although they report.
    pub in_trouble: bool,
    /// The number of workers.
    pub workers: i64,
}

/// Returns the number of workers of each application of a project, by status, and by whether they have a fault.
///
/// # Errors
/// If the database is away, or a row cannot be read.
pub async fn counts(reader: &Reader, project: ProjectId) -> StoreResult<Vec<Count>> {
    let rows = sqlx::query!(
        r#"
        SELECT app, status, trouble IS NOT NULL AS "in_trouble!", count(*) AS "workers!"
        FROM worker
        WHERE project_id = $1
        GROUP BY 1, 2, 3
        ORDER BY 1, 2, 3
        "#,
        project.0
    )
    .fetch_all(reader.pool())
    .await?;
    rows.into_iter()
        .map(|row| {
            Ok(Count {
                app: row.app,
                status: status(&row.status)?,
                in_trouble: row.in_trouble,
                workers: row.workers,
            })
        })
        .collect()
}

/// Returns workers of some applications, by application, in the order in which they need a person: down, with a fault,
/// new, up, each by name. Paused workers follow, the last report first. Of each application at most `limit` of the
/// former, and `limit_of_paused` of the latter.
///
/// # Errors
/// If the database is away, or a row cannot be read.
pub async fn worst_first(
    reader: &Reader,
    project: ProjectId,
    apps: &[String],
    limit: i64,
    limit_of_paused: i64,
) -> StoreResult<Vec<Worker>> {
    let rows = select!(
        "JOIN (
            SELECT id AS ranked_id,
                row_number() OVER (
                    PARTITION BY app, status = 'paused'
                    ORDER BY
                        CASE WHEN status = 'down' THEN 0 WHEN trouble IS NOT NULL THEN 1 WHEN status = 'new' THEN 2 ELSE 3 END,
                        CASE WHEN status = 'paused' THEN last_seen_at END DESC NULLS LAST,
                        name
                ) AS place
            FROM worker
            WHERE project_id = $1 AND app = ANY($2)
        ) AS ranked ON project_id = $1 AND ranked_id = id
        WHERE place <= CASE WHEN status = 'paused' THEN $4::bigint ELSE $3::bigint END
        ORDER BY app, status = 'paused', place",
        project.0,
        apps,
        limit,
        limit_of_paused
    )
    .fetch_all(reader.pool())
    .await?;
    rows.into_iter().map(Worker::try_from).collect()
}

/// Deletes paused workers whose last report came before an instant. Returns how many.
///
/// # Errors
/// If the database is away.
pub async fn forget(tx: &mut Tx, before: DateTime<Utc>, limit: i64) -> StoreResult<u64> {
    let done = sqlx::query!(
        "DELETE FROM worker
        WHERE (project_id, id) IN (SELECT project_id, id FROM worker WHERE status = 'paused' AND last_seen_at < $1 LIMIT $2)",
        before,
        limit
    )
    .execute(tx.conn())
    .await?;
    Ok(done.rows_affected())
}
