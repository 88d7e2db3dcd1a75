//! Table `account_event`: the trail of an account (ADR 046).

use chrono::{DateTime, Utc};
use deadbeat_domain::ids::AccountId;
use deadbeat_domain::people::account::AccountAct;
use uuid::Uuid;

use super::session::UsedFrom;
use crate::{Reader, StoreResult, Tx};

/// An entry as stored. A newer server may have written acts that this one does not know, so they stay texts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// When it happened.
    pub at: DateTime<Utc>,
    /// What happened, as `password.changed`.
    pub action: String,
    /// The client's address.
    pub address: Option<String>,
    /// The family of the client's program.
    pub device: Option<String>,
}

/// Writes an entry. Removes those of the account from before `old`, and those beyond the newest `most`.
///
/// # Errors
/// When the database is away.
pub async fn insert(
    tx: &mut Tx,
    account: AccountId,
    act: AccountAct,
    seen: UsedFrom<'_>,
    now: DateTime<Utc>,
    old: DateTime<Utc>,
    most: i64,
) -> StoreResult<()> {
    sqlx::query!(
        "DELETE FROM account_event
        WHERE account_id = $1 AND (at < $2 OR id IN (
            SELECT id FROM account_event WHERE account_id = $1 ORDER BY id DESC OFFSET $3
        ))",
        account.0,
        old,
        most - 1
    )
    .execute(tx.conn())
    .await?;
    sqlx::query!(
        "INSERT INTO account_event (id, account_id, at, action, address, device) VALUES ($1, $2, $3, $4, $5, $6)",
        Uuid::now_v7(),
        account.0,
        now,
        act.as_str(),
        seen.address,
        seen.device
    )
    .execute(tx.conn())
    .await?;
    Ok(())
}

/// Returns the newest entries of an account, newest first.
///
/// # Errors
/// When the database is away.
pub async fn list(reader: &Reader, account: AccountId, limit: i64) -> StoreResult<Vec<Event>> {
    Ok(sqlx::query_as!(
        Event,
        "SELECT at, action, address, device FROM account_event WHERE account_id = $1 ORDER BY id DESC LIMIT $2",
        account.0,
        limit
    )
    .fetch_all(reader.pool())
    .await?)
}
