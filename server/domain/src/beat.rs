//! Celery Beat, a [`crate::switch`] of its own: the SDK says after each tick that it lives.

use chrono::{DateTime, Utc};

use crate::status::Status;

/// What a monitor's verdict needs to know of its Beat.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BeatView {
    /// Its status.
    pub status: Status,
    /// When it was last heard from.
    pub last_seen_at: Option<DateTime<Utc>>,
    /// When it is declared down.
    pub deadline_at: Option<DateTime<Utc>>,
}
