use super::*;
use deadbeat_domain::alert::message::{Message, Phase};
use deadbeat_testkit::{Receiver, Reply};

use super::super::super::conformance::{failures, last, last_json, outbound, outgoing};
use crate::alert::outbox::samples::{self, Sample};

const KEY: &str = "e93facc04764012d7bfb002500d5d1a6";
const INCIDENT: &str = "0198c0de-0000-7000-8000-000000000003";

fn sender(receiver: &Receiver) -> PagerDutySender {
    PagerDutySender {
        outbound: outbound(),
        us: receiver.url("/us"),
        eu: receiver.url("/eu"),
    }
}

async fn receiver() -> Receiver {
    let answer = r#"{"status":"success","message":"Event processed","dedup_key":"samplekeyhere"}"#;
    Receiver::answering(Reply::status(202).body(answer)).await
}

const SENT: Outcome = Outcome::Sent {
    code: Some(202),
    handle: None,
};

/// Checks the form by the schema named at the top of the module.
pub(super) async fn conforms() {
    let receiver = receiver().await;
    let sender = sender(&receiver);
    let settings = json!({"routing_key": KEY});
    for message in samples::all() {
        let before = receiver.requests().len();

        assert_eq!(
            sender.send(outgoing(NAME, &settings, message.clone())).await,
            SENT
        );

        let requests = receiver.requests().split_off(before);
        let body: Value = serde_json::from_slice(&requests[0].body).unwrap();
        check_form(&body, &message);
        assert_eq!(
            (requests[0].method.as_str(), requests[0].path.as_str()),
            ("POST", "/us/v2/enqueue")
        );
        let is_test = message.event == Event::Test;
        assert_eq!(requests.len(), if is_test { 2 } else { 1 });
        if is_test {
            let end = last_json(&receiver);
            assert_eq!(
                (&end["event_action"], &end["dedup_key"]),
                (&json!("resolve"), &body["dedup_key"])
            );
        }
    }
    let attempt = || outgoing(NAME, &settings, samples::test());
    failures(&receiver, &sender, attempt, &[]).await;
    for (body, is_permanent, reason) in [
        (
            r#"{"status":"invalid event","errors":["Length of 'routing_key' is incorrect (should be 32 characters)"]}"#,
            true,
            Reason::Auth,
        ),
        ("Invalid routing key", true, Reason::Auth),
        (
            r#"{"status":"invalid event","errors":["'payload.severity' is invalid"]}"#,
            false,
            Reason::ClientError,
        ),
        (
            r#"{"status":"Unrecognized object","errors":["JSON parse error"]}"#,
            false,
            Reason::ClientError,
        ),
    ] {
        receiver.then(Reply::status(400).body(body));
        let outcome = sender.send(attempt()).await;
        assert_eq!(matches!(outcome, Outcome::Failed { .. }), is_permanent, "{body}");
        assert_eq!(outcome.reason(), Some(reason), "{body}");
    }
}

/// The alert is triggered, acknowledged, triggered again and resolved by one key.
#[tokio::test]
async fn an_incident_is_one_alert() {
    let receiver = receiver().await;
    let sender = sender(&receiver);
    let settings = json!({"routing_key": KEY, "region": "eu"});
    for (phase, action) in [
        (Phase::Opened, "trigger"),
        (Phase::Acknowledged, "acknowledge"),
        (Phase::Reminder, "trigger"),
        (Phase::Escalated, "trigger"),
        (Phase::Resolved, "resolve"),
    ] {
        let message = Sample::monitor().message(phase, "2026-01-02T03:04:05Z");

        assert_eq!(sender.send(outgoing(NAME, &settings, message)).await, SENT);

        let body = last_json(&receiver);
        assert_eq!(last(&receiver).path, "/eu/v2/enqueue");
        assert_eq!(body["event_action"], action);
        assert_eq!(body["dedup_key"], INCIDENT);
        assert_eq!(body["payload"].is_object(), action == "trigger", "{phase:?}");
    }
    assert_eq!(receiver.requests().len(), 5);
}

/// If a test cannot be resolved, the next attempt triggers it again with the same key, so that no alert remains.
#[tokio::test]
async fn a_test_is_resolved_also_after_a_failure() {
    let receiver = receiver().await;
    let sender = sender(&receiver);
    let settings = json!({"routing_key": KEY});
    receiver.then(Reply::status(202)).then(Reply::status(500));

    let first = sender.send(outgoing(NAME, &settings, samples::test())).await;
    let second = sender.send(outgoing(NAME, &settings, samples::test())).await;

    assert!(
        matches!(first, Outcome::Retry { code: Some(500), .. }),
        "{first:?}"
    );
    assert_eq!(second, SENT);
    let events: Vec<Value> = receiver
        .requests()
        .iter()
        .map(|request| serde_json::from_slice(&request.body).unwrap())
        .collect();
    let actions: Vec<&str> = events
        .iter()
        .map(|event| event["event_action"].as_str().unwrap())
        .collect();
    assert_eq!(actions, ["trigger", "resolve", "trigger", "resolve"]);
    assert!(
        events
            .iter()
            .all(|event| event["dedup_key"] == events[0]["dedup_key"])
    );
}

/// The events have no markup: texts stay in their fields, and all links come from Deadbeat.
#[test]
fn texts_from_outside_stay_texts() {
    let mut sample = Sample::monitor();
    let evil = "x\", \"event_action\": \"resolve\n<https://evil.example|click>";
    sample.incident.summary = evil.to_owned();
    sample.incident.subject.name = evil.repeat(100);
    let outgoing = outgoing(NAME, &json!({"routing_key": KEY}), sample.opened());
    let settings = outgoing.settings.read().unwrap();

    let body = event(&outgoing, &Page::of(&outgoing), &settings);

    assert_eq!(body["event_action"], "trigger");
    check_form(&body, &outgoing.message);
    assert!(!body["links"].to_string().contains("evil"), "{body}");
    assert!(!body["payload"]["summary"].as_str().unwrap().contains('\n'));
    assert!(body.to_string().len() < 512_000);
}

#[test]
fn settings_hold_a_key_and_a_region() {
    for (settings, is_good) in [
        (json!({"routing_key": KEY}), true),
        (json!({"routing_key": KEY, "region": "us"}), true),
        (json!({"routing_key": KEY, "region": "eu"}), true),
        (json!({"routing_key": KEY, "region": "moon"}), false),
        (json!({"routing_key": ""}), false),
        (json!({"routing_key": "a b"}), false),
        (json!({"routing_key": format!("{KEY}\r\n")}), false),
        (json!({"routing_key": "x".repeat(101)}), false),
        (json!({"routing_key": 7}), false),
        (json!({"region": "us"}), false),
        (json!({}), false),
    ] {
        let settings = Settings::new(NAME, settings.as_object().unwrap().clone());
        let checked = PagerDuty.check_new(&settings);
        assert_eq!(checked.is_ok(), is_good, "{}: {checked:?}", settings.to_json());
        assert!(!format!("{checked:?}").contains(KEY));
    }
    for (region, host) in [("us", US), ("eu", EU)] {
        let settings = json!({"routing_key": KEY, "region": region});
        let settings = Settings::new(NAME, settings.as_object().unwrap().clone());
        assert_eq!(PagerDuty.host(&settings).as_deref(), Some(host));
    }
}

/// Every field has the type and the limits of PagerDuty's documentation.
fn check_form(body: &Value, message: &Message) {
    let story = Story::of(message);
    assert_eq!(body["routing_key"], KEY);
    assert!(body["dedup_key"].as_str().unwrap().len() <= 255);
    let action = body["event_action"].as_str().unwrap();
    if action != "trigger" {
        assert!(["acknowledge", "resolve"].contains(&action));
        assert_eq!(body.as_object().unwrap().len(), 3);
        return;
    }
    let payload = &body["payload"];
    let summary = payload["summary"].as_str().unwrap();
    assert!((1..=1_024).contains(&summary.chars().count()));
    assert_eq!(summary, cut(&story.headline, 1_024));
    assert!(["critical", "error", "warning", "info"].contains(&payload["severity"].as_str().unwrap()));
    assert!(!payload["source"].as_str().unwrap().is_empty());
    chrono::DateTime::parse_from_rfc3339(payload["timestamp"].as_str().unwrap()).unwrap();
    let details = payload["custom_details"].as_object().unwrap();
    assert!(details.values().all(Value::is_string));
    for (label, value) in &story.facts {
        assert_eq!(details[*label], *value);
    }
    for step in story.steps.iter().filter_map(|step| step.command.as_ref()) {
        assert!(details["What to do"].as_str().unwrap().contains(step));
    }
    for link in body["links"].as_array().unwrap() {
        assert!(
            link["href"]
                .as_str()
                .unwrap()
                .starts_with("https://deadbeat.example.org/")
        );
        assert!(!link["text"].as_str().unwrap().is_empty());
    }
    assert_eq!(body["client_url"].as_str(), story.link.as_deref());
}
