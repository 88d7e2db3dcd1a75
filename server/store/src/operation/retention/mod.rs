//! What the retention removes: data that is too old, and data whose owner is gone.
//!
//! Each function is one step with bounded work; the caller repeats it, each time in a transaction of its own. A step either removes at
//! most `limit` rows that an index finds, or it **walks**: it looks at the next `limit` rows in the order of their key, removes those that
//! may go, and answers where the next step begins. A walk never looks at the same row twice, however many rows must stay.
//!
//! Each transaction takes one lock first ([`try_lock`]), so that of several processes one works.

mod pings;
mod walks;

pub use pings::{
    DayTable, Excess, PingRange, drop_oldest_day, excess_pings, make_partitions, purge_one, stray_pings,
    trim_default, trim_ranges,
};
pub use walks::{
    DeliveryCutoffs, attempts, deliveries, expired_sessions, incidents, members, old_spells, runs,
    transitions,
};

use chrono::{DateTime, Utc};
use uuid::Uuid;

use crate::{StoreResult, Tx};

/// Any number, the same in every process: "the one that removes what is old".
const LOCK: i64 = 0x6465_6164_6265_6174;

/// What one step of a walk did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Walked<Place> {
    /// Rows removed.
    pub removed: u64,
    /// The key of the last row looked at; the next step begins after it. None: the walk has reached its end.
    pub last: Option<Place>,
}

impl<Place> Walked<Place> {
    /// `looked` rows were looked at of `limit` that were wanted: fewer mean that there are no more.
    fn new(removed: i64, looked: i64, limit: i64, last: Option<Place>) -> Self {
        Self {
            removed: removed.unsigned_abs(),
            last: last.filter(|_| looked >= limit),
        }
    }
}

/// Takes the right to remove for this transaction; false: another process is at it.
///
/// # Errors
/// When the database is away.
pub async fn try_lock(tx: &mut Tx) -> StoreResult<bool> {
    Ok(
        sqlx::query_scalar!("SELECT pg_try_advisory_xact_lock($1) AS \"held!\"", LOCK)
            .fetch_one(tx.conn())
            .await?,
    )
}

/// The first id (v7) that could have been made at this time: ids sort by the time at which they were made.
fn first_id_of(at: DateTime<Utc>) -> Uuid {
    let milliseconds = u128::try_from(at.timestamp_millis()).unwrap_or_default();
    Uuid::from_u128(milliseconds << 80)
}
