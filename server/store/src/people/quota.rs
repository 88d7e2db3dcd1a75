//! Table `quota`: how often something was done in a window of time. All processes count together.

use chrono::{DateTime, TimeDelta, Utc};
use deadbeat_domain::ids::{AccountId, ProjectId};
use deadbeat_domain::people::rate::Allowance;

use crate::{StoreResult, Tx};

/// An action that is counted, and the project or mailbox for which it is counted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Counted {
    /// The monitors that ping keys of the project created, by `create=1` or as entries of a Beat.
    CreatedMonitors(ProjectId),
    /// The API keys that the project issued.
    ApiKeys(ProjectId),
    /// The invitations that the project made.
    Invitations(ProjectId),
    /// The projects that the account created.
    Projects(AccountId),
    /// The tests of the project's channels.
    Tests(ProjectId),
    /// The deliveries that the project had sent again.
    Resends(ProjectId),
    /// The confirmation mails that the project asked for.
    Confirmations(ProjectId),
    /// The confirmation mails to one mailbox, for all projects together.
    ConfirmationsTo(String),
    /// The mails about accounts to one mailbox, whether it has an account or not.
    AccountMailsTo(String),
}

impl Counted {
    /// Returns the key of its row. Keys of different kinds cannot be equal: a mailbox contains an `@`.
    fn key(&self) -> String {
        match self {
            Self::CreatedMonitors(project) => format!("created_monitors:{project}"),
            Self::ApiKeys(project) => format!("api_keys:{project}"),
            Self::Invitations(project) => format!("invitations:{project}"),
            Self::Projects(account) => format!("projects:{account}"),
            Self::Tests(project) => format!("test:{project}"),
            Self::Resends(project) => format!("resend:{project}"),
            Self::Confirmations(project) => format!("confirm:{project}"),
            Self::ConfirmationsTo(mailbox) => format!("confirm:{mailbox}"),
            Self::AccountMailsTo(mailbox) => format!("account_mail:{mailbox}"),
        }
    }

    /// Returns the length of its window.
    #[must_use]
    pub fn window(&self) -> TimeDelta {
        match self {
            Self::Tests(_) | Self::Resends(_) => TimeDelta::minutes(1),
            Self::CreatedMonitors(_)
            | Self::ApiKeys(_)
            | Self::Invitations(_)
            | Self::Projects(_)
            | Self::Confirmations(_)
            | Self::ConfirmationsTo(_)
            | Self::AccountMailsTo(_) => TimeDelta::days(1),
        }
    }
}

/// Locks the used part of a quota until the transaction ends. Creates the row first if nothing was used yet.
///
/// A caller that locks several quotas must always lock them in the same order.
///
/// # Errors
/// When the database is away.
pub async fn lock(tx: &mut Tx, counted: &Counted, now: DateTime<Utc>) -> StoreResult<Allowance> {
    let row = sqlx::query!(
        "INSERT INTO quota (key, used, ends_at)
        VALUES ($1, 0, $2)
        ON CONFLICT (key) DO UPDATE SET key = excluded.key
        RETURNING used, ends_at",
        counted.key(),
        now
    )
    .fetch_one(tx.conn())
    .await?;
    Ok(Allowance {
        used: row.used,
        ends_at: row.ends_at,
    })
}

/// Writes the used part of a locked quota.
///
/// # Errors
/// When the database is away.
pub async fn write(tx: &mut Tx, counted: &Counted, allowance: &Allowance) -> StoreResult<()> {
    sqlx::query!(
        "UPDATE quota SET used = $2, ends_at = $3 WHERE key = $1",
        counted.key(),
        allowance.used,
        allowance.ends_at
    )
    .execute(tx.conn())
    .await?;
    Ok(())
}

/// Deletes windows that have ended, at most `most`.
///
/// # Errors
/// When the database is away.
pub async fn remove_ended(tx: &mut Tx, now: DateTime<Utc>, most: i64) -> StoreResult<u64> {
    let done = sqlx::query!(
        "DELETE FROM quota
        WHERE key = ANY(ARRAY(SELECT key FROM quota WHERE ends_at <= $1 ORDER BY ends_at LIMIT $2 FOR UPDATE SKIP LOCKED))",
        now,
        most
    )
    .execute(tx.conn())
    .await?;
    Ok(done.rows_affected())
}
