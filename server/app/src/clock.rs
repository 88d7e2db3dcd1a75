//! The system clock. Only this module reads it.

use chrono::{DateTime, Utc};
use deadbeat_domain::time::{Clock, to_micros};

/// The machine's clock.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    #[expect(
        clippy::disallowed_methods,
        reason = "only this place may read the system clock"
    )]
    fn now(&self) -> DateTime<Utc> {
        to_micros(Utc::now())
    }
}
