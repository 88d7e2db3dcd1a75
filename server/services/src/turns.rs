//! Turns at work of which only a little may go on at once, shared fairly between projects.
//!
//! A project has no more places in the common queue than there are turns. Its other requests wait for the project's own places, so another
//! project waits for a few of them at most, however many there are (DESIGN, invariant 4).

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use deadbeat_domain::ids::ProjectId;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

use crate::ServiceError;

/// Projects whose places are remembered although nobody uses them.
const IDLE_PROJECTS: usize = 1_000;

/// Hands out turns.
#[derive(Debug)]
pub struct Turns {
    all: Arc<Semaphore>,
    count: usize,
    patience: Duration,
    projects: Mutex<HashMap<ProjectId, Arc<Semaphore>>>,
}

/// A turn, which ends when this is dropped.
#[derive(Debug)]
pub struct Turn {
    _all: OwnedSemaphorePermit,
    _project: OwnedSemaphorePermit,
}

impl Turns {
    /// So many turns at once; who waits longer than `patience` is told to try again.
    #[must_use]
    pub fn new(count: usize, patience: Duration) -> Self {
        Self {
            all: Arc::new(Semaphore::new(count)),
            count,
            patience,
            projects: Mutex::default(),
        }
    }

    /// Waits for a turn of this project.
    ///
    /// # Errors
    /// [`ServiceError::Busy`] when none came in time.
    pub async fn take(&self, project: ProjectId) -> Result<Turn, ServiceError> {
        let own = self.of(project);
        let waiting = async {
            let project = own.acquire_owned().await?;
            let all = Arc::clone(&self.all).acquire_owned().await?;
            Ok::<_, tokio::sync::AcquireError>(Turn {
                _all: all,
                _project: project,
            })
        };
        match timeout(self.patience, waiting).await {
            Ok(Ok(turn)) => Ok(turn),
            // Nobody closes a semaphore.
            Ok(Err(_)) | Err(_) => Err(ServiceError::Busy),
        }
    }

    fn of(&self, project: ProjectId) -> Arc<Semaphore> {
        let mut projects = self.projects.lock().unwrap_or_else(PoisonError::into_inner);
        if projects.len() >= IDLE_PROJECTS {
            // A turn, and whoever waits for one, holds its project's places.
            projects.retain(|_, own| Arc::strong_count(own) > 1);
        }
        let own = projects
            .entry(project)
            .or_insert_with(|| Arc::new(Semaphore::new(self.count)));
        Arc::clone(own)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn another_project_gets_the_next_turn_however_many_wait_of_one() {
        let turns = Arc::new(Turns::new(2, Duration::from_secs(60)));
        let (flood, other) = (ProjectId::generate(), ProjectId::generate());
        let first = turns.take(flood).await.unwrap();
        let _second = turns.take(flood).await.unwrap();
        let waiting: Vec<_> = (0..100)
            .map(|_| {
                let turns = Arc::clone(&turns);
                tokio::spawn(async move { turns.take(flood).await })
            })
            .collect();
        // One for the map, one for this look, two turns and a hundred that wait: they all wait before the other project comes.
        while Arc::strong_count(&turns.of(flood)) < 104 {
            tokio::task::yield_now().await;
        }
        let others = {
            let turns = Arc::clone(&turns);
            tokio::spawn(async move { turns.take(other).await })
        };
        while Arc::strong_count(&turns.of(other)) < 3 {
            tokio::task::yield_now().await;
        }

        drop(first);

        let turn = timeout(Duration::from_secs(10), others).await.expect("its turn");
        let turn = turn.unwrap().unwrap();
        assert!(
            waiting.iter().all(|one| !one.is_finished()),
            "the turn that was free went to the other project"
        );
        drop(turn);
        waiting.iter().for_each(tokio::task::JoinHandle::abort);
    }

    #[tokio::test]
    async fn who_waits_too_long_is_told_to_try_again_and_idle_projects_are_forgotten() {
        let turns = Turns::new(1, Duration::from_millis(1));
        let project = ProjectId::generate();
        let turn = turns.take(project).await.unwrap();
        assert!(matches!(turns.take(project).await, Err(ServiceError::Busy)));
        assert!(matches!(
            turns.take(ProjectId::generate()).await,
            Err(ServiceError::Busy)
        ));
        drop(turn);
        drop(turns.take(project).await.unwrap());

        for _ in 0..3 * IDLE_PROJECTS {
            drop(turns.take(ProjectId::generate()).await.unwrap());
        }

        assert!(turns.projects.lock().unwrap().len() <= IDLE_PROJECTS);
    }
}
