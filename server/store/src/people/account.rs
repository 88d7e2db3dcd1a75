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
/// `account_email_unique` if an account has that address.
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

/// Returns the number of accounts.
///
/// # Errors
/// If the database is away.
pub async fn count(reader: &Reader) -> StoreResult<i64> {
    Ok(sqlx::query_scalar!("SELECT count(*) AS \"count!\" FROM account")
        .fetch_one(reader.pool())
        .await?)
}

/// Returns an account and its password's hash, by mail address.
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

/// Returns the account of a session that has not expired.
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

/// True if an account signed in from an address since an instant. False for a mail address without an account.
///
/// # Errors
/// If the database is away.
pub async fn is_known_at(
    reader: &Reader,
    email: &str,
    address: &str,
    since: DateTime<Utc>,
) -> StoreResult<bool> {
    Ok(sqlx::query_scalar!(
        r#"SELECT EXISTS (
            SELECT 1 FROM known_address JOIN account ON account.id = account_id
            WHERE email = lower($1) AND address = $2 AND seen_at > $3
        ) AS "known!""#,
        email,
        address,
        since
    )
    .fetch_one(reader.pool())
    .await?)
}

/// Notes that an account signed in from an address. Keeps only the `most` most recently used addresses.
///
/// # Errors
/// If the database is away.
pub async fn note_known(
    tx: &mut Tx,
    account: AccountId,
    address: &str,
    now: DateTime<Utc>,
    most: i64,
) -> StoreResult<()> {
    sqlx::query!(
        "INSERT INTO known_address (account_id, address, seen_at) VALUES ($1, $2, $3)
        ON CONFLICT (account_id, address) DO UPDATE SET seen_at = excluded.seen_at",
        account.0,
        address,
        now
    )
    .execute(tx.conn())
    .await?;
    sqlx::query!(
        "DELETE FROM known_address
        WHERE account_id = $1 AND address IN (
            SELECT address FROM known_address WHERE account_id = $1 ORDER BY seen_at DESC, address OFFSET $2
        )",
        account.0,
        most
    )
    .execute(tx.conn())
    .await?;
    Ok(())
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

/// Returns the mail address of an account. None: there is no such account.
///
/// # Errors
/// When the database is away.
pub async fn email_of(tx: &mut Tx, id: AccountId) -> StoreResult<Option<String>> {
    Ok(
        sqlx::query_scalar!("SELECT email FROM account WHERE id = $1", id.0)
            .fetch_optional(tx.conn())
            .await?,
    )
}
