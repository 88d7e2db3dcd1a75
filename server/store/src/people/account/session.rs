//! Table `session`.

use chrono::{DateTime, Utc};
use deadbeat_domain::ids::{AccountId, SessionId};

use crate::people::account::Account;
use crate::{Reader, StoreResult, Tx};

/// A session that has not ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Session {
    /// Its id. It is no secret.
    pub id: SessionId,
    /// Whose it is.
    pub account: Account,
    /// When it began.
    pub created_at: DateTime<Utc>,
    /// When it was last used, within a minute.
    pub seen_at: DateTime<Utc>,
    /// When somebody last proved to own the account.
    pub proved_at: DateTime<Utc>,
    /// When it ends, however it is used.
    pub expires_at: DateTime<Utc>,
    /// The client's address at the last use.
    pub address: Option<String>,
    /// The family of the client's program at the last use.
    pub device: Option<String>,
}

/// When sessions have ended: those that expire before `now`, and those that were not used since `idle_since`.
#[derive(Debug, Clone, Copy)]
pub struct Ends {
    /// The present.
    pub now: DateTime<Utc>,
    /// The latest use of a session that has ended.
    pub idle_since: DateTime<Utc>,
}

/// From where a session is used.
#[derive(Debug, Clone, Copy)]
pub struct UsedFrom<'a> {
    /// The client's address.
    pub address: Option<&'a str>,
    /// The family of the client's program.
    pub device: &'a str,
}

/// Starts a session, and ends those of the account beyond `most` that were used longest ago.
///
/// # Errors
/// When the database is away.
pub async fn insert(
    tx: &mut Tx,
    account: AccountId,
    digest: &[u8],
    seen: UsedFrom<'_>,
    now: DateTime<Utc>,
    expires_at: DateTime<Utc>,
    most: i64,
) -> StoreResult<SessionId> {
    sqlx::query!(
        "DELETE FROM session
        WHERE account_id = $1 AND (expires_at <= $2 OR id IN (
            SELECT id FROM session WHERE account_id = $1 ORDER BY seen_at DESC, id DESC OFFSET $3
        ))",
        account.0,
        now,
        most - 1
    )
    .execute(tx.conn())
    .await?;
    let id = SessionId::generate();
    sqlx::query!(
        "INSERT INTO session (id, account_id, digest, created_at, seen_at, proved_at, expires_at, address, device)
        VALUES ($1, $2, $3, $4, $4, $4, $5, $6, $7)",
        id.0,
        account.0,
        digest,
        now,
        expires_at,
        seen.address,
        seen.device
    )
    .execute(tx.conn())
    .await?;
    Ok(id)
}

/// Returns the session with this digest, unless it has ended.
///
/// # Errors
/// When the database is away.
pub async fn by_digest(reader: &Reader, digest: &[u8], ends: Ends) -> StoreResult<Option<Session>> {
    let row = sqlx::query!(
        r#"SELECT session.id, account.id AS account_id, email, session.created_at, seen_at,
            coalesce(proved_at, session.created_at) AS "proved_at!", expires_at, address, device
        FROM session JOIN account ON account.id = account_id
        WHERE digest = $1 AND expires_at > $2 AND seen_at > $3"#,
        digest,
        ends.now,
        ends.idle_since
    )
    .fetch_optional(reader.pool())
    .await?;
    Ok(row.map(|row| Session {
        id: SessionId(row.id),
        account: Account {
            id: AccountId(row.account_id),
            email: row.email,
        },
        created_at: row.created_at,
        seen_at: row.seen_at,
        proved_at: row.proved_at,
        expires_at: row.expires_at,
        address: row.address,
        device: row.device,
    }))
}

/// Returns the sessions of an account that have not ended, last used first.
///
/// # Errors
/// When the database is away.
pub async fn list(reader: &Reader, account: &Account, ends: Ends, limit: i64) -> StoreResult<Vec<Session>> {
    let rows = sqlx::query!(
        r#"SELECT id, created_at, seen_at, coalesce(proved_at, created_at) AS "proved_at!", expires_at, address, device
        FROM session
        WHERE account_id = $1 AND expires_at > $2 AND seen_at > $3
        ORDER BY seen_at DESC, id DESC
        LIMIT $4"#,
        account.id.0,
        ends.now,
        ends.idle_since,
        limit
    )
    .fetch_all(reader.pool())
    .await?;
    Ok(rows
        .into_iter()
        .map(|row| Session {
            id: SessionId(row.id),
            account: account.clone(),
            created_at: row.created_at,
            seen_at: row.seen_at,
            proved_at: row.proved_at,
            expires_at: row.expires_at,
            address: row.address,
            device: row.device,
        })
        .collect())
}

/// Notes the use of a session. Skips a session that another transaction has locked: the note is not worth a wait.
///
/// # Errors
/// When the database is away.
pub async fn touch(tx: &mut Tx, id: SessionId, seen: UsedFrom<'_>, now: DateTime<Utc>) -> StoreResult<()> {
    sqlx::query!(
        "UPDATE session SET seen_at = $2, address = $3, device = $4
        WHERE id IN (SELECT id FROM session WHERE id = $1 FOR NO KEY UPDATE SKIP LOCKED)",
        id.0,
        now,
        seen.address,
        seen.device
    )
    .execute(tx.conn())
    .await?;
    Ok(())
}

/// Gives a session another secret after a proof. False: the session has ended meanwhile.
///
/// # Errors
/// When the database is away.
pub async fn renew(
    tx: &mut Tx,
    account: AccountId,
    old: &[u8],
    new: &[u8],
    now: DateTime<Utc>,
) -> StoreResult<bool> {
    let done = sqlx::query!(
        "UPDATE session SET digest = $3, proved_at = $4, seen_at = $4 WHERE account_id = $1 AND digest = $2",
        account.0,
        old,
        new,
        now
    )
    .execute(tx.conn())
    .await?;
    Ok(done.rows_affected() == 1)
}

/// Ends the session with this digest. Returns its account.
///
/// # Errors
/// When the database is away.
pub async fn end_by_digest(tx: &mut Tx, digest: &[u8]) -> StoreResult<Option<AccountId>> {
    Ok(sqlx::query_scalar!(
        "DELETE FROM session WHERE digest = $1 RETURNING account_id",
        digest
    )
    .fetch_optional(tx.conn())
    .await?
    .map(AccountId))
}

/// Ends a session of an account. False: the account has no such session.
///
/// # Errors
/// When the database is away.
pub async fn end(tx: &mut Tx, account: AccountId, id: SessionId) -> StoreResult<bool> {
    let done = sqlx::query!(
        "DELETE FROM session WHERE account_id = $1 AND id = $2",
        account.0,
        id.0
    )
    .execute(tx.conn())
    .await?;
    Ok(done.rows_affected() == 1)
}

/// Ends all sessions of an account, except for one if there is an exception. Returns how many.
///
/// # Errors
/// When the database is away.
pub async fn end_all(tx: &mut Tx, account: AccountId, except: Option<SessionId>) -> StoreResult<u64> {
    let done = sqlx::query!(
        "DELETE FROM session WHERE account_id = $1 AND ($2::uuid IS NULL OR id <> $2)",
        account.0,
        except.map(|id| id.0)
    )
    .execute(tx.conn())
    .await?;
    Ok(done.rows_affected())
}
