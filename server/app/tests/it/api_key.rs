//! `/api/v1/api-keys`: keys have a name and a scope, are shown once, and are revoked permanently.

mod limit;

use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use crate::contract::{Caller, dump};
use crate::harness;

async fn stored(harness: &harness::Harness) -> String {
    sqlx::query_scalar("SELECT string_agg(api_key::text, E'\\n') FROM api_key")
        .fetch_one(&harness.pool)
        .await
        .unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_is_shown_once_and_stored_hashed() {
    let harness = harness::start().await;
    let caller = Caller::new(&harness);

    let issued = caller
        .post("/api/v1/api-keys", &json!({"name": "CI ✓", "scope": "write"}))
        .await;

    let key = issued["key"].as_str().unwrap();
    let prefix = issued["prefix"].as_str().unwrap();
    assert!(key.starts_with(prefix) && key.len() >= 40);
    let listed = caller.pages("/api/v1/api-keys", 1).await;
    assert_eq!(
        (&listed[0]["id"], &listed[0]["name"], &listed[0]["prefix"]),
        (&issued["id"], &json!("CI ✓"), &json!(prefix))
    );
    assert!(listed.iter().all(|one| one.get("key").is_none()));
    let rows = stored(&harness).await;
    for key in [key, &harness.api_key, &harness.read_key, &harness.ping_key] {
        assert!(!rows.contains(&key[8..]), "a key is stored in plain text");
        let hex: String = key.bytes().map(|byte| format!("{byte:02x}")).collect();
        assert!(!rows.contains(&hex[16..]), "a key is stored in plain bytes");
    }
    harness.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_notes_when_it_was_used() {
    let harness = harness::start().await;
    let caller = Caller::new(&harness);
    let issue = async |scope: &str| {
        caller
            .post("/api/v1/api-keys", &json!({"name": scope, "scope": scope}))
            .await
    };
    let (read, ping, unused) = (issue("read").await, issue("ping").await, issue("write").await);
    assert_eq!(read["last_used_at"], Value::Null);
    caller
        .post(
            "/api/v1/monitors",
            &json!({"slug": "job", "schedule": {"kind": "interval", "seconds": 60}}),
        )
        .await;

    Caller::with_key(&harness, read["key"].as_str().unwrap())
        .get("/api/v1/project")
        .await;
    let url = format!("{}/ping/{}/job", harness.url, ping["key"].as_str().unwrap());
    assert_eq!(
        harness.client.get(url).send().await.unwrap().status(),
        StatusCode::OK
    );

    let keys = caller.pages("/api/v1/api-keys", 50).await;
    let used =
        |key: &Value| keys.iter().find(|one| one["id"] == key["id"]).unwrap()["last_used_at"].is_string();
    assert_eq!((used(&read), used(&ping), used(&unused)), (true, true, false));
    harness.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_revoked_key_is_refused_at_once_and_for_good() {
    let harness = harness::start().await;
    let caller = Caller::new(&harness);
    let monitor = caller
        .post(
            "/api/v1/monitors",
            &json!({"slug": "job", "schedule": {"kind": "interval", "seconds": 60}}),
        )
        .await;

    for scope in ["read", "write", "ping"] {
        let issued = caller
            .post(
                "/api/v1/api-keys",
                &json!({"name": "short-lived", "scope": scope}),
            )
            .await;
        let holder = Caller::with_key(&harness, issued["key"].as_str().unwrap());
        let ping = format!("/ping/{}/job", issued["key"].as_str().unwrap());
        let use_it = async || match scope {
            "ping" => {
                let batch = json!({"sent_at": "2026-01-01T00:00:00Z", "events": []});
                (
                    holder.json(Method::POST, "/api/v1/events", &batch).await.status,
                    holder.call(Method::GET, &ping).await.status,
                )
            }
            _ => (
                holder.call(Method::GET, "/api/v1/monitors").await.status,
                StatusCode::OK,
            ),
        };
        assert_eq!(use_it().await, (StatusCode::OK, StatusCode::OK), "{scope}");

        let at = format!("/api/v1/api-keys/{}", issued["id"].as_str().unwrap());
        assert_eq!(
            caller.call(Method::DELETE, &at).await.status,
            StatusCode::NO_CONTENT
        );

        let (api, by_url) = use_it().await;
        assert_eq!(api, StatusCode::UNAUTHORIZED, "{scope}");
        assert_eq!(by_url == StatusCode::NOT_FOUND, scope == "ping");
        let shown = caller.get("/api/v1/api-keys?limit=1").await["api_keys"][0].clone();
        assert_eq!(shown["id"], issued["id"]);
        assert!(shown["revoked_at"].is_string());
        // The time of the first revocation stays.
        assert_eq!(
            caller.call(Method::DELETE, &at).await.status,
            StatusCode::NO_CONTENT
        );
        assert_eq!(
            caller.get("/api/v1/api-keys?limit=1").await["api_keys"][0]["revoked_at"],
            shown["revoked_at"]
        );
    }
    let seen = caller
        .get(&format!("/api/v1/monitors/{}", monitor["id"].as_str().unwrap()))
        .await;
    assert_eq!(seen["ping_count"], 1);
    harness.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_may_revoke_itself() {
    let harness = harness::start().await;
    let caller = Caller::new(&harness);
    let issued = caller
        .post("/api/v1/api-keys", &json!({"name": "me", "scope": "write"}))
        .await;
    let holder = Caller::with_key(&harness, issued["key"].as_str().unwrap());
    let at = format!("/api/v1/api-keys/{}", issued["id"].as_str().unwrap());

    assert_eq!(
        holder.call(Method::DELETE, &at).await.status,
        StatusCode::NO_CONTENT
    );

    assert_eq!(holder.call(Method::DELETE, &at).await.code(), "unknown_key");
    harness.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_ping_key_signals_and_the_others_do_not() {
    let harness = harness::start().await;
    let caller = Caller::new(&harness);
    caller
        .post(
            "/api/v1/monitors",
            &json!({"slug": "job", "schedule": {"kind": "interval", "seconds": 60}}),
        )
        .await;
    let batch = json!({"sent_at": "2026-01-01T00:00:00Z", "events": []});

    for (key, may) in [
        (&harness.ping_key, true),
        (&harness.read_key, false),
        (&harness.api_key, false),
    ] {
        let holder = Caller::with_key(&harness, key);
        let ping = holder.call(Method::GET, &format!("/ping/{key}/job")).await.status;
        let created = holder
            .call(Method::GET, &format!("/ping/{key}/made-by-ping?create=1"))
            .await
            .status;
        let events = holder.json(Method::POST, "/api/v1/events", &batch).await.status;
        let expected = if may { [200, 201, 200] } else { [404, 404, 403] };
        assert_eq!([ping.as_u16(), created.as_u16(), events.as_u16()], expected);
    }
    harness.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn no_bad_key_is_issued() {
    let harness = harness::start().await;
    let caller = Caller::new(&harness);
    caller.get("/api/v1/project").await;
    let before = dump(&harness).await;

    for (body, pointer) in [
        (json!({"name": "", "scope": "read"}), "/name"),
        (json!({"name": "   ", "scope": "read"}), "/name"),
        (json!({"name": "x".repeat(101), "scope": "read"}), "/name"),
        (json!({"name": "a\u{0}b", "scope": "read"}), "/name"),
        (json!({"name": null, "scope": "read"}), "/name"),
        (json!({"name": "x", "scope": "admin"}), "/scope"),
        (json!({"name": "x", "scope": "Write"}), "/scope"),
        (json!({"name": "x", "scope": "\u{0}"}), "/scope"),
        (json!({"name": "x", "scope": ["write"]}), "/scope"),
        (json!({"name": "x"}), ""),
        (json!({"scope": "read"}), ""),
        (json!({"name": "x", "scope": "read", "key": "dbw_mine"}), "/key"),
    ] {
        let answer = caller.json(Method::POST, "/api/v1/api-keys", &body).await;
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
    for id in ["x", "%00", "00000000-0000-0000-0000-000000000000"] {
        assert_eq!(
            caller
                .call(Method::DELETE, &format!("/api/v1/api-keys/{id}"))
                .await
                .status,
            StatusCode::NOT_FOUND
        );
    }
    assert_eq!(dump(&harness).await, before);
    harness.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_project_is_changed_with_checks() {
    let harness = harness::start().await;
    let caller = Caller::new(&harness);
    let change = async |body: Value| caller.json(Method::PATCH, "/api/v1/project", &body).await;

    assert_eq!(
        change(json!({"name": "Shop"})).await.json["reminder_seconds"],
        86_400
    );
    assert_eq!(
        change(json!({"reminder_seconds": null})).await.json["reminder_seconds"],
        Value::Null
    );
    assert_eq!(change(json!({})).await.json["name"], "Shop");
    assert_eq!(
        change(json!({"reminder_seconds": i32::MAX})).await.json["reminder_seconds"],
        i32::MAX
    );
    let before = dump(&harness).await;
    for (body, pointer) in [
        (json!({"name": ""}), "/name"),
        (json!({"name": "a\u{0}"}), "/name"),
        (json!({"name": "x".repeat(101)}), "/name"),
        (json!({"reminder_seconds": 59}), "/reminder_seconds"),
        (json!({"reminder_seconds": -1}), "/reminder_seconds"),
        (json!({"reminder_seconds": 0.1}), "/reminder_seconds"),
        (
            json!({"reminder_seconds": 3_000_000_000_u64}),
            "/reminder_seconds",
        ),
        (json!({"reminder_seconds": 1e300}), "/reminder_seconds"),
        (json!({"reminder_seconds": "60"}), "/reminder_seconds"),
        (json!({"id": "x"}), "/id"),
        (
            json!({"name": "Kept?", "reminder_seconds": 1}),
            "/reminder_seconds",
        ),
    ] {
        let answer = change(body.clone()).await;
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
    assert_eq!(dump(&harness).await, before);
    harness.stop().await;
}
