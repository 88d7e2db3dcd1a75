//! Decides whether other workers have taken over the work of a silent worker.

use chrono::{DateTime, TimeDelta, Utc};

use crate::celery::switch::Switch;
use crate::monitor::status::Status;

#[cfg(test)]
mod tests;

/// How often Deadbeat checks whether a lost worker has a successor. A new container has another name.
pub const JUDGE_EVERY: TimeDelta = TimeDelta::seconds(10);

/// Another worker of the same application.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Other<'a> {
    /// Its status.
    pub status: Status,
    /// The queues that it consumes.
    pub queues: &'a [String],
    /// When its last report came.
    pub last_seen_at: Option<DateTime<Utc>>,
    /// When it started.
    pub started_at: DateTime<Utc>,
}

/// The workers that count as successors.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Successors {
    /// Workers that have reported since then: the silence began in a blind spell.
    ReportedSince(DateTime<Utc>),
    /// Workers that have started since then: the worker ended by an error, or it is lost and has an incident.
    StartedSince(DateTime<Utc>),
}

/// The workers that may succeed a lost worker with an incident. None: it is not lost. A worker that already ran beside
/// it does not replace it.
#[must_use]
pub fn of_lost(state: &Switch) -> Option<Successors> {
    let is_lost = state.status == Status::Down && state.trouble.is_none();
    state
        .last_seen_at
        .filter(|_| is_lost)
        .map(Successors::StartedSince)
}

/// True if other workers that are up consume each queue of a worker. A worker without queues has no successor.
#[must_use]
pub fn is_succeeded(queues: &[String], successors: Successors, others: &[Other<'_>]) -> bool {
    let counts = |other: &&Other<'_>| {
        other.status == Status::Up
            && match successors {
                Successors::ReportedSince(at) => other.last_seen_at.is_some_and(|seen| seen > at),
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
