//! How long messages had waited when a worker took them, as runs tell it: the age of what waits, where the broker does not (RabbitMQ).

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use chrono::{DateTime, TimeDelta, Utc};
use deadbeat_domain::ids::ProjectId;
use deadbeat_domain::queue::Taken;

use crate::{ServiceError, Services};

/// Waits below this are those of a queue that is worked off; they are only noted after a longer one.
const WORTH: TimeDelta = TimeDelta::seconds(1);
/// A queue's wait is noted no more often: samples are taken every 10 s.
const PAUSE: TimeDelta = TimeDelta::seconds(5);
/// Queues that are remembered at a time.
const MOST_REMEMBERED: usize = 50_000;

/// By project, application and queue.
type Key = (ProjectId, String, String);

/// What this process noted last of each queue.
#[derive(Debug, Clone, Default)]
pub(crate) struct Waits {
    noted: Arc<Mutex<HashMap<Key, Taken>>>,
}

impl Waits {
    /// Whether it is to be written; then it is remembered as written.
    fn is_news(&self, key: &Key, taken: Taken, now: DateTime<Utc>) -> bool {
        let mut noted = self.noted.lock().unwrap_or_else(PoisonError::into_inner);
        let before = noted.get(key);
        let is_due = before.is_none_or(|before| (now - before.at).abs() >= PAUSE);
        let is_long = taken.after >= WORTH;
        if !(is_due && (is_long || before.is_some())) {
            return false;
        }
        if !is_long {
            noted.remove(key);
        } else if noted.len() < MOST_REMEMBERED || before.is_some() {
            noted.insert(key.clone(), Taken { at: now, ..taken });
        }
        true
    }
}

/// Runs were received, each out of that queue of that application.
pub(crate) async fn taken(
    services: &Services,
    project: ProjectId,
    taken: HashMap<(String, String), Taken>,
) -> Result<(), ServiceError> {
    let now = services.now();
    for ((app, queue), taken) in taken {
        let key = (project, app, queue);
        if !services.waits.is_news(&key, taken, now) {
            continue;
        }
        let after = taken.after.num_milliseconds() as f64 / 1_000.0;
        let mut tx = services.store.begin().await?;
        deadbeat_store::queue::note_taken(&mut tx, project, &key.1, &key.2, after, taken.at).await?;
        tx.commit().await?;
    }
    Ok(())
}
