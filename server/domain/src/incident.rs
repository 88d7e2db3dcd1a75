//! Incidents: one stretch of something being wrong, about one subject.

pub mod cause;
pub mod command;

use chrono::{DateTime, TimeDelta, Utc};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::change::{Transition, Trigger};
use crate::incident::cause::Cause;
use crate::incident::command::{Command, Line};
use crate::judge::blind_spell::BlindSpell;
use crate::monitor::status::Status;

/// A reminder that was due in a blind spell longer than this is passed over: nobody knows whether its incident goes on.
const REMINDER_SPELL: TimeDelta = TimeDelta::hours(1);

/// Whether a reminder that was due then is told; else the next one is awaited.
#[must_use]
pub fn is_reminder_told(due_at: DateTime<Utc>, spells: &[BlindSpell]) -> bool {
    !spells
        .iter()
        .any(|spell| spell.swallows(due_at, due_at, REMINDER_SPELL))
}

/// What kind of thing an incident is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
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
        [
            Self::Monitor,
            Self::Beat,
            Self::Worker,
            Self::Queue,
            Self::Broker,
            Self::ResultBackend,
            Self::Host,
        ]
        .into_iter()
        .find(|k| k.as_str() == text)
    }
}

/// Whom an incident is about.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Subject {
    /// What kind of thing.
    pub kind: SubjectKind,
    /// Its id.
    pub id: Uuid,
    /// As it is called.
    pub name: String,
}

/// A fact that supports the cause.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fact {
    /// When it was so; None: timeless.
    pub at: Option<DateTime<Utc>>,
    /// The fact, as a sentence.
    pub fact: String,
}

/// One thing to do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Repair {
    /// What it does.
    pub text: String,
    /// What to type, where typing helps.
    #[serde(default, deserialize_with = "command::stored")]
    pub command: Option<Line>,
}

impl Repair {
    /// Something to type. Where an argument cannot be quoted, the text says so instead.
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

    /// Something to do where typing does not help.
    pub fn advice(text: impl Into<String>) -> Self {
        Self {
            text: text.into(),
            command: None,
        }
    }
}

/// What a change of status means for incidents.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Consequence {
    /// Open one.
    Open(Cause),
    /// Join the open incident of what it is part of.
    Join,
    /// Resolve the open one, if there is one. What it had joined keeps it as a member: it was part of that trouble.
    Resolve,
    /// Neither.
    Nothing,
}

/// What a change of status means.
#[must_use]
pub fn consequence(transition: &Transition) -> Consequence {
    match (transition.from, transition.to, transition.trigger) {
        (_, Status::Down, Trigger::Trouble(cause)) => Consequence::Open(cause),
        (_, Status::Down, Trigger::PartOf(_)) => Consequence::Join,
        (Status::Down, _, _) => Consequence::Resolve,
        _ => Consequence::Nothing,
    }
}
