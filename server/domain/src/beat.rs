//! Celery Beat as a switch of its own: the SDK says after each tick that it lives.

use chrono::{DateTime, TimeDelta, Utc};

use crate::blind_spell::{BlindSpell, fair_deadline};
use crate::cause::Cause;
use crate::status::Status;
use crate::time::span;
use crate::transition::{Transition, Trigger};

#[cfg(test)]
mod tests;

/// A Beat as the rules see it. Its status is never `paused`.
#[derive(Debug, Clone, PartialEq)]
pub struct BeatState {
    /// new until it was first heard from.
    pub status: Status,
    /// How often it says that it lives.
    pub period_seconds: f64,
    /// Tolerated silence beyond that.
    pub grace_seconds: f64,
    /// When it was last heard from.
    pub last_seen_at: Option<DateTime<Utc>>,
    /// When it is declared down.
    pub deadline_at: Option<DateTime<Utc>>,
}

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

impl BeatState {
    /// The longest silence that is still fine.
    #[must_use]
    pub fn patience(&self) -> TimeDelta {
        span(self.period_seconds) + span(self.grace_seconds)
    }
}

/// Beat said that it lived at `seen_at`, and we heard it at `now`.
///
/// The verdict on its monitors asks for the former, since only what was due by then has been sent; its own deadline counts from the
/// latter, so that a slow network is not taken for a slow Beat.
#[must_use]
pub fn on_alive(state: &mut BeatState, seen_at: DateTime<Utc>, now: DateTime<Utc>) -> Option<Transition> {
    state.last_seen_at = state.last_seen_at.max(Some(seen_at));
    state.deadline_at = Some(now + state.patience());
    if state.status == Status::Up {
        return None;
    }
    let transition = Transition {
        from: state.status,
        to: Status::Up,
        trigger: Trigger::Report,
        at: now,
    };
    state.status = Status::Up;
    Some(transition)
}

/// Judges a Beat whose `check_after` has passed. None: not overdue.
#[must_use]
pub fn on_silence(state: &mut BeatState, now: DateTime<Utc>, spells: &[BlindSpell]) -> Option<Transition> {
    if state.status == Status::Down {
        state.deadline_at = None;
    }
    let patience = state.patience();
    state.deadline_at = state
        .deadline_at
        .map(|deadline| fair_deadline(deadline, deadline - patience, patience, spells));
    state.deadline_at.filter(|deadline| *deadline <= now)?;
    let transition = Transition {
        from: state.status,
        to: Status::Down,
        trigger: Trigger::Trouble(Cause::BeatDown),
        at: now,
    };
    state.status = Status::Down;
    state.deadline_at = None;
    Some(transition)
}
