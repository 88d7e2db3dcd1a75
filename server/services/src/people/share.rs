//! Limits how many items of one project are in a queue that all projects share. A flood waits in front of the queue, and not in the queue ahead of
//! other projects (DESIGN, invariant 4).

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use deadbeat_domain::ids::ProjectId;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::ServiceError;

/// The most idle projects whose shares are remembered.
const IDLE: usize = 1_000;

/// Gives out places of a queue. Clones are cheap.
#[derive(Debug, Clone)]
pub(crate) struct Shares {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    /// The number of places of one project.
    of_one: u32,
    /// How many requests of one project may wait for places, in addition to the next one. Each keeps its items in memory.
    waiting: usize,
    /// How long a request waits.
    patience: Duration,
    projects: Mutex<HashMap<ProjectId, Arc<Own>>>,
}

/// The places of one project.
#[derive(Debug)]
struct Own {
    places: Arc<Semaphore>,
    waiting: AtomicUsize,
}

/// Counts a waiting request until it is dropped.
struct Waits<'a>(&'a AtomicUsize);

impl Drop for Waits<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Shares {
    /// Makes shares. One project has `of_one` places; `waiting` of its requests may wait for places, for at most `patience`.
    pub(crate) fn new(of_one: u32, waiting: usize, patience: Duration) -> Self {
        Self {
            inner: Arc::new(Inner {
                of_one,
                waiting,
                patience,
                projects: Mutex::default(),
            }),
        }
    }

    /// Takes places of a project, in the order in which its requests came. A request that wants more places than there are gets all of them.
    ///
    /// # Errors
    /// If too many requests of the project wait, or the places do not become free in time.
    pub(crate) async fn take(&self, project: ProjectId, places: usize) -> Result<Share, ServiceError> {
        let own = self.of(project);
        let wanted = u32::try_from(places).unwrap_or(u32::MAX).min(self.inner.of_one);
        let before = own.waiting.fetch_add(1, Ordering::Relaxed);
        let waits = Waits(&own.waiting);
        // A request that need not wait also counts for this moment.
        if before > self.inner.waiting {
            return Err(ServiceError::Busy);
        }
        let places = Arc::clone(&own.places).acquire_many_owned(wanted);
        let places = tokio::time::timeout(self.inner.patience, places).await;
        drop(waits);
        match places {
            Ok(Ok(places)) => Ok(Share {
                _places: places,
                _own: own,
            }),
            Ok(Err(_)) | Err(_) => Err(ServiceError::Busy),
        }
    }

    fn of(&self, project: ProjectId) -> Arc<Own> {
        let mut projects = self.inner.projects.lock().unwrap_or_else(PoisonError::into_inner);
        if projects.len() >= IDLE {
            // Every request that waits or has places holds a reference to its project's entry.
            projects.retain(|_, own| Arc::strong_count(own) > 1);
        }
        let fresh = || {
            Arc::new(Own {
                places: Arc::new(Semaphore::new(self.inner.of_one as usize)),
                waiting: AtomicUsize::new(0),
            })
        };
        Arc::clone(projects.entry(project).or_insert_with(fresh))
    }
}

/// Places of a queue. Dropping them frees them.
#[derive(Debug)]
pub(crate) struct Share {
    _places: OwnedSemaphorePermit,
    _own: Arc<Own>,
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;

    const PATIENCE: Duration = Duration::from_secs(60);

    #[tokio::test]
    async fn a_flood_waits_at_its_own_door_and_another_project_does_not() {
        let shares = Shares::new(10, 100, PATIENCE);
        let (flood, other) = (ProjectId::generate(), ProjectId::generate());
        let first = shares.take(flood, 6).await.unwrap();
        let mut second = Box::pin(shares.take(flood, 6));
        assert!(second.as_mut().now_or_never().is_none(), "6 of 10 are taken");
        // A later request waits for an earlier one, even if it would fit.
        let mut third = Box::pin(shares.take(flood, 1));
        assert!(third.as_mut().now_or_never().is_none());
        assert!(matches!(shares.take(other, 10).now_or_never(), Some(Ok(_))));

        drop(first);
        let second = second.await.unwrap();
        third.await.unwrap();
        drop(second);
        // The request wants more places than there are, and gets all of them.
        shares.take(flood, 1_000).await.unwrap();
    }

    #[tokio::test]
    async fn those_that_wait_are_bounded_in_number_and_in_time() {
        let shares = Shares::new(1, 2, PATIENCE);
        let flood = ProjectId::generate();
        let _first = shares.take(flood, 1).await.unwrap();
        let mut waiting: Vec<_> = (0..3).map(|_| Box::pin(shares.take(flood, 1))).collect();
        for one in &mut waiting {
            assert!(one.as_mut().now_or_never().is_none());
        }
        assert!(matches!(shares.take(flood, 1).await, Err(ServiceError::Busy)));
        drop(waiting);

        let hurried = Shares::new(1, 2, Duration::from_millis(1));
        let _first = hurried.take(flood, 1).await.unwrap();
        assert!(matches!(hurried.take(flood, 1).await, Err(ServiceError::Busy)));
    }

    #[tokio::test]
    async fn projects_of_which_nothing_is_under_way_are_forgotten() {
        let shares = Shares::new(1, 2, PATIENCE);
        let busy = ProjectId::generate();
        let _held = shares.take(busy, 1).await.unwrap();
        for _ in 0..2 * IDLE {
            shares.take(ProjectId::generate(), 1).await.unwrap();
        }
        assert!(shares.inner.projects.lock().unwrap().len() <= IDLE);
        assert!(
            shares.take(busy, 1).now_or_never().is_none(),
            "what is under way counts on"
        );
    }
}
