//! How long messages had waited when a worker received them, according to the reports of runs. This replaces the age of waiting messages for brokers
//! that do not show it (RabbitMQ).

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use chrono::{DateTime, TimeDelta, Utc};
use deadbeat_domain::celery::queue::Taken;
use deadbeat_domain::ids::ProjectId;
use deadbeat_store::{StoreResult, with_sources};

use crate::Services;

/// A queue's wait is recorded at most this often; samples are taken every 10 s.
const PAUSE: TimeDelta = TimeDelta::seconds(5);
/// The most queues that are remembered at once.
const MOST_REMEMBERED: usize = 50_000;

/// By project, application and queue.
type Key = (ProjectId, String, String);

/// When this process last recorded the wait of each queue.
#[derive(Debug, Clone, Default)]
pub(crate) struct Waits {
    noted: Arc<Mutex<HashMap<Key, DateTime<Utc>>>>,
}

impl Waits {
    /// Returns true if the wait must be recorded again. Then remembers the time.
    fn is_due(&self, key: &Key, now: DateTime<Utc>) -> bool {
        let mut noted = self.noted.lock().unwrap_or_else(PoisonError::into_inner);
        let is_recent = |at: &DateTime<Utc>| (now - *at).abs() < PAUSE;
        if noted.get(key).is_some_and(is_recent) {
            return false;
        }
        if noted.len() >= MOST_REMEMBERED {
            noted.retain(|_, at| is_recent(at));
        }
        // It is better to miss a wait than to let the memory grow.
        if noted.len() >= MOST_REMEMBERED {
            return false;
        }
        noted.insert(key.clone(), now);
        true
    }
}

/// Records the waits of received runs, by application and queue. If writing them fails, the runs are still accepted, because other figures remain.
pub(crate) async fn taken(services: &Services, project: ProjectId, taken: HashMap<(String, String), Taken>) {
    let now = services.now();
    let due: Vec<(String, String, Taken)> = taken
        .into_iter()
        .map(|((app, queue), taken)| ((project, app, queue), taken))
        .filter(|(key, _)| services.waits.is_due(key, now))
        .map(|((_, app, queue), taken)| (app, queue, taken))
        .collect();
    if due.is_empty() {
        return;
    }
    if let Err(error) = write(services, project, &due, now).await {
        tracing::warn!(project.id = %project, error = %with_sources(&error), "the waits of messages in their queues could not be written");
    }
}

async fn write(
    services: &Services,
    project: ProjectId,
    due: &[(String, String, Taken)],
    now: DateTime<Utc>,
) -> StoreResult<()> {
    let mut tx = services.store.begin().await?;
    deadbeat_store::celery::queue::note_taken(&mut tx, project, due, now).await?;
    tx.commit().await
}
