//! Webhooks with templates, presets, methods and headers.

use deadbeat_testkit::receiver::{Receiver, Reply};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use super::{path, webhook};
use crate::contract::{Caller, dump};
use crate::harness::{self, LIMIT};

/// A part of every secret here.
const MARK: &str = "S3CRETmarkS3CRET";
const PAGE: &str = include_str!("../../../../../docs/channels/webhook.md");

fn with(url: &str, more: &Value) -> Value {
    let mut new = webhook("Hook", url);
    new["settings"]
        .as_object_mut()
        .unwrap()
        .extend(more.as_object().unwrap().clone());
    new
}

#[tokio::test(flavor = "multi_thread")]
async fn an_alert_arrives_in_the_form_of_the_templates() {
    let harness = harness::start().await;
    let caller = Caller::new(&harness);
    let receiver = Receiver::start().await;
    // The example of the page.
    let example = PAGE
        .split("```json\n")
        .nth(2)
        .unwrap()
        .split("```")
        .next()
        .unwrap();
    let mut new: Value = serde_json::from_str(example).unwrap();
    new["settings"]["url"] = json!(receiver.url("/in/0123456789"));
    let hook = caller.post("/api/v1/channels", &new).await;
    assert_eq!(hook["settings"]["opened"], new["settings"]["opened"]);
    assert_eq!(hook["settings"]["headers"], json!({"Authorization": "…cdef"}));

    caller.call(Method::POST, &format!("{}/test", path(&hook))).await;
    receiver.wait_for(1, LIMIT).await;
    let monitor = json!({"name": "a \"quoted\" job", "schedule": {"kind": "interval", "seconds": 3600}});
    let monitor = caller.post("/api/v1/monitors", &monitor).await;
    let ping = monitor["ping_url"].as_str().unwrap();
    harness.client.get(format!("{ping}/fail")).send().await.unwrap();
    let requests = receiver.wait_for(2, LIMIT).await;

    let bodies: Vec<Value> = requests
        .iter()
        .map(|request| serde_json::from_slice(&request.body).unwrap())
        .collect();
    assert_eq!(bodies[0], json!({"text": "Test: this channel works"}));
    assert_eq!(
        bodies[1]["text"],
        "DOWN: a \"quoted\" job (FAILED)\na \"quoted\" job failed."
    );
    assert_eq!(
        (&bodies[1]["urgent"], &bodies[1]["affected"]),
        (&json!(false), &json!([]))
    );
    let paths: Vec<&str> = requests.iter().map(|request| request.path.as_str()).collect();
    assert_eq!(
        paths,
        ["/in/0123456789/rooms/test", "/in/0123456789/rooms/My%20project"]
    );
    for request in &requests {
        assert_eq!(request.header("authorization"), Some("Bearer 0123456789abcdef"));
        assert!(request.header("webhook-signature").unwrap().starts_with("v1,"));
    }
    harness.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_template_at_fault_is_refused_and_nothing_is_written() {
    let harness = harness::start().await;
    let caller = Caller::new(&harness);
    let url = "https://example.org/hooks/0123456789";
    let good = with(url, &json!({"body": "{\"text\": {{ words.headline }}}"}));
    let hook = caller.post("/api/v1/channels", &good).await;
    let before = dump(&harness).await;
    let half_a_megabyte = "x".repeat(500_000);

    for (settings, pointer, place) in [
        (
            json!({"body": "{\n  \"text\": {{ words.headlin }}\n}"}),
            "/settings/body",
            Some((2, 14)),
        ),
        (
            json!({"body": "{\n  \"text\": {{ words.headline }},\n}"}),
            "/settings/body",
            Some((3, 1)),
        ),
        (
            json!({"opened": "{% include '/etc/passwd' %}"}),
            "/settings/opened",
            Some((1, 4)),
        ),
        (
            json!({"resolved": "{{ 'x' * 1000000000 }}", "content_type": "text/plain"}),
            "/settings/resolved",
            Some((1, 4)),
        ),
        (
            json!({"body": "{% for a in words.text %}{% for b in words.text %}{% for c in words.text %}{% endfor %}{% endfor %}{% endfor %}"}),
            "/settings/body",
            Some((1, 1)),
        ),
        (
            json!({"body": "{{ '%64001s'|format(1) }}", "content_type": "text/plain"}),
            "/settings/body",
            None,
        ),
        (
            json!({"path": "{{ incident.id }}"}),
            "/settings/path",
            Some((1, 4)),
        ),
        (json!({"body": half_a_megabyte}), "/settings/body", None),
        (json!({"method": "TRACE"}), "/settings/method", None),
        (
            json!({"headers": {"Host": "evil.example.org"}}),
            "/settings/headers/Host",
            None,
        ),
        (
            json!({"headers": {"webhook-signature": "v1,forged"}}),
            "/settings/headers/webhook-signature",
            None,
        ),
    ] {
        let mut change = with(url, &settings)["settings"].clone();
        for (method, at, body) in [
            (Method::POST, "/api/v1/channels".to_owned(), with(url, &settings)),
            (Method::PATCH, path(&hook), json!({"settings": change.clone()})),
            (Method::PATCH, path(&hook), {
                change.as_object_mut().unwrap().remove("url");
                json!({"settings": change.clone()})
            }),
        ] {
            let answer = caller.json(method.clone(), &at, &body).await;

            assert_eq!(
                (answer.status, answer.code()),
                (StatusCode::BAD_REQUEST, "invalid_fields"),
                "{method} {settings}"
            );
            let errors = answer.json["errors"].as_array().unwrap();
            assert_eq!(errors.len(), 1, "{method} {settings}: {errors:?}");
            assert_eq!(errors[0]["pointer"], pointer, "{method} {settings}");
            let found = errors[0]["line"].as_u64().zip(errors[0]["column"].as_u64());
            assert_eq!(found, place, "{method} {settings}: {}", errors[0]);
        }
    }
    // The server refuses a body that is too large before it reads a field.
    let megabyte = with(url, &json!({"body": "x".repeat(1_000_001)}));
    assert_eq!(
        caller
            .json(Method::POST, "/api/v1/channels", &megabyte)
            .await
            .code(),
        "body_too_large"
    );
    assert_eq!(dump(&harness).await, before);
    harness.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn headers_are_sealed_kept_and_sent_nowhere_else() {
    let harness = harness::start().await;
    let caller = Caller::new(&harness);
    let receiver = Receiver::answering(Reply::status(400).repeating()).await;
    let url = receiver.url("/in");
    let token = format!("Bearer {MARK}-0123");
    let new = with(
        &url,
        &json!({"headers": {"Authorization": token, "X-Team": "shop"}}),
    );
    let hook = caller.post("/api/v1/channels", &new).await;

    let masks = json!({"Authorization": "…0123", "X-Team": "…"});
    assert_eq!(hook["settings"]["headers"], masks);
    assert!(!dump(&harness).await.contains(MARK));
    // The receiver repeats the request, so the attempt's detail could show the header.
    let test = format!("{}/test", path(&hook));
    caller.call(Method::POST, &test).await;
    let requests = receiver.wait_for(1, LIMIT).await;
    assert_eq!(requests[0].header("authorization"), Some(token.as_str()));
    let deliveries = harness
        .wait_for("/api/v1/deliveries", |seen| {
            seen["deliveries"][0]["attempt_count"].as_i64() == Some(1)
        })
        .await;
    let id = deliveries["deliveries"][0]["id"].as_str().unwrap();
    let delivery = caller.get(&format!("/api/v1/deliveries/{id}")).await.to_string();
    assert!(
        delivery.contains("answered 400") && !delivery.contains(MARK),
        "{delivery}"
    );

    for (change, shown) in [
        (json!({}), Some(masks.clone())),
        (json!({"headers": masks}), Some(masks.clone())),
        (
            json!({"headers": {"Authorization": "…0123", "X-New": "value"}}),
            Some(json!({"Authorization": "…0123", "X-New": "…"})),
        ),
        (
            json!({"body": "[1]"}),
            Some(json!({"Authorization": "…0123", "X-New": "…"})),
        ),
    ] {
        let changed = caller
            .json(Method::PATCH, &path(&hook), &json!({"settings": change}))
            .await;
        assert_eq!(changed.status, StatusCode::OK, "{change}: {}", changed.json);
        assert_eq!(
            changed.json["settings"].get("headers"),
            shown.as_ref(),
            "{change}"
        );
    }
    let before = receiver.requests().len();
    caller.call(Method::POST, &test).await;
    let requests = receiver.wait_for(before + 1, LIMIT).await;
    assert_eq!(
        (
            requests[before].header("authorization"),
            requests[before].header("x-new"),
            requests[before].header("x-team")
        ),
        (Some(token.as_str()), Some("value"), None)
    );
    // A member who may change the channel cannot send the headers to another receiver, and cannot store a mask.
    for (settings, pointer) in [
        (
            json!({"url": "https://thief.example.org/in"}),
            "/settings/headers",
        ),
        (
            json!({"url": "https://thief.example.org/in", "headers": {"Authorization": "…0123"}}),
            "/settings/headers",
        ),
        (
            json!({"url": "https://thief.example.org/in", "headers": {"Authorization": "…0123", "X-New": "value"}}),
            "/settings/headers",
        ),
        // Another receiver on the same host.
        (json!({"url": receiver.url("/other")}), "/settings/headers"),
        (
            json!({"headers": {"Authorization": "…9999"}}),
            "/settings/headers",
        ),
        (json!({"headers": {"X-Other": "…0123"}}), "/settings/headers"),
    ] {
        let refused = caller
            .json(Method::PATCH, &path(&hook), &json!({"settings": settings}))
            .await;
        assert_eq!(
            (refused.code(), refused.json["errors"][0]["pointer"].as_str()),
            ("invalid_fields", Some(pointer)),
            "{settings}"
        );
        assert!(!refused.json.to_string().contains(MARK));
    }
    let gone = caller
        .json(Method::PATCH, &path(&hook), &json!({"settings": {"headers": {}}}))
        .await;
    assert_eq!(gone.json["settings"]["headers"], json!({}));
    // The change keeps no secret: the headers are gone, and it gives the URL.
    let other = json!({"settings": {"url": "https://example.net/in"}});
    assert_eq!(
        caller.json(Method::PATCH, &path(&hook), &other).await.status,
        StatusCode::OK
    );
    harness.stop().await;
}
