//! The stored form of messages: the JSON of webhooks.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::{Event, Incident, IncidentEvent, Message, Monitor, Phase, VERSION};
use crate::alert::Alert;
use crate::json::instant;

impl Message {
    /// Writes the stored form, which is also the body of webhooks.
    #[must_use]
    pub fn to_json(&self) -> Value {
        let fields = match &self.event {
            Event::Unread(stored) => return stored.clone(),
            Event::Incident(event) => {
                let mut fields = json!({"incident": event.incident, "monitor": event.monitor});
                if event.phase == Phase::LongDown {
                    fields["long_down"] = json!(true);
                }
                fields
            }
            Event::Test => json!({}),
            Event::ChannelDisabled(disabled) => fields(disabled),
            Event::BlindSpell(notice) => fields(notice),
            Event::Confirmation(question) => fields(question),
        };
        let mut written = json!({
            "version": VERSION,
            "type": self.alert().event_type(),
            "timestamp": instant(self.at),
            "incident": null,
            "monitor": null,
        });
        if let (Value::Object(written), Value::Object(fields)) = (&mut written, fields) {
            written.extend(fields);
        }
        written
    }

    /// Reads a message that [`Message::to_json`] of this or another version wrote at `written_at`. Skips fields that
    /// this version does not know. An unreadable message becomes [`Event::Unread`], so that no stored alert is lost.
    #[must_use]
    pub fn read(stored: Value, written_at: DateTime<Utc>) -> Self {
        let at = stored["timestamp"].as_str().and_then(|at| at.parse().ok());
        Self {
            at: at.unwrap_or(written_at),
            event: read_event(&stored).unwrap_or(Event::Unread(stored)),
        }
    }
}

/// The fields of a structure. Serializing these types cannot fail, because all their keys are texts.
fn fields(value: &impl Serialize) -> Value {
    serde_json::to_value(value).unwrap_or_default()
}

fn read_event(stored: &Value) -> Option<Event> {
    let alert = Alert::of_event_type(stored["type"].as_str()?)?;
    Some(match alert {
        Alert::Test => Event::Test,
        Alert::ChannelDisabled => Event::ChannelDisabled(Deserialize::deserialize(stored).ok()?),
        Alert::BlindSpell => Event::BlindSpell(Deserialize::deserialize(stored).ok()?),
        Alert::Confirmation => Event::Confirmation(Deserialize::deserialize(stored).ok()?),
        Alert::Opened | Alert::Reminder | Alert::Acknowledged | Alert::Resolved | Alert::Escalated => {
            let mut incident = Incident::deserialize(&stored["incident"]).ok()?;
            incident.severity = Some(incident.severity());
            let is_long = stored["long_down"] == json!(true);
            let is_it = |phase: &Phase| phase.alert() == alert && (*phase == Phase::LongDown) == is_long;
            Event::Incident(Box::new(IncidentEvent {
                phase: Phase::ALL.into_iter().find(is_it)?,
                incident,
                monitor: Option::<Monitor>::deserialize(&stored["monitor"]).ok()?,
            }))
        }
    })
}
