//! Table `escalation_policy`: which people are notified if nobody acknowledges an incident.

use std::collections::HashMap;

use chrono::{DateTime, Utc};
use deadbeat_domain::alert::escalation::{Candidate, Policy};
use deadbeat_domain::ids::{EscalationPolicyId, ProjectId};
use serde_json::Value;
use uuid::Uuid;

use crate::error::each;
use crate::monitor::batch::column;
use crate::page::Page;
use crate::{Reader, StoreError, StoreResult, Tx, Unreadable};

/// An escalation policy as stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredPolicy {
    /// Its id.
    pub id: EscalationPolicyId,
    /// The project that owns it.
    pub project_id: ProjectId,
    /// Its settings, checked.
    pub policy: Policy,
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

impl TryFrom<Row> for StoredPolicy {
    type Error = StoreError;

    fn try_from(row: Row) -> StoreResult<Self> {
        let corrupt = || StoreError::Corrupt(format!("escalation policy {}: settings", row.id));
        let settings = serde_json::from_value(row.settings).map_err(|_| corrupt())?;
        Ok(Self {
            id: EscalationPolicyId(row.id),
            project_id: ProjectId(row.project_id),
            policy: Policy::read(settings).map_err(|_| corrupt())?,
            created_at: row.created_at,
            updated_at: row.updated_at,
        })
    }
}

macro_rules! select {
    ($tail:tt $(, $argument:expr)* $(,)?) => {
        sqlx::query_as!(
            Row,
            "SELECT id, project_id, settings, created_at, updated_at FROM escalation_policy " + $tail
            $(, $argument)*
        )
    };
}

fn settings(policy: &Policy) -> StoreResult<Value> {
    serde_json::to_value(policy.settings()).map_err(|error| StoreError::Corrupt(error.to_string()))
}

/// Writes a new policy.
///
/// # Errors
/// If the new policy is a default and the project has one already (`escalation_policy_default`), or the database is
/// away.
pub async fn insert(tx: &mut Tx, new: &StoredPolicy) -> StoreResult<()> {
    sqlx::query!(
        "INSERT INTO escalation_policy (id, project_id, settings, tags, created_at, updated_at) VALUES ($1, $2, $3, $4, $5, $6)",
        new.id.0,
        new.project_id.0,
        settings(&new.policy)?,
        new.policy.tags(),
        new.created_at,
        new.updated_at
    )
    .execute(tx.conn())
    .await?;
    Ok(())
}

/// Writes a changed policy.
///
/// # Errors
/// If the changed policy is a default and the project has another one (`escalation_policy_default`), or the database is
/// away.
pub async fn update(tx: &mut Tx, changed: &StoredPolicy) -> StoreResult<()> {
    sqlx::query!(
        "UPDATE escalation_policy SET settings = $3, tags = $4, updated_at = $5 WHERE project_id = $1 AND id = $2",
        changed.project_id.0,
        changed.id.0,
        settings(&changed.policy)?,
        changed.policy.tags(),
        changed.updated_at
    )
    .execute(tx.conn())
    .await?;
    Ok(())
}

/// Deletes a policy. False: there was none.
///
/// # Errors
/// If the database is away.
pub async fn delete(tx: &mut Tx, project: ProjectId, id: EscalationPolicyId) -> StoreResult<bool> {
    let done = sqlx::query!(
        "DELETE FROM escalation_policy WHERE project_id = $1 AND id = $2",
        project.0,
        id.0
    )
    .execute(tx.conn())
    .await?;
    Ok(done.rows_affected() == 1)
}

/// Locks a policy that is about to change.
///
/// # Errors
/// If the database is away, or the row cannot be read.
pub async fn lock(
    tx: &mut Tx,
    project: ProjectId,
    id: EscalationPolicyId,
) -> StoreResult<Option<StoredPolicy>> {
    select!("WHERE project_id = $1 AND id = $2 FOR UPDATE", project.0, id.0)
        .fetch_optional(tx.conn())
        .await?
        .map(StoredPolicy::try_from)
        .transpose()
}

/// Returns one policy of a project.
///
/// # Errors
/// If the database is away, or the row cannot be read.
pub async fn get(
    reader: &Reader,
    project: ProjectId,
    id: EscalationPolicyId,
) -> StoreResult<Option<StoredPolicy>> {
    select!("WHERE project_id = $1 AND id = $2", project.0, id.0)
        .fetch_optional(reader.pool())
        .await?
        .map(StoredPolicy::try_from)
        .transpose()
}

/// Returns a project's policies, newest first.
///
/// # Errors
/// If the database is away, or a row cannot be read.
pub async fn list(
    reader: &Reader,
    project: ProjectId,
    page: Page<EscalationPolicyId>,
) -> StoreResult<Vec<StoredPolicy>> {
    let rows = select!(
        "WHERE project_id = $1 AND ($2::uuid IS NULL OR id < $2) ORDER BY id DESC LIMIT $3",
        project.0,
        page.after.map(|id| id.0),
        page.limit
    )
    .fetch_all(reader.pool())
    .await?;
    rows.into_iter().map(StoredPolicy::try_from).collect()
}

/// Returns all policies of a project, oldest first.
///
/// # Errors
/// If the database is away.
pub async fn all(tx: &mut Tx, project: ProjectId) -> StoreResult<Vec<Result<StoredPolicy, Unreadable>>> {
    let rows = select!("WHERE project_id = $1 ORDER BY id", project.0)
        .fetch_all(tx.conn())
        .await?;
    Ok(each(rows, |row| (row.project_id, row.id)))
}

/// Returns those of these policies that exist.
///
/// # Errors
/// If the database is away.
pub async fn named(
    tx: &mut Tx,
    keys: &[(ProjectId, EscalationPolicyId)],
) -> StoreResult<Vec<Result<StoredPolicy, Unreadable>>> {
    let rows = select!(
        "WHERE (project_id, id) IN (SELECT * FROM UNNEST($1::uuid[], $2::uuid[]))",
        &column(keys, |(project, _)| project.0),
        &column(keys, |(_, id)| id.0)
    )
    .fetch_all(tx.conn())
    .await?;
    Ok(each(rows, |row| (row.project_id, row.id)))
}

/// Returns the policies of projects, with the values that decide to which incidents they apply.
///
/// # Errors
/// If the database is away.
pub async fn candidates(
    tx: &mut Tx,
    projects: &[ProjectId],
) -> StoreResult<HashMap<ProjectId, Vec<Candidate>>> {
    let rows = sqlx::query!(
        r#"
        SELECT project_id, id, tags, (settings #>> '{steps,0,delay_seconds}')::int8 AS first_delay
        FROM escalation_policy
        WHERE project_id = ANY($1)
        "#,
        &column(projects, |id| id.0)
    )
    .fetch_all(tx.conn())
    .await?;
    let mut found: HashMap<ProjectId, Vec<Candidate>> = HashMap::new();
    for row in rows {
        found
            .entry(ProjectId(row.project_id))
            .or_default()
            .push(Candidate {
                id: EscalationPolicyId(row.id),
                tags: row.tags,
                first_delay_seconds: row
                    .first_delay
                    .and_then(|delay| u32::try_from(delay).ok())
                    .unwrap_or(0),
            });
    }
    Ok(found)
}

/// Returns the number of policies of a project.
///
/// # Errors
/// If the database is away.
pub async fn count(tx: &mut Tx, project: ProjectId) -> StoreResult<i64> {
    Ok(sqlx::query_scalar!(
        "SELECT count(*) AS \"count!\" FROM escalation_policy WHERE project_id = $1",
        project.0
    )
    .fetch_one(tx.conn())
    .await?)
}
