//! The subject of a change, with the facts about it.

use chrono::{DateTime, Utc};
use deadbeat_domain::celery::beat::incarnation::Incarnation;
use deadbeat_domain::celery::worker::stranger::Stranger;
use deadbeat_domain::change::Transition;
use deadbeat_domain::ids::ProjectId;
use deadbeat_domain::incident::cause::Cause;
use deadbeat_domain::incident::{Consequence, Subject, SubjectKey, SubjectKind, consequence};
use deadbeat_domain::monitor::ping::Signal;
use deadbeat_store::celery::beat::Beat;
use deadbeat_store::celery::broker::Broker;
use deadbeat_store::celery::queue::Queue;
use deadbeat_store::celery::trace::stage::RunProgress;
use deadbeat_store::celery::worker::Worker;
use deadbeat_store::incident::member::Affected;
use deadbeat_store::monitor::Monitor;

use super::explain;
use crate::celery::beat::at_once::AtOnce;
use crate::celery::beat::emptied::Emptied;
use crate::celery::beat::flood::Flood;
use crate::celery::host::lost::Host;
use crate::celery::result_backend::report::Backend;
use crate::incident::explain::Explanation;

/// The components that a monitor depends on.
#[derive(Debug, Clone, Copy, Default)]
pub struct Background<'a> {
    /// The Beat that sends its runs.
    pub beat: Option<&'a Beat>,
    /// The Beat's processes that crashed in a row.
    pub crashes: &'a [Incarnation],
    /// The last reported stage of the monitor's newest run.
    pub stage: Option<&'a RunProgress>,
    /// The broker of its application.
    pub broker: Option<&'a Broker>,
    /// The queues of its application.
    pub queues: &'a [Queue],
    /// The workers of its application.
    pub workers: &'a [Worker],
}

/// The subject that changed.
#[derive(Debug, Clone, Copy)]
pub enum Changed<'a> {
    /// A monitor, and the components that it depends on.
    Monitor(&'a Monitor, &'a Background<'a>),
    /// A monitor, with the signal that changed it and the Beat that sends its runs.
    Signalled(&'a Monitor, &'a Signal, Option<&'a Beat>),
    /// A Beat.
    Beat(&'a Beat),
    /// A Beat that floods its queue with runs of an entry.
    Flooding(&'a Beat, &'a Flood),
    /// A Beat whose schedule became empty.
    Emptied(&'a Beat, &'a Emptied),
    /// A Beat whose name several processes use at once.
    Several(&'a Beat, &'a AtOnce),
    /// A Beat, with its processes that crashed in a row.
    Crashing(&'a Beat, &'a [Incarnation]),
    /// A worker.
    Worker(&'a Worker),
    /// A queue, with the workers of its application and its strangers.
    Queue(&'a Queue, &'a [Worker], &'a [Stranger]),
    /// A broker.
    Broker(&'a Broker),
    /// A result backend.
    ResultBackend(&'a Backend),
    /// A host.
    Host(&'a Host),
    /// A subject that monitors' verdicts name, although nobody observed its fault.
    Named(&'a Named<'a>),
}

/// A subject that a monitor's verdict names.
#[derive(Debug, Clone)]
pub struct Named<'a> {
    /// The subject.
    pub subject: Subject,
    /// The monitor.
    pub monitor: &'a Monitor,
    /// The components that the monitor depends on.
    pub background: Background<'a>,
}

impl<'a> Changed<'a> {
    pub(super) fn project(&self) -> ProjectId {
        match self {
            Self::Monitor(monitor, ..) | Self::Signalled(monitor, ..) => monitor.project_id,
            Self::Beat(beat)
            | Self::Flooding(beat, _)
            | Self::Emptied(beat, _)
            | Self::Several(beat, _)
            | Self::Crashing(beat, _) => beat.project_id,
            Self::Worker(worker) => worker.project_id,
            Self::Queue(queue, ..) => queue.project_id,
            Self::Broker(broker) => broker.project_id,
            Self::ResultBackend(backend) => backend.project_id,
            Self::Host(host) => host.project_id,
            Self::Named(named) => named.monitor.project_id,
        }
    }

    pub(crate) fn subject(&self) -> Subject {
        match self {
            Self::Monitor(monitor, ..) | Self::Signalled(monitor, ..) => Subject {
                kind: SubjectKind::Monitor,
                id: monitor.id.0,
                name: monitor.name.clone(),
            },
            Self::Beat(beat)
            | Self::Flooding(beat, _)
            | Self::Emptied(beat, _)
            | Self::Several(beat, _)
            | Self::Crashing(beat, _) => Subject {
                kind: SubjectKind::Beat,
                id: beat.id.0,
                name: beat.name.clone(),
            },
            Self::Worker(worker) => Subject {
                kind: SubjectKind::Worker,
                id: worker.id.0,
                name: worker.name.clone(),
            },
            Self::Queue(queue, ..) => Subject {
                kind: SubjectKind::Queue,
                id: queue.id.0,
                name: queue.name.clone(),
            },
            Self::Broker(broker) => Subject {
                kind: SubjectKind::Broker,
                id: broker.id.0,
                name: broker.app.clone(),
            },
            Self::ResultBackend(backend) => Subject {
                kind: SubjectKind::ResultBackend,
                id: backend.id.0,
                name: backend.address.clone(),
            },
            Self::Host(host) => host.subject(),
            Self::Named(named) => named.subject.clone(),
        }
    }

    /// Returns the subject's project, kind and id.
    pub(crate) fn key(&self) -> SubjectKey {
        let subject = self.subject();
        (self.project(), subject.kind, subject.id)
    }

    pub(crate) fn monitor(&self) -> Option<&'a Monitor> {
        match *self {
            Self::Monitor(monitor, ..) | Self::Signalled(monitor, ..) => Some(monitor),
            Self::Beat(_)
            | Self::Flooding(..)
            | Self::Emptied(..)
            | Self::Several(..)
            | Self::Crashing(..)
            | Self::Worker(_)
            | Self::Queue(..)
            | Self::Broker(_)
            | Self::ResultBackend(_)
            | Self::Host(_)
            | Self::Named(_) => None,
        }
    }

    /// The monitors that a lost host affects.
    pub(super) fn affected(&self) -> Option<&'a Affected> {
        match *self {
            Self::Host(host) => Some(&host.affected),
            _ => None,
        }
    }

    pub(crate) fn explain(&self, cause: Cause, now: DateTime<Utc>) -> Explanation {
        match self {
            Self::Monitor(monitor, background) => explain::of_monitor(monitor, background, None, cause, now),
            Self::Signalled(monitor, signal, beat) => {
                let background = Background {
                    beat: *beat,
                    ..Background::default()
                };
                explain::of_monitor(monitor, &background, Some(signal), cause, now)
            }
            Self::Beat(beat) => explain::of_beat(beat, cause),
            Self::Flooding(beat, flood) => explain::of_flood(beat, flood),
            Self::Emptied(beat, emptied) => explain::of_emptied(beat, emptied),
            Self::Several(beat, at_once) => explain::of_several(beat, cause, at_once),
            Self::Crashing(beat, crashes) => explain::of_crash_loop(beat, crashes),
            Self::Worker(worker) => explain::of_worker(worker, cause),
            Self::Queue(queue, _, strangers) if cause == Cause::WorkerWithoutSdk => {
                explain::of_strangers(queue, strangers, now)
            }
            Self::Queue(queue, workers, _) => explain::of_queue(queue, workers, cause),
            Self::Broker(broker) => explain::of_broker(broker, now),
            Self::ResultBackend(backend) => explain::of_result_backend(backend, now),
            Self::Host(host) => explain::of_host(host),
            Self::Named(named) => explain::of_named(named, cause, now),
        }
    }
}

/// A change of a subject.
#[derive(Debug, Clone, Copy)]
pub struct Occurrence<'a> {
    /// The subject.
    pub changed: Changed<'a>,
    /// The change.
    pub what: OccurrenceKind,
}

/// The kinds of changes.
#[derive(Debug, Clone, Copy)]
pub enum OccurrenceKind {
    /// The subject's status changed, and its incident follows the status.
    Transition(Transition),
    /// The rules of a monitor decided the effect on its incident, with or without a change of status. The incident may
    /// wait for more runs.
    Decided {
        /// The change of status.
        transition: Option<Transition>,
        /// The effect on the incident. `Open` has no effect while an incident is open.
        consequence: Consequence,
        /// The time of the decision.
        at: DateTime<Utc>,
    },
}

impl OccurrenceKind {
    /// The change of status.
    pub(crate) fn transition(&self) -> Option<Transition> {
        match self {
            Self::Transition(transition) => Some(*transition),
            Self::Decided { transition, .. } => *transition,
        }
    }

    /// The effect on incidents, and its time.
    pub(crate) fn consequence(&self) -> (Consequence, DateTime<Utc>) {
        match self {
            Self::Transition(transition) => (consequence(transition), transition.at),
            Self::Decided { consequence, at, .. } => (*consequence, *at),
        }
    }
}
