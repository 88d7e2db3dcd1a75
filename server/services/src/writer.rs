//! Signals become rows: the group commit, and the spool for when the database is away.
//!
//! A writer takes what has gathered while its last commit ran, locks the monitors in id order, runs the rules in memory, writes
//! everything in a few array statements, commits, and only then answers: what is acknowledged is durable. A ping therefore costs a
//! share of a batch instead of round trips of its own, and a lone ping waits for nothing.
//!
//! When the database is away, a batch goes to the spool and is acknowledged when it is on the disk. Everything after it goes there too,
//! until all of it has been replayed: the order of arrival holds. A commit whose answer was lost may have happened; such a batch is
//! spooled under the number that it was to be committed with, and the database says later whether it was.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use deadbeat_domain::ids::{BeatId, MonitorId, ProjectId, RunKey};
use deadbeat_domain::limits;
use deadbeat_domain::ping::Signal;
use deadbeat_domain::time::Clock;
use deadbeat_domain::transition::{forget_times_to_come, on_ping};
use deadbeat_store::batch::Batch;
use deadbeat_store::monitor::{Heard, Monitor, Stateful};
use deadbeat_store::ping::NewPing;
use deadbeat_store::{Store, StoreError, StoreResult, Tx};
use tokio::sync::{Notify, mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::Site;
use crate::incident::{self, Changed, News, What};
use crate::ingest::{Accepted, Address, Figures, Incoming, Waiting};
use crate::registry::{Known, Registry};
use crate::spool::{Spool, SpoolError, Spooled};

/// Signals of one commit. Measured: below 64 the commits cost too much, above 512 nothing is gained.
const BATCH: usize = 512;
/// How often the database is asked whether it is back.
const PROBE: Duration = Duration::from_millis(250);
/// For how long the spool is replayed before those who arrive meanwhile are attended to.
const REPLAY_SHARE: Duration = Duration::from_millis(200);
/// Signals for ids that nobody can vouch for, kept on trust in one outage. The replay drops those that were noise.
const MOST_TRUSTED: usize = 10_000;
/// Addresses by key and slug that are remembered as real.
const MOST_SLUGS: usize = 200_000;

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
        match self.commit(&signals, self.position).await {
            Ok(accepted) => {
                for (answer, accepted) in answers.into_iter().zip(accepted) {
                    self.answer(answer, accepted);
                }
            }
            Err(error) if error.is_unavailable() => {
                tracing::warn!(%error, signals = incoming.len(), "signals could not be written");
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
                tracing::error!(%error, signals = incoming.len(), "a batch failed; its signals are tried one by one");
                for (one, answer) in incoming.into_iter().zip(answers) {
                    self.write_one(one, answer).await;
                }
            }
        }
    }

    async fn write_one(&mut self, incoming: Incoming, answer: oneshot::Sender<Accepted>) {
        self.position += 1;
        match self.commit(&[&incoming], self.position).await {
            Ok(accepted) => self.answer(answer, accepted.into_iter().next().flatten()),
            Err(error) if error.is_unavailable() => {
                self.keep(self.position, vec![Waiting { incoming, answer }]).await;
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

    /// Whether a signal is for somebody, as far as can be told without the database.
    fn vouch(&self, address: &Address) -> Known {
        match address {
            Address::Ping(id) => self.registry.knows(*id),
            Address::Slug { digest, slug } => {
                if self.slugs.contains(&(digest.clone(), slug.clone())) {
                    Known::Yes
                } else {
                    Known::Perhaps
                }
            }
        }
    }

    /// Replays what is in the spool, when the database is back.
    async fn catch_up(&mut self) {
        match self.probe.take_if(|probe| probe.is_finished()) {
            Some(probe) => {
                if !probe.await.unwrap_or(false) {
                    return;
                }
            }
            None => {
                if self.probe.is_none() {
                    let reader = self.store.reader();
                    self.probe = Some(tokio::spawn(async move { reader.check().await.is_ok() }));
                }
                return;
            }
        }
        let began = tokio::time::Instant::now();
        while self.is_behind() && began.elapsed() < REPLAY_SHARE {
            match self.replay_once().await {
                Ok(true) => {}
                Ok(false) => return,
                Err(error) => {
                    tracing::error!(%error, "the spool cannot be replayed");
                    return;
                }
            }
        }
        if self.is_behind() {
            // It was there a moment ago: go on without asking.
            self.probe = Some(tokio::spawn(async { true }));
            tokio::task::yield_now().await;
        } else {
            self.trusted = 0;
            tracing::info!("the spool is replayed");
        }
    }

    /// Replays the oldest batches of the spool in one transaction. False: the database is away again.
    async fn replay_once(&mut self) -> Result<bool, SpoolError> {
        let Some(spool) = self.spool.clone() else {
            return Ok(false);
        };
        let oldest = spool.oldest(BATCH).await?;
        let Some(last) = oldest.last().map(|spooled| spooled.position) else {
            return Ok(false);
        };
        let (tx, done) = match self.lock_position(spool.writer()).await {
            Ok(locked) => locked,
            Err(error) => {
                tracing::warn!(%error, "the spool cannot be replayed yet");
                return Ok(false);
            }
        };
        // Committed after all, and only the answer was lost.
        let due: Vec<&Spooled> = oldest.iter().filter(|spooled| spooled.position > done).collect();
        let signals: Vec<&Incoming> = due.iter().map(|spooled| &spooled.incoming).collect();
        if !signals.is_empty() {
            match self.commit_in(tx, &signals, last).await {
                Ok(accepted) => self.count_replayed(&accepted),
                Err(error) if error.is_unavailable() => return Ok(false),
                Err(error) => {
                    tracing::error!(%error, signals = signals.len(), "a spooled batch failed; its signals are tried one by one");
                    if !self.replay_one_by_one(&signals, last).await {
                        return Ok(false);
                    }
                }
            }
        }
        spool.forget(last).await?;
        Ok(true)
    }

    /// How far this spool's writer has come, and a transaction that keeps it there.
    async fn lock_position(&self, writer: Uuid) -> StoreResult<(Tx, u64)> {
        let mut tx = self.store.begin().await?;
        let done = deadbeat_store::writer::lock_position(&mut tx, writer).await?;
        Ok((tx, done))
    }

    /// What cannot be written is reported and dropped: it would stop everything behind it for ever. False: the database is away.
    async fn replay_one_by_one(&mut self, signals: &[&Incoming], position: u64) -> bool {
        for (index, one) in signals.iter().enumerate() {
            // The place is advanced with the last one only: until then the whole batch would be tried again.
            let is_last = index + 1 == signals.len();
            match self.commit(&[*one], if is_last { position } else { 0 }).await {
                Ok(accepted) => self.count_replayed(&accepted),
                Err(error) if error.is_unavailable() => return false,
                Err(error) => tracing::error!(%error, "a spooled signal cannot be written and is dropped"),
            }
        }
        true
    }

    fn count_replayed(&self, accepted: &[Option<Accepted>]) {
        for one in accepted.iter().flatten() {
            let figure = match one {
                Accepted::Recorded => &self.figures.recorded,
                Accepted::Unknown { .. } => &self.figures.unknown,
            };
            figure.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Writes a batch in one transaction. The answers are in the order of the signals.
    ///
    /// A signal has no answer (its client hears "try again") when it may be for a monitor whose row cannot be read.
    async fn commit(&mut self, incoming: &[&Incoming], position: u64) -> StoreResult<Vec<Option<Accepted>>> {
        let tx = self.store.begin().await?;
        self.commit_in(tx, incoming, position).await
    }

    async fn commit_in(
        &mut self,
        mut tx: Tx,
        incoming: &[&Incoming],
        position: u64,
    ) -> StoreResult<Vec<Option<Accepted>>> {
        let targets = self.resolve(&mut tx, incoming).await?;

        let mut ids: Vec<Uuid> = targets
            .iter()
            .filter_map(|target| target.monitor.map(|id| id.0))
            .collect();
        // One look-up by the primary key where the id behind the ping URL is known.
        let mut ping_ids: Vec<Uuid> = Vec::new();
        for one in incoming {
            if let Address::Ping(ping) = one.address {
                match self.registry.monitor_of(ping) {
                    Some(id) => ids.push(id.0),
                    None => ping_ids.push(ping.0),
                }
            }
        }
        let mut monitors: Vec<Heard> = Vec::new();
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
        self.registry
            .learn(monitors.iter().map(|monitor| (monitor.ping_id, monitor.id)));
        let run_ids: Vec<Uuid> = incoming.iter().filter_map(|one| one.signal.run_id).collect();
        deadbeat_store::run::load_into(&mut tx, &mut monitors, &run_ids).await?;

        let mut accepted = Vec::with_capacity(incoming.len());
        let writer = self.spool.as_ref().map(Spool::writer);
        let mut batch = Batch {
            writer: writer.map(|writer| (writer, position)),
            ..Batch::default()
        };
        // In the order of the signals: a failure that a success follows must not open its incident after that one has resolved it.
        let mut happened: Vec<(Heard, &Signal, What)> = Vec::new();
        let mut changed_runs: HashSet<RunKey> = HashSet::new();
        let now = self.clock.now();
        for monitor in &mut monitors {
            forget_times_to_come(&mut monitor.state, now);
        }
        for (one, target) in incoming.iter().zip(&targets) {
            let place = match &one.address {
                Address::Ping(id) => by_ping_id.get(id),
                Address::Slug { .. } => target.monitor.and_then(|id| by_id.get(&id)),
            };
            let Some(&place) = place else {
                if let (Address::Ping(id), false) = (&one.address, any_unreadable) {
                    self.registry.deny(*id);
                }
                accepted.push((!any_unreadable).then_some(Accepted::Unknown {
                    project: target.project,
                }));
                continue;
            };
            let monitor = &mut monitors[place];
            let effect = on_ping(&mut monitor.state, &one.signal);
            if effect.is_known {
                // It was written before, and the answer was lost.
                accepted.push(Some(Accepted::Recorded));
                continue;
            }
            batch.pings.push(new_ping(monitor, one));
            changed_runs.extend(effect.runs);
            if let Some(cause) = effect.failed_again {
                let failed = What::FailedAgain(cause, one.signal.received_at);
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

        for monitor in &monitors {
            let changed = monitor
                .state
                .runs
                .iter()
                .filter(|run| changed_runs.contains(&run.key));
            batch.runs.extend(changed.map(|run| (monitor.id, run.clone())));
        }
        batch.monitors = monitors.iter().map(Stateful::changed).collect();
        deadbeat_store::batch::write(&mut tx, &batch).await?;
        let told = whole(&mut tx, &happened).await?;
        let fed: Vec<BeatId> = told.iter().filter_map(|monitor| monitor.beat_id).collect();
        let beats = if fed.is_empty() {
            Vec::new()
        } else {
            deadbeat_store::beat::by_ids(&mut tx, &fed).await?
        };
        let news: Vec<News<'_>> = told
            .iter()
            .zip(&happened)
            .map(|(monitor, (_, signal, what))| News {
                changed: Changed::Signalled(
                    monitor,
                    signal,
                    monitor
                        .beat_id
                        .and_then(|id| beats.iter().find(|beat| beat.id == id)),
                ),
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
    async fn resolve(&mut self, tx: &mut Tx, incoming: &[&Incoming]) -> StoreResult<Vec<Target>> {
        let mut targets: Vec<Target> = incoming
            .iter()
            .map(|_| Target {
                project: None,
                monitor: None,
            })
            .collect();
        let asked: Vec<(usize, &Vec<u8>, &String)> = incoming
            .iter()
            .enumerate()
            .filter_map(|(index, one)| match &one.address {
                Address::Slug { digest, slug } => Some((index, digest, slug)),
                Address::Ping(_) => None,
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
            let Some((index, digest, slug)) = asked.get(resolved.index) else {
                continue;
            };
            if resolved.monitor_id.is_some() {
                if self.slugs.len() >= MOST_SLUGS {
                    self.slugs.clear();
                }
                self.slugs.insert(((*digest).clone(), (*slug).clone()));
            }
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

/// The monitors of what happened, each as it was then.
async fn whole(tx: &mut Tx, happened: &[(Heard, &Signal, What)]) -> StoreResult<Vec<Monitor>> {
    if happened.is_empty() {
        return Ok(Vec::new());
    }
    let ids: Vec<Uuid> = happened.iter().map(|(heard, _, _)| heard.id.0).collect();
    let stored = deadbeat_store::monitor::by_ids(tx, &ids).await?;
    let stored: HashMap<MonitorId, Monitor> =
        stored.into_iter().map(|monitor| (monitor.id, monitor)).collect();
    let then = |heard: &Heard| {
        stored.get(&heard.id).map(|monitor| Monitor {
            state: heard.state.clone(),
            ..monitor.clone()
        })
    };
    // Their rows are locked: none can be missing.
    happened
        .iter()
        .map(|(heard, _, _)| {
            then(heard)
                .ok_or_else(|| StoreError::Corrupt(format!("monitor {} went while it was locked", heard.id)))
        })
        .collect()
}

struct Target {
    project: Option<ProjectId>,
    monitor: Option<MonitorId>,
}

fn new_ping(monitor: &Heard, incoming: &Incoming) -> NewPing {
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
