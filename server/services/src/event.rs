//! The SDK's door: a batch of events, each with a verdict of its own.

use std::collections::{HashMap, HashSet};

use chrono::{DateTime, TimeDelta, Utc};
use deadbeat_domain::beat::STORM_WINDOW;
use deadbeat_domain::ids::{MonitorId, PingId, ProjectId};
use deadbeat_domain::limits;
use deadbeat_domain::monitor::clip;
use deadbeat_domain::ping::{PingKind, Signal, Source};
use deadbeat_domain::run::{Outcome, RunDetail};
use deadbeat_domain::time::to_micros;
use deadbeat_domain::trace::{Stage, StageKind, Told};
use futures::future::join_all;
use serde::Deserialize;
use serde::de::Error;
use serde_json::Value;
use serde_json::value::RawValue;
use uuid::Uuid;

use crate::ingest::{Accepted, Address, Incoming, IngestError};
use crate::schedule_sync::{self, DueHints, Snapshot};
use crate::trace::NewStage;
use crate::{ServiceError, Services, beat, broker, worker};

/// A time that a client names farther from now is a mistake.
const FAR: TimeDelta = TimeDelta::days(3_660);

/// A batch, as the SDK sends it.
#[derive(Debug, Deserialize)]
pub struct EventBatch {
    /// When it was sent, by the client's clock: tells how far that clock is off.
    pub sent_at: DateTime<Utc>,
    /// The events, in the order in which they happened. Each is read on its own, so that one bad event spoils no other.
    pub events: Vec<Box<RawValue>>,
    /// Which SDK, for logs.
    #[serde(default)]
    pub sdk: Value,
}

/// What every event has; the rest of it is read by its type, from the same text: no tree of values is built on the way.
#[derive(Debug, Deserialize)]
struct Head {
    id: Uuid,
    at: DateTime<Utc>,
    #[serde(rename = "type")]
    kind: Kind,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Kind {
    /// The whole schedule of a Beat.
    BeatSchedule,
    /// When entries that a Beat has just sent are next due.
    BeatDue,
    /// Beat lives: its tick returned.
    BeatAlive,
    /// A worker lives, and how it is.
    WorkerSnapshot,
    /// A worker looked at the broker.
    BrokerSample,
    /// A run was put into the broker's hands.
    RunPublished,
    /// A worker took a run from its queue.
    RunReceived,
    /// Beat could not put a run into the broker's hands.
    PublishFailed,
    /// A run began in a worker.
    RunStarted,
    /// A try ended and another one comes: a stage of the same run.
    RunRetried,
    /// A run ended.
    RunFinished,
    /// The client had to drop events.
    ClientLoss,
}

/// An event, read.
#[derive(Debug)]
enum What {
    BeatSchedule(Snapshot),
    BeatDue(DueHints),
    BeatAlive(beat::Alive),
    WorkerSnapshot(Box<worker::Snapshot>),
    BrokerSample(broker::Sample),
    PublishFailed(PublishFailed),
    Run(StageKind, RunEvent),
    ClientLoss(ClientLoss),
}

#[derive(Debug, Deserialize)]
struct PublishFailed {
    beat: String,
    #[serde(default)]
    entry: Option<String>,
    #[serde(default)]
    error: Option<String>,
    #[serde(default = "one")]
    count: u64,
}

#[derive(Debug, Deserialize)]
struct ClientLoss {
    dropped: u64,
    #[serde(default)]
    app: Option<String>,
    #[serde(default)]
    process: String,
}

/// Reads an event.
fn read(event: &RawValue) -> Result<(Head, What), serde_json::Error> {
    let text = event.get();
    // serde would take a list for an object and go by the order of the members.
    if !text.starts_with('{') {
        return Err(serde_json::Error::custom("is no object"));
    }
    let head: Head = serde_json::from_str(text)?;
    let what = match head.kind {
        Kind::BeatSchedule => What::BeatSchedule(serde_json::from_str(text)?),
        Kind::BeatDue => What::BeatDue(serde_json::from_str(text)?),
        Kind::BeatAlive => What::BeatAlive(serde_json::from_str(text)?),
        Kind::WorkerSnapshot => What::WorkerSnapshot(serde_json::from_str(text)?),
        Kind::BrokerSample => What::BrokerSample(serde_json::from_str(text)?),
        Kind::PublishFailed => What::PublishFailed(serde_json::from_str(text)?),
        Kind::RunPublished => What::Run(StageKind::Published, serde_json::from_str(text)?),
        Kind::RunReceived => What::Run(StageKind::Received, serde_json::from_str(text)?),
        Kind::RunStarted => What::Run(StageKind::Started, serde_json::from_str(text)?),
        Kind::RunRetried => What::Run(StageKind::Retried, serde_json::from_str(text)?),
        Kind::RunFinished => What::Run(StageKind::Finished, serde_json::from_str(text)?),
        Kind::ClientLoss => What::ClientLoss(serde_json::from_str(text)?),
    };
    Ok((head, what))
}

/// The id of an event that cannot be read.
fn id_of(event: &RawValue) -> Option<Uuid> {
    let event: Value = serde_json::from_str(event.get()).ok()?;
    let id = event.get("id").and_then(Value::as_str)?;
    Uuid::parse_str(id).ok()
}

fn one() -> u64 {
    1
}

/// A stage of a run. One that Beat did not send has no entry, and no monitor to miss it.
#[derive(Debug, Clone, Deserialize)]
struct RunEvent {
    beat: String,
    /// It must be said: left out by mistake, a run would be nobody's.
    #[serde(deserialize_with = "Option::deserialize")]
    entry: Option<String>,
    run_id: Uuid,
    #[serde(default)]
    task: Option<String>,
    #[serde(default)]
    task_id: Option<String>,
    #[serde(default)]
    worker: Option<String>,
    #[serde(default)]
    retries: i32,
    #[serde(default)]
    outcome: Option<String>,
    #[serde(default)]
    duration_seconds: Option<f64>,
    #[serde(default)]
    error: Option<String>,
    #[serde(default)]
    queue: Option<String>,
    #[serde(default)]
    attempt: Option<Uuid>,
    #[serde(default)]
    redelivered: bool,
    #[serde(default)]
    published_at: Option<DateTime<Utc>>,
    #[serde(default)]
    slot: Option<DateTime<Utc>>,
    #[serde(default)]
    eta: Option<DateTime<Utc>>,
    #[serde(default)]
    pid: Option<i64>,
    #[serde(default)]
    soft: bool,
}

/// What became of one event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// It is written and committed.
    Accepted,
    /// The same, of a sign of life: whether this process is asked to look at the broker for its application.
    Heard {
        /// It is the one that looks.
        samples: bool,
        /// Then: the queues that the workers of its application consume.
        queues: Vec<String>,
    },
    /// It is refused for good: sending it again changes nothing.
    Rejected {
        /// Stable, for programs.
        code: &'static str,
        /// For people.
        detail: String,
    },
}

impl Verdict {
    fn rejected(code: &'static str, detail: impl Into<String>) -> Self {
        Self::Rejected {
            code,
            detail: detail.into(),
        }
    }
}

/// Takes a batch in. The verdicts are in the order of the events, with the events' ids where they could be read.
///
/// # Errors
/// The database is away or too much is waiting: nothing may be assumed written, and the batch should be sent again.
pub async fn accept(
    services: &Services,
    project: ProjectId,
    batch: EventBatch,
    received_at: DateTime<Utc>,
    remote_addr: Option<String>,
) -> Result<Vec<(Option<Uuid>, Verdict)>, ServiceError> {
    let skew = received_at - batch.sent_at;
    let mut verdicts: Vec<(Option<Uuid>, Verdict)> = Vec::with_capacity(batch.events.len());
    let mut told: Vec<ToldRun> = Vec::new();
    for event in batch.events {
        let (head, what) = match read(&event) {
            Ok(read) => read,
            Err(error) => {
                verdicts.push((
                    id_of(&event),
                    Verdict::rejected("invalid_event", error.to_string()),
                ));
                continue;
            }
        };
        // By our clock; never in the future, and never absurdly long ago. Two times at the ends of the calendar have no sum.
        let occurred_at = head.at.checked_add_signed(skew).unwrap_or(received_at);
        let occurred_at = to_micros(occurred_at.clamp(received_at - TimeDelta::days(1), received_at));
        let verdict = match what {
            What::BeatSchedule(snapshot) => {
                schedule_sync::sync(services, project, snapshot, occurred_at, skew)
                    .await
                    .or_else(rejection)?
            }
            What::BeatDue(hints) => schedule_sync::due(services, project, hints, skew)
                .await
                .or_else(rejection)?,
            What::BeatAlive(alive) => beat::alive(services, project, alive, occurred_at, skew)
                .await
                .or_else(rejection)?,
            What::WorkerSnapshot(snapshot) => worker::heard(services, project, *snapshot, skew)
                .await
                .or_else(rejection)?,
            What::BrokerSample(sample) => broker::seen(services, project, sample, occurred_at)
                .await
                .or_else(rejection)?,
            What::PublishFailed(failed) => {
                let (entry, error) = (failed.entry.unwrap_or_default(), failed.error.unwrap_or_default());
                tracing::warn!(project.id = %project, beat = clip(&failed.beat), entry = clip(&entry), error = clip(&error), count = failed.count, "Beat could not send a task");
                beat::send_failed(services, project, &failed.beat, &error, occurred_at)
                    .await
                    .or_else(rejection)?
            }
            What::Run(kind, run) => match outcome_of(kind, &run) {
                Ok(outcome) => {
                    told.push(ToldRun {
                        place: verdicts.len(),
                        id: head.id,
                        kind,
                        outcome,
                        occurred_at,
                        run,
                    });
                    Verdict::Accepted
                }
                Err(verdict) => verdict,
            },
            What::ClientLoss(loss) => {
                tracing::warn!(project.id = %project, dropped = loss.dropped, process = clip(&loss.process), "a client lost events");
                match loss.app {
                    Some(app) => beat::events_lost(services, project, &app, loss.dropped)
                        .await
                        .or_else(rejection)?,
                    None => Verdict::Accepted,
                }
            }
        };
        verdicts.push((Some(head.id), verdict));
    }
    let mut sent: HashMap<String, HashMap<String, u32>> = HashMap::new();
    let mut sent_at = received_at;
    // A retry is sent by its worker, and what was held up says nothing of how often Beat sends now.
    let is_fresh = |one: &&ToldRun| {
        one.kind == StageKind::Published
            && one.run.retries == 0
            && received_at - one.occurred_at < STORM_WINDOW
    };
    for one in told.iter().filter(is_fresh) {
        // PostgreSQL's text cannot hold a NUL: it is no entry's name.
        let names = one
            .run
            .entry
            .as_ref()
            .filter(|entry| !entry.contains('\0') && !one.run.beat.contains('\0'));
        if let Some(entry) = names {
            let counts = sent.entry(one.run.beat.clone()).or_default();
            *counts.entry(entry.clone()).or_default() += 1;
            sent_at = one.occurred_at;
        }
    }
    let runs = accept_stages(services, project, told, skew, received_at, &mut verdicts).await?;
    for (name, entries) in &sent {
        beat::sent(services, project, name, entries, sent_at).await?;
    }
    accept_runs(services, runs, received_at, remote_addr, &mut verdicts).await?;
    Ok(verdicts)
}

/// What the client can mend is a verdict; what passes is an error of the whole batch.
fn rejection(error: ServiceError) -> Result<Verdict, ServiceError> {
    match error {
        ServiceError::Invalid(faults) => {
            let detail: Vec<String> = faults
                .into_iter()
                .map(|fault| format!("{} {}", fault.pointer, fault.message))
                .collect();
            Ok(Verdict::rejected("invalid_event", detail.join("; ")))
        }
        ServiceError::Limit { .. } | ServiceError::Conflict(_) | ServiceError::SlugTaken(_) => {
            Ok(Verdict::rejected("refused", error.to_string()))
        }
        other => Err(other),
    }
}

/// A stage of a run as it was told.
struct ToldRun {
    /// Of its verdict.
    place: usize,
    id: Uuid,
    kind: StageKind,
    outcome: Option<Outcome>,
    /// By our clock.
    occurred_at: DateTime<Utc>,
    run: RunEvent,
}

/// A stage that is also a ping of a monitor.
struct RunPing {
    /// Of its verdict.
    place: usize,
    /// Its monitor, as its ping URL names it: whoever names it goes the same way.
    monitor: PingId,
    kind: PingKind,
    outcome: Option<Outcome>,
    event: Uuid,
    /// By our clock.
    occurred_at: DateTime<Utc>,
    run: RunEvent,
}

/// How a run ended; none of a stage that is no end.
fn outcome_of(kind: StageKind, run: &RunEvent) -> Result<Option<Outcome>, Verdict> {
    if kind != StageKind::Finished {
        return Ok(None);
    }
    let outcome = run.outcome.as_deref().and_then(Outcome::parse);
    outcome.map(Some).ok_or_else(|| {
        Verdict::rejected(
            "invalid_event",
            format!(
                "outcome is {:?}; success, ignored, failure, retries_exhausted, rejected, aborted, revoked, expired, time_limit or lost is allowed",
                run.outcome.as_deref().map(clip)
            ),
        )
    })
}

/// Writes what was told of runs into their traces. Answers what is also a ping of a monitor.
async fn accept_stages(
    services: &Services,
    project: ProjectId,
    told: Vec<ToldRun>,
    skew: TimeDelta,
    received_at: DateTime<Utc>,
    verdicts: &mut [(Option<Uuid>, Verdict)],
) -> Result<Vec<RunPing>, ServiceError> {
    let monitors = monitors_of(services, project, &told).await?;
    let mut stages = Vec::with_capacity(told.len());
    let mut runs = Vec::new();
    for one in told {
        let run = &one.run;
        let monitor = match &run.entry {
            None => None,
            Some(entry) => match monitors.get(&(run.beat.as_str().into(), entry.as_str().into())) {
                Some(&found) => Some(found),
                None => {
                    verdicts[one.place].1 = unknown_entry(&run.beat, entry);
                    continue;
                }
            },
        };
        let kind = match (one.kind, one.outcome) {
            (StageKind::Started, _) => Some(PingKind::Start),
            (StageKind::Retried, _) => Some(PingKind::Log),
            (StageKind::Finished, Some(outcome)) if outcome.is_failure() => Some(PingKind::Fail),
            (StageKind::Finished, _) => Some(PingKind::Success),
            (StageKind::Published | StageKind::Received | StageKind::GivenUp, _) => None,
        };
        if let (Some(kind), Some((_, monitor))) = (kind, monitor) {
            runs.push(RunPing {
                place: one.place,
                monitor,
                kind,
                outcome: one.outcome,
                event: one.id,
                occurred_at: one.occurred_at,
                run: run.clone(),
            });
        }
        stages.push(new_stage(one, monitor.map(|(id, _)| id), skew, received_at));
    }
    services.traces.accept(project, received_at, stages).await?;
    Ok(runs)
}

/// The monitors of the entries that are named, by Beat and entry.
async fn monitors_of(
    services: &Services,
    project: ProjectId,
    told: &[ToldRun],
) -> Result<HashMap<(Box<str>, Box<str>), (MonitorId, PingId)>, ServiceError> {
    // What has a NUL is no entry's name: PostgreSQL's text cannot hold one.
    let named: HashSet<(&str, &str)> = told
        .iter()
        .filter_map(|one| Some((one.run.beat.as_str(), one.run.entry.as_deref()?)))
        .filter(|(beat, entry)| !beat.contains('\0') && !entry.contains('\0'))
        .collect();
    // Runs that Beat did not send ask the database nothing here.
    if named.is_empty() {
        return Ok(HashMap::new());
    }
    let (beats, entries): (Vec<String>, Vec<String>) = named
        .into_iter()
        .map(|(beat, entry)| (beat.to_owned(), entry.to_owned()))
        .unzip();
    let found =
        deadbeat_store::monitor::resolve_entries(&services.reader(), project, &beats, &entries).await?;
    services
        .ingest
        .learn(found.iter().map(|(_, monitor, ping)| (*ping, *monitor)));
    let name = |index: usize| {
        Some((
            beats.get(index)?.as_str().into(),
            entries.get(index)?.as_str().into(),
        ))
    };
    Ok(found
        .into_iter()
        .filter_map(|(index, monitor, ping)| Some((name(index)?, (monitor, ping))))
        .collect())
}

fn new_stage(
    one: ToldRun,
    monitor_id: Option<MonitorId>,
    skew: TimeDelta,
    received_at: DateTime<Utc>,
) -> NewStage {
    let run = one.run;
    // By our clock, as all times of a batch; what is beyond reason is nothing.
    let near = |at: DateTime<Utc>| (at - received_at).abs() <= FAR;
    let ours = |at: DateTime<Utc>| at.checked_add_signed(skew).filter(|at| near(*at)).map(to_micros);
    let published_at = match one.kind {
        StageKind::Published => Some(one.occurred_at),
        _ => run.published_at.and_then(ours).map(|at| at.min(received_at)),
    };
    let stage = Stage {
        id: one.id,
        kind: one.kind,
        at: one.occurred_at,
        retries: run.retries.max(0),
        attempt: run.attempt,
        worker: run.worker.map(kept),
        queue: run.queue.map(kept),
        redelivered: run.redelivered,
        pid: run.pid,
        outcome: one.outcome,
        soft: run.soft,
        duration_seconds: run
            .duration_seconds
            .filter(|seconds| (0.0..=limits::SPAN_SECONDS).contains(seconds)),
        error: run.error.map(kept),
    };
    NewStage {
        run_id: run.run_id,
        app: kept(run.beat),
        entry: run.entry.map(kept),
        monitor_id,
        told: Told {
            stage,
            task: run.task.map(kept),
            task_id: run.task_id.map(kept),
            // An instant of the schedule, which no clock has measured.
            slot: run.slot.filter(|slot| near(*slot)).map(to_micros),
            eta: run.eta.and_then(ours),
            published_at,
        },
    }
}

/// A text as it is kept: cut, and without NUL, which PostgreSQL's text cannot hold.
fn kept(text: String) -> String {
    if text.len() <= limits::MONITOR_NAME_CHARS && !text.contains('\0') {
        return text;
    }
    text.chars()
        .filter(|c| *c != '\0')
        .take(limits::MONITOR_NAME_CHARS)
        .collect()
}

fn unknown_entry(beat: &str, entry: &str) -> Verdict {
    Verdict::rejected(
        "unknown_entry",
        format!(
            "Beat {:?} has not registered an entry {:?}",
            clip(beat),
            clip(entry)
        ),
    )
}

async fn accept_runs(
    services: &Services,
    runs: Vec<RunPing>,
    received_at: DateTime<Utc>,
    remote_addr: Option<String>,
    verdicts: &mut [(Option<Uuid>, Verdict)],
) -> Result<(), ServiceError> {
    let mut sent = Vec::new();
    for ping in runs {
        let place = ping.place;
        sent.push((
            place,
            services
                .ingest
                .accept(incoming(ping, received_at, remote_addr.clone())),
        ));
    }
    // All are in the queue before the first is awaited: their order holds, and they share commits.
    let (places, pending): (Vec<usize>, Vec<_>) = sent.into_iter().unzip();
    for (place, accepted) in places.into_iter().zip(join_all(pending).await) {
        match accepted {
            Ok(Accepted::Recorded) => {}
            Ok(Accepted::Unknown { .. }) => {
                verdicts[place].1 = Verdict::rejected("unknown_entry", "the monitor was deleted meanwhile");
            }
            Err(IngestError::Full | IngestError::Unavailable) => return Err(ServiceError::Busy),
        }
    }
    Ok(())
}

fn incoming(ping: RunPing, received_at: DateTime<Utc>, remote_addr: Option<String>) -> Incoming {
    let RunPing {
        monitor,
        kind,
        outcome,
        event,
        occurred_at,
        run,
        ..
    } = ping;
    let text = |value: Option<String>| {
        value.map(|value| {
            value
                .chars()
                .filter(|c| *c != '\0')
                .take(limits::MONITOR_NAME_CHARS)
                .collect()
        })
    };
    // A failure without an exception is named by its outcome: `aborted`, `revoked`.
    let error = if kind == PingKind::Fail {
        run.error.or(run.outcome)
    } else {
        None
    };
    Incoming {
        address: Address::Ping(monitor),
        signal: Signal {
            kind,
            received_at,
            occurred_at,
            run_id: Some(run.run_id),
            exit_code: None,
            duration: run
                .duration_seconds
                .filter(|seconds| (0.0..=limits::SPAN_SECONDS).contains(seconds))
                .map(deadbeat_domain::time::span),
            source: Source::Event,
            detail: RunDetail {
                task: text(run.task),
                task_id: text(run.task_id),
                worker: text(run.worker),
                retries: run.retries.max(0),
                error: text(error),
                outcome,
                attempt: run.attempt,
                event: Some(event),
                is_retried: kind == PingKind::Log,
            },
        },
        method: None,
        remote_addr,
        user_agent: None,
        body: Vec::new(),
    }
}
