use super::*;
use deadbeat_domain::alert::delivery::Reason;
use deadbeat_domain::alert::message::{Message, Phase};
use deadbeat_testkit::{Receiver, Reply};

use super::super::super::conformance::{failures, last, last_json, outbound, outgoing};
use super::super::proofs::{EVIL, huge, of_text, settings_are};
use crate::alert::outbox::samples::{self, Sample};

const PATH: &str =
    "/powerautomate/automations/direct/workflows/1/triggers/manual/paths/invoke?api-version=1&sig=S3CRET";

fn sender() -> TeamsSender {
    TeamsSender { outbound: outbound() }
}

/// Checks the form by the pages named at the top of the module. A workflow answers 202, without a body.
pub(super) async fn conforms() {
    let receiver = Receiver::answering(Reply::status(202)).await;
    let sender = sender();
    let settings = json!({"webhook_url": receiver.url(PATH)});
    for message in samples::all().into_iter().chain(huge()) {
        let outcome = sender.send(outgoing(NAME, &settings, message.clone())).await;

        assert_eq!(
            outcome,
            Outcome::Sent {
                code: Some(202),
                handle: None
            }
        );
        assert_eq!(last(&receiver).path, PATH);
        assert!(last(&receiver).body.len() <= 28 * 1_024);
        check_form(&last_json(&receiver), &message);
    }
    let attempt = || outgoing(NAME, &settings, samples::test());
    failures(&receiver, &sender, attempt, &[]).await;
    for (status, code, is_permanent, reason) in [
        (404, "WorkflowNotFound", true, Reason::ClientError),
        (401, "DirectApiInvalidAuthorizationSignature", true, Reason::Auth),
        (400, "WorkflowTriggerIsNotEnabled", false, Reason::ClientError),
        (502, "NoResponse", false, Reason::ServerError),
    ] {
        let body = json!({"error": {"code": code, "message": "x"}});
        receiver.then(Reply::status(status).body(body.to_string()));
        let outcome = sender.send(attempt()).await;
        assert_eq!(matches!(outcome, Outcome::Failed { .. }), is_permanent, "{code}");
        assert_eq!(outcome.reason(), Some(reason), "{code}");
    }
}

fn runs(card: &Value) -> Vec<&Value> {
    let blocks = card["body"].as_array().unwrap();
    blocks.iter().map(|block| &block["inlines"][0]).collect()
}

fn check_form(body: &Value, message: &Message) {
    assert_eq!(body["type"], "message");
    let [attachment] = body["attachments"].as_array().unwrap().as_slice() else {
        panic!("{body}")
    };
    assert_eq!(
        attachment["contentType"],
        "application/vnd.microsoft.card.adaptive"
    );
    let card = &attachment["content"];
    assert_eq!(
        (&card["type"], &card["version"]),
        (&json!("AdaptiveCard"), &json!("1.4"))
    );
    for block in card["body"].as_array().unwrap() {
        assert_eq!(block["type"], "RichTextBlock");
    }
    for run in runs(card) {
        assert_eq!(run["type"], "TextRun");
        let text = run["text"].as_str().unwrap();
        assert!(
            !text.is_empty() && !text.contains(|c: char| c.is_control()),
            "{text:?}"
        );
    }
    let story = Story::of(message);
    let urls: Vec<&str> = card["actions"]
        .as_array()
        .unwrap()
        .iter()
        .map(|action| {
            assert_eq!(action["type"], "Action.OpenUrl");
            assert!(!action["title"].as_str().unwrap().is_empty());
            action["url"].as_str().unwrap()
        })
        .collect();
    let expected: Vec<&str> = story
        .link
        .as_deref()
        .into_iter()
        .chain(story.cause.as_ref().map(|cause| cause.url.as_str()))
        .collect();
    assert_eq!(urls, expected);
}

#[test]
fn a_card_says_what_stopped_and_what_to_type() {
    let body = message(&Story::of(
        &Sample::monitor().message(Phase::Opened, "2026-01-02T02:15:00Z"),
    ));

    let card = &body["attachments"][0]["content"];
    let runs = runs(card);
    assert_eq!(
        runs[0],
        &json!({"type": "TextRun", "text": "DOWN: nightly-report (MISSED)", "size": "Large", "weight": "Bolder", "color": "Attention"})
    );
    assert_eq!(
        runs[1]["text"],
        "nightly-report did not report: it was due at 02:00."
    );
    let command =
        json!({"type": "TextRun", "text": "celery -A shop inspect active_queues", "fontType": "Monospace"});
    assert!(runs.contains(&&command), "{card}");
    let heading = json!({"type": "TextRun", "text": "What to do", "weight": "Bolder"});
    assert!(runs.contains(&&heading), "{card}");
}

/// Teams reads Markdown and `<at>` in a `TextBlock` and in facts, and a mention needs an entity. The card has none of
/// these.
#[test]
fn texts_from_outside_stand_in_runs_only() {
    let body = message(&Story::of(&of_text(EVIL)));

    let card = &body["attachments"][0]["content"];
    assert_eq!(card["msteams"], json!({"width": "Full"}));
    let text = body.to_string();
    for forbidden in [
        "\"TextBlock\"",
        "\"FactSet\"",
        "\"entities\"",
        "\"url\":\"https://evil",
    ] {
        assert!(!text.contains(forbidden), "{forbidden}: {text}");
    }
}

#[test]
fn settings_hold_an_address() {
    settings_are(
        &Teams,
        &[
            (
                json!({"webhook_url": "https://x.environment.api.powerplatform.com:443/S3CRET"}),
                true,
            ),
            (json!({"webhook_url": "http://S3CRET b"}), false),
            (json!({"webhook_url": "S3CRET"}), false),
            (json!({"webhook_url": 1}), false),
            (json!({}), false),
        ],
    );
}
