//! Locks that keep what rotations and escalation policies name.
//!
//! Whoever writes a name holds what it names ([`hold_channels`], [`hold_rotations`]). Whoever deletes such a thing locks it
//! first ([`lock_channel_to_delete`], [`lock_rotation_to_delete`]) and then looks for its name. So one of the two sees the
//! other.

use std::collections::HashSet;

use deadbeat_domain::ids::{ChannelId, ProjectId, RotationId};

use crate::monitor::batch::column;
use crate::{StoreResult, Tx};

/// Which of these channels a project has. They cannot be deleted before the end of the transaction.
///
/// # Errors
/// If the database is away.
pub async fn hold_channels(
    tx: &mut Tx,
    project: ProjectId,
    ids: &[ChannelId],
) -> StoreResult<HashSet<ChannelId>> {
    let found = sqlx::query_scalar!(
        "SELECT id FROM channel WHERE project_id = $1 AND id = ANY($2) ORDER BY id FOR KEY SHARE",
        project.0,
        &column(ids, |id| id.0)
    )
    .fetch_all(tx.conn())
    .await?;
    Ok(found.into_iter().map(ChannelId).collect())
}

/// Which of these rotations a project has. They cannot be deleted before the end of the transaction.
///
/// # Errors
/// If the database is away.
pub async fn hold_rotations(
    tx: &mut Tx,
    project: ProjectId,
    ids: &[RotationId],
) -> StoreResult<HashSet<RotationId>> {
    let found = sqlx::query_scalar!(
        "SELECT id FROM rotation WHERE project_id = $1 AND id = ANY($2) ORDER BY id FOR KEY SHARE",
        project.0,
        &column(ids, |id| id.0)
    )
    .fetch_all(tx.conn())
    .await?;
    Ok(found.into_iter().map(RotationId).collect())
}

/// Locks a channel that is about to be deleted: from now on nothing can come to name it. False: there is none.
///
/// # Errors
/// If the database is away.
pub async fn lock_channel_to_delete(tx: &mut Tx, project: ProjectId, id: ChannelId) -> StoreResult<bool> {
    let found = sqlx::query_scalar!(
        "SELECT id FROM channel WHERE project_id = $1 AND id = $2 FOR UPDATE",
        project.0,
        id.0
    )
    .fetch_optional(tx.conn())
    .await?;
    Ok(found.is_some())
}

/// Locks a rotation that is about to be deleted: from now on no policy can come to name it. False: there is none.
///
/// # Errors
/// If the database is away.
pub async fn lock_rotation_to_delete(tx: &mut Tx, project: ProjectId, id: RotationId) -> StoreResult<bool> {
    let found = sqlx::query_scalar!(
        "SELECT id FROM rotation WHERE project_id = $1 AND id = $2 FOR UPDATE",
        project.0,
        id.0
    )
    .fetch_optional(tx.conn())
    .await?;
    Ok(found.is_some())
}
