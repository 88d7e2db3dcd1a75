//! Which slot a report satisfies, and which one is owed next: the *due*.
//!
//! The truth table is in `docs/schedules.md`, and a test runs every row of it. Slots come from two sources: our own arithmetic
//! ([`Schedule::next_after`]) and the word of the Beat that sends the task, its *hint*, which wins.

use chrono::{DateTime, TimeDelta, Utc};

use crate::monitor::MonitorState;
use crate::schedule::Schedule;

#[cfg(test)]
mod tests;

/// A report this early still counts for the coming slot: a clock one second fast must not raise an alarm.
/// Never more than a tenth of the gap between slots.
pub(crate) const EARLY_TOLERANCE: TimeDelta = TimeDelta::seconds(30);

/// How old the due of an entry that only Beat can compute may be, and still mean "now".
const OVERDUE_AT_MOST: TimeDelta = TimeDelta::minutes(5);

/// The earliest slot that is left unsatisfied by a report at `at`, when `due` was the earliest before.
///
/// A report satisfies every slot up to its arrival, and the coming one when that is within the early tolerance. A report between
/// slots satisfies none: the next slot still wants its own. An interval counts from the last report.
#[must_use]
pub(crate) fn due_after_report(
    schedule: &Schedule,
    due: Option<DateTime<Utc>>,
    at: DateTime<Utc>,
) -> Option<DateTime<Utc>> {
    if schedule.follows_reports() {
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
fn slot_meant(schedule: &Schedule, due: DateTime<Utc>) -> DateTime<Utc> {
    if schedule.follows_reports() {
        return due;
    }
    let mut next = schedule.next_after(due - EARLY_TOLERANCE);
    // A minute has sixty slots at most.
    while let Some(slot) = next.filter(|slot| *slot <= due + EARLY_TOLERANCE) {
        let following = schedule.next_after(slot);
        if (slot - due).abs() <= tolerance(slot, following) {
            return slot;
        }
        next = following;
    }
    due
}

/// A report is credited: its slots are satisfied, and the due moves on.
pub(crate) fn credit(state: &mut MonitorState, at: DateTime<Utc>) {
    let before = state.next_due_at;
    let owed = due_after_report(&state.expectation.schedule, before, at);
    // The hint was for the slot that is satisfied now.
    if owed != before && state.hinted_due_at == before {
        state.hinted_due_at = None;
    }
    state.next_due_at = state.hinted_due_at.filter(|hint| *hint > at).or(owed);
}

/// The first slot from `now` on, whatever was owed before.
pub(crate) fn expect_anew(state: &mut MonitorState, now: DateTime<Utc>) {
    let hint = state.hinted_due_at.filter(|hint| *hint > now);
    state.next_due_at = hint.or_else(|| state.expectation.schedule.next_after(now));
}

/// Beat says when an entry is next due, or that it never is. Its word wins over our arithmetic, but never excuses a slot that has
/// already come: then it is remembered for when that slot is satisfied.
pub(crate) fn take_hint(state: &mut MonitorState, hint: Option<DateTime<Utc>>, now: DateTime<Utc>) {
    let schedule = &state.expectation.schedule;
    let only_by_hint = matches!(schedule, Schedule::Hint(_));
    let pending = state.next_due_at.is_some_and(|due| due <= now);
    let Some(hint) = hint else {
        state.hinted_due_at = None;
        if !pending {
            state.next_due_at = None;
        }
        return;
    };
    let mut hint = slot_meant(schedule, hint);
    if only_by_hint && now - hint < OVERDUE_AT_MOST {
        // An overdue entry is due now, says Beat, and sends it on its next tick; its word was on its way meanwhile.
        hint = hint.max(now);
    }
    if hint < now {
        return;
    }
    if !only_by_hint {
        // Further than the slot after next is no plausible hint: the clock of Beat's host is off.
        let following = schedule.next_after(now);
        let horizon = following.and_then(|next| schedule.next_after(next));
        if horizon.is_none_or(|horizon| hint > horizon) {
            return;
        }
        // A hint that was overtaken by the report of its own slot, which came a moment early.
        let early = tolerance(hint, schedule.next_after(hint));
        let satisfied = state.last_ping_at.is_some_and(|last| hint - last <= early);
        if satisfied && state.next_due_at.is_some_and(|due| hint < due) {
            return;
        }
    }
    state.hinted_due_at = Some(hint);
    if !pending {
        state.next_due_at = Some(hint);
    }
}
