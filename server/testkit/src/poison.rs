//! A clock that panics in its next reader. Nothing in Deadbeat panics by itself, so only this can break a loop from outside.

use std::backtrace::Backtrace;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use chrono::{DateTime, Utc};
use deadbeat_domain::time::Clock;

/// Shows the time of another clock, and panics a given number of times. Clones share that number.
#[derive(Clone)]
pub struct PoisonedClock {
    clock: Arc<dyn Clock>,
    caller: &'static str,
    doses: Arc<AtomicUsize>,
}

impl PoisonedClock {
    /// Panics only in callers whose function names contain this text, such as `signal::writer`.
    #[must_use]
    pub fn new(clock: Arc<dyn Clock>, caller: &'static str) -> Self {
        Self {
            clock,
            caller,
            doses: Arc::default(),
        }
    }

    /// Makes the next readings panic, this many times.
    pub fn poison(&self, doses: usize) {
        self.doses.store(doses, Ordering::SeqCst);
    }

    /// Returns how many more times the clock will panic.
    #[must_use]
    pub fn doses(&self) -> usize {
        self.doses.load(Ordering::SeqCst)
    }
}

impl Clock for PoisonedClock {
    fn now(&self) -> DateTime<Utc> {
        let is_armed = self.doses() > 0;
        if is_armed && Backtrace::force_capture().to_string().contains(self.caller) {
            let left = self
                .doses
                .fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1));
            assert!(left.is_err(), "poisoned");
        }
        self.clock.now()
    }
}
