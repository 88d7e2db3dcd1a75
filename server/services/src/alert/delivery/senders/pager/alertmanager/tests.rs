use super::*;
use deadbeat_domain::alert::delivery::HANDLE_BYTES;
use deadbeat_domain::alert::message::{Message, Phase};
use deadbeat_testkit::{Receiver, Reply};

use super::super::super::conformance::{failures, last, last_json, outbound, outgoing};
use crate::alert::outbox::samples::{self, Sample, at};

fn sender() -> AlertmanagerSender {
    AlertmanagerSender { outbound: outbound() }
}

/// Checks the form by the schema named at the top of the module.
pub(super) async fn conforms() {
    let receiver = Receiver::start().await;
    let settings = json!({"url": receiver.url("/am/"), "token": "0123456789"});
    for message in samples::all() {
        let outcome = sender().send(outgoing(NAME, &settings, message.clone())).await;

        let request = last(&receiver);
        assert_eq!(
            (request.method.as_str(), request.path.as_str()),
            ("POST", "/am/api/v2/alerts")
        );
        assert_eq!(request.header("authorization"), Some("Bearer 0123456789"));
        let body = last_json(&receiver);
        let [alert] = body.as_array().unwrap().as_slice() else {
            panic!("{body}")
        };
        check_form(alert, &message);
        let handle = Some(json!({"labels": alert["labels"]}));
        assert_eq!(
            outcome,
            Outcome::Sent {
                code: Some(200),
                handle
            }
        );
    }
    let attempt = || outgoing(NAME, &settings, samples::test());
    failures(&receiver, &sender(), attempt, &[]).await;
    // Alertmanager's answer to an alert that it refuses.
    receiver.then(Reply::status(400).body("\"start time must be before end time\""));
    let refused = sender().send(attempt()).await;
    assert!(
        matches!(refused, Outcome::Retry { code: Some(400), .. }),
        "{refused:?}"
    );
}

#[tokio::test]
async fn credentials_are_sent_as_http_has_them() {
    let receiver = Receiver::start().await;
    let url = receiver.url("");
    for (settings, header) in [
        (json!({"url": url}), None),
        (
            json!({"url": url, "username": "Aladdin", "password": "open:sesame"}),
            Some("Basic QWxhZGRpbjpvcGVuOnNlc2FtZQ=="),
        ),
        (
            json!({"url": url, "token": "mF_9.B5f-4.1JqM"}),
            Some("Bearer mF_9.B5f-4.1JqM"),
        ),
    ] {
        sender().send(outgoing(NAME, &settings, samples::test())).await;

        assert_eq!(last(&receiver).header("authorization"), header);
        assert_eq!(last(&receiver).path, "/api/v2/alerts");
        // Proxies repeat requests in their answers.
        receiver.then(Reply::status(500).repeating());
        let refused = format!(
            "{:?}",
            sender().send(outgoing(NAME, &settings, samples::test())).await
        );
        assert!(refused.contains("/api/v2/alerts"), "{refused}");
        let word = header.and_then(|header| header.split(' ').nth(1));
        assert!(word.is_none_or(|word| !refused.contains(word)), "{refused}");
        assert_eq!(refused.contains("authorization=B"), header.is_some(), "{refused}");
    }
}

/// There is one alert, although the monitor was renamed meanwhile. Its end is far in the future until it is resolved.
#[tokio::test]
async fn an_incident_is_one_alert() {
    let receiver = Receiver::start().await;
    let settings = json!({"url": receiver.url("")});
    let mut sample = Sample::monitor();
    let (mut handle, mut labels) = (None, None);
    for phase in [
        Phase::Opened,
        Phase::Acknowledged,
        Phase::Reminder,
        Phase::Escalated,
        Phase::Resolved,
    ] {
        let message = sample.message(phase, "2026-01-02T03:00:00Z");
        let outgoing = Outgoing {
            handle: handle.clone(),
            ..outgoing(NAME, &settings, message)
        };
        let now = outgoing.attempted_at;

        let Outcome::Sent { handle: next, .. } = sender().send(outgoing).await else {
            panic!("{phase:?}")
        };

        let body = last_json(&receiver);
        let ends: DateTime<Utc> = body[0]["endsAt"].as_str().unwrap().parse().unwrap();
        if phase == Phase::Resolved {
            assert_eq!(ends, at("2026-01-02T03:00:00Z"));
        } else {
            assert!(ends > now + TimeDelta::days(300), "{ends}");
        }
        assert_eq!(body[0]["startsAt"], "2026-01-02T02:15:00.000Z");
        assert_eq!(
            body[0]["annotations"]["acknowledged_at"].is_string(),
            phase == Phase::Acknowledged
        );
        let first = labels.get_or_insert_with(|| body[0]["labels"].clone());
        assert_eq!(body[0]["labels"], *first, "{phase:?}");
        sample.incident.subject.name = "renamed".to_owned();
        handle = next;
    }
}

/// Alertmanager compares the end with its own clock, and refuses an end before the start.
#[test]
fn an_end_is_over_for_a_clock_that_is_behind() {
    let of = |resolved: &str| {
        let message = Sample::monitor().message(Phase::Resolved, resolved);
        // This attempt is at 03:04:05, and the incident opened at 02:15:00.
        alert(&outgoing(NAME, &json!({"url": "http://localhost"}), message))["endsAt"].clone()
    };

    assert_eq!(of("2026-01-02T03:00:00Z"), "2026-01-02T03:00:00.000Z");
    assert_eq!(of("2026-01-02T03:04:05Z"), "2026-01-02T03:03:05.000Z");
    assert_eq!(of("2026-01-02T02:15:00Z"), "2026-01-02T02:15:00.000Z");
    let mut sample = Sample::monitor();
    sample.incident.opened_at = at("2026-01-02T03:04:00Z");
    let short = sample.message(Phase::Resolved, "2026-01-02T03:04:04Z");
    let short = alert(&outgoing(NAME, &json!({"url": "http://localhost"}), short));
    assert_eq!(short["endsAt"], short["startsAt"]);
}

#[test]
fn texts_from_outside_hold_no_tags_and_no_mentions() {
    let mut sample = Sample::monitor();
    let evil = "\"<!channel> <https://evil.example|click> @everyone ".repeat(20);
    sample.incident.summary = evil.clone();
    sample.incident.subject.name = evil.clone();
    sample.project = evil;
    let message = sample.opened();

    let alert = alert(&outgoing(
        NAME,
        &json!({"url": "http://localhost"}),
        message.clone(),
    ));

    check_form(&alert, &message);
    assert!(!alert.to_string().contains('<'), "{alert}");
    assert!(!alert["annotations"].to_string().contains("@everyone"), "{alert}");
    let handle = json!({"labels": alert["labels"]}).to_string();
    assert!(handle.len() < HANDLE_BYTES, "{}", handle.len());
    let mut wide = Sample::monitor();
    wide.incident.subject.name = "𝕏".repeat(300);
    wide.project = "𝕏".repeat(300);
    let wide = super::alert(&outgoing(
        NAME,
        &json!({"url": "http://localhost"}),
        wide.opened(),
    ));
    let handle = json!({"labels": wide["labels"]}).to_string();
    assert!(handle.len() < HANDLE_BYTES, "{}", handle.len());
}

#[test]
fn settings_hold_a_server_and_credentials() {
    let url = "https://alertmanager.example.org";
    for (settings, is_good) in [
        (json!({"url": url}), true),
        (json!({"url": url, "token": "t0"}), true),
        (json!({"url": url, "username": "u", "password": "p"}), true),
        (json!({"url": url, "username": "u"}), false),
        (json!({"url": url, "password": "p"}), false),
        (json!({"url": url, "username": "u:v", "password": "p"}), false),
        (
            json!({"url": url, "username": "u", "password": "p", "token": "t0"}),
            false,
        ),
        (json!({"url": url, "token": "t0\r\nX-Evil: 1"}), false),
        (json!({"url": url, "token": ""}), false),
        (
            json!({"url": "https://user:password@alertmanager.example.org"}),
            false,
        ),
        (json!({"url": "https://alertmanager.example.org/?a=b"}), false),
        (json!({"url": "alertmanager.example.org"}), false),
        (json!({"token": "t0"}), false),
        (json!({}), false),
    ] {
        let settings = Settings::new(NAME, settings.as_object().unwrap().clone());
        let checked = Alertmanager.check_new(&settings);
        assert_eq!(checked.is_ok(), is_good, "{}: {checked:?}", settings.to_json());
        assert!(!format!("{checked:?}").contains("X-Evil"));
        assert_eq!(Alertmanager.check(&settings).is_ok(), is_good);
    }
}

/// Every field has the type of `postableAlert`.
fn check_form(alert: &Value, message: &Message) {
    let story = Story::of(message);
    let labels = alert["labels"].as_object().unwrap();
    assert!(labels.contains_key("alertname"));
    for (name, value) in labels {
        assert!(
            name.bytes().all(|b| b.is_ascii_lowercase() || b == b'_'),
            "{name}"
        );
        assert!(!value.as_str().unwrap().is_empty(), "{name}");
    }
    assert!(
        alert["annotations"]
            .as_object()
            .unwrap()
            .values()
            .all(Value::is_string)
    );
    let times: Vec<DateTime<Utc>> = ["startsAt", "endsAt"]
        .iter()
        .map(|field| alert[*field].as_str().unwrap().parse().unwrap())
        .collect();
    assert!(times[0] <= times[1], "{times:?}");
    assert_eq!(alert["generatorURL"].as_str(), story.link.as_deref());
    let description = alert["annotations"]["description"].as_str().unwrap();
    for command in story.steps.iter().filter_map(|step| step.command.as_ref()) {
        assert!(description.contains(&format!("    {command}")));
    }
}
