//! Table `account_link`: links in mails to people (ADR 046). Whoever uses a link deletes its row, so a link works once.

use chrono::{DateTime, Utc};
use deadbeat_domain::ids::AccountId;
use deadbeat_domain::people::account::LinkKind;

use crate::{Reader, StoreResult, Tx};

/// What a link may do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Link {
    /// The account. None: the link makes one.
    pub account: Option<AccountId>,
    /// The address that the link was sent to.
    pub email: String,
    /// When it was made.
    pub created_at: DateTime<Utc>,
}

/// Expired rows that one insert removes.
const SWEPT: i64 = 20;

/// Writes a link. Removes some links that have expired, so that the table does not grow.
///
/// # Errors
/// When the database is away.
pub async fn insert(tx: &mut Tx, kind: LinkKind, digest: &[u8], link: &Link) -> StoreResult<()> {
    sqlx::query!(
        "DELETE FROM account_link WHERE digest = ANY(ARRAY(
            SELECT digest FROM account_link WHERE expires_at <= $1 ORDER BY expires_at LIMIT $2 FOR UPDATE SKIP LOCKED
        ))",
        link.created_at,
        SWEPT
    )
    .execute(tx.conn())
    .await?;
    sqlx::query!(
        "INSERT INTO account_link (digest, kind, account_id, email, created_at, expires_at) VALUES ($1, $2, $3, $4, $5, $6)",
        digest,
        kind.as_str(),
        link.account.map(|id| id.0),
        link.email,
        link.created_at,
        link.created_at + kind.lasts()
    )
    .execute(tx.conn())
    .await?;
    Ok(())
}

/// Returns what a link may do, without using it. None: it is wrong, was used, or has expired.
///
/// # Errors
/// When the database is away.
pub async fn find(
    reader: &Reader,
    kind: LinkKind,
    digest: &[u8],
    now: DateTime<Utc>,
) -> StoreResult<Option<Link>> {
    let row = sqlx::query!(
        "SELECT account_id, email, created_at FROM account_link WHERE digest = $1 AND kind = $2 AND expires_at > $3",
        digest,
        kind.as_str(),
        now
    )
    .fetch_optional(reader.pool())
    .await?;
    Ok(row.map(|row| Link {
        account: row.account_id.map(AccountId),
        email: row.email,
        created_at: row.created_at,
    }))
}

/// Uses a link: of several transactions at once, one gets it. None as for [`find`].
///
/// # Errors
/// When the database is away.
pub async fn take(
    tx: &mut Tx,
    kind: LinkKind,
    digest: &[u8],
    now: DateTime<Utc>,
) -> StoreResult<Option<Link>> {
    let row = sqlx::query!(
        "DELETE FROM account_link WHERE digest = $1 AND kind = $2 AND expires_at > $3 RETURNING account_id, email, created_at",
        digest,
        kind.as_str(),
        now
    )
    .fetch_optional(tx.conn())
    .await?;
    Ok(row.map(|row| Link {
        account: row.account_id.map(AccountId),
        email: row.email,
        created_at: row.created_at,
    }))
}

/// Ends the links of these kinds of an account.
///
/// # Errors
/// When the database is away.
pub async fn end_of_account(tx: &mut Tx, account: AccountId, kinds: &[LinkKind]) -> StoreResult<()> {
    let kinds: Vec<String> = kinds.iter().map(|kind| kind.as_str().to_owned()).collect();
    sqlx::query!(
        "DELETE FROM account_link WHERE account_id = $1 AND kind = ANY($2)",
        account.0,
        &kinds
    )
    .execute(tx.conn())
    .await?;
    Ok(())
}

/// Ends the links that undo changes of the mail address, from a time on. Earlier ones stay: they belong to earlier owners of the address, and
/// somebody who took over the account could make later ones.
///
/// # Errors
/// When the database is away.
pub async fn end_undoing(tx: &mut Tx, account: AccountId, from: DateTime<Utc>) -> StoreResult<()> {
    sqlx::query!(
        "DELETE FROM account_link WHERE account_id = $1 AND kind = 'undo_mail' AND created_at >= $2",
        account.0,
        from
    )
    .execute(tx.conn())
    .await?;
    Ok(())
}

/// Ends the links to sign up with an address.
///
/// # Errors
/// When the database is away.
pub async fn end_sign_ups(tx: &mut Tx, email: &str) -> StoreResult<()> {
    sqlx::query!(
        "DELETE FROM account_link WHERE email = $1 AND kind = 'sign_up'",
        email
    )
    .execute(tx.conn())
    .await?;
    Ok(())
}
