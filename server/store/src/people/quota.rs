//! Table `quota`: how often something was done in a window of time.

use chrono::{DateTime, TimeDelta, Utc};

use crate::{StoreResult, Tx};

/// Windows that one call of [`remove_ended`] removes.
const REMOVED: i64 = 100;

/// Whether a quota allowed it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Taken {
    /// Yes, and it is counted.
    Yes,
    /// Not before this instant.
    NotBefore(DateTime<Utc>),
}

/// Takes one of `limit` that a quota allows in a window. The window begins with the first one and lasts `window`.
///
/// The key's row is locked until the commit. A caller that takes several quotas always takes them in the same order.
///
/// # Errors
/// When the database is away.
pub async fn take(
    tx: &mut Tx,
    key: &str,
    limit: i32,
    window: TimeDelta,
    now: DateTime<Utc>,
) -> StoreResult<Taken> {
    // A window that ends later than one that begins now was written before the clock stepped back: it counts as ended.
    let taken = sqlx::query_scalar!(
        "INSERT INTO quota (key, used, ends_at) VALUES ($1, 1, $3)
        ON CONFLICT (key) DO UPDATE
        SET used = CASE WHEN quota.ends_at > $2 AND quota.ends_at <= $3 THEN quota.used + 1 ELSE 1 END,
            ends_at = CASE WHEN quota.ends_at > $2 AND quota.ends_at <= $3 THEN quota.ends_at ELSE $3 END
        WHERE quota.used < $4 OR quota.ends_at <= $2 OR quota.ends_at > $3
        RETURNING ends_at",
        key,
        now,
        now + window,
        limit
    )
    .fetch_optional(tx.conn())
    .await?;
    if taken.is_some() {
        return Ok(Taken::Yes);
    }
    let ends_at = sqlx::query_scalar!("SELECT ends_at FROM quota WHERE key = $1", key)
        .fetch_one(tx.conn())
        .await?;
    Ok(Taken::NotBefore(ends_at))
}

/// Removes windows that have ended, a bounded number at a time. A transaction of its own: it locks keys in no particular order.
///
/// # Errors
/// When the database is away.
pub async fn remove_ended(tx: &mut Tx, now: DateTime<Utc>) -> StoreResult<u64> {
    let done = sqlx::query!(
        "DELETE FROM quota
        WHERE key = ANY(ARRAY(SELECT key FROM quota WHERE ends_at <= $1 ORDER BY ends_at LIMIT $2 FOR UPDATE SKIP LOCKED))",
        now,
        REMOVED
    )
    .execute(tx.conn())
    .await?;
    Ok(done.rows_affected())
}
