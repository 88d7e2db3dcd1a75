//! Table `writer`: how far each group commit has come. It is written with the batches ([`crate::batch::write`]).

use uuid::Uuid;

use crate::{StoreResult, Tx};

/// The last batch of a writer that was committed, 0 when none ever was; it stays the last one until this transaction ends.
///
/// A commit whose answer was lost may still be under way. This waits for it: otherwise a batch could be replayed while it commits.
///
/// # Errors
/// When the database is away.
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
