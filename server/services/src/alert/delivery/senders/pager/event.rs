//! A message as an event of a pager: the action, the alert that it is for, the urgency, and the facts as fields.

use deadbeat_domain::alert::Alert;
use deadbeat_domain::alert::delivery::Outcome;
use deadbeat_domain::alert::message::{Event, Message};
use serde_json::{Map, Value};
use uuid::Uuid;

use super::super::{Outgoing, printable};
use crate::alert::delivery::story::Story;

/// Most characters of a label. With this limit, a handle with all labels stays below the domain's limit.
const LABEL_CHARS: usize = 120;

/// The effect of a message on the alert in the pager.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Action {
    /// Opens the alert, or repeats it.
    Trigger,
    /// A person has acknowledged the alert.
    Acknowledge,
    /// The alert is over.
    Resolve,
}

/// The urgency of an alert.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Level {
    /// Wakes people.
    Critical,
    /// Waits for working hours.
    Warning,
    /// Only for the record.
    Info,
}

impl Level {
    /// Returns the urgency of a message. The rules of a channel decide by severity which incidents reach it, so each
    /// incident that does is critical.
    pub(super) fn of(message: &Message) -> Self {
        match message.alert() {
            Alert::Opened | Alert::Reminder | Alert::Acknowledged | Alert::Resolved | Alert::Escalated => {
                Self::Critical
            }
            Alert::ChannelDisabled | Alert::BlindSpell => Self::Warning,
            Alert::Test | Alert::Confirmation => Self::Info,
        }
    }

    /// Returns its name for services that accept any text.
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Critical => "critical",
            Self::Warning => "warning",
            Self::Info => "info",
        }
    }
}

/// A message as an event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::alert::delivery::senders) struct Page {
    /// The effect on the alert.
    pub(super) action: Action,
    /// Identifies the alert in the pager: the UUID of the incident, or of the delivery if there is no incident.
    pub(in crate::alert::delivery::senders) key: String,
    /// The urgency.
    pub(super) level: Level,
    /// True if a person tests the channel. The alert then ends at once.
    pub(super) is_test: bool,
}

impl Page {
    pub(in crate::alert::delivery::senders) fn of(outgoing: &Outgoing) -> Self {
        let message = &outgoing.message;
        let alert = message.alert();
        Self {
            action: match alert {
                Alert::Acknowledged => Action::Acknowledge,
                Alert::Resolved => Action::Resolve,
                _ => Action::Trigger,
            },
            key: incident(message).unwrap_or_else(|| outgoing.id.to_string()),
            level: Level::of(message),
            is_test: alert == Alert::Test,
        }
    }
}

/// Returns the id of the incident, even of a message that this version cannot read. Otherwise such a message would
/// open a second alert that nothing resolves.
fn incident(message: &Message) -> Option<String> {
    match &message.event {
        Event::Incident(event) => Some(event.incident.id.to_string()),
        Event::Unread(stored) => {
            let id: Uuid = stored.pointer("/incident/id")?.as_str()?.parse().ok()?;
            Some(id.to_string())
        }
        _ => None,
    }
}

/// Returns the labels by which the pager can route. All events of an incident have the same labels, unless a person
/// renames something meanwhile.
pub(super) fn labels(message: &Message, page: &Page) -> Vec<(&'static str, String)> {
    let mut labels = vec![
        ("source", "deadbeat".to_owned()),
        ("severity", page.level.as_str().to_owned()),
        ("id", page.key.clone()),
    ];
    let project = match &message.event {
        Event::Incident(event) => {
            let incident = &event.incident;
            labels.push(("cause", incident.cause.code.clone()));
            labels.push(("subject_kind", incident.subject.kind.as_str().to_owned()));
            labels.push(("subject", incident.subject.name.clone()));
            Some(&incident.project)
        }
        Event::ChannelDisabled(disabled) => Some(&disabled.project),
        Event::BlindSpell(notice) => Some(&notice.project),
        Event::Test | Event::Confirmation(_) | Event::Unread(_) => None,
    };
    labels.extend(project.map(|project| ("project", project.name.clone())));
    labels
        .into_iter()
        .map(|(name, value)| (name, printable(&value, LABEL_CHARS)))
        .filter(|(_, value)| !value.is_empty())
        .collect()
}

/// Returns the story as a table of labels and texts.
pub(super) fn table(story: &Story) -> Map<String, Value> {
    let mut table = Map::new();
    let mut add = |label: &str, text: String| {
        if !text.is_empty() {
            table.insert(label.to_owned(), Value::from(text));
        }
    };
    add("What happened", story.summary.clone().unwrap_or_default());
    for (label, value) in &story.facts {
        add(label, value.clone());
    }
    let steps = story.steps.iter().enumerate().map(|(index, step)| {
        let text = format!("{}. {}", index + 1, step.text);
        match &step.command {
            Some(command) => format!("{text}\n    {command}"),
            None => text,
        }
    });
    add("What to do", steps.collect::<Vec<_>>().join("\n"));
    add("What is known", story.evidence.join("\n"));
    let more = (story.more_members > 0).then(|| format!("and {} more", story.more_members));
    let members = story.members.iter().cloned().chain(more);
    add(&story.members_title(), members.collect::<Vec<_>>().join("\n"));
    table
}

/// The outcome if the service has nothing that the message could change.
pub(in crate::alert::delivery::senders) fn nothing_to_do() -> Outcome {
    Outcome::Sent {
        code: None,
        handle: None,
    }
}

#[cfg(test)]
mod tests {
    use deadbeat_domain::alert::message::Phase;
    use serde_json::json;

    use super::super::super::conformance::outgoing;
    use super::*;
    use crate::alert::outbox::samples::{self, Sample};

    fn page(message: Message) -> Page {
        Page::of(&outgoing("pagerduty", &json!({}), message))
    }

    #[test]
    fn each_message_is_an_event() {
        let incident = "0198c0de-0000-7000-8000-000000000003";
        let delivery = "0198c0de-0000-7000-8000-000000000001";
        let of = |phase| Sample::monitor().message(phase, "2026-01-02T03:04:05Z");
        let unread = |kind: &str| Message {
            event: Event::Unread(json!({"type": kind, "incident": {"id": incident}})),
            ..samples::test()
        };
        for (message, action, key, level) in [
            (of(Phase::Opened), Action::Trigger, incident, Level::Critical),
            (of(Phase::Reminder), Action::Trigger, incident, Level::Critical),
            (of(Phase::Escalated), Action::Trigger, incident, Level::Critical),
            (
                of(Phase::Acknowledged),
                Action::Acknowledge,
                incident,
                Level::Critical,
            ),
            (of(Phase::Resolved), Action::Resolve, incident, Level::Critical),
            (samples::test(), Action::Trigger, delivery, Level::Info),
            (samples::disabled(), Action::Trigger, delivery, Level::Warning),
            (samples::blind(), Action::Trigger, delivery, Level::Warning),
            (
                unread("incident.resolved"),
                Action::Resolve,
                incident,
                Level::Critical,
            ),
            (
                unread("incident.invented"),
                Action::Trigger,
                incident,
                Level::Critical,
            ),
        ] {
            let page = page(message.clone());

            assert_eq!(
                (page.action, page.key.as_str(), page.level),
                (action, key, level),
                "{message:?}"
            );
            assert_eq!(page.is_test, message.event == Event::Test);
        }
        let odd = Message {
            event: Event::Unread(json!({"type": "incident.resolved", "incident": {"id": "../../x"}})),
            ..samples::test()
        };
        assert_eq!(page(odd).key, delivery);
    }

    #[test]
    fn the_events_of_an_incident_have_the_same_labels() {
        let sample = Sample::monitor();
        let labels = |phase| {
            let message = sample.message(phase, "2026-01-02T03:04:05Z");
            super::labels(&message, &page(message.clone()))
        };

        assert_eq!(
            labels(Phase::Opened),
            [
                ("source", "deadbeat"),
                ("severity", "critical"),
                ("id", "0198c0de-0000-7000-8000-000000000003"),
                ("cause", "MISSED"),
                ("subject_kind", "monitor"),
                ("subject", "nightly-report"),
                ("project", "Shop"),
            ]
            .map(|(name, value)| (name, value.to_owned()))
        );
        for phase in Phase::ALL {
            assert_eq!(labels(phase), labels(Phase::Opened), "{phase:?}");
        }
    }

    #[test]
    fn the_table_has_what_to_do_and_what_is_known() {
        let table = table(&Story::of(&Sample::storm().opened()));

        assert_eq!(
            table["What to do"],
            "1. See which queues have workers.\n    celery -A shop inspect active_queues\n2. Read the worker's log."
        );
        assert_eq!(table["What happened"], "Celery Beat of shop is silent.");
        assert!(
            table["73 monitors are affected"]
                .as_str()
                .unwrap()
                .ends_with("task-49\nand 23 more")
        );
    }
}
