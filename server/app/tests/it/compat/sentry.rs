//! Sentry Crons, as its SDKs, `sentry-cli` and curl send check-ins.

mod limits;
mod unknown;

use std::io::Write;

use chrono::TimeDelta;
use flate2::Compression;
use flate2::write::GzEncoder;
use reqwest::{Method, RequestBuilder, StatusCode};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::harness::{self, Harness};

const NIL: &str = "00000000000000000000000000000000";

/// Frames one item as Sentry's Python SDK does.
fn framed(kind: &str, payload: &Value) -> String {
    let payload = payload.to_string();
    let header = json!({"type": kind, "content_type": "application/json", "length": payload.len()});
    format!("{{\"event_id\":\"0123456789abcdef0123456789abcdef\"}}\n{header}\n{payload}\n")
}

fn check_in(slug: &str, status: &str, id: &str, config: &Value) -> Value {
    let mut item = json!({"type": "check_in", "monitor_slug": slug, "check_in_id": id, "status": status, "duration": null,
        "environment": "production", "release": "web@1.2.3"});
    if !config.is_null() {
        item["monitor_config"] = config.clone();
    }
    item
}

fn crontab(value: &str) -> Value {
    json!({"schedule": {"type": "crontab", "value": value}, "timezone": "Europe/Paris"})
}

fn to_envelope(harness: &Harness, key: &str) -> RequestBuilder {
    let auth = format!("Sentry sentry_key={key}, sentry_version=7, sentry_client=sentry.python/2.75.0");
    harness
        .client
        .post(format!("{}/api/1/envelope/", harness.url))
        .header("X-Sentry-Auth", auth)
}

/// Sends one check-in. Returns the status and the JSON of the answer.
async fn send(harness: &Harness, item: &Value) -> (StatusCode, Value) {
    let request = to_envelope(harness, &harness.ping_key).body(framed("check_in", item));
    let answer = request.send().await.unwrap();
    assert!(!answer.headers().contains_key("retry-after"));
    assert!(!answer.headers().contains_key("x-sentry-rate-limits"));
    (answer.status(), answer.json().await.unwrap())
}

async fn monitors(harness: &Harness) -> Vec<Value> {
    harness.get("/api/v1/monitors").await["monitors"]
        .as_array()
        .unwrap()
        .clone()
}

async fn monitor(harness: &Harness, slug: &str) -> Value {
    let found = harness.get(&format!("/api/v1/monitors?slug={slug}")).await;
    assert_eq!(found["monitors"].as_array().unwrap().len(), 1, "{slug}: {found}");
    found["monitors"][0].clone()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_check_in_makes_its_monitor_and_its_run_is_judged() {
    let (harness, clock) = harness::start_at("2026-07-01T01:59:59Z").await;
    let id = Uuid::new_v4().simple().to_string();
    let config = crontab("0 4 * * *");

    let (status, answer) = send(&harness, &check_in("nightly", "in_progress", &id, &config)).await;
    assert_eq!(
        (status, answer),
        (StatusCode::OK, json!({"id": "0123456789abcdef0123456789abcdef"}))
    );
    let made = monitor(&harness, "nightly").await;
    assert_eq!(made["name"], "nightly");
    assert_eq!(made["tags"], json!(["sentry"]));
    assert_eq!(
        made["schedule"],
        json!({"kind": "cron", "expression": "0 4 * * *", "timezone": "Europe/Paris"})
    );
    assert_eq!(
        (&made["grace_seconds"], &made["longest_run_seconds"]),
        (&json!(60), &json!(1_800))
    );
    assert_eq!((&made["running"], &made["ping_count"]), (&json!(true), &json!(1)));

    // A retry of Celery sends an error, and the success of the next try has the same id.
    clock.advance(TimeDelta::minutes(1));
    send(&harness, &check_in("nightly", "error", &id, &config)).await;
    assert_eq!(monitor(&harness, "nightly").await["status"], "down");
    let mut ok = check_in("nightly", "ok", &id, &config);
    ok["duration"] = json!(61.5);
    send(&harness, &ok).await;
    let up = monitor(&harness, "nightly").await;
    assert_eq!(
        (&up["status"], &up["last_duration_seconds"]),
        (&json!("up"), &json!(61.5))
    );

    // The next night nothing comes.
    clock.advance(TimeDelta::hours(25));
    harness.swept(&clock).await;
    let incidents = harness.get("/api/v1/incidents").await;
    let causes: Vec<&Value> = incidents["incidents"]
        .as_array()
        .unwrap()
        .iter()
        .map(|one| &one["cause"]["code"])
        .collect();
    assert_eq!(causes, ["MISSED", "FAILED"]);
    harness.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_way_to_send_a_key_and_a_body_is_taken() {
    let harness = harness::start().await;
    let key = &harness.ping_key;
    let url = format!("{}/api/42/envelope/", harness.url);
    let with_key =
        format!("{url}?sentry_key={key}&sentry_version=7&sentry_client=sentry.javascript.node%2F9.47.2");
    let sentry = format!("Sentry sentry_key={key}, sentry_version=7");
    let dsn = format!("{{\"dsn\":\"http://{key}@127.0.0.1/42\"}}\n");
    let item = |n: usize| {
        framed(
            "check_in",
            &check_in(&format!("job-{n}"), "ok", NIL, &crontab("* * * * *")),
        )
    };
    let gzip = |text: &str| {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
        encoder.write_all(text.as_bytes()).unwrap();
        encoder.finish().unwrap()
    };
    let post = |url: &str| harness.client.post(url);
    let requests = [
        post(&url).header("X-Sentry-Auth", &sentry).body(item(0)),
        post(&url).header("Authorization", &sentry).body(item(1)),
        post(&url).basic_auth(key, Some("secret")).body(item(2)),
        post(&with_key).body(item(3)),
        post(&url).body(item(4).replace("{\"event_id\":\"0123456789abcdef0123456789abcdef\"}\n", &dsn)),
        post(&with_key)
            .header("Content-Encoding", "gzip")
            .body(gzip(&item(5))),
        // Node sends no lengths.
        post(&with_key).body(format!(
            "{{}}\n{{\"type\":\"check_in\"}}\n{}",
            check_in("job-6", "ok", NIL, &crontab("@hourly"))
        )),
        post(&with_key.replace("/api/", "/some/prefix/api/")).body(item(7)),
        post(&with_key.replace("envelope/", "envelope")).body(item(8)),
    ];
    let count = requests.len();
    for (n, request) in requests.into_iter().enumerate() {
        let answer = request.send().await.unwrap();
        assert_eq!(answer.status(), StatusCode::OK, "{n}");
        let answer: Value = answer.json().await.unwrap();
        assert_eq!(answer["errors"], Value::Null, "{n}");
    }
    for n in 0..count {
        assert_eq!(monitor(&harness, &format!("job-{n}")).await["status"], "up");
    }
    harness.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn everything_else_that_an_sdk_sends_is_answered_and_dropped() {
    let harness = harness::start().await;
    for kind in [
        "event",
        "transaction",
        "session",
        "log",
        "profile",
        "attachment",
        "check_ins",
        "client_report",
    ] {
        let item =
            json!({"discarded_events": [{"reason": "network_error", "category": "monitor", "quantity": 2}]});
        let answer = to_envelope(&harness, &harness.ping_key)
            .body(framed(kind, &item))
            .send()
            .await
            .unwrap();
        assert_eq!(answer.status(), StatusCode::OK, "{kind}");
    }
    for path in ["/api/1/store/", "/api/1/store", "/prefix/api/1/store/"] {
        let answer = harness
            .client
            .post(format!("{}{path}", harness.url))
            .body("{}")
            .send()
            .await
            .unwrap();
        assert_eq!(answer.status(), StatusCode::OK, "{path}");
    }
    assert_eq!(monitors(&harness).await, Vec::<Value>::new());
    harness.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_key_is_refused_as_sentry_refuses_it() {
    let harness = harness::start().await;
    let item = framed("check_in", &check_in("job", "ok", NIL, &crontab("* * * * *")));
    let unknown = "dbp_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";
    let url = format!("{}/api/1/envelope/", harness.url);
    let post = || harness.client.post(&url).body(item.clone());
    for (request, status) in [
        (to_envelope(&harness, unknown).body(item.clone()), 403),
        (to_envelope(&harness, "nonsense").body(item.clone()), 403),
        // These keys may not report.
        (to_envelope(&harness, &harness.read_key).body(item.clone()), 403),
        (to_envelope(&harness, &harness.api_key).body(item.clone()), 403),
        (post(), 401),
        (post().header("X-Sentry-Auth", "Sentry sentry_version=7"), 400),
        (to_envelope(&harness, &harness.ping_key).body("no envelope"), 400),
        (
            to_envelope(&harness, &harness.ping_key)
                .header("Content-Encoding", "gzip")
                .body("plain"),
            400,
        ),
        (
            harness
                .client
                .get(format!("{}/api/1/cron/job/{unknown}?status=ok", harness.url)),
            403,
        ),
        (
            harness
                .client
                .get(format!("{}/api/1/cron/job?status=ok", harness.url)),
            401,
        ),
        (
            harness
                .client
                .get(format!("{}/api/1/cron/job/{}", harness.url, harness.ping_key)),
            400,
        ),
        (
            harness.client.get(format!(
                "{}/api/1/cron/job/{}?status=missed",
                harness.url, harness.ping_key
            )),
            400,
        ),
    ] {
        let answer = request.send().await.unwrap();
        let url = answer.url().path().to_owned();
        assert_eq!(answer.status(), status, "{url}");
        let answer: Value = answer.json().await.unwrap();
        assert!(answer["detail"].is_string(), "{url}: {answer}");
    }
    assert_eq!(monitors(&harness).await, Vec::<Value>::new());
    harness.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn curl_lines_report_with_and_without_settings() {
    let harness = harness::start().await;
    let key = &harness.ping_key;
    let url = |tail: &str| format!("{}/api/1/cron/{tail}", harness.url);
    let config = json!({"schedule": {"type": "interval", "value": 10, "unit": "minute"}, "checkin_margin": 5, "max_runtime": 2});

    // Nobody has made it yet, and the line cannot.
    let answer = harness
        .client
        .get(url(&format!("backup/{key}/?status=ok")))
        .send()
        .await
        .unwrap();
    assert_eq!(answer.status(), StatusCode::NOT_FOUND);
    let body = json!({"status": "in_progress", "monitor_slug": "another", "monitor_config": config});
    let made = harness
        .client
        .post(url(&format!("backup/{key}")))
        .json(&body)
        .send()
        .await
        .unwrap();
    assert_eq!(
        (made.status(), made.text().await.unwrap()),
        (StatusCode::ACCEPTED, String::new())
    );
    for tail in [
        format!("backup/{key}/?status=ok&duration=1.5"),
        format!("backup?sentry_key={key}&status=ok"),
        format!("backup/?sentry_key={key}&status=error&environment=production"),
    ] {
        let answer = harness.client.get(url(&tail)).send().await.unwrap();
        assert_eq!(answer.status(), StatusCode::ACCEPTED, "{tail}");
    }

    let seen = monitor(&harness, "backup").await;
    assert_eq!(seen["schedule"], json!({"kind": "interval", "seconds": 600}));
    assert_eq!(
        (&seen["grace_seconds"], &seen["longest_run_seconds"]),
        (&json!(300), &json!(120))
    );
    assert_eq!(
        (&seen["status"], &seen["ping_count"]),
        (&json!("down"), &json!(4))
    );
    assert_eq!(monitors(&harness).await.len(), 1);
    harness.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn names_and_environments_that_differ_are_watched_separately() {
    let harness = harness::start().await;
    let names = [
        "ab",
        "a.b",
        "a-b",
        "a b",
        "A.B",
        "tägliche Prüfung",
        "日報",
        &"x.".repeat(90),
    ];
    for name in names {
        for environment in ["production", "staging"] {
            let mut item = check_in(name, "ok", NIL, &crontab("* * * * *"));
            item["environment"] = json!(environment);
            let (status, answer) = send(&harness, &item).await;
            assert_eq!(
                (status, &answer["errors"]),
                (StatusCode::OK, &Value::Null),
                "{name}"
            );
        }
    }

    let made = monitors(&harness).await;
    assert_eq!(made.len(), names.len() * 2);
    let shown: Vec<&str> = made.iter().map(|one| one["name"].as_str().unwrap()).collect();
    for name in names {
        assert!(
            shown.contains(&name) && shown.contains(&format!("{name} (staging)").as_str()),
            "{name}: {shown:?}"
        );
    }
    // A slug that is one in Deadbeat, too, stays as it is: curl lines and ping URLs name the same monitor.
    assert_eq!(monitor(&harness, "ab").await["tags"], json!(["sentry"]));
    assert!(made.iter().all(|one| one["ping_count"] == 1), "{made:#?}");
    harness.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn settings_follow_the_client_except_where_a_person_decides() {
    let harness = harness::start().await;
    let report = async |config: &Value| send(&harness, &check_in("job", "ok", NIL, config)).await;
    report(&crontab("0 4 * * *")).await;
    let id = monitor(&harness, "job").await["id"].as_str().unwrap().to_owned();
    let path = format!("/api/v1/monitors/{id}");

    // The client names no margin, so the person's stays.
    harness
        .send(
            Method::PATCH,
            &path,
            &json!({"grace_seconds": 900, "name": "The job"}),
        )
        .await;
    report(&crontab("30 5 * * *")).await;
    let seen = harness.get(&path).await;
    assert_eq!(seen["schedule"]["expression"], "30 5 * * *");
    assert_eq!(
        (&seen["grace_seconds"], &seen["name"]),
        (&json!(900), &json!("The job"))
    );
    // Back to a schedule that was known before.
    report(&crontab("0 4 * * *")).await;
    assert_eq!(harness.get(&path).await["schedule"]["expression"], "0 4 * * *");

    // What cannot be read changes nothing, and the check-in counts.
    for config in [
        crontab("nonsense"),
        json!({"schedule": {"type": "crontab", "value": "0 4 * * *"}, "timezone": "Mars/Olympus"}),
        json!({"schedule": {"type": "interval", "value": 0, "unit": "minute"}}),
        json!({"schedule": {"type": "interval", "value": 2, "unit": "year"}}),
        json!({"schedule": {"type": "interval", "value": 2, "unit": "fortnight"}}),
        json!({"schedule": {"type": "crontab", "value": "0 4 * * *"}, "checkin_margin": -1}),
        json!({"schedule": {"type": "crontab", "value": "0 4 * * *"}, "max_runtime": "long"}),
        json!({"checkin_margin": 5}),
        json!({"schedule": 7}),
    ] {
        let before = harness.get(&path).await;
        let (status, answer) = report(&config).await;
        assert_eq!(
            (status, answer["errors"].as_array().map(Vec::len)),
            (StatusCode::OK, Some(1)),
            "{config}"
        );
        let after = harness.get(&path).await;
        assert_eq!(
            after["ping_count"],
            before["ping_count"].as_i64().unwrap() + 1,
            "{config}"
        );
        assert_eq!(
            (&after["schedule"], &after["grace_seconds"]),
            (&before["schedule"], &before["grace_seconds"]),
            "{config}"
        );
    }

    let mut config = crontab("0 4 * * *");
    (config["failure_issue_threshold"], config["recovery_threshold"]) = (json!(3), json!(2));
    report(&config).await;
    let seen = harness.get(&path).await;
    assert_eq!(
        (&seen["failure_threshold"], &seen["recovery_threshold"]),
        (&json!(3), &json!(2))
    );

    // Without the tag, the person decides alone.
    harness
        .send(Method::PATCH, &path, &json!({"tags": ["mine"]}))
        .await;
    let (status, answer) = report(&crontab("0 0 1 1 *")).await;
    assert_eq!((status, &answer["errors"]), (StatusCode::OK, &Value::Null));
    assert_eq!(harness.get(&path).await["schedule"]["expression"], "0 4 * * *");
    harness.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leaked_key_reaches_its_own_project_only_and_changes_no_monitor_of_a_person() {
    let harness = harness::start().await;
    let (other_api_key, other_ping_key) = harness.other_project().await;
    let mine = harness
        .monitor(json!({"name": "Job", "slug": "job", "schedule": {"kind": "interval", "seconds": 60}}))
        .await;

    let item = framed("check_in", &check_in("job", "ok", NIL, &crontab("0 0 1 1 *")));
    let theirs = to_envelope(&harness, &other_ping_key)
        .body(item.clone())
        .send()
        .await
        .unwrap();
    assert_eq!(theirs.status(), StatusCode::OK);
    to_envelope(&harness, &harness.ping_key)
        .body(item)
        .send()
        .await
        .unwrap();

    let seen = monitor(&harness, "job").await;
    assert_eq!((&seen["id"], &seen["ping_count"]), (&mine["id"], &json!(1)));
    assert_eq!(seen["schedule"], mine["schedule"]);
    let url = format!("{}/api/v1/monitors", harness.url);
    let other = harness
        .client
        .get(url)
        .bearer_auth(other_api_key)
        .send()
        .await
        .unwrap();
    let other: Value = other.json().await.unwrap();
    assert_eq!(other["monitors"][0]["ping_count"], 1);
    harness.stop().await;
}

/// `@sentry/node` sends both check-ins of a short run at once, and only the first one has settings.
#[tokio::test(flavor = "multi_thread")]
async fn the_end_of_a_run_may_overtake_the_check_in_that_makes_its_monitor() {
    let harness = harness::start().await;
    for n in 1..=5_u128 {
        let (slug, id) = (format!("job-{n}"), Uuid::from_u128(n).simple().to_string());
        let end = check_in(&slug, "ok", &id, &Value::Null);
        let begin = check_in(&slug, "in_progress", &id, &crontab("* * * * *"));
        let (end, begin) = tokio::join!(send(&harness, &end), send(&harness, &begin));

        for (status, answer) in [end, begin] {
            assert_eq!((status, &answer["errors"]), (StatusCode::OK, &Value::Null));
        }
        let seen = monitor(&harness, &slug).await;
        assert_eq!(
            (&seen["status"], &seen["running"], &seen["ping_count"]),
            (&json!("up"), &json!(false), &json!(2))
        );
    }
    let (_, answer) = send(&harness, &check_in("nobody", "ok", NIL, &Value::Null)).await;
    assert_eq!(answer["errors"].as_array().map(Vec::len), Some(1), "{answer}");
    harness.stop().await;
}
