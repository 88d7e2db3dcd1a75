//! The deletion of old data, and of data whose owner was deleted.
//!
//! Each function is one step with bounded work. The caller repeats the step, each time in a transaction of its own. A
//! step either deletes at most `limit` rows that an index finds, or it **walks**. A step of a walk reads the next
//! `limit` rows in the order of their key, deletes those that are too old, and returns where the next step begins. A
//! walk never reads a row twice, however many rows must stay.
//!
//! Each transaction takes one lock first ([`try_lock`]), so that only one of several processes works.

mod pings;
mod walks;

pub use pings::{
    DayTable, Excess, PingRange, drop_oldest_day, excess_pings, make_partitions, purge_one, stray_pings,
    trim_default, trim_ranges,
};
pub use walks::{
    DeliveryCutoffs, attempts, audit_entries, changes, deliveries, expired_sessions, handles, incidents,
    members, old_spells, runs, transitions,
};

use chrono::{DateTime, Utc};
use uuid::Uuid;

use crate::{StoreResult, Tx};

/// An arbitrary number, equal in every process: "deadbeat".
const LOCK: i64 = 0x6465_6164_6265_6174;

/// The result of one step of a walk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Walked<Place> {
    /// The number of deleted rows.
    pub removed: u64,
    /// The key of the last row that was read. The next step begins after it. None: the walk has ended.
    pub last: Option<Place>,
}

impl<Place> Walked<Place> {
    /// Makes the result of a step that read `looked` rows of at most `limit`. If it read fewer, the walk has ended.
    fn new(removed: i64, looked: i64, limit: i64, last: Option<Place>) -> Self {
        Self {
            removed: removed.unsigned_abs(),
            last: last.filter(|_| looked >= limit),
        }
    }
}

/// Takes the lock of the retention for this transaction. False: another process has it.
///
/// # Errors
/// If the database is away.
pub async fn try_lock(tx: &mut Tx) -> StoreResult<bool> {
    Ok(
        sqlx::query_scalar!("SELECT pg_try_advisory_xact_lock($1) AS \"held!\"", LOCK)
            .fetch_one(tx.conn())
            .await?,
    )
}

/// Returns the first id (v7) that could have been made at an instant. Ids are ordered by the time at which they were
/// made.
fn first_id_of(at: DateTime<Utc>) -> Uuid {
    let milliseconds = u128::try_from(at.timestamp_millis()).unwrap_or_default();
    Uuid::from_u128(milliseconds << 80)
}
