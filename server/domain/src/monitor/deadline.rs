//! The one computation of the deadline.
//!
//! It is due + delay + grace; with an open run, the earlier of that and its start + longest run. The *due* is `slot`'s business.
//!
//! Without a longest run the grace bounds a run too. Those are Healthchecks' formulas, so a client that comes from there is judged
//! as before.

use chrono::{DateTime, Utc};

use crate::monitor::MonitorState;
use crate::monitor::status::Status;

#[cfg(test)]
mod tests;

/// When a monitor is to be declared down, by its due and its open runs. None: it is not armed.
#[must_use]
pub fn deadline(state: &MonitorState) -> Option<DateTime<Utc>> {
    [slot_deadline(state), run_deadline(state)]
        .into_iter()
        .flatten()
        .min()
}

/// When the slot that is owed is given up.
///
/// A monitor that has not reported is armed only when its Beat says that it will; a started run arms it in any case.
pub(crate) fn slot_deadline(state: &MonitorState) -> Option<DateTime<Utc>> {
    let expects_slot = match state.status {
        Status::Up => true,
        Status::New => state.by_beat,
        Status::Down | Status::Paused => false,
    };
    let due = state.next_due_at.filter(|_| expects_slot)?;
    // A Beat that forgets when it last sent an entry puts it off at each of its starts: twice the interval is enough.
    let longest = state
        .postponed_from
        .and_then(|from| state.expectation.schedule.next_after(from));
    Some(longest.map_or(due, |longest| due.min(longest)) + state.expectation.patience())
}

/// When the first open run has gone on for too long.
pub(crate) fn run_deadline(state: &MonitorState) -> Option<DateTime<Utc>> {
    let judged = matches!(state.status, Status::Up | Status::New);
    let open = state.runs.iter().filter(|run| judged && run.is_open());
    open.filter_map(|run| run.deadline_at).min()
}
