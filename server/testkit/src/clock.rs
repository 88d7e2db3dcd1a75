//! A clock that stands still until a test moves it.

use std::sync::{Arc, Mutex, PoisonError};

use chrono::{DateTime, TimeDelta, Utc};
use deadbeat_domain::time::{Clock, to_micros};

/// A clock that stands still. Clones share one time.
#[derive(Debug, Clone)]
pub struct StoppedClock {
    now: Arc<Mutex<DateTime<Utc>>>,
}

impl StoppedClock {
    /// Makes a clock that stands at this instant.
    #[must_use]
    pub fn at(now: DateTime<Utc>) -> Self {
        Self {
            now: Arc::new(Mutex::new(to_micros(now))),
        }
    }

    /// Sets the time, possibly to an earlier one.
    pub fn set(&self, now: DateTime<Utc>) {
        *self.now.lock().unwrap_or_else(PoisonError::into_inner) = to_micros(now);
    }

    /// Advances the time, and returns the new time.
    pub fn advance(&self, by: TimeDelta) -> DateTime<Utc> {
        let mut now = self.now.lock().unwrap_or_else(PoisonError::into_inner);
        *now = to_micros(*now + by);
        *now
    }
}

impl Default for StoppedClock {
    /// A Thursday at noon, far from any change to or from daylight saving time.
    fn default() -> Self {
        Self::at(DateTime::from_timestamp(1_768_478_400, 0).unwrap_or_default())
    }
}

impl Clock for StoppedClock {
    fn now(&self) -> DateTime<Utc> {
        *self.now.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_moves_only_when_moved() {
        let clock = StoppedClock::default();
        let before = clock.now();

        let after = clock.clone().advance(TimeDelta::seconds(5));

        assert_eq!(clock.now(), after);
        assert_eq!(after - before, TimeDelta::seconds(5));
        assert_eq!(before.to_rfc3339(), "2026-01-15T12:00:00+00:00");
    }
}
