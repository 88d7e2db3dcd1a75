//! Table `queue`.

use chrono::{DateTime, Utc};
use deadbeat_domain::celery::condition::Condition;
use deadbeat_domain::celery::queue::Taken;
use deadbeat_domain::celery::queue::flow::Flow;
use deadbeat_domain::ids::{ApiKeyId, ProjectId, QueueId};
use deadbeat_domain::incident::cause::Cause;
use deadbeat_domain::judge::blind_spell::BLIND_AFTER;
use deadbeat_domain::monitor::status::Status;
use deadbeat_domain::time::span;
use uuid::Uuid;

use crate::monitor::batch::column;
use crate::page::Page;
use crate::{Reader, StoreError, StoreResult, Tx};

/// A queue as of its last sample.
#[derive(Debug, Clone, PartialEq)]
pub struct Queue {
    /// Its id.
    pub id: QueueId,
    /// The project that owns it.
    pub project_id: ProjectId,
    /// The Celery application's name.
    pub app: String,
    /// Its name.
    pub name: String,
    /// The number of waiting messages.
    pub depth: i64,
    /// How long the oldest waiting message has waited. None: unknown.
    pub oldest_seconds: Option<f64>,
    /// True if that wait is only an estimate, because the broker does not show it.
    pub oldest_is_a_guess: bool,
    /// The task of the oldest waiting message.
    pub oldest_task: Option<String>,
    /// The number of messages that workers hold unacknowledged. None: unknown for this queue.
    pub unacked: Option<i64>,
    /// The number of consumers, as the broker counts them. None: the broker does not count them.
    pub consumers: Option<i64>,
    /// The time since which the queue has not been empty. None: no message waits.
    pub waiting_since: Option<DateTime<Utc>>,
    /// The message that a worker received last, by workers' reports. Only [`note_taken`] writes it.
    pub taken: Option<Taken>,
    /// Describes whether messages leave it.
    pub flow: Flow,
    /// When it was last sampled.
    pub seen_at: DateTime<Utc>,
    /// When it was first sampled.
    pub created_at: DateTime<Utc>,
    /// The state that the rules work on.
    pub state: Condition,
}

struct Row {
    id: Uuid,
    project_id: Uuid,
    app: String,
    name: String,
    status: String,
    trouble: Option<String>,
    trouble_since: Option<DateTime<Utc>>,
    depth: i64,
    oldest_seconds: Option<f64>,
    oldest_is_a_guess: bool,
    oldest_task: Option<String>,
    unacked: Option<i64>,
    consumers: Option<i64>,
    waiting_since: Option<DateTime<Utc>>,
    taken_after_seconds: Option<f64>,
    taken_at: Option<DateTime<Utc>>,
    head: Option<String>,
    head_since: Option<DateTime<Utc>>,
    attended_at: Option<DateTime<Utc>>,
    others_at: Option<DateTime<Utc>>,
    seen_at: DateTime<Utc>,
    created_at: DateTime<Utc>,
}

impl TryFrom<Row> for Queue {
    type Error = StoreError;

    fn try_from(row: Row) -> StoreResult<Self> {
        Ok(Self {
            id: QueueId(row.id),
            project_id: ProjectId(row.project_id),
            app: row.app,
            name: row.name,
            depth: row.depth,
            oldest_seconds: row.oldest_seconds,
            oldest_is_a_guess: row.oldest_is_a_guess,
            oldest_task: row.oldest_task,
            unacked: row.unacked,
            consumers: row.consumers,
            waiting_since: row.waiting_since,
            taken: row
                .taken_after_seconds
                .zip(row.taken_at)
                .map(|(after, at)| Taken {
                    after: span(after),
                    at,
                }),
            flow: Flow {
                head: row.head,
                head_since: row.head_since,
                attended_at: row.attended_at,
                others_at: row.others_at,
            },
            seen_at: row.seen_at,
            created_at: row.created_at,
            state: condition("queue", &row.status, row.trouble.as_deref(), row.trouble_since)?,
        })
    }
}

/// Reads a stored condition.
pub(crate) fn condition(
    table: &str,
    status: &str,
    trouble: Option<&str>,
    since: Option<DateTime<Utc>>,
) -> StoreResult<Condition> {
    let corrupt = |what: &str| StoreError::Corrupt(format!("{table} {what}"));
    Ok(Condition {
        status: Status::parse(status).ok_or_else(|| corrupt(&format!("status {status}")))?,
        trouble: self::trouble(table, trouble)?,
        since,
    })
}

/// Reads the stored fault of a subject.
pub(crate) fn trouble(table: &str, code: Option<&str>) -> StoreResult<Option<Cause>> {
    let parse =
        |code: &str| Cause::parse(code).ok_or_else(|| StoreError::Corrupt(format!("{table} trouble {code}")));
    code.map(parse).transpose()
}

/// Returns the queues of one application. The caller holds the lock of the broker, which protects the queues from changes.
///
/// # Errors
/// If the database is away, or a row cannot be read.
pub async fn of_app(tx: &mut Tx, project: ProjectId, app: &str) -> StoreResult<Vec<Queue>> {
    let rows = sqlx::query_as!(
        Row,
        "SELECT id, project_id, app, name, status, trouble, trouble_since, depth, oldest_seconds, oldest_task, unacked, consumers,
            waiting_since, oldest_is_a_guess, taken_after_seconds, taken_at, head, head_since,
            attended_at, others_at, seen_at, created_at
        FROM queue
        WHERE project_id = $1 AND app = $2
        ORDER BY name",
        project.0,
        app
    )
    .fetch_all(tx.conn())
    .await?;
    rows.into_iter().map(Queue::try_from).collect()
}

/// Writes queues after a sample, including new ones.
///
/// # Errors
/// If the database is away.
pub async fn write(tx: &mut Tx, queues: &[Queue]) -> StoreResult<()> {
    sqlx::query!(
        "INSERT INTO queue (id, project_id, app, name, status, trouble, trouble_since, depth, oldest_seconds, oldest_task, unacked, consumers,
            seen_at, created_at, waiting_since, oldest_is_a_guess, head, head_since, attended_at, others_at)
        SELECT * FROM UNNEST($1::uuid[], $2::uuid[], $3::text[], $4::text[], $5::text[], $6::text[], $7::timestamptz[], $8::int8[],
            $9::float8[], $10::text[], $11::int8[], $12::int8[], $13::timestamptz[], $14::timestamptz[],
            $15::timestamptz[], $16::bool[], $17::text[], $18::timestamptz[], $19::timestamptz[], $20::timestamptz[])
        ON CONFLICT (project_id, app, name) DO UPDATE
        SET status = excluded.status, trouble = excluded.trouble, trouble_since = excluded.trouble_since, depth = excluded.depth,
            oldest_seconds = excluded.oldest_seconds, oldest_task = excluded.oldest_task, unacked = excluded.unacked,
            consumers = excluded.consumers, seen_at = excluded.seen_at, waiting_since = excluded.waiting_since,
            oldest_is_a_guess = excluded.oldest_is_a_guess, head = excluded.head, head_since = excluded.head_since,
            attended_at = excluded.attended_at, others_at = excluded.others_at",
        &column(queues, |queue| queue.id.0),
        &column(queues, |queue| queue.project_id.0),
        &column(queues, |queue| queue.app.clone()),
        &column(queues, |queue| queue.name.clone()),
        &column(queues, |queue| queue.state.status.as_str().to_owned()),
        &column(queues, |queue| queue
            .state
            .trouble
            .map(|cause| cause.as_str().to_owned())) as &[Option<String>],
        &column(queues, |queue| queue.state.since) as &[Option<DateTime<Utc>>],
        &column(queues, |queue| queue.depth),
        &column(queues, |queue| queue.oldest_seconds) as &[Option<f64>],
        &column(queues, |queue| queue.oldest_task.clone()) as &[Option<String>],
        &column(queues, |queue| queue.unacked) as &[Option<i64>],
        &column(queues, |queue| queue.consumers) as &[Option<i64>],
        &column(queues, |queue| queue.seen_at),
        &column(queues, |queue| queue.created_at),
        &column(queues, |queue| queue.waiting_since) as &[Option<DateTime<Utc>>],
        &column(queues, |queue| queue.oldest_is_a_guess),
        &column(queues, |queue| queue.flow.head.clone()) as &[Option<String>],
        &column(queues, |queue| queue.flow.head_since) as &[Option<DateTime<Utc>>],
        &column(queues, |queue| queue.flow.attended_at) as &[Option<DateTime<Utc>>],
        &column(queues, |queue| queue.flow.others_at) as &[Option<DateTime<Utc>>],
    )
    .execute(tx.conn())
    .await?;
    Ok(())
}

/// Notes the key that has just reported queues of an application.
///
/// # Errors
/// If the database is away.
pub async fn note_key(
    tx: &mut Tx,
    project: ProjectId,
    app: &str,
    names: &[String],
    key: Option<ApiKeyId>,
) -> StoreResult<()> {
    sqlx::query!(
        "UPDATE queue
        SET told_with = $4
        WHERE project_id = $1 AND app = $2 AND name = ANY($3) AND told_with IS DISTINCT FROM $4",
        project.0,
        app,
        names,
        key.map(|key| key.0)
    )
    .execute(tx.conn())
    .await?;
    Ok(())
}

/// Notes that workers received messages, as (application, queue, wait). A stored later message stays, unless its time
/// lies in the future because the clock was set back. A wait of less than one second is written only over a longer one.
/// Skips unknown queues.
///
/// # Errors
/// If the database is away.
pub async fn note_taken(
    tx: &mut Tx,
    project: ProjectId,
    taken: &[(String, String, Taken)],
    now: DateTime<Utc>,
) -> StoreResult<()> {
    sqlx::query!(
        "WITH told AS (
            SELECT queue.id, told.after, told.at
            FROM UNNEST($2::text[], $3::text[], $4::float8[], $5::timestamptz[]) AS told (app, name, after, at)
                JOIN queue ON queue.project_id = $1 AND queue.app = told.app AND queue.name = told.name
            WHERE (told.after >= 1 OR taken_after_seconds >= 1) AND (taken_at IS NULL OR taken_at <= told.at OR taken_at > $6)
            ORDER BY queue.id
            FOR UPDATE OF queue
        )
        UPDATE queue SET taken_after_seconds = told.after, taken_at = told.at FROM told WHERE queue.project_id = $1 AND queue.id = told.id",
        project.0,
        &column(taken, |(app, ..)| app.clone()),
        &column(taken, |(_, name, _)| name.clone()),
        &column(taken, |(.., taken)| taken.after.num_milliseconds() as f64 / 1_000.0),
        &column(taken, |(.., taken)| taken.at),
        now + BLIND_AFTER
    )
    .execute(tx.conn())
    .await?;
    Ok(())
}

/// Returns the number of queues of a project.
///
/// # Errors
/// When the database is away.
pub async fn count(tx: &mut Tx, project: ProjectId) -> StoreResult<i64> {
    Ok(sqlx::query_scalar!(
        r#"SELECT count(*) AS "count!" FROM queue WHERE project_id = $1"#,
        project.0
    )
    .fetch_one(tx.conn())
    .await?)
}

/// Deletes queues that have had no sample since an instant. Returns how many.
///
/// # Errors
/// If the database is away.
pub async fn forget(tx: &mut Tx, before: DateTime<Utc>, limit: i64) -> StoreResult<u64> {
    let done = sqlx::query!(
        "DELETE FROM queue
        WHERE (project_id, id) IN (SELECT project_id, id FROM queue WHERE seen_at < $1 AND status <> 'down' LIMIT $2)",
        before,
        limit
    )
    .execute(tx.conn())
    .await?;
    Ok(done.rows_affected())
}

/// Returns a project's queues, by application and name.
///
/// # Errors
/// When the database is away, or a row cannot be read.
pub async fn list(reader: &Reader, project: ProjectId) -> StoreResult<Vec<Queue>> {
    let rows = sqlx::query_as!(
        Row,
        "SELECT id, project_id, app, name, status, trouble, trouble_since, depth, oldest_seconds, oldest_task, unacked, consumers,
            waiting_since, oldest_is_a_guess, taken_after_seconds, taken_at, head, head_since,
            attended_at, others_at, seen_at, created_at
        FROM queue
        WHERE project_id = $1
        ORDER BY app, name",
        project.0
    )
    .fetch_all(reader.pool())
    .await?;
    rows.into_iter().map(Queue::try_from).collect()
}

/// Returns a project's queues, newest first, page by page.
///
/// # Errors
/// When the database is away, or a row cannot be read.
pub async fn page(reader: &Reader, project: ProjectId, page: Page<QueueId>) -> StoreResult<Vec<Queue>> {
    let rows = sqlx::query_as!(
        Row,
        "SELECT id, project_id, app, name, status, trouble, trouble_since, depth, oldest_seconds, oldest_task, unacked, consumers,
            waiting_since, oldest_is_a_guess, taken_after_seconds, taken_at, head, head_since,
            attended_at, others_at, seen_at, created_at
        FROM queue
        WHERE project_id = $1 AND ($2::uuid IS NULL OR id < $2)
        ORDER BY id DESC
        LIMIT $3",
        project.0,
        page.after.map(|id| id.0),
        page.limit
    )
    .fetch_all(reader.pool())
    .await?;
    rows.into_iter().map(Queue::try_from).collect()
}
