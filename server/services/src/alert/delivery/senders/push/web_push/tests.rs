use deadbeat_domain::alert::message::{Event, Message, Phase};
use deadbeat_domain::incident::severity::Severity;
use deadbeat_testkit::receiver::Request;
use deadbeat_testkit::{Receiver, Reply};

use super::super::super::Signed;
use super::super::super::chat::proofs::{EVIL, huge, of_text, settings_are};
use super::super::super::conformance::{failures, last, outbound};
use super::super::proofs;
use super::encryption::browser::Browser;
use super::*;
use crate::alert::outbox::samples::{self, Sample};

const INCIDENT: &str = "0198c0de-0000-7000-8000-000000000003";
/// The public key and the secret of RFC 8291, appendix A.
const P256DH: &str =
    "BCVxsr7N_eNgVRqvHtD0zTZsEc6-VV-JvLexhqUzORcxaOzi6-AYWXvTBHm4bjyPjs7Vd8pZGH6SRpkNtoIAiw4";
const AUTH_SECRET: &str = "BTBZMqHH6r4Tts7J_aSIgg";
const SENT: Outcome = Outcome::Sent {
    code: Some(201),
    handle: None,
};

fn sender() -> WebPushSender {
    WebPushSender { outbound: outbound() }
}

async fn receiver() -> Receiver {
    Receiver::answering(
        Reply::status(201).header("Location", "https://push.example.net/message/qDIYHNcfAIPP"),
    )
    .await
}

fn settings(endpoint: &str, browser: &Browser) -> Value {
    json!({
        "endpoint": endpoint,
        "p256dh": URL_SAFE_NO_PAD.encode(&browser.public),
        "auth": URL_SAFE_NO_PAD.encode(browser.auth),
    })
}

fn identity() -> Identity {
    Identity {
        key: Arc::new(VapidKey::parse(&VapidKey::generate()).unwrap()),
        contact: Some("https://deadbeat.example.org".to_owned()),
    }
}

fn outgoing(settings: &Value, message: Message) -> Outgoing {
    Outgoing {
        signed: Signed {
            identity: Some(identity()),
            ..Signed::default()
        },
        ..super::super::super::conformance::outgoing(NAME, settings, message)
    }
}

fn of(severity: Severity, phase: Phase) -> Message {
    let mut sample = Sample::monitor();
    sample.incident.severity = severity;
    sample.message(phase, "2026-01-02T03:04:05Z")
}

/// Checks the form by the sources named at the top of the module.
pub(super) async fn conforms() {
    let receiver = receiver().await;
    let endpoint = receiver.url("/wpush/v2/gAAAAS3CRET");
    for message in proofs::samples() {
        let browser = Browser::new();
        let attempt = outgoing(&settings(&endpoint, &browser), message.clone());
        let public = attempt.signed.identity.as_ref().unwrap().key.public();

        assert_eq!(sender().send(attempt).await, SENT);

        let request = last(&receiver);
        check_headers(&request, &public);
        let text = browser.decrypt(&request.body).expect("the browser reads it");
        check_message(&serde_json::from_slice(&text).unwrap(), &message);
    }
    let fixed = json!({"endpoint": endpoint, "p256dh": P256DH, "auth": AUTH_SECRET});
    let attempt = || outgoing(&fixed, samples::test());
    failures(&receiver, &sender(), attempt, &[404, 410]).await;
    receiver.then(Reply::status(410).body("no subscription gAAAAS3CRET"));
    let outcome = sender().send(attempt()).await;
    assert_eq!(
        outcome,
        Outcome::Failed {
            reason: Reason::ClientError,
            code: Some(410),
            detail: "answered 410 Gone: the receiver does not exist any more: no subscription …".to_owned(),
        }
    );
}

/// Every header has the form of RFC 8030, RFC 8188 and RFC 8292.
fn check_headers(request: &Request, public: &str) {
    assert_eq!(
        (request.method.as_str(), request.path.as_str()),
        ("POST", "/wpush/v2/gAAAAS3CRET")
    );
    for (name, value) in [
        ("content-encoding", "aes128gcm"),
        ("content-type", "application/octet-stream"),
        ("ttl", "86400"),
    ] {
        assert_eq!(request.header(name), Some(value), "{name}");
    }
    let urgency = request.header("urgency").unwrap();
    assert!(["low", "normal", "high"].contains(&urgency), "{urgency}");
    let topic = request.header("topic").unwrap();
    assert!((1..=32).contains(&topic.len()), "{topic}");
    assert!(URL_SAFE_NO_PAD.decode(topic).is_ok(), "{topic}");
    let authorization = request.header("authorization").unwrap();
    assert!(authorization.starts_with("vapid t=ey"), "{authorization}");
    assert!(
        authorization.ends_with(&format!(", k={public}")),
        "{authorization}"
    );
    assert!((104..=4_096).contains(&request.body.len()));
}

/// The message has the fields of a declarative push message, and the texts of the story.
fn check_message(found: &Value, message: &Message) {
    let story = Story::of(message);
    assert_eq!(found["web_push"], 8_030);
    let shown = &found["notification"];
    assert!((1..=120).contains(&shown["title"].as_str().unwrap().chars().count()));
    assert!(shown["body"].as_str().unwrap().chars().count() <= 300);
    assert_eq!(
        (&shown["tag"], found["id"].as_str().unwrap().len()),
        (&found["id"], 36)
    );
    assert!(shown["silent"].is_boolean());
    assert_eq!(shown["navigate"].as_str(), story.link.as_deref());
    assert_eq!(
        shown["actions"][0]["navigate"].as_str(),
        story.acknowledge.as_deref()
    );
}

#[tokio::test]
async fn the_messages_of_an_incident_replace_each_other() {
    let receiver = receiver().await;
    let fixed = json!({"endpoint": receiver.url("/x"), "p256dh": P256DH, "auth": AUTH_SECRET});
    let topic_of_incident = URL_SAFE_NO_PAD.encode(INCIDENT.parse::<Uuid>().unwrap().as_bytes());
    for (severity, phase, urgency, silent) in [
        (Severity::Critical, Phase::Opened, "high", false),
        (Severity::Warning, Phase::Reminder, "high", false),
        (Severity::Critical, Phase::Escalated, "high", false),
        (Severity::Info, Phase::Opened, "normal", false),
        (Severity::Critical, Phase::Acknowledged, "low", true),
        (Severity::Critical, Phase::Resolved, "normal", false),
    ] {
        let attempt = outgoing(&fixed, of(severity, phase));
        let shown: Value = serde_json::from_slice(&message(&attempt)).unwrap();
        assert_eq!(sender().send(attempt).await, SENT);

        let request = last(&receiver);
        assert_eq!(request.header("topic"), Some(topic_of_incident.as_str()));
        assert_eq!(
            request.header("urgency"),
            Some(urgency),
            "{severity:?}, {phase:?}"
        );
        assert_eq!(shown["notification"]["silent"], silent);
        assert_eq!(shown["id"], INCIDENT);
    }
    // A second attempt replaces the first, also for a message about no incident.
    let mut topics = Vec::new();
    for _ in 0..2 {
        assert_eq!(sender().send(outgoing(&fixed, samples::disabled())).await, SENT);
        topics.push(last(&receiver).header("topic").unwrap().to_owned());
    }
    assert_eq!(topics[0], topics[1]);
    assert_ne!(topics[0], topic_of_incident);
}

#[tokio::test]
async fn the_token_is_in_no_detail() {
    let receiver = receiver().await;
    let fixed = json!({"endpoint": receiver.url("/x"), "p256dh": P256DH, "auth": AUTH_SECRET});
    let attempt = outgoing(&fixed, samples::test());
    let settings: WebPushSettings = serde_json::from_value(fixed.clone()).unwrap();
    let (call, token) = request(&attempt, &settings).unwrap();
    assert!(call.headers[AUTHORIZATION].is_sensitive());
    assert!(
        token.starts_with("ey") && token.split('.').count() == 3,
        "{token}"
    );
    assert!(!format!("{:?}", call.headers).contains(&token));
    receiver.then(Reply::status(403).repeating());
    let outcome = sender().send(attempt).await;
    let Outcome::Retry { reason, detail, .. } = outcome else {
        panic!("{outcome:?}")
    };
    assert_eq!(reason, Reason::Auth);
    assert!(detail.contains("authorization=vapid t=…, k="), "{detail}");
}

#[tokio::test]
async fn without_a_key_for_push_services_the_alert_waits() {
    let receiver = receiver().await;
    let fixed = json!({"endpoint": receiver.url("/x"), "p256dh": P256DH, "auth": AUTH_SECRET});
    let mut attempt = outgoing(&fixed, samples::test());
    attempt.signed.identity = None;

    let outcome = sender().send(attempt).await;

    assert!(
        matches!(
            outcome,
            Outcome::Retry {
                reason: Reason::Setup,
                ..
            }
        ),
        "{outcome:?}"
    );
    assert!(receiver.requests().is_empty());
}

#[test]
fn texts_from_outside_make_no_links_and_keep_the_limits() {
    let fixed = json!({"endpoint": "https://push.example.net", "p256dh": P256DH, "auth": AUTH_SECRET});
    for text in huge()
        .into_iter()
        .chain([of_text(EVIL), of_text(&"\\\"".repeat(500))])
    {
        let bytes = message(&outgoing(&fixed, text.clone()));

        assert!(bytes.len() <= MESSAGE_BYTES, "{}", bytes.len());
        let found: Value = serde_json::from_slice(&bytes).unwrap();
        check_message(&found, &text);
        let shown = format!(
            "{}{}",
            found["notification"]["title"], found["notification"]["body"]
        );
        for forbidden in ["https://evil", "www.evil"] {
            assert!(!shown.contains(forbidden), "{shown}");
        }
    }
}

#[test]
fn links_that_do_not_fit_are_left_out_whole() {
    let fixed = json!({"endpoint": "https://push.example.net", "p256dh": P256DH, "auth": AUTH_SECRET});
    let mut text = of_text(&"🔥".repeat(1_000));
    let Event::Incident(event) = &mut text.event else {
        panic!("{text:?}")
    };
    event.incident.url = format!("https://deadbeat.example.org/{}", "x".repeat(1_900));
    event.incident.acknowledge_url = Some(format!("https://deadbeat.example.org/{}", "y".repeat(1_900)));

    let bytes = message(&outgoing(&fixed, text));

    assert!(bytes.len() <= MESSAGE_BYTES, "{}", bytes.len());
    let found: Value = serde_json::from_slice(&bytes).unwrap();
    assert!(
        found["notification"]["navigate"]
            .as_str()
            .unwrap()
            .ends_with("xxx")
    );
    assert!(found["notification"]["actions"].is_null());
}

#[test]
fn settings_are_a_subscription() {
    let with = |field: &str, value: Value| {
        let mut settings =
            json!({"endpoint": "https://push.example.net/S3CRET", "p256dh": P256DH, "auth": AUTH_SECRET});
        match value {
            Value::Null => drop(settings.as_object_mut().unwrap().remove(field)),
            value => settings[field] = value,
        }
        settings
    };
    let off = format!("{}A", &P256DH[..86]);
    settings_are(
        &WebPush,
        &[
            (with("auth", json!(AUTH_SECRET)), true),
            (with("auth", json!(format!("{AUTH_SECRET}=="))), true),
            (with("endpoint", json!("http://127.0.0.1:8080/S3CRET")), true),
            (
                with("endpoint", json!("https://u:S3CRET@push.example.net/")),
                false,
            ),
            (with("endpoint", json!("ftp://push.example.net/S3CRET")), false),
            (
                with("endpoint", json!("https://push.example.net/S3CRET x")),
                false,
            ),
            (
                with(
                    "endpoint",
                    json!(format!("https://push.example.net/{}", "x".repeat(2_000))),
                ),
                false,
            ),
            (with("endpoint", json!("https://")), false),
            (with("endpoint", Value::Null), false),
            (with("p256dh", json!(off)), false),
            (with("p256dh", json!(AUTH_SECRET)), false),
            (with("p256dh", json!("S3CRET S3CRET")), false),
            (with("p256dh", Value::Null), false),
            (with("auth", json!(P256DH)), false),
            (with("auth", json!("S3CRET")), false),
            (with("auth", json!("")), false),
            (with("auth", json!(5)), false),
            (with("auth", Value::Null), false),
            (with("keys", json!({"p256dh": P256DH})), false),
            (json!({}), false),
        ],
    );
}
