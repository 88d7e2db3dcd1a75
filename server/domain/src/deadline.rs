//! The one computation of due and deadline.
//!
//! * The *due* is the earliest slot that no report has satisfied.
//! * The *deadline* is due + grace; with an open run, the earlier of that and its start + longest run.
//!
//! Without a longest run the grace bounds a run too. Those are Healthchecks' formulas, so a client that comes from there is judged
//! as before.

use chrono::{DateTime, TimeDelta, Utc};

use crate::monitor::MonitorState;
use crate::schedule::Schedule;
use crate::status::Status;

#[cfg(test)]
mod tests;

/// A report this early still counts for the coming slot: a clock one second fast must not raise an alarm.
/// Never more than a tenth of the gap between slots.
const EARLY_TOLERANCE: TimeDelta = TimeDelta::seconds(30);

/// The earliest slot that is left unsatisfied by a report at `at`, when `due` was the earliest before.
///
/// A report satisfies every slot up to its arrival, and the coming one when that is within the early tolerance. A report between
/// slots satisfies none: the next slot still wants its own. An interval counts from the last report.
#[must_use]
pub fn due_after_report(
    schedule: &Schedule,
    due: Option<DateTime<Utc>>,
    at: DateTime<Utc>,
) -> Option<DateTime<Utc>> {
    if let Schedule::Interval(_) = schedule {
        // A late-arriving report of an older run must not pull the expectation back.
        return match (schedule.next_after(at), due) {
            (Some(next), Some(due)) => Some(next.max(due)),
            (next, _) => next,
        };
    }
    match due {
        Some(due) if at < due => {
            let following = schedule.next_after(due);
            if due - at <= tolerance(due, following) {
                following
            } else {
                Some(due)
            }
        }
        _ => schedule.next_after(at),
    }
}

fn tolerance(slot: DateTime<Utc>, following: Option<DateTime<Utc>>) -> TimeDelta {
    following.map_or(EARLY_TOLERANCE, |next| EARLY_TOLERANCE.min((next - slot) / 10))
}

/// The slot that a Beat means by a due of its own: our nearest one when that is within the early tolerance, else what it says.
///
/// Beat's clock and the network shift it a little. Taken as it is, a due one second before our slot would be satisfied by a report
/// that comes before the slot itself, which would then be owed a report of its own.
#[must_use]
pub fn slot_meant(schedule: &Schedule, due: DateTime<Utc>) -> DateTime<Utc> {
    if let Schedule::Interval(_) = schedule {
        return due;
    }
    let mut next = schedule.next_after(due - EARLY_TOLERANCE);
    // Crontabs name no two slots of one minute, so these are few.
    while let Some(slot) = next.filter(|slot| *slot <= due + EARLY_TOLERANCE) {
        let following = schedule.next_after(slot);
        if (slot - due).abs() <= tolerance(slot, following) {
            return slot;
        }
        next = following;
    }
    due
}

/// When a monitor is to be declared down, by its due and its open runs. None: it is not armed.
///
/// A monitor that has not reported is armed only when its Beat says that it will; a started run arms it in any case.
#[must_use]
pub fn deadline(state: &MonitorState) -> Option<DateTime<Utc>> {
    let expects_slot = match state.status {
        Status::Up => true,
        Status::New => state.by_beat,
        Status::Down | Status::Paused => return None,
    };
    let slot = state
        .next_due_at
        .filter(|_| expects_slot)
        .map(|due| due + state.expectation.grace());
    let run = state
        .runs
        .iter()
        .filter(|run| run.is_open())
        .filter_map(|run| run.deadline_at)
        .min();
    [slot, run].into_iter().flatten().min()
}
