//! Table `api_key`.

use chrono::{DateTime, Utc};
use deadbeat_domain::ids::{ApiKeyId, ProjectId};
use deadbeat_domain::people::access::{Access, Actor};
use deadbeat_domain::people::key::Scope;
use uuid::Uuid;

use crate::page::Page;
use crate::{Reader, StoreError, StoreResult, Tx};

/// An API key as stored. The key itself is never stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ApiKey {
    /// Its id.
    pub id: ApiKeyId,
    /// The project that owns it.
    pub project_id: ProjectId,
    /// Its name for people.
    pub name: String,
    /// The scope of the key.
    pub scope: Scope,
    /// The first characters of the key.
    pub prefix: String,
    /// When it was issued.
    pub created_at: DateTime<Utc>,
    /// When it was last used, within a minute.
    pub last_used_at: Option<DateTime<Utc>>,
    /// When it was revoked.
    pub revoked_at: Option<DateTime<Utc>>,
}

impl ApiKey {
    /// Returns the access of a request with this key.
    #[must_use]
    pub fn access(&self) -> Access {
        let (id, scope) = (self.id, self.scope);
        Access::new(self.project_id, Actor::Key { id, scope })
    }
}

struct Row {
    id: Uuid,
    project_id: Uuid,
    name: String,
    scope: String,
    prefix: String,
    created_at: DateTime<Utc>,
    last_used_at: Option<DateTime<Utc>>,
    revoked_at: Option<DateTime<Utc>>,
}

impl TryFrom<Row> for ApiKey {
    type Error = StoreError;

    fn try_from(row: Row) -> StoreResult<Self> {
        Ok(Self {
            id: ApiKeyId(row.id),
            project_id: ProjectId(row.project_id),
            name: row.name,
            scope: Scope::parse(&row.scope)
                .ok_or_else(|| StoreError::Corrupt(format!("key scope {}", row.scope)))?,
            prefix: row.prefix,
            created_at: row.created_at,
            last_used_at: row.last_used_at,
            revoked_at: row.revoked_at,
        })
    }
}

/// Writes a new key's digest.
///
/// # Errors
/// When the database is away.
pub async fn insert(tx: &mut Tx, key: &ApiKey, digest: &[u8]) -> StoreResult<()> {
    sqlx::query!(
        "INSERT INTO api_key (id, project_id, name, scope, prefix, digest, created_at) VALUES ($1, $2, $3, $4, $5, $6, $7)",
        key.id.0,
        key.project_id.0,
        key.name,
        key.scope.as_str(),
        key.prefix,
        digest,
        key.created_at
    )
    .execute(tx.conn())
    .await?;
    Ok(())
}

/// Returns the number of keys of a project that are not revoked.
///
/// # Errors
/// When the database is away.
pub async fn count(tx: &mut Tx, project: ProjectId) -> StoreResult<i64> {
    Ok(sqlx::query_scalar!(
        r#"SELECT count(*) AS "count!" FROM api_key WHERE project_id = $1 AND revoked_at IS NULL"#,
        project.0
    )
    .fetch_one(tx.conn())
    .await?)
}

/// Returns the key of a digest, unless it is revoked.
///
/// # Errors
/// When the database is away.
pub async fn by_digest(reader: &Reader, digest: &[u8]) -> StoreResult<Option<ApiKey>> {
    sqlx::query_as!(
        Row,
        "SELECT id, project_id, name, scope, prefix, created_at, last_used_at, revoked_at
        FROM api_key
        WHERE digest = $1 AND revoked_at IS NULL",
        digest
    )
    .fetch_optional(reader.pool())
    .await?
    .map(ApiKey::try_from)
    .transpose()
}

/// Notes that keys were used. Skips a key that another transaction has locked: the note is not worth a wait.
///
/// # Errors
/// When the database is away.
pub async fn touch(tx: &mut Tx, digests: &[Vec<u8>], now: DateTime<Utc>) -> StoreResult<()> {
    sqlx::query!(
        "UPDATE api_key SET last_used_at = $2
        WHERE id IN (SELECT id FROM api_key WHERE digest = ANY($1) FOR NO KEY UPDATE SKIP LOCKED)",
        digests,
        now
    )
    .execute(tx.conn())
    .await?;
    Ok(())
}

/// Returns a project's keys, newest first, including revoked ones.
///
/// # Errors
/// When the database is away.
pub async fn list(reader: &Reader, project: ProjectId, page: Page<ApiKeyId>) -> StoreResult<Vec<ApiKey>> {
    let rows = sqlx::query_as!(
        Row,
        "SELECT id, project_id, name, scope, prefix, created_at, last_used_at, revoked_at
        FROM api_key
        WHERE project_id = $1 AND ($2::uuid IS NULL OR id < $2)
        ORDER BY id DESC
        LIMIT $3",
        project.0,
        page.after.map(|id| id.0),
        page.limit
    )
    .fetch_all(reader.pool())
    .await?;
    rows.into_iter().map(ApiKey::try_from).collect()
}

/// Revokes a key for good. False: the project has no key of that id. The time of the first revocation stays.
///
/// # Errors
/// When the database is away.
pub async fn revoke(tx: &mut Tx, project: ProjectId, id: ApiKeyId, now: DateTime<Utc>) -> StoreResult<bool> {
    let done = sqlx::query!(
        "UPDATE api_key SET revoked_at = coalesce(revoked_at, $3) WHERE project_id = $1 AND id = $2",
        project.0,
        id.0,
        now
    )
    .execute(tx.conn())
    .await?;
    Ok(done.rows_affected() == 1)
}

/// Deletes keys that were revoked before `before`, at most `most`.
///
/// # Errors
/// When the database is away.
pub async fn forget_revoked(tx: &mut Tx, before: DateTime<Utc>, most: i64) -> StoreResult<u64> {
    let done = sqlx::query!(
        "DELETE FROM api_key
        WHERE id = ANY(ARRAY(SELECT id FROM api_key WHERE revoked_at < $1 ORDER BY revoked_at LIMIT $2))",
        before,
        most
    )
    .execute(tx.conn())
    .await?;
    Ok(done.rows_affected())
}

/// Returns the name of a key. None: the project has no such key.
///
/// # Errors
/// When the database is away.
pub async fn name_of(tx: &mut Tx, project: ProjectId, id: ApiKeyId) -> StoreResult<Option<String>> {
    Ok(sqlx::query_scalar!(
        "SELECT name FROM api_key WHERE project_id = $1 AND id = $2",
        project.0,
        id.0
    )
    .fetch_optional(tx.conn())
    .await?)
}
