//! Incidents: one stretch of a fault, about one subject.

pub mod cause;
pub mod command;
pub mod severity;

use chrono::{DateTime, TimeDelta, Utc};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::change::{Transition, Trigger};
use crate::ids::ProjectId;
use crate::incident::cause::Cause;
use crate::incident::command::{Command, Line};
use crate::judge::blind_spell::BlindSpell;
use crate::monitor::status::Status;

/// Skip a reminder that fell due in a blind spell longer than this, because the incident may have ended in the spell.
const REMINDER_SPELL: TimeDelta = TimeDelta::hours(1);

/// After an incident has lasted this long, Deadbeat sends one more message, with the steps that mute or delete the
/// subject.
pub const LONG_DOWN: TimeDelta = TimeDelta::days(14);

/// True if Deadbeat sends a reminder that fell due at `due_at`. False: Deadbeat skips it until the next reminder is
/// due.
#[must_use]
pub fn is_reminder_sent(due_at: DateTime<Utc>, spells: &[BlindSpell]) -> bool {
    !spells
        .iter()
        .any(|spell| spell.swallows(due_at, due_at, REMINDER_SPELL))
}

/// What kind of thing an incident is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SubjectKind {
    /// A monitor.
    Monitor,
    /// A Celery Beat.
    Beat,
    /// A Celery worker.
    Worker,
    /// A queue of a Celery application.
    Queue,
    /// The broker of a Celery application.
    Broker,
    /// The result backend of a Celery application.
    #[serde(rename = "result_backend")]
    ResultBackend,
    /// The machine on which Beats and workers run.
    Host,
}

impl SubjectKind {
    /// Every kind.
    pub const ALL: [Self; 7] = [
        Self::Monitor,
        Self::Beat,
        Self::Worker,
        Self::Queue,
        Self::Broker,
        Self::ResultBackend,
        Self::Host,
    ];

    /// As written in SQL and JSON.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Monitor => "monitor",
            Self::Beat => "beat",
            Self::Worker => "worker",
            Self::Queue => "queue",
            Self::Broker => "broker",
            Self::ResultBackend => "result_backend",
            Self::Host => "host",
        }
    }

    /// Reads [`SubjectKind::as_str`] back.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.as_str() == text)
    }
}

/// The project that owns the subject of an incident, the subject's kind, and its id.
pub type SubjectKey = (ProjectId, SubjectKind, Uuid);

/// The subject of an incident.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Subject {
    /// What kind of thing.
    pub kind: SubjectKind,
    /// Its id.
    pub id: Uuid,
    /// Its name.
    pub name: String,
}

/// A fact that supports the cause.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fact {
    /// When the fact was true. None: the fact has no time.
    pub at: Option<DateTime<Utc>>,
    /// The fact, as a sentence.
    pub fact: String,
}

/// One thing to do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Repair {
    /// What the step does, for a person.
    pub text: String,
    /// The line to type, where a command helps.
    #[serde(default, deserialize_with = "command::stored")]
    pub command: Option<Line>,
}

impl Repair {
    /// A step with a command. If an argument cannot be quoted, the text asks the person to type the command by hand.
    pub fn command(text: impl Into<String>, command: Command) -> Self {
        let text = text.into();
        match command.finish() {
            Ok(line) => Self {
                text,
                command: Some(line),
            },
            Err(reason) => Self::advice(format!("{text} No command is shown: {reason}. Type it by hand.")),
        }
    }

    /// A step without a command.
    pub fn advice(text: impl Into<String>) -> Self {
        Self {
            text: text.into(),
            command: None,
        }
    }
}

/// The effect of a change of status on incidents.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Consequence {
    /// Open an incident.
    Open(Cause),
    /// Join the open incident of the subject whose fault this is.
    Join,
    /// Resolve the subject's own open incident, if there is one. If the subject joined another incident, it stays
    /// listed as a member there, because it was part of that fault.
    Resolve,
    /// A monitor no longer flaps, and its incident stays open: it has been down all the time, or needs more good runs.
    Calm {
        /// It has been down all the time.
        is_down: bool,
    },
    /// No change.
    #[default]
    Nothing,
}

/// Returns the effect of a change of status on incidents. Runs and silence of monitors also count towards thresholds:
/// `monitor/alarm.rs` decides about these.
#[must_use]
pub fn consequence(transition: &Transition) -> Consequence {
    match (transition.from, transition.to, transition.trigger) {
        (_, Status::Down, Trigger::Trouble(cause)) => Consequence::Open(cause),
        (_, Status::Down, Trigger::PartOf(_)) => Consequence::Join,
        (Status::Down, _, _) => Consequence::Resolve,
        // A monitor that is up may have an incident that waits for more good runs.
        (_, Status::Paused, Trigger::Pause | Trigger::Retire | Trigger::Delete) => Consequence::Resolve,
        _ => Consequence::Nothing,
    }
}
