//! Table `member`: the accounts of a project, with their roles.

use chrono::{DateTime, Utc};
use deadbeat_domain::ids::{AccountId, ProjectId};
use deadbeat_domain::people::role::Role;

use crate::page::Page;
use crate::{Reader, StoreError, StoreResult, Tx};

/// An account in a project.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    /// The account.
    pub account: AccountId,
    /// Its mail address.
    pub email: String,
    /// Its role.
    pub role: Role,
    /// Since when it is a member.
    pub created_at: DateTime<Utc>,
}

fn role(text: &str) -> StoreResult<Role> {
    Role::parse(text).ok_or_else(|| StoreError::Corrupt(format!("role {text}")))
}

/// Locks the list of members of a project until the transaction ends. Everything that adds, changes or removes a member takes this lock first: two owners
/// who leave at the same moment then come one after the other, and the second one is the last owner. False: there is no such project.
///
/// # Errors
/// When the database is away.
pub async fn lock(tx: &mut Tx, project: ProjectId) -> StoreResult<bool> {
    let found = sqlx::query_scalar!(
        "SELECT id FROM project WHERE id = $1 FOR NO KEY UPDATE",
        project.0
    )
    .fetch_optional(tx.conn())
    .await?;
    Ok(found.is_some())
}

/// Returns the members of a project, those with the newest accounts first.
///
/// # Errors
/// When the database is away, or a role cannot be read.
pub async fn list(reader: &Reader, project: ProjectId, page: Page<AccountId>) -> StoreResult<Vec<Member>> {
    let rows = sqlx::query!(
        "SELECT account_id, email, role, member.created_at
        FROM member JOIN account ON account.id = account_id
        WHERE project_id = $1 AND ($2::uuid IS NULL OR account_id < $2)
        ORDER BY account_id DESC
        LIMIT $3",
        project.0,
        page.after.map(|id| id.0),
        page.limit
    )
    .fetch_all(reader.pool())
    .await?;
    rows.into_iter()
        .map(|row| {
            Ok(Member {
                account: AccountId(row.account_id),
                email: row.email,
                role: role(&row.role)?,
                created_at: row.created_at,
            })
        })
        .collect()
}

/// Returns one member of a project. None: the account is not a member.
///
/// # Errors
/// When the database is away, or the role cannot be read.
pub async fn get(tx: &mut Tx, project: ProjectId, account: AccountId) -> StoreResult<Option<Member>> {
    let row = sqlx::query!(
        "SELECT account_id, email, role, member.created_at
        FROM member JOIN account ON account.id = account_id
        WHERE project_id = $1 AND account_id = $2",
        project.0,
        account.0
    )
    .fetch_optional(tx.conn())
    .await?;
    row.map(|row| {
        Ok(Member {
            account: AccountId(row.account_id),
            email: row.email,
            role: role(&row.role)?,
            created_at: row.created_at,
        })
    })
    .transpose()
}

/// Adds a member. False: the account is a member already; its role stays.
///
/// # Errors
/// When the database is away.
pub async fn add(
    tx: &mut Tx,
    project: ProjectId,
    account: AccountId,
    role: Role,
    now: DateTime<Utc>,
) -> StoreResult<bool> {
    let done = sqlx::query!(
        "INSERT INTO member (project_id, account_id, role, created_at) VALUES ($1, $2, $3, $4)
        ON CONFLICT (project_id, account_id) DO NOTHING",
        project.0,
        account.0,
        role.as_str(),
        now
    )
    .execute(tx.conn())
    .await?;
    Ok(done.rows_affected() == 1)
}

/// Changes a member's role.
///
/// # Errors
/// When the database is away.
pub async fn set_role(tx: &mut Tx, project: ProjectId, account: AccountId, role: Role) -> StoreResult<()> {
    sqlx::query!(
        "UPDATE member SET role = $3 WHERE project_id = $1 AND account_id = $2",
        project.0,
        account.0,
        role.as_str()
    )
    .execute(tx.conn())
    .await?;
    Ok(())
}

/// Removes a member.
///
/// # Errors
/// When the database is away.
pub async fn remove(tx: &mut Tx, project: ProjectId, account: AccountId) -> StoreResult<()> {
    sqlx::query!(
        "DELETE FROM member WHERE project_id = $1 AND account_id = $2",
        project.0,
        account.0
    )
    .execute(tx.conn())
    .await?;
    Ok(())
}

/// Returns the number of members of a project, and the number of owners among them.
///
/// # Errors
/// When the database is away.
pub async fn count(tx: &mut Tx, project: ProjectId) -> StoreResult<(i64, i64)> {
    let row = sqlx::query!(
        r#"SELECT count(*) AS "members!", count(*) FILTER (WHERE role = 'owner') AS "owners!"
        FROM member
        WHERE project_id = $1"#,
        project.0
    )
    .fetch_one(tx.conn())
    .await?;
    Ok((row.members, row.owners))
}
