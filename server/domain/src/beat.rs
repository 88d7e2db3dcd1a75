//! Celery Beat, a [`crate::switch`] of its own: the SDK says after each tick that it lives.

use chrono::{DateTime, TimeDelta, Utc};

use crate::cause::Cause;
use crate::status::Status;
use crate::switch::Switch;
use crate::time::span;

/// One entry sent this often within [`STORM_WINDOW`], and ten times as often as its schedule has it, is a storm.
pub const STORM_COUNT: u32 = 100;
/// See [`STORM_COUNT`]; a storm is over when none was seen for as long.
pub const STORM_WINDOW: TimeDelta = TimeDelta::seconds(60);

/// What a monitor's verdict needs to know of its Beat.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BeatView {
    /// Its status.
    pub status: Status,
    /// When it was last heard from.
    pub last_seen_at: Option<DateTime<Utc>>,
    /// When it is declared down.
    pub deadline_at: Option<DateTime<Utc>>,
    /// When its process last said that it hangs.
    pub hung_at: Option<DateTime<Utc>>,
    /// When it last sent any entry.
    pub sent_at: Option<DateTime<Utc>>,
    /// When the broker last took none from it.
    pub send_failed_at: Option<DateTime<Utc>>,
}

impl BeatView {
    /// What its silence means.
    #[must_use]
    pub fn cause(&self) -> Cause {
        if self.hung_at > self.last_seen_at {
            Cause::BeatStalled
        } else {
            Cause::BeatDown
        }
    }
}

/// What the silence of a Beat means. A process that hangs says so once a period: its last word must be young to be believed.
#[must_use]
pub fn silence(beat: &Switch, hung_at: Option<DateTime<Utc>>, now: DateTime<Utc>) -> Cause {
    let young = now - span(beat.period_seconds * 2.5) - TimeDelta::seconds(5);
    if hung_at.is_some_and(|hung| hung > young && Some(hung) > beat.last_seen_at) {
        Cause::BeatStalled
    } else {
        Cause::BeatDown
    }
}

/// Whether a Beat floods: an entry was sent `count` times within [`STORM_WINDOW`], and its schedule has `slots` in it.
#[must_use]
pub fn is_storm(count: u32, slots: u32) -> bool {
    count >= STORM_COUNT && count / 10 >= slots.max(1)
}
