//! The part of the story about channels, deliveries and incidents.

use deadbeat_testkit::receiver::Receiver;
use reqwest::Method;
use serde_json::{Value, json};
use sqlx::PgPool;

use super::{expect, id};
use crate::contract::Caller;
use crate::contract::document::contract;
use crate::harness::{Harness, LIMIT};

/// Requests more tests and more confirmation mails than a project may send.
async fn channel_quotas(caller: &Caller<'_>, webhook: &str) {
    let mail = |to: &str| json!({"kind": "email", "name": "Mail", "settings": {"to": to}});
    let asked = caller.post("/api/v1/channels", &mail("asked@example.org")).await;
    let path = format!("/api/v1/channels/{}", id(&asked));
    let confirmation = format!("{path}/confirmation");
    expect(caller, Method::POST, &format!("{path}/test"), &json!(null), 409).await;
    let test = format!("{webhook}/test");
    // One test was sent before.
    for _ in 1..20 {
        expect(caller, Method::POST, &test, &json!(null), 202).await;
    }
    expect(caller, Method::POST, &test, &json!(null), 429).await;

    for status in [202, 202, 429] {
        expect(caller, Method::POST, &confirmation, &json!(null), status).await;
    }
    expect(
        caller,
        Method::POST,
        &format!("{webhook}/confirmation"),
        &json!(null),
        409,
    )
    .await;
    expect(
        caller,
        Method::POST,
        "/api/v1/channels",
        &mail("asked@example.org"),
        429,
    )
    .await;
    let other = caller.post("/api/v1/channels", &mail("other@example.org")).await;
    let path = format!("/api/v1/channels/{}", id(&other));
    let moved = json!({"settings": {"to": "asked@example.org"}});
    expect(caller, Method::PATCH, &path, &moved, 429).await;
}

/// A channel with damaged secrets keeps none of them, and accepts new values for all of them.
async fn repaired(caller: &Caller<'_>, pool: &PgPool, path: &str, url: &Value) {
    sqlx::query("UPDATE channel SET sealed = jsonb_set(sealed, '{values,settings.url}', '\"AAAA\"') WHERE kind = 'webhook'")
        .execute(pool)
        .await
        .unwrap();
    let damaged = caller.get(path).await;
    assert!(damaged["unopened_reason"].is_string(), "{damaged}");
    expect(caller, Method::PATCH, path, &json!({"settings": {}}), 409).await;
    let again = caller
        .json(Method::PATCH, path, &json!({"settings": url}))
        .await
        .json;
    assert!(
        again["unopened_reason"].is_null() && again["signing_secret"].is_string(),
        "{again}"
    );
}

/// A person can send a delivery again if it was given up, but not if it waits or was sent.
async fn sent_again(caller: &Caller<'_>, pool: &PgPool, delivery: &str) {
    let resend = format!("{delivery}/resend");
    sqlx::query("UPDATE delivery SET status = 'dead', next_attempt_at = NULL, settled_at = now() WHERE alert = 'test'")
        .execute(pool)
        .await
        .unwrap();
    expect(caller, Method::POST, &resend, &json!(null), 202).await;
    expect(caller, Method::POST, &resend, &json!(null), 409).await;
}

/// Covers snoozes, mutes and maintenance windows.
pub(super) async fn holds(caller: &Caller<'_>, monitor: &Value) {
    let path = format!("/api/v1/monitors/{}", id(monitor));
    let nobody = format!("/api/v1/monitors/{}", uuid::Uuid::new_v4());
    let (nothing, length) = (json!(null), json!({"seconds": 60}));
    let large = json!({"seconds": 60, "why": "x".repeat(1_000_001)});
    for (method, path, body, status) in [
        (Method::POST, format!("{path}/snooze"), &length, 200),
        (
            Method::POST,
            format!("{path}/snooze"),
            &json!({"seconds": 86_401}),
            400,
        ),
        (
            Method::POST,
            format!("{path}/snooze"),
            &json!({"seconds": 0}),
            400,
        ),
        (Method::POST, format!("{nobody}/snooze"), &length, 404),
        (Method::POST, format!("{path}/snooze"), &large, 413),
        (Method::POST, format!("{path}/mute"), &nothing, 204),
        (Method::GET, "/api/v1/snoozes?limit=0".to_owned(), &nothing, 400),
        (Method::DELETE, format!("{path}/snooze"), &nothing, 204),
        (Method::DELETE, format!("{path}/snooze"), &nothing, 204),
    ] {
        expect(caller, method, &path, body, status).await;
    }
    let left = caller.pages("/api/v1/snoozes", 1).await;
    assert_eq!(left.len(), 1, "{left:?}");
    assert_eq!(
        (&left[0]["monitor_id"], &left[0]["ends_at"]),
        (&monitor["id"], &nothing)
    );
    assert_eq!(left[0]["created_by"]["kind"], "key");
    let mute = format!("/api/v1/snoozes/{}", id(&left[0]));
    expect(caller, Method::DELETE, &mute, &nothing, 204).await;
    expect(caller, Method::DELETE, &format!("{path}/mute"), &nothing, 204).await;

    let windows = "/api/v1/maintenance-windows";
    let nightly = json!({"kind": "cron", "expression": "0 2 * * *", "timezone": "Europe/Berlin"});
    let window = json!({"name": "Vacuum", "schedule": nightly, "duration_seconds": 3_600, "match": {"tags": ["db"], "monitors": [monitor["id"]]}});
    let window = caller.post(windows, &window).await;
    let once =
        json!({"name": "Move", "starts_at": "2100-01-01T00:00:00Z", "ends_at": "2100-01-02T00:00:00Z"});
    caller.post(windows, &once).await;
    assert_eq!(caller.pages(windows, 1).await.len(), 2);
    let path = format!("{windows}/{}", id(&window));
    assert_eq!(caller.get(&path).await, window);
    let exchanged = json!({"schedule": null, "duration_seconds": null, "starts_at": "2100-01-01T00:00:00Z", "ends_at": "2100-01-02T00:00:00Z"});
    for (method, path, body, status) in [
        (Method::PATCH, &path, &exchanged, 200),
        (Method::PATCH, &path, &json!({"name": "Night"}), 200),
        (
            Method::PATCH,
            &path,
            &json!({"ends_at": "2099-01-01T00:00:00Z"}),
            400,
        ),
        (Method::POST, &windows.to_owned(), &json!({"name": "x"}), 400),
        (Method::GET, &format!("{windows}?limit=0"), &nothing, 400),
        (Method::DELETE, &path, &nothing, 204),
    ] {
        expect(caller, method, path, body, status).await;
    }
}

/// Deploy scripts snooze with a ping key. None of these requests is a ping.
pub(super) async fn snoozes_by_url(caller: &Caller<'_>, harness: &Harness, monitor: &Value) {
    let slug = monitor["slug"].as_str().unwrap();
    for root in ["/ping", ""] {
        let key = format!("{root}/{}", harness.ping_key);
        for method in [Method::GET, Method::POST, Method::PUT] {
            for (path, status) in [
                (format!("{key}/snooze/1s"), 200),
                (format!("{key}/snooze/20m?tag=shop"), 200),
                (format!("{key}/{slug}/snooze/1s/"), 200),
                (format!("{key}/snooze/25h"), 400),
                (format!("{key}/snooze/20m?tags=shop"), 400),
                (format!("{key}/snooze/20m?tag=shop&tag=other"), 400),
                (format!("{key}/snooze/20m?tag="), 400),
                (format!("{key}/{slug}/snooze/0s"), 400),
                (format!("{key}/{slug}/snooze/20m?tag=shop"), 400),
                (format!("{key}x/snooze/20m"), 404),
                (format!("{key}/nobody/snooze/20m"), 404),
            ] {
                let answer = caller.call(method.clone(), &path).await;
                assert_eq!(answer.status.as_u16(), status, "{method} {path}");
            }
        }
    }
}

async fn previews(caller: &Caller<'_>) {
    let path = "/api/v1/channels/preview";
    let examples = contract()
        .part("/paths/~1api~1v1~1channels~1preview/post/requestBody/content/application~1json/examples")
        .clone();
    for example in examples.as_object().unwrap().values() {
        expect(caller, Method::POST, path, &example["value"], 200).await;
    }
    expect(caller, Method::POST, path, &json!({"kind": "email"}), 200).await;
    for bad in [
        json!({"kind": "pigeon"}),
        json!({"kind": "email", "cause": "FULL_MOON"}),
        json!({"kind": "webhook", "settings": {"url": "https://example.org", "body": "{{ x }}"}}),
    ] {
        expect(caller, Method::POST, path, &bad, 400).await;
    }
}

pub(super) async fn channels(caller: &Caller<'_>, pool: &PgPool, receiver: &Receiver) {
    previews(caller).await;
    let pushing = caller.get("/api/v1/push-key").await;
    assert_eq!(pushing, caller.get("/api/v1/push-key").await);
    let url = json!({"url": receiver.url("/hook")});
    let webhook = caller
        .post(
            "/api/v1/channels",
            &json!({"kind": "webhook", "name": "Hook", "settings": url}),
        )
        .await;
    let email = json!({"kind": "email", "name": "Mail", "settings": {"to": "ops@example.org"}});
    let email = caller.post("/api/v1/channels", &email).await;
    let path = format!("/api/v1/channels/{}", id(&webhook));
    assert_eq!(caller.pages("/api/v1/channels", 1).await.len(), 2);
    caller.get(&path).await;
    expect(
        caller,
        Method::PATCH,
        &path,
        &json!({"name": "Night", "settings": url}),
        200,
    )
    .await;
    repaired(caller, pool, &path, &url).await;
    let sent = caller.post(&format!("{path}/test"), &json!(null)).await;
    let delivery = format!("/api/v1/deliveries/{}", sent["delivery_id"].as_str().unwrap());
    receiver.wait_for(1, LIMIT).await;
    caller.get(&delivery).await;
    caller.get(&format!("{delivery}/attempts")).await;
    sent_again(caller, pool, &delivery).await;
    channel_quotas(caller, &path).await;
    expect(
        caller,
        Method::DELETE,
        &format!("/api/v1/channels/{}", id(&email)),
        &json!(null),
        204,
    )
    .await;

    expect(
        caller,
        Method::GET,
        "/api/v1/channels?cursor=x",
        &json!(null),
        400,
    )
    .await;
    expect(
        caller,
        Method::POST,
        "/api/v1/channels",
        &json!({"kind": "pigeon", "name": "x", "settings": {}}),
        400,
    )
    .await;
    expect(
        caller,
        Method::PATCH,
        &path,
        &json!({"settings": {"to": "a@b.c"}}),
        400,
    )
    .await;
    expect(
        caller,
        Method::GET,
        "/api/v1/deliveries?status=lost",
        &json!(null),
        400,
    )
    .await;
}

pub(super) async fn incidents(caller: &Caller<'_>) {
    let incidents = caller.pages("/api/v1/incidents", 1).await;
    let path = format!("/api/v1/incidents/{}", id(incidents.first().unwrap()));
    caller.get(&path).await;
    expect(
        caller,
        Method::POST,
        &format!("{path}/acknowledge"),
        &json!(null),
        200,
    )
    .await;
    expect(
        caller,
        Method::GET,
        "/api/v1/incidents?state=shut",
        &json!(null),
        400,
    )
    .await;
}
