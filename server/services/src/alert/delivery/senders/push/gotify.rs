//! Gotify: messages to the phones of a server's user.
//!
//! An application's token can send messages and cannot change them, so each alert is a new message.
//!
//! Sources: <https://gotify.net/api-docs> (`createMessage`), <https://gotify.net/docs/msgextras>, and for the priorities
//! <https://github.com/gotify/android#message-priorities>.

use std::sync::Arc;

use deadbeat_domain::alert::channel::Settings;
use deadbeat_domain::alert::delivery::Outcome;
use deadbeat_domain::monitor::FieldError;
use futures::future::BoxFuture;
use reqwest::Method;
use serde::Deserialize;
use serde_json::{Value, json};

use super::super::answer::{judge, misfit, sent};
use super::super::chat::{all, below, check_base, dead, odd, said, status_of};
use super::super::http::{call_json, check_new_url, check_reach, check_token, check_url, host_of};
use super::super::markup::{Content, Markup, cut, render};
use super::super::{Kind, Outgoing, Parts, Sender, SetupError, read};
use super::Urgency;
use super::plain::BYTES;
use crate::alert::delivery::outbound::Outbound;
use crate::alert::delivery::story::Story;

const NAME: &str = "gotify";
/// The most characters of a title. Gotify documents no limits; a phone shows less.
const TITLE_CHARS: usize = 200;
/// The most bytes of a message. Gotify's answer repeats it, and Deadbeat must be able to read all of the answer.
const MESSAGE_BYTES: usize = 4_000;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct GotifySettings {
    url: String,
    token: String,
}

/// The kind `gotify`.
pub struct Gotify;

impl Gotify {
    fn check_with(
        settings: &Settings,
        address: fn(&str, &str) -> Result<(), FieldError>,
    ) -> Result<(), Vec<FieldError>> {
        let settings: GotifySettings = read(settings)?;
        all([
            address("url", &settings.url).and_then(|()| check_base("url", &settings.url)),
            check_token("token", &settings.token, 200),
        ])
    }
}

impl Kind for Gotify {
    fn name(&self) -> &'static str {
        NAME
    }

    fn check(&self, settings: &Settings) -> Result<(), Vec<FieldError>> {
        Self::check_with(settings, check_url)
    }

    fn check_new(&self, settings: &Settings) -> Result<(), Vec<FieldError>> {
        Self::check_with(settings, check_new_url)
    }

    fn secrets(&self) -> &'static [&'static str] {
        &["token"]
    }

    fn host(&self, settings: &Settings) -> Option<String> {
        host_of(settings, "url")
    }

    fn sender(&self, parts: &Parts<'_>) -> Result<Arc<dyn Sender>, SetupError> {
        Ok(Arc::new(GotifySender {
            outbound: parts.outbound.clone(),
        }))
    }

    #[cfg(test)]
    fn conforms(&'static self) -> BoxFuture<'static, ()> {
        Box::pin(tests::conforms())
    }
}

struct GotifySender {
    outbound: Outbound,
}

impl GotifySender {
    async fn attempt(&self, outgoing: &Outgoing) -> Result<Outcome, Outcome> {
        let Ok(settings) = outgoing.settings.read::<GotifySettings>() else {
            return Err(misfit(NAME));
        };
        let Some(url) = below(&settings.url, &["message"]) else {
            return Err(misfit(NAME));
        };
        let headers = [("x-gotify-key", settings.token.as_str())];
        let body = message(outgoing);
        let answer = call_json(&self.outbound, Method::POST, url.as_str(), &headers, &body).await;
        let said = said(&answer);
        // The token belongs to no application, or not to one: a client's token may not send.
        if let (Some(401 | 403), Some(401 | 403)) = (status_of(&answer), said["errorCode"].as_i64()) {
            let error = said["errorDescription"].as_str().unwrap_or_default();
            return Err(dead(&answer, outgoing, error));
        }
        let answer = judge(answer, outgoing, &[])?;
        if said["id"].is_u64() {
            Ok(sent(&answer, None))
        } else {
            Err(odd(&answer, outgoing))
        }
    }
}

impl Sender for GotifySender {
    fn kind(&self) -> &'static str {
        NAME
    }

    fn check(&self, settings: &Settings) -> Result<(), FieldError> {
        check_reach(&self.outbound, settings, "url")
    }

    fn send(&self, outgoing: Outgoing) -> BoxFuture<'_, Outcome> {
        Box::pin(async move { self.attempt(&outgoing).await.unwrap_or_else(|outcome| outcome) })
    }
}

fn message(outgoing: &Outgoing) -> Value {
    let story = Story::of(&outgoing.message);
    // Markdown from outside could load images, so the text is plain.
    let mut extras = json!({"client::display": {"contentType": "text/plain"}});
    if let Some(link) = &story.link {
        extras["client::notification"] = json!({"click": {"url": link}});
    }
    json!({
        "title": BYTES.escape(&cut(&story.headline, TITLE_CHARS)),
        "message": render(&story, &BYTES, Content::WithoutHeadline, MESSAGE_BYTES),
        "priority": priority(Urgency::of(&outgoing.message)),
        "extras": extras,
    })
}

/// Returns the priority: from 1 on a phone shows an icon, from 4 on it also sounds, and from 8 on it also vibrates.
fn priority(urgency: Urgency) -> u8 {
    match urgency {
        Urgency::Quiet => 2,
        Urgency::Normal => 4,
        Urgency::High => 6,
        Urgency::Emergency => 8,
    }
}

#[cfg(test)]
mod tests {
    use deadbeat_domain::alert::delivery::Reason;
    use deadbeat_domain::alert::message::{Message, Phase};
    use deadbeat_domain::incident::severity::Severity;
    use deadbeat_testkit::{Receiver, Reply};

    use super::super::super::chat::proofs::{EVIL, huge, of_text, settings_are};
    use super::super::super::conformance::{failures, last, last_json, outbound, outgoing};
    use super::super::proofs;
    use super::*;
    use crate::alert::outbox::samples::{self, Sample};

    const SENT: Outcome = Outcome::Sent {
        code: Some(200),
        handle: None,
    };

    fn sender() -> GotifySender {
        GotifySender { outbound: outbound() }
    }

    /// The answer of `createMessage`.
    fn ok() -> Reply {
        Reply::status(200).body(
            json!({"id": 25, "appid": 5, "message": "x", "title": "x", "priority": 2,
                "date": "2018-02-27T19:36:10.5045044+01:00", "extras": {}})
            .to_string(),
        )
    }

    /// Checks the form by the pages named at the top of the module.
    pub(super) async fn conforms() {
        let receiver = Receiver::answering(ok()).await;
        let settings = json!({"url": receiver.url("/gotify"), "token": "AWFpNAS3CRET"});
        for message in proofs::samples() {
            let outcome = sender().send(outgoing(NAME, &settings, message.clone())).await;

            assert_eq!(outcome, SENT);
            let request = last(&receiver);
            assert_eq!(
                (request.method.as_str(), request.path.as_str()),
                ("POST", "/gotify/message")
            );
            assert_eq!(request.header("x-gotify-key"), Some("AWFpNAS3CRET"));
            assert!(
                request
                    .header("content-type")
                    .unwrap()
                    .starts_with("application/json")
            );
            check_form(&last_json(&receiver), &message);
        }
        let attempt = || outgoing(NAME, &settings, samples::test());
        failures(&receiver, &sender(), attempt, &[]).await;
        for status in [401, 403] {
            let error = json!({"error": "Unauthorized", "errorCode": status,
                "errorDescription": "you need to provide a valid access token, not AWFpNAS3CRET"});
            receiver.then(Reply::status(status).body(error.to_string()));
            let outcome = sender().send(attempt()).await;
            let Outcome::Failed { reason, detail, .. } = outcome else {
                panic!("{outcome:?}")
            };
            assert_eq!(reason, Reason::Auth);
            assert_eq!(
                detail,
                format!("answered {status}: you need to provide a valid access token, not …")
            );
        }
        for body in ["<html>hello</html>", "{}"] {
            receiver.then(Reply::status(200).body(body));
            let outcome = sender().send(attempt()).await;
            assert!(
                matches!(
                    outcome,
                    Outcome::Retry {
                        reason: Reason::ClientError,
                        ..
                    }
                ),
                "{body}"
            );
        }
    }

    /// Every field has the type of the API's documentation.
    fn check_form(body: &Value, message: &Message) {
        let story = Story::of(message);
        assert!((1..=200).contains(&body["title"].as_str().unwrap().chars().count()));
        let text = body["message"].as_str().unwrap();
        assert!((1..=4_000).contains(&text.len()));
        assert!(!text.contains(|c: char| c.is_control() && c != '\n'), "{text}");
        assert!((1..=10).contains(&body["priority"].as_u64().unwrap()));
        assert_eq!(body["extras"]["client::display"]["contentType"], "text/plain");
        assert_eq!(
            body["extras"]["client::notification"]["click"]["url"].as_str(),
            story.link.as_deref()
        );
        for (label, url) in [
            ("Acknowledge", &story.acknowledge),
            ("Open in Deadbeat", &story.link),
        ] {
            if let Some(url) = url {
                assert!(text.contains(&format!("{label}: {url}")), "{text}");
            }
        }
        if let Some(member) = story.members.first() {
            assert!(
                text.contains(&format!("{}\n• {member}\n", story.members_title())),
                "{text}"
            );
        }
    }

    #[test]
    fn the_severity_is_a_priority() {
        for (severity, phase, expected) in [
            (Severity::Critical, Phase::Opened, 8),
            (Severity::Critical, Phase::Escalated, 8),
            (Severity::Warning, Phase::Reminder, 6),
            (Severity::Info, Phase::Opened, 4),
            (Severity::Critical, Phase::Acknowledged, 2),
            (Severity::Critical, Phase::Resolved, 4),
        ] {
            let mut sample = Sample::monitor();
            sample.incident.severity = severity;
            let message = sample.message(phase, "2026-01-02T03:04:05Z");
            let body = self::message(&outgoing(NAME, &json!({}), message));
            assert_eq!(body["priority"], expected, "{severity:?}, {phase:?}");
        }
    }

    #[test]
    fn texts_from_outside_make_no_links_and_keep_the_limits() {
        for message in huge().into_iter().chain([of_text(EVIL)]) {
            let body = self::message(&outgoing(NAME, &json!({}), message.clone()));

            let text = body["message"].as_str().unwrap();
            assert!((1..=4_000).contains(&text.len()));
            for forbidden in ["https://evil", "www.evil"] {
                assert!(!body.to_string().contains(forbidden), "{body}");
            }
        }
    }

    #[test]
    fn settings_hold_a_server_and_a_token() {
        let url = "https://gotify.example.org";
        settings_are(
            &Gotify,
            &[
                (json!({"url": url, "token": "AWFpNAS3CRET"}), true),
                (
                    json!({"url": "http://127.0.0.1:8080/gotify/", "token": "AWFpNAS3CRET"}),
                    true,
                ),
                (json!({"url": url, "token": ""}), false),
                (json!({"url": url, "token": "S3CRET\nX-Evil: 1"}), false),
                (json!({"url": url, "token": "S3CRET".repeat(50)}), false),
                (json!({"url": url, "token": 5}), false),
                (
                    json!({"url": "https://gotify.example.org/?token=S3CRET", "token": "A"}),
                    false,
                ),
                (
                    json!({"url": "https://u:S3CRET@gotify.example.org", "token": "A"}),
                    false,
                ),
                (json!({"url": "gotify.example.org", "token": "A"}), false),
                (json!({"url": url}), false),
                (json!({"token": "AWFpNAS3CRET"}), false),
                (json!({}), false),
            ],
        );
    }
}
