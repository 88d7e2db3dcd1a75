//! Snapshots of workers, which they send every few seconds.

pub(crate) mod failure;
pub(crate) mod orphan;

use std::collections::BTreeMap;

use chrono::{DateTime, TimeDelta, Utc};
use deadbeat_domain::celery::host::load::HostLoad;
use deadbeat_domain::celery::switch::Switch;
use deadbeat_domain::celery::worker::incarnation::{self, WorkerReport};
use deadbeat_domain::celery::worker::orphan::LISTED_WITHIN;
use deadbeat_domain::celery::worker::{
    GHOST_PATIENCE, Phase, SnapshotFacts, on_failed_exit, on_snapshot, trouble,
};
use deadbeat_domain::ids::{ApiKeyId, ProjectId, WorkerId};
use deadbeat_domain::incident::SubjectKind;
use deadbeat_domain::limits;
use deadbeat_domain::monitor::status::Status;
use deadbeat_domain::monitor::{FieldError, check_grace, check_name};
use deadbeat_domain::text::Text;
use deadbeat_store::celery::queue::Queue;
use deadbeat_store::celery::worker::Worker;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::celery::event::Verdict;
use crate::celery::result_backend::report;
use crate::celery::{broker, result_backend};
use crate::incident::changed::{Changed, Occurrence, OccurrenceKind};
use crate::{ServiceError, Services, incident};

/// The state of a worker, as far as its main process knows it without asking the broker.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct WorkerSnapshot {
    /// The Celery application's name, the same as Beat's.
    pub app: String,
    /// Celery's node name.
    pub worker: String,
    /// Whether the worker receives messages.
    pub state: Phase,
    /// The interval between its snapshots, in seconds.
    pub period_seconds: f64,
    /// How long the worker may be silent beyond that interval, in seconds.
    #[serde(default = "grace")]
    pub grace_seconds: f64,
    /// The argument of `celery -A` for this worker.
    #[serde(default)]
    pub project: Option<Text>,
    /// Its host.
    #[serde(default)]
    pub host: Option<Text>,
    /// The id of its main process.
    #[serde(default)]
    pub pid: Option<i64>,
    /// prefork, threads, gevent, solo.
    #[serde(default)]
    pub pool: Option<Text>,
    /// The number of tasks that it can execute at once.
    #[serde(default)]
    pub processes: Option<i64>,
    /// Celery's version.
    #[serde(default)]
    pub celery: Option<Text>,
    /// When it started.
    #[serde(default)]
    pub started_at: Option<DateTime<Utc>>,
    /// The number of tasks that it executes.
    #[serde(default)]
    pub active: Option<i64>,
    /// The number of received messages whose tasks have not ended, including those that it executes.
    #[serde(default)]
    pub reserved: Option<i64>,
    /// The number of these messages that the broker keeps until they are acknowledged. `None`: not counted.
    #[serde(default)]
    pub unacked: Option<i64>,
    /// The number of messages held for later (ETA, countdown).
    #[serde(default)]
    pub scheduled: Option<i64>,
    /// The number of messages that a rate limit holds back.
    #[serde(default)]
    pub limited: Option<i64>,
    /// The rate limits that hold messages back, or `None` if the worker does not report them.
    #[serde(default)]
    pub rate_limits: Option<Vec<RateLimit>>,
    /// The ids of the runs that it executes, once for each execution, or `None` if there are too many.
    #[serde(default)]
    pub running: Option<Vec<Text>>,
    /// How many tasks of each name it executes, for the most frequent names only.
    #[serde(default)]
    pub running_tasks: Option<BTreeMap<Text, i64>>,
    /// The number of tasks that have begun since its start.
    #[serde(default)]
    pub accepted: Option<i64>,
    /// The number of tasks that have ended since its start.
    #[serde(default)]
    pub finished: Option<i64>,
    /// The task that it has been executing longest.
    #[serde(default)]
    pub longest: Option<Longest>,
    /// The queues that it consumes.
    #[serde(default)]
    pub queues: Vec<String>,
    /// How many messages it receives at once. 0: no limit.
    #[serde(default)]
    pub prefetch: Option<i64>,
    /// Whether it is connected to the broker.
    #[serde(default)]
    pub connected: Option<bool>,
    /// For how long its event loop has not turned.
    #[serde(default)]
    pub loop_lag_seconds: Option<f64>,
    /// How often it has lost the broker since its start.
    #[serde(default)]
    pub reconnects: Option<i64>,
    /// The number of the host's processes that run or want to run, per CPU, as the average of a minute.
    #[serde(default)]
    pub load_per_cpu: Option<f64>,
    /// The state of its calls to the result backend. `None`: it does not report that, or has no result backend.
    #[serde(default)]
    pub result_backend: Option<crate::celery::result_backend::report::Report>,
    /// For the process of the worker that waited most: the share of the time since the last snapshot, 0 to 1, in which it was ready to run but waited
    /// for a CPU. `None`: the system does not provide this, or this is the first snapshot.
    #[serde(default)]
    pub cpu_wait_ratio: Option<f64>,
    /// The share of the host's CPU time, 0 to 1, that the worker's processes used since the last snapshot.
    #[serde(default)]
    pub cpu_used_ratio: Option<f64>,
    /// The memory of its main process and its pool.
    #[serde(default)]
    pub rss_bytes: Option<i64>,
    /// The id of its process, chosen at its start, or `None` for an older SDK.
    #[serde(default)]
    pub incarnation: Option<Uuid>,
    /// The boot id of its machine.
    #[serde(default)]
    pub boot_id: Option<Text>,
    /// Its exit status after its end, if known. Any value but 0 means that it ended by an error.
    #[serde(default)]
    pub exit_code: Option<i64>,
    /// The class of that error.
    #[serde(default)]
    pub exit_error: Option<Text>,
}

impl WorkerSnapshot {
    /// Returns true if the worker has ended without an order.
    fn has_failed(&self) -> bool {
        self.state == Phase::Stopped && self.exit_code.is_some_and(|code| code != 0)
    }

    /// Returns the runs that it executes, if it names them and its loop turns. A worker whose loop is blocked does not know them.
    pub(crate) fn listed(&self) -> Option<Vec<Uuid>> {
        let turns = self
            .loop_lag_seconds
            .is_none_or(|lag| lag < crate::celery::gather::view::STUCK_SECONDS);
        let running = self.running.as_ref().filter(|_| turns)?;
        Some(
            running
                .iter()
                .filter_map(|id| Uuid::parse_str(id.as_str()).ok())
                .collect(),
        )
    }
}

/// A rate limit that holds messages back.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct RateLimit {
    /// The task's name.
    pub task: Text,
    /// The rate as Celery writes it: `10/m`.
    pub rate: Text,
    /// The number of messages that wait because of it.
    #[serde(default)]
    pub held: i64,
}

/// The task that a worker has been executing longest.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Longest {
    /// Its name.
    pub task: Text,
    /// Its id.
    pub task_id: Text,
    /// When it began.
    pub started_at: DateTime<Utc>,
}

/// The most runs that a snapshot names. If a worker executes more, the server does not know which.
pub(crate) const MOST_RUNNING: usize = 200;
/// The most names of tasks that a snapshot counts.
pub(crate) const MOST_TASKS: usize = 20;
/// The most rate limits that are kept for a worker.
pub(crate) const MOST_LIMITS: usize = 50;
/// The number of workers that are deleted at once if a project has too many.
const ROOM: i64 = 100;
/// A worker's grace until it reports its own.
const GRACE_SECONDS: f64 = 25.0;
fn grace() -> f64 {
    GRACE_SECONDS
}

fn check(snapshot: &WorkerSnapshot) -> Result<(), ServiceError> {
    let mut faults = Vec::new();
    check_name("/app", &snapshot.app, 200, &mut faults);
    check_name("/worker", &snapshot.worker, 200, &mut faults);
    check_grace("/grace_seconds", snapshot.grace_seconds, &mut faults);
    if !(0.1..=3_600.0).contains(&snapshot.period_seconds) {
        faults.push(FieldError::new(
            "/period_seconds",
            format!("is {}; 0.1 to 3600 is allowed", snapshot.period_seconds),
        ));
    }
    if snapshot.queues.len() > limits::WORKER_QUEUES {
        faults.push(FieldError::new(
            "/queues",
            format!(
                "holds {} names; at most {} are allowed",
                snapshot.queues.len(),
                limits::WORKER_QUEUES
            ),
        ));
    }
    for (index, queue) in snapshot.queues.iter().enumerate() {
        check_name(&format!("/queues/{index}"), queue, 255, &mut faults);
    }
    if faults.is_empty() {
        Ok(())
    } else {
        Err(ServiceError::Invalid(faults))
    }
}

/// Returns true if a worker has made progress since its last snapshot: it began or ended a task, or had nothing to do.
fn got_on(before: &serde_json::Value, snapshot: &WorkerSnapshot, is_waited_for: bool) -> bool {
    let count = |name: &str| before.get(name).and_then(serde_json::Value::as_i64);
    (snapshot.reserved.unwrap_or(0) == 0 && !is_waited_for)
        || count("accepted") != snapshot.accepted
        || count("finished") != snapshot.finished
}

/// The greatest age at which a sample of a queue still counts.
const FRESH_SAMPLE: TimeDelta = TimeDelta::seconds(30);
/// Messages that have waited for less may still be on their way to a worker.
const MOMENT: TimeDelta = TimeDelta::seconds(5);

/// Returns true if messages wait in queues that the worker consumes.
fn is_waited_for(queues: &[Queue], consumed: &[String], now: DateTime<Utc>) -> bool {
    queues.iter().any(|queue| {
        queue.depth > 0
            && consumed.contains(&queue.name)
            && now - queue.seen_at <= FRESH_SAMPLE
            && queue.waiting_since.is_some_and(|since| now - since >= MOMENT)
    })
}

/// Returns the facts that show whether the worker works.
fn snapshot_facts(
    snapshot: &WorkerSnapshot,
    worker: &Worker,
    is_waited_for: bool,
    skew: TimeDelta,
    now: DateTime<Utc>,
) -> SnapshotFacts {
    let lag = snapshot
        .loop_lag_seconds
        .filter(|lag| (0.0..=limits::SPAN_SECONDS).contains(lag));
    SnapshotFacts {
        connected: snapshot.connected != Some(false),
        is_solo: snapshot.pool.as_deref() == Some("solo"),
        active: snapshot.active.unwrap_or(0),
        processes: snapshot.processes.unwrap_or(1).max(1),
        reserved: snapshot.reserved.unwrap_or(0),
        limited: snapshot.limited.unwrap_or(0),
        loop_lag: lag.map_or(TimeDelta::zero(), deadbeat_domain::time::span),
        stuck_for: now - worker.progress_at,
        is_waited_for,
        is_cut_off: false,
        skew,
        is_starving: HostLoad {
            machine: None,
            per_cpu: snapshot.load_per_cpu,
            waits: snapshot.cpu_wait_ratio,
            takes: snapshot.cpu_used_ratio,
        }
        .is_starving(),
    }
}

/// Handles a snapshot.
pub(crate) async fn on_report(
    services: &Services,
    project: ProjectId,
    snapshot: WorkerSnapshot,
    skew: TimeDelta,
    key: Option<ApiKeyId>,
) -> Result<Verdict, ServiceError> {
    check(&snapshot)?;
    let now = services.now();
    let mut snapshot = snapshot;
    // By the server's clock, like all times that are compared with others.
    snapshot.running = snapshot.running.filter(|running| running.len() <= MOST_RUNNING);
    snapshot.running_tasks = snapshot.running_tasks.filter(|tasks| tasks.len() <= MOST_TASKS);
    if let Some(limits) = &mut snapshot.rate_limits {
        limits.truncate(MOST_LIMITS);
    }
    snapshot.longest = snapshot.longest.map(|longest| Longest {
        started_at: longest
            .started_at
            .checked_add_signed(skew)
            .unwrap_or(longest.started_at),
        ..longest
    });
    snapshot.result_backend = snapshot
        .result_backend
        .map(|report| report.on_our_clock(skew, now));
    snapshot.started_at = snapshot.started_at.and_then(|at| at.checked_add_signed(skew));
    let stored = serde_json::to_value(&snapshot).unwrap_or_default();
    let mut tx = services.store.begin().await?;
    let mut worker = match deadbeat_store::celery::worker::lock(
        &mut tx,
        project,
        &snapshot.app,
        &snapshot.worker,
    )
    .await?
    {
        Some(worker) => worker,
        None => {
            // Each deployment may add new names. Delete workers that have stopped to make room.
            if deadbeat_store::celery::worker::count(&mut tx, project).await? >= limits::PROJECT_WORKERS
                && deadbeat_store::celery::worker::forget_oldest(&mut tx, project, ROOM).await? == 0
            {
                return Err(ServiceError::Limit {
                    what: "workers of a project",
                    limit: limits::PROJECT_WORKERS,
                });
            }
            let fresh = Worker {
                id: WorkerId::generate(),
                project_id: project,
                app: snapshot.app.clone(),
                name: snapshot.worker.clone(),
                snapshot: stored.clone(),
                queues: Vec::new(),
                progress_at: now,
                created_at: now,
                incarnations: Vec::new(),
                state: Switch {
                    status: Status::New,
                    period_seconds: snapshot.period_seconds,
                    grace_seconds: snapshot.grace_seconds,
                    last_seen_at: None,
                    deadline_at: None,
                    trouble: None,
                    since: None,
                },
            };
            deadbeat_store::celery::worker::insert(&mut tx, &fresh).await?;
            // Another process may have inserted the row first. Then use that row.
            deadbeat_store::celery::worker::lock(&mut tx, project, &snapshot.app, &snapshot.worker)
                .await?
                .unwrap_or(fresh)
        }
    };
    let mut judge_at = None;
    if let Some(id) = snapshot.incarnation {
        let said = WorkerReport {
            id,
            host: snapshot.host.as_deref(),
            period_seconds: snapshot.period_seconds,
            grace_seconds: snapshot.grace_seconds,
            phase: snapshot.state,
        };
        let has_namesake = incarnation::on_report(&mut worker.incarnations, &said, now);
        judge_at = incarnation::next_judgement(&worker.incarnations, &[]);
        if has_namesake && snapshot.state != Phase::Running {
            // Another process with the same name continues, and only this one stops.
            deadbeat_store::celery::worker::update(&mut tx, &worker, false, judge_at, None).await?;
            tx.commit().await?;
            return Ok(Verdict::Accepted);
        }
        if let Some(listed) = snapshot.listed()
            && deadbeat_store::celery::worker::orphan::has_unlisted(
                &mut tx,
                project,
                id,
                &listed,
                now - LISTED_WITHIN,
            )
            .await?
        {
            // The sweep judges this, because it holds the necessary locks.
            judge_at = Some(now);
        }
    }
    let queues = deadbeat_store::celery::queue::of_app(&mut tx, project, &snapshot.app).await?;
    // A worker that searches for its broker names no queues, and will consume the same ones as before.
    let consumed = if snapshot.connected == Some(false) {
        &worker.queues
    } else {
        &snapshot.queues
    };
    let is_waited_for = is_waited_for(&queues, consumed, now);
    let broker = deadbeat_store::celery::broker::of_app(&mut tx, project, &snapshot.app).await?;
    // A frozen broker blocks every process that calls it, while the processes' connections look intact.
    let is_broker_well = broker.as_ref().is_none_or(|broker| {
        broker.state.trouble.is_none() && broker.sampled_at.is_none_or(|at| now - at <= FRESH_SAMPLE)
    });
    // After a silence, nobody knows what the worker did in that time.
    let was_away = worker
        .state
        .last_seen_at
        .is_none_or(|seen| now - seen >= worker.state.patience());
    // A worker that waits for the result backend is not a ghost; the backend's incident reports that.
    let waits = snapshot
        .result_backend
        .as_ref()
        .is_some_and(crate::celery::result_backend::report::Report::hangs);
    if was_away || !is_broker_well || waits || got_on(&worker.snapshot, &snapshot, is_waited_for) {
        worker.progress_at = now;
    }
    let mut snapshot_facts = snapshot_facts(&snapshot, &worker, is_waited_for, skew, now);
    snapshot_facts.connected &= is_broker_well && !waits;
    let is_reached = broker
        .as_ref()
        .is_some_and(|broker| broker.reach.is_reached_without(&snapshot.worker, now));
    let gets_nothing =
        snapshot.connected == Some(false) && is_waited_for && snapshot_facts.stuck_for >= GHOST_PATIENCE;
    snapshot_facts.is_cut_off = (is_broker_well && is_reached && gets_nothing)
        || broker
            .as_ref()
            .is_some_and(|broker| broker.reach.is_cut_off(&snapshot.worker, now));
    let trouble = trouble(&snapshot_facts);
    worker.state.period_seconds = snapshot.period_seconds;
    worker.state.grace_seconds = snapshot.grace_seconds;
    // While the worker reconnects it consumes nothing, but it will consume the same queues as before. The messages in these queues must still be
    // watched.
    let names_queues = snapshot.connected != Some(false) && snapshot.state == Phase::Running;
    if names_queues {
        worker.queues.clone_from(&snapshot.queues);
    }
    let was_troubled = report::is_troubled(worker.snapshot.get("result_backend"));
    worker.snapshot = stored;
    if snapshot_facts.is_cut_off {
        worker.snapshot["cut_off"] = true.into();
    }
    let transition = if snapshot.has_failed() {
        on_failed_exit(&mut worker.state, now);
        None
    } else {
        on_snapshot(&mut worker.state, snapshot.state, trouble, now)
    };
    // Set `check_after` so that the sweep finds the first deadline: in a new row it is empty.
    let arms = transition.is_some_and(|transition| transition.to == Status::Up);
    // The snapshot of a stopping worker does not name the queues that are kept, so its key does not count for them.
    deadbeat_store::celery::worker::update(&mut tx, &worker, arms, judge_at, key.filter(|_| names_queues))
        .await?;
    let (samples, names) = if snapshot.state == Phase::Running {
        let known = broker.as_ref();
        broker::samples_wanted(&mut tx, project, &worker.app, &worker.name, known, key, now).await?
    } else {
        deadbeat_store::celery::broker::dismiss(&mut tx, project, &worker.app, &worker.name).await?;
        (false, Vec::new())
    };
    // After a transition, the report about the result backend waits for the next snapshot, because monitors are locked before incidents.
    let mut is_changed = transition.is_some();
    if transition.is_none() {
        let report = snapshot.result_backend.as_ref();
        is_changed = result_backend::on_report(
            &mut tx,
            &services.site,
            broker.as_ref(),
            was_troubled,
            report,
            now,
        )
        .await?;
    }
    if let Some(transition) = transition {
        if transition.from == Status::Down {
            let well = [(project, SubjectKind::Worker, worker.id.0)];
            incident::rearm_members(&mut tx, &services.site, &well, now).await?;
        }
        let occurrences = Occurrence {
            changed: Changed::Worker(&worker),
            what: OccurrenceKind::Transition(transition),
        };
        incident::record(&mut tx, &services.site, &[occurrences]).await?;
    }
    tx.commit().await?;
    if is_changed {
        services.outbox_bell.notify_one();
    }
    Ok(Verdict::Received {
        samples,
        queues: names,
    })
}
