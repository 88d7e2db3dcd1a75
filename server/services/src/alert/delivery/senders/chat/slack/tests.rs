use super::*;
use deadbeat_domain::alert::message::{Event, Message, Phase};
use deadbeat_testkit::{Receiver, Reply};

use super::super::super::conformance::{failures, last, last_json, outbound, outgoing};
use crate::alert::outbox::samples::{self, Sample};

const TOKEN: &str = "xoxb-0123456789-abcdefghij";

fn sender(receiver: &Receiver) -> SlackSender {
    SlackSender {
        outbound: outbound(),
        api: receiver.url("/api"),
    }
}

fn ok() -> Reply {
    Reply::status(200).body(r#"{"ok":true,"channel":"C0123","ts":"1767323045.000100"}"#)
}

fn error(code: &str) -> Reply {
    Reply::status(200).body(json!({"ok": false, "error": code}).to_string())
}

/// Checks the forms of both ways by the pages named at the top of the module.
pub(super) async fn conforms() {
    by_webhook().await;
    by_bot().await;
}

async fn by_webhook() {
    let receiver = Receiver::answering(Reply::status(200).body("ok")).await;
    let sender = sender(&receiver);
    let settings = json!({"webhook_url": receiver.url("/services/T0/B0/abcdefghijkl")});
    for message in samples::all() {
        let sent = sender.send(outgoing(NAME, &settings, message.clone())).await;

        assert_eq!(
            sent,
            Outcome::Sent {
                code: Some(200),
                handle: None
            }
        );
        check_form(&last_json(&receiver), &message);
        assert_eq!(last(&receiver).path, "/services/T0/B0/abcdefghijkl");
    }
    let attempt = || outgoing(NAME, &settings, samples::test());
    failures(&receiver, &sender, attempt, &PERMANENT).await;
}

async fn by_bot() {
    let receiver = Receiver::answering(ok()).await;
    let sender = sender(&receiver);
    let settings = json!({"token": TOKEN, "channel": "C0123"});
    let handle = json!({"channel": "C0123", "ts": "1767323045.000100"});
    for message in samples::all() {
        let sent = sender.send(outgoing(NAME, &settings, message.clone())).await;

        assert_eq!(
            sent,
            Outcome::Sent {
                code: Some(200),
                handle: Some(handle.clone())
            }
        );
        let request = last(&receiver);
        assert_eq!(request.path, "/api/chat.postMessage");
        assert_eq!(
            request.header("authorization"),
            Some("Bearer xoxb-0123456789-abcdefghij")
        );
        let body = last_json(&receiver);
        assert_eq!(body["channel"], "C0123");
        check_form(&body, &message);
    }
    let attempt = || outgoing(NAME, &settings, samples::test());
    failures(&receiver, &sender, attempt, &[]).await;
    for (code, is_permanent, reason) in [
        ("invalid_auth", true, Reason::Auth),
        ("token_revoked", true, Reason::Auth),
        ("channel_not_found", true, Reason::ClientError),
        ("is_archived", true, Reason::ClientError),
        ("not_in_channel", false, Reason::Auth),
        ("ratelimited", false, Reason::RateLimit),
        ("internal_error", false, Reason::ServerError),
        ("something_new", false, Reason::ClientError),
    ] {
        receiver.then(error(code));
        let outcome = sender.send(attempt()).await;
        assert_eq!(matches!(outcome, Outcome::Failed { .. }), is_permanent, "{code}");
        assert_eq!(outcome.reason(), Some(reason), "{code}");
    }
}

/// One incident is one message, which later alerts change. Its thread has the later events.
#[tokio::test]
async fn a_bot_changes_the_message_of_the_incident() {
    let receiver = Receiver::answering(ok()).await;
    let sender = sender(&receiver);
    let settings = json!({"token": TOKEN, "channel": "ops"});
    let handle = json!({"channel": "C0123", "ts": "1767323045.000100"});
    let attempt = |message: Message| Outgoing {
        handle: Some(handle.clone()),
        ..outgoing(NAME, &settings, message)
    };
    for (phase, is_broadcast) in [
        (Phase::Acknowledged, false),
        (Phase::Reminder, true),
        (Phase::Escalated, true),
        (Phase::Resolved, false),
    ] {
        let before = receiver.requests().len();
        let message = Sample::monitor().message(phase, "2026-01-02T03:04:05Z");
        let outcome = sender.send(attempt(message.clone())).await;

        assert_eq!(
            outcome,
            Outcome::Sent {
                code: Some(200),
                handle: Some(handle.clone())
            }
        );
        let requests = receiver.requests().split_off(before);
        let [change, reply] = requests.as_slice() else {
            panic!("{} requests", requests.len())
        };
        let body: Value = serde_json::from_slice(&change.body).unwrap();
        assert_eq!(change.path, "/api/chat.update");
        assert_eq!(
            (&body["channel"], &body["ts"]),
            (&handle["channel"], &handle["ts"])
        );
        check_form(&body, &message);
        let body: Value = serde_json::from_slice(&reply.body).unwrap();
        assert_eq!(reply.path, "/api/chat.postMessage");
        assert_eq!(
            (&body["channel"], &body["thread_ts"]),
            (&handle["channel"], &handle["ts"])
        );
        assert_eq!(body["reply_broadcast"] == json!(true), is_broadcast, "{phase:?}");
    }
}

#[tokio::test]
async fn a_message_that_a_person_deleted_is_replaced() {
    let receiver = Receiver::answering(ok()).await;
    let sender = sender(&receiver);
    receiver.then(error("message_not_found"));
    let outgoing = Outgoing {
        handle: Some(json!({"channel": "C0123", "ts": "1.0"})),
        ..outgoing(
            NAME,
            &json!({"token": TOKEN, "channel": "ops"}),
            Sample::monitor().message(Phase::Resolved, "2026-01-02T03:04:05Z"),
        )
    };

    let outcome = sender.send(outgoing).await;

    let new = json!({"channel": "C0123", "ts": "1767323045.000100"});
    assert_eq!(
        outcome,
        Outcome::Sent {
            code: Some(200),
            handle: Some(new)
        }
    );
    assert_eq!(receiver.requests().len(), 2);
    assert_eq!(last_json(&receiver)["channel"], "ops");
}

#[test]
fn texts_from_outside_cannot_mention_link_or_end_code() {
    let mut sample = Sample::monitor();
    let evil = "<!channel> <@U012> <https://evil.example|click> @here `x` ```y``` *z*";
    sample.incident.summary = evil.to_owned();
    sample.incident.subject.name = evil.to_owned();

    let body = message(&Story::of(&sample.opened()), None);

    let text = format!(
        "{}{}",
        body["text"], body["attachments"][0]["blocks"][0]["text"]["text"]
    );
    for forbidden in ["<!", "<@", "<https://evil", "`x`", "```y"] {
        assert!(!text.contains(forbidden), "{text}");
    }
    assert_eq!(body["attachments"][0]["blocks"][0]["text"]["verbatim"], true);
}

#[test]
fn settings_hold_one_way() {
    for (settings, is_good) in [
        (
            json!({"webhook_url": "https://hooks.slack.com/services/T0/B0/x"}),
            true,
        ),
        (json!({"token": TOKEN, "channel": "#ops"}), true),
        (json!({"token": TOKEN}), false),
        (json!({"token": TOKEN, "channel": "a b"}), false),
        (json!({"token": "xoxb\n", "channel": "ops"}), false),
        (json!({"webhook_url": "ftp://example.org"}), false),
        (
            json!({"webhook_url": "https://example.org", "token": TOKEN, "channel": "ops"}),
            false,
        ),
        (json!({"webhook_url": 7}), false),
        (json!({}), false),
    ] {
        let checked = Slack.check_new(&Settings::new(NAME, settings.as_object().unwrap().clone()));
        assert_eq!(checked.is_ok(), is_good, "{settings}: {checked:?}");
    }
}

/// Every field has the type and the limits of Slack's reference.
fn check_form(body: &Value, message: &Message) {
    let story = Story::of(message);
    let text = body["text"].as_str().unwrap();
    assert!(
        text.starts_with('*') && text.ends_with('*') && text.chars().count() <= 1_000,
        "{text}"
    );
    assert_eq!(text.trim_matches('*').is_empty(), story.headline.is_empty());
    let attachment = &body["attachments"][0];
    assert!(attachment["color"].as_str().unwrap().starts_with('#'));
    assert!(!attachment["fallback"].as_str().unwrap().is_empty());
    let section = &attachment["blocks"][0];
    assert_eq!(
        (&section["type"], &section["text"]["type"]),
        (&json!("section"), &json!("mrkdwn"))
    );
    let length = section["text"]["text"].as_str().unwrap().chars().count();
    assert!((1..=3_000).contains(&length));
    if let Some(link) = &story.link {
        assert!(
            section["text"]["text"]
                .as_str()
                .unwrap()
                .contains(&format!("<{link}|"))
        );
    }
}

const BUTTON: &str = "AZjA3gAAcACAAAAAAAAAAwGYwN4AAHAAgAAAAAAAAAUAAAAAAAAAAAAAAAAAAAAA";

/// The form is that of the button element: a value of 2,000 characters at most, a text of 75, an action_id of 255.
#[tokio::test]
async fn a_message_has_a_button_only_where_somebody_proves_who_pressed_it() {
    let receiver = Receiver::answering(ok()).await;
    let sender = sender(&receiver);
    let button = |body: &Value| body["attachments"][0]["blocks"][1].clone();
    let ways = [
        json!({"token": TOKEN, "channel": "C0123"}),
        json!({"webhook_url": receiver.url("/services/T0/B0/abcdefghijkl")}),
    ];
    for (settings, has_proof) in ways.iter().flat_map(|way| [(way, true), (way, false)]) {
        let mut settings = settings.clone();
        if has_proof {
            settings["signing_secret"] = json!("8f742231b10e8888abcd99yyyzzz85a5");
        }
        let send = async |phase, signed: Option<&str>| {
            let message = Sample::monitor().message(phase, "2026-01-02T03:04:05Z");
            let mut outgoing = outgoing(NAME, &settings, message);
            outgoing.signed.button = signed.map(str::to_owned);
            if let Event::Incident(event) = &mut outgoing.message.event {
                event.incident.acknowledge_url = Some("https://deadbeat.test/acknowledge/x".to_owned());
            }
            assert!(matches!(sender.send(outgoing).await, Outcome::Sent { .. }));
            last_json(&receiver)
        };

        let body = send(Phase::Opened, Some(BUTTON)).await;
        let text = body["attachments"][0]["blocks"][0]["text"]["text"]
            .as_str()
            .unwrap();
        assert_eq!(
            text.contains("/acknowledge/"),
            !has_proof,
            "the button takes the place of the link"
        );
        if has_proof {
            let element = button(&body)["elements"][0].clone();
            assert_eq!(button(&body)["type"], "actions");
            assert_eq!(
                (element["type"].as_str(), element["action_id"].as_str()),
                (Some("button"), Some("deadbeat_acknowledge"))
            );
            let value = element["value"].as_str().unwrap();
            assert_eq!(value, format!("0198c0de-0000-7000-8000-000000000001.{BUTTON}"));
        } else {
            assert_eq!(button(&body), Value::Null);
        }
        assert_eq!(
            button(&send(Phase::Acknowledged, None).await),
            Value::Null,
            "nothing is left to do"
        );
    }
}

#[test]
fn a_secret_that_proves_presses_is_not_short() {
    for (secret, is_good) in [
        ("8f742231b10e8888abcd99yyyzzz85a5", true),
        ("short", false),
        ("", false),
    ] {
        let settings = json!({"token": TOKEN, "channel": "C0123", "signing_secret": secret});
        let settings = Settings::new(NAME, settings.as_object().unwrap().clone());
        let faults = Slack.check_new(&settings);
        assert_eq!(faults.is_ok(), is_good, "{secret}: {faults:?}");
        if let Err(faults) = faults {
            assert_eq!(faults[0].pointer, "/settings/signing_secret");
        }
    }
}
