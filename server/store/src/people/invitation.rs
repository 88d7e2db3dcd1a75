//! Table `invitation`: links by which people become members of a project.

use chrono::{DateTime, Utc};
use deadbeat_domain::ids::{InvitationId, ProjectId};
use deadbeat_domain::people::role::Role;
use uuid::Uuid;

use crate::page::Page;
use crate::{Reader, StoreError, StoreResult, Tx};

/// An invitation as stored. The link's token is never stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Invitation {
    /// Its id.
    pub id: InvitationId,
    /// The project.
    pub project_id: ProjectId,
    /// The mail address of the only account that may accept. None: whoever has the link may.
    pub email: Option<String>,
    /// The role that the new member gets.
    pub role: Role,
    /// The kind of actor who invited: `account`, `key` or `operator`.
    pub maker_kind: String,
    /// The id of the account or key.
    pub maker_id: Option<Uuid>,
    /// When it was made.
    pub created_at: DateTime<Utc>,
    /// When it ends.
    pub expires_at: DateTime<Utc>,
}

struct Row {
    id: Uuid,
    project_id: Uuid,
    email: Option<String>,
    role: String,
    maker_kind: String,
    maker_id: Option<Uuid>,
    created_at: DateTime<Utc>,
    expires_at: DateTime<Utc>,
}

impl TryFrom<Row> for Invitation {
    type Error = StoreError;

    fn try_from(row: Row) -> StoreResult<Self> {
        Ok(Self {
            id: InvitationId(row.id),
            project_id: ProjectId(row.project_id),
            email: row.email,
            role: Role::parse(&row.role).ok_or_else(|| StoreError::Corrupt(format!("role {}", row.role)))?,
            maker_kind: row.maker_kind,
            maker_id: row.maker_id,
            created_at: row.created_at,
            expires_at: row.expires_at,
        })
    }
}

/// Writes a new invitation.
///
/// # Errors
/// When the database is away.
pub async fn insert(tx: &mut Tx, invitation: &Invitation, digest: &[u8]) -> StoreResult<()> {
    sqlx::query!(
        "INSERT INTO invitation (id, project_id, email, role, digest, maker_kind, maker_id, created_at, expires_at)
        VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)",
        invitation.id.0,
        invitation.project_id.0,
        invitation.email,
        invitation.role.as_str(),
        digest,
        invitation.maker_kind,
        invitation.maker_id,
        invitation.created_at,
        invitation.expires_at
    )
    .execute(tx.conn())
    .await?;
    Ok(())
}

/// Returns the number of invitations of a project that have not ended.
///
/// # Errors
/// When the database is away.
pub async fn count(tx: &mut Tx, project: ProjectId, now: DateTime<Utc>) -> StoreResult<i64> {
    Ok(sqlx::query_scalar!(
        r#"SELECT count(*) AS "count!" FROM invitation WHERE project_id = $1 AND expires_at > $2"#,
        project.0,
        now
    )
    .fetch_one(tx.conn())
    .await?)
}

/// Returns the invitations of a project that have not ended, newest first.
///
/// # Errors
/// When the database is away, or a row cannot be read.
pub async fn list(
    reader: &Reader,
    project: ProjectId,
    page: Page<InvitationId>,
    now: DateTime<Utc>,
) -> StoreResult<Vec<Invitation>> {
    let rows = sqlx::query_as!(
        Row,
        "SELECT id, project_id, email, role, maker_kind, maker_id, created_at, expires_at
        FROM invitation
        WHERE project_id = $1 AND expires_at > $4 AND ($2::uuid IS NULL OR id < $2)
        ORDER BY id DESC
        LIMIT $3",
        project.0,
        page.after.map(|id| id.0),
        page.limit,
        now
    )
    .fetch_all(reader.pool())
    .await?;
    rows.into_iter().map(Invitation::try_from).collect()
}

/// Returns the invitation of a link that has not ended.
///
/// # Errors
/// When the database is away, or the row cannot be read.
pub async fn by_digest(
    reader: &Reader,
    digest: &[u8],
    now: DateTime<Utc>,
) -> StoreResult<Option<Invitation>> {
    sqlx::query_as!(
        Row,
        "SELECT id, project_id, email, role, maker_kind, maker_id, created_at, expires_at
        FROM invitation
        WHERE digest = $1 AND expires_at > $2",
        digest,
        now
    )
    .fetch_optional(reader.pool())
    .await?
    .map(Invitation::try_from)
    .transpose()
}

/// Uses an invitation up. The caller has locked the members of the project. None: it has ended, was withdrawn, or somebody has used it.
///
/// # Errors
/// When the database is away, or the row cannot be read.
pub async fn take(
    tx: &mut Tx,
    project: ProjectId,
    digest: &[u8],
    now: DateTime<Utc>,
) -> StoreResult<Option<Invitation>> {
    sqlx::query_as!(
        Row,
        "DELETE FROM invitation
        WHERE project_id = $1 AND digest = $2 AND expires_at > $3
        RETURNING id, project_id, email, role, maker_kind, maker_id, created_at, expires_at",
        project.0,
        digest,
        now
    )
    .fetch_optional(tx.conn())
    .await?
    .map(Invitation::try_from)
    .transpose()
}

/// Withdraws an invitation. Returns the role that it offered. None: the project has no invitation of that id.
///
/// # Errors
/// When the database is away, or the role cannot be read.
pub async fn delete(tx: &mut Tx, project: ProjectId, id: InvitationId) -> StoreResult<Option<Role>> {
    let role = sqlx::query_scalar!(
        "DELETE FROM invitation WHERE project_id = $1 AND id = $2 RETURNING role",
        project.0,
        id.0
    )
    .fetch_optional(tx.conn())
    .await?;
    role.map(|role| Role::parse(&role).ok_or_else(|| StoreError::Corrupt(format!("role {role}"))))
        .transpose()
}

/// Deletes invitations that have ended, at most `most`.
///
/// # Errors
/// When the database is away.
pub async fn forget_ended(tx: &mut Tx, now: DateTime<Utc>, most: i64) -> StoreResult<u64> {
    let done = sqlx::query!(
        "DELETE FROM invitation
        WHERE id = ANY(ARRAY(SELECT id FROM invitation WHERE expires_at <= $1 ORDER BY expires_at LIMIT $2))",
        now,
        most
    )
    .execute(tx.conn())
    .await?;
    Ok(done.rows_affected())
}
