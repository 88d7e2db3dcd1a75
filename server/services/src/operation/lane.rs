//! A lane writes the items of a bounded queue in batches, one batch after the other.
//!
//! The writers of signals and of stages are lanes. A lane takes the items that arrived while it wrote its last batch. A commit thus serves many
//! clients, and a single item need not wait for others. A lane that panics is restarted. The clients of its batch get "try again", and the restarted
//! lane writes the items in the queue. [`Suspects`] finds the items that make it panic each time.

use std::collections::HashMap;
use std::future::{Future, ready};
use std::hash::Hash;
use std::panic::AssertUnwindSafe;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use chrono::TimeDelta;
use futures::FutureExt;
use tokio::sync::{Mutex, mpsc};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tracing::Instrument;

use crate::operation::duty::Duty;
use crate::operation::supervisor::{Health, keep_working};

/// After this many panics without a success in between, the items of a key are written alone. A single panic may be chance.
const PANICS: u32 = 2;
/// The most keys that are remembered. Beyond that, all counts start again.
const MOST_SUSPECTS: usize = 10_000;

/// The work of a lane.
pub(crate) trait Work: Send + 'static {
    /// An item to write, with the client that waits for its answer. A client whose item is dropped gets "try again".
    type One: Send;

    /// The most weight of one batch, unless a single item has more.
    const BATCH: usize;

    /// The weight up to which a batch is filled if an earlier batch left items. The work then chooses a batch from these items.
    const EXAMINED: usize = Self::BATCH;

    /// How many items are taken from the queue before weights count.
    const AT_ONCE: usize = 1;

    /// Returns the weight of one item.
    fn weight(_: &Self::One) -> usize {
        1
    }

    /// Starts the work, at each start of the lane. Returns false if it was stopped before it could start.
    fn begin(
        &mut self,
        _waiting: &mut mpsc::Receiver<Self::One>,
        _stop: &CancellationToken,
    ) -> impl Future<Output = bool> + Send {
        ready(true)
    }

    /// Runs beside the lane until the token is cancelled.
    fn beside(&self, _stop: CancellationToken) -> impl Future<Output = ()> + Send + 'static {
        ready(())
    }

    /// Returns the items that an earlier batch left for the next one.
    fn left(&mut self) -> Vec<Self::One> {
        Vec::new()
    }

    /// Returns after how long without new items [`Work::woken`] is called. `None`: never.
    fn pause(&self) -> Option<Duration> {
        None
    }

    /// Does work that is due although no item arrived.
    fn woken(&mut self) -> impl Future<Output = ()> + Send {
        ready(())
    }

    /// Returns the number of items that wait outside the queue.
    fn backlog(&self) -> usize {
        0
    }

    /// Writes a batch and answers its clients.
    fn write(&mut self, batch: Vec<Self::One>) -> impl Future<Output = ()> + Send;

    /// Ends the work, after all waiting items were written.
    fn end(&mut self) -> impl Future<Output = ()> + Send {
        ready(())
    }
}

/// The receiving end of a queue, and the work on its items.
pub(crate) struct Lane<W: Work> {
    duty: Duty,
    work: W,
    waiting: mpsc::Receiver<W::One>,
    /// The number of batches since the start of the process.
    batches: u64,
}

impl<W: Work> Lane<W> {
    /// Makes a lane. The work records in the duty whether its batches succeed.
    pub(crate) fn new(duty: Duty, work: W, waiting: mpsc::Receiver<W::One>) -> Self {
        Self {
            duty,
            work,
            waiting,
            batches: 0,
        }
    }

    /// Writes until `stop`, and then the items that are still waiting. Restarts the lane after a panic; `health` shows that the lane does not work.
    pub(crate) fn keep_writing(self, health: Health, stop: CancellationToken) -> JoinHandle<()> {
        let duty = self.duty.clone();
        let lane = Arc::new(Mutex::new(self));
        keep_working(duty, health, stop, move |stop| {
            let lane = Arc::clone(&lane);
            async move { lane.lock().await.run(stop).await }
        })
    }

    async fn run(&mut self, stop: CancellationToken) {
        if !self.work.begin(&mut self.waiting, &stop).await {
            return;
        }
        let ended = stop.child_token();
        let beside = self.work.beside(ended.clone());
        let writing = async {
            self.write_all(stop).await;
            ended.cancel();
        };
        tokio::join!(writing, beside);
    }

    async fn write_all(&mut self, stop: CancellationToken) {
        loop {
            let mut batch = self.work.left();
            let most = if batch.is_empty() { W::BATCH } else { W::EXAMINED };
            // Items that an earlier batch left have waited already, so begin at once.
            if batch.is_empty() {
                let pause = self.work.pause();
                let taken = tokio::select! {
                    biased;
                    taken = self.waiting.recv_many(&mut batch, W::AT_ONCE) => taken,
                    () = stop.cancelled(), if !self.waiting.is_closed() => {
                        // Accept no new items. `recv_many` returns the remaining ones, and then 0.
                        self.waiting.close();
                        continue;
                    }
                    () = tokio::time::sleep(pause.unwrap_or_default()), if pause.is_some() => {
                        self.work.woken().await;
                        continue;
                    }
                };
                if taken == 0 {
                    self.work.end().await;
                    return;
                }
            }
            let mut weight: usize = batch.iter().map(W::weight).sum();
            while weight < most
                && let Ok(one) = self.waiting.try_recv()
            {
                weight += W::weight(&one);
                batch.push(one);
            }
            self.batches += 1;
            let span = tracing::debug_span!("batch", lane = self.duty.name(), number = self.batches, weight);
            let began = Instant::now();
            let writing = async {
                self.work.write(batch).await;
                tracing::debug!(
                    duration_ms = began.elapsed().as_micros() as f64 / 1_000.0,
                    "written"
                );
            };
            writing.instrument(span).await;
            // An item that arrived right after a batch began has waited for as long as that batch took.
            self.duty
                .was_late(TimeDelta::from_std(began.elapsed()).unwrap_or(TimeDelta::MAX));
            self.duty.left(self.waiting.len() + self.work.backlog());
        }
    }
}

/// The keys of the items that a lane was writing when it panicked. Clones are cheap.
///
/// An item that makes the lane panic usually comes back: its client gets "try again" and sends it again, or it is in the spool. The lane would panic
/// forever. Items with a suspect key are therefore kept out of batches and written alone.
#[derive(Debug)]
pub(crate) struct Suspects<K> {
    inner: Arc<Inner<K>>,
}

#[derive(Debug)]
struct Inner<K> {
    /// Batches only read this flag, without a lock, as long as nothing panics.
    any: AtomicBool,
    panics: std::sync::Mutex<HashMap<K, u32>>,
}

impl<K> Clone for Suspects<K> {
    fn clone(&self) -> Self {
        Self {
            inner: Arc::clone(&self.inner),
        }
    }
}

impl<K> Default for Suspects<K> {
    fn default() -> Self {
        let inner = Inner {
            any: AtomicBool::new(false),
            panics: std::sync::Mutex::default(),
        };
        Self {
            inner: Arc::new(inner),
        }
    }
}

impl<K: Clone + Eq + Hash> Suspects<K> {
    fn panics(&self) -> MutexGuard<'_, HashMap<K, u32>> {
        self.inner.panics.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns true if all items that were written during a panic have since been written.
    pub(crate) fn is_empty(&self) -> bool {
        !self.inner.any.load(Ordering::Acquire)
    }

    /// Returns a guard that records these keys if a panic drops it.
    pub(crate) fn watch<'a, I>(&self, keys: I) -> Watch<'a, K, I>
    where
        I: Iterator<Item = &'a K> + Clone,
        K: 'a,
    {
        Watch {
            suspects: self.clone(),
            keys,
        }
    }

    /// Returns true if the items with this key must be written alone.
    pub(crate) fn has(&self, key: &K) -> bool {
        !self.is_empty() && self.panics().get(key).is_some_and(|panics| *panics >= PANICS)
    }

    /// Forgets these keys, because their items were written without a panic.
    pub(crate) fn forgive<'a>(&self, keys: impl Iterator<Item = &'a K>)
    where
        K: 'a,
    {
        if self.is_empty() {
            return;
        }
        let mut panics = self.panics();
        for key in keys {
            panics.remove(key);
        }
        self.inner.any.store(!panics.is_empty(), Ordering::Release);
    }

    fn note<'a>(&self, keys: impl Iterator<Item = &'a K>)
    where
        K: 'a,
    {
        let mut panics = self.panics();
        // Count a key once per panic, however many of its items are in the batch.
        let keys: std::collections::HashSet<&K> = keys.collect();
        if panics.len() + keys.len() > MOST_SUSPECTS {
            panics.clear();
        }
        for key in keys.into_iter().take(MOST_SUSPECTS) {
            *panics.entry(key.clone()).or_default() += 1;
        }
        self.inner.any.store(!panics.is_empty(), Ordering::Release);
    }
}

/// The guard that [`Suspects::watch`] returns.
pub(crate) struct Watch<'a, K: Clone + Eq + Hash + 'a, I: Iterator<Item = &'a K> + Clone> {
    suspects: Suspects<K>,
    keys: I,
}

impl<'a, K: Clone + Eq + Hash + 'a, I: Iterator<Item = &'a K> + Clone> Drop for Watch<'a, K, I> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.suspects.note(self.keys.clone());
        }
    }
}

/// The work panicked. The panic hook has logged the place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Panicked;

/// Runs work that may panic without ending the lane.
pub(crate) async fn alone<T>(work: impl Future<Output = T>) -> Result<T, Panicked> {
    // Safe, because the state that the work shares with the lane is valid at each await: a restarted lane uses it, too.
    AssertUnwindSafe(work).catch_unwind().await.map_err(|_| Panicked)
}

#[cfg(test)]
mod tests {
    use tokio::sync::oneshot;

    use super::*;

    /// Writes numbers, and panics at 13.
    #[derive(Default)]
    struct Numbers {
        suspects: Suspects<u32>,
        written: Arc<std::sync::Mutex<Vec<Vec<u32>>>>,
        aside: Arc<std::sync::Mutex<Vec<u32>>>,
    }

    impl Numbers {
        async fn commit(&self, batch: &[u32]) {
            let _watch = self.suspects.watch(batch.iter());
            tokio::task::yield_now().await;
            assert!(!batch.contains(&13), "poison");
            self.written.lock().unwrap().push(batch.to_vec());
        }
    }

    impl Work for Numbers {
        type One = (u32, oneshot::Sender<()>);
        const BATCH: usize = 8;

        async fn write(&mut self, batch: Vec<Self::One>) {
            let (alike, rest): (Vec<_>, Vec<_>) = batch
                .into_iter()
                .partition(|(number, _)| self.suspects.has(number));
            let numbers: Vec<u32> = rest.iter().map(|(number, _)| *number).collect();
            if !numbers.is_empty() {
                self.commit(&numbers).await;
                self.suspects.forgive(numbers.iter());
            }
            for (_, answer) in rest {
                let _ = answer.send(());
            }
            for (number, answer) in alike {
                match alone(self.commit(&[number])).await {
                    Ok(()) => {
                        self.suspects.forgive([number].iter());
                        let _ = answer.send(());
                    }
                    Err(Panicked) => self.aside.lock().unwrap().push(number),
                }
            }
        }
    }

    #[tokio::test]
    async fn what_makes_a_lane_panic_each_time_is_isolated_and_its_neighbours_are_written() {
        let (queue, waiting) = mpsc::channel(100);
        let work = Numbers::default();
        let (written, aside, suspects) = (
            Arc::clone(&work.written),
            Arc::clone(&work.aside),
            work.suspects.clone(),
        );
        let stop = CancellationToken::new();
        let lane = Lane::new("numbers".into(), work, waiting);
        let running = lane.keep_writing(Health::default(), stop.clone());
        // The same batch comes back until every number except 13 has an answer, because clients with "try again" send again.
        let mut rounds = 0;
        let mut left = vec![1, 2, 13, 3];
        while left != [13] {
            rounds += 1;
            assert!(rounds < 10, "{left:?}");
            let answers: Vec<_> = left
                .iter()
                .map(|number| {
                    let (answer, answered) = oneshot::channel();
                    queue.try_send((*number, answer)).unwrap();
                    (*number, answered)
                })
                .collect();
            left.clear();
            for (number, answered) in answers {
                if answered.await.is_err() {
                    left.push(number);
                }
            }
        }

        assert_eq!(rounds, PANICS + 1, "it restarted {PANICS} times, and no more");
        assert_eq!(*aside.lock().unwrap(), [13]);
        assert_eq!(*written.lock().unwrap(), [vec![1], vec![2], vec![3]]);
        assert!(suspects.has(&13) && !suspects.has(&1));
        // The lane continues even with the 13 among other numbers.
        for number in [4, 13, 5] {
            let (answer, answered) = oneshot::channel();
            queue.try_send((number, answer)).unwrap();
            assert_eq!(answered.await.is_ok(), number != 13);
        }
        assert_eq!(*aside.lock().unwrap(), [13, 13]);
        stop.cancel();
        running.await.unwrap();
    }

    #[test]
    fn suspects_are_bounded_and_one_panic_may_be_chance() {
        let suspects: Suspects<usize> = Suspects::default();
        assert!(suspects.is_empty());
        suspects.note([1, 1, 1].iter());
        assert!(!suspects.is_empty() && !suspects.has(&1), "one panic");
        suspects.note([1, 2].iter());
        assert!(suspects.has(&1) && !suspects.has(&2));

        let all: Vec<usize> = (0..3 * MOST_SUSPECTS).collect();
        for keys in all.chunks(1_000) {
            suspects.note(keys.iter());
            assert!(suspects.panics().len() <= MOST_SUSPECTS);
        }
        suspects.note(all.iter());
        assert!(suspects.panics().len() <= MOST_SUSPECTS);

        suspects.forgive(all.iter());
        assert!(suspects.is_empty());
    }
}
