//! Table `rotation`: who is on call.

use chrono::{DateTime, Utc};
use deadbeat_domain::alert::rotation::Rotation;
use deadbeat_domain::ids::{ProjectId, RotationId};
use serde_json::Value;
use uuid::Uuid;

use crate::error::each;
use crate::monitor::batch::column;
use crate::page::Page;
use crate::{Reader, StoreError, StoreResult, Tx, Unreadable};

/// A rotation as stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredRotation {
    /// Its id.
    pub id: RotationId,
    /// The project that owns it.
    pub project_id: ProjectId,
    /// Its settings, checked.
    pub rotation: Rotation,
    /// When it was created.
    pub created_at: DateTime<Utc>,
    /// When it last changed.
    pub updated_at: DateTime<Utc>,
}

struct Row {
    id: Uuid,
    project_id: Uuid,
    settings: Value,
    created_at: DateTime<Utc>,
    updated_at: DateTime<Utc>,
}

impl TryFrom<Row> for StoredRotation {
    type Error = StoreError;

    fn try_from(row: Row) -> StoreResult<Self> {
        let corrupt = || StoreError::Corrupt(format!("rotation {}: settings", row.id));
        let settings = serde_json::from_value(row.settings).map_err(|_| corrupt())?;
        Ok(Self {
            id: RotationId(row.id),
            project_id: ProjectId(row.project_id),
            rotation: Rotation::read(settings).map_err(|_| corrupt())?,
            created_at: row.created_at,
            updated_at: row.updated_at,
        })
    }
}

macro_rules! select {
    ($tail:tt $(, $argument:expr)* $(,)?) => {
        sqlx::query_as!(
            Row,
            "SELECT id, project_id, settings, created_at, updated_at FROM rotation " + $tail
            $(, $argument)*
        )
    };
}

fn settings(rotation: &Rotation) -> StoreResult<Value> {
    serde_json::to_value(rotation.settings()).map_err(|error| StoreError::Corrupt(error.to_string()))
}

/// Writes a new rotation.
///
/// # Errors
/// If the database is away.
pub async fn insert(tx: &mut Tx, new: &StoredRotation) -> StoreResult<()> {
    sqlx::query!(
        "INSERT INTO rotation (id, project_id, settings, created_at, updated_at) VALUES ($1, $2, $3, $4, $5)",
        new.id.0,
        new.project_id.0,
        settings(&new.rotation)?,
        new.created_at,
        new.updated_at
    )
    .execute(tx.conn())
    .await?;
    Ok(())
}

/// Writes a changed rotation.
///
/// # Errors
/// If the database is away.
pub async fn update(tx: &mut Tx, changed: &StoredRotation) -> StoreResult<()> {
    sqlx::query!(
        "UPDATE rotation SET settings = $3, updated_at = $4 WHERE project_id = $1 AND id = $2",
        changed.project_id.0,
        changed.id.0,
        settings(&changed.rotation)?,
        changed.updated_at
    )
    .execute(tx.conn())
    .await?;
    Ok(())
}

/// Deletes a rotation.
///
/// # Errors
/// If the database is away.
pub async fn delete(tx: &mut Tx, project: ProjectId, id: RotationId) -> StoreResult<()> {
    sqlx::query!(
        "DELETE FROM rotation WHERE project_id = $1 AND id = $2",
        project.0,
        id.0
    )
    .execute(tx.conn())
    .await?;
    Ok(())
}

/// Locks a rotation that is about to change. Policies may still start to name it.
///
/// # Errors
/// If the database is away, or the row cannot be read.
pub async fn lock(tx: &mut Tx, project: ProjectId, id: RotationId) -> StoreResult<Option<StoredRotation>> {
    select!(
        "WHERE project_id = $1 AND id = $2 FOR NO KEY UPDATE",
        project.0,
        id.0
    )
    .fetch_optional(tx.conn())
    .await?
    .map(StoredRotation::try_from)
    .transpose()
}

/// Returns one rotation of a project.
///
/// # Errors
/// If the database is away, or the row cannot be read.
pub async fn get(reader: &Reader, project: ProjectId, id: RotationId) -> StoreResult<Option<StoredRotation>> {
    select!("WHERE project_id = $1 AND id = $2", project.0, id.0)
        .fetch_optional(reader.pool())
        .await?
        .map(StoredRotation::try_from)
        .transpose()
}

/// Returns a project's rotations, newest first.
///
/// # Errors
/// If the database is away, or a row cannot be read.
pub async fn list(
    reader: &Reader,
    project: ProjectId,
    page: Page<RotationId>,
) -> StoreResult<Vec<StoredRotation>> {
    let rows = select!(
        "WHERE project_id = $1 AND ($2::uuid IS NULL OR id < $2) ORDER BY id DESC LIMIT $3",
        project.0,
        page.after.map(|id| id.0),
        page.limit
    )
    .fetch_all(reader.pool())
    .await?;
    rows.into_iter().map(StoredRotation::try_from).collect()
}

/// Returns all rotations of a project, oldest first.
///
/// # Errors
/// If the database is away.
pub async fn all(tx: &mut Tx, project: ProjectId) -> StoreResult<Vec<Result<StoredRotation, Unreadable>>> {
    let rows = select!("WHERE project_id = $1 ORDER BY id", project.0)
        .fetch_all(tx.conn())
        .await?;
    Ok(each(rows, |row| (row.project_id, row.id)))
}

/// Returns those of these rotations that exist.
///
/// # Errors
/// If the database is away.
pub async fn named(
    tx: &mut Tx,
    keys: &[(ProjectId, RotationId)],
) -> StoreResult<Vec<Result<StoredRotation, Unreadable>>> {
    let rows = select!(
        "WHERE (project_id, id) IN (SELECT * FROM UNNEST($1::uuid[], $2::uuid[]))",
        &column(keys, |(project, _)| project.0),
        &column(keys, |(_, id)| id.0)
    )
    .fetch_all(tx.conn())
    .await?;
    Ok(each(rows, |row| (row.project_id, row.id)))
}

/// Returns the number of rotations of a project.
///
/// # Errors
/// If the database is away.
pub async fn count(tx: &mut Tx, project: ProjectId) -> StoreResult<i64> {
    Ok(sqlx::query_scalar!(
        "SELECT count(*) AS \"count!\" FROM rotation WHERE project_id = $1",
        project.0
    )
    .fetch_one(tx.conn())
    .await?)
}
