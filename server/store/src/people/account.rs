//! Tables `account` and `known_address`. The files below it hold the other tables of accounts.

pub mod event;
pub mod factor;
pub mod link;
pub mod session;
pub mod step;

use chrono::{DateTime, Utc};
use deadbeat_domain::ids::AccountId;

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

/// Returns an account and its password's hash.
///
/// # Errors
/// When the database is away.
pub async fn by_id(reader: &Reader, id: AccountId) -> StoreResult<Option<(Account, String)>> {
    let row = sqlx::query!("SELECT id, email, password_hash FROM account WHERE id = $1", id.0)
        .fetch_optional(reader.pool())
        .await?;
    Ok(row.map(|row| {
        let account = Account {
            id: AccountId(row.id),
            email: row.email,
        };
        (account, row.password_hash)
    }))
}

/// Locks an account until the transaction ends. Returns it with its password's hash. Whoever changes the proofs of an account, or begins a
/// session, holds this lock: so no session begins with a password that was just replaced.
///
/// # Errors
/// When the database is away.
pub async fn lock(tx: &mut Tx, id: AccountId) -> StoreResult<Option<(Account, String)>> {
    let row = sqlx::query!(
        "SELECT id, email, password_hash FROM account WHERE id = $1 FOR NO KEY UPDATE",
        id.0
    )
    .fetch_optional(tx.conn())
    .await?;
    Ok(row.map(|row| {
        let account = Account {
            id: AccountId(row.id),
            email: row.email,
        };
        (account, row.password_hash)
    }))
}

/// Returns when an account was created.
///
/// # Errors
/// When the database is away.
pub async fn created_at(reader: &Reader, id: AccountId) -> StoreResult<Option<DateTime<Utc>>> {
    Ok(
        sqlx::query_scalar!("SELECT created_at FROM account WHERE id = $1", id.0)
            .fetch_optional(reader.pool())
            .await?,
    )
}

/// Replaces the hash of a password.
///
/// # Errors
/// When the database is away.
pub async fn set_password(tx: &mut Tx, id: AccountId, hash: &str) -> StoreResult<()> {
    sqlx::query!("UPDATE account SET password_hash = $2 WHERE id = $1", id.0, hash)
        .execute(tx.conn())
        .await?;
    Ok(())
}

/// Replaces the mail address.
///
/// # Errors
/// `account_email_unique` if another account has that address.
pub async fn set_email(tx: &mut Tx, id: AccountId, email: &str) -> StoreResult<()> {
    sqlx::query!("UPDATE account SET email = $2 WHERE id = $1", id.0, email)
        .execute(tx.conn())
        .await?;
    Ok(())
}

/// Deletes an account with its sessions, memberships and all else that belongs to it alone.
///
/// # Errors
/// When the database is away.
pub async fn delete(tx: &mut Tx, id: AccountId) -> StoreResult<()> {
    sqlx::query!("DELETE FROM account WHERE id = $1", id.0)
        .execute(tx.conn())
        .await?;
    Ok(())
}

/// Returns the addresses at which an account is known, with the time of the last sign-in there.
///
/// # Errors
/// When the database is away.
pub async fn known_addresses(reader: &Reader, id: AccountId) -> StoreResult<Vec<(String, DateTime<Utc>)>> {
    let rows = sqlx::query!(
        "SELECT address, seen_at FROM known_address WHERE account_id = $1 ORDER BY seen_at DESC LIMIT 1000",
        id.0
    )
    .fetch_all(reader.pool())
    .await?;
    Ok(rows.into_iter().map(|row| (row.address, row.seen_at)).collect())
}

/// Locks the projects in which an account is an owner, in the order of their ids, so that two owners cannot leave at once. Returns the names
/// of those that have no other owner.
///
/// # Errors
/// When the database is away.
pub async fn lock_owned_alone(tx: &mut Tx, id: AccountId) -> StoreResult<Vec<String>> {
    sqlx::query!(
        "SELECT id FROM project
        WHERE id IN (SELECT project_id FROM member WHERE account_id = $1 AND role = 'owner')
        ORDER BY id FOR NO KEY UPDATE",
        id.0
    )
    .fetch_all(tx.conn())
    .await?;
    Ok(sqlx::query_scalar!(
        "SELECT project.name FROM project JOIN member ON member.project_id = project.id
        WHERE member.account_id = $1 AND member.role = 'owner' AND NOT EXISTS (
            SELECT 1 FROM member AS other
            WHERE other.project_id = project.id AND other.role = 'owner' AND other.account_id <> $1
        )
        ORDER BY project.created_at LIMIT 100",
        id.0
    )
    .fetch_all(tx.conn())
    .await?)
}
