//! The system clock, and the only reader of it.

use chrono::{DateTime, Utc};
use deadbeat_domain::time::{Clock, to_micros};

/// The machine's clock.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    #[expect(clippy::disallowed_methods, reason = "this is the one place that may ask")]
    fn now(&self) -> DateTime<Utc> {
        to_micros(Utc::now())
    }
}
