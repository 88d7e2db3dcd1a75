//! Signals become rows: the group commit.
//!
//! Requests wait in a bounded queue. One writer takes what has gathered while the last commit ran, locks the monitors in id order,
//! runs the rules in memory, writes everything in a few array statements, commits, and only then answers: what is acknowledged is
//! durable. A ping therefore costs a share of a batch instead of round trips of its own, and a lone ping waits for nothing.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use deadbeat_domain::ids::{MonitorId, PingId, ProjectId, RunKey};
use deadbeat_domain::limits;
use deadbeat_domain::ping::Signal;
use deadbeat_domain::time::Clock;
use deadbeat_domain::transition::on_ping;
use deadbeat_store::batch::Batch;
use deadbeat_store::monitor::Monitor;
use deadbeat_store::ping::NewPing;
use deadbeat_store::{Store, StoreResult, Tx};
use thiserror::Error;
use tokio::sync::{Notify, mpsc, oneshot};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::incident::{self, Changed, News, What};
use crate::{Site, secret};

/// Signals that may wait. More is refused with "try again": never silence, never unbounded memory.
const QUEUE: usize = 8_192;
/// Signals of one commit. Measured: below 64 the commits cost too much, above 512 nothing is gained.
const BATCH: usize = 512;

/// Whom a signal is for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Address {
    /// `/ping/<uuid>`
    Ping(PingId),
    /// `/ping/<ping key>/<slug>`; the key's digest, since the key itself goes no further.
    Slug {
        /// SHA-256 of the ping key.
        digest: Vec<u8>,
        /// The monitor's slug.
        slug: String,
    },
    /// A monitor that the caller has looked up within its own project.
    Monitor(MonitorId),
}

impl Address {
    /// A ping key and a slug.
    #[must_use]
    pub fn slug(key: &str, slug: &str) -> Self {
        Self::Slug {
            digest: secret::digest(key),
            slug: slug.to_owned(),
        }
    }
}

/// A signal with what came around it.
#[derive(Debug, Clone)]
pub struct Incoming {
    /// Whom it is for.
    pub address: Address,
    /// What the rules see.
    pub signal: Signal,
    /// HTTP method.
    pub method: Option<String>,
    /// Where it came from.
    pub remote_addr: Option<String>,
    /// The client's name for itself.
    pub user_agent: Option<String>,
    /// The body; cut to the limit here.
    pub body: Vec<u8>,
}

/// What became of a signal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Accepted {
    /// It is written and committed.
    Recorded,
    /// Nobody is called that. The project is known when a valid ping key came with the slug.
    Unknown {
        /// Whose ping key it was.
        project: Option<ProjectId>,
    },
}

/// Why a signal was not taken: it can be sent again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum IngestError {
    /// The queue is full.
    #[error("too many signals are waiting")]
    Full,
    /// The database is away, or the server is stopping.
    #[error("the database is away")]
    Unavailable,
}

/// Figures for metrics.
#[derive(Debug, Default)]
pub struct Figures {
    /// Signals written.
    pub recorded: AtomicU64,
    /// Signals for nobody.
    pub unknown: AtomicU64,
    /// Signals refused: queue full or database away.
    pub refused: AtomicU64,
    /// Transactions.
    pub batches: AtomicU64,
    /// Signals in the spool, now.
    pub spooled: AtomicU64,
}

struct Waiting {
    incoming: Incoming,
    answer: oneshot::Sender<Accepted>,
}

/// The door for signals. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Ingest {
    queue: mpsc::Sender<Waiting>,
    figures: Arc<Figures>,
}

impl Ingest {
    /// The door, and the writer behind it, which must be [`Writer::run`].
    #[must_use]
    pub fn new(store: Store, clock: Arc<dyn Clock>, site: Site, outbox_bell: Arc<Notify>) -> (Self, Writer) {
        let (queue, waiting) = mpsc::channel(QUEUE);
        let figures = Arc::new(Figures::default());
        let writer = Writer {
            store,
            clock,
            site,
            outbox_bell,
            waiting,
            figures: Arc::clone(&figures),
            touched: HashMap::new(),
        };
        (Self { queue, figures }, writer)
    }

    /// Takes one signal in; returns when it is committed.
    ///
    /// # Errors
    /// Nothing was written, and the client should try again.
    pub async fn accept(&self, mut incoming: Incoming) -> Result<Accepted, IngestError> {
        incoming.body.truncate(limits::PING_BODY_BYTES);
        let (answer, answered) = oneshot::channel();
        let refuse = |error: IngestError| {
            self.figures.refused.fetch_add(1, Ordering::Relaxed);
            error
        };
        self.queue
            .try_send(Waiting { incoming, answer })
            .map_err(|error| match error {
                mpsc::error::TrySendError::Full(_) => refuse(IngestError::Full),
                mpsc::error::TrySendError::Closed(_) => refuse(IngestError::Unavailable),
            })?;
        // A dropped answer means that its batch failed.
        answered.await.map_err(|_| refuse(IngestError::Unavailable))
    }

    /// Signals that wait.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.queue.max_capacity() - self.queue.capacity()
    }

    /// Signals in the spool that are not in the database yet.
    #[must_use]
    pub fn spooled(&self) -> u64 {
        self.figures.spooled.load(Ordering::Relaxed)
    }

    /// Figures for metrics.
    #[must_use]
    pub fn figures(&self) -> &Figures {
        &self.figures
    }
}

/// The one that writes.
pub struct Writer {
    store: Store,
    clock: Arc<dyn Clock>,
    site: Site,
    outbox_bell: Arc<Notify>,
    waiting: mpsc::Receiver<Waiting>,
    figures: Arc<Figures>,
    /// When a ping key's last use was last written: once a minute is enough.
    touched: HashMap<Vec<u8>, DateTime<Utc>>,
}

impl Writer {
    /// Writes until it is told to stop, then what is still waiting.
    pub async fn run(mut self, stop: CancellationToken) {
        let mut batch = Vec::with_capacity(BATCH);
        loop {
            let taken = tokio::select! {
                biased;
                taken = self.waiting.recv_many(&mut batch, BATCH) => taken,
                () = stop.cancelled(), if !self.waiting.is_closed() => {
                    // No new ones; `recv_many` gives what is left and then 0.
                    self.waiting.close();
                    continue;
                }
            };
            if taken == 0 {
                return;
            }
            self.write(std::mem::take(&mut batch)).await;
        }
    }

    async fn write(&mut self, batch: Vec<Waiting>) {
        let (incoming, answers): (Vec<_>, Vec<_>) = batch.into_iter().map(|w| (w.incoming, w.answer)).unzip();
        self.figures.batches.fetch_add(1, Ordering::Relaxed);
        match self.commit(&incoming).await {
            Ok(accepted) => {
                for (answer, accepted) in answers.into_iter().zip(accepted) {
                    self.answer(answer, accepted);
                }
            }
            // The answers are dropped: every client hears "try again".
            Err(error) if error.is_unavailable() => {
                tracing::warn!(%error, signals = incoming.len(), "signals could not be written");
                // Do not spin while the database is away; the queue fills and says so.
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
            // One bad signal must not fail the others: once each on its own.
            Err(error) if incoming.len() > 1 => {
                tracing::error!(%error, signals = incoming.len(), "a batch failed; its signals are tried one by one");
                for (one, answer) in incoming.iter().zip(answers) {
                    match self.commit(std::slice::from_ref(one)).await {
                        Ok(accepted) => self.answer(answer, accepted.into_iter().next().flatten()),
                        Err(error) => tracing::error!(%error, "a signal could not be written"),
                    }
                }
            }
            Err(error) => tracing::error!(%error, "a signal could not be written"),
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

    /// Writes a batch in one transaction. The answers are in the order of the signals.
    ///
    /// A signal has no answer (its client hears "try again") when it may be for a monitor whose row cannot be read.
    async fn commit(&mut self, incoming: &[Incoming]) -> StoreResult<Vec<Option<Accepted>>> {
        let mut tx = self.store.begin().await?;
        let targets = self.resolve(&mut tx, incoming).await?;

        let ping_ids: Vec<Uuid> = incoming
            .iter()
            .filter_map(|one| match &one.address {
                Address::Ping(id) => Some(id.0),
                Address::Slug { .. } | Address::Monitor(_) => None,
            })
            .collect();
        let ids: Vec<Uuid> = targets
            .iter()
            .filter_map(|target| target.monitor.map(|id| id.0))
            .collect();
        let mut monitors: Vec<Monitor> = Vec::new();
        let mut by_id = HashMap::new();
        let mut by_ping_id = HashMap::new();
        let mut any_unreadable = false;
        for row in deadbeat_store::monitor::lock_for_signals(&mut tx, &ping_ids, &ids).await? {
            match row {
                Ok(monitor) => {
                    by_id.insert(monitor.id, monitors.len());
                    by_ping_id.insert(monitor.ping_id, monitors.len());
                    monitors.push(monitor);
                }
                Err(unreadable) => {
                    any_unreadable = true;
                    tracing::error!(monitor.id = %unreadable.id, error = %unreadable.error, "a monitor cannot be read");
                }
            }
        }
        let run_ids: Vec<Uuid> = incoming.iter().filter_map(|one| one.signal.run_id).collect();
        deadbeat_store::run::load_into(&mut tx, &mut monitors, &run_ids).await?;

        let mut accepted = Vec::with_capacity(incoming.len());
        let mut batch = Batch::default();
        // In the order of the signals: a failure that a success follows must not open its incident after that one has resolved it.
        let mut happened: Vec<(Monitor, &Signal, What)> = Vec::new();
        let mut changed_runs: HashSet<RunKey> = HashSet::new();
        for (one, target) in incoming.iter().zip(&targets) {
            let place = match &one.address {
                Address::Ping(id) => by_ping_id.get(id),
                Address::Slug { .. } | Address::Monitor(_) => target.monitor.and_then(|id| by_id.get(&id)),
            };
            let Some(&place) = place else {
                accepted.push((!any_unreadable).then_some(Accepted::Unknown {
                    project: target.project,
                }));
                continue;
            };
            let monitor = &mut monitors[place];
            let effect = on_ping(&mut monitor.state, &one.signal);
            batch.pings.push(new_ping(monitor, one));
            changed_runs.extend(effect.runs);
            if effect.failed_again {
                let failed = What::FailedAgain(one.signal.received_at);
                happened.push((monitor.clone(), &one.signal, failed));
            }
            if let Some(transition) = effect.transition {
                happened.push((monitor.clone(), &one.signal, What::Transition(transition)));
            }
            accepted.push(Some(Accepted::Recorded));
        }
        if batch.pings.is_empty() {
            return Ok(accepted);
        }

        for monitor in &mut monitors {
            monitor.open_runs = i32::try_from(monitor.state.open_runs()).unwrap_or(i32::MAX);
            let changed = monitor
                .state
                .runs
                .iter()
                .filter(|run| changed_runs.contains(&run.key));
            batch.runs.extend(changed.map(|run| (monitor.id, run.clone())));
        }
        batch.monitors = monitors;
        deadbeat_store::batch::write(&mut tx, &batch).await?;
        let news: Vec<News<'_>> = happened
            .iter()
            .map(|(monitor, signal, what)| News {
                changed: Changed::Signalled(monitor, signal),
                what: *what,
            })
            .collect();
        incident::record(&mut tx, &self.site, &news).await?;
        tx.commit().await?;
        if !news.is_empty() {
            self.outbox_bell.notify_one();
        }
        Ok(accepted)
    }

    /// Finds out which monitors are meant by key and slug, and notes that the keys were used.
    async fn resolve(&mut self, tx: &mut Tx, incoming: &[Incoming]) -> StoreResult<Vec<Target>> {
        let mut targets: Vec<Target> = incoming
            .iter()
            .map(|one| Target {
                project: None,
                monitor: if let Address::Monitor(id) = one.address {
                    Some(id)
                } else {
                    None
                },
            })
            .collect();
        let asked: Vec<(usize, &Vec<u8>, &String)> = incoming
            .iter()
            .enumerate()
            .filter_map(|(index, one)| match &one.address {
                Address::Slug { digest, slug } => Some((index, digest, slug)),
                Address::Ping(_) | Address::Monitor(_) => None,
            })
            .collect();
        if asked.is_empty() {
            return Ok(targets);
        }
        let digests: Vec<Vec<u8>> = asked.iter().map(|(_, digest, _)| (*digest).clone()).collect();
        let slugs: Vec<String> = asked.iter().map(|(_, _, slug)| (*slug).clone()).collect();
        let now = self.clock.now();
        let mut used = HashSet::new();
        for resolved in deadbeat_store::monitor::resolve_slugs(tx, &digests, &slugs).await? {
            let Some((index, digest, _)) = asked.get(resolved.index) else {
                continue;
            };
            targets[*index] = Target {
                project: Some(resolved.project_id),
                monitor: resolved.monitor_id,
            };
            if self
                .touched
                .get(*digest)
                .is_none_or(|at| now - *at >= TimeDelta::minutes(1))
            {
                used.insert((*digest).clone());
            }
        }
        if !used.is_empty() {
            let mut used: Vec<Vec<u8>> = used.into_iter().collect();
            used.sort();
            deadbeat_store::api_key::touch(tx, &used, now).await?;
            // Only valid keys come in here, but a project may make many.
            if self.touched.len() > 10_000 {
                self.touched.clear();
            }
            self.touched.extend(used.into_iter().map(|digest| (digest, now)));
        }
        Ok(targets)
    }
}

struct Target {
    project: Option<ProjectId>,
    monitor: Option<MonitorId>,
}

fn new_ping(monitor: &Monitor, incoming: &Incoming) -> NewPing {
    let signal = &incoming.signal;
    NewPing {
        monitor_id: monitor.id,
        n: monitor.state.ping_count,
        received_at: signal.received_at,
        kind: signal.kind,
        run_id: signal.run_id,
        exit_code: signal.exit_code,
        source: signal.source,
        method: incoming.method.as_deref().map(clip),
        remote_addr: incoming.remote_addr.as_deref().map(clip),
        user_agent: incoming.user_agent.as_deref().map(clip),
        body: incoming.body.clone(),
    }
}

/// Cuts a header to what is kept, and leaves out NUL, which PostgreSQL's text cannot hold.
fn clip(text: &str) -> String {
    text.chars()
        .filter(|c| *c != '\0')
        .take(limits::HEADER_CHARS)
        .collect()
}
