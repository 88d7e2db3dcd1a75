//! Table `maintenance_window`.

use std::collections::HashMap;

use chrono::{DateTime, Utc};
use deadbeat_domain::alert::hold::Hold;
use deadbeat_domain::alert::window::{When, Window};
use deadbeat_domain::ids::{ProjectId, WindowId};
use deadbeat_domain::people::access::Actor;
use deadbeat_domain::schedule::Schedule;
use serde_json::Value;
use uuid::Uuid;

use crate::monitor::batch::column;
use crate::page::Page;
use crate::people::creator;
use crate::{Reader, StoreError, StoreResult, Tx};

/// A maintenance window as stored.
#[derive(Debug, Clone, PartialEq)]
pub struct Stored {
    /// Its id.
    pub id: WindowId,
    /// The settings that people chose.
    pub window: Window,
    /// When it was made.
    pub created_at: DateTime<Utc>,
    /// When it last changed.
    pub updated_at: DateTime<Utc>,
    /// Who made it: `account`, `key`, `operator` or `system`.
    pub created_by_kind: String,
    /// The account or key.
    pub created_by_id: Option<Uuid>,
}

struct Row {
    id: Uuid,
    project_id: Uuid,
    name: String,
    starts_at: Option<DateTime<Utc>>,
    ends_at: Option<DateTime<Utc>>,
    schedule: Option<Value>,
    duration_seconds: Option<i32>,
    monitors: Vec<Uuid>,
    tags: Vec<String>,
    created_at: DateTime<Utc>,
    updated_at: DateTime<Utc>,
    created_by_kind: String,
    created_by_id: Option<Uuid>,
}

impl TryFrom<Row> for Stored {
    type Error = StoreError;

    fn try_from(row: Row) -> StoreResult<Self> {
        let corrupt = |what: &str| StoreError::Corrupt(format!("maintenance window {}: {what}", row.id));
        let when = match (
            row.starts_at.zip(row.ends_at),
            row.schedule.as_ref().zip(row.duration_seconds),
        ) {
            (Some((starts_at, ends_at)), _) => When::Once { starts_at, ends_at },
            (None, Some((schedule, duration_seconds))) => When::Each {
                schedule: Box::new(
                    Schedule::from_json(schedule).map_err(|error| corrupt(&error.to_string()))?,
                ),
                duration_seconds,
            },
            (None, None) => return Err(corrupt("times")),
        };
        Ok(Self {
            id: WindowId(row.id),
            window: Window {
                name: row.name,
                when,
                monitors: row.monitors,
                tags: row.tags,
            },
            created_at: row.created_at,
            updated_at: row.updated_at,
            created_by_kind: row.created_by_kind,
            created_by_id: row.created_by_id,
        })
    }
}

macro_rules! select {
    ($tail:tt $(, $argument:expr)* $(,)?) => {
        sqlx::query_as!(
            Row,
            "SELECT id, project_id, name, starts_at, ends_at, schedule, duration_seconds, monitors, tags, created_at, updated_at,
                created_by_kind, created_by_id
            FROM maintenance_window
            " + $tail
            $(, $argument)*
        )
    };
}

/// The columns of a [`When`].
type Times = (
    Option<DateTime<Utc>>,
    Option<DateTime<Utc>>,
    Option<Value>,
    Option<i32>,
);

fn times(when: &When) -> Times {
    match when {
        When::Once { starts_at, ends_at } => (Some(*starts_at), Some(*ends_at), None, None),
        When::Each {
            schedule,
            duration_seconds,
        } => (None, None, Some(schedule.to_json()), Some(*duration_seconds)),
    }
}

/// Writes a new window.
///
/// # Errors
/// When the database is away.
pub async fn insert(
    tx: &mut Tx,
    project: ProjectId,
    id: WindowId,
    window: &Window,
    by: Actor,
    now: DateTime<Utc>,
) -> StoreResult<()> {
    let (starts_at, ends_at, schedule, duration) = times(&window.when);
    let (kind, by) = creator(by);
    sqlx::query!(
        "INSERT INTO maintenance_window (id, project_id, name, starts_at, ends_at, schedule, duration_seconds, monitors, tags, created_at,
            updated_at, created_by_kind, created_by_id)
        VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $10, $11, $12)",
        id.0,
        project.0,
        window.name,
        starts_at,
        ends_at,
        schedule,
        duration,
        &window.monitors,
        &window.tags,
        now,
        kind,
        by
    )
    .execute(tx.conn())
    .await?;
    Ok(())
}

/// Writes a changed window.
///
/// # Errors
/// When the database is away.
pub async fn update(
    tx: &mut Tx,
    project: ProjectId,
    id: WindowId,
    window: &Window,
    now: DateTime<Utc>,
) -> StoreResult<()> {
    let (starts_at, ends_at, schedule, duration) = times(&window.when);
    sqlx::query!(
        "UPDATE maintenance_window
        SET name = $3, starts_at = $4, ends_at = $5, schedule = $6, duration_seconds = $7, monitors = $8, tags = $9, updated_at = $10
        WHERE project_id = $1 AND id = $2",
        project.0,
        id.0,
        window.name,
        starts_at,
        ends_at,
        schedule,
        duration,
        &window.monitors,
        &window.tags,
        now
    )
    .execute(tx.conn())
    .await?;
    Ok(())
}

/// Deletes a window. False: there was none.
///
/// # Errors
/// When the database is away.
pub async fn delete(tx: &mut Tx, project: ProjectId, id: WindowId) -> StoreResult<bool> {
    let done = sqlx::query!(
        "DELETE FROM maintenance_window WHERE project_id = $1 AND id = $2",
        project.0,
        id.0
    )
    .execute(tx.conn())
    .await?;
    Ok(done.rows_affected() > 0)
}

/// Deletes a project's windows that ended before `before`.
///
/// # Errors
/// When the database is away.
pub async fn delete_ended(tx: &mut Tx, project: ProjectId, before: DateTime<Utc>) -> StoreResult<()> {
    sqlx::query!(
        "DELETE FROM maintenance_window WHERE project_id = $1 AND ends_at < $2",
        project.0,
        before
    )
    .execute(tx.conn())
    .await?;
    Ok(())
}

/// Returns the number of windows of a project.
///
/// # Errors
/// When the database is away.
pub async fn count(tx: &mut Tx, project: ProjectId) -> StoreResult<i64> {
    Ok(sqlx::query_scalar!(
        "SELECT count(*) AS \"count!\" FROM maintenance_window WHERE project_id = $1",
        project.0
    )
    .fetch_one(tx.conn())
    .await?)
}

/// Returns one window of a project.
///
/// # Errors
/// When the database is away, or the row cannot be read.
pub async fn get(reader: &Reader, project: ProjectId, id: WindowId) -> StoreResult<Option<Stored>> {
    select!("WHERE project_id = $1 AND id = $2", project.0, id.0)
        .fetch_optional(reader.pool())
        .await?
        .map(Stored::try_from)
        .transpose()
}

/// Locks one window of a project.
///
/// # Errors
/// When the database is away, or the row cannot be read.
pub async fn lock(tx: &mut Tx, project: ProjectId, id: WindowId) -> StoreResult<Option<Stored>> {
    select!("WHERE project_id = $1 AND id = $2 FOR UPDATE", project.0, id.0)
        .fetch_optional(tx.conn())
        .await?
        .map(Stored::try_from)
        .transpose()
}

/// Returns a project's windows, newest first.
///
/// # Errors
/// When the database is away, or a row cannot be read.
pub async fn list(reader: &Reader, project: ProjectId, page: Page<WindowId>) -> StoreResult<Vec<Stored>> {
    let rows = select!(
        "WHERE project_id = $1 AND ($2::uuid IS NULL OR id < $2) ORDER BY id DESC LIMIT $3",
        project.0,
        page.after.map(|id| id.0),
        page.limit
    )
    .fetch_all(reader.pool())
    .await?;
    rows.into_iter().map(Stored::try_from).collect()
}

/// Returns the holds by windows that have not ended. An unreadable window holds nothing: an alert too many is better than one too few.
///
/// # Errors
/// When the database is away.
pub async fn holds(
    tx: &mut Tx,
    projects: &[ProjectId],
    now: DateTime<Utc>,
) -> StoreResult<HashMap<ProjectId, Vec<Hold>>> {
    let rows = select!(
        "WHERE project_id = ANY($1) AND (ends_at IS NULL OR ends_at > $2)",
        &column(projects, |id| id.0),
        now
    )
    .fetch_all(tx.conn())
    .await?;
    let mut found: HashMap<ProjectId, Vec<Hold>> = HashMap::new();
    for row in rows {
        let project = ProjectId(row.project_id);
        match Stored::try_from(row) {
            Ok(stored) => found.entry(project).or_default().push(stored.window.hold(now)),
            Err(error) => {
                tracing::error!(project.id = %project, %error, "a maintenance window cannot be read, so it holds no alerts")
            }
        }
    }
    Ok(found)
}
