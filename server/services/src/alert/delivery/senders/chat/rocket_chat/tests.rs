use super::*;
use deadbeat_domain::alert::delivery::Reason;
use deadbeat_testkit::{Receiver, Reply};

use super::super::super::conformance::{failures, last, last_json, outbound, outgoing};
use super::super::proofs::{EVIL, huge, of_text, settings_are};
use crate::alert::outbox::samples;

const PATH: &str = "/hooks/64f1a2b3/S3CRETtoken";

fn sender() -> RocketChatSender {
    RocketChatSender { outbound: outbound() }
}

/// Checks the form by the pages named at the top of the module.
pub(super) async fn conforms() {
    let receiver = Receiver::answering(Reply::status(200).body(r#"{"success":true}"#)).await;
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
        assert_eq!(last(&receiver).path, PATH);
        let body = last_json(&receiver);
        let (headline, attachment) = (body["text"].as_str().unwrap(), &body["attachments"][0]);
        assert!(headline.starts_with('*') && headline.ends_with('*'), "{headline}");
        let color = attachment["color"].as_str().unwrap();
        assert!(color.len() == 7 && color.starts_with('#'), "{color}");
        let text = attachment["text"].as_str().unwrap();
        assert!(!text.is_empty() && headline.chars().count() + text.chars().count() <= 5_000);
        if let Some(link) = Story::of(&message).link {
            assert!(text.contains(&format!("[Open in Deadbeat]({link})")), "{text}");
        }
    }
    let attempt = || outgoing(NAME, &settings, samples::test());
    failures(&receiver, &sender, attempt, &[]).await;
    let invalid = "Invalid integration id or token provided.";
    for (status, error, is_permanent, reason) in [
        (404, invalid, true, Reason::ClientError),
        (400, invalid, true, Reason::ClientError),
        (401, invalid, true, Reason::Auth),
        (400, "invalid-channel", false, Reason::ClientError),
        (200, "script refused", false, Reason::ClientError),
    ] {
        let body = json!({"success": false, "error": error});
        receiver.then(Reply::status(status).body(body.to_string()));
        let outcome = sender.send(attempt()).await;
        assert_eq!(matches!(outcome, Outcome::Failed { .. }), is_permanent, "{error}");
        assert_eq!(outcome.reason(), Some(reason), "{error}");
    }
}

#[test]
fn texts_from_outside_cannot_mention_link_or_end_code() {
    let body = message(&Story::of(&of_text(EVIL)));

    let text = format!(
        "{}{}",
        body["text"].as_str().unwrap(),
        body["attachments"][0]["text"].as_str().unwrap()
    );
    for forbidden in [
        "@",
        "#",
        "](https:∕∕",
        "https://evil",
        "www.",
        "`x",
        "```y",
        "*z",
        "<",
    ] {
        assert!(!text.contains(forbidden), "{forbidden}: {text}");
    }
    assert_eq!(Markdown.code("echo @all"), None);
    assert_eq!(Markdown.code("@all"), None);
    assert_eq!(
        Markdown.code("celery inspect ping -d celery@worker-1").as_deref(),
        Some("```\ncelery inspect ping -d celery@worker-1\n```")
    );
}

#[test]
fn settings_hold_an_address() {
    settings_are(
        &RocketChat,
        &[
            (
                json!({"webhook_url": "https://chat.example.org/hooks/1/S3CRET"}),
                true,
            ),
            (
                json!({"webhook_url": "https://chat.example.org/hooks/1/S3 CRET"}),
                false,
            ),
            (json!({"webhook_url": "chat.example.org/S3CRET"}), false),
            (json!({"webhook_url": {"x": "S3CRET"}}), false),
            (
                json!({"webhook_url": "https://a.example/S3CRET", "alias": "x"}),
                false,
            ),
            (json!({}), false),
        ],
    );
}
