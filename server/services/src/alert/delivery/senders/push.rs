//! Services that reach a phone: notifications, text messages and calls.

pub mod gotify;
pub mod ntfy;
mod plain;
#[cfg(test)]
mod proofs;
pub mod pushover;
pub mod signal;
mod twilio;
pub mod twilio_call;
pub mod twilio_sms;
pub mod web_push;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use deadbeat_domain::alert::Alert;
use deadbeat_domain::alert::message::{Event, Message};
use deadbeat_domain::incident::severity::Severity;
use deadbeat_domain::monitor::FieldError;
use reqwest::Method;
use reqwest::header::{AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderValue};
use url::form_urlencoded;

use crate::alert::delivery::outbound::{Answer, Call, Outbound, OutboundError};

/// How loudly a phone announces a message. Each kind maps these levels to the service's own priorities.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Urgency {
    /// Makes no sound.
    Quiet,
    /// Sounds like any other message.
    Normal,
    /// Sounds louder than other messages.
    High,
    /// Wakes people, also while the phone is silent, if its owner allows that.
    Emergency,
}

impl Urgency {
    fn of(message: &Message) -> Self {
        match message.alert() {
            Alert::Opened | Alert::Reminder | Alert::Escalated => match &message.event {
                Event::Incident(event) => match event.incident.severity() {
                    Severity::Critical => Self::Emergency,
                    Severity::Warning => Self::High,
                    Severity::Info => Self::Normal,
                },
                // A later version wrote the message, and it may be critical.
                _ => Self::Emergency,
            },
            Alert::ChannelDisabled | Alert::BlindSpell => Self::High,
            Alert::Resolved | Alert::Test | Alert::Confirmation => Self::Normal,
            Alert::Acknowledged => Self::Quiet,
        }
    }
}

/// Formats credentials as HTTP Basic authentication (RFC 7617).
fn basic(name: &str, password: &str) -> String {
    format!("Basic {}", STANDARD.encode(format!("{name}:{password}")))
}

/// Checks a phone number: `+`, the code of the country, and the number of the country (E.164, 15 digits at most).
///
/// # Errors
/// If it is no such number.
fn check_number(field: &str, number: &str) -> Result<(), FieldError> {
    let is_number = number.strip_prefix('+').is_some_and(|digits| {
        (7..=15).contains(&digits.len())
            && digits.bytes().all(|b| b.is_ascii_digit())
            && !digits.starts_with('0')
    });
    if is_number {
        return Ok(());
    }
    Err(FieldError::new(
        format!("/settings/{field}"),
        "is no phone number of + and 7 to 15 digits, such as \"+4366412345678\"",
    ))
}

/// Posts the parameters of a form. Reads the answer's body even for a success: see [`Call::reads_success`].
///
/// # Errors
/// See [`Outbound::send`].
async fn call_form(
    outbound: &Outbound,
    url: &str,
    authorization: Option<&str>,
    parameters: &[(&'static str, String)],
) -> Result<Answer, OutboundError> {
    let mut headers = HeaderMap::new();
    headers.insert(
        CONTENT_TYPE,
        HeaderValue::from_static("application/x-www-form-urlencoded"),
    );
    if let Some(authorization) = authorization {
        let mut value = HeaderValue::from_str(authorization).map_err(|_| {
            OutboundError::Url("the header authorization cannot hold the channel's setting".to_owned())
        })?;
        value.set_sensitive(true);
        headers.insert(AUTHORIZATION, value);
    }
    let call = Call {
        method: Method::POST,
        url: url.to_owned(),
        headers,
        body: form_urlencoded::Serializer::new(String::new())
            .extend_pairs(parameters)
            .finish()
            .into_bytes(),
        reads_success: true,
    };
    outbound.send(call).await
}

#[cfg(test)]
mod tests {
    use deadbeat_domain::alert::message::Phase;
    use serde_json::json;

    use super::*;
    use crate::alert::outbox::samples::{self, Sample};

    #[test]
    fn the_severity_decides_how_loud_an_incident_is() {
        for (severity, urgency) in [
            (Severity::Critical, Urgency::Emergency),
            (Severity::Warning, Urgency::High),
            (Severity::Info, Urgency::Normal),
        ] {
            let mut sample = Sample::monitor();
            sample.incident.severity = severity;
            for (phase, expected) in [
                (Phase::Opened, urgency),
                (Phase::Reminder, urgency),
                (Phase::Escalated, urgency),
                (Phase::Acknowledged, Urgency::Quiet),
                (Phase::Resolved, Urgency::Normal),
            ] {
                let message = sample.message(phase, "2026-01-02T03:04:05Z");
                assert_eq!(Urgency::of(&message), expected, "{severity:?}, {phase:?}");
            }
        }
        assert_eq!(Urgency::of(&samples::test()), Urgency::Normal);
        assert_eq!(Urgency::of(&samples::disabled()), Urgency::High);
        assert_eq!(Urgency::of(&samples::blind()), Urgency::High);
        let unread = Message {
            event: Event::Unread(json!({"type": "incident.opened", "incident": {"severity": "dire"}})),
            ..samples::test()
        };
        assert_eq!(Urgency::of(&unread), Urgency::Emergency);
    }

    #[test]
    fn credentials_are_encoded_as_in_the_rfc() {
        assert_eq!(
            basic("Aladdin", "open sesame"),
            "Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ=="
        );
    }
}
