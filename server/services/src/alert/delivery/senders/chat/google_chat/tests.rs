use super::*;
use deadbeat_domain::alert::delivery::Reason;
use deadbeat_testkit::{Receiver, Reply};

use super::super::super::conformance::{failures, last, last_json, outbound, outgoing};
use super::super::proofs::{EVIL, LIFE, huge, of_text, settings_are};
use crate::alert::outbox::samples::{self, Sample};

const PATH: &str = "/v1/spaces/AAAA/messages?key=AIza&token=S3CRET%3D";
const REQUEST: &str = "&requestId=0198c0de-0000-7000-8000-000000000001";
const REPLY: &str = "&messageReplyOption=REPLY_MESSAGE_FALLBACK_TO_NEW_THREAD";

fn sender() -> GoogleChatSender {
    GoogleChatSender { outbound: outbound() }
}

/// Checks the form by the pages named at the top of the module.
pub(super) async fn conforms() {
    let receiver =
        Receiver::answering(Reply::status(200).body(r#"{"name":"spaces/AAAA/messages/x.y"}"#)).await;
    let sender = sender();
    let settings = json!({"webhook_url": receiver.url(PATH)});
    for message in samples::all().into_iter().chain(huge()) {
        let outcome = sender.send(outgoing(NAME, &settings, message.clone())).await;

        assert_eq!(
            outcome,
            Outcome::Sent {
                code: Some(200),
                handle: None
            }
        );
        let (request, body) = (last(&receiver), last_json(&receiver));
        assert!(request.body.len() <= 32_000);
        let text = body["text"].as_str().unwrap();
        assert!(text.starts_with('*') && text.chars().count() <= 4_000, "{text}");
        if let Event::Incident(event) = &message.event {
            assert_eq!(request.path, format!("{PATH}{REQUEST}{REPLY}"));
            assert_eq!(
                body["thread"],
                json!({"threadKey": event.incident.id.0.to_string()})
            );
            assert!(
                text.contains(&format!("<{}|Open in Deadbeat>", event.incident.url)),
                "{text}"
            );
        } else {
            assert_eq!(request.path, format!("{PATH}{REQUEST}"));
            assert_eq!(body.as_object().unwrap().len(), 1);
        }
    }
    let attempt = || outgoing(NAME, &settings, samples::test());
    failures(&receiver, &sender, attempt, &[]).await;
    for (status, error, is_permanent, reason) in [
        (404, "NOT_FOUND", true, Reason::ClientError),
        (401, "UNAUTHENTICATED", false, Reason::Auth),
        (403, "PERMISSION_DENIED", false, Reason::Auth),
        (400, "INVALID_ARGUMENT", false, Reason::ClientError),
        (429, "RESOURCE_EXHAUSTED", false, Reason::RateLimit),
    ] {
        let body = json!({"error": {"code": status, "message": "x", "status": error}});
        receiver.then(Reply::status(status).body(body.to_string()));
        let outcome = sender.send(attempt()).await;
        assert_eq!(matches!(outcome, Outcome::Failed { .. }), is_permanent, "{error}");
        assert_eq!(outcome.reason(), Some(reason), "{error}");
    }
}

#[tokio::test]
async fn an_incident_is_one_thread() {
    let receiver = Receiver::start().await;
    let settings = json!({"webhook_url": receiver.url(PATH)});
    for phase in LIFE {
        let message = Sample::monitor().message(phase, "2026-01-02T03:04:05Z");
        let outcome = sender().send(outgoing(NAME, &settings, message)).await;
        assert!(matches!(outcome, Outcome::Sent { .. }), "{outcome:?}");
    }

    let mut threads: Vec<String> = receiver
        .requests()
        .iter()
        .map(|request| {
            let body: serde_json::Value = serde_json::from_slice(&request.body).unwrap();
            body["thread"]["threadKey"].as_str().unwrap().to_owned()
        })
        .collect();
    assert_eq!(threads.len(), LIFE.len());
    threads.dedup();
    assert_eq!(threads.len(), 1);
}

#[test]
fn texts_from_outside_cannot_mention_link_or_end_code() {
    let text = render(&Story::of(&of_text(EVIL)), &Text, Content::All, TEXT_CHARS);

    for forbidden in ["<users", "<!", "<@", "https://evil", "www.", "`x", "```y", "*z"] {
        assert!(!text.contains(forbidden), "{forbidden}: {text}");
    }
    assert_eq!(Text.code("echo <users/all>"), None);
    assert_eq!(
        Text.link("a|b", "https://a.example/|>"),
        "<https://a.example/%7C%3E|a∣b>"
    );
}

#[test]
fn settings_hold_an_address() {
    settings_are(
        &GoogleChat,
        &[
            (
                json!({"webhook_url": "https://chat.googleapis.com/v1/spaces/A/messages?key=a&token=S3CRET"}),
                true,
            ),
            (
                json!({"webhook_url": "https://chat.googleapis.com/S3CRET\n"}),
                false,
            ),
            (json!({"webhook_url": "gopher://S3CRET"}), false),
            (json!({"webhook_url": 5}), false),
            (json!({}), false),
        ],
    );
}
