//! The history of runs: reported stages become rows, in their own group commit.
//!
//! Requests wait in a bounded queue. The writer takes the requests that arrived during its last commit, and locks the traces of their runs in the
//! order of keys. It applies the new stages in memory, writes everything in a few array statements, commits, and only then answers. The SDK sends a
//! request with any other answer again. Parts of it that are already written change nothing, because each stage counts once. There is no spool: while
//! the database cannot be reached, clients get "try again" and keep their events.
//!
//! [`lost`] closes the runs whose end will never be reported.

pub mod lost;
pub(crate) mod unbegun;

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use chrono::{DateTime, Utc};
use deadbeat_domain::celery::trace::{StageReport, Trace, TraceState, fold};
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

/// The most stages that wait. Further ones are refused with "try again": never silently, and never with unbounded memory.
const QUEUE: usize = 16_384;
/// The most stages of one commit, unless a single request has more.
const BATCH: usize = 2_000;
/// The most attempts for a batch. An attempt fails if another process writes the same new runs at the same moment.
const TRIES: usize = 10;

/// A reported stage, and the run to which it belongs.
#[derive(Debug, Clone, PartialEq)]
pub struct NewStage {
    /// The client's run id.
    pub run_id: Uuid,
    /// The Celery application's name.
    pub app: String,
    /// The entry, if Beat sent the run.
    pub entry: Option<String>,
    /// The entry's monitor.
    pub monitor_id: Option<MonitorId>,
    /// The reported stage.
    pub reported: StageReport,
}

/// Counters for metrics.
#[derive(Debug, Default)]
pub struct TraceCounters {
    /// Stages that were written.
    pub recorded: AtomicU64,
    /// Stages that were refused, because the queue was full or the database could not be reached.
    pub refused: AtomicU64,
    /// Transactions of the writer.
    pub batches: AtomicU64,
    /// Panics of the writer while it wrote the stages of a single request.
    pub panicked: AtomicU64,
}

/// The ids of the stages of one request that the database did not have.
pub type Fresh = HashSet<Uuid>;

/// The stages of one request, and the client that waits for the answer.
struct WaitingStages {
    project: ProjectId,
    received_at: DateTime<Utc>,
    stages: Vec<NewStage>,
    /// Receives which stages were new.
    answer: oneshot::Sender<Fresh>,
    /// Frees the places in the queue once the stages are written.
    _places: OwnedSemaphorePermit,
}

/// The entrance for stages. Clones are cheap.
#[derive(Debug, Clone)]
pub struct Traces {
    queue: mpsc::Sender<WaitingStages>,
    places: Arc<Semaphore>,
    figures: Arc<TraceCounters>,
    duty: Duty,
}

impl Traces {
    /// Makes the entrance and its writer. The caller must run the writer ([`TraceWriter::run`]).
    #[must_use]
    pub fn new(store: &Store) -> (Self, TraceWriter) {
        let (queue, waiting) = mpsc::channel(QUEUE);
        let figures = Arc::new(TraceCounters::default());
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

    /// Accepts the stages of one request. Returns when they are committed. Returns the ids of the stages that were new, because a batch that a client
    /// sends again must not count twice.
    ///
    /// # Errors
    /// [`ServiceError::Busy`] if the server is overloaded or the database cannot be reached. The stages may or may not be written.
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
        let waiting = WaitingStages {
            project,
            received_at,
            stages,
            answer,
            _places: places,
        };
        // There are never more requests than places, so the queue has room. It is closed only if the server is stopping.
        self.queue.try_send(waiting).map_err(|_| refuse())?;
        // The writer drops the answer if the batch failed.
        answered.await.map_err(|_| refuse())
    }

    /// Returns the number of stages that wait.
    #[must_use]
    pub fn waiting(&self) -> usize {
        QUEUE.saturating_sub(self.places.available_permits())
    }

    /// Returns the duty of the writer.
    #[must_use]
    pub fn duty(&self) -> &Duty {
        &self.duty
    }

    /// Returns the counters for metrics.
    #[must_use]
    pub fn figures(&self) -> &TraceCounters {
        &self.figures
    }
}

/// The lane that writes stages.
pub struct TraceWriter {
    lane: Lane<Writer>,
}

impl TraceWriter {
    /// Writes until `stop`, and then the stages that are still waiting. `health` shows when the writer does not work.
    pub async fn run(self, health: Health, stop: CancellationToken) {
        if let Err(error) = self.lane.keep_writing(health, stop).await {
            tracing::error!(%error, "the trace writer ended with an error");
        }
    }
}

struct Writer {
    store: Store,
    figures: Arc<TraceCounters>,
    duty: Duty,
    /// Projects whose stages the writer was writing when it panicked.
    suspects: Suspects<ProjectId>,
}

impl Work for Writer {
    type One = WaitingStages;
    const BATCH: usize = BATCH;

    fn weight(one: &WaitingStages) -> usize {
        one.stages.len()
    }

    async fn write(&mut self, batch: Vec<WaitingStages>) {
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
                tracing::error!(project.id = %project, "stages of runs make their writer panic; their client gets \"try again\"");
            }
        }
    }
}

/// The stages of one run in a batch: the index of the request in the batch, when it arrived, and the stage.
type OfRun<'a> = Vec<(usize, DateTime<Utc>, &'a NewStage)>;

impl Writer {
    async fn write_now(&self, batch: Vec<WaitingStages>) {
        let done = self.commit(&batch).await;
        self.duty.ended(&done);
        match done {
            Ok(fresh) => self.answer(batch, fresh),
            Err(error) if error.is_unavailable() => {
                tracing::warn!(error = %with_sources(&error), requests = batch.len(), "stages of runs could not be written");
                // Do not spin while the database cannot be reached. The queue fills up, and then clients get "try again".
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
            Err(error) if batch.len() == 1 => {
                tracing::error!(error = %with_sources(&error), "stages of runs cannot be written")
            }
            // One bad request must not fail the others.
            Err(error) => {
                tracing::error!(error = %with_sources(&error), requests = batch.len(), "a batch of stages failed; the writer retries its requests one by one");
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

    /// Answers the clients. `fresh` has one set for each request.
    fn answer(&self, batch: Vec<WaitingStages>, fresh: Vec<Fresh>) {
        for (one, fresh) in batch.into_iter().zip(fresh) {
            self.figures
                .recorded
                .fetch_add(one.stages.len() as u64, Ordering::Relaxed);
            // The client may have disconnected. Its stages are written all the same.
            let _ = one.answer.send(fresh);
        }
    }

    /// Writes a batch in one transaction. Returns which stages were new, one set for each request.
    async fn commit(&self, batch: &[WaitingStages]) -> StoreResult<Vec<Fresh>> {
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
            tx.plan_anew().await?;
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

/// Writes a batch. Returns false if another process has just created some of these runs: then everything must be done again.
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
    for (key, reported) in runs {
        let known = stored.next_if(|known| (known.project_id, known.run_id) == *key);
        match known {
            Some(mut known) => {
                let was = Was::of(&known);
                if fold_all(&mut known.trace, reported, fresh) {
                    changes.change(known, was);
                }
            }
            None => changes.new.extend(first_reported(*key, reported, fresh)),
        }
    }
    changes.write(tx).await
}

/// Adds the stages of one run to its trace. Returns false if all of them were known.
fn fold_all(trace: &mut Trace, reported: &OfRun<'_>, fresh: &mut [Fresh]) -> bool {
    let mut is_changed = false;
    for (place, _, stage) in reported {
        if fold(trace, &stage.reported) {
            is_changed = true;
            fresh[*place].insert(stage.reported.stage.id);
        }
    }
    is_changed
}

/// Makes the trace of a run without earlier stages.
fn first_reported(
    (project_id, run_id): (ProjectId, Uuid),
    reported: &OfRun<'_>,
    fresh: &mut [Fresh],
) -> Option<Stored> {
    let (_, _, first) = reported.first()?;
    let mut trace = Trace::default();
    fold_all(&mut trace, reported, fresh);
    Some(Stored {
        project_id,
        run_id,
        app: first.app.clone(),
        entry: first.entry.clone(),
        monitor_id: first.monitor_id,
        heard_first_at: reported.iter().map(|(_, received_at, _)| *received_at).min()?,
        trace,
    })
}

/// The worker of a run that has begun and not ended.
#[derive(PartialEq, Eq)]
struct Running {
    worker: Option<String>,
}

impl Running {
    /// Returns `None` if the run has not begun, or has ended.
    fn of(stored: &Stored) -> Option<Self> {
        let worker = || stored.trace.worker().map(str::to_owned);
        (stored.trace.state() == TraceState::Started).then(|| Self { worker: worker() })
    }
}

/// The state of a run before a transaction.
#[derive(Default)]
struct Was {
    running: Option<Running>,
    /// True if Beat sent the run, and no worker had received it.
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

/// The changes of a transaction, in the order of the keys.
#[derive(Default)]
struct Changes {
    new: Vec<Stored>,
    changed: Vec<(Stored, Was)>,
}

impl Changes {
    fn change(&mut self, changed: Stored, was: Was) {
        self.changed.push((changed, was));
    }

    /// Writes the changes. Returns false if another process was faster.
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
