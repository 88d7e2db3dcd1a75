use super::*;
use chrono::{DateTime, Utc};
use deadbeat_domain::alert::Alert;
use deadbeat_domain::alert::delivery::Reason;
use deadbeat_domain::alert::message::Message;
use deadbeat_domain::ids::DeliveryId;
use deadbeat_domain::incident::cause::Cause;
use deadbeat_testkit::{Receiver, Reply};
use serde_json::{Value, json};

use super::super::conformance::{self, outgoing};
use crate::alert::delivery::outbound::OutboundSettings;
use crate::alert::example;
use crate::alert::outbox::samples;

const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";

/// The form is that of openapi.yaml. A contract test checks that they agree
/// (server/app/tests/it/contract/webhooks.rs).
pub(super) async fn conforms() {
    let receiver = Receiver::start().await;
    let outbound = Outbound::new(&OutboundSettings {
        ports: Vec::new(),
        allow_private_networks: true,
        loopback_only: false,
        user_agent: "Deadbeat/test".to_owned(),
    })
    .unwrap();
    let parts = Parts {
        outbound: &outbound,
        smtp: None,
    };
    let sender = Webhooks.sender(&parts).unwrap();
    let outgoing = |message| Outgoing {
        id: DeliveryId::generate(),
        attempted_at: at("2026-01-02T03:04:05Z"),
        message,
        settings: WebhookSettings {
            url: receiver.url("/hook"),
        }
        .into(),
        signing_secret: Some(SECRET.to_owned()),
        handle: None,
        signed: super::super::Signed::default(),
    };

    for message in samples::all() {
        let outgoing = outgoing(message.clone());
        let id = outgoing.id.to_string();
        assert_eq!(
            sender.send(outgoing).await,
            Outcome::Sent {
                code: Some(200),
                handle: None
            }
        );

        let request = receiver.requests().pop().unwrap();
        let body: Value = serde_json::from_slice(&request.body).unwrap();
        assert_eq!(body, message.to_json());
        assert_eq!(
            (&body["version"], &body["type"]),
            (&json!(1), &json!(message.alert().event_type()))
        );
        assert_eq!(request.header("webhook-id"), Some(id.as_str()));
        assert_eq!(
            request.header("webhook-signature"),
            signature(SECRET, &id, 1_767_323_045, &request.body).as_deref()
        );
    }
    receiver
        .then(Reply::status(401))
        .then(Reply::status(429).header("Retry-After", "90"))
        .then(Reply::status(302).header("Location", "http://127.0.0.1/"))
        .then(Reply::close())
        .then(Reply::status(410));
    let mut ends = Vec::new();
    for _ in 0..5 {
        ends.push(match sender.send(outgoing(samples::test())).await {
            Outcome::Sent { .. } => panic!("it was refused"),
            Outcome::Retry {
                reason,
                code,
                retry_after,
                ..
            } => ("retry", reason, code, retry_after.map(|wait| wait.num_seconds())),
            Outcome::Failed { reason, code, .. } => ("failed", reason, code, None),
        });
    }
    assert_eq!(
        ends,
        [
            ("retry", Reason::Auth, Some(401), None),
            ("retry", Reason::RateLimit, Some(429), Some(90)),
            ("retry", Reason::Redirect, Some(302), None),
            ("retry", Reason::Connection, None, None),
            ("failed", Reason::ClientError, Some(410), None),
        ]
    );
}

fn at(text: &str) -> DateTime<Utc> {
    text.parse().unwrap()
}

/// The vectors of the convention's own libraries and documentation.
#[test]
fn signatures_are_those_of_the_standard() {
    for (secret, id, timestamp, body, expected) in [
        (
            "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
            "msg_p5jXN8AQM9LWM0D4loKWxJek",
            1_614_265_330,
            r#"{"test": 2432232314}"#,
            "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=",
        ),
        (
            "whsec_plJ3nmyCDGBGInavdOK15jsl",
            "msg_loFOjxNBNWLDOmuOwyc4Bk3s",
            1_731_705_121,
            r#"{"event_type":"ping","data":{"success":true}}"#,
            "v1,BLeYtCBbjDROb59nDfrFakDSwX09+G2NBmcE5BWNIs4=",
        ),
    ] {
        assert_eq!(
            signature(secret, id, timestamp, body.as_bytes()).as_deref(),
            Some(expected),
            "{id}"
        );
    }
}

#[test]
fn secrets_are_new_each_time_and_can_sign() {
    let (one, other) = (signing_secret(), signing_secret());

    assert_ne!(one, other);
    assert_eq!(
        STANDARD
            .decode(one.strip_prefix("whsec_").unwrap())
            .unwrap()
            .len(),
        24
    );
    assert!(signature(&one, "id", 0, b"").is_some());
    for unusable in ["", "whsec_", "whsec_not base64", "c2VjcmV0"] {
        assert_eq!(signature(unusable, "id", 0, b""), None, "{unusable}");
    }
}

fn faults(settings: &Value) -> Vec<(String, String)> {
    let mut all = json!({"url": "https://hooks.example.org/in"});
    all.as_object_mut()
        .unwrap()
        .extend(settings.as_object().unwrap().clone());
    let settings = Settings::new(NAME, all.as_object().unwrap().clone());
    let faults = Webhooks.check_new(&settings).err().unwrap_or_default();
    assert_eq!(
        Webhooks.check(&settings).err().unwrap_or_default(),
        faults,
        "rows are judged alike"
    );
    faults
        .into_iter()
        .map(|fault| (fault.pointer, fault.message))
        .collect()
}

#[test]
fn settings_are_taken_up_to_their_limits() {
    let headers = |count: usize| {
        let headers = (0..count).map(|n| (format!("X-{n}"), json!("v")));
        Value::Object(headers.collect())
    };
    for settings in [
        json!({}),
        json!({"method": "GET"}),
        json!({"method": "PATCH", "preset": "cloudevents"}),
        json!({"preset": "text"}),
        json!({"body": "x".repeat(4_000), "opened": "é".repeat(4_000), "resolved": "\t\r\n", "path": "x".repeat(1_000)}),
        json!({"body": "x", "content_type": "text/plain; charset=UTF-8"}),
        json!({"opened": "x", "content_type": "application/vnd.api+json"}),
        json!({"headers": headers(20)}),
        json!({"headers": {}}),
        json!({"headers": {"x".repeat(100): "v".repeat(2_000), "User-Agent": "mine", "Cookie": "a=b; c=d"}}),
    ] {
        assert_eq!(faults(&settings), [], "{settings}");
    }
    for (settings, pointer) in [
        (json!({"method": "DELETE"}), "/settings/method"),
        (json!({"method": "post"}), "/settings/method"),
        (json!({"method": ""}), "/settings/method"),
        (json!({"method": "CONNECT"}), "/settings/method"),
        (
            json!({"method": "POST /evil HTTP/1.1\r\nHost: evil.example.org\r\n\r\nGET"}),
            "/settings/method",
        ),
        (json!({"method": "GET", "body": "x"}), "/settings/method"),
        (json!({"method": "GET", "preset": "text"}), "/settings/method"),
        (json!({"preset": "xml"}), "/settings/preset"),
        (json!({"preset": "text", "body": "x"}), "/settings/preset"),
        (json!({"preset": "text", "opened": "x"}), "/settings/preset"),
        (json!({"body": ""}), "/settings/body"),
        (json!({"body": "x".repeat(4_001)}), "/settings/body"),
        (json!({"opened": "x".repeat(1_000_000)}), "/settings/opened"),
        (json!({"resolved": "a\u{0}b"}), "/settings/resolved"),
        (json!({"path": "x".repeat(1_001)}), "/settings/path"),
        (json!({"content_type": "text/plain"}), "/settings/content_type"),
        (
            json!({"body": "x", "content_type": "text"}),
            "/settings/content_type",
        ),
        (
            json!({"body": "x", "content_type": "text/plain; charset=latin1"}),
            "/settings/content_type",
        ),
        (
            json!({"body": "x", "content_type": "text/plain\r\nX-Evil: 1"}),
            "/settings/content_type",
        ),
        (
            json!({"body": "x", "content_type": "a/b; c"}),
            "/settings/content_type",
        ),
        (json!({"headers": headers(21)}), "/settings/headers"),
        (json!({"headers": {"": "v"}}), "/settings/headers/"),
        (json!({"headers": {"a b": "v"}}), "/settings/headers/a b"),
        (
            json!({"headers": {"X-A: 1\r\nX-Evil": "v"}}),
            "/settings/headers/X-A: 1\r\nX-Evil",
        ),
        (json!({"headers": {"X-A:": "v"}}), "/settings/headers/X-A:"),
        (
            json!({"headers": {":authority": "v"}}),
            "/settings/headers/:authority",
        ),
        (
            json!({"headers": {"X-A": "v\nX-Evil: 1"}}),
            "/settings/headers/X-A",
        ),
        (
            json!({"headers": {"X-A": "v\rX-Evil: 1"}}),
            "/settings/headers/X-A",
        ),
        (json!({"headers": {"X-A": "v\u{0}"}}), "/settings/headers/X-A"),
        (json!({"headers": {"a~b/c": "v"}}), "/settings/headers/a~0b~1c"),
        (
            json!({"headers": {"x".repeat(101): "v"}}),
            &format!("/settings/headers/{}", "x".repeat(101)),
        ),
        (
            json!({"headers": {"X-A": "v\r\nX-Evil: 1"}}),
            "/settings/headers/X-A",
        ),
        (json!({"headers": {"X-A": ""}}), "/settings/headers/X-A"),
        (json!({"headers": {"X-A": " v"}}), "/settings/headers/X-A"),
        (json!({"headers": {"X-A": "é"}}), "/settings/headers/X-A"),
        (
            json!({"headers": {"X-A": "v".repeat(2_001)}}),
            "/settings/headers/X-A",
        ),
        (json!({"headers": {"X-A": 1}}), "/settings/headers/X-A"),
        (json!({"headers": {"shown": "v"}}), "/settings/headers/shown"),
        (json!({"headers": ["X-A"]}), "/settings"),
        (json!({"body": 1}), "/settings"),
        (json!({"template": "x"}), "/settings"),
    ] {
        let found = faults(&settings);
        let [(at, message)] = found.as_slice() else {
            panic!("{settings}: {found:?}")
        };
        assert_eq!(at, pointer, "{settings}: {message}");
    }
    let twice = faults(&json!({"headers": {"X-A": "v", "x-a": "v"}}));
    assert_eq!(twice.len(), 1, "{twice:?}");
    for refused in [
        "Connection",
        "Keep-Alive",
        "Proxy-Authenticate",
        "Proxy-Authorization",
        "Proxy-Connection",
        "TE",
        "Trailer",
        "Transfer-Encoding",
        "Upgrade",
        "Host",
        "Content-Length",
        "Content-Type",
        "Content-Encoding",
        "Expect",
        "webhook-id",
        "Webhook-Signature",
        "webhook-timestamp",
        "webhook-anything",
    ] {
        let found = faults(&json!({"headers": {refused: "v"}}));
        assert_eq!(found.len(), 1, "{refused}");
    }
    // A fault never repeats a value: it may be a secret.
    let found = faults(&json!({"headers": {"Authorization": "Bearer S3CRET\n"}}));
    assert!(!found[0].1.contains("S3CRET"));
}

fn settings(receiver: &Receiver, more: &Value) -> Value {
    let mut settings = json!({"url": receiver.url("/hook")});
    settings
        .as_object_mut()
        .unwrap()
        .extend(more.as_object().unwrap().clone());
    settings
}

fn signed(settings: &Value, message: Message) -> Outgoing {
    Outgoing {
        signing_secret: Some(SECRET.to_owned()),
        ..outgoing(NAME, settings, message)
    }
}

#[tokio::test]
async fn whatever_is_sent_is_signed() {
    let receiver = Receiver::start().await;
    let sender = Webhook::new(conformance::outbound());
    for more in [
        json!({"method": "PUT", "headers": {"Authorization": "Bearer abc"}, "body": "[\"é {{ type }}\"]", "path": "v1?x={{ id }}"}),
        json!({"preset": "cloudevents"}),
        json!({"preset": "text", "method": "PATCH"}),
        json!({"method": "GET"}),
        json!({"opened": "{{ incident.nothing }}"}),
    ] {
        let message = example::of(Alert::Opened, Cause::BeatDown);
        let outcome = sender.send(signed(&settings(&receiver, &more), message)).await;

        assert!(matches!(outcome, Outcome::Sent { .. }), "{more}: {outcome:?}");
        let request = conformance::last(&receiver);
        assert_eq!(
            request.header("webhook-signature"),
            signature(
                SECRET,
                request.header("webhook-id").unwrap(),
                request.header("webhook-timestamp").unwrap().parse().unwrap(),
                &request.body
            )
            .as_deref(),
            "{more}"
        );
        assert_eq!(
            request.method,
            more["method"].as_str().unwrap_or("POST"),
            "{more}"
        );
    }
    let requests = receiver.requests();
    assert_eq!(
        requests[0].path,
        "/hook/v1?x=0198c0de-0000-7000-8000-000000000001"
    );
    assert_eq!(requests[0].header("authorization"), Some("Bearer abc"));
    assert_eq!(requests[0].text(), "[\"é incident.opened\"]");
    assert!(requests[3].body.is_empty() && requests[3].header("content-type").is_none());
}

/// Each required attribute and `subject`, `time`, `datacontenttype` and `data` by sections 3.1 and 3.2 of
/// <https://github.com/cloudevents/spec/blob/v1.0.2/cloudevents/spec.md> and section 2 and 3.1 of formats/json-format.md there.
#[tokio::test]
async fn cloud_events_are_those_of_the_specification() {
    let receiver = Receiver::start().await;
    let sender = Webhook::new(conformance::outbound());
    let stored = json!({"version": 9, "type": "incident.merged", "timestamp": "2026-01-02T02:15:00Z"});
    let unread = Message::read(stored, at("2026-01-02T02:15:00Z"));
    for message in example::every_kind().into_iter().chain([unread]) {
        let settings = settings(&receiver, &json!({"preset": "cloudevents"}));
        sender.send(signed(&settings, message.clone())).await;

        let request = conformance::last(&receiver);
        assert_eq!(
            request.header("content-type"),
            Some("application/cloudevents+json; charset=utf-8")
        );
        let event: Value = serde_json::from_slice(&request.body).unwrap();
        let text = |name: &str| {
            event[name]
                .as_str()
                .filter(|text| !text.is_empty())
                .unwrap()
                .to_owned()
        };
        assert_eq!(text("specversion"), "1.0");
        assert_eq!(Some(text("id").as_str()), request.header("webhook-id"));
        assert!(text("source").starts_with('/'));
        assert_eq!(text("type"), message.to_json()["type"].as_str().unwrap());
        assert!(!text("subject").is_empty());
        assert_eq!(at(&text("time")), message.at);
        assert_eq!(text("datacontenttype"), "application/json");
        assert_eq!(event["data"], message.to_json());
        let names = event.as_object().unwrap().keys();
        assert!(
            names
                .clone()
                .all(|name| name.bytes().all(|b| b.is_ascii_lowercase())),
            "{names:?}"
        );
    }
    let beat = example::of(Alert::Opened, Cause::BeatDown);
    sender
        .send(signed(
            &settings(&receiver, &json!({"preset": "cloudevents"})),
            beat,
        ))
        .await;
    let event = conformance::last_json(&receiver);
    assert_eq!(
        (&event["source"], &event["subject"]),
        (
            &json!("/projects/0198c0de-0000-7000-8000-000000000001"),
            &json!("beat/0198c0de-0000-7000-8000-000000000004")
        )
    );
}

#[tokio::test]
async fn the_text_preset_is_the_text_of_a_mail() {
    let receiver = Receiver::start().await;
    let sender = Webhook::new(conformance::outbound());
    for message in example::every_kind() {
        let settings = settings(&receiver, &json!({"preset": "text"}));
        let outcome = sender.send(signed(&settings, message.clone())).await;

        assert!(matches!(outcome, Outcome::Sent { .. }), "{outcome:?}");
        let request = conformance::last(&receiver);
        assert_eq!(request.header("content-type"), Some("text/plain; charset=utf-8"));
        assert_eq!(
            request.text(),
            crate::alert::delivery::senders::email::mail::render(&message).text
        );
    }
}

#[tokio::test]
async fn a_refused_message_names_the_template_that_failed() {
    let receiver = Receiver::answering(Reply::status(400).repeating()).await;
    let sender = Webhook::new(conformance::outbound());
    let settings = settings(&receiver, &json!({"opened": "{{ incident.nothing }}"}));

    let outcome = sender
        .send(signed(&settings, example::of(Alert::Opened, Cause::Missed)))
        .await;

    let Outcome::Retry { detail, .. } = outcome else {
        panic!("{outcome:?}")
    };
    let begin = "the message went out in the standard form, because a template failed (opened, line 1, column 4: `incident.nothing` is undefined); \
                 answered 400: ";
    assert!(detail.starts_with(begin), "{detail}");
}
