//! Opsgenie's heartbeats, as its SDKs and curl lines call them.

use reqwest::Method;
use serde_json::{Value, json};

use crate::harness::{self, Harness};

async fn call(harness: &Harness, key: &str, method: &str, path: &str, body: Value) -> (u16, Value) {
    let method: Method = method.parse().unwrap();
    let mut request = harness
        .client
        .request(method, format!("{}/v2/heartbeats{path}", harness.url));
    if !key.is_empty() {
        request = request.header("Authorization", format!("GenieKey {key}"));
    }
    if !body.is_null() {
        request = request.json(&body);
    }
    let answer = request.send().await.unwrap();
    let status = answer.status().as_u16();
    let answer: Value = answer.json().await.unwrap();
    assert!(
        answer["requestId"].is_string() && answer["took"].is_number(),
        "{path}: {answer}"
    );
    (status, answer)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_heartbeat_is_made_pinged_changed_and_deleted() {
    let harness = harness::start().await;
    let (manage, ping) = (harness.api_key.clone(), harness.ping_key.clone());
    let body = json!({"name": "Nightly Backup", "description": "d", "interval": 2, "intervalUnit": "hours", "enabled": true,
        "ownerTeam": {"name": "ops"}, "alertMessage": "m", "alertTags": ["db", "two words"], "alertPriority": "P1"});

    // As in Opsgenie, a ping makes no heartbeat. There it is answered 202.
    let (status, answer) = call(&harness, &ping, "GET", "/Nightly%20Backup/ping", Value::Null).await;
    assert_eq!((status, &answer["message"]), (404, &json!("Heartbeat not found")));
    let (status, made) = call(&harness, &manage, "POST", "", body.clone()).await;
    assert_eq!(status, 201, "{made}");
    let shown = &made["data"];
    assert_eq!(
        (&shown["name"], &shown["interval"], &shown["intervalUnit"]),
        (&json!("Nightly Backup"), &json!(2), &json!("hours"))
    );
    assert_eq!(
        (&shown["enabled"], &shown["expired"], &shown["lastPingTime"]),
        (&json!(true), &json!(false), &Value::Null)
    );
    assert_eq!(call(&harness, &manage, "POST", "", body).await.0, 409);

    for method in ["GET", "POST", "PUT", "PATCH"] {
        let (status, answer) = call(&harness, &ping, method, "/Nightly%20Backup/ping", Value::Null).await;
        assert_eq!(
            (status, &answer["result"]),
            (202, &json!("PONG - Heartbeat received")),
            "{method}"
        );
    }
    let monitors = harness.get("/api/v1/monitors").await;
    let monitor = &monitors["monitors"][0];
    assert_eq!(
        (&monitor["ping_count"], &monitor["status"]),
        (&json!(4), &json!("up"))
    );
    assert_eq!(
        (&monitor["schedule"]["seconds"], &monitor["grace_seconds"]),
        (&json!(7_200), &json!(0))
    );
    assert_eq!(monitor["tags"], json!(["opsgenie", "db"]));

    let (status, answer) = call(
        &harness,
        &manage,
        "PATCH",
        "/Nightly%20Backup",
        json!({"interval": 90, "intervalUnit": "minutes"}),
    )
    .await;
    assert_eq!(
        (
            status,
            &answer["data"]["interval"],
            &answer["data"]["intervalUnit"]
        ),
        (200, &json!(90), &json!("minutes"))
    );
    for (action, enabled) in [
        ("disable", false),
        ("disable", false),
        ("enable", true),
        ("enable", true),
    ] {
        let (status, answer) = call(
            &harness,
            &manage,
            "POST",
            &format!("/Nightly%20Backup/{action}"),
            Value::Null,
        )
        .await;
        assert_eq!(
            (status, &answer["data"]["enabled"]),
            (200, &json!(enabled)),
            "{action}"
        );
    }
    let (status, answer) = call(&harness, &harness.read_key, "GET", "", Value::Null).await;
    assert_eq!(
        (status, answer["data"]["heartbeats"].as_array().map(Vec::len)),
        (200, Some(1))
    );
    let (status, answer) = call(
        &harness,
        &harness.read_key,
        "GET",
        "/Nightly%20Backup",
        Value::Null,
    )
    .await;
    assert_eq!((status, answer["data"]["lastPingTime"].is_string()), (200, true));

    assert_eq!(
        call(&harness, &manage, "DELETE", "/Nightly%20Backup", Value::Null)
            .await
            .0,
        200
    );
    assert_eq!(
        call(&harness, &manage, "GET", "/Nightly%20Backup", Value::Null)
            .await
            .0,
        404
    );
    harness.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn each_key_may_do_what_its_scope_allows_and_in_its_own_project_only() {
    let harness = harness::start().await;
    let (other_api_key, other_ping_key) = harness.other_project().await;
    let body = json!({"name": "job", "interval": 1, "intervalUnit": "days"});
    let changes = [
        ("POST", "", body.clone()),
        ("PATCH", "/job", json!({"interval": 2, "intervalUnit": "days"})),
        ("POST", "/job/disable", Value::Null),
        ("POST", "/job/enable", Value::Null),
        ("DELETE", "/job", Value::Null),
    ];
    assert_eq!(
        call(&harness, &harness.api_key, "POST", "", body.clone()).await.0,
        201
    );

    for (key, status) in [
        ("", 401),
        ("nonsense", 401),
        ("dbw_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA", 401),
    ] {
        for (method, path, body) in &changes {
            assert_eq!(
                call(&harness, key, method, path, body.clone()).await.0,
                status,
                "{key} {method} {path}"
            );
        }
        for path in ["", "/job", "/job/ping"] {
            assert_eq!(
                call(&harness, key, "GET", path, Value::Null).await.0,
                status,
                "{key} {path}"
            );
        }
    }
    for key in [&harness.read_key, &harness.ping_key] {
        for (method, path, body) in &changes {
            assert_eq!(
                call(&harness, key, method, path, body.clone()).await.0,
                403,
                "{method} {path}"
            );
        }
    }
    assert_eq!(
        call(&harness, &harness.ping_key, "GET", "", Value::Null).await.0,
        403
    );
    assert_eq!(
        call(&harness, &harness.api_key, "GET", "/job/ping", Value::Null)
            .await
            .0,
        403
    );
    // Another project does not have it.
    assert_eq!(
        call(&harness, &other_ping_key, "GET", "/job/ping", Value::Null)
            .await
            .0,
        404
    );
    for (method, path, body) in &changes[1..] {
        assert_eq!(
            call(&harness, &other_api_key, method, path, body.clone()).await.0,
            404,
            "{method} {path}"
        );
    }
    let (_, listed) = call(&harness, &other_api_key, "GET", "", Value::Null).await;
    assert_eq!(listed["data"]["heartbeats"], json!([]));
    let monitors = harness.get("/api/v1/monitors").await;
    assert_eq!(
        (
            &monitors["monitors"][0]["ping_count"],
            &monitors["monitors"][0]["schedule"]["seconds"]
        ),
        (&json!(0), &json!(86_400))
    );
    harness.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_input_is_refused_and_makes_nothing() {
    let harness = harness::start().await;
    for (body, status) in [
        (json!({}), 422),
        (json!({"name": "job"}), 422),
        (json!({"interval": 1, "intervalUnit": "days"}), 422),
        (json!({"name": "", "interval": 1, "intervalUnit": "days"}), 422),
        (
            json!({"name": "x".repeat(201), "interval": 1, "intervalUnit": "days"}),
            422,
        ),
        (
            json!({"name": "\u{0}", "interval": 1, "intervalUnit": "days"}),
            422,
        ),
        (json!({"name": "job", "interval": 0, "intervalUnit": "days"}), 422),
        (
            json!({"name": "job", "interval": 1.5, "intervalUnit": "days"}),
            422,
        ),
        (
            json!({"name": "job", "interval": u64::MAX, "intervalUnit": "days"}),
            422,
        ),
        (
            json!({"name": "job", "interval": 1, "intervalUnit": "weeks"}),
            422,
        ),
        (json!({"name": "job", "interval": 1}), 422),
        (json!([]), 400),
        (json!("job"), 400),
    ] {
        let (seen, answer) = call(&harness, &harness.api_key, "POST", "", body.clone()).await;
        assert_eq!(seen, status, "{body}: {answer}");
        assert!(answer["message"].is_string(), "{answer}");
    }
    assert_eq!(harness.get("/api/v1/monitors").await["monitors"], json!([]));
    harness.stop().await;
}
