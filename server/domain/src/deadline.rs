//! The one computation of the deadline.
//!
//! It is due + grace; with an open run, the earlier of that and its start + longest run. The *due* is `slot`'s business.
//!
//! Without a longest run the grace bounds a run too. Those are Healthchecks' formulas, so a client that comes from there is judged
//! as before.

use chrono::{DateTime, Utc};

use crate::monitor::MonitorState;
use crate::status::Status;

#[cfg(test)]
mod tests;

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
