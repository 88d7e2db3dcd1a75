//! Table `sign_in_step`: sign-ins between their steps.

use chrono::{DateTime, Utc};
use deadbeat_domain::ids::AccountId;

use crate::{StoreResult, Tx};

/// What a step waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A code that was mailed.
    MailedCode,
    /// A code of an authenticator, or a recovery code.
    SecondFactor,
}

impl Kind {
    fn as_str(self) -> &'static str {
        match self {
            Self::MailedCode => "mailed_code",
            Self::SecondFactor => "second_factor",
        }
    }
}

/// A step that has not ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    /// The account. None: no account has the mail address that was given.
    pub account: Option<AccountId>,
    /// The digest of the code. None: no code was mailed.
    pub code_digest: Option<Vec<u8>>,
}

/// Expired rows that one insert removes.
const SWEPT: i64 = 20;

/// Writes a step. Removes some steps that have expired, so that the table does not grow.
///
/// # Errors
/// When the database is away.
pub async fn insert(
    tx: &mut Tx,
    kind: Kind,
    digest: &[u8],
    account: Option<AccountId>,
    tries: i16,
    now: DateTime<Utc>,
    expires_at: DateTime<Utc>,
) -> StoreResult<()> {
    sqlx::query!(
        "DELETE FROM sign_in_step WHERE digest = ANY(ARRAY(
            SELECT digest FROM sign_in_step WHERE expires_at <= $1 ORDER BY expires_at LIMIT $2 FOR UPDATE SKIP LOCKED
        ))",
        now,
        SWEPT
    )
    .execute(tx.conn())
    .await?;
    sqlx::query!(
        "INSERT INTO sign_in_step (digest, kind, account_id, tries_left, expires_at) VALUES ($1, $2, $3, $4, $5)",
        digest,
        kind.as_str(),
        account.map(|id| id.0),
        tries,
        expires_at
    )
    .execute(tx.conn())
    .await?;
    Ok(())
}

/// Notes the code that is mailed for a step. Codes of other browsers stay: a stranger who asks for a code must not end that of the owner. False:
/// the step has ended.
///
/// # Errors
/// When the database is away.
pub async fn set_code(
    tx: &mut Tx,
    digest: &[u8],
    account: AccountId,
    code_digest: &[u8],
) -> StoreResult<bool> {
    let done = sqlx::query!(
        "UPDATE sign_in_step SET account_id = $2, code_digest = $3 WHERE digest = $1",
        digest,
        account.0,
        code_digest
    )
    .execute(tx.conn())
    .await?;
    Ok(done.rows_affected() == 1)
}

/// Locks a step and takes one of its tries. None: it is wrong, has ended, or has no tries left.
///
/// # Errors
/// When the database is away.
pub async fn take_try(
    tx: &mut Tx,
    kind: Kind,
    digest: &[u8],
    now: DateTime<Utc>,
) -> StoreResult<Option<Step>> {
    let row = sqlx::query!(
        "UPDATE sign_in_step SET tries_left = tries_left - 1
        WHERE digest = $1 AND kind = $2 AND expires_at > $3 AND tries_left > 0
        RETURNING account_id, code_digest",
        digest,
        kind.as_str(),
        now
    )
    .fetch_optional(tx.conn())
    .await?;
    Ok(row.map(|row| Step {
        account: row.account_id.map(AccountId),
        code_digest: row.code_digest,
    }))
}

/// Ends a step. False: it has ended already.
///
/// # Errors
/// When the database is away.
pub async fn end(tx: &mut Tx, digest: &[u8]) -> StoreResult<bool> {
    let done = sqlx::query!("DELETE FROM sign_in_step WHERE digest = $1", digest)
        .execute(tx.conn())
        .await?;
    Ok(done.rows_affected() == 1)
}

/// Ends all steps of an account.
///
/// # Errors
/// When the database is away.
pub async fn end_of_account(tx: &mut Tx, account: AccountId) -> StoreResult<()> {
    sqlx::query!("DELETE FROM sign_in_step WHERE account_id = $1", account.0)
        .execute(tx.conn())
        .await?;
    Ok(())
}
