//! Tables `project` and `member`.

use std::collections::HashMap;

use chrono::{DateTime, Utc};
use deadbeat_domain::ids::{AccountId, ProjectId};
use deadbeat_domain::people::access::{Access, Actor};
use deadbeat_domain::people::role::Role;

use crate::monitor::batch::column;
use crate::{Reader, StoreError, StoreResult, Tx};

/// A project.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Project {
    /// Its id.
    pub id: ProjectId,
    /// Its name.
    pub name: String,
    /// The time between two reminders of an open incident, in seconds. None: no reminders.
    pub reminder_seconds: Option<i32>,
    /// When it was created.
    pub created_at: DateTime<Utc>,
}

/// Writes a new project.
///
/// # Errors
/// When the database is away.
pub async fn insert(tx: &mut Tx, project: &Project) -> StoreResult<()> {
    sqlx::query!(
        "INSERT INTO project (id, name, reminder_seconds, created_at) VALUES ($1, $2, $3, $4)",
        project.id.0,
        project.name,
        project.reminder_seconds,
        project.created_at
    )
    .execute(tx.conn())
    .await?;
    Ok(())
}

/// Writes the settings that a person can change. False: there is no project of that id.
///
/// # Errors
/// When the database is away.
pub async fn update(
    tx: &mut Tx,
    id: ProjectId,
    name: Option<&str>,
    reminder_seconds: Option<Option<i32>>,
) -> StoreResult<bool> {
    let done = sqlx::query!(
        "UPDATE project
        SET name = coalesce($2, name), reminder_seconds = CASE WHEN $3 THEN $4 ELSE reminder_seconds END
        WHERE id = $1",
        id.0,
        name,
        reminder_seconds.is_some(),
        reminder_seconds.flatten()
    )
    .execute(tx.conn())
    .await?;
    Ok(done.rows_affected() == 1)
}

/// Returns one project.
///
/// # Errors
/// When the database is away.
pub async fn get(reader: &Reader, id: ProjectId) -> StoreResult<Option<Project>> {
    let row = sqlx::query!(
        "SELECT id, name, reminder_seconds, created_at FROM project WHERE id = $1",
        id.0
    )
    .fetch_optional(reader.pool())
    .await?;
    Ok(row.map(|row| Project {
        id: ProjectId(row.id),
        name: row.name,
        reminder_seconds: row.reminder_seconds,
        created_at: row.created_at,
    }))
}

/// Returns the number of a project, which clients of other products use in place of its id.
///
/// # Errors
/// When the database is away.
pub async fn number(reader: &Reader, id: ProjectId) -> StoreResult<Option<i64>> {
    Ok(
        sqlx::query_scalar!("SELECT number FROM project WHERE id = $1", id.0)
            .fetch_optional(reader.pool())
            .await?,
    )
}

/// The values of a project that its alerts need.
#[derive(Debug, Clone)]
pub struct ForAlert {
    /// Its name.
    pub name: String,
    /// The time between two reminders of an open incident, in seconds. None: no reminders.
    pub reminder_seconds: Option<i32>,
}

/// Returns the values of projects that their alerts need. Locks the projects against [`lock_rules`].
///
/// # Errors
/// When the database is away.
pub async fn for_alerts(tx: &mut Tx, ids: &[ProjectId]) -> StoreResult<HashMap<ProjectId, ForAlert>> {
    let rows = sqlx::query!(
        "SELECT id, name, reminder_seconds FROM project WHERE id = ANY($1) ORDER BY id FOR SHARE",
        &column(ids, |id| id.0)
    )
    .fetch_all(tx.conn())
    .await?;
    Ok(rows
        .into_iter()
        .map(|row| {
            let project = ForAlert {
                name: row.name,
                reminder_seconds: row.reminder_seconds,
            };
            (ProjectId(row.id), project)
        })
        .collect())
}

/// Locks a project before a change of the rules that hold its alerts. A transaction that puts alerts into the outbox reads these rules under a lock
/// that excludes this one ([`for_alerts`]). So either the new alert follows the changed rules, or the transaction that changes the rules finds the
/// alert.
///
/// # Errors
/// When the database is away.
pub async fn lock_rules(tx: &mut Tx, id: ProjectId) -> StoreResult<()> {
    sqlx::query!("SELECT id FROM project WHERE id = $1 FOR NO KEY UPDATE", id.0)
        .fetch_optional(tx.conn())
        .await?;
    Ok(())
}

/// Makes an account a member of a project.
///
/// # Errors
/// When the database is away.
pub async fn add_member(
    tx: &mut Tx,
    id: ProjectId,
    account: AccountId,
    role: Role,
    now: DateTime<Utc>,
) -> StoreResult<()> {
    sqlx::query!(
        "INSERT INTO member (project_id, account_id, role, created_at) VALUES ($1, $2, $3, $4)
        ON CONFLICT (project_id, account_id) DO UPDATE SET role = excluded.role",
        id.0,
        account.0,
        role.as_str(),
        now
    )
    .execute(tx.conn())
    .await?;
    Ok(())
}

/// Returns the oldest account, which owns the projects that the command line creates.
///
/// # Errors
/// When the database is away.
pub async fn first_account(tx: &mut Tx) -> StoreResult<Option<AccountId>> {
    Ok(
        sqlx::query_scalar!("SELECT id FROM account ORDER BY created_at, id LIMIT 1")
            .fetch_optional(tx.conn())
            .await?
            .map(AccountId),
    )
}

/// Locks an account, and returns the number of projects that it owns.
///
/// # Errors
/// When the database is away.
pub async fn count_owned(tx: &mut Tx, account: AccountId) -> StoreResult<i64> {
    sqlx::query_scalar!(
        "SELECT id FROM account WHERE id = $1 FOR NO KEY UPDATE",
        account.0
    )
    .fetch_optional(tx.conn())
    .await?;
    Ok(sqlx::query_scalar!(
        r#"SELECT count(*) AS "count!" FROM member WHERE account_id = $1 AND role = 'owner'"#,
        account.0
    )
    .fetch_one(tx.conn())
    .await?)
}

/// A project in which an account is a member, with the account's role there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Membership {
    /// The project.
    pub project: Project,
    /// The account's access there.
    pub access: Access,
}

/// Returns an account's projects, oldest first.
///
/// # Errors
/// When the database is away, or a role cannot be read.
pub async fn of_account(reader: &Reader, account: AccountId) -> StoreResult<Vec<Membership>> {
    let rows = sqlx::query!(
        "SELECT id, name, reminder_seconds, project.created_at, role
        FROM project JOIN member ON project_id = project.id
        WHERE account_id = $1
        ORDER BY project.created_at, id",
        account.0
    )
    .fetch_all(reader.pool())
    .await?;
    rows.into_iter()
        .map(|row| {
            let role =
                Role::parse(&row.role).ok_or_else(|| StoreError::Corrupt(format!("role {}", row.role)))?;
            let project = Project {
                id: ProjectId(row.id),
                name: row.name,
                reminder_seconds: row.reminder_seconds,
                created_at: row.created_at,
            };
            let access = Access::new(project.id, Actor::Account { id: account, role });
            Ok(Membership { project, access })
        })
        .collect()
}
