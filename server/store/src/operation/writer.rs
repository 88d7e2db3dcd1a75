//! Table `writer`: how far each group commit has come. [`crate::monitor::batch::write`] writes it with the batches.

use std::time::Duration;

use uuid::Uuid;

use crate::{StoreResult, Tx};

/// Locks and returns the number of a writer's last committed batch; 0 if it never committed. The number cannot change
/// until this transaction ends.
///
/// A commit whose answer was lost may still be in progress. This function waits for its end. Otherwise the caller could
/// replay a batch while that batch commits.
///
/// # Errors
/// If the database is away.
pub async fn lock_position(tx: &mut Tx, id: Uuid) -> StoreResult<u64> {
    let position = sqlx::query_scalar!(
        "INSERT INTO writer (id, position) VALUES ($1, 0)
        ON CONFLICT (id) DO UPDATE SET position = writer.position
        RETURNING position",
        id
    )
    .fetch_one(tx.conn())
    .await?;
    Ok(position.unsigned_abs())
}

/// Sets a timeout for every later statement of this transaction, and for its waits for locks.
///
/// # Errors
/// If the database is away.
pub async fn limit_statements(tx: &mut Tx, limit: Duration) -> StoreResult<()> {
    sqlx::query!(
        "SELECT set_config('statement_timeout', $1, true) AS statement, set_config('lock_timeout', $1, true) AS lock",
        limit.as_millis().to_string()
    )
    .fetch_one(tx.conn())
    .await?;
    Ok(())
}

/// Deletes the row of a writer that will never write again.
///
/// # Errors
/// When the database is away.
pub async fn forget(tx: &mut Tx, id: Uuid) -> StoreResult<()> {
    sqlx::query!("DELETE FROM writer WHERE id = $1", id)
        .execute(tx.conn())
        .await?;
    Ok(())
}
