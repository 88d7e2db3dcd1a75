//! Table `broker`: the samples of brokers. One process takes them for its whole application.

use chrono::{DateTime, Utc};
use deadbeat_domain::celery::condition::Condition;
use deadbeat_domain::celery::reach::Reach;
use deadbeat_domain::ids::{BrokerId, ProjectId};
use serde_json::Value;
use uuid::Uuid;

use crate::celery::queue::condition;
use crate::page::Page;
use crate::{Reader, StoreError, StoreResult, Tx};

/// A broker as stored.
#[derive(Debug, Clone, PartialEq)]
pub struct Broker {
    /// Its id.
    pub id: BrokerId,
    /// The project that owns it.
    pub project_id: ProjectId,
    /// The Celery application's name.
    pub app: String,
    /// The process that takes the samples: a worker, or a Beat.
    pub sampler: Option<String>,
    /// The end of the sampler's lease. Until then no other process becomes the sampler.
    pub sampler_until: Option<DateTime<Utc>>,
    /// Its last sample, without the queues.
    pub sample: Option<Value>,
    /// When the server received that sample.
    pub sampled_at: Option<DateTime<Utc>>,
    /// Which processes reach it.
    pub reach: Reach,
    /// The state that the rules work on.
    pub state: Condition,
}

struct Row {
    id: Uuid,
    project_id: Uuid,
    app: String,
    status: String,
    trouble: Option<String>,
    trouble_since: Option<DateTime<Utc>>,
    sampler: Option<String>,
    sampler_until: Option<DateTime<Utc>>,
    sample: Option<Value>,
    sampled_at: Option<DateTime<Utc>>,
    reached_at: Option<DateTime<Utc>>,
    reached_by: Option<String>,
    failed_by: Option<String>,
    failed_since: Option<DateTime<Utc>>,
    failed_at: Option<DateTime<Utc>>,
}

impl TryFrom<Row> for Broker {
    type Error = StoreError;

    fn try_from(row: Row) -> StoreResult<Self> {
        Ok(Self {
            id: BrokerId(row.id),
            project_id: ProjectId(row.project_id),
            app: row.app,
            sampler: row.sampler,
            sampler_until: row.sampler_until,
            sample: row.sample,
            sampled_at: row.sampled_at,
            reach: Reach {
                reached_at: row.reached_at,
                reached_by: row.reached_by,
                failed_by: row.failed_by,
                failed_since: row.failed_since,
                failed_at: row.failed_at,
            },
            state: condition("broker", &row.status, row.trouble.as_deref(), row.trouble_since)?,
        })
    }
}

/// Elects a process as the sampler of the broker, unless another process holds the lease. True: this process is the
/// sampler until `until`. Replaces a stored lease that ends later than a new one would: it was written before the clock
/// was set back.
///
/// # Errors
/// If the database is away.
pub async fn elect(
    tx: &mut Tx,
    project: ProjectId,
    app: &str,
    worker: &str,
    now: DateTime<Utc>,
    until: DateTime<Utc>,
) -> StoreResult<bool> {
    let done = sqlx::query!(
        "INSERT INTO broker AS stored (id, project_id, app, status, sampler, sampler_until, created_at)
        VALUES ($1, $2, $3, 'new', $4, $6, $5)
        ON CONFLICT (project_id, app) DO UPDATE
        SET sampler = excluded.sampler, sampler_until = excluded.sampler_until
        WHERE stored.sampler = excluded.sampler OR stored.sampler_until IS NULL OR stored.sampler_until <= $5
            OR stored.sampler_until > $6",
        BrokerId::generate().0,
        project.0,
        app,
        worker,
        now,
        until
    )
    .execute(tx.conn())
    .await?;
    Ok(done.rows_affected() > 0)
}

/// Returns the number of brokers of a project: one for each application.
///
/// # Errors
/// If the database is away.
pub async fn count(tx: &mut Tx, project: ProjectId) -> StoreResult<i64> {
    Ok(sqlx::query_scalar!(
        r#"SELECT count(*) AS "count!" FROM broker WHERE project_id = $1"#,
        project.0
    )
    .fetch_one(tx.conn())
    .await?)
}

/// Ends the lease of the sampler, which did not reach the broker. So another process can be elected.
///
/// # Errors
/// When the database is away.
pub async fn dismiss_any(tx: &mut Tx, project: ProjectId, broker: BrokerId) -> StoreResult<()> {
    sqlx::query!(
        "UPDATE broker SET sampler = NULL, sampler_until = NULL WHERE project_id = $1 AND id = $2",
        project.0,
        broker.0
    )
    .execute(tx.conn())
    .await?;
    Ok(())
}

/// Ends the lease of a worker that stops.
///
/// # Errors
/// If the database is away.
pub async fn dismiss(tx: &mut Tx, project: ProjectId, app: &str, worker: &str) -> StoreResult<()> {
    sqlx::query!(
        "UPDATE broker SET sampler = NULL, sampler_until = NULL WHERE project_id = $1 AND app = $2 AND sampler = $3",
        project.0,
        app,
        worker
    )
    .execute(tx.conn())
    .await?;
    Ok(())
}

/// Locks the broker of an application. Creates it first if there is none.
///
/// # Errors
/// If the database is away, or the row cannot be read.
pub async fn lock_or_create(
    tx: &mut Tx,
    project: ProjectId,
    app: &str,
    now: DateTime<Utc>,
) -> StoreResult<Broker> {
    sqlx::query!(
        "INSERT INTO broker (id, project_id, app, status, created_at) VALUES ($1, $2, $3, 'new', $4)
        ON CONFLICT (project_id, app) DO NOTHING",
        BrokerId::generate().0,
        project.0,
        app,
        now
    )
    .execute(tx.conn())
    .await?;
    sqlx::query_as!(
        Row,
        "SELECT id, project_id, app, status, trouble, trouble_since, sampler, sampler_until, sample, sampled_at,
            reached_at, reached_by, failed_by, failed_since, failed_at
        FROM broker
        WHERE project_id = $1 AND app = $2
        FOR UPDATE",
        project.0,
        app
    )
    .fetch_one(tx.conn())
    .await?
    .try_into()
}

/// Returns the time at which the last incident about a broker ended, if that was after `since`.
///
/// # Errors
/// When the database is away.
pub async fn back_at(
    tx: &mut Tx,
    broker: &Broker,
    since: DateTime<Utc>,
) -> StoreResult<Option<DateTime<Utc>>> {
    // Read the newest few incidents, whatever their cause: the index is ordered by their ids, which are ordered by
    // time.
    Ok(sqlx::query_scalar!(
        r#"
        SELECT max(at) AS back_at
        FROM (
            SELECT at, from_status
            FROM transition
            WHERE project_id = $1 AND subject_kind = 'broker' AND subject_id = $2
            ORDER BY id DESC
            LIMIT 3
        ) AS newest
        WHERE from_status = 'down' AND at > $3
        "#,
        broker.project_id.0,
        broker.id.0,
        since
    )
    .fetch_one(tx.conn())
    .await?)
}

/// Returns the broker of an application. None: no process has reported it.
///
/// # Errors
/// If the database is away, or the row cannot be read.
pub async fn of_app(tx: &mut Tx, project: ProjectId, app: &str) -> StoreResult<Option<Broker>> {
    sqlx::query_as!(
        Row,
        "SELECT id, project_id, app, status, trouble, trouble_since, sampler, sampler_until, sample, sampled_at,
            reached_at, reached_by, failed_by, failed_since, failed_at
        FROM broker
        WHERE project_id = $1 AND app = $2",
        project.0,
        app
    )
    .fetch_optional(tx.conn())
    .await?
    .map(Broker::try_from)
    .transpose()
}

/// Locks brokers that have had no sample since an instant, and that have an open incident or a queue with one. Leaves
/// out unreadable brokers.
///
/// # Errors
/// If the database is away.
pub async fn claim_unsampled(tx: &mut Tx, before: DateTime<Utc>, limit: i64) -> StoreResult<Vec<Broker>> {
    let rows = sqlx::query_as!(
        Row,
        "SELECT id, project_id, app, status, trouble, trouble_since, sampler, sampler_until, sample, sampled_at,
            reached_at, reached_by, failed_by, failed_since, failed_at
        FROM broker
        WHERE sampled_at < $1
            AND (project_id, app) IN (
                SELECT project_id, app FROM broker WHERE status = 'down'
                UNION
                SELECT project_id, app FROM queue WHERE status = 'down'
            )
        ORDER BY id
        LIMIT $2
        FOR UPDATE SKIP LOCKED",
        before,
        limit
    )
    .fetch_all(tx.conn())
    .await?;
    Ok(rows
        .into_iter()
        .filter_map(|row| Broker::try_from(row).ok())
        .collect())
}

/// Deletes brokers that have had no sample since an instant. Returns how many.
///
/// # Errors
/// If the database is away.
pub async fn forget(tx: &mut Tx, before: DateTime<Utc>, limit: i64) -> StoreResult<u64> {
    let done = sqlx::query!(
        "DELETE FROM broker
        WHERE (project_id, id) IN (
            SELECT project_id, id
            FROM broker
            WHERE coalesce(sampled_at, created_at) < $1 AND coalesce(sampler_until, created_at) < $1 AND status <> 'down'
            LIMIT $2
        )",
        before,
        limit
    )
    .execute(tx.conn())
    .await?;
    Ok(done.rows_affected())
}

/// Writes a broker after a sample.
///
/// # Errors
/// If the database is away.
pub async fn update(tx: &mut Tx, broker: &Broker) -> StoreResult<()> {
    let state = &broker.state;
    sqlx::query!(
        "UPDATE broker
        SET status = $2, trouble = $3, trouble_since = $4, sample = $5, sampled_at = $6, reached_at = $7, reached_by = $8, failed_by = $9,
            failed_since = $10, failed_at = $11
        WHERE id = $1 AND project_id = $12",
        broker.id.0,
        state.status.as_str(),
        state.trouble.map(|cause| cause.as_str()),
        state.since,
        broker.sample,
        broker.sampled_at,
        broker.reach.reached_at,
        broker.reach.reached_by,
        broker.reach.failed_by,
        broker.reach.failed_since,
        broker.reach.failed_at,
        broker.project_id.0
    )
    .execute(tx.conn())
    .await?;
    Ok(())
}

/// Returns a project's brokers, by application.
///
/// # Errors
/// When the database is away, or a row cannot be read.
pub async fn list(reader: &Reader, project: ProjectId) -> StoreResult<Vec<Broker>> {
    let rows = sqlx::query_as!(
        Row,
        "SELECT id, project_id, app, status, trouble, trouble_since, sampler, sampler_until, sample, sampled_at,
            reached_at, reached_by, failed_by, failed_since, failed_at
        FROM broker
        WHERE project_id = $1
        ORDER BY app",
        project.0
    )
    .fetch_all(reader.pool())
    .await?;
    rows.into_iter().map(Broker::try_from).collect()
}

/// Returns a project's brokers, newest first, page by page.
///
/// # Errors
/// When the database is away, or a row cannot be read.
pub async fn page(reader: &Reader, project: ProjectId, page: Page<BrokerId>) -> StoreResult<Vec<Broker>> {
    let rows = sqlx::query_as!(
        Row,
        "SELECT id, project_id, app, status, trouble, trouble_since, sampler, sampler_until, sample, sampled_at,
            reached_at, reached_by, failed_by, failed_since, failed_at
        FROM broker
        WHERE project_id = $1 AND ($2::uuid IS NULL OR id < $2)
        ORDER BY id DESC
        LIMIT $3",
        project.0,
        page.after.map(|id| id.0),
        page.limit
    )
    .fetch_all(reader.pool())
    .await?;
    rows.into_iter().map(Broker::try_from).collect()
}
