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
/// No hint reaches further, as no search does; it also keeps a client's times far from the ends of the calendar.
const FURTHEST_HINT: TimeDelta = TimeDelta::days(50 * 366);
/// Of two hints, the one may be so much longer on its way than the other.
const ON_ITS_WAY: TimeDelta = TimeDelta::seconds(5);

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

/// How long before its due an entry may be sent: clocks differ, but what was sent for the slot before does not count.
#[must_use]
pub fn early(state: &MonitorState) -> TimeDelta {
    state.next_due_at.map_or(TimeDelta::zero(), |due| {
        tolerance(due, state.expectation.schedule.next_after(due)).min(ON_ITS_WAY)
    })
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
///
/// A run that was sent with a countdown counts from when it was sent: the slot that has come since wants its own.
pub(crate) fn credit(state: &mut MonitorState, at: DateTime<Utc>) {
    let at = at - state.expectation.delay();
    let before = state.next_due_at;
    // It was sent after all.
    state.postponed_from = None;
    let owed = due_after_report(&state.expectation.schedule, before, at);
    if owed == before {
        // No slot is satisfied: what is owed stays owed, whatever Beat has said of later ones.
        return;
    }
    // The hint was for a slot that is satisfied now.
    let satisfied = |hint| Some(hint) == before || hint <= at;
    if state.hinted_due_at.is_some_and(satisfied) {
        state.hinted_due_at = None;
    }
    state.next_due_at = state.hinted_due_at.filter(|hint| *hint > at).or(owed);
}

/// The first slot from `now` on, whatever was owed before.
pub(crate) fn expect_anew(state: &mut MonitorState, now: DateTime<Utc>) {
    let hint = state.hinted_due_at.filter(|hint| *hint > now);
    state.postponed_from = None;
    state.next_due_at = hint.or_else(|| state.expectation.schedule.next_after(now));
}

/// The time zone data changed. Computes the due anew where it is no slot any more, and where an unsatisfied slot lies before it now.
/// Returns whether the due moved.
///
/// Never expects a report in the past: a change of the data raises no alarm by itself.
pub(crate) fn on_zone_data_change(state: &mut MonitorState, now: DateTime<Utc>) -> bool {
    let schedule = &state.expectation.schedule;
    let Some(due) = state.next_due_at else {
        return false;
    };
    let is_ours = !schedule.follows_reports()
        && !matches!(schedule, Schedule::Hint(_))
        && state.hinted_due_at != Some(due);
    if !is_ours {
        return false;
    }
    let is_slot = schedule.next_after(due - TimeDelta::nanoseconds(1)) == Some(due);
    let mut next = schedule.next_after(now);
    if let (Some(slot), Some(last)) = (next, state.last_success_at)
        && slot - last <= tolerance(slot, schedule.next_after(slot))
    {
        // A success a moment early has satisfied it.
        next = schedule.next_after(slot);
    }
    let is_first = due <= now || next.is_none_or(|next| next >= due);
    if is_slot && is_first {
        return false;
    }
    state.next_due_at = next;
    next != Some(due)
}

/// The clock was stepped back from `before` to `now`: slots in between come a second time.
///
/// One that comes often is expected again. A single slot in between has had its report, or is yet to come: nobody can tell, and nobody is
/// blamed.
pub(crate) fn expect_again(state: &mut MonitorState, before: DateTime<Utc>, now: DateTime<Utc>) {
    let schedule = &state.expectation.schedule;
    let second = schedule
        .next_after(now)
        .and_then(|slot| schedule.next_after(slot));
    let comes_often = schedule.follows_reports() || second.is_some_and(|second| second <= before);
    if comes_often && state.next_due_at.is_some() {
        expect_anew(state, now);
    }
}

/// Beat says when an entry is next due, or that it never is. Its word wins over our arithmetic, but never excuses a slot that has
/// already come: then it is remembered for when that slot is satisfied.
pub(crate) fn take_hint(state: &mut MonitorState, hint: Option<DateTime<Utc>>, now: DateTime<Utc>) {
    let before = state.next_due_at;
    let was_sent = state.hinted_due_at.is_some_and(|hint| Some(hint) > before);
    take_beyond(state, hint, now, now);
    // An interval counts from when Beat last sent the entry. Where it has not sent it, and puts it off all the same, it was started anew and
    // has forgotten: once, that is a run that comes later.
    if !state.by_beat || !state.expectation.schedule.follows_reports() {
        return;
    }
    let (Some(before), Some(after)) = (before, state.hinted_due_at) else {
        return;
    };
    let wavers = ON_ITS_WAY.min(tolerance(before, state.expectation.schedule.next_after(before)));
    if !was_sent && after > before.max(now) + wavers {
        state.postponed_from = state.postponed_from.or(Some(before));
        state.next_due_at = Some(after);
    }
}

/// The same of a Beat that has just sent the entry: the slot it was sent for has come, even if that is a moment away by our clock.
///
/// Two hints are seldom equally long on their way, and Beat's clock may be fast. Taken for a slot to come, the one that was sent
/// would be excused, and a run that is lost once a month would go unnoticed for another one.
pub(crate) fn take_hint_of_sent(state: &mut MonitorState, hint: Option<DateTime<Utc>>, now: DateTime<Utc>) {
    let early = match (state.next_due_at, &state.expectation.schedule) {
        // Both by Beat's clock: it cannot be off.
        (Some(due), Schedule::Hint(_)) => tolerance(due, hint).min(ON_ITS_WAY),
        (Some(due), _) => tolerance(due, hint),
        (None, _) => TimeDelta::zero(),
    };
    // It was put off by what was said before this was heard: that it was sent. So it is owed.
    if let Some(from) = state.postponed_from.take()
        && from <= now
    {
        state.next_due_at = Some(from);
    }
    take_beyond(state, hint, now, now + early.max(TimeDelta::zero()));
}

/// Takes a hint; slots up to `come_by` have come.
fn take_beyond(
    state: &mut MonitorState,
    hint: Option<DateTime<Utc>>,
    now: DateTime<Utc>,
    come_by: DateTime<Utc>,
) {
    let schedule = &state.expectation.schedule;
    let only_by_hint = matches!(schedule, Schedule::Hint(_));
    // One that is remembered, and later than the due, came when that had been sent.
    let has_come = |due| due <= come_by || state.hinted_due_at.is_some_and(|later| later > due);
    let pending = state.next_due_at.is_some_and(has_come);
    let Some(hint) = hint else {
        state.hinted_due_at = None;
        if !pending {
            state.next_due_at = None;
        }
        return;
    };
    if !(now - OVERDUE_AT_MOST..=now + FURTHEST_HINT).contains(&hint) {
        return;
    }
    let mut hint = slot_meant(schedule, hint);
    if only_by_hint {
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
