//! A Celery worker, a [`crate::celery::switch`] of its own: the SDK in its main process says every few seconds how it is.

pub mod expiry;
pub mod incarnation;
pub mod orphan;
pub mod stranger;
pub mod succession;

use chrono::{DateTime, TimeDelta, Utc};

use crate::celery::switch::{self, Switch};
use crate::change::{Transition, Trigger};
use crate::incident::cause::Cause;
use crate::judge::blind_spell::BlindSpell;
use crate::monitor::status::Status;

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

/// A worker that gets nothing done for this long, although it could, is a ghost.
pub const GHOST_PATIENCE: TimeDelta = TimeDelta::seconds(60);
/// A clock that is off by this much is told: tasks with an ETA are as late or as early.
pub const SKEW: TimeDelta = TimeDelta::seconds(10);
/// How long a clock must have been off: a report may be held up once.
pub const SKEW_PATIENCE: TimeDelta = TimeDelta::seconds(20);

/// What shows whether a worker works.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Look {
    /// Its connection to the broker stands.
    pub connected: bool,
    /// Its tasks run in the main process, one at a time: its loop stands still meanwhile.
    pub is_solo: bool,
    /// Tasks that run.
    pub active: i64,
    /// Tasks that can run at once.
    pub processes: i64,
    /// Messages taken in and not ended.
    pub reserved: i64,
    /// Messages held back by a rate limit.
    pub limited: i64,
    /// For how long its loop has not turned.
    pub loop_lag: TimeDelta,
    /// For how long its counts of tasks begun and ended have not moved, while there was something to do.
    pub stuck_for: TimeDelta,
    /// It does not reach the broker, and others do.
    pub is_cut_off: bool,
    /// Messages wait in queues that it consumes, for longer than a moment.
    pub is_waited_for: bool,
    /// By how much its clock is off.
    pub skew: TimeDelta,
    /// Others take the CPUs that it needs: it is slow, and no ghost.
    pub is_starving: bool,
}

/// What is wrong with a worker that is heard from, and for how long that must last to be told. By what it gets done, not by whether it
/// is connected.
#[must_use]
pub fn trouble(look: &Look) -> Option<(Cause, TimeDelta)> {
    let has_room = look.active < look.processes;
    let is_wedged = look.loop_lag >= GHOST_PATIENCE && !(look.is_solo && look.active > 0);
    let holds_idly = look.reserved > look.active;
    let is_stuck = look.stuck_for >= GHOST_PATIENCE
        && has_room
        && look.limited == 0
        && (holds_idly || look.is_waited_for);
    if look.is_cut_off {
        return Some((Cause::GhostWorker, TimeDelta::zero()));
    }
    // While there is no broker nobody gets anything done, and without a CPU hardly anything.
    let could = look.connected && !look.is_starving;
    if could && is_stuck {
        return Some((Cause::GhostWorker, TimeDelta::zero()));
    }
    if could && is_wedged {
        // It may be about to find its broker again, which it tries twice a minute.
        return Some((Cause::GhostWorker, GHOST_PATIENCE));
    }
    (look.skew.abs() >= SKEW).then_some((Cause::ClockSkew, SKEW_PATIENCE))
}

/// A worker said how it is, and what is wrong with it all the same. One that leaves is paused: nobody waits for it, and a deployment pages
/// nobody.
#[must_use]
pub fn on_snapshot(
    state: &mut Switch,
    phase: Phase,
    trouble: Option<(Cause, TimeDelta)>,
    now: DateTime<Utc>,
) -> Option<Transition> {
    if phase == Phase::Running {
        return switch::on_alive(state, trouble, now, now);
    }
    state.last_seen_at = Some(now);
    state.deadline_at = None;
    state.trouble = None;
    state.since = None;
    pause(state, Trigger::Leave, now)
}

/// A worker ended by an error: it is missed, unless it or a successor comes within its patience. One that nobody waits for stays as it is.
pub fn on_failed_exit(state: &mut Switch, now: DateTime<Utc>) {
    state.last_seen_at = Some(now);
    if state.status != Status::Paused {
        state.deadline_at = Some(now + state.patience());
    }
}

/// A worker ended by an error while its broker is in trouble. Started again, it may end again until that is over, which is told of the
/// broker; it is looked at again after its patience.
pub fn on_broker_trouble(state: &mut Switch, now: DateTime<Utc>) {
    state.deadline_at = Some(now + state.patience());
}

/// A silent worker is succeeded by others, and its silence is no sign of a fault: it is given up, and nobody is told. None: nobody waits
/// for it.
#[must_use]
pub fn on_succeeded(state: &mut Switch, now: DateTime<Utc>) -> Option<Transition> {
    state.deadline_at = None;
    state.trouble = None;
    state.since = None;
    pause(state, Trigger::GiveUp, now)
}

/// Judges a worker whose `check_after` has passed. None: not overdue.
#[must_use]
pub fn on_silence(state: &mut Switch, now: DateTime<Utc>, spells: &[BlindSpell]) -> Option<Transition> {
    if state.status == Status::Down && state.trouble.is_none() {
        state.deadline_at.filter(|deadline| *deadline <= now)?;
        state.deadline_at = None;
        return pause(state, Trigger::GiveUp, now);
    }
    let lost = switch::on_silence(state, Cause::WorkerLost, now, spells);
    if lost.is_some_and(|transition| transition.to == Status::Down) {
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
