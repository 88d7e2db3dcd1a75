//! Ready-made bodies.

use deadbeat_domain::alert::message::{Event, Message};
use deadbeat_domain::ids::DeliveryId;
use deadbeat_domain::json::instant;
use serde_json::{Value, json};

use crate::alert::delivery::senders::email::mail;
use crate::alert::delivery::story::Story;

/// A ready-made body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Preset {
    /// CloudEvents 1.0 in structured mode, with the standard message as its data
    /// (<https://github.com/cloudevents/spec/blob/v1.0.2/cloudevents/formats/json-format.md>).
    CloudEvents,
    /// The text of a mail.
    Text,
}

impl Preset {
    /// All presets.
    pub(super) const ALL: [Self; 2] = [Self::CloudEvents, Self::Text];

    /// Returns the name in the settings.
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::CloudEvents => "cloudevents",
            Self::Text => "text",
        }
    }

    /// Reads [`Preset::as_str`] back.
    pub(super) fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|preset| preset.as_str() == name)
    }

    /// Returns the media type of the bodies.
    pub(super) fn content_type(self) -> &'static str {
        match self {
            Self::CloudEvents => "application/cloudevents+json; charset=utf-8",
            Self::Text => "text/plain; charset=utf-8",
        }
    }

    /// Returns the body for a message.
    pub(super) fn body(self, id: DeliveryId, message: &Message) -> String {
        match self {
            Self::CloudEvents => cloud_event(id, message).to_string(),
            Self::Text => mail::text(&Story::of(message), None),
        }
    }
}

/// Returns the message as a CloudEvent. `source` and `id` together are unique, and are the same for each attempt. `source` does not name the
/// server, because not every message has its address; the id of a project is unique without it.
fn cloud_event(id: DeliveryId, message: &Message) -> Value {
    let data = message.to_json();
    let text = |pointer: &str| data.pointer(pointer).and_then(Value::as_str);
    let project = text("/incident/project/id").or_else(|| text("/project/id"));
    let subject = match &message.event {
        Event::Incident(event) => {
            let subject = &event.incident.subject;
            format!("{}/{}", subject.kind.as_str(), subject.id)
        }
        Event::ChannelDisabled(disabled) => format!("channel/{}", disabled.channel.id),
        Event::BlindSpell(notice) => format!("project/{}", notice.project.id),
        Event::Unread(_) => match (text("/incident/subject/kind"), text("/incident/subject/id")) {
            (Some(kind), Some(id)) => format!("{kind}/{id}"),
            _ => "unknown".to_owned(),
        },
        Event::Test | Event::Confirmation(_) => "channel".to_owned(),
    };
    json!({
        "specversion": "1.0",
        "id": id,
        "source": project.map_or_else(|| "/".to_owned(), |id| format!("/projects/{id}")),
        "type": text("/type").unwrap_or_else(|| message.alert().event_type()),
        "subject": subject,
        "time": instant(message.at),
        "datacontenttype": "application/json",
        "data": data,
    })
}
