//! Signals become rows: the group commit, and the spool for when the database is away.
//!
//! A writer takes what has gathered while its last commit ran, locks the monitors in id order, runs the rules in memory, writes
//! everything in a few array statements, commits, and only then answers: what is acknowledged is durable. A ping therefore costs a
//! share of a batch instead of round trips of its own, and a lone ping waits for nothing.
//!
//! When the database is away, a batch goes to the spool and is acknowledged when it is on the disk. Everything after it goes there too,
//! until all of it has been replayed: the order of arrival holds. A commit whose answer was lost may have happened; such a batch is
//! spooled under the number that it was to be committed with, and the database says later whether it was.

mod commit;
mod replay;
mod vouch;

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use chrono::{DateTime, Utc};
use deadbeat_domain::time::Clock;
use deadbeat_store::{Store, with_sources};
use tokio::sync::{Notify, mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::Site;
use crate::ingest::{Accepted, Figures, Incoming, Waiting};
use crate::registry::{Known, Registry};
use crate::spool::Spool;

/// Signals of one commit. Measured: below 64 the commits cost too much, above 512 nothing is gained.
const BATCH: usize = 512;
/// How long a batch may take, from its first statement to the answer of its commit: then the spool takes it, and the clients hear of it.
/// A replay may take as long as the store lets each of its statements: what the database is too busy for now must not come back for ever.
const ACKNOWLEDGED_WITHIN: Duration = Duration::from_secs(1);
/// How often the database is asked whether it is back.
const PROBE: Duration = Duration::from_millis(250);
/// Signals for ids that nobody can vouch for, kept on trust in one outage. The replay drops those that were noise.
const MOST_TRUSTED: usize = 10_000;

/// The writers of a process, one a lane.
pub struct Writers(pub(crate) Vec<Writer>);

impl Writers {
    /// Writes until it is told to stop, then what is still waiting.
    pub async fn run(self, stop: CancellationToken) {
        let running: Vec<_> = self
            .0
            .into_iter()
            .map(|writer| tokio::spawn(writer.run(stop.clone())))
            .collect();
        for ended in running {
            if let Err(error) = ended.await {
                tracing::error!(%error, "a writer broke off");
            }
        }
    }
}

/// The one that writes a lane's signals.
pub(crate) struct Writer {
    store: Store,
    clock: Arc<dyn Clock>,
    site: Site,
    outbox_bell: Arc<Notify>,
    waiting: mpsc::Receiver<Waiting>,
    figures: Arc<Figures>,
    registry: Registry,
    spool: Option<Spool>,
    /// Numbers batches; the last one that was tried.
    position: u64,
    /// What goes to the spool in this outage on trust.
    trusted: usize,
    /// Asks whether the database is back, beside the work: an answer may take seconds.
    probe: Option<JoinHandle<bool>>,
    /// When a ping key's last use was last written: once a minute is enough.
    touched: HashMap<Vec<u8>, DateTime<Utc>>,
    /// Keys and slugs that were resolved, for when the database cannot be asked.
    slugs: HashSet<(Vec<u8>, String)>,
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
        waiting: mpsc::Receiver<Waiting>,
        figures: Arc<Figures>,
        registry: Registry,
        spool: Option<Spool>,
    ) -> Self {
        Self {
            store,
            clock,
            site,
            outbox_bell,
            waiting,
            figures,
            registry,
            spool,
            position: 0,
            trusted: 0,
            probe: None,
            touched: HashMap::new(),
            slugs: HashSet::new(),
        }
    }

    /// Writes until it is told to stop, then what is still waiting.
    async fn run(mut self, stop: CancellationToken) {
        // What an earlier process left comes first, and its numbers go on.
        if let Some(spool) = &self.spool {
            match spool.last_position().await {
                Ok(last) => self.position = last.unwrap_or(0),
                Err(error) => {
                    tracing::error!(%error, "the spool cannot be read; it is not used");
                    self.spool = None;
                }
            }
        }
        let mut batch = Vec::with_capacity(BATCH);
        loop {
            let is_behind = self.is_behind();
            let taken = tokio::select! {
                biased;
                taken = self.waiting.recv_many(&mut batch, BATCH) => taken,
                () = stop.cancelled(), if !self.waiting.is_closed() => {
                    // No new ones; `recv_many` gives what is left and then 0.
                    self.waiting.close();
                    continue;
                }
                () = tokio::time::sleep(PROBE), if is_behind => {
                    self.catch_up().await;
                    continue;
                }
            };
            if taken == 0 {
                return;
            }
            self.write(std::mem::take(&mut batch)).await;
            if self.is_behind() {
                self.catch_up().await;
            }
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

    async fn write(&mut self, batch: Vec<Waiting>) {
        if self.is_behind() {
            self.position += 1;
            self.keep(self.position, batch).await;
            return;
        }
        let (incoming, answers): (Vec<_>, Vec<_>) = batch.into_iter().map(|w| (w.incoming, w.answer)).unzip();
        self.figures.batches.fetch_add(1, Ordering::Relaxed);
        self.position += 1;
        let signals: Vec<&Incoming> = incoming.iter().collect();
        match self.commit(&signals, self.position, self.limit()).await {
            Ok(accepted) => {
                for (answer, accepted) in answers.into_iter().zip(accepted) {
                    self.answer(answer, accepted);
                }
            }
            Err(error) if error.is_unavailable() => {
                tracing::warn!(error = %with_sources(&error), signals = incoming.len(), "signals could not be written");
                let batch = incoming
                    .into_iter()
                    .zip(answers)
                    .map(|(incoming, answer)| Waiting { incoming, answer })
                    .collect();
                self.keep(self.position, batch).await;
            }
            // One bad signal must not fail the others: once each on its own. A single one is tried again, too: while retention makes
            // the table of its day, the table of all other days refuses the row that waited for it.
            Err(error) => {
                tracing::error!(error = %with_sources(&error), signals = incoming.len(), "a batch failed; its signals are tried one by one");
                for (one, answer) in incoming.into_iter().zip(answers) {
                    self.write_one(one, answer).await;
                }
            }
        }
    }

    async fn write_one(&mut self, incoming: Incoming, answer: oneshot::Sender<Accepted>) {
        self.position += 1;
        match self.commit(&[&incoming], self.position, self.limit()).await {
            Ok(accepted) => self.answer(answer, accepted.into_iter().next().flatten()),
            Err(error) if error.is_unavailable() => {
                self.keep(self.position, vec![Waiting { incoming, answer }]).await;
            }
            Err(error) => tracing::error!(error = %with_sources(&error), "a signal could not be written"),
        }
    }

    /// Answers one client; without an answer it hears "try again".
    fn answer(&self, answer: oneshot::Sender<Accepted>, accepted: Option<Accepted>) {
        let Some(accepted) = accepted else { return };
        let figure = match accepted {
            Accepted::Recorded => &self.figures.recorded,
            Accepted::Unknown { .. } => &self.figures.unknown,
        };
        figure.fetch_add(1, Ordering::Relaxed);
        // The client may have gone; its signal is written all the same.
        let _ = answer.send(accepted);
    }

    /// Puts a batch into the spool and acknowledges it. Without a spool, or when that cannot take it, the answers are dropped: every
    /// client hears "try again".
    async fn keep(&mut self, position: u64, batch: Vec<Waiting>) {
        let Some(spool) = self.spool.clone() else {
            // Do not spin while the database is away; the queue fills and says so.
            tokio::time::sleep(Duration::from_millis(50)).await;
            return;
        };
        let mut kept = Vec::with_capacity(batch.len());
        let mut answers = Vec::with_capacity(batch.len());
        for Waiting { incoming, answer } in batch {
            match self.vouch(&incoming.address) {
                Known::Yes => {}
                Known::No => {
                    self.answer(answer, Some(Accepted::Unknown { project: None }));
                    continue;
                }
                Known::Perhaps if self.trusted < MOST_TRUSTED => self.trusted += 1,
                Known::Perhaps => continue,
            }
            kept.push(incoming);
            answers.push(answer);
        }
        if kept.is_empty() {
            return;
        }
        match spool.append(position, &kept).await {
            Ok(()) => {
                self.figures
                    .spooled
                    .fetch_add(kept.len() as u64, Ordering::Relaxed);
                for answer in answers {
                    let _ = answer.send(Accepted::Recorded);
                }
            }
            Err(error) => {
                tracing::error!(%error, signals = kept.len(), "signals could not be spooled");
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
    }
}
