//! Table `zone_data`: with which release of the time zone database the stored due times were computed.

use uuid::Uuid;

use crate::{StoreError, StoreResult, Tx};

/// How far the stored due times have come.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Progress {
    /// All due times are of this release or of a newer one.
    pub release: String,
    /// The release that they are being moved to.
    pub moving_to: Option<String>,
    /// Monitors up to this id are done.
    pub done_upto: Option<Uuid>,
}

/// Locks the row, so that one process at a time moves a batch.
///
/// # Errors
/// When the database is away, or the row is missing.
pub async fn lock(tx: &mut Tx) -> StoreResult<Progress> {
    sqlx::query_as!(
        Progress,
        "SELECT release, moving_to, done_upto FROM zone_data FOR UPDATE"
    )
    .fetch_optional(tx.conn())
    .await?
    .ok_or_else(|| StoreError::Corrupt("the table zone_data has no row".to_owned()))
}

/// Writes the row.
///
/// # Errors
/// When the database is away.
pub async fn update(tx: &mut Tx, progress: &Progress) -> StoreResult<()> {
    sqlx::query!(
        "UPDATE zone_data SET release = $1, moving_to = $2, done_upto = $3",
        progress.release,
        progress.moving_to,
        progress.done_upto
    )
    .execute(tx.conn())
    .await?;
    Ok(())
}
