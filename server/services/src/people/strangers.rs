//! Counts in this process's memory what people without an account do by a link: whoever opens links without end is refused for a while.
//!
//! Several processes together allow as many times more, and a restart forgets. That is enough: a wrong link costs one signature, and a right
//! one a transaction.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use chrono::{DateTime, TimeDelta, Utc};
use deadbeat_domain::ids::ChannelId;
use deadbeat_domain::people::rate::{Bucket, Rate};

use crate::ServiceError;

/// The most buckets that are kept at a time.
const BUCKETS: usize = 30_000;
/// Wrong links of one client: more than somebody opens by mistake.
const WRONG: Rate = Rate {
    burst: 30.0,
    per_second: 0.5,
};
/// Right links of one channel. Mail services press the button for many people from one address, so the channel counts, not the client.
const RIGHT: Rate = Rate {
    burst: 20.0,
    per_second: 0.1,
};

/// Whose requests are counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Key {
    /// A client without a right link. None: the connection has no address.
    Client(Option<IpAddr>),
    /// A channel to which a right link belongs.
    Channel(ChannelId),
}

impl Key {
    fn rate(self) -> &'static Rate {
        match self {
            Self::Client(_) => &WRONG,
            Self::Channel(_) => &RIGHT,
        }
    }
}

/// Counts requests by links. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub(crate) struct Strangers {
    buckets: Arc<Mutex<HashMap<Key, Bucket>>>,
}

impl Strangers {
    /// Counts a wrong link of a client. `client`: its address, or the network that counts as one client.
    ///
    /// # Errors
    /// The client opened too many.
    pub(crate) fn wrong(&self, client: Option<IpAddr>, now: DateTime<Utc>) -> Result<(), ServiceError> {
        self.take(Key::Client(client), now)
    }

    /// Counts a right link of a channel.
    ///
    /// # Errors
    /// There were too many.
    pub(crate) fn right(&self, channel: ChannelId, now: DateTime<Utc>) -> Result<(), ServiceError> {
        self.take(Key::Channel(channel), now)
    }

    fn take(&self, key: Key, now: DateTime<Utc>) -> Result<(), ServiceError> {
        let mut buckets = self.buckets();
        if buckets.len() >= BUCKETS && !buckets.contains_key(&key) {
            buckets.retain(|key, bucket| !bucket.is_full(key.rate(), now));
            if buckets.len() >= BUCKETS {
                // Better that nobody is limited for a while than a memory that grows.
                buckets.clear();
            }
        }
        let rate = key.rate();
        buckets
            .entry(key)
            .or_insert_with(|| Bucket::full(rate, now))
            .take(rate, 1.0, now)
            .map_err(|wait: TimeDelta| ServiceError::TooMany {
                what: "too many links were opened in a short time".to_owned(),
                retry_after: wait,
            })
    }

    /// Counts stay true whoever panicked while holding them.
    fn buckets(&self) -> MutexGuard<'_, HashMap<Key, Bucket>> {
        self.buckets.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn start() -> DateTime<Utc> {
        "2026-07-01T02:00:00Z".parse().unwrap()
    }

    fn client(n: u32) -> Option<IpAddr> {
        Some(IpAddr::from(n.to_be_bytes()))
    }

    #[test]
    fn a_client_that_opens_wrong_links_is_refused_and_no_other_is() {
        let strangers = Strangers::default();
        for _ in 0..30 {
            strangers.wrong(client(1), start()).unwrap();
        }

        let refused = strangers.wrong(client(1), start()).unwrap_err();

        let ServiceError::TooMany { retry_after, .. } = refused else {
            panic!("{refused:?}")
        };
        assert_eq!(retry_after, TimeDelta::seconds(2));
        strangers.wrong(client(2), start()).unwrap();
        strangers.right(ChannelId::generate(), start()).unwrap();
        strangers.wrong(client(1), start() + retry_after).unwrap();
    }

    #[test]
    fn a_flood_of_clients_does_not_fill_the_memory() {
        let strangers = Strangers::default();
        // All at one instant: no bucket becomes full again.
        for n in 0..2 * BUCKETS as u32 {
            strangers.wrong(client(n), start()).unwrap();
        }
        assert!(strangers.buckets().len() <= BUCKETS);
    }
}
