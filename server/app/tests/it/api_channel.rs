//! `/api/v1/channels`: add, read, change, test and remove channels, and choose which monitors alert which channels.

use deadbeat_testkit::receiver::Receiver;
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use crate::contract::{Caller, dump};
use crate::harness::{self, LIMIT};

mod secret;
mod template;

fn webhook(name: &str, url: &str) -> Value {
    json!({"kind": "webhook", "name": name, "settings": {"url": url}})
}

fn path(channel: &Value) -> String {
    format!("/api/v1/channels/{}", channel["id"].as_str().unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_channel_is_added_read_changed_and_removed() {
    let harness = harness::start().await;
    let caller = Caller::new(&harness);

    let answer = caller
        .json(
            Method::POST,
            "/api/v1/channels",
            &webhook("Hook", "https://example.org/a?b=c#d"),
        )
        .await;
    let hook = answer.json;
    let mail = json!({"kind": "email", "name": "Mail", "settings": {"to": "ops+night@example.org"}});
    let mail = caller.post("/api/v1/channels", &mail).await;

    assert_eq!(answer.headers["location"].to_str().unwrap(), path(&hook));
    assert!(mail.get("signing_secret").is_none());
    let listed = caller.pages("/api/v1/channels", 1).await;
    assert_eq!(listed, [mail.clone(), caller.get(&path(&hook)).await]);
    let renamed = caller
        .json(Method::PATCH, &path(&hook), &json!({"name": "Other"}))
        .await
        .json;
    assert_eq!(
        (
            &renamed["name"],
            &renamed["settings"],
            renamed.get("signing_secret")
        ),
        (&json!("Other"), &json!({"url": "https://example.org/…"}), None)
    );
    let moved = caller
        .json(
            Method::PATCH,
            &path(&hook),
            &json!({"settings": {"url": "http://example.net/hooks/0123456789"}}),
        )
        .await
        .json;
    assert_eq!(
        (&moved["name"], &moved["settings"]["url"]),
        (&json!("Other"), &json!("http://example.net/…6789"))
    );
    assert_eq!(
        caller.call(Method::DELETE, &path(&hook)).await.status,
        StatusCode::NO_CONTENT
    );
    for (method, rest) in [(Method::GET, ""), (Method::DELETE, ""), (Method::POST, "/test")] {
        assert_eq!(
            caller
                .call(method, &format!("{}{rest}", path(&hook)))
                .await
                .status,
            StatusCode::NOT_FOUND
        );
    }
    assert_eq!(
        caller.json(Method::PATCH, &path(&hook), &json!({})).await.status,
        StatusCode::NOT_FOUND
    );
    assert_eq!(caller.pages("/api/v1/channels", 1).await, [mail]);
    harness.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_signing_secret_is_shown_once() {
    let harness = harness::start().await;
    let caller = Caller::new(&harness);
    let first = caller
        .post("/api/v1/channels", &webhook("a", "https://example.org"))
        .await;
    let second = caller
        .post("/api/v1/channels", &webhook("b", "https://example.org"))
        .await;

    assert_ne!(first["signing_secret"], second["signing_secret"]);
    assert!(first["signing_secret"].as_str().unwrap().starts_with("whsec_"));
    let reader = Caller::with_key(&harness, &harness.read_key);
    let changed = caller
        .json(
            Method::PATCH,
            &path(&first),
            &json!({"settings": {"url": "https://example.net"}}),
        )
        .await;
    for text in [
        reader.get("/api/v1/channels").await,
        reader.get(&path(&first)).await,
        caller.get(&path(&first)).await,
        changed.json,
    ] {
        assert!(!text.to_string().contains("whsec_"), "{text}");
    }
    harness.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_secret_that_is_left_out_or_masked_stays_and_a_foreign_mask_is_refused() {
    let harness = harness::start().await;
    let caller = Caller::new(&harness);
    let receiver = Receiver::start().await;
    let hook = caller
        .post(
            "/api/v1/channels",
            &webhook("Hook", &receiver.url("/hooks/0123456789ab")),
        )
        .await;
    let mask = receiver.url("/…89ab");
    assert_eq!(hook["settings"], json!({"url": mask}));

    for settings in [json!({}), hook["settings"].clone()] {
        let same = caller
            .json(Method::PATCH, &path(&hook), &json!({"settings": settings}))
            .await;
        assert_eq!(
            (same.status, &same.json["settings"]),
            (StatusCode::OK, &hook["settings"]),
            "{settings}"
        );
    }
    let before = dump(&harness).await;
    let foreign = json!({"settings": {"url": "https://example.org/…cdef"}});
    let copied = json!({"kind": "webhook", "name": "Copy", "settings": hook["settings"]});
    for answer in [
        caller.json(Method::PATCH, &path(&hook), &foreign).await,
        caller.json(Method::POST, "/api/v1/channels", &copied).await,
    ] {
        assert_eq!(
            (answer.code(), answer.json["errors"][0]["pointer"].as_str()),
            ("invalid_fields", Some("/settings/url")),
            "{}",
            answer.json
        );
    }
    assert_eq!(dump(&harness).await, before);
    let test = format!("{}/test", path(&hook));
    caller.call(Method::POST, &test).await;
    assert_eq!(receiver.wait_for(1, LIMIT).await[0].path, "/hooks/0123456789ab");
    harness.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_switched_off_channel_is_tried_again_when_it_is_changed() {
    let harness = harness::start().await;
    let caller = Caller::new(&harness);
    let channel = caller
        .post("/api/v1/channels", &webhook("Hook", "https://example.org"))
        .await;
    sqlx::query("UPDATE channel SET disabled_at = now(), disabled_reason = 'gone'")
        .execute(&harness.pool)
        .await
        .unwrap();
    assert_eq!(caller.get(&path(&channel)).await["disabled_reason"], "gone");

    let changed = caller.json(Method::PATCH, &path(&channel), &json!({})).await.json;

    assert_eq!(
        (&changed["disabled_at"], &changed["disabled_reason"]),
        (&Value::Null, &Value::Null)
    );
    harness.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_test_is_a_delivery_with_attempts() {
    let harness = harness::start().await;
    let caller = Caller::new(&harness);
    let receiver = Receiver::start().await;
    let channel = caller
        .post("/api/v1/channels", &webhook("Hook", &receiver.url("/x")))
        .await;

    let answer = caller
        .call(Method::POST, &format!("{}/test", path(&channel)))
        .await;

    assert_eq!(answer.status, StatusCode::ACCEPTED);
    let id = answer.json["delivery_id"].as_str().unwrap();
    assert_eq!(
        receiver.wait_for(1, LIMIT).await[0].header("webhook-id"),
        Some(id)
    );
    let at = format!("/api/v1/deliveries/{id}");
    harness.wait_for(&at, |seen| seen["status"] == "sent").await;
    let delivery = caller.get(&at).await;
    assert_eq!(
        (
            &delivery["alert"],
            &delivery["incident_id"],
            &delivery["channel_id"]
        ),
        (&json!("test"), &Value::Null, &channel["id"])
    );
    let attempts = caller.get(&format!("{at}/attempts")).await;
    assert_eq!(attempts["attempts"], delivery["attempts"]);
    assert_eq!(
        (
            attempts["attempts"][0]["number"].as_i64(),
            attempts["attempts"][0]["response_code"].as_i64()
        ),
        (Some(1), Some(200))
    );
    assert_eq!(attempts["attempts"].as_array().unwrap().len(), 1);
    harness.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_monitor_alerts_all_channels_or_just_those_it_names() {
    let harness = harness::start().await;
    let caller = Caller::new(&harness);
    let receiver = Receiver::start().await;
    let first = caller
        .post("/api/v1/channels", &webhook("first", &receiver.url("/first")))
        .await;
    let monitor = async |name: &str, channels: Value| {
        let schedule = json!({"kind": "interval", "seconds": 3600});
        caller
            .post(
                "/api/v1/monitors",
                &json!({"name": name, "schedule": schedule, "channels": channels}),
            )
            .await
    };
    let all = monitor("all", json!("all")).await;
    let one = monitor("one", json!([first["id"], first["id"]])).await;
    let none = monitor("none", json!([])).await;
    // A channel that is added later also gets the alerts of monitors that alert all channels.
    let second = caller
        .post("/api/v1/channels", &webhook("second", &receiver.url("/second")))
        .await;
    assert_eq!(
        (&all["channels"], &one["channels"], &none["channels"]),
        (&json!("all"), &json!([first["id"]]), &json!([]))
    );

    for monitor in [&all, &one, &none] {
        harness
            .client
            .get(format!("{}/fail", monitor["ping_url"].as_str().unwrap()))
            .send()
            .await
            .unwrap();
    }

    let alerted = |channel: &Value| {
        format!(
            "/api/v1/deliveries?channel_id={}",
            channel["id"].as_str().unwrap()
        )
    };
    assert_eq!(caller.pages(&alerted(&first), 1).await.len(), 2);
    assert_eq!(caller.pages(&alerted(&second), 1).await.len(), 1);
    let requests = receiver.wait_for(3, LIMIT).await;
    let mut seen: Vec<(String, String)> = requests
        .iter()
        .map(|request| {
            let alert: Value = serde_json::from_slice(&request.body).unwrap();
            (
                request.path.clone(),
                alert["monitor"]["name"].as_str().unwrap().to_owned(),
            )
        })
        .collect();
    seen.sort();
    let expected = [("/first", "all"), ("/first", "one"), ("/second", "all")];
    assert_eq!(
        seen,
        expected.map(|(path, name)| (path.to_owned(), name.to_owned()))
    );

    // The monitor changes from one channel to all and back. The removal of a channel does not remove its monitors.
    let at = format!("/api/v1/monitors/{}", one["id"].as_str().unwrap());
    for channels in [
        json!("all"),
        json!([second["id"]]),
        json!([first["id"], second["id"]]),
    ] {
        let changed = caller
            .json(Method::PATCH, &at, &json!({"channels": channels}))
            .await
            .json;
        assert_eq!(changed["channels"], channels);
    }
    assert_eq!(
        caller
            .json(Method::PATCH, &at, &json!({"name": "renamed"}))
            .await
            .json["channels"]
            .as_array()
            .unwrap()
            .len(),
        2
    );
    caller.call(Method::DELETE, &path(&first)).await;
    assert_eq!(caller.get(&at).await["channels"], json!([second["id"]]));
    let refused = caller
        .json(
            Method::PATCH,
            &at,
            &json!({"channels": [first["id"], second["id"]], "name": "x"}),
        )
        .await;
    assert_eq!(
        (refused.status, refused.json["errors"][0]["pointer"].as_str()),
        (StatusCode::BAD_REQUEST, Some("/channels"))
    );
    let after = caller.get(&at).await;
    assert_eq!(
        (&after["channels"], &after["name"]),
        (&json!([second["id"]]), &json!("renamed"))
    );
    harness.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn no_bad_field_is_taken_and_each_is_named() {
    let harness = harness::start().await;
    let caller = Caller::new(&harness);
    let hook = caller
        .post("/api/v1/channels", &webhook("Hook", "https://example.org"))
        .await;
    let mail = caller
        .post(
            "/api/v1/channels",
            &json!({"kind": "email", "name": "Mail", "settings": {"to": "a@b"}}),
        )
        .await;
    let before = dump(&harness).await;

    let url = |url: &str| json!({"url": url});
    let to = |to: &str| json!({"to": to});
    let long = format!("https://{}", "x".repeat(2_000));
    for (kind, name, settings, pointer) in [
        ("webhook", json!(""), url("https://a"), "/name"),
        ("webhook", json!("x".repeat(101)), url("https://a"), "/name"),
        ("webhook", json!("a\u{0}"), url("https://a"), "/name"),
        ("webhook", json!(5), url("https://a"), "/name"),
        ("webhook", json!("x"), url(""), "/settings/url"),
        ("webhook", json!("x"), url("ftp://a"), "/settings/url"),
        ("webhook", json!("x"), url("javascript:alert(1)"), "/settings/url"),
        ("webhook", json!("x"), url("https://a b"), "/settings/url"),
        ("webhook", json!("x"), url("https://a\u{0}"), "/settings/url"),
        ("webhook", json!("x"), url("https://a\r\nX: y"), "/settings/url"),
        ("webhook", json!("x"), url(&long), "/settings/url"),
        ("webhook", json!("x"), json!({"url": 5}), "/settings"),
        (
            "webhook",
            json!("x"),
            json!({"url": "https://a", "more": 1}),
            "/settings",
        ),
        ("webhook", json!("x"), to("a@b"), "/settings"),
        ("webhook", json!("x"), json!(["https://a"]), "/settings"),
        ("webhook", json!("x"), json!("https://a"), "/settings"),
        ("email", json!("x"), to(""), "/settings/to"),
        ("email", json!("x"), to("nobody"), "/settings/to"),
        ("email", json!("x"), to("a@b, c@d"), "/settings/to"),
        ("email", json!("x"), to("Ops <a@b>"), "/settings/to"),
        ("email", json!("x"), to("a@b\u{0}"), "/settings/to"),
        ("email", json!("x"), to("a@b\r\nBcc: c@d"), "/settings/to"),
        (
            "email",
            json!("x"),
            to(&format!("{}@b", "x".repeat(254))),
            "/settings/to",
        ),
        ("email", json!("x"), json!(["a@b"]), "/settings"),
    ] {
        let existing = if kind == "webhook" { &hook } else { &mail };
        let new = json!({"kind": kind, "name": name, "settings": settings});
        let change = json!({"name": name, "settings": settings});
        for (method, at, body) in [
            (Method::POST, "/api/v1/channels", new),
            (Method::PATCH, &path(existing), change),
        ] {
            let answer = caller.json(method.clone(), at, &body).await;
            assert_eq!(
                (answer.status, answer.code()),
                (StatusCode::BAD_REQUEST, "invalid_fields"),
                "{method} {body}"
            );
            assert_eq!(
                answer.json["errors"][0]["pointer"], pointer,
                "{method} {body}: {}",
                answer.json
            );
        }
    }
    for (body, pointer) in [
        (json!({"kind": "pigeon", "name": "x", "settings": {}}), "/kind"),
        (json!({"kind": "\u{0}", "name": "x", "settings": {}}), "/kind"),
        (json!({"kind": ["webhook"], "name": "x", "settings": {}}), "/kind"),
        (json!({"kind": "webhook", "settings": {"url": "https://a"}}), ""),
        (json!({"kind": "webhook", "name": "x"}), ""),
        (
            json!({"kind": "webhook", "name": "x", "settings": null}),
            "/settings",
        ),
        (
            json!({"kind": "webhook", "name": "x", "settings": {}}),
            "/settings",
        ),
        (
            json!({"kind": "webhook", "name": "x", "settings": {"url": "https://a"}, "id": 1}),
            "/id",
        ),
    ] {
        let answer = caller.json(Method::POST, "/api/v1/channels", &body).await;
        assert_eq!(
            (answer.status, answer.code()),
            (StatusCode::BAD_REQUEST, "invalid_fields"),
            "{body}"
        );
        assert_eq!(
            answer.json["errors"][0]["pointer"], pointer,
            "{body}: {}",
            answer.json
        );
    }
    // The kind of a channel cannot change.
    assert_eq!(
        caller
            .json(Method::PATCH, &path(&hook), &json!({"kind": "email"}))
            .await
            .code(),
        "invalid_fields"
    );
    assert_eq!(dump(&harness).await, before);
    harness.stop().await;
}
