//! Messages: the content of an alert, before a kind of channel renders it.
//!
//! The outbox writes a message once and stores it with each of its deliveries, so every attempt sends the same content.
//! Each kind of channel renders the message: a webhook as JSON, mail as text and HTML. The stored form is the JSON of
//! webhooks, with a field `version` (module `stored`). During an upgrade, a server of the last release sends the stored
//! form unchanged, so it must be a valid webhook.

mod stored;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::alert::Alert;
use crate::ids::{ChannelId, IncidentId, MonitorId, ProjectId};
use crate::incident::cause::Cause;
use crate::incident::severity::{self, Severity};
use crate::incident::{Fact, Repair, Subject, SubjectKind};

/// The version of the stored form. A version may add fields. It removes none, and changes no field's type.
pub const VERSION: u32 = 1;

/// One alert.
#[derive(Debug, Clone, PartialEq)]
pub struct Message {
    /// When the reported event happened.
    pub at: DateTime<Utc>,
    /// The reported event.
    pub event: Event,
}

/// The reported event.
#[derive(Debug, Clone, PartialEq)]
pub enum Event {
    /// An incident changed, or still goes on.
    Incident(Box<IncidentEvent>),
    /// A person wants to see whether the channel works.
    Test,
    /// Another channel of the project was switched off.
    ChannelDisabled(ChannelDisabled),
    /// Deadbeat did not listen for a while.
    BlindSpell(BlindNotice),
    /// The owner of a mail address is asked for consent.
    Confirmation(Confirmation),
    /// A stored message that this version cannot read: a later version wrote it, or fields are missing. Webhooks
    /// forward it unchanged. Other kinds send the parts that they can read, because an incomplete alert is better than
    /// none.
    Unread(Value),
}

/// An event of an incident.
#[derive(Debug, Clone, PartialEq)]
pub struct IncidentEvent {
    /// What happened to it.
    pub phase: Phase,
    /// The incident as it was then.
    pub incident: Incident,
    /// The incident's monitor as it was then. None: the incident is about another kind of subject, or this is a
    /// reminder or an escalation.
    pub monitor: Option<Monitor>,
}

/// The event of an incident that a message reports.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// See [`Alert::Opened`].
    Opened,
    /// See [`Alert::Reminder`].
    Reminder,
    /// See [`Alert::Acknowledged`].
    Acknowledged,
    /// See [`Alert::Resolved`].
    Resolved,
    /// See [`Alert::Escalated`].
    Escalated,
    /// The one reminder that says that the incident has lasted [`crate::incident::LONG_DOWN`]. It comes also where reminders are off or
    /// somebody acknowledged the incident. Otherwise the rules of reminders apply to it.
    LongDown,
}

impl Phase {
    /// Every phase.
    pub const ALL: [Self; 6] = [
        Self::Opened,
        Self::Reminder,
        Self::Acknowledged,
        Self::Resolved,
        Self::Escalated,
        Self::LongDown,
    ];

    /// Returns true if somebody should act on the incident, so that its message may have a link or button that acknowledges.
    #[must_use]
    pub fn asks_to_act(self) -> bool {
        match self {
            Self::Opened | Self::Reminder | Self::Escalated | Self::LongDown => true,
            Self::Acknowledged | Self::Resolved => false,
        }
    }

    /// The kind of its deliveries.
    #[must_use]
    pub fn alert(self) -> Alert {
        match self {
            Self::Opened => Alert::Opened,
            Self::Reminder | Self::LongDown => Alert::Reminder,
            Self::Acknowledged => Alert::Acknowledged,
            Self::Resolved => Alert::Resolved,
            Self::Escalated => Alert::Escalated,
        }
    }
}

/// An incident as messages show it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Incident {
    /// Its id.
    pub id: IncidentId,
    /// The project that owns it.
    pub project: Project,
    /// The subject.
    pub subject: Subject,
    /// Why it opened.
    pub cause: CauseOfIncident,
    /// How urgent it is. None: a version before severities wrote the message; see [`Incident::severity`].
    #[serde(default, deserialize_with = "severity::stored")]
    pub severity: Option<Severity>,
    /// The facts that support the cause.
    pub evidence: Vec<Fact>,
    /// The steps that repair the fault.
    pub repair: Vec<Repair>,
    /// The first monitors that it affects, at most [`crate::limits::ALERT_MEMBERS`]. Empty for a monitor's own
    /// incident.
    #[serde(default)]
    pub members: Vec<Member>,
    /// How many monitors it affects in all.
    #[serde(default)]
    pub member_count: i64,
    /// Its monitor flaps: the incident stays open while the status changes.
    #[serde(default)]
    pub flapping: bool,
    /// When it opened.
    pub opened_at: DateTime<Utc>,
    /// When it was resolved.
    pub resolved_at: Option<DateTime<Utc>>,
    /// When a person acknowledged it.
    pub acknowledged_at: Option<DateTime<Utc>>,
    /// Who acknowledged it, as a text for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub acknowledged_by: Option<String>,
    /// A link with which any reader of the message can acknowledge the incident. Each attempt signs the link for its
    /// channel, so the stored message has none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub acknowledge_url: Option<String>,
    /// Its page.
    pub url: String,
}

impl Incident {
    /// Returns its urgency. A message without a severity has the severity of its cause; for an unknown cause,
    /// `warning`.
    #[must_use]
    pub fn severity(&self) -> Severity {
        let of_cause = || Cause::parse(&self.cause.code).map_or(Severity::Warning, Cause::severity);
        self.severity.unwrap_or_else(of_cause)
    }
}

/// A project as messages show it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Project {
    /// Its id.
    pub id: ProjectId,
    /// Its name.
    pub name: String,
}

/// Why an incident opened.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CauseOfIncident {
    /// See [`crate::incident::cause::Cause::as_str`]. A text, because a server must also send alerts about causes that
    /// a later version added.
    pub code: String,
    /// What happened, as a sentence.
    pub summary: String,
    /// The page that explains the code. None: a version before these pages wrote the message.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub url: Option<String>,
}

/// A member of an incident.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Member {
    /// What kind of thing it is.
    #[serde(default = "monitor")]
    pub kind: SubjectKind,
    /// Its id.
    pub id: uuid::Uuid,
    /// Its name.
    pub name: String,
}

/// The kind of a member without a kind. Older versions listed only monitors, and stored no kind.
fn monitor() -> SubjectKind {
    SubjectKind::Monitor
}

/// A monitor as messages show it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Monitor {
    /// Its id.
    pub id: MonitorId,
    /// Its name.
    pub name: String,
    /// Its name in ping URLs.
    pub slug: String,
    /// Its tags.
    pub tags: Vec<String>,
    /// See [`crate::monitor::status::ShownStatus::as_str`].
    pub status: String,
    /// See [`crate::schedule::Schedule::to_json`].
    pub schedule: Value,
    /// The schedule in words.
    pub schedule_summary: String,
    /// How long after a slot a run may begin at the earliest: the countdown of the entry, in seconds.
    #[serde(default, serialize_with = "crate::json::serialize_seconds")]
    pub delay_seconds: f64,
    /// How late a report may be, in seconds.
    #[serde(serialize_with = "crate::json::serialize_seconds")]
    pub grace_seconds: f64,
    /// When it last reported.
    pub last_ping_at: Option<DateTime<Utc>>,
    /// When its next report is due.
    pub next_due_at: Option<DateTime<Utc>>,
}

/// A channel that was switched off.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChannelDisabled {
    /// The channel.
    pub channel: DisabledChannel,
    /// What a person must repair.
    pub reason: String,
    /// The owner of its mail address unsubscribed: nothing is broken, and only the owner can allow mail again.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub unsubscribed: bool,
    /// The project that owns it.
    pub project: Project,
}

/// A switched-off channel as messages show it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DisabledChannel {
    /// Its id.
    pub id: ChannelId,
    /// Its name.
    pub name: String,
    /// Its kind.
    pub kind: String,
}

/// The monitors that could not be judged because Deadbeat did not listen.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BlindNotice {
    /// The stretch in which it did not listen.
    pub blind_spell: Spell,
    /// How many monitors of the project could not be judged.
    pub monitors: i64,
    /// The number and the stretch as a sentence.
    pub summary: String,
    /// The project that owns the monitors.
    pub project: Project,
}

/// A stretch of time.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Spell {
    /// Its beginning.
    pub started_at: DateTime<Utc>,
    /// Its end.
    pub ended_at: DateTime<Utc>,
}

/// A question to the owner of a mail address. It holds no text that a project's members chose, so nobody can use it to
/// send spam.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Confirmation {
    /// The address of this server.
    pub site: String,
    /// The link that confirms. The stored link lacks the signature; each attempt adds it.
    pub url: String,
    /// When the link expires, in seconds since 1970.
    pub expires: i64,
}

impl Message {
    /// The kind of its deliveries.
    #[must_use]
    pub fn alert(&self) -> Alert {
        match &self.event {
            Event::Incident(event) => event.phase.alert(),
            Event::Test => Alert::Test,
            Event::ChannelDisabled(_) => Alert::ChannelDisabled,
            Event::BlindSpell(_) => Alert::BlindSpell,
            Event::Confirmation(_) => Alert::Confirmation,
            // An unknown kind of message counts as `opened`: it may report a fault.
            Event::Unread(stored) => stored["type"]
                .as_str()
                .and_then(Alert::of_event_type)
                .unwrap_or(Alert::Opened),
        }
    }

    /// The incident that the message reports.
    #[must_use]
    pub fn incident(&self) -> Option<&Incident> {
        match &self.event {
            Event::Incident(event) => Some(&event.incident),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests;
