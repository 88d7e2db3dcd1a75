//! The entrance for the SDK: a batch of events. Each event gets its own verdict.

mod run;
pub(crate) mod share;

use std::fmt;

use chrono::{DateTime, TimeDelta, Utc};
use deadbeat_domain::celery::trace::StageKind;
use deadbeat_domain::limits;
use deadbeat_domain::monitor::clip;
use deadbeat_domain::people::access::{Access, Actor};
use deadbeat_domain::people::permission::Action;
use deadbeat_domain::text::Text;
use deadbeat_domain::time::to_micros;
use deadbeat_store::connection::turns::Turn;
use serde::de::{Error, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;
use uuid::Uuid;

use self::run::{ReportedRun, RunEvent};
use crate::celery::beat::schedule_sync::listing::{DueHints, ScheduleListing};
use crate::celery::beat::{schedule_sync, sending};
use crate::celery::{beat, broker, worker};
use crate::{ServiceError, Services};

/// A batch as the SDK sends it. Other fields of a batch are skipped without being parsed into values.
#[derive(Debug, Deserialize)]
pub struct EventBatch {
    /// When the client sent the batch, by its clock. This shows how far that clock is off.
    pub sent_at: DateTime<Utc>,
    /// The events, in the order in which they happened.
    #[serde(deserialize_with = "at_most_a_batch")]
    pub events: Vec<Event>,
    /// The turn of a large batch. [`accept`] gives it back once the runs of the batch have places in the queue of the history: from there on, the
    /// project's share limits how much is under way, and the next batch can be parsed while this one is committed.
    #[serde(skip)]
    pub turn: Option<Turn>,
}

/// An event, parsed separately, so that an unreadable event does not affect the others.
#[derive(Debug)]
pub struct Event(Result<(Head, EventBody), Unreadable>);

#[derive(Debug)]
struct Unreadable {
    id: Option<Uuid>,
    detail: String,
}

impl<'de> Deserialize<'de> for Event {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let event = Box::<RawValue>::deserialize(deserializer)?;
        Ok(Self(read(&event).map_err(|error| Unreadable {
            id: id_of(&event),
            detail: error.to_string(),
        })))
    }
}

/// Reads a list of events. Stops at the first event beyond the limit.
fn at_most_a_batch<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<Event>, D::Error> {
    struct Events;

    impl<'de> Visitor<'de> for Events {
        type Value = Vec<Event>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a list of events")
        }

        fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Vec<Event>, A::Error> {
            let mut events = Vec::new();
            while let Some(event) = list.next_element()? {
                if events.len() == limits::EVENT_BATCH_COUNT {
                    return Err(A::Error::custom(format!(
                        "holds more than {0} events; at most {0} are allowed",
                        limits::EVENT_BATCH_COUNT
                    )));
                }
                events.push(event);
            }
            Ok(events)
        }
    }

    deserializer.deserialize_seq(Events)
}

/// The fields that every event has. The others are parsed from the same text by the event's type, without an intermediate tree of values.
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
    /// The next due times of entries that a Beat has just sent.
    BeatDue,
    /// A heartbeat of Beat: its tick returned.
    BeatAlive,
    /// A snapshot of a worker.
    WorkerSnapshot,
    /// A sample of the broker.
    BrokerSample,
    /// A sender gave a run to the broker.
    RunPublished,
    /// A worker received a run from its queue.
    RunReceived,
    /// Beat could not give a run to the broker.
    PublishFailed,
    /// A worker started a run.
    RunStarted,
    /// An attempt of a run ended, and another one will follow.
    RunRetried,
    /// A run ended.
    RunFinished,
    /// The client had to drop events.
    ClientLoss,
}

/// A parsed event.
#[derive(Debug)]
enum EventBody {
    BeatSchedule(ScheduleListing),
    BeatDue(DueHints),
    BeatAlive(beat::Heartbeat),
    WorkerSnapshot(Box<worker::WorkerSnapshot>),
    BrokerSample(broker::Sample),
    PublishFailed(PublishFailed),
    Run(StageKind, RunEvent),
    ClientLoss(ClientLoss),
}

#[derive(Debug, Deserialize)]
struct PublishFailed {
    beat: String,
    #[serde(default)]
    entry: Option<Text>,
    #[serde(default)]
    error: Option<Text>,
    #[serde(default = "one")]
    count: u64,
}

#[derive(Debug, Deserialize)]
struct ClientLoss {
    dropped: u64,
    #[serde(default)]
    app: Option<String>,
    #[serde(default)]
    process: Text,
}

/// Parses an event.
fn read(event: &RawValue) -> Result<(Head, EventBody), serde_json::Error> {
    let text = event.get();
    // serde would accept a list for an object, and assign its members by the order of the fields.
    if !text.starts_with('{') {
        return Err(serde_json::Error::custom("is not an object"));
    }
    let head: Head = serde_json::from_str(text)?;
    let what = match head.kind {
        Kind::BeatSchedule => EventBody::BeatSchedule(serde_json::from_str(text)?),
        Kind::BeatDue => EventBody::BeatDue(serde_json::from_str(text)?),
        Kind::BeatAlive => EventBody::BeatAlive(serde_json::from_str(text)?),
        Kind::WorkerSnapshot => EventBody::WorkerSnapshot(serde_json::from_str(text)?),
        Kind::BrokerSample => EventBody::BrokerSample(serde_json::from_str(text)?),
        Kind::PublishFailed => EventBody::PublishFailed(serde_json::from_str(text)?),
        Kind::RunPublished => EventBody::Run(StageKind::Published, serde_json::from_str(text)?),
        Kind::RunReceived => EventBody::Run(StageKind::Received, serde_json::from_str(text)?),
        Kind::RunStarted => EventBody::Run(StageKind::Started, serde_json::from_str(text)?),
        Kind::RunRetried => EventBody::Run(StageKind::Retried, serde_json::from_str(text)?),
        Kind::RunFinished => EventBody::Run(StageKind::Finished, serde_json::from_str(text)?),
        Kind::ClientLoss => EventBody::ClientLoss(serde_json::from_str(text)?),
    };
    Ok((head, what))
}

/// Returns the id of an event that cannot be parsed otherwise.
fn id_of(event: &RawValue) -> Option<Uuid> {
    #[derive(Deserialize)]
    struct Named {
        id: Uuid,
    }
    // serde would accept a list for an object, and assign its members by the order of the fields.
    let text = event.get();
    let named = text.starts_with('{').then(|| serde_json::from_str::<Named>(text));
    Some(named?.ok()?.id)
}

fn one() -> u64 {
    1
}

/// The result for one event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// The event is written and committed.
    Accepted,
    /// Accepted, for a report of a process. Also says whether this process must sample the broker for its application.
    Received {
        /// True if this process is the sampler.
        samples: bool,
        /// For the sampler: the queues that the workers of its application consume, as far as they were reported with the same key.
        queues: Vec<String>,
    },
    /// Accepted, for a Beat whose loop turns.
    Ticked {
        /// True if this process is the sampler.
        samples: bool,
        /// For the sampler: the queues that the workers of its application consume.
        queues: Vec<String>,
        /// The queues to which a canary may be sent: a worker consumes them, or consumed them before all workers left.
        attended: Vec<String>,
    },
    /// The event is refused for good. Sending it again would not help.
    Rejected {
        /// The code for programs, which never changes.
        code: &'static str,
        /// The explanation for people.
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

/// Handles a batch. Returns the verdicts in the order of the events, with the events' ids if they could be parsed.
///
/// # Errors
/// If the access does not allow this, the database cannot be reached, or the server is overloaded. The events may or may not be written, so the
/// client should send the batch again.
pub async fn accept(
    services: &Services,
    access: &Access,
    batch: EventBatch,
    received_at: DateTime<Utc>,
    remote_addr: Option<String>,
) -> Result<Vec<(Option<Uuid>, Verdict)>, ServiceError> {
    let project = access.may(Action::Signal)?;
    let skew = received_at - batch.sent_at;
    let key = match access.actor() {
        Actor::Key { id, .. } => Some(id),
        Actor::Account { .. } | Actor::Operator | Actor::System => None,
    };
    let mut verdicts: Vec<(Option<Uuid>, Verdict)> = Vec::with_capacity(batch.events.len());
    let mut reported: Vec<ReportedRun> = Vec::new();
    for event in batch.events {
        let (head, what) = match event.0 {
            Ok(read) => read,
            Err(Unreadable { id, detail }) => {
                verdicts.push((id, Verdict::rejected("invalid_event", detail)));
                continue;
            }
        };
        // By the server's clock: never in the future, and at most a day ago. The sum of two times near the ends of the calendar does not exist.
        let occurred_at = head.at.checked_add_signed(skew).unwrap_or(received_at);
        let occurred_at = to_micros(occurred_at.clamp(received_at - TimeDelta::days(1), received_at));
        let verdict = match what {
            EventBody::BeatSchedule(snapshot) => {
                schedule_sync::sync(services, project, snapshot, occurred_at, skew)
                    .await
                    .or_else(rejection)?
            }
            EventBody::BeatDue(hints) => schedule_sync::due(services, project, hints, skew)
                .await
                .or_else(rejection)?,
            EventBody::BeatAlive(alive) => beat::alive(services, project, alive, occurred_at, skew, key)
                .await
                .or_else(rejection)?,
            EventBody::WorkerSnapshot(snapshot) => worker::on_report(services, project, *snapshot, skew, key)
                .await
                .or_else(rejection)?,
            EventBody::BrokerSample(sample) => broker::seen(services, project, sample, occurred_at, key)
                .await
                .or_else(rejection)?,
            EventBody::PublishFailed(failed) => {
                let (entry, error) = (failed.entry.unwrap_or_default(), failed.error.unwrap_or_default());
                tracing::warn!(project.id = %project, beat = clip(&failed.beat), entry = clip(&entry), error = clip(&error), count = failed.count, "Beat could not send a task");
                sending::send_failed(services, project, &failed.beat, error, occurred_at)
                    .await
                    .or_else(rejection)?
            }
            EventBody::Run(kind, run) => match run::outcome_of(kind, &run) {
                Ok(outcome) => {
                    reported.push(ReportedRun {
                        place: verdicts.len(),
                        id: head.id,
                        kind,
                        outcome,
                        occurred_at,
                        ahead: (head.at - received_at).max(-skew),
                        run,
                    });
                    Verdict::Accepted
                }
                Err(verdict) => verdict,
            },
            EventBody::ClientLoss(loss) => {
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
    if reported.is_empty() {
        return Ok(verdicts);
    }
    let _share = services.stages.take(project, reported.len()).await?;
    drop(batch.turn);
    run::accept(
        services,
        project,
        reported,
        skew,
        received_at,
        remote_addr,
        &mut verdicts,
    )
    .await?;
    Ok(verdicts)
}

/// Converts an error that the client can correct to a verdict. A temporary error fails the whole batch.
fn rejection(error: ServiceError) -> Result<Verdict, ServiceError> {
    match error {
        ServiceError::Invalid(faults) => {
            let detail: Vec<String> = faults
                .into_iter()
                .map(|fault| format!("{} {}", fault.pointer, fault.message))
                .collect();
            Ok(Verdict::rejected("invalid_event", detail.join("; ")))
        }
        ServiceError::Limit { .. }
        | ServiceError::TooMany { .. }
        | ServiceError::Conflict(_)
        | ServiceError::SlugTaken(_) => Ok(Verdict::rejected("refused", error.to_string())),
        other => Err(other),
    }
}
