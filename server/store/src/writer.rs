//! Table `writer`: how far each group commit has come. It is written with the batches ([`crate::batch::write`]).

use uuid::Uuid;

use crate::{Reader, StoreResult};

/// The last batch of a writer that was committed; none: none ever was.
///
/// # Errors
/// When the database is away.
pub async fn position(reader: &Reader, id: Uuid) -> StoreResult<Option<u64>> {
    let position = sqlx::query_scalar!("SELECT position FROM writer WHERE id = $1", id)
        .fetch_optional(reader.pool())
        .await?;
    Ok(position.map(i64::unsigned_abs))
}
