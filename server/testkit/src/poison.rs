//! A clock that panics in whoever asks it next: the one way to break a loop from outside, since nothing in Deadbeat panics by itself.

use std::backtrace::Backtrace;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use chrono::{DateTime, Utc};
use deadbeat_domain::time::Clock;

/// Shows the time of another clock, and panics as often as it was told to. Clones share that.
#[derive(Clone)]
pub struct PoisonedClock {
    clock: Arc<dyn Clock>,
    caller: &'static str,
    doses: Arc<AtomicUsize>,
}

impl PoisonedClock {
    /// Panics only in callers that have this in the names of their functions, such as `signal::writer`.
    #[must_use]
    pub fn new(clock: Arc<dyn Clock>, caller: &'static str) -> Self {
        Self {
            clock,
            caller,
            doses: Arc::default(),
        }
    }

    /// Panics when it is asked next, so many times.
    pub fn poison(&self, doses: usize) {
        self.doses.store(doses, Ordering::SeqCst);
    }

    /// How many times it will still panic.
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
