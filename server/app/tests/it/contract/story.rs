//! A story that calls every operation, with success and with each fault. Each answer is checked by the contract.

mod alerts;
mod changes;
mod on_call;
mod people;

use std::collections::{BTreeMap, BTreeSet};

use deadbeat_testkit::receiver::Receiver;
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use uuid::Uuid;

use self::alerts::{channels, holds, incidents, snoozes_by_url};
use self::changes::changes;
use self::on_call::on_call;
use super::Caller;
use super::document::{Operation, contract};
use crate::harness::{self, Harness};

fn id(value: &Value) -> &str {
    value["id"].as_str().unwrap()
}

fn path_of(monitor: &Value) -> String {
    let url = monitor["ping_url"].as_str().unwrap();
    url[url.find("/ping/").unwrap()..].to_owned()
}

async fn expect(caller: &Caller<'_>, method: Method, path: &str, body: &Value, status: u16) {
    let answer = caller.json(method.clone(), path, body).await;
    assert_eq!(
        answer.status.as_u16(),
        status,
        "{method} {path} {body}: {}",
        answer.json
    );
}

async fn monitors(caller: &Caller<'_>) -> Value {
    let daily = json!({"kind": "cron", "expression": "@daily"});
    let first = json!({"name": "Nightly backup", "schedule": {"kind": "cron", "expression": "0 2 * * *", "timezone": "Europe/Berlin"},
        "grace_seconds": 900, "longest_run_seconds": 3600.5, "tags": ["prod", "db", "prod"], "channels": [],
        "severity": "critical", "failure_threshold": 1, "recovery_threshold": 2});
    let monitor = caller.post("/api/v1/monitors", &first).await;
    let path = format!("/api/v1/monitors/{}", id(&monitor));
    for schedule in [
        json!({"kind": "interval", "seconds": 1}),
        json!({"kind": "interval", "seconds": 90.25}),
        json!({"kind": "interval", "seconds": 3600, "relative": true, "timezone": "Asia/Kolkata"}),
        json!({"kind": "celery"}),
        json!({"kind": "interval", "seconds": 60, "anchor": "2026-01-01T01:00:00+01:00"}),
        json!({"kind": "cron", "expression": "*/10 * * * * *"}),
        json!({"kind": "celery", "minute": "*/5", "hour": "22-2", "day_of_week": "mon,fri", "timezone": "US/Eastern"}),
        json!({"kind": "celery", "minute": 5, "hour": [22, 23], "day_of_month": "*"}),
        json!({"kind": "quartz", "expression": "0 0 12 ? * 2-6"}),
        json!({"kind": "oncalendar", "expression": "daily\nMon 12:00", "timezone": "Europe/Kiev"}),
        json!({"kind": "solar", "event": "sunset", "latitude": -33.9, "longitude": 18}),
    ] {
        caller
            .post(
                "/api/v1/monitors",
                &json!({"slug": Uuid::new_v4().simple().to_string(), "schedule": schedule}),
            )
            .await;
    }
    assert_eq!(caller.pages("/api/v1/monitors", 4).await.len(), 12);
    caller.get(&path).await;
    expect(
        caller,
        Method::PATCH,
        &path,
        &json!({"grace_seconds": 0, "longest_run_seconds": null, "channels": "all"}),
        200,
    )
    .await;
    expect(
        caller,
        Method::PUT,
        "/api/v1/monitors/as-code",
        &json!({"schedule": daily}),
        201,
    )
    .await;
    expect(
        caller,
        Method::PUT,
        "/api/v1/monitors/as-code",
        &json!({"name": "As code", "slug": "as-code"}),
        200,
    )
    .await;
    expect(caller, Method::POST, &format!("{path}/resume"), &json!(null), 409).await;
    expect(caller, Method::POST, &format!("{path}/pause"), &json!(null), 200).await;
    expect(
        caller,
        Method::POST,
        &format!("{path}/pause"),
        &json!({"ignored": 1}),
        200,
    )
    .await;
    expect(caller, Method::POST, &format!("{path}/resume"), &json!(null), 200).await;

    expect(caller, Method::GET, "/api/v1/monitors?limit=x", &json!(null), 400).await;
    expect(caller, Method::POST, "/api/v1/monitors", &json!({"name": 5}), 400).await;
    expect(
        caller,
        Method::POST,
        "/api/v1/monitors",
        &json!({"name": "as code", "schedule": daily}),
        409,
    )
    .await;
    expect(caller, Method::PATCH, &path, &json!({"slug": "as-code"}), 409).await;
    expect(caller, Method::PATCH, &path, &json!({"slug": ""}), 400).await;
    expect(
        caller,
        Method::PUT,
        "/api/v1/monitors/Upper",
        &json!({"schedule": daily}),
        400,
    )
    .await;
    monitor
}

async fn schedules(caller: &Caller<'_>) {
    let examples = contract()
        .part("/paths/~1api~1v1~1schedules~1preview/post/requestBody/content/application~1json/examples")
        .clone();
    let path = "/api/v1/schedules/preview";
    for example in examples.as_object().unwrap().values() {
        expect(caller, Method::POST, path, &example["value"], 200).await;
    }
    let alerted = caller.post(path, &examples["skipped"]["value"]).await;
    let example = contract().part("/components/schemas/Preview/examples/0");
    for field in ["slots", "summary", "schedule"] {
        assert_eq!(alerted[field], example[field]);
    }
    expect(
        caller,
        Method::POST,
        path,
        &json!({"schedule": {"kind": "cron", "expression": "0 25 * * *"}}),
        400,
    )
    .await;
}

async fn pings(caller: &Caller<'_>, harness: &Harness, monitor: &Value) {
    let by_id = path_of(monitor);
    let by_slug = format!("/ping/{}/{}", harness.ping_key, monitor["slug"].as_str().unwrap());
    let unknown = format!("/ping/{}", Uuid::new_v4());
    for root in ["/ping", ""] {
        let base = by_id.replacen("/ping", root, 1);
        let slug = by_slug.replacen("/ping", root, 1);
        let nobody = unknown.replacen("/ping", root, 1);
        let key = slug.rsplit_once('/').unwrap().0.to_owned();
        for method in [Method::GET, Method::HEAD, Method::POST, Method::PUT] {
            let new = Uuid::new_v4().simple().to_string();
            for (path, status) in [
                (base.clone(), 200),
                (format!("{base}/start?rid={}", Uuid::new_v4()), 200),
                (format!("{base}/7"), 200),
                (slug.clone(), 200),
                (format!("{slug}/start"), 200),
                (format!("{slug}/0"), 200),
                (format!("{key}/{new}?create=1&period=60&tags=a,b"), 201),
                (
                    format!("{key}/{new}x/start?create=1&cron=0+2+*+*+*&tz=Europe/Berlin&grace=3600"),
                    201,
                ),
                (format!("{key}/{new}y?create=1&schedule=30+0+2+*+*+*"), 201),
                (format!("{base}?rid=x"), 400),
                (format!("{base}/256"), 400),
                (format!("{slug}/300"), 400),
                (nobody.clone(), 404),
                (format!("{nobody}/start"), 404),
                (format!("{key}/nobody/fail"), 404),
            ] {
                let answer = caller
                    .send(caller.request(method.clone(), &path).body("output \0 of the job"))
                    .await;
                assert_eq!(answer.status.as_u16(), status, "{method} {path}");
            }
        }
        for path in [&base, &slug, &format!("{slug}/fail")] {
            assert_eq!(
                caller.call(Method::OPTIONS, path).await.status,
                StatusCode::NO_CONTENT
            );
        }
        for path in [
            format!("{base}x"),
            format!("{base}/nonsense"),
            format!("{slug}/nonsense"),
        ] {
            assert_eq!(
                caller.call(Method::OPTIONS, &path).await.status,
                StatusCode::NOT_FOUND,
                "{path}"
            );
        }
    }

    let path = format!("/api/v1/monitors/{}", id(monitor));
    let pings = caller.pages(&format!("{path}/pings"), 7).await;
    let body = pings.iter().find_map(|ping| ping["body_url"].as_str()).unwrap();
    assert_eq!(
        caller.call(Method::GET, body).await.bytes,
        b"output \0 of the job"
    );
    expect(
        caller,
        Method::GET,
        &format!("{path}/pings/999/body"),
        &json!(null),
        404,
    )
    .await;
    expect(
        caller,
        Method::GET,
        &format!("{path}/pings/x/body"),
        &json!(null),
        404,
    )
    .await;
    expect(
        caller,
        Method::GET,
        &format!("{path}/pings?cursor=x"),
        &json!(null),
        400,
    )
    .await;
    assert!(caller.pages(&format!("{path}/runs"), 3).await.len() > 3);
    expect(
        caller,
        Method::GET,
        &format!("{path}/runs?limit=501"),
        &json!(null),
        400,
    )
    .await;
}

async fn celery(caller: &Caller<'_>) {
    let examples = contract()
        .part("/paths/~1api~1v1~1events/post/requestBody/content/application~1json/examples")
        .clone();
    for name in ["schedule", "run", "due", "worker"] {
        let answer = caller.post("/api/v1/events", &examples[name]["value"]).await;
        let results = answer["results"].as_array().unwrap();
        assert!(
            !results.is_empty() && results.iter().all(|one| one["status"] == "accepted"),
            "{name}: {answer}"
        );
    }
    let batch = |events: Value| json!({"sent_at": "2026-03-01T02:00:00Z", "events": events, "more": 1});
    let run = json!({"id": Uuid::new_v4(), "type": "run_retried", "at": "2026-03-01T02:00:00Z", "beat": "shop", "entry": "nobody",
        "run_id": Uuid::new_v4(), "retries": 1});
    let entries = json!([{"name": "bad", "schedule": {"kind": "solar"}, "grace_seconds": 1}]);
    let schedule = json!({"id": Uuid::new_v4(), "type": "beat_schedule", "at": "2026-03-01T02:00:00Z", "beat": "other", "entries": entries});
    let request = caller
        .request(Method::POST, "/api/v1/events")
        .json(&batch(json!([run, {"type": "?"}, schedule, 5, null])));
    let answer = caller.send(request).await.json;
    let codes: Vec<&str> = answer["results"]
        .as_array()
        .unwrap()
        .iter()
        .map(|one| one["code"].as_str().unwrap())
        .collect();
    assert_eq!(
        codes,
        [
            "unknown_entry",
            "invalid_event",
            "some_entries",
            "invalid_event",
            "invalid_event"
        ]
    );
    expect(
        caller,
        Method::POST,
        "/api/v1/events",
        &json!({"events": []}),
        400,
    )
    .await;
}

async fn runs(caller: &Caller<'_>) {
    let runs = caller.pages("/api/v1/runs", 1).await;
    let run = runs.iter().find(|run| run["entry"] == "nightly-report").unwrap();
    assert_eq!(
        (&run["state"], &run["run_seconds"]),
        (&json!("success"), &json!(7.2))
    );
    let whole = caller
        .get(&format!("/api/v1/runs/{}", run["run_id"].as_str().unwrap()))
        .await;
    assert_eq!(whole["stages"].as_array().map(Vec::len), Some(4));
    let tasks = caller.get("/api/v1/tasks").await;
    assert_eq!(tasks["tasks"][0]["task"], "shop.tasks.report");
    for path in ["/api/v1/runs?state=great", "/api/v1/tasks?from=now"] {
        expect(caller, Method::GET, path, &json!(null), 400).await;
    }
}

async fn keys_and_project(caller: &Caller<'_>) {
    for scope in ["ping", "read", "write"] {
        let key = caller
            .post("/api/v1/api-keys", &json!({"name": "CI", "scope": scope}))
            .await;
        expect(
            caller,
            Method::DELETE,
            &format!("/api/v1/api-keys/{}", id(&key)),
            &json!(null),
            204,
        )
        .await;
    }
    people::limited_keys(caller).await;
    assert_eq!(caller.pages("/api/v1/api-keys", 2).await.len(), 8);
    expect(caller, Method::GET, "/api/v1/api-keys?limit=0", &json!(null), 400).await;
    expect(
        caller,
        Method::POST,
        "/api/v1/api-keys",
        &json!({"name": "CI", "scope": "root"}),
        400,
    )
    .await;

    assert!(caller.pages("/api/v1/audit-entries", 3).await.len() > 6);
    let path = "/api/v1/audit-entries?action=x";
    expect(caller, Method::GET, path, &json!(null), 400).await;

    caller.get("/api/v1/project").await;
    expect(
        caller,
        Method::PATCH,
        "/api/v1/project",
        &json!({"name": "Shop", "reminder_seconds": null}),
        200,
    )
    .await;
    expect(
        caller,
        Method::PATCH,
        "/api/v1/project",
        &json!({"reminder_seconds": 60}),
        200,
    )
    .await;
    expect(
        caller,
        Method::PATCH,
        "/api/v1/project",
        &json!({"reminder_seconds": 59}),
        400,
    )
    .await;
    let mut beats = caller.pages("/api/v1/beats", 1).await;
    beats.sort_by_key(|beat| beat["name"].to_string());
    expect(
        caller,
        Method::DELETE,
        &format!("/api/v1/beats/{}", id(&beats[0])),
        &json!(null),
        204,
    )
    .await;
    for path in [
        "/api/v1/beats",
        "/api/v1/workers",
        "/api/v1/queues",
        "/api/v1/brokers",
    ] {
        caller.get(path).await;
        expect(caller, Method::GET, &format!("{path}?limit=0"), &json!(null), 400).await;
    }
    caller.get("/api/v1/blind-spells").await;
    changes(caller).await;
    expect(
        caller,
        Method::GET,
        "/api/v1/blind-spells?limit=0",
        &json!(null),
        400,
    )
    .await;
}

/// Checks the faults that all operations share: an unknown id, too large a body, no key, and a key without the permission.
async fn common_faults(harness: &Harness, seen: &mut BTreeMap<Operation, BTreeSet<u16>>) {
    for operation in contract().operations() {
        let Some(scope) = contract().scope(&operation) else {
            continue;
        };
        let (right, wrong) = match scope.as_str() {
            "ping" => (&harness.ping_key, &harness.api_key),
            _ => (&harness.api_key, &harness.ping_key),
        };
        let url = format!(
            "{}{}",
            harness.url,
            super::routes::filled(&operation.path, harness)
        );
        let request = || harness.client.request(operation.http_method(), &url);
        let mut requests = vec![request(), request().bearer_auth(wrong)];
        if operation.path.contains("{id}") && operation.method != "put" {
            requests.push(request().bearer_auth(right).json(&json!({})));
        }
        if contract().wants_json(&operation) {
            requests.push(request().bearer_auth(right).body(vec![b' '; 1_000_001]));
        }
        let caller = Caller::new(harness);
        for request in requests {
            caller.send(request).await;
        }
        for (operation, statuses) in caller.seen() {
            seen.entry(operation).or_default().extend(statuses);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_operation_answers_as_the_contract_says_in_success_and_in_fault() {
    let harness = harness::start_confirming(None).await;
    let receiver = Receiver::start().await;
    let caller = Caller::new(&harness);
    let signals = Caller::with_key(&harness, &harness.ping_key);
    harness.ready().await;

    for path in ["/healthz", "/readyz", "/metrics"] {
        caller.call(Method::GET, path).await;
    }
    let monitor = monitors(&caller).await;
    schedules(&caller).await;
    pings(&caller, &harness, &monitor).await;
    channels(&caller, &harness.pool, &receiver).await;
    on_call(&caller).await;
    celery(&signals).await;
    // A monitor of a Beat has fields that no other monitor has.
    let of_beat = caller.pages("/api/v1/monitors?search=nightly-report", 1).await;
    assert!(of_beat[0]["beat_id"].is_string());
    runs(&caller).await;
    incidents(&caller).await;
    holds(&caller, &monitor).await;
    snoozes_by_url(&caller, &harness, &monitor).await;
    super::things::Things::member(&harness).await;
    keys_and_project(&caller).await;
    people::members_and_invitations(&caller).await;
    // On a slow machine, the reports in the examples have also opened incidents by now.
    let deliveries = caller.pages("/api/v1/deliveries", 2).await;
    let count = |alert: &str| deliveries.iter().filter(|one| one["alert"] == alert).count();
    // 20 tests of the webhook, and four confirmation mails.
    assert_eq!((count("test"), count("confirmation")), (20, 4));
    expect(
        &caller,
        Method::DELETE,
        &format!("/api/v1/monitors/{}", id(&monitor)),
        &json!(null),
        204,
    )
    .await;

    let mut seen = caller.seen();
    for (operation, statuses) in signals.seen() {
        seen.entry(operation).or_default().extend(statuses);
    }
    common_faults(&harness, &mut seen).await;
    // `outage` tests the 503s. A 500 is always a fault.
    for operation in contract().operations() {
        let listed: BTreeSet<u16> = contract()
            .statuses(&operation)
            .into_iter()
            // `hostile::limits` tests the 429s that the story does not cause.
            .filter(|status| *status < 500 && *status != 429)
            .collect();
        let mut found = seen.remove(&operation).unwrap_or_default();
        found.remove(&429);
        assert_eq!(found, listed, "{operation}");
    }
    harness.stop().await;
}
