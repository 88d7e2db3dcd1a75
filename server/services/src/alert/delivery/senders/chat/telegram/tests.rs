use super::*;
use chrono::TimeDelta;
use deadbeat_domain::alert::delivery::Reason;
use deadbeat_domain::alert::message::Phase;
use deadbeat_testkit::{Receiver, Reply};

use super::super::super::conformance::{failures, last, last_json, outbound, outgoing};
use super::super::super::markup::Markup;
use super::super::proofs::{EVIL, LIFE, LIFE_REQUESTS, counts, huge, json_of, life, of_text, settings_are};
use crate::alert::outbox::samples::{self, Sample};

const TOKEN: &str = "123456:S3CRET-token_x";

fn sender(receiver: &Receiver) -> TelegramSender {
    TelegramSender {
        outbound: outbound(),
        api: receiver.url(""),
    }
}

fn settings() -> Value {
    json!({"token": TOKEN, "chat_id": "-1001234567890", "topic_id": "7"})
}

fn ok() -> Reply {
    Reply::status(200).body(r#"{"ok":true,"result":{"message_id":42,"date":0,"chat":{"id":-1001234567890}}}"#)
}

fn error(code: u16, description: &str) -> Reply {
    let body = json!({"ok": false, "error_code": code, "description": description});
    Reply::status(code).body(body.to_string())
}

fn handle() -> Value {
    json!({"message": {"chat": "-1001234567890", "topic": "7", "message_id": 42}, "has_more": false})
}

/// Checks the form by the pages named at the top of the module.
pub(super) async fn conforms() {
    let receiver = Receiver::answering(ok()).await;
    let sender = sender(&receiver);
    for message in samples::all().into_iter().chain(huge()) {
        let outcome = sender.send(outgoing(NAME, &settings(), message.clone())).await;

        assert_eq!(
            outcome,
            Outcome::Sent {
                code: Some(200),
                handle: Some(handle())
            }
        );
        let (request, body) = (last(&receiver), last_json(&receiver));
        assert_eq!(request.path, format!("/bot{TOKEN}/sendMessage"));
        assert_eq!(body["message_thread_id"], 7);
        check_form(&body);
        let story = Story::of(&message);
        // A headline and a summary that consist of entities fill the message.
        let is_usual = utf16(&HTML.escape(&story.headline)) < 500;
        if let Some(link) = story.link.filter(|_| is_usual) {
            let anchor = format!("<a href=\"{link}\">Open in Deadbeat</a>");
            assert!(body["text"].as_str().unwrap().contains(&anchor), "{body}");
        }
    }
    let attempt = || outgoing(NAME, &settings(), samples::test());
    failures(&receiver, &sender, attempt, &[]).await;
    for (code, description, is_permanent, reason) in [
        (401, "Unauthorized", true, Reason::Auth),
        (404, "Not Found", true, Reason::ClientError),
        (400, "Bad Request: chat not found", true, Reason::ClientError),
        (403, "Forbidden: user is deactivated", true, Reason::Auth),
        (403, "Forbidden: bot was blocked by the user", false, Reason::Auth),
        (
            403,
            "Forbidden: bot was kicked from the supergroup chat",
            false,
            Reason::Auth,
        ),
        (
            400,
            "Bad Request: can't parse entities",
            false,
            Reason::ClientError,
        ),
        (500, "Internal Server Error", false, Reason::ServerError),
    ] {
        receiver.then(error(code, description));
        let outcome = sender.send(attempt()).await;
        assert_eq!(
            matches!(outcome, Outcome::Failed { .. }),
            is_permanent,
            "{description}"
        );
        assert_eq!(outcome.reason(), Some(reason), "{description}");
    }
    // The body names the wait.
    let busy = json!({"ok": false, "error_code": 429, "description": "Too Many Requests: retry after 33", "parameters": {"retry_after": 33}});
    receiver.then(Reply::status(429).body(busy.to_string()));
    let Outcome::Retry { retry_after, .. } = sender.send(attempt()).await else {
        panic!("it is tried again")
    };
    assert_eq!(retry_after, Some(TimeDelta::seconds(33)));
    receiver.then(Reply::status(200).body("<html>a proxy</html>"));
    assert!(matches!(
        sender.send(attempt()).await,
        Outcome::Retry { code: Some(200), .. }
    ));
}

fn check_form(body: &Value) {
    let text = body["text"].as_str().unwrap();
    assert!(
        (1..=4_096).contains(&utf16(text)) && text.starts_with("<b>"),
        "{text}"
    );
    assert_eq!(body["chat_id"], "-1001234567890");
    assert_eq!(body["parse_mode"], "HTML");
    assert_eq!(body["link_preview_options"], json!({"is_disabled": true}));
    // Telegram refuses a message with any other tag, with one that is not closed, or with another entity.
    for tag in text.split('<').skip(1) {
        assert!(
            ["b>", "/b>", "pre>", "/pre>", "a href=\"https://", "/a>"]
                .iter()
                .any(|known| tag.starts_with(known)),
            "{tag}"
        );
    }
    for tag in ["b", "pre", "a"] {
        assert_eq!(
            text.matches(&format!("<{tag}")).count(),
            text.matches(&format!("</{tag}>")).count()
        );
    }
    for entity in text.split('&').skip(1) {
        assert!(
            ["lt;", "gt;", "amp;", "quot;"]
                .iter()
                .any(|known| entity.starts_with(known)),
            "{entity}"
        );
    }
}

#[tokio::test]
async fn the_message_of_the_incident_is_changed() {
    let receiver = Receiver::answering(ok()).await;

    let requests = life(&receiver, &sender(&receiver), NAME, &settings(), &LIFE).await;

    assert_eq!(counts(&requests), LIFE_REQUESTS);
    for of_one in &requests[1..] {
        assert_eq!(of_one[0].path, format!("/bot{TOKEN}/editMessageText"));
        let body = json_of(&of_one[0]);
        check_form(&body);
        assert_eq!(body["message_id"], 42);
        assert_eq!(body.get("message_thread_id"), None);
        if let Some(added) = of_one.get(1) {
            assert_eq!(added.path, format!("/bot{TOKEN}/sendMessage"));
            let body = json_of(added);
            check_form(&body);
            assert_eq!(body["message_thread_id"], 7);
            assert_eq!(
                body["reply_parameters"],
                json!({"message_id": 42, "allow_sending_without_reply": true})
            );
        }
    }
    let short = [Phase::Opened, Phase::Resolved];
    let requests = life(&receiver, &sender(&receiver), NAME, &settings(), &short).await;
    assert_eq!(counts(&requests), [1, 1]);
}

/// `is_new`: a new message replaces the old one.
#[tokio::test]
async fn a_message_that_cannot_be_changed_is_replaced() {
    let receiver = Receiver::answering(ok()).await;
    let unmodified = "Bad Request: message is not modified: specified new message content and reply markup are exactly the same";
    let elsewhere = json!({"message": {"chat": "5", "topic": "7", "message_id": 42}, "has_more": false});
    let broken = json!({"ts": 1});
    for (handle, description, is_new, count) in [
        (handle(), Some("Bad Request: message to edit not found"), true, 2),
        (handle(), Some("Bad Request: message can't be edited"), true, 2),
        (handle(), Some("Bad Request: MESSAGE_ID_INVALID"), true, 2),
        (handle(), Some(unmodified), false, 1),
        (elsewhere, None, true, 1),
        (broken, None, true, 1),
    ] {
        if let Some(description) = description {
            receiver.then(error(400, description));
        }
        let before = receiver.requests().len();
        let message = Sample::monitor().message(Phase::Resolved, "2026-01-02T03:04:05Z");
        let outcome = sender(&receiver)
            .send(Outgoing {
                handle: Some(handle.clone()),
                ..outgoing(NAME, &settings(), message)
            })
            .await;

        assert!(matches!(outcome, Outcome::Sent { .. }), "{outcome:?}");
        assert_eq!(
            last(&receiver).path.ends_with("/sendMessage"),
            is_new,
            "{description:?}"
        );
        assert_eq!(receiver.requests().len(), before + count, "{description:?}");
    }
}

#[tokio::test]
async fn a_group_that_became_a_supergroup_is_followed() {
    let receiver = Receiver::answering(ok()).await;
    let moved = json!({
        "ok": false, "error_code": 400,
        "description": "Bad Request: group chat was upgraded to a supergroup chat",
        "parameters": {"migrate_to_chat_id": -1_009_876_543_210_i64},
    });
    receiver.then(Reply::status(400).body(moved.to_string()));

    let outcome = sender(&receiver)
        .send(outgoing(NAME, &settings(), samples::test()))
        .await;

    assert!(matches!(outcome, Outcome::Sent { .. }), "{outcome:?}");
    assert_eq!(last_json(&receiver)["chat_id"], -1_009_876_543_210_i64);
    assert_eq!(receiver.requests().len(), 2);
}

#[test]
fn texts_from_outside_cannot_mention_link_or_end_code() {
    let text = render(&Story::of(&of_text(EVIL)), &HTML, Content::All, TEXT_UNITS);

    for forbidden in [
        "@",
        "https://evil",
        "www.",
        "<b>b",
        "<a href=\"https://evil",
        "<users",
        "<!",
    ] {
        assert!(!text.contains(forbidden), "{forbidden}: {text}");
    }
    assert_eq!(
        HTML.code("a </pre> & <b>").unwrap(),
        "<pre>a &lt;/pre&gt; &amp; &lt;b&gt;</pre>"
    );
}

#[test]
fn settings_hold_a_token_and_a_chat() {
    settings_are(
        &Telegram,
        &[
            (settings(), true),
            (json!({"token": TOKEN, "chat_id": "@ops_alerts"}), true),
            (json!({"token": TOKEN, "chat_id": "42"}), true),
            (json!({"token": TOKEN}), false),
            (json!({"token": "S3CRET", "chat_id": "42"}), false),
            (json!({"token": "1:S3CRET/../x", "chat_id": "42"}), false),
            (json!({"token": "1:S3CRET\r\nx: y", "chat_id": "42"}), false),
            (json!({"token": "1:", "chat_id": "42"}), false),
            (json!({"token": TOKEN, "chat_id": "--42"}), false),
            (json!({"token": TOKEN, "chat_id": "ops"}), false),
            (json!({"token": TOKEN, "chat_id": "@"}), false),
            (json!({"token": TOKEN, "chat_id": 42}), false),
            (json!({"token": TOKEN, "chat_id": "42", "topic_id": "-1"}), false),
            (
                json!({"token": TOKEN, "chat_id": "42", "topic_id": "99999999999999999999"}),
                false,
            ),
            (json!({}), false),
        ],
    );
}

/// `callback_data` has 1 to 64 bytes. A change without `reply_markup` removes the keyboard.
#[tokio::test]
async fn a_message_has_a_button_only_where_somebody_proves_who_pressed_it() {
    let receiver = Receiver::answering(ok()).await;
    let sender = sender(&receiver);
    let button = "A".repeat(64);
    let send = async |phase, settings: &Value, signed: Option<&str>, handle: Option<Value>| {
        let message = Sample::monitor().message(phase, "2026-01-02T03:04:05Z");
        let before = receiver.requests().len();
        let mut outgoing = outgoing(NAME, settings, message);
        outgoing.signed.button = signed.map(str::to_owned);
        outgoing.handle = handle;
        assert!(matches!(sender.send(outgoing).await, Outcome::Sent { .. }));
        json_of(&receiver.requests()[before])
    };
    let mut proved = settings();
    proved["secret_token"] = json!("0123456789abcdef");

    let keyboard = json!({"inline_keyboard": [[{"text": "Acknowledge", "callback_data": button}]]});
    let body = send(Phase::Opened, &proved, Some(&button), None).await;
    assert_eq!(body["reply_markup"], keyboard);
    let body = send(Phase::Reminder, &proved, Some(&button), Some(handle())).await;
    assert_eq!(body["reply_markup"], keyboard);
    let body = send(Phase::Acknowledged, &proved, None, Some(handle())).await;
    assert_eq!(body["reply_markup"], Value::Null);
    let body = send(Phase::Opened, &settings(), Some(&button), None).await;
    assert_eq!(body["reply_markup"], Value::Null);
}
