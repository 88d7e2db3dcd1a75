//! A lane: what waits in a bounded queue is written in batches, one batch after the other.
//!
//! The writers of signals and of stages are lanes. A lane takes what has gathered while its last batch was written, so a commit serves
//! many clients, and a lone one waits for nothing. A lane that panics is started again: the clients of its batch hear "try again", and
//! what waits in the queue is written by the next start. [`Suspects`] finds what makes it panic each time.

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

/// After so many panics without a success between them, a key is written alone: a single panic may be chance.
const PANICS: u32 = 2;
/// Keys that are remembered. Beyond that, all begin anew.
const MOST_SUSPECTS: usize = 10_000;

/// What a lane does with what waits.
pub(crate) trait Work: Send + 'static {
    /// Something to write, and who waits for its answer. Dropped without an answer, it means "try again".
    type One: Send;

    /// Weight of one batch, at most, as far as its parts divide so.
    const BATCH: usize;

    /// Weight up to which a batch is filled that begins with what an earlier one left. The work picks a batch out of it.
    const LOOKED_AT: usize = Self::BATCH;

    /// How many are taken from the queue before weights count.
    const AT_ONCE: usize = 1;

    /// What one counts in a batch.
    fn weight(_: &Self::One) -> usize {
        1
    }

    /// Begins, at each start of the lane. False: it was told to stop before it could.
    fn begin(
        &mut self,
        _waiting: &mut mpsc::Receiver<Self::One>,
        _stop: &CancellationToken,
    ) -> impl Future<Output = bool> + Send {
        ready(true)
    }

    /// What runs beside the lane until the token says stop.
    fn beside(&self, _stop: CancellationToken) -> impl Future<Output = ()> + Send + 'static {
        ready(())
    }

    /// What an earlier batch left for the next one.
    fn left(&mut self) -> Vec<Self::One> {
        Vec::new()
    }

    /// After how long [`Work::woken`] is due when nothing comes. None: it is not.
    fn pause(&self) -> Option<Duration> {
        None
    }

    /// Does what is due although nothing came.
    fn woken(&mut self) -> impl Future<Output = ()> + Send {
        ready(())
    }

    /// What waits beside the queue.
    fn backlog(&self) -> usize {
        0
    }

    /// Writes a batch and answers.
    fn write(&mut self, batch: Vec<Self::One>) -> impl Future<Output = ()> + Send;

    /// Ends: everything that waited was written.
    fn end(&mut self) -> impl Future<Output = ()> + Send {
        ready(())
    }
}

/// A queue's end, and the work on it.
pub(crate) struct Lane<W: Work> {
    duty: Duty,
    work: W,
    waiting: mpsc::Receiver<W::One>,
    /// Batches since the start of the process.
    batches: u64,
}

impl<W: Work> Lane<W> {
    /// Puts the parts together. The work notes in the duty whether batches succeed.
    pub(crate) fn new(duty: Duty, work: W, waiting: mpsc::Receiver<W::One>) -> Self {
        Self {
            duty,
            work,
            waiting,
            batches: 0,
        }
    }

    /// Writes until it is told to stop, then what is still waiting. It is started again when it panics; `health` tells when it does not
    /// work.
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
            let most = if batch.is_empty() { W::BATCH } else { W::LOOKED_AT };
            // What was left has waited already: it waits for nothing more.
            if batch.is_empty() {
                let pause = self.work.pause();
                let taken = tokio::select! {
                    biased;
                    taken = self.waiting.recv_many(&mut batch, W::AT_ONCE) => taken,
                    () = stop.cancelled(), if !self.waiting.is_closed() => {
                        // No new ones; `recv_many` gives what is left and then 0.
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
            // What came right after a batch began has waited as long as that took.
            self.duty
                .was_late(TimeDelta::from_std(began.elapsed()).unwrap_or(TimeDelta::MAX));
            self.duty.left(self.waiting.len() + self.work.backlog());
        }
    }
}

/// Keys of what was being written when a lane panicked. Cheap to clone.
///
/// Whoever makes the lane panic is usually sent again, because its client hears "try again", or because it lies in the spool. The
/// lane would panic for ever. What has a suspect key is therefore kept out of batches and written alone.
#[derive(Debug)]
pub(crate) struct Suspects<K> {
    inner: Arc<Inner<K>>,
}

#[derive(Debug)]
struct Inner<K> {
    /// Batches ask this, and no lock, as long as nothing panics.
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

    /// Nothing has panicked since everything that did was written.
    pub(crate) fn is_empty(&self) -> bool {
        !self.inner.any.load(Ordering::Acquire)
    }

    /// Notes these keys if a panic ends the scope of what this returns.
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

    /// Whether what has this key must be written alone.
    pub(crate) fn has(&self, key: &K) -> bool {
        !self.is_empty() && self.panics().get(key).is_some_and(|panics| *panics >= PANICS)
    }

    /// These were written without a panic.
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
        // A key counts once a panic, however often the batch has it.
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

/// See [`Suspects::watch`].
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

/// The work panicked; the panic hook has said where.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Panicked;

/// Works on something that may panic, without ending the lane.
pub(crate) async fn alone<T>(work: impl Future<Output = T>) -> Result<T, Panicked> {
    // What the work shares with the lane is fit for use after each await, because a lane that is started again uses it, too.
    AssertUnwindSafe(work).catch_unwind().await.map_err(|_| Panicked)
}

#[cfg(test)]
mod tests {
    use tokio::sync::oneshot;

    use super::*;

    /// Writes numbers. 13 panics.
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
        // The same batch comes again until all but the poison are answered: so do clients that hear "try again".
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
        // The lane goes on, with the poison among others.
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
