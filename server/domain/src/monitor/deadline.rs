//! Computes the deadline. No other code does.
//!
//! The deadline is due + delay + grace. With an open run, it is the earlier of that and the run's start + longest run.
//! `slot` computes the *due*.
//!
//! Without a longest run, the grace also bounds a run. Healthchecks uses the same formulas, so clients that move from
//! there are judged as before.

use chrono::{DateTime, Utc};

use crate::monitor::MonitorState;
use crate::monitor::status::Status;

#[cfg(test)]
mod tests;

/// When the monitor must be declared down, by its due and its open runs. None: it is not armed.
#[must_use]
pub fn deadline(state: &MonitorState) -> Option<DateTime<Utc>> {
    [slot_deadline(state), run_deadline(state)]
        .into_iter()
        .flatten()
        .min()
}

/// The deadline of the earliest unsatisfied slot.
///
/// A monitor without a report is armed only if a Beat registered it. A started run arms it in any case.
pub(crate) fn slot_deadline(state: &MonitorState) -> Option<DateTime<Utc>> {
    let expects_slot = state.is_judged() && (state.status != Status::New || state.by_beat);
    let due = state.next_due_at.filter(|_| expects_slot)?;
    // A Beat that has forgotten its last sending of an entry puts the entry off at each start. Wait for two intervals
    // at most.
    let longest = state
        .postponed_from
        .and_then(|from| state.expectation.schedule.next_after(from));
    Some(longest.map_or(due, |longest| due.min(longest)) + state.expectation.patience())
}

/// The earliest deadline of an open run.
pub(crate) fn run_deadline(state: &MonitorState) -> Option<DateTime<Utc>> {
    let judged = state.is_judged();
    let open = state.runs.iter().filter(|run| judged && run.is_open());
    open.filter_map(|run| run.deadline_at).min()
}
