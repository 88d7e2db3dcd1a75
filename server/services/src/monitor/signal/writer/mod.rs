//! Signals become rows: the group commit, and the spool for when the database is away.
//!
//! A writer takes what has gathered while its last commit ran, locks the monitors in id order, runs the rules in memory, writes
//! everything in a few array statements, commits, and only then answers: what is acknowledged is durable. A ping therefore costs a
//! share of a batch instead of round trips of its own, and a lone ping waits for nothing.
//!
//! Every signal has a number, and the last number that is written is part of the transaction that writes it (ADR 023).
//!
//! When the database is away, a batch goes to the spool and is acknowledged when it is on the disk. Everything after it goes there too,
//! until all of it has been replayed: the order of arrival holds. A commit whose answer was lost may have happened; such a batch is
//! spooled under the numbers that it was to be committed with, and the database says later whether it was.
//!
//! A monitor whose row another transaction has locked stops nobody else: its signals wait in memory for a moment, then aside in the spool
//! file. So does a signal that times out while others succeed.

mod aside;
mod commit;
mod held;
mod isolate;
mod replay;
mod share;
mod suspect;
#[cfg(test)]
mod tests;
mod vouch;

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
use crate::monitor::signal::ingest::{Figures, Waiting};
use crate::monitor::signal::registry::{Known, Registry};
use crate::monitor::signal::spool::Spool;
use crate::operation::duty::Duty;
use crate::operation::lane::{Lane, Suspects, Work};
use crate::operation::supervisor::Health;

/// Signals of one commit. Measured: below 64 the commits cost too much, above 512 nothing is gained.
const BATCH: usize = 512;
/// Signals that a batch is picked from while one address has more than its share: signals of other addresses must not wait until those of one
/// are written, a few with each commit. The door limits who may send more at once: connections of an address, and signals of a project's events.
const LOOKED_AT: usize = 2_048;
/// How long a batch may take, from its first statement to the answer of its commit: then the spool takes it, and the clients hear of it.
/// A replay may take as long as the store lets each of its statements: what the database is too busy for now must not come back for ever.
pub const ACKNOWLEDGED_WITHIN: Duration = Duration::from_secs(1);
/// How often the database is asked whether it is back.
const PROBE: Duration = Duration::from_millis(250);
/// Between two tries of a spool file that cannot be read.
const UNREADABLE_PAUSE: Duration = Duration::from_secs(1);
/// Between two tries of signals whose monitors' rows are locked, when nothing else comes.
const HELD_PAUSE: Duration = Duration::from_millis(10);
/// For how long a signal waits in memory for a locked row. Its client waits as long for the answer.
const HELD: Duration = Duration::from_secs(1);
/// Signals that wait so. They are beside the queue, which has its own limit.
const MOST_HELD: usize = 2_048;
/// How long a statement may take while a bad signal is looked for: it must not hold the lane for the whole limit again.
const ALONE: Duration = Duration::from_secs(1);
/// Signals for ids that nobody can vouch for, kept on trust in one outage. The replay drops those that were noise.
const MOST_TRUSTED: usize = 10_000;

/// The writers of a process, one a lane.
pub struct Writers {
    pub(crate) lanes: Vec<Lane<Writer>>,
    pub(crate) health: Health,
}

impl Writers {
    /// Writes until it is told to stop, then what is still waiting.
    ///
    /// A writer that panics is started again. The clients of the batch that it held hear "try again"; what waits in its queue is written
    /// by the next start. It goes on with its own numbers: with those of its spool, what is committed already would hide what comes.
    pub async fn run(self, stop: CancellationToken) {
        let running: Vec<_> = self
            .lanes
            .into_iter()
            .map(|lane| lane.keep_writing(self.health.clone(), stop.clone()))
            .collect();
        for ended in running {
            if let Err(error) = ended.await {
                tracing::error!(error = %with_sources(&error), "a writer broke off");
            }
        }
    }
}

/// The one that writes a lane's signals.
pub(crate) struct Writer {
    committer: Committer,
    figures: Arc<Figures>,
    spool: Option<Spool>,
    /// The last number that was given to a signal.
    position: u64,
    /// Signals for monitors whose rows are locked, in the order of arrival. They are tried again with the next batch.
    held: Vec<Waiting>,
    /// Signals that were taken from the queue and wait for the next batch, in the order of arrival: their address had its share of this one.
    later: Vec<Waiting>,
    /// Signals of the next transaction of a replay: fewer while one that cannot be written is looked for.
    replayed: usize,
    /// What goes to the spool in this outage on trust.
    trusted: usize,
    /// Asks whether the database is back, beside the work: an answer may take seconds.
    probe: Option<JoinHandle<bool>>,
    /// Addresses whose signals were being written when the writer panicked.
    suspects: Suspects<Address>,
    duty: Duty,
}

impl Work for Writer {
    type One = Waiting;
    const BATCH: usize = BATCH;
    const LOOKED_AT: usize = LOOKED_AT;
    const AT_ONCE: usize = BATCH;

    async fn begin(&mut self, waiting: &mut mpsc::Receiver<Waiting>, stop: &CancellationToken) -> bool {
        self.go_on(waiting, stop).await
    }

    /// What is set aside is tried again.
    fn beside(&self, stop: CancellationToken) -> impl Future<Output = ()> + Send + 'static {
        let retries = self.retries();
        async move {
            if let Some(retries) = retries {
                retries.run(stop).await;
            }
        }
    }

    fn left(&mut self) -> Vec<Waiting> {
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

    async fn write(&mut self, batch: Vec<Waiting>) {
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
    batch: Vec<Waiting>,
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
        figures: Arc<Figures>,
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

    /// What an earlier process left comes first, and its numbers go on. A file that fails is tried again: what it holds is acknowledged,
    /// and nobody is judged before it is written. False: told to stop before it could be read.
    async fn go_on(&mut self, waiting: &mut mpsc::Receiver<Waiting>, stop: &CancellationToken) -> bool {
        // An empty file has nothing to say: its name is new, or this process gave the numbers itself.
        while let Some(spool) = self.spool.clone().filter(|spool| spool.signals() > 0) {
            match spool.last_position().await {
                Ok(last) => {
                    self.position = self.position.max(last.unwrap_or(0));
                    return true;
                }
                Err(error) => {
                    tracing::error!(error = %with_sources(&error), "the spool cannot be read; it is tried again");
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
            // Without an answer the clients hear "try again".
            while waiting.try_recv().is_ok() {}
        }
        true
    }

    /// Writes of each address its share; the rest waits for the next batch.
    async fn write_share(&mut self, batch: Vec<Waiting>) {
        let (batch, later) = share::split(batch);
        self.later = later;
        self.write_now(batch).await;
        if self.is_behind() {
            self.catch_up().await;
        }
    }

    /// How long a batch may take. Without a spool nothing is gained by giving it up: it may yet be committed.
    fn limit(&self) -> Option<Duration> {
        self.spool.as_ref().map(|_| ACKNOWLEDGED_WITHIN)
    }

    /// Something is in the spool: what comes now goes behind it.
    fn is_behind(&self) -> bool {
        self.spool.as_ref().is_some_and(|spool| spool.signals() > 0)
    }

    async fn write_now(&mut self, new: Vec<Waiting>) {
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
                // Nothing says whether this signal is slow or the database.
                tracing::warn!(error = %with_sources(&error), "a signal timed out; it is spooled");
                self.keep(batch).await;
            } else {
                // One bad signal must not fail the others. A single one is tried again, too: while retention makes the table of its
                // day, the table of all other days refuses the row that waited for it.
                tracing::error!(error = %with_sources(&error), signals = batch.len(), "a batch failed; it is tried in parts");
                self.isolate(batch).await;
            }
        }
        self.age_held().await;
    }

    /// Writes a batch in one transaction and answers. Signals for monitors whose rows are locked are held.
    ///
    /// A failed batch comes back with the numbers up to `self.position`, which its commit may have brought to the database.
    async fn attempt(&mut self, batch: Vec<Waiting>, limit: Option<Duration>) -> Result<(), Failed> {
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
                // Without an answer the client of an unreadable monitor hears "try again".
            }
            self.hold(held);
        }
        // Only what this transaction writes has numbers up to its place: what is held gets later ones.
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

    /// Answers one client; without an answer it hears "try again".
    fn answer(&self, answer: oneshot::Sender<Accepted>, accepted: Accepted) {
        self.figures.count(accepted);
        // The client may have gone; its signal is written all the same.
        let _ = answer.send(accepted);
    }

    /// Puts a batch into the spool and acknowledges it. Without a spool, or when that cannot take it, the answers are dropped: every
    /// client hears "try again".
    async fn keep(&mut self, batch: Vec<Waiting>) {
        self.position += batch.len() as u64;
        self.keep_numbered(batch).await;
    }

    /// The same, of signals that have the last numbers.
    async fn keep_numbered(&mut self, batch: Vec<Waiting>) {
        let first = self.position + 1 - batch.len() as u64;
        let Some(spool) = self.spool.clone() else {
            // Do not spin while the database is away; the queue fills and says so.
            tokio::time::sleep(Duration::from_millis(50)).await;
            return;
        };
        let mut kept = Vec::with_capacity(batch.len());
        let mut answers = Vec::with_capacity(batch.len());
        for Waiting { incoming, answer, .. } in batch {
            match self.committer.vouch(&incoming.address) {
                Known::Yes => {}
                Known::No => {
                    self.answer(answer, Accepted::Unknown { access: None });
                    continue;
                }
                Known::Perhaps if self.trusted < MOST_TRUSTED => self.trusted += 1,
                Known::Perhaps => continue,
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
