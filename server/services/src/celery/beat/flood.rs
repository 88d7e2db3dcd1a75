//! Counts how often Beat has recently sent each entry. An entry that floods its queue is a storm.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use chrono::{DateTime, Utc};
use deadbeat_domain::celery::beat::STORM_WINDOW;
use deadbeat_domain::ids::ProjectId;
use deadbeat_domain::schedule::Schedule;

/// Counts how often each entry was sent in the last minute, according to the reports that this process received.
#[derive(Debug, Clone, Default)]
pub(crate) struct Floods {
    windows: Arc<Mutex<Windows>>,
}

/// An entry that a Beat sends again and again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Flood {
    /// Its name.
    pub entry: String,
    /// How often the entry was sent within a minute.
    pub count: u32,
    /// The queue to which the entry was sent, if known.
    pub queue: Option<String>,
}

/// By project, Beat and entry: when the count began, and how often the entry was sent since then.
type Windows = HashMap<(ProjectId, String, String), (DateTime<Utc>, u32)>;

/// The most entries that are counted at once.
const MOST_COUNTED: usize = 50_000;

impl Floods {
    /// Counts sendings of an entry. Returns how often the entry was sent within the window.
    pub(crate) fn count(
        &self,
        project: ProjectId,
        beat: &str,
        entry: &str,
        count: u32,
        now: DateTime<Utc>,
    ) -> u32 {
        let mut windows = self.windows.lock().unwrap_or_else(PoisonError::into_inner);
        if windows.len() >= MOST_COUNTED {
            windows.retain(|_, (since, _)| now - *since < STORM_WINDOW);
        }
        let key = (project, beat.to_owned(), entry.to_owned());
        if windows.len() >= MOST_COUNTED && !windows.contains_key(&key) {
            // It is better to miss a storm than to let the memory grow.
            return 0;
        }
        let (since, seen) = windows.entry(key).or_insert((now, 0));
        if now - *since >= STORM_WINDOW {
            (*since, *seen) = (now, 0);
        }
        *seen = seen.saturating_add(count);
        *seen
    }
}

/// Returns the number of slots that a schedule has in the window for counting a storm.
pub(crate) fn slots_within(schedule: &Schedule, now: DateTime<Utc>) -> u32 {
    let from = now - STORM_WINDOW;
    std::iter::successors(schedule.next_after(from), |slot| schedule.next_after(*slot))
        .take_while(|slot| *slot <= now)
        .take(10_000)
        .count() as u32
}
