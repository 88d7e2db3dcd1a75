use deadbeat_domain::alert::delivery::Reason;
use deadbeat_domain::alert::message::{Message, Phase};
use deadbeat_domain::incident::severity::Severity;
use deadbeat_testkit::receiver::Request;
use deadbeat_testkit::{Receiver, Reply};

use super::super::super::chat::proofs::{EVIL, huge, json_of, of_text, settings_are};
use super::super::super::conformance::{failures, last, last_json, outbound, outgoing};
use super::super::proofs;
use super::*;
use crate::alert::outbox::samples::{self, Sample};

const INCIDENT: &str = "0198c0de-0000-7000-8000-000000000003";
const SENT: Outcome = Outcome::Sent {
    code: Some(200),
    handle: None,
};

fn sender() -> NtfySender {
    NtfySender { outbound: outbound() }
}

/// The answer of <https://docs.ntfy.sh/publish/#publish-as-json>, which repeats the message.
fn ok() -> Reply {
    Reply::status(200).body(
        json!({"id": "sPs71M8A2T", "time": 1_643_935_928, "expires": 1_643_936_928, "event": "message",
            "topic": "deadbeat-S3CRET", "message": "x", "sequence_id": INCIDENT})
        .to_string(),
    )
}

fn settings(receiver: &Receiver) -> Value {
    json!({"url": receiver.url("/ntfy/"), "topic": "deadbeat-S3CRET", "token": "tk_S3CRET"})
}

fn of(phase: Phase) -> Message {
    Sample::monitor().message(phase, "2026-01-02T03:04:05Z")
}

/// Checks the form by the pages named at the top of the module.
pub(super) async fn conforms() {
    let receiver = Receiver::answering(ok()).await;
    for (login, authorization) in [
        (json!({"token": "tk_S3CRET"}), Some("Bearer tk_S3CRET")),
        (
            json!({"username": "Aladdin", "password": "open:S3CRET"}),
            Some("Basic QWxhZGRpbjpvcGVuOlMzQ1JFVA=="),
        ),
        (json!({}), None),
    ] {
        let mut settings = login;
        settings["url"] = json!(receiver.url("/ntfy/"));
        settings["topic"] = json!("deadbeat-S3CRET");
        for message in proofs::samples() {
            let outcome = sender().send(outgoing(NAME, &settings, message.clone())).await;

            assert_eq!(outcome, SENT);
            let request = last(&receiver);
            assert_eq!(
                (request.method.as_str(), request.path.as_str()),
                ("POST", "/ntfy/")
            );
            assert_eq!(request.header("authorization"), authorization);
            let body = last_json(&receiver);
            check_form(&body, &message);
            check_text(&body, &message);
        }
    }
    let settings = settings(&receiver);
    let attempt = || outgoing(NAME, &settings, samples::test());
    failures(&receiver, &sender(), attempt, &[]).await;
    for (status, code) in [(401, 40_101), (403, 40_301), (400, 40_009), (400, 40_010)] {
        let error =
            json!({"code": code, "http": status, "error": "no, tk_S3CRET", "link": "https://ntfy.sh"});
        receiver.then(Reply::status(status).body(error.to_string()));
        let Outcome::Failed { code, detail, .. } = sender().send(attempt()).await else {
            panic!("{status} ends the channel")
        };
        assert_eq!(code, Some(i32::from(status)));
        assert_eq!(detail, format!("answered {status}: no, …"));
    }
    // A proxy answered, or the server that the address names is no ntfy.
    for body in ["<html>hello</html>", "{}", r#"{"event":"open","id":"x"}"#] {
        receiver.then(Reply::status(200).body(body));
        let outcome = sender().send(attempt()).await;
        assert_eq!(outcome.reason(), Some(Reason::ClientError), "{body}");
        assert!(matches!(outcome, Outcome::Retry { .. }), "{body}");
    }
}

/// Every field has the type and the limits of the documentation.
fn check_form(body: &Value, message: &Message) {
    let story = Story::of(message);
    assert_eq!(body["topic"], "deadbeat-S3CRET");
    let sequence = body["sequence_id"].as_str().unwrap();
    assert!((1..=64).contains(&sequence.len()) && !sequence.contains(['/', ' ']));
    assert!((1..=200).contains(&body["title"].as_str().unwrap().chars().count()));
    let text = body["message"].as_str().unwrap();
    assert!((1..=4_096).contains(&text.len()), "{}", text.len());
    assert!(!text.contains(|c: char| c.is_control() && c != '\n'), "{text}");
    assert!((1..=5).contains(&body["priority"].as_u64().unwrap()));
    assert_eq!(body["tags"].as_array().unwrap().len(), 1);
    assert_eq!(body["click"].as_str(), story.link.as_deref());
    let urls: Vec<&str> = body["actions"]
        .as_array()
        .into_iter()
        .flatten()
        .map(|action| {
            assert_eq!(action["action"], "view");
            assert!(action["label"].is_string());
            action["url"].as_str().unwrap()
        })
        .collect();
    let links = [&story.acknowledge, &story.link];
    let expected: Vec<&str> = links.into_iter().filter_map(|url| url.as_deref()).collect();
    assert_eq!(urls, expected);
}

/// The text has the commands and the members as they are.
fn check_text(body: &Value, message: &Message) {
    let (story, text) = (Story::of(message), body["message"].as_str().unwrap());
    for command in story.steps.iter().filter_map(|step| step.command.as_ref()) {
        // A command with an address would be a link.
        let expected = if command.contains("://") {
            "(the command is on the page of the incident)".to_owned()
        } else {
            format!("    {command}")
        };
        assert!(text.contains(&expected), "{text}");
    }
    if let Some(member) = story.members.first() {
        assert!(
            text.contains(&format!("{}\n• {member}\n", story.members_title())),
            "{text}"
        );
    }
}

#[tokio::test]
async fn an_incident_is_one_notification_and_reminders_are_received() {
    let receiver = Receiver::answering(ok()).await;
    let settings = settings(&receiver);
    for (phase, methods, priority) in [
        (Phase::Opened, &["POST"][..], 5),
        (Phase::Acknowledged, &["POST"], 2),
        (Phase::Reminder, &["DELETE", "POST"], 5),
        (Phase::Escalated, &["DELETE", "POST"], 5),
        (Phase::Resolved, &["POST"], 3),
    ] {
        let before = receiver.requests().len();
        let mut sample = Sample::monitor();
        sample.incident.severity = Severity::Critical;
        let message = sample.message(phase, "2026-01-02T03:04:05Z");

        assert_eq!(sender().send(outgoing(NAME, &settings, message)).await, SENT);

        let requests = receiver.requests().split_off(before);
        let found: Vec<&str> = requests.iter().map(|request| request.method.as_str()).collect();
        assert_eq!(found, methods, "{phase:?}");
        if let [deleted, _] = &requests[..] {
            assert_eq!(deleted.path, format!("/ntfy/deadbeat-S3CRET/{INCIDENT}"));
            assert_eq!(deleted.header("authorization"), Some("Bearer tk_S3CRET"));
            assert!(deleted.body.is_empty());
        }
        let body = json_of(requests.last().unwrap());
        assert_eq!(
            (&body["sequence_id"], &body["priority"]),
            (&json!(INCIDENT), &json!(priority))
        );
    }
    // A message about no incident replaces nothing, and its second attempt replaces its first.
    for _ in 0..2 {
        let outcome = sender()
            .send(outgoing(NAME, &settings, samples::disabled()))
            .await;
        assert_eq!(outcome, SENT);
        assert_eq!(
            last_json(&receiver)["sequence_id"],
            "0198c0de-0000-7000-8000-000000000001"
        );
    }
}

#[tokio::test]
async fn a_server_without_sequences_gets_reminders_too() {
    let receiver = Receiver::answering(ok()).await;
    let settings = settings(&receiver);
    for status in [404, 405] {
        receiver.then(Reply::status(status).body(r#"{"code":40401,"http":404,"error":"page not found"}"#));
        assert_eq!(
            sender()
                .send(outgoing(NAME, &settings, of(Phase::Reminder)))
                .await,
            SENT
        );
    }
    let posts = |request: &Request| request.method == "POST";
    assert_eq!(
        receiver
            .requests()
            .iter()
            .filter(|request| posts(request))
            .count(),
        2
    );
    // Any other failure is one of the attempt: no second sound without the first.
    receiver.then(Reply::status(500));
    let outcome = sender()
        .send(outgoing(NAME, &settings, of(Phase::Reminder)))
        .await;
    assert_eq!(outcome.reason(), Some(Reason::ServerError));
    assert_eq!(last(&receiver).method, "DELETE");
}

#[test]
fn texts_from_outside_make_no_links_and_keep_the_limits() {
    for message in huge().into_iter().chain([of_text(EVIL)]) {
        let body = notification(
            &outgoing(NAME, &json!({}), message.clone()),
            "deadbeat-S3CRET",
            "x",
        );

        check_form(&body, &message);
        // The answer repeats the texts, and Deadbeat must be able to read all of it.
        let echo = body
            .to_string()
            .replace('&', "\\u0026")
            .replace('<', "\\u003c")
            .replace('>', "\\u003e");
        assert!(echo.len() < 15 * 1_024, "{}", echo.len());
        let text = format!("{}{}", body["title"], body["message"]);
        for forbidden in ["https://evil", "www.evil"] {
            assert!(!text.contains(forbidden), "{text}");
        }
        for field in ["click", "actions"] {
            assert!(!body[field].to_string().contains("evil"), "{body}");
        }
    }
}

#[test]
fn settings_hold_a_topic_and_perhaps_a_login() {
    let with = |more: Value| {
        let mut settings = json!({"url": "https://ntfy.sh", "topic": "deadbeat-S3CRET"});
        for (field, value) in more.as_object().unwrap() {
            settings[field] = value.clone();
        }
        settings
    };
    settings_are(
        &Ntfy,
        &[
            (with(json!({})), true),
            (with(json!({"token": "tk_S3CRET"})), true),
            (with(json!({"username": "phil", "password": "S3CRET"})), true),
            (with(json!({"url": "http://ntfy.example.org:8080/base/"})), true),
            (with(json!({"username": "phil"})), false),
            (with(json!({"password": "S3CRET"})), false),
            (
                with(json!({"token": "tk_S3CRET", "username": "phil", "password": "S3CRET"})),
                false,
            ),
            (with(json!({"username": "a:b", "password": "S3CRET"})), false),
            (with(json!({"token": "S3CRET\nX-Evil: 1"})), false),
            (with(json!({"token": ""})), false),
            (with(json!({"topic": "S3CRET/../x"})), false),
            (with(json!({"topic": "x".repeat(65)})), false),
            (with(json!({"topic": ""})), false),
            (with(json!({"topic": 5})), false),
            (with(json!({"url": "https://u:S3CRET@ntfy.sh"})), false),
            (with(json!({"url": "https://ntfy.sh/?auth=S3CRET"})), false),
            (with(json!({"url": "ftp://ntfy.sh"})), false),
            (json!({"topic": "S3CRET"}), false),
            (json!({"url": "https://ntfy.sh"}), false),
            (json!({}), false),
        ],
    );
}
