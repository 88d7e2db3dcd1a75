//! Locks that keep channels and rotations in existence while rotations and escalation policies name them.
//!
//! A transaction that writes a name holds the named thing ([`hold_channels`], [`hold_rotations`]). A transaction that deletes such a thing locks it
//! first ([`lock_channel_to_delete`], [`lock_rotation_to_delete`]), and then searches for its name. So one of the two transactions sees the other.

use std::collections::HashSet;

use deadbeat_domain::ids::{ChannelId, ProjectId, RotationId};

use crate::monitor::batch::column;
use crate::{StoreResult, Tx};

/// Returns those of these channels that a project has. Nobody can delete them before the end of the transaction.
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

/// Returns those of these rotations that a project has. Nobody can delete them before the end of the transaction.
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

/// Locks a channel that is about to be deleted. From now on no rotation and no policy can start to name it. False:
/// there is none.
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

/// Locks a rotation that is about to be deleted. From now on no policy can start to name it. False: there is none.
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
