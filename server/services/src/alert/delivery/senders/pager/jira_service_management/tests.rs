use super::*;
use deadbeat_domain::alert::delivery::Reason;
use deadbeat_domain::alert::message::{Message, Phase};
use deadbeat_testkit::{Receiver, Reply};

use super::super::super::conformance::{failures, last, last_json, outbound, outgoing};
use crate::alert::outbox::samples::{self, Sample};

const KEY: &str = "eb243592-faa2-4ba2-a551-1afdf565c889";
const INCIDENT: &str = "0198c0de-0000-7000-8000-000000000003";

fn sender(receiver: &Receiver) -> JsmSender {
    JsmSender {
        outbound: outbound(),
        bases: Service::ALL.map(|service| receiver.url(&format!("/{}", service.host()))),
    }
}

async fn receiver() -> Receiver {
    let answer = r#"{"result":"Request will be processed","took":0.302,"requestId":"43a29c5c-3dbf-4fa4-9c26-f4f71023e120"}"#;
    Receiver::answering(Reply::status(202).body(answer)).await
}

const SENT: Outcome = Outcome::Sent {
    code: Some(202),
    handle: None,
};

/// Checks the form by the pages named at the top of the module.
pub(super) async fn conforms() {
    let receiver = receiver().await;
    let sender = sender(&receiver);
    let settings = json!({"api_key": KEY});
    for message in samples::all() {
        assert_eq!(
            sender.send(outgoing(NAME, &settings, message.clone())).await,
            SENT
        );

        let request = last(&receiver);
        assert_eq!(request.method, "POST");
        assert_eq!(
            request.header("authorization"),
            Some("GenieKey eb243592-faa2-4ba2-a551-1afdf565c889")
        );
        check_form(&request.path, &last_json(&receiver), &message);
    }
    let attempt = || outgoing(NAME, &settings, samples::test());
    failures(&receiver, &sender, attempt, &PERMANENT).await;
    // Codes of Opsgenie's page of responses.
    for (status, reason) in [
        (402, Reason::ClientError),
        (403, Reason::Auth),
        (422, Reason::ClientError),
    ] {
        receiver.then(Reply::status(status).body(r#"{"message":"no","took":0.0,"requestId":"1"}"#));
        let outcome = sender.send(attempt()).await;
        assert!(matches!(outcome, Outcome::Retry { .. }), "{status}");
        assert_eq!(outcome.reason(), Some(reason), "{status}");
    }
}

/// The alert is created, acknowledged, repeated and closed by one alias, at each of the services.
#[tokio::test]
async fn an_incident_is_one_alert() {
    let receiver = receiver().await;
    let sender = sender(&receiver);
    for (service, base) in [
        (
            "jira_service_management",
            "/api.atlassian.com/jsm/ops/integration/v2/alerts",
        ),
        ("opsgenie", "/api.opsgenie.com/v2/alerts"),
        ("opsgenie_eu", "/api.eu.opsgenie.com/v2/alerts"),
    ] {
        let settings = json!({"api_key": KEY, "service": service});
        for (phase, action) in [
            (Phase::Opened, ""),
            (Phase::Acknowledged, "/acknowledge?identifierType=alias"),
            (Phase::Reminder, ""),
            (Phase::Escalated, ""),
            (Phase::Resolved, "/close?identifierType=alias"),
        ] {
            let message = Sample::monitor().message(phase, "2026-01-02T03:04:05Z");

            assert_eq!(sender.send(outgoing(NAME, &settings, message)).await, SENT);

            let path = last(&receiver).path;
            if action.is_empty() {
                assert_eq!(path, base);
                assert_eq!(last_json(&receiver)["alias"], INCIDENT);
            } else {
                assert_eq!(path, format!("{base}/{INCIDENT}{action}"));
            }
        }
    }
}

#[test]
fn texts_from_outside_hold_no_tags_and_no_mentions() {
    let mut sample = Sample::monitor();
    let evil = "<a href=\"https://evil.example\">click</a> <!channel> @everyone";
    sample.incident.summary = evil.to_owned();
    sample.incident.subject.name = evil.to_owned();
    sample.monitor.as_mut().unwrap().tags = vec![evil.repeat(9); 30];
    sample.project = evil.to_owned();
    let outgoing = outgoing(NAME, &json!({"api_key": KEY}), sample.opened());

    let body = alert(&outgoing, &Page::of(&outgoing));

    check_form("/jsm/ops/integration/v2/alerts", &body, &outgoing.message);
    let text = format!("{body} {}", note(&outgoing));
    assert!(!text.contains('<') && !text.contains("click</a>"), "{text}");
    for field in ["message", "description"] {
        assert!(!body[field].as_str().unwrap().contains("@everyone"), "{body}");
    }
    assert_eq!(body["tags"].as_array().unwrap().len(), 20);
}

#[test]
fn settings_hold_a_key_and_a_service() {
    for (settings, is_good) in [
        (json!({"api_key": KEY}), true),
        (json!({"api_key": KEY, "service": "opsgenie_eu"}), true),
        (json!({"api_key": KEY, "service": "OPSGENIE"}), false),
        (json!({"api_key": KEY, "service": null}), false),
        (json!({"api_key": ""}), false),
        (json!({"api_key": format!("{KEY}\r\nX-Evil: 1")}), false),
        (json!({"api_key": "x".repeat(201)}), false),
        (json!({"api_key": [KEY]}), false),
        (json!({}), false),
    ] {
        let settings = Settings::new(NAME, settings.as_object().unwrap().clone());
        let checked = JiraServiceManagement.check_new(&settings);
        assert_eq!(checked.is_ok(), is_good, "{}: {checked:?}", settings.to_json());
        assert!(!format!("{checked:?}").contains(KEY));
    }
    for (service, host) in [
        (json!("jira_service_management"), "api.atlassian.com"),
        (json!("opsgenie"), "api.opsgenie.com"),
        (json!("opsgenie_eu"), "api.eu.opsgenie.com"),
    ] {
        let settings = json!({"api_key": KEY, "service": service});
        let settings = Settings::new(NAME, settings.as_object().unwrap().clone());
        assert_eq!(JiraServiceManagement.host(&settings).as_deref(), Some(host));
    }
}

/// Every field has the type and the limits of the pages named at the top of the module.
fn check_form(path: &str, body: &Value, message: &Message) {
    let chars = |field: &str| body[field].as_str().unwrap().chars().count();
    assert_eq!(body["source"], "Deadbeat");
    if path.contains("identifierType") {
        assert!((1..=25_000).contains(&chars("note")));
        assert_eq!(body.as_object().unwrap().len(), 2);
        return;
    }
    let story = Story::of(message);
    assert!(path.ends_with("/v2/alerts"), "{path}");
    assert!((1..=130).contains(&chars("message")));
    assert!((1..=512).contains(&chars("alias")));
    assert!((1..=15_000).contains(&chars("description")));
    assert!(["P1", "P2", "P3", "P4", "P5"].contains(&body["priority"].as_str().unwrap()));
    let tags = body["tags"].as_array().unwrap();
    assert!((1..=20).contains(&tags.len()));
    assert!(
        tags.iter()
            .all(|tag| (1..=50).contains(&tag.as_str().unwrap().chars().count()))
    );
    let details = body["details"].as_object().unwrap();
    let total: usize = details
        .iter()
        .map(|(name, value)| name.chars().count() + value.as_str().unwrap().chars().count())
        .sum();
    assert!(total <= 8_000, "{total}");
    if let Some(incident) = message.incident() {
        assert!((1..=512).contains(&chars("entity")));
        assert_eq!(details["id"], incident.id.to_string());
        let description = body["description"].as_str().unwrap();
        assert!(description.contains(story.link.as_deref().unwrap()));
        for command in story.steps.iter().filter_map(|step| step.command.as_ref()) {
            assert!(description.contains(&format!("    {command}")));
        }
    }
}
