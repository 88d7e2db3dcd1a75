//! What one key or one project may use up. A leaked key is then a nuisance, but cannot fill everybody's disk.
//!
//! Rates are counted in this process's memory, for each ping key and each ping URL: several processes allow that many times more. Quotas for a
//! stretch of time are counted in the database, by all processes together ([`spend`]).

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use chrono::{DateTime, TimeDelta, Utc};
use deadbeat_domain::people::rate::{Bucket, Rate};
use deadbeat_store::Tx;
use deadbeat_store::people::quota::{self, Counted};
use foldhash::fast::RandomState;

use crate::ServiceError;
use crate::monitor::signal::incoming::Address;

/// The most ping keys and ping URLs that are counted at once.
const SENDERS: usize = 100_000;
/// The size of a burst, in seconds of pings: crontabs all fire at second 0.
const PING_BURST_SECONDS: f64 = 20.0;
/// The part of a day's bytes of bodies that may arrive in a burst.
const BODY_BURST: f64 = 1.0 / 24.0;
/// A whole body always fits, however small the quota is.
const SMALLEST_BODY_BURST: f64 = deadbeat_domain::limits::PING_BODY_BYTES as f64;

/// Limits that an operator may set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct QuotaSettings {
    /// Pings per second of one ping key, and of one ping URL, on average. A burst may have 20 times as many.
    pub pings_per_second: u32,
    /// Bytes of ping bodies per day that the server keeps for one ping key, and for one ping URL. A burst may have a 24th of them.
    pub body_bytes_per_day: u64,
    /// Monitors per day that the ping keys of one project may create.
    pub created_monitors_per_day: u32,
    /// API keys per day that one project may issue.
    pub api_keys_per_day: u32,
}

impl Default for QuotaSettings {
    /// 10,000 monitors that each report every minute with a kilobyte need a tenth of this.
    fn default() -> Self {
        Self {
            pings_per_second: 1_000,
            body_bytes_per_day: 10_000_000_000,
            created_monitors_per_day: 20_000,
            api_keys_per_day: 200,
        }
    }
}

/// Counts what senders of pings use up. Clones are cheap.
#[derive(Debug, Clone)]
pub struct Quotas {
    settings: QuotaSettings,
    pings: Rate,
    bodies: Rate,
    senders: Arc<Mutex<HashMap<u128, Sender, RandomState>>>,
}

/// The counts of a ping key or a ping URL.
#[derive(Debug, Clone, Copy)]
struct Sender {
    pings: Bucket,
    bodies: Bucket,
}

/// A ping was refused because its sender has sent too many.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TooManyPings {
    /// How long to wait until the server accepts the next ping.
    pub wait: TimeDelta,
}

impl Default for Quotas {
    fn default() -> Self {
        Self::new(QuotaSettings::default())
    }
}

impl Quotas {
    /// Starts without counts.
    #[must_use]
    pub fn new(settings: QuotaSettings) -> Self {
        let pings = f64::from(settings.pings_per_second.max(1));
        let bytes = settings.body_bytes_per_day.max(1) as f64;
        Self {
            settings,
            pings: Rate {
                burst: pings * PING_BURST_SECONDS,
                per_second: pings,
            },
            bodies: Rate {
                burst: (bytes * BODY_BURST).max(SMALLEST_BODY_BURST),
                per_second: bytes / TimeDelta::days(1).num_seconds() as f64,
            },
            senders: Arc::default(),
        }
    }

    /// Returns the limits.
    #[must_use]
    pub fn settings(&self) -> &QuotaSettings {
        &self.settings
    }

    /// Counts a ping.
    ///
    /// # Errors
    /// If its sender has sent too many.
    pub fn admit_ping(&self, address: &Address, now: DateTime<Utc>) -> Result<(), TooManyPings> {
        self.sender(address, now, |sender| sender.pings.take(&self.pings, 1.0, now))
            .map_err(|wait| TooManyPings { wait })
    }

    /// Counts the bytes of a ping's body. Returns false if the sender's quota is used up: the body is then not kept, but the ping itself counts.
    #[must_use]
    pub fn admit_body(&self, address: &Address, bytes: usize, now: DateTime<Utc>) -> bool {
        bytes == 0
            || self
                .sender(address, now, |sender| {
                    sender.bodies.take(&self.bodies, bytes as f64, now)
                })
                .is_ok()
    }

    fn sender(
        &self,
        address: &Address,
        now: DateTime<Utc>,
        take: impl FnOnce(&mut Sender) -> Result<(), TimeDelta>,
    ) -> Result<(), TimeDelta> {
        let key = sender(address);
        let mut senders = self.senders();
        if senders.len() >= SENDERS && !senders.contains_key(&key) {
            senders.retain(|_, sender| {
                !(sender.pings.is_full(&self.pings, now) && sender.bodies.is_full(&self.bodies, now))
            });
            if senders.len() >= SENDERS {
                // It is better that nobody is limited for a while than that the memory grows.
                senders.clear();
            }
        }
        take(senders.entry(key).or_insert_with(|| Sender {
            pings: Bucket::full(&self.pings, now),
            bodies: Bucket::full(&self.bodies, now),
        }))
    }

    /// Locks the counts. They stay valid even if a thread panicked while it held the lock.
    fn senders(&self) -> MutexGuard<'_, HashMap<u128, Sender, RandomState>> {
        self.senders.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Converts a ping key or a ping URL to a number.
pub(crate) fn sender(address: &Address) -> u128 {
    match address {
        Address::Ping(id) => id.0.as_u128(),
        // Any 16 bytes of a SHA-256 digest are equally good.
        Address::Slug { digest, .. } => {
            let start = digest.first_chunk().copied().unwrap_or_default();
            u128::from_be_bytes(start)
        }
    }
}

/// Takes up to `wanted` from a quota. Returns how many were granted, and how long until more are available. Other transactions that take from the
/// same quota wait until this one ends.
pub(crate) async fn spend_up_to(
    tx: &mut Tx,
    counted: &Counted,
    wanted: i64,
    limit: u32,
    now: DateTime<Utc>,
) -> Result<(i64, TimeDelta), ServiceError> {
    if wanted == 0 {
        return Ok((0, TimeDelta::zero()));
    }
    let mut allowance = quota::lock(tx, counted, now).await?;
    let granted = allowance.take(wanted, i64::from(limit), counted.window(), now);
    quota::write(tx, counted, &allowance).await?;
    Ok((granted, allowance.wait(now)))
}

/// Takes one from a quota.
///
/// # Errors
/// If the quota is used up, or the database cannot be reached.
pub(crate) async fn spend(
    tx: &mut Tx,
    counted: &Counted,
    limit: u32,
    now: DateTime<Utc>,
) -> Result<(), ServiceError> {
    let (granted, wait) = spend_up_to(tx, counted, 1, limit, now).await?;
    if granted == 1 {
        return Ok(());
    }
    let what = match counted {
        Counted::CreatedMonitors(_) => "monitors a day that ping keys of a project create",
        Counted::ApiKeys(_) => "new API keys of a project a day",
        Counted::Invitations(_) => "invitations of a project in a day",
        Counted::Projects(_) => "new projects of an account in a day",
        Counted::Tests(_) => "tests of a project in a minute",
        Counted::Resends(_) => "deliveries of a project that are sent again in a minute",
        Counted::Confirmations(_) => "confirmation mails of a project in a day",
        Counted::ConfirmationsTo(_) => "confirmation mails to one address in a day",
        Counted::AccountMailsTo(_) => "mails about an account to one address in a day",
    };
    Err(ServiceError::TooMany {
        what: format!("{limit} {what} are allowed"),
        retry_after: wait,
    })
}

#[cfg(test)]
mod tests {
    use deadbeat_domain::ids::PingId;

    use super::*;

    fn start() -> DateTime<Utc> {
        "2026-07-01T02:00:00Z".parse().unwrap()
    }

    /// 10,000 crontab lines that fire at second 0 of each minute, for an hour, each with a kilobyte, all with one ping key.
    #[test]
    fn ten_thousand_monitors_that_report_each_minute_pass() {
        let quotas = Quotas::default();
        let key = Address::slug("dbp_aaaaaaaaaaaaaaaaaaaaaaaa", "job");
        for minute in 0..60 {
            for n in 0..10_000 {
                let now = start() + TimeDelta::minutes(minute) + TimeDelta::microseconds(n * 100);
                quotas.admit_ping(&key, now).unwrap();
                assert!(quotas.admit_body(&key, 1_000, now), "minute {minute}, ping {n}");
            }
        }
    }

    #[test]
    fn who_sends_too_much_is_answered_when_to_come_back_and_nobody_else_is() {
        let quotas = Quotas::new(QuotaSettings {
            pings_per_second: 5,
            ..QuotaSettings::default()
        });
        let key = Address::slug("dbp_aaaaaaaaaaaaaaaaaaaaaaaa", "job");
        for _ in 0..100 {
            quotas.admit_ping(&key, start()).unwrap();
        }

        // The slug does not matter, because it is the key that leaked.
        let other_slug = Address::slug("dbp_aaaaaaaaaaaaaaaaaaaaaaaa", "another");
        let refused = quotas.admit_ping(&other_slug, start()).unwrap_err();
        assert_eq!(refused.wait, TimeDelta::milliseconds(200));
        for other in [
            Address::slug("dbp_bbbbbbbbbbbbbbbbbbbbbbbb", "job"),
            Address::Ping(PingId::generate()),
        ] {
            quotas.admit_ping(&other, start()).unwrap();
        }
        quotas.admit_ping(&key, start() + refused.wait).unwrap();
    }

    #[test]
    fn bodies_beyond_the_quota_are_not_kept_and_come_back_with_time() {
        let quotas = Quotas::new(QuotaSettings {
            body_bytes_per_day: 24_000_000,
            ..QuotaSettings::default()
        });
        let url = Address::Ping(PingId::generate());
        let kept = (0..100)
            .filter(|_| quotas.admit_body(&url, 100_000, start()))
            .count();
        assert_eq!(kept, 10, "a 24th of a day's bytes at once");
        assert!(quotas.admit_body(&url, 0, start()));
        assert!(quotas.admit_body(&url, 100_000, start() + TimeDelta::minutes(6)));
        assert!(!quotas.admit_body(&url, 100_000, start() + TimeDelta::minutes(6)));
    }

    #[test]
    fn a_flood_of_made_up_keys_does_not_fill_the_memory() {
        let quotas = Quotas::default();
        let mut n = 0_u128;
        // All at one instant, so that no bucket becomes full again.
        while n < 2 * SENDERS as u128 {
            let url = Address::Ping(PingId(uuid::Uuid::from_u128(n)));
            quotas.admit_ping(&url, start()).unwrap();
            n += 1;
        }
        assert!(quotas.senders().len() <= SENDERS);
    }
}
