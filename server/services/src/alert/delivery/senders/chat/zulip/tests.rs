use std::collections::BTreeMap;

use super::*;
use deadbeat_domain::alert::delivery::Reason;
use deadbeat_domain::alert::message::Phase;
use deadbeat_testkit::receiver::Request;
use deadbeat_testkit::{Receiver, Reply};

use super::super::super::conformance::{failures, last, outbound, outgoing};
use super::super::proofs::{EVIL, LIFE, LIFE_REQUESTS, counts, huge, life, of_text, settings_are};
use crate::alert::outbox::samples::{self, Sample};

fn sender() -> ZulipSender {
    ZulipSender { outbound: outbound() }
}

fn settings(receiver: &Receiver) -> Value {
    json!({
        "url": receiver.url(""), "email": "deadbeat-bot@zulip.example.org", "api_key": "S3CRETkey",
        "stream": "ops & alerts", "topic": "Celery",
    })
}

fn ok() -> Reply {
    Reply::status(200).body(r#"{"id":42,"msg":"","result":"success"}"#)
}

fn error(status: u16, code: &str) -> Reply {
    Reply::status(status).body(json!({"code": code, "msg": "x", "result": "error"}).to_string())
}

fn fields(request: &Request) -> BTreeMap<String, String> {
    assert_eq!(
        request.header("content-type"),
        Some("application/x-www-form-urlencoded")
    );
    form_urlencoded::parse(&request.body).into_owned().collect()
}

/// Checks the form by the pages named at the top of the module.
pub(super) async fn conforms() {
    let receiver = Receiver::answering(ok()).await;
    let sender = sender();
    let stream = settings(&receiver);
    let mut direct = stream.clone();
    direct.as_object_mut().unwrap().remove("stream");
    direct.as_object_mut().unwrap().remove("topic");
    direct["to"] = json!("ada@example.org");
    for message in samples::all().into_iter().chain(huge()) {
        for settings in [&stream, &direct] {
            let outcome = sender.send(outgoing(NAME, settings, message.clone())).await;

            assert!(
                matches!(
                    outcome,
                    Outcome::Sent {
                        code: Some(200),
                        handle: Some(_)
                    }
                ),
                "{outcome:?}"
            );
            let request = last(&receiver);
            assert_eq!(
                (request.method.as_str(), request.path.as_str()),
                ("POST", "/api/v1/messages")
            );
            assert_eq!(
                request.header("authorization"),
                Some("Basic ZGVhZGJlYXQtYm90QHp1bGlwLmV4YW1wbGUub3JnOlMzQ1JFVGtleQ==")
            );
            let mut fields = fields(&request);
            let content = fields.remove("content").unwrap();
            check_content(&content);
            if let Some(link) = Story::of(&message).link {
                assert!(
                    content.contains(&format!("[Open in Deadbeat]({link})")),
                    "{content}"
                );
            }
            let target: Vec<(&str, &str)> = fields
                .iter()
                .map(|(name, value)| (name.as_str(), value.as_str()))
                .collect();
            let expected = if settings == &direct {
                vec![("to", "[\"ada@example.org\"]"), ("type", "direct")]
            } else {
                vec![("to", "ops & alerts"), ("topic", "Celery"), ("type", "stream")]
            };
            assert_eq!(target, expected);
        }
    }
    let attempt = || outgoing(NAME, &stream, samples::test());
    failures(&receiver, &sender, attempt, &[]).await;
    for (status, code, is_permanent, reason) in [
        (401, "INVALID_API_KEY", true, Reason::Auth),
        (401, "USER_DEACTIVATED", true, Reason::Auth),
        (403, "REALM_DEACTIVATED", true, Reason::Auth),
        (400, "STREAM_DOES_NOT_EXIST", true, Reason::ClientError),
        (400, "BAD_REQUEST", false, Reason::ClientError),
        (429, "RATE_LIMIT_HIT", false, Reason::RateLimit),
    ] {
        receiver.then(error(status, code));
        let outcome = sender.send(attempt()).await;
        assert_eq!(matches!(outcome, Outcome::Failed { .. }), is_permanent, "{code}");
        assert_eq!(outcome.reason(), Some(reason), "{code}");
    }
    receiver.then(Reply::status(200).body("a proxy"));
    assert!(matches!(
        sender.send(attempt()).await,
        Outcome::Retry { code: Some(200), .. }
    ));
}

fn check_content(content: &str) {
    assert!(
        content.starts_with("**") && content.chars().count() <= 10_000,
        "{content}"
    );
}

#[tokio::test]
async fn the_message_of_the_incident_is_changed() {
    let receiver = Receiver::answering(ok()).await;
    let settings = settings(&receiver);

    let requests = life(&receiver, &sender(), NAME, &settings, &LIFE).await;

    assert_eq!(counts(&requests), LIFE_REQUESTS);
    for of_one in &requests[1..] {
        assert_eq!(
            (of_one[0].method.as_str(), of_one[0].path.as_str()),
            ("PATCH", "/api/v1/messages/42")
        );
        let change = fields(&of_one[0]);
        assert_eq!(change.len(), 1);
        check_content(&change["content"]);
        if let Some(added) = of_one.get(1) {
            assert_eq!(
                (added.method.as_str(), added.path.as_str()),
                ("POST", "/api/v1/messages")
            );
            let added = fields(added);
            assert_eq!(added["topic"], "Celery");
            assert!(added["content"].chars().count() <= NOTICE_CHARS);
        }
    }
    let short = [Phase::Opened, Phase::Resolved];
    let requests = life(&receiver, &sender(), NAME, &settings, &short).await;
    assert_eq!(counts(&requests), [1, 1]);
}

/// Zulip lets people change messages for ten minutes, unless an administrator changes that.
#[tokio::test]
async fn a_message_that_cannot_be_changed_is_replaced() {
    let receiver = Receiver::answering(ok()).await;
    let settings = settings(&receiver);
    let opened = life(&receiver, &sender(), NAME, &settings, &[Phase::Opened]).await;
    assert_eq!(counts(&opened), [1]);
    let place = json!([["type", "stream"], ["to", "ops & alerts"], ["topic", "Celery"]]);
    let elsewhere = json!([["type", "stream"], ["to", "old"], ["topic", "Celery"]]);
    for (place, is_refused, methods) in [
        (place, true, &["PATCH", "POST"][..]),
        (elsewhere, false, &["POST"][..]),
    ] {
        if is_refused {
            receiver.then(error(400, "BAD_REQUEST"));
        }
        let before = receiver.requests().len();
        let outcome = sender()
            .send(Outgoing {
                handle: Some(json!({"message": {"id": 41, "place": place}, "has_more": false})),
                ..outgoing(
                    NAME,
                    &settings,
                    Sample::monitor().message(Phase::Resolved, "2026-01-02T03:04:05Z"),
                )
            })
            .await;

        let Outcome::Sent {
            handle: Some(handle), ..
        } = outcome
        else {
            panic!("{outcome:?}")
        };
        assert_eq!(handle["message"]["id"], 42);
        let made: Vec<String> = receiver
            .requests()
            .split_off(before)
            .into_iter()
            .map(|request| request.method)
            .collect();
        assert_eq!(made, methods);
    }
}

#[test]
fn texts_from_outside_cannot_mention_link_or_end_code() {
    let text = render(&Story::of(&of_text(EVIL)), &Markdown, Content::All, CONTENT_CHARS);

    for forbidden in [
        "@**",
        "@_**",
        "@*",
        "](https:∕∕",
        "]: h",
        "https://evil",
        "www.",
        "`x",
        "```y",
        "*z",
    ] {
        assert!(!text.contains(forbidden), "{forbidden}: {text}");
    }
}

#[test]
fn settings_hold_a_bot_and_one_place() {
    let bot = |more: Value| {
        let mut settings =
            json!({"url": "https://zulip.example.org", "email": "bot@example.org", "api_key": "S3CRET"});
        settings
            .as_object_mut()
            .unwrap()
            .extend(more.as_object().unwrap().clone());
        settings
    };
    settings_are(
        &Zulip,
        &[
            (bot(json!({"stream": "ops", "topic": "Celery"})), true),
            (bot(json!({"stream": "ops"})), true),
            (bot(json!({"to": "ada@example.org"})), true),
            (bot(json!({})), false),
            (bot(json!({"topic": "Celery"})), false),
            (bot(json!({"stream": "ops", "to": "ada@example.org"})), false),
            (bot(json!({"topic": "Celery", "to": "ada@example.org"})), false),
            (bot(json!({"stream": "o\u{202e}ps"})), false),
            (bot(json!({"stream": "o".repeat(61)})), false),
            (bot(json!({"stream": "ops", "email": "a:b@example.org"})), false),
            (bot(json!({"stream": "ops", "email": "bot"})), false),
            (bot(json!({"stream": "ops", "api_key": "S3CRET\n"})), false),
            (
                bot(json!({"stream": "ops", "url": "https://zulip.example.org/?x"})),
                false,
            ),
            (json!({}), false),
        ],
    );
}
