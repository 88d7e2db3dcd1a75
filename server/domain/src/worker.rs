//! A Celery worker, a [`crate::switch`] of its own: the SDK in its main process says every few seconds how it is.

use chrono::{DateTime, TimeDelta, Utc};

use crate::blind_spell::BlindSpell;
use crate::cause::Cause;
use crate::status::Status;
use crate::switch::{self, Switch};
use crate::transition::{Transition, Trigger};

#[cfg(test)]
mod tests;

/// A worker that was lost and does not come back under its name is given up after this, and its incident ends: a container that was
/// replaced never returns.
pub const GIVEN_UP_AFTER: TimeDelta = TimeDelta::hours(1);

/// What a worker says of itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Phase {
    /// It takes messages in.
    Running,
    /// It was told to stop, and ends what it has.
    Stopping,
    /// It has ended in an orderly way.
    Stopped,
}

/// A worker said how it is. One that leaves is paused: nobody waits for it, and a deployment pages nobody.
#[must_use]
pub fn on_snapshot(state: &mut Switch, phase: Phase, now: DateTime<Utc>) -> Option<Transition> {
    if phase == Phase::Running {
        return switch::on_alive(state, now, now);
    }
    state.last_seen_at = state.last_seen_at.max(Some(now));
    state.deadline_at = None;
    pause(state, Trigger::Leave, now)
}

/// Judges a worker whose `check_after` has passed. None: not overdue.
#[must_use]
pub fn on_silence(state: &mut Switch, now: DateTime<Utc>, spells: &[BlindSpell]) -> Option<Transition> {
    if state.status == Status::Down {
        state.deadline_at.filter(|deadline| *deadline <= now)?;
        state.deadline_at = None;
        return pause(state, Trigger::GiveUp, now);
    }
    let lost = switch::on_silence(state, Cause::WorkerLost, now, spells);
    if lost.is_some() {
        state.deadline_at = Some(now + GIVEN_UP_AFTER);
    }
    lost
}

fn pause(state: &mut Switch, trigger: Trigger, now: DateTime<Utc>) -> Option<Transition> {
    if state.status == Status::Paused {
        return None;
    }
    let transition = Transition {
        from: state.status,
        to: Status::Paused,
        trigger,
        at: now,
    };
    state.status = Status::Paused;
    Some(transition)
}
