//! Decides which slot a report satisfies, and which slot is the earliest unsatisfied one: the *due*.
//!
//! The truth table is in `docs/schedules.md`, and a test runs every row of it. Slots come from two sources: the
//! server's arithmetic ([`Schedule::next_after`]), and the *hint* of the Beat that sends the task. The hint wins.

use chrono::{DateTime, TimeDelta, Utc};

use crate::monitor::MonitorState;
use crate::schedule::Schedule;

#[cfg(test)]
mod tests;

/// A report this early still counts for the coming slot, so that a clock that is one second fast raises no alert. The
/// tolerance is at most a tenth of the gap between slots.
pub(crate) const EARLY_TOLERANCE: TimeDelta = TimeDelta::seconds(30);

/// For an entry that only Beat can compute: a hint in the past, by this much at most, still means "due now".
const OVERDUE_AT_MOST: TimeDelta = TimeDelta::minutes(5);
/// The furthest hint that is accepted; no search for slots goes further either. So no client can send a time near the
/// end of the calendar.
const FURTHEST_HINT: TimeDelta = TimeDelta::days(50 * 366);
/// Network delay may differ by this much between two hints.
const ON_ITS_WAY: TimeDelta = TimeDelta::seconds(5);

/// Returns the earliest unsatisfied slot after a report at `at`, if `due` was the earliest one before it.
///
/// A report satisfies every slot up to its arrival. It also satisfies the coming slot if that is within the early
/// tolerance. A report between slots satisfies none, because the next slot needs its own report. An interval counts
/// from the last report.
#[must_use]
pub(crate) fn due_after_report(
    schedule: &Schedule,
    due: Option<DateTime<Utc>>,
    at: DateTime<Utc>,
) -> Option<DateTime<Utc>> {
    if schedule.follows_reports() {
        // A late report of an older run must not move the due to an earlier time.
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

/// How long before its due an entry may be sent. Clocks differ, but a sending for the previous slot must not count.
#[must_use]
pub fn early(state: &MonitorState) -> TimeDelta {
    state.next_due_at.map_or(TimeDelta::zero(), |due| {
        tolerance(due, state.expectation.schedule.next_after(due)).min(ON_ITS_WAY)
    })
}

/// Returns the slot that Beat's hint means: the server's nearest slot within the early tolerance, else the hint itself.
///
/// Clock skew and network delay shift a hint a little. Example: the slot is 12:00:00 and the hint says 11:59:59. If the
/// server took the hint as the slot, a report at 11:59:59 would satisfy it, and the server would expect another report
/// for 12:00:00.
fn slot_meant(schedule: &Schedule, due: DateTime<Utc>) -> DateTime<Utc> {
    if schedule.follows_reports() {
        return due;
    }
    let mut next = schedule.next_after(due - EARLY_TOLERANCE);
    // At most sixty slots lie within the tolerance, because slots are a second apart at least.
    while let Some(slot) = next.filter(|slot| *slot <= due + EARLY_TOLERANCE) {
        let following = schedule.next_after(slot);
        if (slot - due).abs() <= tolerance(slot, following) {
            return slot;
        }
        next = following;
    }
    due
}

/// Credits a report: marks its slots as satisfied, and moves the due on.
///
/// The report of a run that was sent with a countdown counts from the sending. A slot that has come since then needs
/// its own report.
pub(crate) fn credit(state: &mut MonitorState, at: DateTime<Utc>) {
    let at = at - state.expectation.delay();
    let before = state.next_due_at;
    // The report shows that Beat did not put the entry off.
    state.postponed_from = None;
    let owed = due_after_report(&state.expectation.schedule, before, at);
    if owed == before {
        // The report satisfies no slot. The due stays, whatever Beat's hints say about later slots.
        return;
    }
    // Drop a hint for a slot that is satisfied now.
    let satisfied = |hint| Some(hint) == before || hint <= at;
    if state.hinted_due_at.is_some_and(satisfied) {
        state.hinted_due_at = None;
    }
    state.next_due_at = state.hinted_due_at.filter(|hint| *hint > at).or(owed);
}

/// Expects the first slot after `now`, whichever slots were unsatisfied before.
pub(crate) fn expect_anew(state: &mut MonitorState, now: DateTime<Utc>) {
    let hint = state.hinted_due_at.filter(|hint| *hint > now);
    state.postponed_from = None;
    state.next_due_at = hint.or_else(|| state.expectation.schedule.next_after(now));
}

/// Gives up the earliest unsatisfied slot: it was missed, and its incident waits for more bad runs. Expects the next
/// slot, which may have passed as well.
pub(crate) fn pass_missed(state: &mut MonitorState) {
    state.postponed_from = None;
    let Some(missed) = state.next_due_at else { return };
    let hint = state.hinted_due_at.filter(|hint| *hint > missed);
    state.next_due_at = hint.or_else(|| state.expectation.schedule.next_after(missed));
}

/// Adapts the due to new time zone data. Computes it again if it is no longer a slot, or if an unsatisfied slot now
/// lies before it. Returns true if the due moved.
///
/// Never expects a report in the past, so that new data alone raise no alert.
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
        // A success shortly before the slot has satisfied it.
        next = schedule.next_after(slot);
    }
    let is_first = due <= now || next.is_none_or(|next| next >= due);
    if is_slot && is_first {
        return false;
    }
    state.next_due_at = next;
    next != Some(due)
}

/// Adapts the due after the clock stepped back from `before` to `now`: the slots in between come a second time.
///
/// If several slots lie in between, reports are expected again. If only one slot lies in between, its report may
/// already have come. The server cannot know, so it does not expect that report again.
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

/// Applies a hint: Beat says when an entry is next due, or (None) that it never is. The hint overrides the server's
/// arithmetic, but excuses no slot that has come. The server keeps such a slot until it is satisfied.
pub(crate) fn take_hint(state: &mut MonitorState, hint: Option<DateTime<Utc>>, now: DateTime<Utc>) {
    let before = state.next_due_at;
    let was_sent = state.hinted_due_at.is_some_and(|hint| Some(hint) > before);
    take_beyond(state, hint, now, now);
    // Beat counts an interval from its last sending of the entry. If it sent nothing and still names a later time, it
    // was restarted and has forgotten its last sending. One such restart only delays a run. `postponed_from` keeps the
    // slot in case it happens again.
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

/// Applies the hint of a Beat that has just sent the entry. The slot of that sending counts as come, even if it lies a
/// moment ahead by the server's clock.
///
/// Network delay differs between two hints, and Beat's clock may be fast. If the slot did not count as come, the hint
/// would excuse it, because the hint replaces it by the next slot. Then a run that is lost once a month would go
/// unnoticed.
pub(crate) fn take_hint_of_sent(state: &mut MonitorState, hint: Option<DateTime<Utc>>, now: DateTime<Utc>) {
    let early = match (state.next_due_at, &state.expectation.schedule) {
        // Both times come from Beat's clock, so only network delay can make them differ. Clock skew cannot.
        (Some(due), Schedule::Hint(_)) => tolerance(due, hint).min(ON_ITS_WAY),
        (Some(due), _) => tolerance(due, hint),
        (None, _) => TimeDelta::zero(),
    };
    // An earlier hint put the slot off, because the report of its sending was still on the way. The entry was sent, so
    // the slot needs a report.
    if let Some(from) = state.postponed_from.take()
        && from <= now
    {
        state.next_due_at = Some(from);
    }
    take_beyond(state, hint, now, now + early.max(TimeDelta::zero()));
}

/// Applies a hint. Slots up to `come_by` count as come.
fn take_beyond(
    state: &mut MonitorState,
    hint: Option<DateTime<Utc>>,
    now: DateTime<Utc>,
    come_by: DateTime<Utc>,
) {
    let schedule = &state.expectation.schedule;
    let only_by_hint = matches!(schedule, Schedule::Hint(_));
    // A kept hint that lies after the due shows that Beat has sent the due slot.
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
        // Beat says that the entry is overdue, and sends it on its next tick. The hint needed some time to arrive.
        hint = hint.max(now);
    }
    if hint < now {
        return;
    }
    if !only_by_hint {
        // A hint beyond the slot after the next one is not plausible: the clock of Beat's host is wrong.
        let following = schedule.next_after(now);
        let horizon = following.and_then(|next| schedule.next_after(next));
        if horizon.is_none_or(|horizon| hint > horizon) {
            return;
        }
        // The report of the hint's slot was slightly early, and overtook the hint.
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
