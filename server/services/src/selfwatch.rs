//! Is Deadbeat itself at work? What the loops report of themselves, for readiness and metrics.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};

use chrono::{DateTime, TimeDelta, Utc};
use deadbeat_store::Reader;
use deadbeat_store::stats::Backlog;

/// A last sweep older than this means that the evaluator does not work.
const STALE: TimeDelta = TimeDelta::seconds(10);

/// What the loops report. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Selfwatch {
    inner: Arc<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    /// Microseconds since the epoch; 0: never.
    last_sweep: AtomicI64,
    put_aside: AtomicU64,
}

/// Whether this process can do its work.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Readiness {
    /// The database answers.
    pub database: bool,
    /// The evaluator's last sweep is recent.
    pub evaluator: bool,
    /// When the last sweep ended.
    pub last_sweep_at: Option<DateTime<Utc>>,
}

impl Selfwatch {
    /// A sweep ended.
    pub fn swept(&self, now: DateTime<Utc>) {
        self.inner
            .last_sweep
            .store(now.timestamp_micros(), Ordering::Relaxed);
    }

    /// A row was put aside because it cannot be read.
    pub fn put_aside(&self) {
        self.inner.put_aside.fetch_add(1, Ordering::Relaxed);
    }

    /// Rows put aside since the start.
    #[must_use]
    pub fn rows_put_aside(&self) -> u64 {
        self.inner.put_aside.load(Ordering::Relaxed)
    }

    /// When the last sweep ended.
    #[must_use]
    pub fn last_sweep_at(&self) -> Option<DateTime<Utc>> {
        Some(self.inner.last_sweep.load(Ordering::Relaxed))
            .filter(|micros| *micros != 0)
            .and_then(DateTime::from_timestamp_micros)
    }

    /// Whether this process can do its work.
    pub async fn readiness(&self, reader: &Reader, now: DateTime<Utc>) -> Readiness {
        let last_sweep_at = self.last_sweep_at();
        Readiness {
            database: reader.check().await.is_ok(),
            evaluator: last_sweep_at.is_some_and(|at| now - at < STALE),
            last_sweep_at,
        }
    }

    /// How far behind the loops are; None while the database is away.
    pub async fn backlog(&self, reader: &Reader, now: DateTime<Utc>) -> Option<Backlog> {
        deadbeat_store::stats::backlog(reader, now).await.ok()
    }
}
