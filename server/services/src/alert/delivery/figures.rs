//! Counters of the delivery loop: for one pass, and since the process started.

use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};

use chrono::{DateTime, Utc};
use deadbeat_domain::alert::delivery::Reason;

/// The counters of one pass.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Progress {
    /// Number of claimed deliveries.
    pub claimed: usize,
    /// Number of those that were sent.
    pub sent: usize,
    /// Number of those that will be retried.
    pub retried: usize,
    /// Number of those that were given up.
    pub dead: usize,
    /// Number of those that this pass did not settle: the lease was lost, or the database went away. They are sent
    /// again.
    pub unsettled: usize,
}

impl Progress {
    pub(super) fn count(&mut self, end: End) {
        match end {
            End::Sent => self.sent += 1,
            End::Retried => self.retried += 1,
            End::Dead => self.dead += 1,
            End::Unsettled => self.unsettled += 1,
        }
    }
}

/// The end of one claimed delivery.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    Sent,
    Retried,
    Dead,
    Unsettled,
}

/// The loop's counters since the process started.
#[derive(Debug, Default)]
pub struct DeliveryFigures {
    sent: AtomicU64,
    retried: AtomicU64,
    dead: AtomicU64,
    pub(super) put_aside: AtomicU64,
    /// Attempts that did not succeed, in the order of [`Reason::ALL`].
    failed: [AtomicU64; Reason::ALL.len()],
    /// When a delivery was last sent: microseconds since the epoch. 0: never.
    last_success: AtomicI64,
    pub(super) last_pass: AtomicI64,
}

impl DeliveryFigures {
    /// Number of deliveries that were sent.
    #[must_use]
    pub fn sent(&self) -> u64 {
        self.sent.load(Ordering::Relaxed)
    }

    /// Number of attempts that will be retried.
    #[must_use]
    pub fn retried(&self) -> u64 {
        self.retried.load(Ordering::Relaxed)
    }

    /// Number of deliveries that were given up.
    #[must_use]
    pub fn dead(&self) -> u64 {
        self.dead.load(Ordering::Relaxed)
    }

    /// Number of times that a delivery was put aside because its row cannot be read.
    #[must_use]
    pub fn put_aside(&self) -> u64 {
        self.put_aside.load(Ordering::Relaxed)
    }

    /// Returns when a delivery was last sent.
    #[must_use]
    pub fn last_success_at(&self) -> Option<DateTime<Utc>> {
        instant_of(&self.last_success)
    }

    /// Returns when the loop last read the outbox. An old time means that the loop does not work.
    #[must_use]
    pub fn last_pass_at(&self) -> Option<DateTime<Utc>> {
        instant_of(&self.last_pass)
    }

    /// Number of attempts that did not succeed for this reason.
    #[must_use]
    pub fn failed(&self, reason: Reason) -> u64 {
        self.failed[reason as usize].load(Ordering::Relaxed)
    }

    pub(super) fn count_failed(&self, reason: Reason) {
        self.failed[reason as usize].fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn count(&self, end: End, now: DateTime<Utc>) {
        match end {
            End::Sent => {
                self.sent.fetch_add(1, Ordering::Relaxed);
                self.last_success.store(now.timestamp_micros(), Ordering::Relaxed);
            }
            End::Retried => _ = self.retried.fetch_add(1, Ordering::Relaxed),
            End::Dead => _ = self.dead.fetch_add(1, Ordering::Relaxed),
            End::Unsettled => {}
        }
    }
}

fn instant_of(micros: &AtomicI64) -> Option<DateTime<Utc>> {
    Some(micros.load(Ordering::Relaxed))
        .filter(|micros| *micros != 0)
        .and_then(DateTime::from_timestamp_micros)
}
