//! Turns at work that only a few askers may do at once, shared fairly.
//!
//! All askers wait for turns in one common queue. An asker has at most as many places in that queue as it may have
//! turns; its other requests wait for one of its own places first. So an asker waits behind a few requests of another
//! asker at most, however many that one sends (DESIGN, invariant 4).

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

/// The number of askers above which the places of idle askers are forgotten.
const IDLE: usize = 1_000;

/// Hands out turns. `K` identifies the asker.
#[derive(Debug)]
pub struct Turns<K> {
    all: Arc<Semaphore>,
    for_one: usize,
    patience: Duration,
    queue: usize,
    places: Mutex<HashMap<K, Arc<Semaphore>>>,
}

/// A turn. Dropping it ends the turn.
#[derive(Debug)]
pub struct Turn {
    all: OwnedSemaphorePermit,
    own: OwnedSemaphorePermit,
}

impl Turn {
    /// Ends the turn for all other askers. Its own asker gets the place back after a pause.
    pub async fn end_with_pause(self, pause: Duration) {
        let Self { all, own } = self;
        drop(all);
        tokio::time::sleep(pause).await;
        drop(own);
    }
}

impl<K: Eq + Hash> Turns<K> {
    /// Allows `count` turns at once, at most `for_one` of them for one asker. No request waits longer than `patience`.
    #[must_use]
    pub fn new(count: usize, for_one: usize, patience: Duration) -> Self {
        Self {
            all: Arc::new(Semaphore::new(count)),
            for_one,
            patience,
            queue: usize::MAX,
            places: Mutex::default(),
        }
    }

    /// Limits how many requests of one asker may wait to `queue`. Further requests get no turn.
    #[must_use]
    pub fn with_queue(self, queue: usize) -> Self {
        Self { queue, ..self }
    }

    /// Waits for a turn. None: no turn was free in time, or too many requests of this asker wait already.
    pub async fn take(&self, who: K) -> Option<Turn> {
        let own = self.of(who);
        // One reference belongs to the map, and one to this request. Each turn and each waiting request holds one more.
        if Arc::strong_count(&own) - 2 >= self.queue.saturating_add(self.for_one) {
            return None;
        }
        let waiting = async {
            let own = own.acquire_owned().await.ok()?;
            let all = Arc::clone(&self.all).acquire_owned().await.ok()?;
            Some(Turn { all, own })
        };
        timeout(self.patience, waiting).await.ok()?
    }

    fn of(&self, who: K) -> Arc<Semaphore> {
        let mut places = self.places.lock().unwrap_or_else(PoisonError::into_inner);
        if places.len() >= IDLE {
            // A turn, and each request that waits for one, holds a reference to its places.
            places.retain(|_, own| Arc::strong_count(own) > 1);
        }
        let own = places
            .entry(who)
            .or_insert_with(|| Arc::new(Semaphore::new(self.for_one)));
        Arc::clone(own)
    }
}

#[cfg(test)]
mod tests {
    use deadbeat_domain::ids::ProjectId;
    use futures::FutureExt;

    use super::*;

    #[tokio::test]
    async fn another_project_gets_the_next_turn_however_many_wait_of_one() {
        let turns = Arc::new(Turns::new(2, 2, Duration::from_secs(60)));
        let (flood, other) = (ProjectId::generate(), ProjectId::generate());
        let first = turns.take(flood).await.unwrap();
        let _second = turns.take(flood).await.unwrap();
        let waiting: Vec<_> = (0..100)
            .map(|_| {
                let turns = Arc::clone(&turns);
                tokio::spawn(async move { turns.take(flood).await })
            })
            .collect();
        // One reference for the map, one for this check, two turns and a hundred waiting requests: all of these wait
        // before the other project asks.
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
    async fn who_waits_too_long_is_asked_to_try_again_and_idle_projects_are_forgotten() {
        let turns = Turns::new(1, 1, Duration::from_millis(1));
        let project = ProjectId::generate();
        let turn = turns.take(project).await.unwrap();
        assert!(turns.take(project).await.is_none());
        assert!(turns.take(ProjectId::generate()).await.is_none());
        drop(turn);
        drop(turns.take(project).await.unwrap());

        for _ in 0..3 * IDLE {
            drop(turns.take(ProjectId::generate()).await.unwrap());
        }

        assert!(turns.places.lock().unwrap().len() <= IDLE);
    }

    #[tokio::test]
    async fn a_pause_after_a_turn_holds_back_its_own_asker_and_nobody_else() {
        let turns = Turns::new(1, 1, Duration::from_secs(60));
        let (heavy, other) = (ProjectId::generate(), ProjectId::generate());
        let turn = turns.take(heavy).await.unwrap();

        let pause = tokio::spawn(turn.end_with_pause(Duration::from_secs(3_600)));

        drop(turns.take(other).await.expect("another asker's turn"));
        assert!(turns.take(heavy).now_or_never().is_none(), "no pause");
        pause.abort();
        drop(turns.take(heavy).await.expect("its turn after the pause"));
    }

    #[tokio::test]
    async fn one_leaves_turns_for_another_although_nobody_else_has_come() {
        let turns = Turns::new(3, 2, Duration::from_millis(1));
        let (flood, other) = (ProjectId::generate(), ProjectId::generate());
        let _held = (turns.take(flood).await.unwrap(), turns.take(flood).await.unwrap());
        assert!(turns.take(flood).await.is_none());
        assert!(turns.take(other).await.is_some());
    }
}
