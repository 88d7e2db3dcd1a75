//! The history of runs: told stages become rows, in a group commit of their own.
//!
//! Requests wait in a bounded queue. The writer takes what has gathered while its last commit ran, locks the traces of these runs in the
//! order of their keys, folds the new stages in memory, writes everything in a few array statements, commits, and only then answers.
//! A request that is answered otherwise is sent again by the SDK, and what was written of it already changes nothing: a stage counts
//! once. There is no spool: while the database is away clients hear "try again", and keep what they have.
//!
//! [`lost`] closes the runs of which nobody will tell the end.

pub mod lost;
pub(crate) mod unbegun;

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use chrono::{DateTime, Utc};
use deadbeat_domain::celery::trace::{Told, Trace, TraceState, fold};
use deadbeat_domain::ids::{MonitorId, ProjectId};
use deadbeat_store::celery::trace::Stored;
use deadbeat_store::{Store, StoreResult, Tx, with_sources};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::ServiceError;
use crate::operation::duty::Duty;
use crate::operation::lane::{Lane, Panicked, Suspects, Work, alone};
use crate::operation::supervisor::Health;

/// Stages that may wait. More is refused with "try again": never silence, never unbounded memory.
const QUEUE: usize = 16_384;
/// Stages of one commit, as far as requests divide so: what has gathered while the last one ran.
const BATCH: usize = 2_000;
/// How often a batch is done again when another process writes the same new runs at the same moment.
const TRIES: usize = 10;

/// One told stage, and whose it is.
#[derive(Debug, Clone, PartialEq)]
pub struct NewStage {
    /// The client's run id.
    pub run_id: Uuid,
    /// The Celery application's name.
    pub app: String,
    /// Of what Beat sent: the entry.
    pub entry: Option<String>,
    /// The entry's monitor.
    pub monitor_id: Option<MonitorId>,
    /// What was told.
    pub told: Told,
}

/// Figures for metrics.
#[derive(Debug, Default)]
pub struct Figures {
    /// Stages written.
    pub recorded: AtomicU64,
    /// Stages refused: queue full or database away.
    pub refused: AtomicU64,
    /// Transactions.
    pub batches: AtomicU64,
    /// How often a request whose stages were tried alone made the writer panic.
    pub panicked: AtomicU64,
}

/// Ids of the stages of one request that the database did not have.
pub type Fresh = HashSet<Uuid>;

/// The stages of one request, and who waits for its answer.
struct Waiting {
    project: ProjectId,
    received_at: DateTime<Utc>,
    stages: Vec<NewStage>,
    /// Hears which stages were new.
    answer: oneshot::Sender<Fresh>,
    /// Gives their places in the queue back when they are written.
    _places: OwnedSemaphorePermit,
}

/// The door for stages. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Traces {
    queue: mpsc::Sender<Waiting>,
    places: Arc<Semaphore>,
    figures: Arc<Figures>,
    duty: Duty,
}

impl Traces {
    /// The door, and the writer behind it, which must be [`TraceWriter::run`].
    #[must_use]
    pub fn new(store: &Store) -> (Self, TraceWriter) {
        let (queue, waiting) = mpsc::channel(QUEUE);
        let figures = Arc::new(Figures::default());
        let duty = Duty::new("trace writer");
        let writer = Writer {
            store: store.clone(),
            figures: Arc::clone(&figures),
            duty: duty.clone(),
            suspects: Suspects::default(),
        };
        let writer = TraceWriter {
            lane: Lane::new(duty.clone(), writer, waiting),
        };
        let places = Arc::new(Semaphore::new(QUEUE));
        (
            Self {
                queue,
                places,
                figures,
                duty,
            },
            writer,
        )
    }

    /// Takes the stages of one request in; returns when they are committed. Answers the ids of those that nobody had sent before: a
    /// client that sends its batch again must not be counted twice.
    ///
    /// # Errors
    /// [`ServiceError::Busy`]: too much is waiting, or the database is away. Nothing may be assumed written.
    pub async fn accept(
        &self,
        project: ProjectId,
        received_at: DateTime<Utc>,
        stages: Vec<NewStage>,
    ) -> Result<Fresh, ServiceError> {
        if stages.is_empty() {
            return Ok(Fresh::new());
        }
        let count = stages.len();
        let refuse = || {
            self.figures.refused.fetch_add(count as u64, Ordering::Relaxed);
            ServiceError::Busy
        };
        let wanted = u32::try_from(count).unwrap_or(u32::MAX);
        let places = Arc::clone(&self.places)
            .try_acquire_many_owned(wanted)
            .map_err(|_| refuse())?;
        let (answer, answered) = oneshot::channel();
        let waiting = Waiting {
            project,
            received_at,
            stages,
            answer,
            _places: places,
        };
        // There are no more requests than places, so the queue has room; a closed one means that the server stops.
        self.queue.try_send(waiting).map_err(|_| refuse())?;
        // A dropped answer means that its batch failed.
        answered.await.map_err(|_| refuse())
    }

    /// Stages that wait.
    #[must_use]
    pub fn waiting(&self) -> usize {
        QUEUE.saturating_sub(self.places.available_permits())
    }

    /// What the writer reports of itself.
    #[must_use]
    pub fn duty(&self) -> &Duty {
        &self.duty
    }

    /// Figures for metrics.
    #[must_use]
    pub fn figures(&self) -> &Figures {
        &self.figures
    }
}

/// The lane that writes stages.
pub struct TraceWriter {
    lane: Lane<Writer>,
}

impl TraceWriter {
    /// Writes until it is told to stop, then what is still waiting. `health` tells when it does not work.
    pub async fn run(self, health: Health, stop: CancellationToken) {
        if let Err(error) = self.lane.keep_writing(health, stop).await {
            tracing::error!(%error, "the trace writer broke off");
        }
    }
}

struct Writer {
    store: Store,
    figures: Arc<Figures>,
    duty: Duty,
    /// Projects whose stages were being written when the writer panicked.
    suspects: Suspects<ProjectId>,
}

impl Work for Writer {
    type One = Waiting;
    const BATCH: usize = BATCH;

    fn weight(one: &Waiting) -> usize {
        one.stages.len()
    }

    async fn write(&mut self, batch: Vec<Waiting>) {
        if self.suspects.is_empty() {
            return self.write_now(batch).await;
        }
        let (suspect, rest): (Vec<_>, Vec<_>) =
            batch.into_iter().partition(|one| self.suspects.has(&one.project));
        if !rest.is_empty() {
            self.write_now(rest).await;
        }
        for one in suspect {
            let project = one.project;
            if alone(self.write_now(vec![one])).await == Err(Panicked) {
                self.figures.panicked.fetch_add(1, Ordering::Relaxed);
                tracing::error!(project.id = %project, "stages of runs make their writer panic; their client hears \"try again\"");
            }
        }
    }
}

/// What was told of one run in a batch: the place of the request in the batch, when it came, and the stage.
type OfRun<'a> = Vec<(usize, DateTime<Utc>, &'a NewStage)>;

impl Writer {
    async fn write_now(&self, batch: Vec<Waiting>) {
        let done = self.commit(&batch).await;
        self.duty.ended(&done);
        match done {
            Ok(fresh) => self.answer(batch, fresh),
            Err(error) if error.is_unavailable() => {
                tracing::warn!(error = %with_sources(&error), requests = batch.len(), "stages of runs could not be written");
                // Do not spin while the database is away; the queue fills and says so.
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
            Err(error) if batch.len() == 1 => {
                tracing::error!(error = %with_sources(&error), "stages of runs cannot be written")
            }
            // One bad request must not fail the others.
            Err(error) => {
                tracing::error!(error = %with_sources(&error), requests = batch.len(), "a batch of stages failed; its requests are tried one by one");
                for one in batch {
                    let one = vec![one];
                    match self.commit(&one).await {
                        Ok(fresh) => self.answer(one, fresh),
                        Err(error) => {
                            tracing::error!(error = %with_sources(&error), "stages of runs cannot be written")
                        }
                    }
                }
            }
        }
    }

    /// `fresh` has one set a request.
    fn answer(&self, batch: Vec<Waiting>, fresh: Vec<Fresh>) {
        for (one, fresh) in batch.into_iter().zip(fresh) {
            self.figures
                .recorded
                .fetch_add(one.stages.len() as u64, Ordering::Relaxed);
            // The client may have gone; its stages are written all the same.
            let _ = one.answer.send(fresh);
        }
    }

    /// Answers which stages were new, a set for each request.
    async fn commit(&self, batch: &[Waiting]) -> StoreResult<Vec<Fresh>> {
        let _watch = self.suspects.watch(batch.iter().map(|one| &one.project));
        let mut runs: BTreeMap<(ProjectId, Uuid), OfRun<'_>> = BTreeMap::new();
        for (place, request) in batch.iter().enumerate() {
            for stage in &request.stages {
                let key = (request.project, stage.run_id);
                let of_run = runs.entry(key).or_default();
                of_run.push((place, request.received_at, stage));
            }
        }
        for _ in 0..TRIES {
            self.figures.batches.fetch_add(1, Ordering::Relaxed);
            let mut tx = self.store.begin().await?;
            let mut fresh = vec![Fresh::new(); batch.len()];
            if write_in(&mut tx, &runs, &mut fresh).await? {
                tx.commit().await?;
                self.suspects.forgive(batch.iter().map(|one| &one.project));
                return Ok(fresh);
            }
        }
        Err(deadbeat_store::StoreError::Corrupt(
            "runs appear and disappear while they are written".to_owned(),
        ))
    }
}

/// Writes a batch. False: another process has just written some of these runs for the first time, and all is to be done again.
async fn write_in(
    tx: &mut Tx,
    runs: &BTreeMap<(ProjectId, Uuid), OfRun<'_>>,
    fresh: &mut [Fresh],
) -> StoreResult<bool> {
    let keys: Vec<(ProjectId, Uuid)> = runs.keys().copied().collect();
    let mut changes = Changes::default();
    let mut stored = deadbeat_store::celery::trace::lock(tx, &keys)
        .await?
        .into_iter()
        .peekable();
    for (key, told) in runs {
        let known = stored.next_if(|known| (known.project_id, known.run_id) == *key);
        match known {
            Some(mut known) => {
                let was = Was::of(&known);
                if fold_all(&mut known.trace, told, fresh) {
                    changes.change(known, was);
                }
            }
            None => changes.new.extend(first_told(*key, told, fresh)),
        }
    }
    changes.write(tx).await
}

/// Adds what a batch tells of one run. False: all of it was known.
fn fold_all(trace: &mut Trace, told: &OfRun<'_>, fresh: &mut [Fresh]) -> bool {
    let mut is_news = false;
    for (place, _, stage) in told {
        if fold(trace, &stage.told) {
            is_news = true;
            fresh[*place].insert(stage.told.stage.id);
        }
    }
    is_news
}

/// The trace of a run that nobody told of before.
fn first_told(
    (project_id, run_id): (ProjectId, Uuid),
    told: &OfRun<'_>,
    fresh: &mut [Fresh],
) -> Option<Stored> {
    let (_, _, first) = told.first()?;
    let mut trace = Trace::default();
    fold_all(&mut trace, told, fresh);
    Some(Stored {
        project_id,
        run_id,
        app: first.app.clone(),
        entry: first.entry.clone(),
        monitor_id: first.monitor_id,
        heard_first_at: told.iter().map(|(_, received_at, _)| *received_at).min()?,
        trace,
    })
}

/// Where a run is that has begun and not ended.
#[derive(PartialEq, Eq)]
struct Running {
    worker: Option<String>,
}

impl Running {
    /// None: it has not begun, or it has ended.
    fn of(stored: &Stored) -> Option<Self> {
        let worker = || stored.trace.worker().map(str::to_owned);
        (stored.trace.state() == TraceState::Started).then(|| Self { worker: worker() })
    }
}

/// How a run stood before a transaction.
#[derive(Default)]
struct Was {
    running: Option<Running>,
    /// Beat sent it, and no worker had taken it.
    unbegun: bool,
}

impl Was {
    fn of(stored: &Stored) -> Self {
        Self {
            running: Running::of(stored),
            unbegun: unbegun::of(stored).is_some(),
        }
    }
}

/// What a transaction changes, in the order of the keys.
#[derive(Default)]
struct Changes {
    new: Vec<Stored>,
    changed: Vec<(Stored, Was)>,
}

impl Changes {
    fn change(&mut self, changed: Stored, was: Was) {
        self.changed.push((changed, was));
    }

    /// False: another process was quicker.
    async fn write(&self, tx: &mut Tx) -> StoreResult<bool> {
        let new: Vec<&Stored> = self.new.iter().collect();
        if !new.is_empty() && !deadbeat_store::celery::trace::insert(tx, &new).await? {
            return Ok(false);
        }
        let changed: Vec<&Stored> = self.changed.iter().map(|(stored, _)| stored).collect();
        if !changed.is_empty() {
            deadbeat_store::celery::trace::update(tx, &changed).await?;
        }
        let (mut opened, mut closed) = (Vec::new(), Vec::new());
        let (mut waiting, mut begun) = (Vec::new(), Vec::new());
        let nowhere = Was::default();
        let before = self.changed.iter().map(|(stored, was)| (stored, was));
        for (stored, was) in self.new.iter().map(|stored| (stored, &nowhere)).chain(before) {
            match Running::of(stored) {
                is if is == was.running => {}
                Some(_) => opened.push(stored),
                None => closed.push(stored),
            }
            match unbegun::of(stored) {
                Some(note) if !was.unbegun => waiting.push(note),
                None if was.unbegun => begun.push((stored.project_id, stored.run_id)),
                Some(_) | None => {}
            }
        }
        deadbeat_store::celery::trace::unbegun::note(tx, &waiting, &begun).await?;
        deadbeat_store::celery::trace::note_open(tx, &opened, &closed).await?;
        Ok(true)
    }
}
