//! Whether Deadbeat itself works: the state of its loops, for readiness, metrics and another monitoring service.

use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use deadbeat_domain::judge::reception::Hold;
use deadbeat_store::Reader;
use deadbeat_store::connection::asker::for_all;
use deadbeat_store::operation::stats::{Backlog, Pulse};
use tokio::sync::Mutex;
use tokio::time::Instant;

use crate::alert::delivery::DeliveryFigures;
use crate::operation::duty::Duties;
use crate::operation::retention;
use crate::operation::supervisor::Health;

/// A loop whose last pass is older than this does not work.
const STALE: TimeDelta = TimeDelta::seconds(10);

/// The state of the loops. Clones are cheap.
#[derive(Debug, Clone, Default)]
pub struct Selfwatch {
    inner: Arc<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    /// True if this process runs the evaluator.
    evaluates: bool,
    /// The counters of the delivery loop, if this process runs it.
    deliveries: Option<Arc<DeliveryFigures>>,
    /// The duties of all loops.
    duties: Duties,
    /// The health of the loops that signals depend on.
    health: OnceLock<Health>,
    /// In microseconds since the epoch. 0: never.
    last_turn: AtomicI64,
    /// The same, for the last turn that judged.
    last_sweep: AtomicI64,
    sweeps: AtomicU64,
    sweep_micros: AtomicU64,
    rows_swept: AtomicU64,
    put_aside: AtomicU64,
    silent: AtomicU64,
    retention: Arc<retention::RemovalCounters>,
    /// When the last check of the database began, and its result if the database answered.
    polled: Mutex<Option<(Instant, Option<Pulse>)>>,
}

/// The sweeps of this process since its start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct SweepFigures {
    /// The number of completed sweeps.
    pub count: u64,
    /// The time spent in sweeps.
    pub spent: Duration,
    /// The number of rows that sweeps read.
    pub rows: u64,
}

/// Whether this process can do its work, and the state of the whole deployment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Readiness {
    /// True if the database answers.
    pub database: bool,
    /// Why this process cannot use its database yet, or `None` if it can.
    pub preparing: Option<&'static str>,
    /// True if the evaluator's last sweep is recent. `None`: this process does not evaluate.
    pub evaluator: Option<bool>,
    /// True if the delivery loop's last pass is recent. `None`: this process does not deliver.
    pub delivery: Option<bool>,
    /// Broken loops that signals depend on.
    pub failed_loops: Vec<String>,
    /// When this process last swept.
    pub last_sweep_at: Option<DateTime<Utc>>,
    /// When this process last sent a delivery.
    pub last_delivery_at: Option<DateTime<Utc>>,
    /// The state of all processes together, or `None` if the database cannot be reached. For information only: the failure of other processes is no
    /// reason to take this one out of rotation.
    pub pulse: Option<Pulse>,
}

fn instant(micros: &AtomicI64) -> Option<DateTime<Utc>> {
    Some(micros.load(Ordering::Relaxed))
        .filter(|micros| *micros != 0)
        .and_then(DateTime::from_timestamp_micros)
}

fn is_recent(at: Option<DateTime<Utc>>, now: DateTime<Utc>) -> bool {
    at.is_some_and(|at| now - at < STALE)
}

impl Readiness {
    /// Returns true if all parts that this process runs work.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        let loops_work =
            self.evaluator != Some(false) && self.delivery != Some(false) && self.failed_loops.is_empty();
        self.database && loops_work
    }

    /// Returns why the process is not ready, in words that anybody may read.
    #[must_use]
    pub fn reason(&self) -> Option<&'static str> {
        let passed = |ok: bool, reason: &'static str| (!ok).then_some(reason);
        self.preparing
            .or(passed(self.database, "the database cannot be reached"))
            .or(passed(
                self.failed_loops.is_empty(),
                "a loop that signals depend on does not work",
            ))
            .or(passed(
                self.evaluator != Some(false),
                "the evaluator has not swept for ten seconds",
            ))
            .or(passed(
                self.delivery != Some(false),
                "the delivery loop has not completed a pass for ten seconds",
            ))
    }

    /// Returns when any process last swept, as far as this process knows.
    #[must_use]
    pub fn any_sweep_at(&self) -> Option<DateTime<Utc>> {
        self.last_sweep_at
            .max(self.pulse.and_then(|pulse| pulse.last_sweep_at))
    }

    /// Returns true if some process has judged recently.
    #[must_use]
    pub fn has_judged(&self, now: DateTime<Utc>) -> bool {
        is_recent(self.any_sweep_at(), now)
    }

    /// Returns why silence is not judged at the moment although evaluators run, as far as this process knows.
    #[must_use]
    pub fn hold(&self, now: DateTime<Utc>) -> Option<Hold> {
        self.pulse.and_then(|pulse| pulse.reception.hold(now))
    }

    /// Returns true if some process judges silence.
    #[must_use]
    pub fn is_judging(&self, now: DateTime<Utc>) -> bool {
        self.has_judged(now) && self.hold(now).is_none()
    }
}

impl Selfwatch {
    /// Makes the state for a process that runs these loops.
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

    /// Returns the duties of this process's loops.
    #[must_use]
    pub fn duties(&self) -> &Duties {
        &self.inner.duties
    }

    /// Adds the health of the loops that signals depend on.
    pub fn attend(&self, health: Health) {
        // A second call would mean a second `Ingest` in one process, which does not happen.
        let _ = self.inner.health.set(health);
    }

    /// Records a turn of the evaluator's loop, even if the turn may not judge.
    pub fn turned(&self, now: DateTime<Utc>) {
        self.inner
            .last_turn
            .store(now.timestamp_micros(), Ordering::Relaxed);
    }

    /// Records that a sweep continues or has ended.
    pub fn swept(&self, now: DateTime<Utc>) {
        self.turned(now);
        self.inner
            .last_sweep
            .store(now.timestamp_micros(), Ordering::Relaxed);
    }

    /// Records the duration and the rows of an ended sweep.
    pub fn sweep_took(&self, spent: Duration, rows: usize) {
        let micros = u64::try_from(spent.as_micros()).unwrap_or(u64::MAX);
        self.inner.sweeps.fetch_add(1, Ordering::Relaxed);
        self.inner.sweep_micros.fetch_add(micros, Ordering::Relaxed);
        self.inner.rows_swept.fetch_add(rows as u64, Ordering::Relaxed);
    }

    /// Returns the figures of the sweeps since the start.
    #[must_use]
    pub fn sweeps(&self) -> SweepFigures {
        SweepFigures {
            count: self.inner.sweeps.load(Ordering::Relaxed),
            spent: Duration::from_micros(self.inner.sweep_micros.load(Ordering::Relaxed)),
            rows: self.inner.rows_swept.load(Ordering::Relaxed),
        }
    }

    /// Counts a row that was put aside because it cannot be read.
    pub fn put_aside(&self) {
        self.inner.put_aside.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts subjects that a sweep found silent.
    pub fn found(&self, silent: usize) {
        self.inner.silent.fetch_add(silent as u64, Ordering::Relaxed);
    }

    /// Returns the number of monitors and Beats that this process has found silent since its start.
    #[must_use]
    pub fn found_silent(&self) -> u64 {
        self.inner.silent.load(Ordering::Relaxed)
    }

    /// Returns the number of rows put aside since the start.
    #[must_use]
    pub fn rows_put_aside(&self) -> u64 {
        self.inner.put_aside.load(Ordering::Relaxed)
    }

    /// Returns the counters of this process's retention.
    #[must_use]
    pub fn retention(&self) -> &Arc<retention::RemovalCounters> {
        &self.inner.retention
    }

    /// Returns when this process last swept.
    #[must_use]
    pub fn last_sweep_at(&self) -> Option<DateTime<Utc>> {
        instant(&self.inner.last_sweep)
    }

    /// Checks whether this process can do its work.
    pub async fn readiness(&self, reader: &Reader, now: DateTime<Utc>) -> Readiness {
        let last_sweep_at = self.last_sweep_at();
        let deliveries = self.inner.deliveries.as_ref();
        let pulse = self.pulse(reader, now).await;
        Readiness {
            database: pulse.is_some(),
            preparing: reader.stage().reason(),
            evaluator: self
                .inner
                .evaluates
                .then(|| is_recent(instant(&self.inner.last_turn), now)),
            delivery: deliveries.map(|deliveries| is_recent(deliveries.last_pass_at(), now)),
            failed_loops: self.inner.health.get().map(Health::failed).unwrap_or_default(),
            last_sweep_at,
            last_delivery_at: deliveries.and_then(|deliveries| deliveries.last_success_at()),
            pulse,
        }
    }

    /// Checks the database. Callers that arrive during a check share the next one, so that all of them use one connection.
    async fn pulse(&self, reader: &Reader, now: DateTime<Utc>) -> Option<Pulse> {
        let asked_at = Instant::now();
        let mut polled = self.inner.polled.lock().await;
        let began_at = Instant::now();
        match *polled {
            Some((at, pulse)) if at >= asked_at => pulse,
            _ => {
                let pulse = for_all(deadbeat_store::operation::stats::pulse(reader, now))
                    .await
                    .ok();
                *polled = Some((began_at, pulse));
                pulse
            }
        }
    }

    /// Returns the backlog of the loops, or `None` if the database cannot be reached.
    pub async fn backlog(&self, reader: &Reader, now: DateTime<Utc>) -> Option<Backlog> {
        deadbeat_store::operation::stats::backlog(reader, now).await.ok()
    }
}
