//! A Celery worker as a [`crate::celery::switch`]: the SDK in the worker's main process sends a snapshot every few
//! seconds.

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

/// Deadbeat gives up a lost worker that does not come back under its name for this long, and its incident ends.
/// Example: a replaced container never comes back.
pub const GIVEN_UP_AFTER: TimeDelta = TimeDelta::hours(1);

/// The phase of its life that a worker reports.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Phase {
    /// It receives messages.
    Running,
    /// It was ordered to stop, and finishes its tasks.
    Stopping,
    /// It has stopped in good order.
    Stopped,
}

/// A worker is a ghost if it makes no progress for this long, although it could.
pub const GHOST_PATIENCE: TimeDelta = TimeDelta::seconds(60);
/// Clock skew of this much opens an incident: tasks with an ETA begin that much too early or too late.
pub const SKEW: TimeDelta = TimeDelta::seconds(10);
/// How long the skew must last, because a single report may be delayed.
pub const SKEW_PATIENCE: TimeDelta = TimeDelta::seconds(20);

/// The facts of a snapshot that show whether a worker works.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct SnapshotFacts {
    /// It is connected to the broker.
    pub connected: bool,
    /// It executes tasks in the main process, one at a time. Its loop does not turn during a task.
    pub is_solo: bool,
    /// Number of tasks that it executes.
    pub active: i64,
    /// Number of tasks that it can execute at once.
    pub processes: i64,
    /// Number of messages that it has received, and whose tasks have not ended.
    pub reserved: i64,
    /// Number of messages that a rate limit holds in it.
    pub limited: i64,
    /// The time since its loop last turned.
    pub loop_lag: TimeDelta,
    /// For how long its counts of begun and ended tasks have not changed, although it had work.
    pub stuck_for: TimeDelta,
    /// It does not reach the broker, but other processes do.
    pub is_cut_off: bool,
    /// Messages have waited in its queues for longer than a moment.
    pub is_waited_for: bool,
    /// Its clock skew.
    pub skew: TimeDelta,
    /// Other processes take the CPUs that it needs. It is slow, but no ghost.
    pub is_starving: bool,
}

/// Returns the fault of a worker that reports, and for how long the fault must last before an incident opens. Progress
/// decides, not the connection alone.
#[must_use]
pub fn trouble(facts: &SnapshotFacts) -> Option<(Cause, TimeDelta)> {
    let has_room = facts.active < facts.processes;
    let is_wedged = facts.loop_lag >= GHOST_PATIENCE && !(facts.is_solo && facts.active > 0);
    let holds_idly = facts.reserved > facts.active;
    let is_stuck = facts.stuck_for >= GHOST_PATIENCE
        && has_room
        && facts.limited == 0
        && (holds_idly || facts.is_waited_for);
    if facts.is_cut_off {
        return Some((Cause::GhostWorker, TimeDelta::zero()));
    }
    // Without a broker, no worker makes progress. Without a CPU, it makes hardly any.
    let could = facts.connected && !facts.is_starving;
    if could && is_stuck {
        return Some((Cause::GhostWorker, TimeDelta::zero()));
    }
    if could && is_wedged {
        // It may be about to reconnect to its broker, which it tries twice a minute.
        return Some((Cause::GhostWorker, GHOST_PATIENCE));
    }
    (facts.skew.abs() >= SKEW).then_some((Cause::ClockSkew, SKEW_PATIENCE))
}

/// Applies a snapshot of a worker, and its fault, if any. A worker that stops is paused, because its reports are no
/// longer expected. So a deployment raises no alert.
#[must_use]
pub fn on_snapshot(
    state: &mut Switch,
    phase: Phase,
    trouble: Option<(Cause, TimeDelta)>,
    now: DateTime<Utc>,
) -> Option<Transition> {
    if phase == Phase::Running {
        return switch::on_heartbeat(state, trouble, now, now);
    }
    state.last_seen_at = Some(now);
    state.deadline_at = None;
    state.trouble = None;
    state.since = None;
    pause(state, Trigger::Leave, now)
}

/// Applies the report that a worker ended by an error. The worker goes down unless it or a successor reports within its
/// patience. A paused worker stays paused.
pub fn on_failed_exit(state: &mut Switch, now: DateTime<Utc>) {
    state.last_seen_at = Some(now);
    if state.status != Status::Paused {
        state.deadline_at = Some(now + state.patience());
    }
}

/// A worker ended by an error while its broker has a fault. A restart may end in the same way until the broker is back,
/// and the broker's incident reports that fault. So the worker is judged again after its patience.
pub fn on_broker_trouble(state: &mut Switch, now: DateTime<Utc>) {
    state.deadline_at = Some(now + state.patience());
}

/// Other workers have taken over the work of a silent worker, so its silence shows no fault. Gives it up without an
/// alert. None: it was already paused.
#[must_use]
pub fn on_succeeded(state: &mut Switch, now: DateTime<Utc>) -> Option<Transition> {
    state.deadline_at = None;
    state.trouble = None;
    state.since = None;
    pause(state, Trigger::GiveUp, now)
}

/// Judges a worker whose `check_after` has passed. None: it is not overdue.
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
