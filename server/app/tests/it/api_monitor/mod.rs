//! `/api/v1/monitors`: create, list, change, pause, resume, delete and upsert. Every answer is checked by the contract.

mod bad_input;

use std::collections::BTreeSet;
use std::sync::Arc;

use deadbeat_app::clock::SystemClock;
use deadbeat_services::operation::retention::{Retention, RetentionSettings};
use futures::future::join_all;
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::contract::Caller;
use crate::harness;

/// A schedule with a slot every hour.
pub fn hourly() -> Value {
    json!({"kind": "interval", "seconds": 3600})
}

/// Returns the API path of a monitor.
pub fn path(monitor: &Value) -> String {
    format!("/api/v1/monitors/{}", monitor["id"].as_str().unwrap())
}

fn names(monitors: &[Value]) -> Vec<&str> {
    monitors
        .iter()
        .map(|monitor| monitor["name"].as_str().unwrap())
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_created_monitor_is_as_asked_for_and_is_found_under_its_location() {
    let harness = harness::start().await;
    let caller = Caller::new(&harness);

    let plain = caller
        .post(
            "/api/v1/monitors",
            &json!({"name": "Nächtliche  Sicherung!", "schedule": hourly()}),
        )
        .await;
    let schedule = json!({"kind": "cron", "expression": "0  2 * * mon-fri", "timezone": "US/Eastern"});
    let body = json!({"name": "Full", "slug": "f_u-11", "schedule": schedule, "grace_seconds": 0.5, "longest_run_seconds": 1,
        "tags": ["b", "a", "b"], "channels": []});
    let answer = caller.json(Method::POST, "/api/v1/monitors", &body).await;

    assert_eq!(
        (plain["slug"].as_str(), plain["grace_seconds"].as_f64()),
        (Some("n-chtliche-sicherung"), Some(60.0))
    );
    assert_eq!(
        (&plain["longest_run_seconds"], &plain["channels"], &plain["tags"]),
        (&Value::Null, &json!("all"), &json!([]))
    );
    assert_eq!(
        (
            plain["status"].as_str(),
            &plain["deadline_at"],
            plain["running"].as_bool()
        ),
        (Some("new"), &Value::Null, Some(false))
    );
    assert_eq!(plain["schedule"], hourly());
    let full = &answer.json;
    assert_eq!(answer.headers["location"].to_str().unwrap(), path(full));
    assert_eq!(&caller.get(&path(full)).await, full);
    assert_eq!(
        full["schedule"],
        json!({"kind": "cron", "expression": "0 2 * * mon-fri", "timezone": "America/New_York"})
    );
    assert_eq!(
        (
            full["grace_seconds"].as_f64(),
            full["longest_run_seconds"].as_f64()
        ),
        (Some(0.5), Some(1.0))
    );
    assert_eq!(
        (&full["tags"], &full["channels"]),
        (&json!(["b", "a"]), &json!([]))
    );
    assert_ne!(
        full["ping_url"].as_str().unwrap().rsplit('/').next(),
        full["id"].as_str()
    );
    harness.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_list_can_be_narrowed_by_tag_slug_text_and_status() {
    let harness = harness::start().await;
    let caller = Caller::new(&harness);
    let make = async |name: &str, tags: Value| {
        caller
            .post(
                "/api/v1/monitors",
                &json!({"name": name, "tags": tags, "schedule": hourly(), "grace_seconds": 86400}),
            )
            .await
    };
    let up = make("Up 100%", json!(["prod", "db"])).await;
    let down = make("Down_now", json!(["prod"])).await;
    let paused = make("PAUSED ß", json!(["db"])).await;
    let late = make("Late", json!([])).await;
    make("New", json!(["prod", "db", "x"])).await;
    for (monitor, action) in [(&up, ""), (&down, "/fail"), (&late, "")] {
        harness
            .client
            .get(format!("{}{action}", monitor["ping_url"].as_str().unwrap()))
            .send()
            .await
            .unwrap();
    }
    caller
        .post(&format!("{}/pause", path(&paused)), &Value::Null)
        .await;
    // The monitor is past due, and within its grace.
    let past = "UPDATE monitor SET next_due_at = now() - interval '1 minute' WHERE slug = 'late'";
    sqlx::query(past).execute(&harness.pool).await.unwrap();

    for (query, expected) in [
        ("tag=prod", vec!["New", "Down_now", "Up 100%"]),
        ("tag=prod&tag=db", vec!["New", "Up 100%"]),
        ("tag=prod&tag=nothing", vec![]),
        ("tag=", vec![]),
        ("slug=down_now", vec!["Down_now"]),
        ("slug=down", vec![]),
        ("search=NOW", vec!["Down_now"]),
        ("search=%25", vec!["Up 100%"]),
        ("search=_", vec!["Down_now"]),
        ("search=paused%20%C3%9F", vec!["PAUSED ß"]),
        ("search=%27%3B--", vec![]),
        ("status=new", vec!["New"]),
        ("status=up", vec!["Up 100%"]),
        ("status=late", vec!["Late"]),
        ("status=down", vec!["Down_now"]),
        ("status=paused", vec!["PAUSED ß"]),
        ("status=up&tag=prod&search=up", vec!["Up 100%"]),
        ("status=up&tag=x", vec![]),
    ] {
        for limit in [1, 50] {
            let found = caller.pages(&format!("/api/v1/monitors?{query}"), limit).await;
            assert_eq!(names(&found), expected, "{query}");
        }
    }
    for monitor in caller.pages("/api/v1/monitors", 2).await {
        let status = monitor["status"].as_str().unwrap();
        let name = monitor["name"].as_str().unwrap().to_lowercase();
        assert!(name.starts_with(status), "{name} is shown as {status}");
    }
    harness.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn pages_repeat_nothing_and_miss_nothing_while_monitors_come_and_go() {
    let harness = harness::start().await;
    let caller = Caller::new(&harness);
    let make = async |name: String| {
        caller
            .post("/api/v1/monitors", &json!({"name": name, "schedule": hourly()}))
            .await
    };
    let mut expected = Vec::new();
    for number in 0..23 {
        expected.insert(0, make(format!("m{number}")).await);
    }

    for limit in [1, 5, 22, 23, 24, 500] {
        assert_eq!(
            caller.pages("/api/v1/monitors", limit).await,
            expected,
            "{limit} a page"
        );
    }
    let mut seen = Vec::new();
    let mut cursor = String::new();
    loop {
        let page = caller.get(&format!("/api/v1/monitors?limit=4{cursor}")).await;
        seen.extend(page["monitors"].as_array().unwrap().iter().cloned());
        // Between any two pages, one monitor is created and one that was shown is deleted.
        make(format!("later {}", seen.len())).await;
        caller.call(Method::DELETE, &path(seen.last().unwrap())).await;
        let Some(next) = page["next_cursor"].as_str() else {
            break;
        };
        cursor = format!("&cursor={next}");
    }
    assert_eq!(seen, expected);
    harness.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_changes_what_it_names_and_nothing_else() {
    let harness = harness::start().await;
    let caller = Caller::new(&harness);
    let body = json!({"name": "Job", "schedule": hourly(), "longest_run_seconds": 60, "tags": ["a"]});
    let mut before = caller.post("/api/v1/monitors", &body).await;

    for (change, more) in [
        (json!({}), &[][..]),
        (json!({"name": "Other"}), &[]),
        (json!({"slug": "other"}), &[]),
        (json!({"grace_seconds": 31_622_400}), &[]),
        (json!({"longest_run_seconds": 5.5}), &[]),
        (json!({"longest_run_seconds": null}), &[]),
        (json!({"tags": []}), &[]),
        (json!({"channels": []}), &[]),
        (json!({"channels": "all"}), &[]),
        (
            json!({"schedule": {"kind": "cron", "expression": "@daily", "timezone": "UTC"}}),
            &["schedule_summary", "next_due_at"],
        ),
    ] {
        let answer = caller.json(Method::PATCH, &path(&before), &change).await;
        assert_eq!(answer.status, StatusCode::OK, "{change}: {}", answer.json);
        for (field, value) in answer.json.as_object().unwrap() {
            match change.get(field) {
                Some(wanted) => assert_eq!(value, wanted, "{change}"),
                None if field == "updated_at" || more.contains(&field.as_str()) => {}
                None => assert_eq!(value, &before[field], "{change} changed {field}"),
            }
        }
        assert_eq!(caller.get(&path(&before)).await, answer.json);
        before = answer.json;
    }
    harness.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_paused_monitor_is_not_judged_until_it_is_resumed_or_pinged() {
    let harness = harness::start().await;
    let caller = Caller::new(&harness);
    let monitor = caller
        .post("/api/v1/monitors", &json!({"name": "Job", "schedule": hourly()}))
        .await;
    let ping = monitor["ping_url"].as_str().unwrap();
    harness.client.get(format!("{ping}/fail")).send().await.unwrap();
    assert_eq!(
        caller.get("/api/v1/incidents?state=open").await["incidents"]
            .as_array()
            .unwrap()
            .len(),
        1
    );

    for _ in 0..2 {
        let paused = caller
            .post(&format!("{}/pause", path(&monitor)), &Value::Null)
            .await;
        assert_eq!(
            (paused["status"].as_str(), &paused["deadline_at"]),
            (Some("paused"), &Value::Null)
        );
    }
    let incidents = caller.get("/api/v1/incidents").await;
    assert!(incidents["incidents"][0]["resolved_at"].is_string());
    let resumed = caller
        .post(&format!("{}/resume", path(&monitor)), &Value::Null)
        .await;
    assert_eq!(
        (resumed["status"].as_str(), &resumed["deadline_at"]),
        (Some("new"), &Value::Null)
    );
    let again = caller
        .call(Method::POST, &format!("{}/resume", path(&monitor)))
        .await;
    assert_eq!((again.status, again.code()), (StatusCode::CONFLICT, "conflict"));

    caller
        .post(&format!("{}/pause", path(&monitor)), &Value::Null)
        .await;
    harness.client.get(ping).send().await.unwrap();
    let pinged = caller.get(&path(&monitor)).await;
    assert_eq!(pinged["status"], "up");
    assert!(pinged["deadline_at"].is_string());
    harness.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deleted_monitor_is_gone_with_all_that_was_its() {
    let harness = harness::start().await;
    let caller = Caller::new(&harness);
    let body = json!({"name": "Job", "slug": "job", "schedule": hourly()});
    let monitor = caller.post("/api/v1/monitors", &body).await;
    let ping = monitor["ping_url"].as_str().unwrap();
    harness
        .client
        .post(format!("{ping}/start?rid={}", Uuid::new_v4()))
        .body("x")
        .send()
        .await
        .unwrap();
    harness.client.get(format!("{ping}/fail")).send().await.unwrap();

    assert_eq!(
        caller.call(Method::DELETE, &path(&monitor)).await.status,
        StatusCode::NO_CONTENT
    );

    for (method, rest) in [
        (Method::GET, ""),
        (Method::DELETE, ""),
        (Method::GET, "/pings"),
        (Method::GET, "/runs"),
        (Method::GET, "/pings/1/body"),
        (Method::POST, "/pause"),
        (Method::POST, "/resume"),
    ] {
        let answer = caller
            .call(method.clone(), &format!("{}{rest}", path(&monitor)))
            .await;
        assert_eq!(answer.status, StatusCode::NOT_FOUND, "{method} {rest}");
    }
    assert_eq!(
        harness.client.get(ping).send().await.unwrap().status(),
        StatusCode::NOT_FOUND
    );
    assert!(caller.get("/api/v1/incidents").await["incidents"][0]["resolved_at"].is_string());
    // The retention removes the pings after the request. The server's own retention may be running, too.
    let store = deadbeat_store::Store::from_pool(harness.pool.clone());
    let retention = Retention::new(
        store,
        Arc::new(SystemClock),
        RetentionSettings::default(),
        Arc::default(),
    );
    let removed = async {
        loop {
            retention.pass_once().await.unwrap();
            let left: i64 = sqlx::query_scalar(
                "SELECT (SELECT count(*) FROM ping) + (SELECT count(*) FROM ping_body) + (SELECT count(*) FROM run)",
            )
            .fetch_one(&harness.pool)
            .await
            .unwrap();
            if left == 0 {
                return;
            }
        }
    };
    tokio::time::timeout(harness::LIMIT, removed)
        .await
        .expect("nothing of the monitor is left");
    // The slug is free again, and the new monitor is a different one.
    assert_ne!(
        caller.post("/api/v1/monitors", &body).await["ping_url"],
        monitor["ping_url"]
    );
    harness.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn twenty_upserts_at_once_make_one_monitor() {
    let harness = harness::start().await;
    let caller = Caller::new(&harness);
    let body = json!({"name": "As code", "schedule": hourly(), "tags": ["x"]});

    let answers =
        join_all((0..20).map(|_| caller.json(Method::PUT, "/api/v1/monitors/as-code", &body))).await;

    let mut statuses: Vec<u16> = answers.iter().map(|answer| answer.status.as_u16()).collect();
    statuses.sort_unstable();
    assert_eq!(statuses, [[200; 19].as_slice(), &[201]].concat());
    let ids: BTreeSet<String> = answers
        .iter()
        .map(|answer| answer.json["id"].to_string())
        .collect();
    assert_eq!(ids.len(), 1);
    assert_eq!(caller.pages("/api/v1/monitors", 5).await.len(), 1);
    // Fields that the second request does not name stay unchanged.
    let changed = caller
        .json(
            Method::PUT,
            "/api/v1/monitors/as-code",
            &json!({"grace_seconds": 5}),
        )
        .await;
    assert_eq!(
        (changed.status, &changed.json["name"], &changed.json["tags"]),
        (StatusCode::OK, &json!("As code"), &json!(["x"]))
    );
    harness.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn twenty_creations_of_one_slug_at_once_make_one_monitor() {
    let harness = harness::start().await;
    let caller = Caller::new(&harness);
    let body = json!({"slug": "job", "schedule": hourly()});

    let answers = join_all((0..20).map(|_| caller.json(Method::POST, "/api/v1/monitors", &body))).await;

    assert_eq!(
        answers
            .iter()
            .filter(|answer| answer.status == StatusCode::CREATED)
            .count(),
        1
    );
    assert_eq!(
        answers
            .iter()
            .filter(|answer| answer.code() == "slug_taken")
            .count(),
        19
    );
    assert_eq!(caller.pages("/api/v1/monitors", 5).await.len(), 1);
    harness.stop().await;
}
