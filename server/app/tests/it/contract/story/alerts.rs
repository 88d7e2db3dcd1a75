//! The story's channels, deliveries and incidents.

use deadbeat_testkit::receiver::Receiver;
use reqwest::Method;
use serde_json::{Value, json};
use sqlx::PgPool;

use super::{expect, id};
use crate::contract::Caller;
use crate::harness::LIMIT;

/// Asks for more tests and more confirmation mails than a project may.
async fn channel_quotas(caller: &Caller<'_>, webhook: &str) {
    let mail = |to: &str| json!({"kind": "email", "name": "Mail", "settings": {"to": to}});
    let asked = caller.post("/api/v1/channels", &mail("asked@example.org")).await;
    let path = format!("/api/v1/channels/{}", id(&asked));
    let confirmation = format!("{path}/confirmation");
    expect(caller, Method::POST, &format!("{path}/test"), &json!(null), 409).await;
    let test = format!("{webhook}/test");
    // One was sent before.
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

/// A channel whose secrets are damaged keeps none of them, and takes all of them anew.
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

/// A delivery that was given up is sent again; one that waits or was sent is not.
async fn sent_again(caller: &Caller<'_>, pool: &PgPool, delivery: &str) {
    let resend = format!("{delivery}/resend");
    sqlx::query("UPDATE delivery SET status = 'dead', next_attempt_at = NULL, settled_at = now() WHERE alert = 'test'")
        .execute(pool)
        .await
        .unwrap();
    expect(caller, Method::POST, &resend, &json!(null), 202).await;
    expect(caller, Method::POST, &resend, &json!(null), 409).await;
}

pub(super) async fn channels(caller: &Caller<'_>, pool: &PgPool, receiver: &Receiver) {
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
