//! Tables `account` and `session`.

use chrono::{DateTime, Utc};
use deadbeat_domain::ids::AccountId;
use uuid::Uuid;

use crate::{Reader, StoreResult, Tx};

/// An account.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Account {
    /// Its id.
    pub id: AccountId,
    /// In lower case.
    pub email: String,
}

/// Writes a new account.
///
/// # Errors
/// `account_email_unique` when there is one of that address.
pub async fn insert(
    tx: &mut Tx,
    account: &Account,
    password_hash: &str,
    now: DateTime<Utc>,
) -> StoreResult<()> {
    sqlx::query!(
        "INSERT INTO account (id, email, password_hash, created_at) VALUES ($1, $2, $3, $4)",
        account.id.0,
        account.email,
        password_hash,
        now
    )
    .execute(tx.conn())
    .await?;
    Ok(())
}

/// How many accounts there are.
///
/// # Errors
/// When the database is away.
pub async fn count(reader: &Reader) -> StoreResult<i64> {
    Ok(sqlx::query_scalar!("SELECT count(*) AS \"count!\" FROM account")
        .fetch_one(reader.pool())
        .await?)
}

/// An account and its password's hash, by address.
///
/// # Errors
/// When the database is away.
pub async fn by_email(reader: &Reader, email: &str) -> StoreResult<Option<(Account, String)>> {
    let row = sqlx::query!(
        "SELECT id, email, password_hash FROM account WHERE email = lower($1)",
        email
    )
    .fetch_optional(reader.pool())
    .await?;
    Ok(row.map(|row| {
        (
            Account {
                id: AccountId(row.id),
                email: row.email,
            },
            row.password_hash,
        )
    }))
}

/// Starts a session.
///
/// # Errors
/// When the database is away.
pub async fn insert_session(
    tx: &mut Tx,
    account: AccountId,
    digest: &[u8],
    now: DateTime<Utc>,
    expires_at: DateTime<Utc>,
) -> StoreResult<()> {
    sqlx::query!(
        "DELETE FROM session WHERE account_id = $1 AND expires_at <= $2",
        account.0,
        now
    )
    .execute(tx.conn())
    .await?;
    sqlx::query!(
        "INSERT INTO session (id, account_id, digest, created_at, expires_at) VALUES ($1, $2, $3, $4, $5)",
        Uuid::now_v7(),
        account.0,
        digest,
        now,
        expires_at
    )
    .execute(tx.conn())
    .await?;
    Ok(())
}

/// The account of a session that has not expired.
///
/// # Errors
/// When the database is away.
pub async fn by_session(reader: &Reader, digest: &[u8], now: DateTime<Utc>) -> StoreResult<Option<Account>> {
    let row = sqlx::query!(
        "SELECT account.id, email FROM session JOIN account ON account.id = account_id WHERE digest = $1 AND expires_at > $2",
        digest,
        now
    )
    .fetch_optional(reader.pool())
    .await?;
    Ok(row.map(|row| Account {
        id: AccountId(row.id),
        email: row.email,
    }))
}

/// Ends a session.
///
/// # Errors
/// When the database is away.
pub async fn delete_session(tx: &mut Tx, digest: &[u8]) -> StoreResult<()> {
    sqlx::query!("DELETE FROM session WHERE digest = $1", digest)
        .execute(tx.conn())
        .await?;
    Ok(())
}
