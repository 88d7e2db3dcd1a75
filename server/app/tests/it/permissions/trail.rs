//! The audit trail: every request that changes something leaves one entry, and no other request does.

use std::collections::BTreeSet;
use std::sync::Arc;

use deadbeat_testkit::clock::StoppedClock;
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use crate::contract::Caller;
use crate::contract::document::contract;
use crate::contract::things::Things;
use crate::harness::{self, Harness};

const SECRET: &str = "https://hooks.example.com/T0/SECRET-7f3a";

async fn entries(caller: &Caller<'_>) -> Vec<Value> {
    caller.pages("/api/v1/audit-entries", 50).await
}

/// Returns the id of the write key that the caller uses.
async fn own_key(harness: &Harness) -> String {
    let keys = harness.get("/api/v1/api-keys").await;
    let prefix = &harness.api_key[..8];
    let of_prefix = |key: &&Value| key["prefix"] == prefix;
    let key = keys["api_keys"]
        .as_array()
        .unwrap()
        .iter()
        .find(of_prefix)
        .unwrap();
    key["id"].as_str().unwrap().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn every_request_that_changes_something_leaves_one_entry() {
    let clock = StoppedClock::at("2026-03-02T01:00:00Z".parse().unwrap());
    let harness = harness::start_by(Arc::new(clock), None, true).await;
    let things = Things::make(&harness).await;
    let caller = Caller::new(&harness);
    let key = own_key(&harness).await;
    let monitor = format!("/api/v1/monitors/{}", things.id("monitors"));
    let channel = format!("/api/v1/channels/{}", things.id("channels"));
    let of = |noun: &str| format!("/api/v1/{noun}/{}", things.id(noun));
    let delivery = of("deliveries");
    let schedule = json!({"kind": "interval", "seconds": 60});
    let mail = json!({"kind": "email", "name": "Mail", "settings": {"to": "nobody@example.com"}});
    let mail = caller.post("/api/v1/channels", &mail).await;
    let confirmation = format!("/api/v1/channels/{}/confirmation", mail["id"].as_str().unwrap());
    let issued = caller
        .post("/api/v1/api-keys", &json!({"name": "CI", "scope": "read"}))
        .await;
    let issued = format!("/api/v1/api-keys/{}", issued["id"].as_str().unwrap());
    sqlx::query(
        "UPDATE delivery SET status = 'dead', settled_at = now(), next_attempt_at = NULL WHERE id = $1::uuid",
    )
    .bind(things.id("deliveries"))
    .execute(&harness.pool)
    .await
    .unwrap();
    let window =
        json!({"name": "Night", "starts_at": "2100-01-01T00:00:00Z", "ends_at": "2100-01-01T05:00:00Z"});
    let rotation = json!({
        "name": "Second", "timezone": "UTC", "people": [{"name": "Bob", "channels": [things.channel["id"]]}],
        "layers": [{"people": ["Bob"], "handover": "daily", "at": "09:00", "starts_on": "2026-03-02"}],
    });
    let steps = json!([{"delay_seconds": 0, "targets": [{"kind": "channel", "id": things.channel["id"]}]}]);
    let policy = json!({"name": "Shop", "match": {"tags": ["shop"]}, "steps": steps});
    let hook = json!({"kind": "webhook", "name": "Second hook", "settings": {"url": SECRET}});
    let none = Value::Null;
    // The order is such that each step succeeds.
    let steps: Vec<(Method, String, Value, &str)> = vec![
        (
            Method::POST,
            "/api/v1/monitors".into(),
            json!({"slug": "new", "schedule": schedule}),
            "monitor.created",
        ),
        (
            Method::PUT,
            "/api/v1/monitors/put".into(),
            json!({"schedule": schedule}),
            "monitor.created",
        ),
        (
            Method::PUT,
            "/api/v1/monitors/put".into(),
            json!({"schedule": schedule}),
            "monitor.changed",
        ),
        (
            Method::PATCH,
            monitor.clone(),
            json!({"grace_seconds": 90.0}),
            "monitor.changed",
        ),
        (
            Method::POST,
            format!("{monitor}/pause"),
            none.clone(),
            "monitor.paused",
        ),
        (
            Method::POST,
            format!("{monitor}/resume"),
            none.clone(),
            "monitor.resumed",
        ),
        (
            Method::POST,
            format!("{monitor}/snooze"),
            json!({"seconds": 60}),
            "monitor.snoozed",
        ),
        (
            Method::DELETE,
            format!("{monitor}/snooze"),
            none.clone(),
            "monitor.snooze_ended",
        ),
        (
            Method::POST,
            format!("{monitor}/mute"),
            none.clone(),
            "monitor.muted",
        ),
        (
            Method::DELETE,
            format!("{monitor}/mute"),
            none.clone(),
            "monitor.mute_ended",
        ),
        (Method::DELETE, of("snoozes"), none.clone(), "tag.snooze_ended"),
        (
            Method::POST,
            "/api/v1/maintenance-windows".into(),
            window,
            "maintenance_window.created",
        ),
        (
            Method::PATCH,
            of("maintenance-windows"),
            json!({"name": "Moved"}),
            "maintenance_window.changed",
        ),
        (
            Method::DELETE,
            of("maintenance-windows"),
            none.clone(),
            "maintenance_window.deleted",
        ),
        (Method::POST, "/api/v1/channels".into(), hook, "channel.created"),
        (
            Method::PATCH,
            channel.clone(),
            json!({"name": "Hook 2", "settings": {"url": SECRET}}),
            "channel.changed",
        ),
        (
            Method::POST,
            format!("{channel}/test"),
            none.clone(),
            "channel.tested",
        ),
        (
            Method::POST,
            confirmation,
            none.clone(),
            "channel.confirmation_requested",
        ),
        (
            Method::POST,
            format!("{delivery}/resend"),
            none.clone(),
            "delivery.resent",
        ),
        (
            Method::POST,
            "/api/v1/rotations".into(),
            rotation,
            "rotation.created",
        ),
        (
            Method::PATCH,
            of("rotations"),
            json!({"name": "First"}),
            "rotation.changed",
        ),
        (
            Method::POST,
            "/api/v1/escalation-policies".into(),
            policy,
            "escalation_policy.created",
        ),
        (
            Method::PATCH,
            of("escalation-policies"),
            json!({"name": "Pay"}),
            "escalation_policy.changed",
        ),
        (
            Method::DELETE,
            of("escalation-policies"),
            none.clone(),
            "escalation_policy.deleted",
        ),
        (Method::DELETE, of("rotations"), none.clone(), "rotation.deleted"),
        (
            Method::POST,
            format!("{}/acknowledge", of("incidents")),
            none.clone(),
            "incident.acknowledged",
        ),
        (
            Method::DELETE,
            format!("/api/v1/channels/{}", mail["id"].as_str().unwrap()),
            none.clone(),
            "channel.deleted",
        ),
        (
            Method::POST,
            "/api/v1/api-keys".into(),
            json!({"name": "New", "scope": "ping"}),
            "api_key.issued",
        ),
        (
            Method::POST,
            format!("{issued}/rotate"),
            json!({"overlap_seconds": 60}),
            "api_key.rotated",
        ),
        (Method::DELETE, issued, none.clone(), "api_key.revoked"),
        (
            Method::PATCH,
            "/api/v1/project".into(),
            json!({"name": "Renamed"}),
            "project.changed",
        ),
        (
            Method::PATCH,
            of("members"),
            json!({"role": "member"}),
            "member.changed",
        ),
        (Method::DELETE, of("members"), none.clone(), "member.removed"),
        (
            Method::POST,
            "/api/v1/invitations".into(),
            json!({"role": "viewer", "email": "eve@example.org"}),
            "invitation.created",
        ),
        (
            Method::DELETE,
            of("invitations"),
            none.clone(),
            "invitation.withdrawn",
        ),
        (Method::DELETE, of("beats"), none.clone(), "beat.deleted"),
        (Method::DELETE, monitor, none.clone(), "monitor.deleted"),
    ];
    let mut covered = BTreeSet::new();
    for (method, path, body, action) in steps {
        let before = entries(&caller).await;
        let request = caller.request(method.clone(), &path);
        let request = if body.is_null() {
            request
        } else {
            request.json(&body)
        };

        let answer = caller.send(request).await;

        assert!(
            answer.status.is_success(),
            "{method} {path}: {} {}",
            answer.status,
            answer.json
        );
        let after = entries(&caller).await;
        assert_eq!(after.len(), before.len() + 1, "{method} {path}: {after:#?}");
        let entry = &after[0];
        assert_eq!(
            (&entry["action"], &entry["actor"]["kind"], &entry["actor"]["id"]),
            (&json!(action), &json!("api_key"), &json!(key)),
            "{method} {path}"
        );
        assert_eq!(entry["remote_addr"], "127.0.0.1", "{method} {path}");
        if let Some(id) = path.split('/').nth(4).filter(|id| id.len() == 36)
            && !action.starts_with("tag.")
        {
            assert_eq!(entry["subject"]["id"], id, "{method} {path}");
        }
        covered.insert(contract().operation(&method, &path).unwrap());
    }

    let mutating: BTreeSet<_> = contract()
        .operations()
        .into_iter()
        .filter(|one| one.path.starts_with("/api/") && one.method != "get")
        // These are the SDK's reports, and computations.
        .filter(|one| one.path != "/api/v1/events" && !one.path.ends_with("/preview"))
        .collect();
    assert_eq!(covered, mutating);
    let rows: String = sqlx::query_scalar("SELECT string_agg(audit_entry::text, E'\n') FROM audit_entry")
        .fetch_one(&harness.pool)
        .await
        .unwrap();
    for secret in [
        "SECRET-7f3a",
        "hooks.example.com",
        &harness.api_key[8..],
        &harness.ping_key[8..],
    ] {
        assert!(!rows.contains(secret), "the audit trail contains a secret");
    }
    let changed = sqlx::query("UPDATE audit_entry SET action = 'x'")
        .execute(&harness.pool)
        .await;
    assert!(changed.unwrap_err().to_string().contains("cannot be changed"));
    harness.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn refused_and_failed_requests_leave_no_entry_and_filters_find_one() {
    let harness = harness::start().await;
    let caller = Caller::new(&harness);
    let job = json!({"slug": "job", "schedule": {"kind": "interval", "seconds": 60}});
    let monitor = caller.post("/api/v1/monitors", &job).await;
    let id = monitor["id"].as_str().unwrap();
    let taken = caller.json(Method::POST, "/api/v1/monitors", &job).await;
    assert_eq!(taken.status, StatusCode::CONFLICT);
    let read = Caller::with_key(&harness, &harness.read_key);
    let refused = read.call(Method::DELETE, &format!("/api/v1/monitors/{id}")).await;
    assert_eq!(refused.status, StatusCode::FORBIDDEN);
    caller
        .call(
            Method::DELETE,
            &format!("/api/v1/monitors/{}", uuid::Uuid::now_v7()),
        )
        .await;
    // A monitor that a ping creates has the ping key as its actor.
    let url = format!(
        "{}/ping/{}/by-ping?create=1&period=60",
        harness.url, harness.ping_key
    );
    assert!(
        harness
            .client
            .get(url)
            .send()
            .await
            .unwrap()
            .status()
            .is_success()
    );

    let all = entries(&caller).await;

    let actions: Vec<&str> = all.iter().map(|one| one["action"].as_str().unwrap()).collect();
    assert_eq!(actions, ["monitor.created", "monitor.created"]);
    assert_eq!(all[0]["subject"]["name"], "by-ping");
    assert_eq!(all[1]["changed"], json!(["slug", "schedule"]));
    let key = own_key(&harness).await;
    for (query, count) in [
        (format!("subject_id={id}"), 1),
        (format!("actor_id={key}"), 1),
        ("action=monitor.created".to_owned(), 2),
        ("action=monitor.deleted".to_owned(), 0),
        ("since=2100-01-01T00:00:00Z".to_owned(), 0),
        ("until=2100-01-01T00:00:00Z".to_owned(), 2),
    ] {
        let found = caller.get(&format!("/api/v1/audit-entries?{query}")).await;
        assert_eq!(
            found["audit_entries"].as_array().map(Vec::len),
            Some(count),
            "{query}"
        );
    }
    for bad in ["action=monitor", "since=yesterday", "subject_id=1", "who=me"] {
        let answer = caller
            .call(Method::GET, &format!("/api/v1/audit-entries?{bad}"))
            .await;
        assert_eq!(answer.status, StatusCode::BAD_REQUEST, "{bad}");
    }
    let lines = harness
        .request(Method::GET, "/api/v1/audit-entries?limit=1")
        .header("accept", "application/x-ndjson")
        .send()
        .await
        .unwrap();
    let next = lines.headers()["x-next-cursor"].to_str().unwrap().to_owned();
    let text = lines.text().await.unwrap();
    assert_eq!(serde_json::from_str::<Value>(text.trim_end()).unwrap(), all[0]);
    assert_eq!(next, all[0]["id"].as_str().unwrap());
    harness.stop().await;
}
