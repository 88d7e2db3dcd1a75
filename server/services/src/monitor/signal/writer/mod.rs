//! Writes signals: group commit, and the spool while the database cannot be reached.
//!
//! A writer takes the signals that have arrived during its last commit, locks their monitors in the order of ids, and applies the rules in memory. It
//! writes everything in a few array statements, commits, and only then answers: an acknowledged signal is durable. A ping therefore costs a share of
//! a batch and not round trips of its own, and a single ping need not wait for others.
//!
//! Every signal has a number. The transaction that writes signals also stores the last of their numbers (ADR 023).
//!
//! While the database cannot be reached, a batch goes to the spool, and is acknowledged when it is on the disk. All later signals go there, too,
//! until the spool has been replayed; that keeps the order of arrival. If the answer to a commit is lost, the commit may have succeeded. The batch is
//! then spooled with the numbers of that commit, and the database later says whether it has them.
//!
//! A monitor whose row another transaction has locked does not delay other monitors. Its signals first wait in memory for a moment, then they are set
//! aside in the spool file. A signal that times out while others succeed is set aside, too.

mod acceptance;
mod aside;
mod commit;
mod held;
mod isolate;
mod replay;
mod share;
mod suspect;
#[cfg(test)]
mod tests;

use std::collections::{HashMap, HashSet};
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use deadbeat_domain::time::Clock;
use deadbeat_store::monitor::Held;
use deadbeat_store::{Store, StoreError, with_sources};
use tokio::sync::{Notify, mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use self::commit::{Committer, Fate, Place};
use crate::Site;
use crate::monitor::signal::incoming::{Accepted, Address, Incoming};
use crate::monitor::signal::ingest::{IngestCounters, WaitingSignal};
use crate::monitor::signal::registry::{Existence, Registry};
use crate::monitor::signal::spool::Spool;
use crate::operation::duty::Duty;
use crate::operation::lane::{Lane, Suspects, Work};
use crate::operation::supervisor::Health;

/// The most signals of one commit. Measured: below 64 the commits cost too much, and above 512 there is no further gain.
const BATCH: usize = 512;
/// While one address has more than its share, a batch is chosen from this many signals. Otherwise signals of other addresses would wait until those
/// of this address are written, a few with each commit. The entrance limits senders of more: by connections of an address, and by signals of a
/// project's events.
const EXAMINED: usize = 2_048;
/// The time limit of a batch, from its first statement to the answer of its commit. After that the batch goes to the spool, and the clients get their
/// answers. A replay has only the store's limit for each statement: otherwise a batch that is too slow for this limit would come back forever.
pub const ACKNOWLEDGED_WITHIN: Duration = Duration::from_secs(1);
/// The time between two checks whether the database can be reached again.
const PROBE: Duration = Duration::from_millis(250);
/// The pause between two attempts to read a spool file that cannot be read.
const UNREADABLE_PAUSE: Duration = Duration::from_secs(1);
/// The pause between two attempts for signals whose monitors' rows are locked, if nothing else arrives.
const HELD_PAUSE: Duration = Duration::from_millis(10);
/// For how long a signal waits in memory for a locked row. Its client waits equally long for the answer.
const HELD: Duration = Duration::from_secs(1);
/// The most signals that wait for locked rows. They are outside the queue, which has its own limit.
const MOST_HELD: usize = 2_048;
/// The time limit of a batch while the writer searches for a bad signal. That search must not block the lane for the whole limit each time.
const ALONE: Duration = Duration::from_secs(1);
/// The most signals that the spool keeps in one outage without knowing whether their monitors exist. The replay drops those without a monitor.
const MOST_TRUSTED: usize = 10_000;

/// The writers of a process, one per lane.
pub struct Writers {
    pub(crate) lanes: Vec<Lane<Writer>>,
    pub(crate) health: Health,
}

impl Writers {
    /// Writes until `stop`, and then the signals that are still waiting.
    ///
    /// A writer that panics is restarted. The clients of its batch get "try again", and the restarted writer writes the signals in its queue. It
    /// continues with its own numbers. If it took them from its spool, signals would get numbers that are already committed, and would be dropped.
    pub async fn run(self, stop: CancellationToken) {
        let running: Vec<_> = self
            .lanes
            .into_iter()
            .map(|lane| lane.keep_writing(self.health.clone(), stop.clone()))
            .collect();
        for ended in running {
            if let Err(error) = ended.await {
                tracing::error!(error = %with_sources(&error), "a writer ended with an error");
            }
        }
    }
}

/// The writer of a lane's signals.
pub(crate) struct Writer {
    committer: Committer,
    figures: Arc<IngestCounters>,
    spool: Option<Spool>,
    /// The last number that was given to a signal.
    position: u64,
    /// Signals whose monitors' rows are locked, in the order of arrival. The next batch tries them again.
    held: Vec<WaitingSignal>,
    /// Signals that wait for the next batch, in the order of arrival: their address has had its share of this batch.
    later: Vec<WaitingSignal>,
    /// The number of signals in the next transaction of a replay. It is lower while the replay searches for a signal that cannot be written.
    replayed: usize,
    /// The number of signals that this outage's spool keeps without knowing whether their monitors exist.
    trusted: usize,
    /// A check whether the database can be reached again. It runs beside the work, because its answer may take seconds.
    probe: Option<JoinHandle<bool>>,
    /// Addresses whose signals the writer was writing when it panicked.
    suspects: Suspects<Address>,
    duty: Duty,
}

impl Work for Writer {
    type One = WaitingSignal;
    const BATCH: usize = BATCH;
    const EXAMINED: usize = EXAMINED;
    const AT_ONCE: usize = BATCH;

    async fn begin(&mut self, waiting: &mut mpsc::Receiver<WaitingSignal>, stop: &CancellationToken) -> bool {
        self.go_on(waiting, stop).await
    }

    /// Runs the retries of the signals that are set aside.
    fn beside(&self, stop: CancellationToken) -> impl Future<Output = ()> + Send + 'static {
        let retries = self.retries();
        async move {
            if let Some(retries) = retries {
                retries.run(stop).await;
            }
        }
    }

    fn left(&mut self) -> Vec<WaitingSignal> {
        std::mem::take(&mut self.later)
    }

    fn pause(&self) -> Option<Duration> {
        if self.held.is_empty() {
            self.is_behind().then_some(PROBE)
        } else {
            Some(HELD_PAUSE)
        }
    }

    async fn woken(&mut self) {
        if self.held.is_empty() {
            self.catch_up().await;
        } else {
            self.write_now(Vec::new()).await;
        }
    }

    fn backlog(&self) -> usize {
        let spooled = |spool: &Spool| usize::try_from(spool.signals()).unwrap_or(usize::MAX) + spool.aside();
        self.held.len() + self.later.len() + self.spool.as_ref().map_or(0, spooled)
    }

    async fn write(&mut self, batch: Vec<WaitingSignal>) {
        self.write_share(batch).await;
    }

    async fn end(&mut self) {
        let held = std::mem::take(&mut self.held);
        self.put_aside(held).await;
    }
}

/// A batch that was not written.
struct Failed {
    error: StoreError,
    batch: Vec<WaitingSignal>,
}

impl Writer {
    #[expect(
        clippy::too_many_arguments,
        reason = "the parts that the door shares with it, each once"
    )]
    pub(crate) fn new(
        store: Store,
        clock: Arc<dyn Clock>,
        site: Site,
        outbox_bell: Arc<Notify>,
        figures: Arc<IngestCounters>,
        registry: Registry,
        spool: Option<Spool>,
        duty: Duty,
    ) -> Self {
        Self {
            committer: Committer {
                store,
                clock,
                site,
                outbox_bell,
                registry,
                touched: HashMap::new(),
                slugs: HashSet::new(),
            },
            figures,
            spool,
            position: 0,
            held: Vec::new(),
            later: Vec::new(),
            replayed: BATCH,
            trusted: 0,
            probe: None,
            suspects: Suspects::default(),
            duty,
        }
    }

    /// Continues after the signals and the numbers that an earlier process left in the spool. If the file cannot be read, it retries: the file's
    /// signals are acknowledged, and no monitor is judged before they are written. Returns false if it was stopped before the file could be read.
    async fn go_on(&mut self, waiting: &mut mpsc::Receiver<WaitingSignal>, stop: &CancellationToken) -> bool {
        // An empty file does not matter: its name is new, or this process itself gave the numbers.
        while let Some(spool) = self.spool.clone().filter(|spool| spool.signals() > 0) {
            match spool.last_position().await {
                Ok(last) => {
                    self.position = self.position.max(last.unwrap_or(0));
                    return true;
                }
                Err(error) => {
                    tracing::error!(error = %with_sources(&error), "the spool cannot be read; the server retries");
                }
            }
            tokio::select! {
                () = stop.cancelled() => {
                    waiting.close();
                    while waiting.try_recv().is_ok() {}
                    return false;
                }
                () = tokio::time::sleep(UNREADABLE_PAUSE) => {}
            }
            // Dropping the answers gives the clients "try again".
            while waiting.try_recv().is_ok() {}
        }
        true
    }

    /// Writes the share of each address. The rest waits for the next batch.
    async fn write_share(&mut self, batch: Vec<WaitingSignal>) {
        let (batch, later) = share::split(batch);
        self.later = later;
        self.write_now(batch).await;
        if self.is_behind() {
            self.catch_up().await;
        }
    }

    /// Returns the time limit of a batch. Without a spool there is no limit, because giving a batch up would gain nothing: it may still be committed.
    fn limit(&self) -> Option<Duration> {
        self.spool.as_ref().map(|_| ACKNOWLEDGED_WITHIN)
    }

    /// Returns true if the spool has signals. New ones must then go behind them.
    fn is_behind(&self) -> bool {
        self.spool.as_ref().is_some_and(|spool| spool.signals() > 0)
    }

    async fn write_now(&mut self, new: Vec<WaitingSignal>) {
        let mut batch = new;
        if !self.held.is_empty() {
            drop(batch.splice(..0, self.held.drain(..)));
        }
        if self.is_behind() {
            self.keep(batch).await;
            return;
        }
        let batch = self.follow_aside(batch).await;
        let batch = self.isolate_suspects(batch).await;
        if batch.is_empty() {
            return;
        }
        self.figures.batches.fetch_add(1, Ordering::Relaxed);
        if let Err(Failed { error, batch }) = self.attempt(batch, None).await {
            self.duty.failed();
            if error.is_unavailable() && !error.is_timed_out() {
                tracing::warn!(error = %with_sources(&error), signals = batch.len(), "signals could not be written");
                self.keep_numbered(batch).await;
            } else if error.is_timed_out() && batch.len() == 1 {
                // A single signal: either the signal or the database may be slow.
                tracing::warn!(error = %with_sources(&error), "a signal timed out; it is spooled");
                self.keep(batch).await;
            } else {
                // One bad signal must not fail the others. Retry even a single signal. While the retention makes the table for a day, the default
                // table refuses a row of that day that has waited for the lock.
                tracing::error!(error = %with_sources(&error), signals = batch.len(), "a batch failed; the writer retries it in parts");
                self.isolate(batch).await;
            }
        }
        self.age_held().await;
    }

    /// Writes a batch in one transaction, and answers the clients. Signals whose monitors' rows are locked are kept for the next batch.
    ///
    /// A failed batch is returned. It has the numbers up to `self.position`, because its commit may have reached the database.
    async fn attempt(&mut self, batch: Vec<WaitingSignal>, limit: Option<Duration>) -> Result<(), Failed> {
        let signals: Vec<&Incoming> = batch.iter().map(|one| &*one.incoming).collect();
        let taken = async {
            let tx = match (self.limit(), limit) {
                (Some(all), _) => self.committer.store.begin_within(all).await?,
                (None, None) => self.committer.store.begin().await?,
                (None, Some(limit)) => {
                    let mut tx = self.committer.store.begin().await?;
                    deadbeat_store::operation::writer::limit_statements(&mut tx, limit).await?;
                    tx
                }
            };
            let _watch = self.suspects.watch(signals.iter().map(|one| &one.address));
            self.committer.take(tx, &signals, Held::Skip).await
        };
        let mut taken = match taken.await {
            Ok(taken) => taken,
            Err(error) => {
                self.position += batch.len() as u64;
                return Err(Failed { error, batch });
            }
        };
        let stays: Vec<bool> = taken.can_be_written().collect();
        let unreadable = taken.unreadable();
        taken.retain(&stays);
        let mut rest = batch;
        if !stays.iter().all(|stays| *stays) {
            let mut held = Vec::new();
            let all = std::mem::take(&mut rest);
            for (index, (one, stays)) in all.into_iter().zip(stays).enumerate() {
                if stays {
                    rest.push(one);
                } else if !unreadable.contains(&index) {
                    held.push(one);
                }
                // Dropping the answer gives the client of an unreadable monitor "try again".
            }
            self.hold(held);
        }
        // Only the signals of this transaction get numbers up to its place. Signals that wait for locked rows get later numbers.
        self.position += rest.len() as u64;
        let place = self.spool.as_ref().map(|spool| Place {
            writer: spool.writer(),
            number: self.position,
            is_replay: false,
        });
        let signals: Vec<&Incoming> = rest.iter().map(|one| &*one.incoming).collect();
        let watch = self.suspects.watch(signals.iter().map(|one| &one.address));
        let written = self.committer.write(taken, &signals, place).await;
        drop(watch);
        match written {
            Ok(fates) => {
                self.suspects.forgive(signals.iter().map(|one| &one.address));
                self.duty.succeeded();
                for (one, fate) in rest.into_iter().zip(fates) {
                    if let Fate::Answered(accepted) = fate {
                        self.answer(one.answer, accepted);
                    }
                }
                Ok(())
            }
            Err(error) => Err(Failed { error, batch: rest }),
        }
    }

    /// Answers one client. A client without an answer gets "try again".
    fn answer(&self, answer: oneshot::Sender<Accepted>, accepted: Accepted) {
        self.figures.count(accepted);
        // The client may have disconnected. Its signal is written all the same.
        let _ = answer.send(accepted);
    }

    /// Puts a batch into the spool, and acknowledges it. Without a spool, or if the spool cannot take the batch, the answers are dropped: every
    /// client gets "try again".
    async fn keep(&mut self, batch: Vec<WaitingSignal>) {
        self.position += batch.len() as u64;
        self.keep_numbered(batch).await;
    }

    /// Does the same for signals that already have the last numbers.
    async fn keep_numbered(&mut self, batch: Vec<WaitingSignal>) {
        let first = self.position + 1 - batch.len() as u64;
        let Some(spool) = self.spool.clone() else {
            // Do not spin while the database cannot be reached. The queue fills up, and then clients get "try again".
            tokio::time::sleep(Duration::from_millis(50)).await;
            return;
        };
        let mut kept = Vec::with_capacity(batch.len());
        let mut answers = Vec::with_capacity(batch.len());
        for WaitingSignal { incoming, answer, .. } in batch {
            match self.committer.may_accept(&incoming.address) {
                Existence::Yes => {}
                Existence::No => {
                    self.answer(answer, Accepted::Unknown { access: None });
                    continue;
                }
                Existence::Perhaps if self.trusted < MOST_TRUSTED => self.trusted += 1,
                Existence::Perhaps => continue,
            }
            kept.push(*incoming);
            answers.push(answer);
        }
        if kept.is_empty() {
            return;
        }
        match spool.append(first..=self.position, &kept).await {
            Ok(()) => {
                self.figures
                    .spooled
                    .fetch_add(kept.len() as u64, Ordering::Relaxed);
                for answer in answers {
                    let _ = answer.send(Accepted::Recorded);
                }
            }
            Err(error) => {
                tracing::error!(error = %with_sources(&error), signals = kept.len(), "signals could not be spooled");
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
    }
}
