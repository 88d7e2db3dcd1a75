//! Whether others do the work of a worker that is not heard any more.

use chrono::{DateTime, TimeDelta, Utc};

use crate::celery::switch::Switch;
use crate::monitor::status::Status;

#[cfg(test)]
mod tests;

/// While a worker is lost, its successor is looked for this often: in a container it comes under another name.
pub const LOOK_EVERY: TimeDelta = TimeDelta::seconds(10);

/// Another worker of the same application.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Other<'a> {
    /// Its status.
    pub status: Status,
    /// The queues that it consumes.
    pub queues: &'a [String],
    /// When it was last heard from.
    pub last_seen_at: Option<DateTime<Utc>>,
    /// When it started.
    pub started_at: DateTime<Utc>,
}

/// Whom a worker may be succeeded by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Successors {
    /// Whoever was heard since then: the worker went silent while we could not listen.
    HeardSince(DateTime<Utc>),
    /// Whoever started since then: the worker ended by an error, or is lost and told.
    StartedSince(DateTime<Utc>),
}

/// Who may succeed a worker that is lost and told. None: it is not lost. A colleague that was there before does not replace it.
#[must_use]
pub fn of_lost(state: &Switch) -> Option<Successors> {
    let is_lost = state.status == Status::Down && state.trouble.is_none();
    state
        .last_seen_at
        .filter(|_| is_lost)
        .map(Successors::StartedSince)
}

/// Whether each queue of a worker is consumed by another one that is up. One that consumed nothing has no successor.
#[must_use]
pub fn is_succeeded(queues: &[String], successors: Successors, others: &[Other<'_>]) -> bool {
    let counts = |other: &&Other<'_>| {
        other.status == Status::Up
            && match successors {
                Successors::HeardSince(at) => other.last_seen_at.is_some_and(|seen| seen > at),
                Successors::StartedSince(at) => other.started_at > at,
            }
    };
    let consumed = |queue: &String| {
        others
            .iter()
            .filter(counts)
            .any(|other| other.queues.contains(queue))
    };
    !queues.is_empty() && queues.iter().all(consumed)
}
