//! Tables `authenticator` and `recovery_code`: the second factor of an account (ADR 047).

use chrono::{DateTime, Utc};
use deadbeat_domain::ids::AccountId;

use crate::monitor::batch::column;
use crate::{Reader, StoreResult, Tx};

/// The secret that an account shares with an authenticator.
#[derive(Clone, PartialEq, Eq)]
pub struct Authenticator {
    /// Whose it is.
    pub account: AccountId,
    /// The sealed secret.
    pub sealed: String,
    /// The key that opens it.
    pub key_id: String,
    /// When a code proved that the authenticator knows it. None: the second factor is not on yet.
    pub confirmed_at: Option<DateTime<Utc>>,
    /// The time step of the last accepted code.
    pub last_step: i64,
}

/// The sealed secret stays out of logs.
impl std::fmt::Debug for Authenticator {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Authenticator")
            .field("account", &self.account)
            .finish_non_exhaustive()
    }
}

/// Writes a secret that is not confirmed, in place of an earlier one that was not. False: the second factor is on already.
///
/// # Errors
/// When the database is away.
pub async fn propose(tx: &mut Tx, account: AccountId, sealed: &str, key_id: &str) -> StoreResult<bool> {
    let done = sqlx::query!(
        "INSERT INTO authenticator (account_id, sealed, key_id, last_step) VALUES ($1, $2, $3, 0)
        ON CONFLICT (account_id) DO UPDATE SET sealed = excluded.sealed, key_id = excluded.key_id, last_step = 0
        WHERE authenticator.confirmed_at IS NULL",
        account.0,
        sealed,
        key_id
    )
    .execute(tx.conn())
    .await?;
    Ok(done.rows_affected() == 1)
}

/// Locks the secret of an account until the transaction ends, so that one code cannot be used twice at once.
///
/// # Errors
/// When the database is away.
pub async fn lock(tx: &mut Tx, account: AccountId) -> StoreResult<Option<Authenticator>> {
    let row = sqlx::query!(
        "SELECT sealed, key_id, confirmed_at, last_step FROM authenticator WHERE account_id = $1 FOR UPDATE",
        account.0
    )
    .fetch_optional(tx.conn())
    .await?;
    Ok(row.map(|row| Authenticator {
        account,
        sealed: row.sealed,
        key_id: row.key_id,
        confirmed_at: row.confirmed_at,
        last_step: row.last_step,
    }))
}

/// Returns when the second factor of an account was switched on, and how many recovery codes are left. None: it is off.
///
/// # Errors
/// When the database is away.
pub async fn state(reader: &Reader, account: AccountId) -> StoreResult<Option<(DateTime<Utc>, i64)>> {
    let row = sqlx::query!(
        r#"SELECT confirmed_at AS "confirmed_at!", (SELECT count(*) FROM recovery_code WHERE account_id = $1) AS "codes!"
        FROM authenticator WHERE account_id = $1 AND confirmed_at IS NOT NULL"#,
        account.0
    )
    .fetch_optional(reader.pool())
    .await?;
    Ok(row.map(|row| (row.confirmed_at, row.codes)))
}

/// True if the second factor of an account is on.
///
/// # Errors
/// When the database is away.
pub async fn is_on(tx: &mut Tx, account: AccountId) -> StoreResult<bool> {
    Ok(sqlx::query_scalar!(
        r#"SELECT EXISTS (SELECT 1 FROM authenticator WHERE account_id = $1 AND confirmed_at IS NOT NULL) AS "on!""#,
        account.0
    )
    .fetch_one(tx.conn())
    .await?)
}

/// Notes the time step of an accepted code. The first one switches the second factor on. The caller holds the lock.
///
/// # Errors
/// When the database is away.
pub async fn accept(tx: &mut Tx, account: AccountId, step: i64, now: DateTime<Utc>) -> StoreResult<()> {
    sqlx::query!(
        "UPDATE authenticator SET last_step = $2, confirmed_at = coalesce(confirmed_at, $3) WHERE account_id = $1",
        account.0,
        step,
        now
    )
    .execute(tx.conn())
    .await?;
    Ok(())
}

/// Removes the secret and the recovery codes of an account. False: there was no secret.
///
/// # Errors
/// When the database is away.
pub async fn remove(tx: &mut Tx, account: AccountId) -> StoreResult<bool> {
    sqlx::query!("DELETE FROM recovery_code WHERE account_id = $1", account.0)
        .execute(tx.conn())
        .await?;
    let done = sqlx::query!("DELETE FROM authenticator WHERE account_id = $1", account.0)
        .execute(tx.conn())
        .await?;
    Ok(done.rows_affected() == 1)
}

/// Removes a second factor that was switched on at this time or later, and one that is not confirmed.
///
/// # Errors
/// When the database is away.
pub async fn remove_since(tx: &mut Tx, account: AccountId, since: DateTime<Utc>) -> StoreResult<()> {
    let removed = sqlx::query!(
        "DELETE FROM authenticator WHERE account_id = $1 AND coalesce(confirmed_at, $2) >= $2",
        account.0,
        since
    )
    .execute(tx.conn())
    .await?;
    if removed.rows_affected() > 0 {
        sqlx::query!("DELETE FROM recovery_code WHERE account_id = $1", account.0)
            .execute(tx.conn())
            .await?;
    }
    Ok(())
}

/// Replaces the recovery codes of an account.
///
/// # Errors
/// When the database is away.
pub async fn replace_codes(tx: &mut Tx, account: AccountId, digests: &[Vec<u8>]) -> StoreResult<()> {
    sqlx::query!("DELETE FROM recovery_code WHERE account_id = $1", account.0)
        .execute(tx.conn())
        .await?;
    sqlx::query!(
        "INSERT INTO recovery_code (account_id, digest) SELECT $1, digest FROM UNNEST($2::bytea[]) AS new (digest)",
        account.0,
        digests
    )
    .execute(tx.conn())
    .await?;
    Ok(())
}

/// Uses up a recovery code. False: the account has no such code.
///
/// # Errors
/// When the database is away.
pub async fn take_code(tx: &mut Tx, account: AccountId, digest: &[u8]) -> StoreResult<bool> {
    let done = sqlx::query!(
        "DELETE FROM recovery_code WHERE account_id = $1 AND digest = $2",
        account.0,
        digest
    )
    .execute(tx.conn())
    .await?;
    Ok(done.rows_affected() == 1)
}

/// Returns how many secrets each key seals.
///
/// # Errors
/// When the database is away.
pub async fn count_by_key(reader: &Reader) -> StoreResult<Vec<(String, i64)>> {
    let rows = sqlx::query!(
        r#"SELECT key_id, count(*) AS "count!" FROM authenticator GROUP BY key_id ORDER BY key_id LIMIT 1000"#
    )
    .fetch_all(reader.pool())
    .await?;
    Ok(rows.into_iter().map(|row| (row.key_id, row.count)).collect())
}

/// Locks some secrets that another key than this one seals, from an account on.
///
/// # Errors
/// When the database is away.
pub async fn lock_others(
    tx: &mut Tx,
    key_id: &str,
    after: Option<AccountId>,
    limit: i64,
) -> StoreResult<Vec<Authenticator>> {
    let rows = sqlx::query!(
        "SELECT account_id, sealed, key_id, confirmed_at, last_step FROM authenticator
        WHERE key_id <> $1 AND ($2::uuid IS NULL OR account_id > $2)
        ORDER BY account_id LIMIT $3 FOR UPDATE",
        key_id,
        after.map(|id| id.0),
        limit
    )
    .fetch_all(tx.conn())
    .await?;
    Ok(rows
        .into_iter()
        .map(|row| Authenticator {
            account: AccountId(row.account_id),
            sealed: row.sealed,
            key_id: row.key_id,
            confirmed_at: row.confirmed_at,
            last_step: row.last_step,
        })
        .collect())
}

/// Writes secrets that were sealed anew. The caller holds their locks.
///
/// # Errors
/// When the database is away.
pub async fn reseal(tx: &mut Tx, sealed: &[(AccountId, String)], key_id: &str) -> StoreResult<()> {
    sqlx::query!(
        "UPDATE authenticator SET sealed = new.sealed, key_id = $3
        FROM UNNEST($1::uuid[], $2::text[]) AS new (account_id, sealed)
        WHERE authenticator.account_id = new.account_id",
        &column(sealed, |(account, _)| account.0),
        &column(sealed, |(_, text)| text.clone()),
        key_id
    )
    .execute(tx.conn())
    .await?;
    Ok(())
}
