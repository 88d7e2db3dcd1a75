//! The security log: who signed in, failed to sign in or was slowed down, and which keys were issued, revoked or refused.
//!
//! Its lines are ordinary log lines with their own target and the field `action`, so that an operator can route them elsewhere. They name accounts,
//! keys and projects by their ids, and clients by their addresses. They never contain a password, a key or a mail address, because people sometimes
//! type their password into the field for the address.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};

use chrono::{DateTime, TimeDelta, Utc};

/// The target of the security log's lines.
pub const TARGET: &str = "deadbeat::security";

/// The most keys that are remembered.
const MOST: usize = 10_000;

/// Returns a client's address as log lines show it.
pub(crate) fn shown(address: Option<IpAddr>) -> String {
    address.map_or_else(|| "unknown".to_owned(), |address| address.to_string())
}

/// Limits an event to one line per minute and key, however often it happens.
#[derive(Debug, Default)]
pub struct OnceAMinute {
    last: Mutex<HashMap<u128, DateTime<Utc>>>,
}

impl OnceAMinute {
    /// Returns true if the event has not happened to this key in the last minute.
    #[must_use]
    pub fn is_first(&self, key: u128, now: DateTime<Utc>) -> bool {
        let mut last = self.last();
        let is_recent = |at: &DateTime<Utc>| *at <= now && now - *at < TimeDelta::minutes(1);
        if last.get(&key).is_some_and(is_recent) {
            return false;
        }
        if last.len() >= MOST {
            last.retain(|_, at| is_recent(at));
        }
        if last.len() >= MOST {
            // In a flood of keys it is better to drop lines than to let the log or the memory grow.
            return false;
        }
        last.insert(key, now);
        true
    }

    /// Locks the times. They stay valid even if a thread panicked while it held the lock.
    fn last(&self) -> MutexGuard<'_, HashMap<u128, DateTime<Utc>>> {
        self.last.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_key_is_reported_once_a_minute_and_a_flood_of_keys_fills_nothing() {
        let now: DateTime<Utc> = "2026-07-01T02:00:00Z".parse().unwrap();
        let alerted = OnceAMinute::default();
        assert!(alerted.is_first(1, now) && alerted.is_first(2, now));
        assert!(!alerted.is_first(1, now + TimeDelta::seconds(59)));
        assert!(alerted.is_first(1, now + TimeDelta::seconds(60)));
        // The clock was set back.
        assert!(alerted.is_first(1, now - TimeDelta::days(1)));

        let lines = (0..3 * MOST as u128)
            .filter(|key| alerted.is_first(*key, now))
            .count();
        assert!(lines <= MOST && alerted.last().len() <= MOST, "{lines}");
        assert!(alerted.is_first(7, now + TimeDelta::minutes(2)));
    }
}
