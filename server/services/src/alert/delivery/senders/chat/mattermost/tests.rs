use super::*;
use deadbeat_domain::alert::delivery::Reason;
use deadbeat_testkit::{Receiver, Reply};

use super::super::super::conformance::{failures, last, last_json, outbound, outgoing};
use super::super::proofs::{EVIL, huge, of_text, settings_are};
use crate::alert::outbox::samples;

const PATH: &str = "/hooks/S3CRETgeneratedkey";

fn sender() -> MattermostSender {
    MattermostSender { outbound: outbound() }
}

/// Checks the form by the pages named at the top of the module. The webhook answers `ok`.
pub(super) async fn conforms() {
    let receiver = Receiver::answering(Reply::status(200).body("ok")).await;
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
        let (text, attachment) = (body["text"].as_str().unwrap(), &body["attachments"][0]);
        assert!(text.starts_with("**") && text.ends_with("**") && text.chars().count() <= 1_000);
        assert!(!attachment["fallback"].as_str().unwrap().is_empty());
        let color = attachment["color"].as_str().unwrap();
        assert!(color.len() == 7 && color.starts_with('#'), "{color}");
        let text = attachment["text"].as_str().unwrap();
        assert!((1..=4_000).contains(&text.chars().count()), "{text}");
        if let Some(link) = Story::of(&message).link {
            assert!(text.contains(&format!("[Open in Deadbeat]({link})")), "{text}");
        }
    }
    let attempt = || outgoing(NAME, &settings, samples::test());
    failures(&receiver, &sender, attempt, &[]).await;
    for (status, id, is_permanent, reason) in [
        (400, DEAD, true, Reason::ClientError),
        (
            501,
            "web.incoming_webhook.disabled.app_error",
            false,
            Reason::ServerError,
        ),
        (
            403,
            "web.incoming_webhook.permissions.app_error",
            false,
            Reason::Auth,
        ),
    ] {
        let body = json!({"id": id, "message": "x", "status_code": status});
        receiver.then(Reply::status(status).body(body.to_string()));
        let outcome = sender.send(attempt()).await;
        assert_eq!(matches!(outcome, Outcome::Failed { .. }), is_permanent, "{id}");
        assert_eq!(outcome.reason(), Some(reason), "{id}");
    }
}

#[test]
fn texts_from_outside_cannot_mention_link_or_end_code() {
    let body = message(&Story::of(&of_text(EVIL)));

    let fallback = body["attachments"][0]["fallback"].as_str().unwrap();
    for forbidden in ["@", "~town", "https://evil", "www."] {
        assert!(!fallback.contains(forbidden), "{forbidden}: {fallback}");
    }
    let text = format!(
        "{}{}",
        body["text"].as_str().unwrap(),
        body["attachments"][0]["text"].as_str().unwrap(),
    );
    let bare = text.replace("\\`", "").replace("\\*", "").replace("\\[", "");
    for forbidden in [
        "@",
        "~town",
        "https://evil",
        "www.",
        "`x",
        "```y",
        "*z",
        "[click",
        "[r]",
    ] {
        assert!(!bare.contains(forbidden), "{forbidden}: {text}");
    }
}

#[test]
fn settings_hold_an_address() {
    settings_are(
        &Mattermost,
        &[
            (
                json!({"webhook_url": "https://chat.example.org/hooks/S3CRET"}),
                true,
            ),
            (
                json!({"webhook_url": "https://chat.example.org/\u{200b}S3CRET"}),
                false,
            ),
            (json!({"webhook_url": "chat.example.org/S3CRET"}), false),
            (json!({"webhook_url": ["S3CRET"]}), false),
            (
                json!({"webhook_url": "https://a.example/S3CRET", "channel": "x"}),
                false,
            ),
            (json!({}), false),
        ],
    );
}
