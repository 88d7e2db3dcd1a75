//! The report of every loop of this process about itself, always in the same form: last success, lag, backlog, failures.
//!
//! A **duty** stands for a loop, or a part of one. The loop records each of its turns there. Metrics and readiness show all duties alike.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use chrono::TimeDelta;

/// The value of a figure that was never recorded.
const NEVER: u64 = u64::MAX;

/// A loop's duty. Clones are cheap.
#[derive(Debug, Clone)]
pub struct Duty {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    name: String,
    /// Ages are measured from here, by the monotonic clock.
    made_at: Instant,
    /// Microseconds since `made_at`, or [`NEVER`].
    last_success: AtomicU64,
    /// Microseconds, or [`NEVER`].
    lag: AtomicU64,
    /// A number of items, or [`NEVER`].
    backlog: AtomicU64,
    failures: AtomicU64,
    is_broken: AtomicBool,
}

/// The state of a duty.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// The duty's name, for operators: `evaluator`, `writer 1`.
    pub name: String,
    /// True if the loop works. False: the whole loop failed, and has not yet run for two seconds since then.
    pub works: bool,
    /// The time since a turn last succeeded, or `None` if none has.
    pub last_success_age: Option<Duration>,
    /// How late the last turn was: for how long its oldest work had been due. `None`: the loop has no due times, or had no turn yet.
    pub lag: Option<Duration>,
    /// The number of items left after the last turn. `None`: the loop does not count them, or had no turn yet.
    pub backlog: Option<u64>,
    /// The number of failed turns, including panics of the loop.
    pub failures: u64,
}

fn micros(span: Duration) -> u64 {
    u64::try_from(span.as_micros()).unwrap_or(NEVER - 1)
}

impl Duty {
    /// Makes a duty with this name and without turns.
    #[must_use]
    pub fn new(name: impl Into<String>) -> Self {
        let inner = Inner {
            name: name.into(),
            made_at: Instant::now(),
            last_success: AtomicU64::new(NEVER),
            lag: AtomicU64::new(NEVER),
            backlog: AtomicU64::new(NEVER),
            failures: AtomicU64::new(0),
            is_broken: AtomicBool::new(false),
        };
        Self {
            inner: Arc::new(inner),
        }
    }

    /// Returns the duty's name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.inner.name
    }

    /// Records a successful turn.
    pub fn succeeded(&self) {
        let at = micros(self.inner.made_at.elapsed());
        self.inner.last_success.store(at, Ordering::Relaxed);
    }

    /// Records a failed turn or a panic of the loop.
    pub fn failed(&self) {
        self.inner.failures.fetch_add(1, Ordering::Relaxed);
    }

    /// Records the result of a turn.
    pub fn ended<T, E>(&self, turn: &Result<T, E>) {
        match turn {
            Ok(_) => self.succeeded(),
            Err(_) => self.failed(),
        }
    }

    /// Records for how long the oldest work of a turn had been due. Work that is not due yet (a negative span) counts as 0.
    pub fn was_late(&self, lag: TimeDelta) {
        let lag = micros(lag.to_std().unwrap_or_default());
        self.inner.lag.store(lag, Ordering::Relaxed);
    }

    /// Records the number of items left after a turn.
    pub fn left(&self, backlog: usize) {
        self.inner.backlog.store(backlog as u64, Ordering::Relaxed);
    }

    /// Records whether the loop as a whole works.
    pub(crate) fn set_works(&self, works: bool) {
        self.inner.is_broken.store(!works, Ordering::Relaxed);
    }

    /// Returns the state of the duty.
    #[must_use]
    pub fn report(&self) -> Report {
        let noted = |figure: &AtomicU64| Some(figure.load(Ordering::Relaxed)).filter(|value| *value != NEVER);
        let inner = &*self.inner;
        let succeeded_at = noted(&inner.last_success).map(Duration::from_micros);
        Report {
            name: inner.name.clone(),
            works: !inner.is_broken.load(Ordering::Relaxed),
            last_success_age: succeeded_at.map(|at| inner.made_at.elapsed().saturating_sub(at)),
            lag: noted(&inner.lag).map(Duration::from_micros),
            backlog: noted(&inner.backlog),
            failures: inner.failures.load(Ordering::Relaxed),
        }
    }
}

impl From<&str> for Duty {
    fn from(name: &str) -> Self {
        Self::new(name)
    }
}

/// The duties of a process. Clones are cheap.
#[derive(Debug, Clone, Default)]
pub struct Duties {
    duties: Arc<Mutex<BTreeMap<String, Duty>>>,
}

impl Duties {
    /// Adds duties.
    pub fn add(&self, duties: impl IntoIterator<Item = Duty>) {
        let mut known = self.duties.lock().unwrap_or_else(PoisonError::into_inner);
        known.extend(duties.into_iter().map(|duty| (duty.name().to_owned(), duty)));
    }

    /// Returns the states of all duties, in the order of their names.
    #[must_use]
    pub fn reports(&self) -> Vec<Report> {
        let known = self.duties.lock().unwrap_or_else(PoisonError::into_inner);
        known.values().map(Duty::report).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_duty_shows_its_last_turn_and_counts_its_failures() {
        let duties = Duties::default();
        let (one, other) = (Duty::new("one"), Duty::new("another"));
        duties.add([one.clone(), other]);
        let never = Report {
            name: "another".to_owned(),
            works: true,
            last_success_age: None,
            lag: None,
            backlog: None,
            failures: 0,
        };
        assert_eq!(duties.reports()[0], never);

        one.ended(&Err::<(), ()>(()));
        assert_eq!(one.report().last_success_age, None);
        one.ended(&Ok::<(), ()>(()));
        one.was_late(TimeDelta::milliseconds(1_500));
        one.left(7);
        one.set_works(false);

        let report = duties.reports()[1].clone();
        assert!(report.last_success_age.is_some() && !report.works);
        assert_eq!(
            (report.lag, report.backlog, report.failures),
            (Some(Duration::from_millis(1_500)), Some(7), 1)
        );
        one.was_late(TimeDelta::seconds(-3));
        assert_eq!(one.report().lag, Some(Duration::ZERO));
    }
}
