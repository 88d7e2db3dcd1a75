//! Table `zone_data`: the release of the time zone database with which stored due times were computed.

use uuid::Uuid;

use crate::{StoreError, StoreResult, Tx};

/// How far the due times have been moved to a new release.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Progress {
    /// The release that all due times follow. Some may follow a newer one.
    pub release: String,
    /// The release to which due times are being moved.
    pub moving_to: Option<String>,
    /// The last monitor, in id order, whose due time was moved.
    pub done_upto: Option<Uuid>,
}

/// Locks the row, so that only one process at a time moves a batch.
///
/// # Errors
/// If the database is away, or the row is missing.
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
