//! Tables `channel` and `mail_refusal`: whether the owner of a mail address agrees to mail.

use chrono::{DateTime, Utc};
use deadbeat_domain::ids::{ChannelId, ProjectId};

use super::{Channel, cancel_waiting};
use crate::{StoreResult, Tx};

/// Notes that the owner of a mail address agreed. The caller holds the channel ([`super::lock_for_confirmation`]). False: the channel is gone, or
/// has another address by now.
///
/// # Errors
/// When the database is away.
pub async fn confirm(tx: &mut Tx, channel: &Channel, now: DateTime<Utc>) -> StoreResult<bool> {
    let done = sqlx::query!(
        "UPDATE channel SET confirmed_at = coalesce(confirmed_at, $4) WHERE project_id = $1 AND id = $2 AND settings = $3",
        channel.project_id.0,
        channel.id.0,
        channel.settings.to_json(),
        now
    )
    .execute(tx.conn())
    .await?;
    Ok(done.rows_affected() == 1)
}

/// Whether mail to this address needs no confirmation in a project: it is a member's, or the project's other channel has it confirmed.
///
/// # Errors
/// When the database is away.
pub async fn is_known_address(tx: &mut Tx, project: ProjectId, address: &str) -> StoreResult<bool> {
    Ok(sqlx::query_scalar!(
        r#"
        SELECT EXISTS (
            SELECT FROM member JOIN account ON account.id = account_id WHERE project_id = $1 AND lower(email) = lower($2)
        ) OR EXISTS (
            SELECT FROM channel WHERE project_id = $1 AND lower(settings ->> 'to') = lower($2) AND confirmed_at IS NOT NULL
        ) AS "is_known!"
        "#,
        project.0,
        address
    )
    .fetch_one(tx.conn())
    .await?)
}

/// Whether the owner of an address unsubscribed from a channel of the project, and has not agreed again.
///
/// # Errors
/// If the database is away.
pub async fn is_refused(tx: &mut Tx, project: ProjectId, address: &str) -> StoreResult<bool> {
    Ok(sqlx::query_scalar!(
        r#"SELECT EXISTS (SELECT FROM mail_refusal WHERE project_id = $1 AND address = lower($2)) AS "refused!""#,
        project.0,
        address
    )
    .fetch_one(tx.conn())
    .await?)
}

/// Takes back the consent to mail to an address: switches the channel off, cancels what waits for it, and notes the refusal, so that no
/// other channel of the project gets the address without asking. The caller holds the channel ([`super::lock_to_disable`]).
///
/// # Errors
/// If the database is away.
pub async fn unsubscribe(
    tx: &mut Tx,
    project: ProjectId,
    id: ChannelId,
    address: &str,
    reason: &str,
    now: DateTime<Utc>,
) -> StoreResult<()> {
    sqlx::query!(
        "UPDATE channel SET disabled_at = coalesce(disabled_at, $4), disabled_reason = $3, confirmed_at = NULL
        WHERE project_id = $1 AND id = $2",
        project.0,
        id.0,
        reason,
        now
    )
    .execute(tx.conn())
    .await?;
    sqlx::query!(
        "INSERT INTO mail_refusal (address, project_id, refused_at) VALUES (lower($2), $1, $3)
        ON CONFLICT (address, project_id) DO UPDATE SET refused_at = excluded.refused_at",
        project.0,
        address,
        now
    )
    .execute(tx.conn())
    .await?;
    cancel_waiting(tx, project, id, now).await
}

/// The owner of the address agrees again: forgets the refusal. A channel that was switched off for `reason` is used again.
///
/// # Errors
/// If the database is away.
pub async fn agree_again(
    tx: &mut Tx,
    project: ProjectId,
    id: ChannelId,
    address: &str,
    reason: &str,
) -> StoreResult<()> {
    sqlx::query!(
        "DELETE FROM mail_refusal WHERE project_id = $1 AND address = lower($2)",
        project.0,
        address
    )
    .execute(tx.conn())
    .await?;
    sqlx::query!(
        "UPDATE channel SET disabled_at = NULL, disabled_reason = NULL
        WHERE project_id = $1 AND id = $2 AND disabled_reason = $3",
        project.0,
        id.0,
        reason
    )
    .execute(tx.conn())
    .await?;
    Ok(())
}
