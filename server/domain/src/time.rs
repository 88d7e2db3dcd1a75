//! The clock as a value, so that tests can stop it.

use chrono::{DateTime, SubsecRound, TimeDelta, Utc};

/// Tells the time. The system's is in `app/src/clock.rs`; tests stop theirs.
pub trait Clock: Send + Sync + 'static {
    /// Now, in whole microseconds: what PostgreSQL keeps, so that what is written compares equal to what is read back.
    fn now(&self) -> DateTime<Utc>;
}

/// Cuts an instant to the microseconds that PostgreSQL keeps.
#[must_use]
pub fn to_micros(at: DateTime<Utc>) -> DateTime<Utc> {
    at.trunc_subsecs(6)
}

/// A duration in seconds, as the API writes it, as a span of time.
///
/// Values beyond ±10,000 years, and those that are not numbers, are cut to that bound: settings are checked long before.
#[must_use]
pub fn span(seconds: f64) -> TimeDelta {
    const BOUND: f64 = 3.2e11;
    let seconds = if seconds.is_nan() {
        0.0
    } else {
        seconds.clamp(-BOUND, BOUND)
    };
    TimeDelta::microseconds((seconds * 1e6) as i64)
}
