//! The SDK's door: a batch of events, each with a verdict of its own.

use std::collections::HashMap;

use chrono::{DateTime, TimeDelta, Utc};
use deadbeat_domain::ids::{MonitorId, ProjectId};
use deadbeat_domain::limits;
use deadbeat_domain::monitor::clip;
use deadbeat_domain::ping::{PingKind, Signal, Source};
use deadbeat_domain::run::{Outcome, RunDetail};
use deadbeat_domain::time::to_micros;
use deadbeat_store::stage::Stage;
use futures::future::join_all;
use serde::Deserialize;
use serde_json::Value;
use uuid::Uuid;

use crate::ingest::{Accepted, Address, Incoming, IngestError};
use crate::schedule_sync::{self, Alive, DueHints, Snapshot};
use crate::{ServiceError, Services, broker, worker};

/// A batch, as the SDK sends it.
#[derive(Debug, Deserialize)]
pub struct EventBatch {
    /// When it was sent, by the client's clock: tells how far that clock is off.
    pub sent_at: DateTime<Utc>,
    /// The events, in the order in which they happened. Each is read on its own, so that one bad event spoils no other.
    pub events: Vec<Value>,
    /// Which SDK, for logs.
    #[serde(default)]
    pub sdk: Value,
}

/// One event.
#[derive(Debug, Deserialize)]
struct Event {
    id: Uuid,
    at: DateTime<Utc>,
    #[serde(flatten)]
    what: What,
}

#[derive(Debug, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
enum What {
    /// The whole schedule of a Beat.
    BeatSchedule(Snapshot),
    /// When entries that a Beat has just sent are next due.
    BeatDue(DueHints),
    /// Beat lives: its tick returned.
    BeatAlive(Alive),
    /// A worker lives, and how it is.
    WorkerSnapshot(Box<worker::Snapshot>),
    /// A worker looked at the broker.
    BrokerSample(broker::Sample),
    /// A run was put into the broker's hands.
    RunPublished(StageEvent),
    /// A worker took a run from its queue.
    RunReceived(StageEvent),
    /// Beat could not put a run into the broker's hands.
    PublishFailed {
        beat: String,
        #[serde(default)]
        entry: Option<String>,
        #[serde(default)]
        error: Option<String>,
        #[serde(default = "one")]
        count: u64,
    },
    /// A run began in a worker.
    RunStarted(RunEvent),
    /// A try ended and another one comes: a stage of the same run.
    RunRetried(RunEvent),
    /// A run ended.
    RunFinished(RunEvent),
    /// The client had to drop events.
    ClientLoss {
        dropped: u64,
        #[serde(default)]
        process: String,
    },
}

fn one() -> u64 {
    1
}

/// A run that has not begun. One that Beat did not send has no entry, and no monitor to miss it.
#[derive(Debug, Deserialize)]
struct StageEvent {
    beat: String,
    /// It must be said: left out by mistake, a run would be nobody's.
    #[serde(deserialize_with = "Option::deserialize")]
    entry: Option<String>,
    run_id: Uuid,
    #[serde(default)]
    task_id: Option<String>,
    #[serde(default)]
    queue: Option<String>,
    #[serde(default)]
    published_at: Option<DateTime<Utc>>,
    #[serde(default)]
    worker: Option<String>,
}

#[derive(Debug, Deserialize)]
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
    /// Which execution of its message this is.
    #[serde(default)]
    attempt: Option<Uuid>,
    #[serde(default)]
    outcome: Option<String>,
    #[serde(default)]
    duration_seconds: Option<f64>,
    #[serde(default)]
    error: Option<String>,
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
    let mut runs: Vec<(usize, PingKind, DateTime<Utc>, Uuid, RunEvent)> = Vec::new();
    let mut stages: Vec<(usize, bool, DateTime<Utc>, StageEvent)> = Vec::new();
    let mut sent: HashMap<String, HashMap<String, u32>> = HashMap::new();
    let mut sent_at = received_at;
    for value in batch.events {
        let id = value
            .get("id")
            .and_then(Value::as_str)
            .and_then(|id| Uuid::parse_str(id).ok());
        let event: Event = match serde_json::from_value(value) {
            Ok(event) => event,
            Err(error) => {
                verdicts.push((id, Verdict::rejected("invalid_event", error.to_string())));
                continue;
            }
        };
        // By our clock; never in the future, and never absurdly long ago. Two times at the ends of the calendar have no sum.
        let occurred_at = event.at.checked_add_signed(skew).unwrap_or(received_at);
        let occurred_at = to_micros(occurred_at.clamp(received_at - TimeDelta::days(1), received_at));
        let verdict = match event.what {
            What::BeatSchedule(snapshot) => {
                schedule_sync::sync(services, project, snapshot, occurred_at, skew)
                    .await
                    .or_else(rejection)?
            }
            What::BeatDue(hints) => schedule_sync::due(services, project, hints, skew)
                .await
                .or_else(rejection)?,
            What::BeatAlive(alive) => schedule_sync::alive(services, project, alive, occurred_at, skew)
                .await
                .or_else(rejection)?,
            What::WorkerSnapshot(snapshot) => worker::heard(services, project, *snapshot, skew)
                .await
                .or_else(rejection)?,
            What::BrokerSample(sample) => broker::seen(services, project, sample, occurred_at)
                .await
                .or_else(rejection)?,
            What::RunPublished(stage) => {
                if let Some(entry) = &stage.entry {
                    let counts: &mut HashMap<String, u32> = sent.entry(stage.beat.clone()).or_default();
                    *counts.entry(entry.clone()).or_default() += 1;
                    sent_at = occurred_at;
                }
                stages.push((verdicts.len(), false, occurred_at, stage));
                Verdict::Accepted
            }
            What::RunReceived(stage) => {
                stages.push((verdicts.len(), true, occurred_at, stage));
                Verdict::Accepted
            }
            What::PublishFailed {
                beat,
                entry,
                error,
                count,
            } => {
                let (entry, error) = (entry.unwrap_or_default(), error.unwrap_or_default());
                tracing::warn!(project.id = %project, beat = clip(&beat), entry = clip(&entry), error = clip(&error), count, "Beat could not send a task");
                schedule_sync::send_failed(services, project, &beat, &error, occurred_at)
                    .await
                    .or_else(rejection)?
            }
            What::RunStarted(run) => {
                runs.push((verdicts.len(), PingKind::Start, occurred_at, event.id, run));
                Verdict::Accepted
            }
            What::RunRetried(run) => {
                runs.push((verdicts.len(), PingKind::Log, occurred_at, event.id, run));
                Verdict::Accepted
            }
            What::RunFinished(run) => match run.outcome.as_deref() {
                Some("success" | "ignored") => {
                    runs.push((verdicts.len(), PingKind::Success, occurred_at, event.id, run));
                    Verdict::Accepted
                }
                Some(
                    "failure" | "retries_exhausted" | "rejected" | "aborted" | "revoked" | "expired"
                    | "time_limit" | "lost",
                ) => {
                    runs.push((verdicts.len(), PingKind::Fail, occurred_at, event.id, run));
                    Verdict::Accepted
                }
                other => Verdict::rejected(
                    "invalid_event",
                    format!(
                        "outcome is {:?}; success, ignored, failure, retries_exhausted, rejected, aborted, revoked, expired, time_limit or lost is allowed",
                        other.map(clip)
                    ),
                ),
            },
            What::ClientLoss { dropped, process } => {
                tracing::warn!(project.id = %project, dropped, process = clip(&process), "a client lost events");
                Verdict::Accepted
            }
        };
        verdicts.push((Some(event.id), verdict));
    }
    accept_stages(services, project, stages, skew, received_at, &mut verdicts).await?;
    for (beat, entries) in &sent {
        schedule_sync::sent(services, project, beat, entries, sent_at).await?;
    }
    accept_runs(services, project, runs, received_at, remote_addr, &mut verdicts).await?;
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

/// Keeps how far runs got before they began. What Beat did not send is passed over: no monitor waits for it.
async fn accept_stages(
    services: &Services,
    project: ProjectId,
    stages: Vec<(usize, bool, DateTime<Utc>, StageEvent)>,
    skew: TimeDelta,
    received_at: DateTime<Utc>,
    verdicts: &mut [(Option<Uuid>, Verdict)],
) -> Result<(), ServiceError> {
    let stages: Vec<_> = stages
        .into_iter()
        .filter(|(.., stage)| stage.entry.is_some())
        .collect();
    if stages.is_empty() {
        return Ok(());
    }
    let name = |text: &str| text.replace('\0', "");
    let beats: Vec<String> = stages.iter().map(|(.., stage)| name(&stage.beat)).collect();
    let entries: Vec<String> = stages
        .iter()
        .map(|(.., stage)| name(stage.entry.as_deref().unwrap_or_default()))
        .collect();
    let found =
        deadbeat_store::monitor::resolve_entries(&services.reader(), project, &beats, &entries).await?;
    let found: HashMap<usize, MonitorId> = found.into_iter().collect();
    let mut newest: HashMap<MonitorId, Stage> = HashMap::new();
    for (index, (place, is_received, at, stage)) in stages.into_iter().enumerate() {
        let named =
            !stage.beat.contains('\0') && !stage.entry.as_ref().is_some_and(|entry| entry.contains('\0'));
        let Some(&monitor_id) = found.get(&index).filter(|_| named) else {
            verdicts[place].1 = Verdict::rejected(
                "unknown_entry",
                format!(
                    "Beat {:?} has not registered an entry {:?}",
                    clip(&stage.beat),
                    clip(&stage.entry.unwrap_or_default())
                ),
            );
            continue;
        };
        let text = |value: Option<String>| value.map(|value| clip(&name(&value)));
        // By our clock, as all times of a batch.
        let published_at = if is_received {
            let ours = |at: DateTime<Utc>| at.checked_add_signed(skew).map(|at| at.min(received_at));
            stage.published_at.and_then(ours).map(to_micros)
        } else {
            Some(at)
        };
        let seen = Stage {
            monitor_id,
            run_id: stage.run_id,
            task_id: text(stage.task_id),
            queue: text(stage.queue),
            published_at,
            received_at: is_received.then_some(at),
            worker: text(stage.worker),
            heard_at: at,
        };
        let stored = newest.entry(monitor_id).or_insert_with(|| seen.clone());
        if stored.run_id == seen.run_id {
            stored.queue = seen.queue.or(stored.queue.take());
            stored.published_at = stored.published_at.or(seen.published_at);
            stored.received_at = seen.received_at.or(stored.received_at);
            stored.worker = seen.worker.or(stored.worker.take());
            stored.heard_at = stored.heard_at.max(seen.heard_at);
        } else if stored.heard_at <= seen.heard_at {
            *stored = seen;
        }
    }
    let newest: Vec<Stage> = newest.into_values().collect();
    let mut tx = services.store.begin().await?;
    deadbeat_store::stage::write(&mut tx, &newest).await?;
    tx.commit().await?;
    Ok(())
}

async fn accept_runs(
    services: &Services,
    project: ProjectId,
    runs: Vec<(usize, PingKind, DateTime<Utc>, Uuid, RunEvent)>,
    received_at: DateTime<Utc>,
    remote_addr: Option<String>,
    verdicts: &mut [(Option<Uuid>, Verdict)],
) -> Result<(), ServiceError> {
    if runs.is_empty() {
        return Ok(());
    }
    let beats: Vec<String> = runs.iter().map(|(.., run)| run.beat.replace('\0', "")).collect();
    let entry = |run: &RunEvent| run.entry.clone().unwrap_or_default();
    let entries: Vec<String> = runs
        .iter()
        .map(|(.., run)| entry(run).replace('\0', ""))
        .collect();
    let found =
        deadbeat_store::monitor::resolve_entries(&services.reader(), project, &beats, &entries).await?;
    let found: HashMap<usize, MonitorId> = found.into_iter().collect();

    let mut sent = Vec::new();
    for (index, (place, kind, occurred_at, event, run)) in runs.into_iter().enumerate() {
        // What had a NUL was asked for without it, since PostgreSQL's text cannot hold one: it is another name.
        let named = run.entry.is_some() && ![&run.beat, &entry(&run)].iter().any(|name| name.contains('\0'));
        let Some(monitor) = found.get(&index).filter(|_| named) else {
            verdicts[place].1 = Verdict::rejected(
                "unknown_entry",
                format!(
                    "Beat {:?} has not registered an entry {:?}",
                    clip(&run.beat),
                    clip(&entry(&run))
                ),
            );
            continue;
        };
        let incoming = incoming(
            *monitor,
            kind,
            received_at,
            occurred_at,
            event,
            run,
            remote_addr.clone(),
        );
        sent.push((place, services.ingest.accept(incoming)));
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

fn incoming(
    monitor: MonitorId,
    kind: PingKind,
    received_at: DateTime<Utc>,
    occurred_at: DateTime<Utc>,
    event: Uuid,
    run: RunEvent,
    remote_addr: Option<String>,
) -> Incoming {
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
    let outcome = run.outcome.as_deref().and_then(Outcome::parse);
    let error = if kind == PingKind::Fail {
        run.error.or(run.outcome)
    } else {
        None
    };
    Incoming {
        address: Address::Monitor(monitor),
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
