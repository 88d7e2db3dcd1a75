use super::*;
use chrono::TimeDelta;
use deadbeat_domain::alert::delivery::Reason;
use deadbeat_domain::alert::message::Phase;
use deadbeat_testkit::{Receiver, Reply};

use super::super::super::conformance::{failures, last, last_json, outbound, outgoing};
use super::super::proofs::{EVIL, LIFE, LIFE_REQUESTS, counts, huge, json_of, life, of_text, settings_are};
use crate::alert::outbox::samples::{self, Sample};

const TOKEN: &str = "syt_S3CRET";
const SEND: &str = "/base/_matrix/client/v3/rooms/!abc:example.org/send/m.room.message/";
/// The id of the deliveries of [`outgoing`].
const ID: &str = "0198c0de-0000-7000-8000-000000000001";

fn sender() -> MatrixSender {
    MatrixSender { outbound: outbound() }
}

fn settings(receiver: &Receiver) -> Value {
    json!({"url": receiver.url("/base/"), "access_token": TOKEN, "room_id": "!abc:example.org"})
}

fn ok() -> Reply {
    Reply::status(200).body(r#"{"event_id":"$event-1"}"#)
}

fn handle() -> Value {
    json!({"message": {"room": "!abc:example.org", "event": "$event-1"}, "has_more": false})
}

/// Checks the form by the specification named at the top of the module.
pub(super) async fn conforms() {
    let receiver = Receiver::answering(ok()).await;
    let sender = sender();
    let settings = settings(&receiver);
    for message in samples::all().into_iter().chain(huge()) {
        for handle in [None, Some(handle())] {
            let is_change = handle.is_some();
            let before = receiver.requests().len();
            let outcome = sender
                .send(Outgoing {
                    handle,
                    ..outgoing(NAME, &settings, message.clone())
                })
                .await;

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
            let request = receiver.requests().swap_remove(before);
            assert_eq!(request.method, "PUT");
            let part = if is_change { "-change" } else { "" };
            assert_eq!(request.path, format!("{SEND}{ID}{part}"));
            assert_eq!(request.header("authorization"), Some("Bearer syt_S3CRET"));
            assert!(request.body.len() < 60_000, "{} bytes", request.body.len());
            check_form(&json_of(&request));
        }
    }
    let attempt = || outgoing(NAME, &settings, samples::test());
    failures(&receiver, &sender, attempt, &[]).await;
    for (status, code, is_permanent, reason) in [
        (401, "M_UNKNOWN_TOKEN", true, Reason::Auth),
        (403, "M_USER_DEACTIVATED", true, Reason::Auth),
        (403, "M_FORBIDDEN", false, Reason::Auth),
        (404, "M_NOT_FOUND", false, Reason::ClientError),
        (413, "M_TOO_LARGE", false, Reason::ClientError),
    ] {
        receiver.then(Reply::status(status).body(json!({"errcode": code, "error": "x"}).to_string()));
        let outcome = sender.send(attempt()).await;
        assert_eq!(matches!(outcome, Outcome::Failed { .. }), is_permanent, "{code}");
        assert_eq!(outcome.reason(), Some(reason), "{code}");
    }
    let busy = json!({"errcode": "M_LIMIT_EXCEEDED", "error": "Too many requests", "retry_after_ms": 2_000});
    receiver.then(Reply::status(429).body(busy.to_string()));
    let Outcome::Retry { retry_after, .. } = sender.send(attempt()).await else {
        panic!("it is tried again")
    };
    assert_eq!(retry_after, Some(TimeDelta::seconds(2)));
    receiver.then(Reply::status(200).body("a proxy"));
    assert!(matches!(
        sender.send(attempt()).await,
        Outcome::Retry { code: Some(200), .. }
    ));
}

fn check_form(content: &Value) {
    assert_eq!(content["msgtype"], "m.text");
    assert_eq!(content["format"], "org.matrix.custom.html");
    assert_eq!(content["m.mentions"], json!({}));
    let (plain, html) = (
        content["body"].as_str().unwrap(),
        content["formatted_body"].as_str().unwrap(),
    );
    assert!(!plain.is_empty() && !html.contains('\n'), "{html}");
    for tag in html.split('<').skip(1) {
        assert!(
            ["b>", "/b>", "pre>", "/pre>", "br>", "a href=\"https://", "/a>"]
                .iter()
                .any(|known| tag.starts_with(known)),
            "{tag}"
        );
    }
    if let Some(new) = content.get("m.new_content") {
        check_form(new);
        assert_eq!(new.get("m.relates_to"), None);
        assert_eq!(
            content["m.relates_to"],
            json!({"rel_type": "m.replace", "event_id": "$event-1"})
        );
        assert_eq!(plain, format!("* {}", new["body"].as_str().unwrap()));
    }
}

#[tokio::test]
async fn the_message_of_the_incident_is_changed() {
    let receiver = Receiver::answering(ok()).await;
    let settings = settings(&receiver);

    let requests = life(&receiver, &sender(), NAME, &settings, &LIFE).await;

    assert_eq!(counts(&requests), LIFE_REQUESTS);
    for of_one in &requests[1..] {
        assert_eq!(of_one[0].path, format!("{SEND}{ID}-change"));
        check_form(&json_of(&of_one[0]));
        if let Some(added) = of_one.get(1) {
            assert_eq!(added.path, format!("{SEND}{ID}-more"));
            let content = json_of(added);
            check_form(&content);
            assert_eq!(
                content["m.relates_to"],
                json!({"m.in_reply_to": {"event_id": "$event-1"}})
            );
        }
    }
    let short = [Phase::Opened, Phase::Resolved];
    let requests = life(&receiver, &sender(), NAME, &settings, &short).await;
    assert_eq!(counts(&requests), [1, 1]);
}

/// A server accepts a transaction once, so a repeated attempt must use the same transaction.
#[tokio::test]
async fn a_repeated_attempt_is_the_same_transaction() {
    let receiver = Receiver::answering(ok()).await;
    let settings = settings(&receiver);
    receiver.then(Reply::close());
    for is_sent in [false, true] {
        let outcome = sender()
            .send(outgoing(NAME, &settings, Sample::monitor().opened()))
            .await;
        assert_eq!(matches!(outcome, Outcome::Sent { .. }), is_sent);
    }

    let paths: Vec<String> = receiver
        .requests()
        .into_iter()
        .map(|request| request.path)
        .collect();
    assert_eq!(paths, [format!("{SEND}{ID}"), format!("{SEND}{ID}")]);
}

#[tokio::test]
async fn another_room_gets_a_message_of_its_own() {
    let receiver = Receiver::answering(ok()).await;
    let outcome = sender()
        .send(Outgoing {
            handle: Some(json!({"message": {"room": "!old:example.org", "event": "$x"}, "has_more": true})),
            ..outgoing(
                NAME,
                &settings(&receiver),
                Sample::monitor().message(Phase::Resolved, "2026-01-02T03:04:05Z"),
            )
        })
        .await;

    assert_eq!(
        outcome,
        Outcome::Sent {
            code: Some(200),
            handle: Some(handle())
        }
    );
    assert_eq!(receiver.requests().len(), 1);
    assert_eq!(last(&receiver).path, format!("{SEND}{ID}"));
    assert_eq!(last_json(&receiver).get("m.relates_to"), None);
}

#[test]
fn texts_from_outside_cannot_mention_link_or_end_code() {
    let story = Story::of(&of_text(EVIL));
    let html = render(&story, &HTML, Content::All, HTML_BYTES);
    let plain = render(&story, &Plain, Content::All, PLAIN_BYTES);

    for forbidden in ["@", "https://evil", "www.", "<b>b", "<users", "<!"] {
        assert!(!html.contains(forbidden), "{forbidden}: {html}");
    }
    for forbidden in ["https://evil", "www."] {
        assert!(!plain.contains(forbidden), "{forbidden}: {plain}");
    }
}

#[test]
fn settings_hold_a_server_a_token_and_a_room() {
    let url = "https://matrix.example.org";
    let room = "!abc:example.org";
    settings_are(
        &Matrix,
        &[
            (json!({"url": url, "access_token": TOKEN, "room_id": room}), true),
            (
                json!({"url": url, "access_token": TOKEN, "room_id": "!noDomain"}),
                true,
            ),
            (
                json!({"url": format!("{url}?a=b"), "access_token": TOKEN, "room_id": room}),
                false,
            ),
            (
                json!({"url": "https://a:S3CRET@example.org", "access_token": TOKEN, "room_id": room}),
                false,
            ),
            (
                json!({"url": "matrix.org", "access_token": TOKEN, "room_id": room}),
                false,
            ),
            (
                json!({"url": url, "access_token": "S3CRET\r\nx: y", "room_id": room}),
                false,
            ),
            (
                json!({"url": url, "access_token": TOKEN, "room_id": "#ops:example.org"}),
                false,
            ),
            (
                json!({"url": url, "access_token": TOKEN, "room_id": "!a b"}),
                false,
            ),
            (json!({"url": url, "access_token": TOKEN}), false),
            (json!({}), false),
        ],
    );
}
