//! Table `api_key`.

use chrono::{DateTime, Utc};
use deadbeat_domain::ids::{ApiKeyId, ProjectId};
use deadbeat_domain::people::access::{Access, Actor};
use deadbeat_domain::people::key::Scope;
use deadbeat_domain::people::key_limit::{KeyLimits, Networks};
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
    /// The address from which it was used then.
    pub last_used_addr: Option<String>,
    /// When it was revoked.
    pub revoked_at: Option<DateTime<Utc>>,
    /// Its end, its networks, and the monitors about which it reports.
    pub limits: KeyLimits,
    /// The key that a rotation made in its place.
    pub replaced_by: Option<ApiKeyId>,
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
    last_used_addr: Option<String>,
    revoked_at: Option<DateTime<Utc>>,
    expires_at: Option<DateTime<Utc>>,
    networks: Option<Vec<String>>,
    slugs: Option<Vec<String>>,
    tags: Option<Vec<String>>,
    replaced_by: Option<Uuid>,
}

/// Makes the limits of a key from its columns.
pub(crate) fn limits(
    expires_at: Option<DateTime<Utc>>,
    networks: Option<Vec<String>>,
    slugs: Option<Vec<String>>,
    tags: Option<Vec<String>>,
) -> KeyLimits {
    KeyLimits {
        expires_at,
        networks: networks.map(|texts| Networks::of_stored(&texts)),
        slugs: slugs.unwrap_or_default(),
        tags: tags.unwrap_or_default(),
    }
}

/// Reads one or more keys with all columns.
macro_rules! select {
    ($tail:literal, $($args:expr),*) => {
        sqlx::query_as!(
            Row,
            "SELECT id, project_id, name, scope, prefix, created_at, last_used_at, last_used_addr, revoked_at, expires_at, networks, slugs, tags, replaced_by
            FROM api_key " + $tail,
            $($args),*
        )
    };
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
            last_used_addr: row.last_used_addr,
            revoked_at: row.revoked_at,
            limits: limits(row.expires_at, row.networks, row.slugs, row.tags),
            replaced_by: row.replaced_by.map(ApiKeyId),
        })
    }
}

/// Writes a new key's digest.
///
/// # Errors
/// When the database is away.
pub async fn insert(tx: &mut Tx, key: &ApiKey, digest: &[u8]) -> StoreResult<()> {
    let some = |texts: &[String]| (!texts.is_empty()).then(|| texts.to_vec());
    let (slugs, tags) = (some(&key.limits.slugs), some(&key.limits.tags));
    sqlx::query!(
        "INSERT INTO api_key (id, project_id, name, scope, prefix, digest, created_at, expires_at, networks, slugs, tags)
        VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)",
        key.id.0,
        key.project_id.0,
        key.name,
        key.scope.as_str(),
        key.prefix,
        digest,
        key.created_at,
        key.limits.expires_at,
        key.limits.networks.as_ref().map(Networks::texts) as Option<Vec<String>>,
        slugs as Option<Vec<String>>,
        tags as Option<Vec<String>>
    )
    .execute(tx.conn())
    .await?;
    Ok(())
}

/// Returns the number of keys of a project that are neither revoked nor replaced, and have not expired.
///
/// # Errors
/// When the database is away.
pub async fn count(tx: &mut Tx, project: ProjectId, now: DateTime<Utc>) -> StoreResult<i64> {
    Ok(sqlx::query_scalar!(
        r#"SELECT count(*) AS "count!"
        FROM api_key
        WHERE project_id = $1 AND revoked_at IS NULL AND replaced_by IS NULL AND (expires_at IS NULL OR expires_at > $2)"#,
        project.0,
        now
    )
    .fetch_one(tx.conn())
    .await?)
}

/// Returns the key of a digest, unless it is revoked. The caller checks its limits.
///
/// # Errors
/// When the database is away.
pub async fn by_digest(reader: &Reader, digest: &[u8]) -> StoreResult<Option<ApiKey>> {
    select!("WHERE digest = $1 AND revoked_at IS NULL", digest)
        .fetch_optional(reader.pool())
        .await?
        .map(ApiKey::try_from)
        .transpose()
}

/// Notes that keys were used, each from an address. Skips a key that another transaction has locked: the note is not worth a wait.
///
/// # Errors
/// When the database is away.
pub async fn touch(
    tx: &mut Tx,
    digests: &[Vec<u8>],
    addresses: &[Option<String>],
    now: DateTime<Utc>,
) -> StoreResult<()> {
    sqlx::query!(
        "UPDATE api_key SET last_used_at = $3, last_used_addr = left(used.address, 50)
        FROM UNNEST($1::bytea[], $2::text[]) AS used (digest, address)
        WHERE api_key.digest = used.digest
            AND id IN (SELECT id FROM api_key WHERE digest = ANY($1) FOR NO KEY UPDATE SKIP LOCKED)",
        digests,
        addresses as &[Option<String>],
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
    let rows = select!(
        "WHERE project_id = $1 AND ($2::uuid IS NULL OR id < $2)
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

/// Locks a key of a project. None: the project has no key of that id.
///
/// # Errors
/// When the database is away.
pub async fn lock(tx: &mut Tx, project: ProjectId, id: ApiKeyId) -> StoreResult<Option<ApiKey>> {
    select!(
        "WHERE project_id = $1 AND id = $2 FOR NO KEY UPDATE",
        project.0,
        id.0
    )
    .fetch_optional(tx.conn())
    .await?
    .map(ApiKey::try_from)
    .transpose()
}

/// Returns the limits of a key. None: the project has no key of that id.
///
/// # Errors
/// When the database is away.
pub async fn limits_of(tx: &mut Tx, project: ProjectId, id: ApiKeyId) -> StoreResult<Option<KeyLimits>> {
    let row = sqlx::query!(
        "SELECT expires_at, networks, slugs, tags FROM api_key WHERE project_id = $1 AND id = $2",
        project.0,
        id.0
    )
    .fetch_optional(tx.conn())
    .await?;
    Ok(row.map(|row| limits(row.expires_at, row.networks, row.slugs, row.tags)))
}

/// Notes that a new key replaces a locked one, which ends at `ends_at`.
///
/// # Errors
/// When the database is away.
pub async fn replace(
    tx: &mut Tx,
    project: ProjectId,
    old: ApiKeyId,
    new: ApiKeyId,
    ends_at: DateTime<Utc>,
) -> StoreResult<()> {
    sqlx::query!(
        "UPDATE api_key SET replaced_by = $3, expires_at = $4 WHERE project_id = $1 AND id = $2",
        project.0,
        old.0,
        new.0,
        ends_at
    )
    .execute(tx.conn())
    .await?;
    Ok(())
}

/// Deletes keys that were revoked or expired before `before`, at most `most`.
///
/// # Errors
/// When the database is away.
pub async fn forget_ended(tx: &mut Tx, before: DateTime<Utc>, most: i64) -> StoreResult<u64> {
    let done = sqlx::query!(
        "DELETE FROM api_key
        WHERE id = ANY(ARRAY(SELECT id FROM api_key WHERE least(revoked_at, expires_at) < $1 ORDER BY least(revoked_at, expires_at) LIMIT $2))",
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
