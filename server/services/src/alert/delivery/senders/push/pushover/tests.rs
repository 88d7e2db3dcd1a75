use std::collections::HashMap;

use deadbeat_domain::alert::delivery::Reason;
use deadbeat_domain::alert::message::{Message, Phase};
use deadbeat_domain::incident::severity::Severity;
use deadbeat_testkit::{Receiver, Reply};
use serde_json::{Value, json};

use super::super::super::chat::proofs::{EVIL, huge, of_text, settings_are};
use super::super::super::conformance::{failures, outbound, outgoing};
use super::super::proofs;
use super::super::proofs::form_of;
use super::*;
use crate::alert::outbox::samples::{self, Sample};

const INCIDENT: &str = "0198c0de-0000-7000-8000-000000000003";
const SENT: Outcome = Outcome::Sent {
    code: Some(200),
    handle: None,
};

fn sender(receiver: &Receiver) -> PushoverSender {
    PushoverSender {
        outbound: outbound(),
        api: receiver.url(""),
    }
}

fn settings() -> Value {
    json!({"token": "azGDORePK8gS3CRET", "user": "uQiRzpo4DXgS3CRET"})
}

async fn receiver() -> Receiver {
    let answer = json!({"status": 1, "request": "e460545a8b333d0da2f3602aff3133d6"});
    Receiver::answering(Reply::status(200).body(answer.to_string())).await
}

fn critical(phase: Phase) -> Message {
    let mut sample = Sample::monitor();
    sample.incident.severity = Severity::Critical;
    sample.message(phase, "2026-01-02T03:04:05Z")
}

/// Checks the form by the pages named at the top of the module.
pub(super) async fn conforms() {
    let receiver = receiver().await;
    let sender = sender(&receiver);
    for message in proofs::samples() {
        assert_eq!(
            sender.send(outgoing(NAME, &settings(), message.clone())).await,
            SENT
        );

        let request = receiver.requests().pop().unwrap();
        assert_eq!(
            (request.method.as_str(), request.path.as_str()),
            ("POST", "/1/messages.json")
        );
        assert_eq!(
            request.header("content-type"),
            Some("application/x-www-form-urlencoded")
        );
        check_form(&form_of(&request), &message);
    }
    let attempt = || outgoing(NAME, &settings(), samples::test());
    failures(&receiver, &sender, attempt, &[]).await;
    for (field, error) in [
        ("token", "application token is invalid"),
        ("user", "user identifier is invalid"),
        ("device", "device name is not valid for user"),
    ] {
        let mut answer =
            json!({"errors": [format!("{error}: azGDORePK8gS3CRET")], "status": 0, "request": "x"});
        answer[field] = json!("invalid");
        receiver.then(Reply::status(400).body(answer.to_string()));
        let outcome = sender.send(attempt()).await;
        let Outcome::Failed { code, detail, .. } = outcome else {
            panic!("{outcome:?}")
        };
        assert_eq!(code, Some(400));
        assert_eq!(detail, format!("answered 400: [\"{error}: …\"]"));
    }
    for body in ["<html>hello</html>", "{}", r#"{"status":0}"#] {
        receiver.then(Reply::status(200).body(body));
        let outcome = sender.send(attempt()).await;
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

/// Every parameter has the values and the limits of the documentation.
fn check_form(form: &HashMap<String, String>, message: &Message) {
    let story = Story::of(message);
    assert_eq!(form["token"], "azGDORePK8gS3CRET");
    assert_eq!(form["user"], "uQiRzpo4DXgS3CRET");
    assert!((1..=250).contains(&form["title"].chars().count()));
    let text = &form["message"];
    assert!((1..=1_024).contains(&text.chars().count()), "{text}");
    assert!(!text.contains(|c: char| c.is_control() && c != '\n'), "{text}");
    assert_eq!(form["timestamp"], message.at.timestamp().to_string());
    assert!(!form.contains_key("html") && !form.contains_key("monospace"));
    let url = story.acknowledge.or(story.link);
    assert_eq!(form.get("url"), url.as_ref());
    assert_eq!(form.contains_key("url_title"), url.is_some());
    let is_emergency = form["priority"] == "2";
    assert!(["-1", "0", "1", "2"].contains(&form["priority"].as_str()));
    for field in ["retry", "expire", "tags"] {
        assert_eq!(form.contains_key(field), is_emergency, "{field}");
    }
    if is_emergency {
        assert!((30..=10_800).contains(&form["retry"].parse::<u32>().unwrap()));
        assert!((30..=10_800).contains(&form["expire"].parse::<u32>().unwrap()));
    }
}

#[tokio::test]
async fn emergencies_end_with_the_incident() {
    let receiver = receiver().await;
    let sender = sender(&receiver);
    let cancel = format!("/1/receipts/cancel_by_tag/{INCIDENT}.json");
    for (phase, cancels, priority) in [
        (Phase::Opened, false, "2"),
        (Phase::Reminder, false, "2"),
        (Phase::Escalated, false, "2"),
        (Phase::Acknowledged, true, "-1"),
        (Phase::Resolved, true, "0"),
    ] {
        let before = receiver.requests().len();

        assert_eq!(
            sender.send(outgoing(NAME, &settings(), critical(phase))).await,
            SENT
        );

        let requests = receiver.requests().split_off(before);
        let paths: Vec<&str> = requests.iter().map(|request| request.path.as_str()).collect();
        if cancels {
            assert_eq!(paths, [cancel.as_str(), "/1/messages.json"], "{phase:?}");
            let form = form_of(&requests[0]);
            assert_eq!(form["token"], "azGDORePK8gS3CRET");
            assert_eq!(form.len(), 1);
        } else {
            assert_eq!(paths, ["/1/messages.json"], "{phase:?}");
        }
        let form = form_of(requests.last().unwrap());
        assert_eq!(form["priority"], priority, "{phase:?}");
        assert_eq!(
            form.get("tags").map(String::as_str),
            (priority == "2").then_some(INCIDENT)
        );
    }
}

#[tokio::test]
async fn a_failed_cancellation_is_tried_again_before_the_message() {
    let receiver = receiver().await;
    let sender = sender(&receiver);
    let attempt = || outgoing(NAME, &settings(), critical(Phase::Resolved));
    for status in [429, 500] {
        receiver.then(Reply::status(status));
        let before = receiver.requests().len();
        assert!(
            matches!(sender.send(attempt()).await, Outcome::Retry { .. }),
            "{status}"
        );
        assert_eq!(receiver.requests().len(), before + 1, "{status}: no message");
    }
    // Nothing has the tag.
    for status in [400, 404] {
        receiver.then(Reply::status(status).body(r#"{"status":0}"#));
        assert_eq!(sender.send(attempt()).await, SENT, "{status}");
    }
}

#[test]
fn texts_from_outside_make_no_links_and_keep_the_limits() {
    let settings: PushoverSettings = serde_json::from_value(settings()).unwrap();
    for message in huge().into_iter().chain([of_text(EVIL)]) {
        let form: HashMap<String, String> =
            self::message(&outgoing(NAME, &json!({}), message.clone()), &settings)
                .into_iter()
                .map(|(field, value)| (field.to_owned(), value))
                .collect();

        check_form(&form, &message);
        for forbidden in ["https://evil", "www.evil"] {
            assert!(!form.values().any(|value| value.contains(forbidden)), "{form:?}");
        }
    }
}

#[test]
fn settings_hold_an_application_and_a_user() {
    let with = |field: &str, value: Value| {
        let mut settings = settings();
        settings[field] = value;
        settings
    };
    settings_are(
        &Pushover,
        &[
            (settings(), true),
            (with("device", json!("droid2")), true),
            (with("retry_seconds", json!(30)), true),
            (with("expire_seconds", json!(10_800)), true),
            (with("retry_seconds", json!(29)), false),
            (with("expire_seconds", json!(10_801)), false),
            (with("retry_seconds", json!(-1)), false),
            (with("device", json!("a,b")), false),
            (with("device", json!("x".repeat(26))), false),
            (with("token", json!("")), false),
            (with("token", json!("S3CRET\n")), false),
            (with("user", json!("S3CRET ä")), false),
            (with("user", json!("S3CRET".repeat(20))), false),
            (with("user", json!(5)), false),
            (json!({"token": "azGDORePK8gS3CRET"}), false),
            (json!({"user": "uQiRzpo4DXgS3CRET"}), false),
            (json!({}), false),
        ],
    );
}
