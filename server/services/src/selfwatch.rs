//! Is Deadbeat itself at work? What the loops report of themselves, for readiness, metrics and another watcher.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};

use chrono::{DateTime, TimeDelta, Utc};
use deadbeat_store::Reader;
use deadbeat_store::stats::Backlog;

use crate::delivery::DeliveryFigures;

/// A last pass of a loop older than this means that the loop does not work.
const STALE: TimeDelta = TimeDelta::seconds(10);

/// What the loops report. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Selfwatch {
    inner: Arc<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    /// Whether this process runs the evaluator.
    evaluates: bool,
    /// Set when this process runs the delivery loop.
    deliveries: Option<Arc<DeliveryFigures>>,
    /// Microseconds since the epoch; 0: never.
    last_sweep: AtomicI64,
    put_aside: AtomicU64,
    silent: AtomicU64,
}

/// Whether this process can do its work.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Readiness {
    /// The database answers.
    pub database: bool,
    /// The evaluator's last sweep is recent; none: this process does not evaluate.
    pub evaluator: Option<bool>,
    /// The delivery loop's last pass is recent; none: this process does not deliver.
    pub delivery: Option<bool>,
    /// When the last sweep ended.
    pub last_sweep_at: Option<DateTime<Utc>>,
}

impl Readiness {
    /// Everything that this process runs works.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.database && self.evaluator != Some(false) && self.delivery != Some(false)
    }
}

impl Selfwatch {
    /// For a process that runs these loops.
    #[must_use]
    pub fn new(evaluates: bool, deliveries: Option<Arc<DeliveryFigures>>) -> Self {
        let inner = Inner {
            evaluates,
            deliveries,
            ..Inner::default()
        };
        Self {
            inner: Arc::new(inner),
        }
    }

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

    /// A sweep found so many silent.
    pub fn found(&self, silent: usize) {
        self.inner.silent.fetch_add(silent as u64, Ordering::Relaxed);
    }

    /// Monitors and Beats that this process found silent since the start.
    #[must_use]
    pub fn found_silent(&self) -> u64 {
        self.inner.silent.load(Ordering::Relaxed)
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
        let recent = |at: Option<DateTime<Utc>>| at.is_some_and(|at| now - at < STALE);
        let last_sweep_at = self.last_sweep_at();
        let deliveries = self.inner.deliveries.as_ref();
        Readiness {
            database: reader.check().await.is_ok(),
            evaluator: self.inner.evaluates.then(|| recent(last_sweep_at)),
            delivery: deliveries.map(|deliveries| recent(deliveries.last_pass_at())),
            last_sweep_at,
        }
    }

    /// How far behind the loops are; None while the database is away.
    pub async fn backlog(&self, reader: &Reader, now: DateTime<Utc>) -> Option<Backlog> {
        deadbeat_store::stats::backlog(reader, now).await.ok()
    }
}
