use super::*;
use deadbeat_domain::alert::delivery::Reason;
use deadbeat_domain::alert::message::{Message, Phase};
use deadbeat_testkit::{Receiver, Reply};

use super::super::super::conformance::{failures, last, last_json, outbound, outgoing};
use super::super::proofs::{EVIL, LIFE, LIFE_REQUESTS, counts, huge, json_of, life, of_text, settings_are};
use crate::alert::outbox::samples::{self, Sample};

const PATH: &str = "/api/webhooks/112233445566778899/S3CRET_-token";

fn sender() -> DiscordSender {
    DiscordSender { outbound: outbound() }
}

fn ok() -> Reply {
    Reply::status(200).body(r#"{"id":"1234567890123456789","channel_id":"42","content":"x"}"#)
}

/// Checks the form by the pages named at the top of the module.
pub(super) async fn conforms() {
    let receiver = Receiver::answering(ok()).await;
    let sender = sender();
    let settings = json!({"webhook_url": receiver.url(PATH), "thread_id": "77"});
    for message in samples::all().into_iter().chain(huge()) {
        let outcome = sender.send(outgoing(NAME, &settings, message.clone())).await;

        let handle = json!({"message": {"id": "1234567890123456789"}, "has_more": false});
        assert_eq!(
            outcome,
            Outcome::Sent {
                code: Some(200),
                handle: Some(handle)
            }
        );
        let request = last(&receiver);
        assert_eq!(request.method, "POST");
        assert_eq!(request.path, format!("{PATH}?wait=true&thread_id=77"));
        check_form(&last_json(&receiver), &message);
    }
    let attempt = || outgoing(NAME, &settings, samples::test());
    failures(&receiver, &sender, attempt, &[]).await;
    for (status, body, is_permanent, reason) in [
        (
            404,
            json!({"code": 10_015, "message": "Unknown Webhook"}),
            true,
            Reason::ClientError,
        ),
        (
            404,
            json!({"code": 10_003, "message": "Unknown Channel"}),
            true,
            Reason::ClientError,
        ),
        (
            401,
            json!({"code": 50_027, "message": "Invalid Webhook Token"}),
            true,
            Reason::Auth,
        ),
        (
            400,
            json!({"code": 50_035, "message": "Invalid Form Body"}),
            false,
            Reason::ClientError,
        ),
        (
            429,
            json!({"message": "You are being rate limited.", "retry_after": 0.5}),
            false,
            Reason::RateLimit,
        ),
    ] {
        receiver.then(Reply::status(status).body(body.to_string()));
        let outcome = sender.send(attempt()).await;
        assert_eq!(matches!(outcome, Outcome::Failed { .. }), is_permanent, "{body}");
        assert_eq!(outcome.reason(), Some(reason), "{body}");
    }
}

/// <https://discord.com/developers/docs/resources/webhook#execute-webhook-jsonform-params> and the limits of embeds.
fn check_form(body: &Value, message: &Message) {
    let story = Story::of(message);
    let mut fields: Vec<&str> = body.as_object().unwrap().keys().map(String::as_str).collect();
    fields.sort_unstable();
    assert_eq!(fields, ["allowed_mentions", "content", "embeds"]);
    let content = body["content"].as_str().unwrap();
    assert!(content.starts_with("**") && utf16(content) <= 2_000, "{content}");
    assert_eq!(body["allowed_mentions"], json!({"parse": []}));
    let [embed] = body["embeds"].as_array().unwrap().as_slice() else {
        panic!("{body}")
    };
    let description = embed["description"].as_str().unwrap();
    assert!((1..=4_096).contains(&utf16(description)));
    assert!(embed["color"].as_u64().unwrap() <= 0xff_ffff);
    if let Some(link) = &story.link {
        assert!(
            description.contains(&format!("[Open in Deadbeat]({link})")),
            "{description}"
        );
    }
    // Deadbeat reads 16 KiB of an answer, and Discord repeats the texts in it.
    assert!((utf16(description) + utf16(content)) * 6 < 16 * 1_024);
}

#[tokio::test]
async fn the_message_of_the_incident_is_changed() {
    let receiver = Receiver::answering(ok()).await;
    let settings = json!({"webhook_url": receiver.url(PATH)});

    let requests = life(&receiver, &sender(), NAME, &settings, &LIFE).await;

    assert_eq!(counts(&requests), LIFE_REQUESTS);
    for (index, of_one) in requests.iter().enumerate().skip(1) {
        let change = &of_one[0];
        assert_eq!(change.method, "PATCH");
        assert_eq!(
            change.path,
            format!("{PATH}/messages/1234567890123456789?wait=true")
        );
        check_form(
            &json_of(change),
            &Sample::monitor().message(LIFE[index], "2026-01-02T03:04:05Z"),
        );
        if let Some(added) = of_one.get(1) {
            let body = json_of(added);
            assert_eq!(
                (added.method.as_str(), added.path.as_str()),
                ("POST", &*format!("{PATH}?wait=true"))
            );
            assert!(utf16(body["content"].as_str().unwrap()) <= 2_000);
            assert_eq!(body["flags"], 4);
            assert_eq!(body["allowed_mentions"], json!({"parse": []}));
        }
    }
    let short = [Phase::Opened, Phase::Resolved];
    let requests = life(&receiver, &sender(), NAME, &settings, &short).await;
    assert_eq!(counts(&requests), [1, 1]);
}

#[tokio::test]
async fn a_message_that_cannot_be_changed_is_replaced() {
    let receiver = Receiver::answering(ok()).await;
    let settings = json!({"webhook_url": receiver.url(PATH)});
    for (status, code) in [(404, 10_008), (429, 30_046), (403, 50_005)] {
        receiver.then(Reply::status(status).body(json!({"code": code, "message": "x"}).to_string()));
        let before = receiver.requests().len();
        let outcome = sender()
            .send(Outgoing {
                handle: Some(json!({"message": {"id": "1"}, "has_more": true})),
                ..outgoing(
                    NAME,
                    &settings,
                    Sample::monitor().message(Phase::Resolved, "2026-01-02T03:04:05Z"),
                )
            })
            .await;

        let handle = json!({"message": {"id": "1234567890123456789"}, "has_more": false});
        assert_eq!(
            outcome,
            Outcome::Sent {
                code: Some(200),
                handle: Some(handle)
            },
            "{code}"
        );
        assert_eq!(receiver.requests().len(), before + 2);
        assert_eq!(last(&receiver).method, "POST");
    }
}

#[test]
fn texts_from_outside_cannot_mention_link_or_end_code() {
    let body = message(&Story::of(&of_text(EVIL)));

    let text = format!(
        "{}{}",
        body["content"].as_str().unwrap(),
        body["embeds"][0]["description"].as_str().unwrap()
    );
    // A character after a backslash has no meaning.
    let mut bare = String::new();
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        if c == '\\' {
            chars.next();
        } else {
            bare.push(c);
        }
    }
    for forbidden in [
        "@everyone",
        "@here",
        "<@",
        "<!",
        "(https://evil",
        "https://evil",
        "`x`",
        "```y",
        "*z*",
        "||",
    ] {
        assert!(!bare.contains(forbidden), "{forbidden}: {text}");
    }
}

#[test]
fn settings_hold_an_address_and_perhaps_a_thread() {
    let url = "https://discord.com/api/webhooks/1/S3CRET";
    settings_are(
        &Discord,
        &[
            (json!({"webhook_url": url}), true),
            (json!({"webhook_url": url, "thread_id": "123"}), true),
            (json!({"webhook_url": format!("{url}?thread_id=5")}), true),
            (json!({"webhook_url": format!("{url}/slack")}), false),
            (json!({"webhook_url": format!("{url}/github?wait=true")}), false),
            (json!({"webhook_url": "ftp://discord.com/S3CRET"}), false),
            (json!({"webhook_url": "https://discord.com/S3CRET \n"}), false),
            (json!({"webhook_url": url, "thread_id": "12/3"}), false),
            (json!({"webhook_url": url, "thread_id": ""}), false),
            (json!({"webhook_url": url, "thread_id": 5}), false),
            (json!({"webhook_url": 5}), false),
            (json!({}), false),
        ],
    );
}

#[test]
fn a_thread_of_the_settings_takes_the_place_of_the_addresss() {
    for (url, thread, expected) in [
        ("https://d.example/1/x", None, "https://d.example/1/x?wait=true"),
        (
            "https://d.example/1/x?wait=false&thread_id=5",
            None,
            "https://d.example/1/x?thread_id=5&wait=true",
        ),
        (
            "https://d.example/1/x?thread_id=5",
            Some("6"),
            "https://d.example/1/x?wait=true&thread_id=6",
        ),
    ] {
        let settings = DiscordSettings {
            webhook_url: url.to_owned(),
            thread_id: thread.map(str::to_owned),
        };
        assert_eq!(hook(&settings).unwrap().as_str(), expected);
    }
}
