//! Table `healthchecks_check`, and the searches of the Healthchecks API.

use chrono::{DateTime, Utc};
use deadbeat_domain::ids::{MonitorId, PingId, ProjectId};
use serde_json::Value;
use uuid::Uuid;

use super::{Monitor, Row, one};
use crate::{Reader, StoreResult, Tx};

/// The fields by which a client recognizes a monitor. None: any value.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Matching {
    /// Its name.
    pub name: Option<String>,
    /// Its slug.
    pub slug: Option<String>,
    /// All of its tags, in their order.
    pub tags: Option<Vec<String>>,
    /// Its schedule is an interval of so many seconds.
    pub interval_seconds: Option<i64>,
    /// Its grace in seconds.
    pub grace_seconds: Option<f64>,
}

/// Returns the monitor of a project that has this ping id.
///
/// # Errors
/// When the database is away, or the row cannot be read.
pub async fn by_ping_id(reader: &Reader, project: ProjectId, id: PingId) -> StoreResult<Option<Monitor>> {
    one(select!("WHERE project_id = $1 AND ping_id = $2", project.0, id.0)
        .fetch_optional(reader.pool())
        .await?)
}

/// Returns the ids and the ping ids of a project's monitors, oldest first, at most `limit`.
///
/// # Errors
/// When the database is away.
pub async fn ping_ids_of(
    reader: &Reader,
    project: ProjectId,
    limit: i64,
) -> StoreResult<Vec<(MonitorId, PingId)>> {
    let rows = sqlx::query!(
        "SELECT id, ping_id FROM monitor WHERE project_id = $1 ORDER BY id LIMIT $2",
        project.0,
        limit
    )
    .fetch_all(reader.pool())
    .await?;
    Ok(rows
        .into_iter()
        .map(|row| (MonitorId(row.id), PingId(row.ping_id)))
        .collect())
}

/// Locks the oldest monitor of a project that has these values.
///
/// # Errors
/// When the database is away, or the row cannot be read.
pub async fn lock_matching(
    tx: &mut Tx,
    project: ProjectId,
    matching: &Matching,
) -> StoreResult<Option<Monitor>> {
    let interval = matching
        .interval_seconds
        .map(|seconds| serde_json::json!({"kind": "interval", "seconds": seconds}));
    one(select!(
        "WHERE project_id = $1 AND ($2::text IS NULL OR name = $2) AND ($3::text IS NULL OR slug = $3)
            AND ($4::text[] IS NULL OR tags = $4) AND ($5::jsonb IS NULL OR schedule @> $5)
            AND ($6::float8 IS NULL OR grace_seconds = $6)
        ORDER BY id
        LIMIT 1
        FOR UPDATE",
        project.0,
        matching.name,
        matching.slug,
        matching.tags.as_deref() as Option<&[String]>,
        interval as Option<Value>,
        matching.grace_seconds,
    )
    .fetch_optional(tx.conn())
    .await?)
}

/// Returns the stored settings of these monitors. A monitor without settings is not in the list.
///
/// # Errors
/// When the database is away.
pub async fn settings(
    reader: &Reader,
    project: ProjectId,
    monitors: &[MonitorId],
) -> StoreResult<Vec<(MonitorId, Value)>> {
    let ids: Vec<Uuid> = monitors.iter().map(|id| id.0).collect();
    let rows = sqlx::query!(
        "SELECT monitor_id, settings FROM healthchecks_check WHERE project_id = $1 AND monitor_id = ANY($2)",
        project.0,
        &ids
    )
    .fetch_all(reader.pool())
    .await?;
    Ok(rows
        .into_iter()
        .map(|row| (MonitorId(row.monitor_id), row.settings))
        .collect())
}

/// Returns the stored settings of a monitor that the transaction has locked.
///
/// # Errors
/// When the database is away.
pub async fn settings_in(tx: &mut Tx, project: ProjectId, monitor: MonitorId) -> StoreResult<Option<Value>> {
    Ok(sqlx::query_scalar!(
        "SELECT settings FROM healthchecks_check WHERE project_id = $1 AND monitor_id = $2",
        project.0,
        monitor.0
    )
    .fetch_optional(tx.conn())
    .await?)
}

/// Writes the settings of a monitor.
///
/// # Errors
/// When the database is away.
pub async fn write_settings(
    tx: &mut Tx,
    project: ProjectId,
    monitor: MonitorId,
    settings: &Value,
) -> StoreResult<()> {
    sqlx::query!(
        "INSERT INTO healthchecks_check (monitor_id, settings, project_id) VALUES ($1, $2, $3)
        ON CONFLICT (monitor_id, project_id) DO UPDATE SET settings = excluded.settings",
        monitor.0,
        settings,
        project.0
    )
    .execute(tx.conn())
    .await?;
    Ok(())
}

/// A change of a monitor's status.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Flip {
    /// When it changed.
    pub at: DateTime<Utc>,
    /// True: it is up since. False: it has any other status since.
    pub is_up: bool,
}

/// Returns the changes of a monitor's status from `from` to before `before`, newest first, at most `limit`.
///
/// # Errors
/// When the database is away.
pub async fn flips(
    reader: &Reader,
    project: ProjectId,
    monitor: MonitorId,
    from: Option<DateTime<Utc>>,
    before: Option<DateTime<Utc>>,
    limit: i64,
) -> StoreResult<Vec<Flip>> {
    let rows = sqlx::query!(
        "SELECT at, to_status
        FROM transition
        WHERE project_id = $1 AND subject_kind = 'monitor' AND subject_id = $2
            AND ($3::timestamptz IS NULL OR at >= $3) AND ($4::timestamptz IS NULL OR at < $4)
        ORDER BY id DESC
        LIMIT $5",
        project.0,
        monitor.0,
        from,
        before,
        limit
    )
    .fetch_all(reader.pool())
    .await?;
    Ok(rows
        .into_iter()
        .map(|row| Flip {
            at: row.at,
            is_up: row.to_status == "up",
        })
        .collect())
}

/// Returns a project's tags, in order, at most `limit`.
///
/// # Errors
/// When the database is away.
pub async fn tags(reader: &Reader, project: ProjectId, limit: i64) -> StoreResult<Vec<String>> {
    Ok(sqlx::query_scalar!(
        "SELECT DISTINCT unnest(tags) AS \"tag!\" FROM monitor WHERE project_id = $1 ORDER BY 1 LIMIT $2",
        project.0,
        limit
    )
    .fetch_all(reader.pool())
    .await?)
}

/// The monitors of a badge.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counts {
    /// All of them.
    pub total: i64,
    /// Those that are past due, within their grace.
    pub late: i64,
    /// Those that are down.
    pub down: i64,
}

/// Counts the monitors of a project that have this tag, and are this monitor. None: any.
///
/// # Errors
/// When the database is away.
pub async fn counts(
    reader: &Reader,
    project: ProjectId,
    tag: Option<&str>,
    monitor: Option<MonitorId>,
    now: DateTime<Utc>,
) -> StoreResult<Counts> {
    let row = sqlx::query!(
        r#"
        SELECT count(*) AS "total!",
            count(*) FILTER (WHERE status IN ('new', 'up') AND deadline_at IS NOT NULL AND coalesce(next_due_at <= $2, false)) AS "late!",
            count(*) FILTER (WHERE status = 'down') AS "down!"
        FROM monitor
        WHERE project_id = $1 AND ($3::text IS NULL OR tags @> ARRAY[$3]) AND ($4::uuid IS NULL OR id = $4)
        "#,
        project.0,
        now,
        tag,
        monitor.map(|id| id.0)
    )
    .fetch_one(reader.pool())
    .await?;
    Ok(Counts {
        total: row.total,
        late: row.late,
        down: row.down,
    })
}
