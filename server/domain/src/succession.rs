//! Whether others do the work of a worker that is not heard any more.

use chrono::{DateTime, Utc};

use crate::status::Status;

#[cfg(test)]
mod tests;

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
    /// Whoever started since then: the worker ended by an error.
    StartedSince(DateTime<Utc>),
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
