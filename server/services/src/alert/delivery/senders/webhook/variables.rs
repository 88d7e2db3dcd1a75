//! The variables of templates: the standard message, and its words for people. docs/channels/webhook.md lists each variable; a test compares
//! the page with the code.

use deadbeat_domain::alert::message::Message;
use deadbeat_domain::ids::DeliveryId;
use serde_json::{Map, Value, json};

use crate::alert::delivery::senders::email::mail;
use crate::alert::delivery::story::{Story, Tone};

/// Fields that only some messages have. In the other messages they are null, so that a template may name them in every message.
const OF_MESSAGES: [&str; 10] = [
    "incident",
    "long_down",
    "monitor",
    "project",
    "channel",
    "reason",
    "unsubscribed",
    "blind_spell",
    "monitors",
    "summary",
];
/// Fields that only some incidents have.
const OF_INCIDENTS: [&str; 2] = ["acknowledged_by", "acknowledge_url"];

/// Returns the variables of one message.
pub(super) fn variables(id: DeliveryId, message: &Message) -> Value {
    let written = message.to_json();
    let mut all = written.as_object().cloned().unwrap_or_default();
    for name in OF_MESSAGES {
        all.entry(name).or_insert(Value::Null);
    }
    if let Some(Value::Object(incident)) = all.get_mut("incident") {
        for name in OF_INCIDENTS {
            incident.entry(name).or_insert(Value::Null);
        }
        if let Some(Value::Object(cause)) = incident.get_mut("cause") {
            cause.entry("url").or_insert(Value::Null);
        }
        let project = incident.get("project").cloned().unwrap_or_default();
        all.insert("project".to_owned(), project);
    }
    let severity = message
        .incident()
        .map_or("info", |incident| incident.severity().as_str());
    all.insert("severity".to_owned(), json!(severity));
    all.insert("id".to_owned(), json!(id));
    all.insert("words".to_owned(), words(message));
    all.insert("message".to_owned(), written);
    Value::Object(all)
}

/// Returns the message in words for people.
fn words(message: &Message) -> Value {
    let story = Story::of(message);
    let texts = |all: Vec<Map<String, Value>>| Value::from(all);
    let facts = story.facts.iter().map(|(label, value)| {
        Map::from_iter([
            ("label".to_owned(), json!(label)),
            ("value".to_owned(), json!(value)),
        ])
    });
    let steps = story.steps.iter().map(|step| {
        Map::from_iter([
            ("text".to_owned(), json!(step.text)),
            ("command".to_owned(), json!(step.command)),
        ])
    });
    json!({
        "headline": story.headline,
        "summary": story.summary,
        "tone": match story.tone {
            Tone::Bad => "bad",
            Tone::Good => "good",
            Tone::Plain => "plain",
        },
        "facts": texts(facts.collect()),
        "steps": texts(steps.collect()),
        "evidence": story.evidence,
        "members": story.members,
        "more_members": story.more_members,
        "link": story.link,
        "acknowledge": story.acknowledge,
        "text": mail::text(&story, None),
    })
}

#[cfg(test)]
mod tests;
