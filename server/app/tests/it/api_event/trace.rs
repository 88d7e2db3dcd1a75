//! The history of runs, as three processes report it and as a person reads it.

use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use uuid::Uuid;

use super::{accepted, batch_of, by_entry, entry, every, run, schedule, send};
use crate::contract::Caller;
use crate::harness;

/// A stage of a run that Beat did not send.
fn of_nobody(kind: &str, id: Uuid, at: &str, more: Value) -> Value {
    let mut event = run(kind, "", id, more);
    event["entry"] = Value::Null;
    event["at"] = json!(format!("2026-03-02T01:00:{at}Z"));
    event
}

/// Returns the stages of a whole run: of its publisher, of the worker's main process, and of the child process.
fn whole_run(id: Uuid, task: &str, outcome: &str) -> [Vec<Value>; 3] {
    let attempt = Uuid::new_v4();
    let common = json!({"task": task, "queue": "mail"});
    let with = |more: Value| {
        let mut fields = common.clone();
        fields
            .as_object_mut()
            .unwrap()
            .extend(more.as_object().unwrap().clone());
        fields
    };
    [
        vec![of_nobody(
            "run_published",
            id,
            "01",
            with(json!({"worker": null})),
        )],
        vec![of_nobody(
            "run_received",
            id,
            "02",
            with(json!({"redelivered": false})),
        )],
        vec![
            of_nobody(
                "run_started",
                id,
                "03",
                with(json!({"attempt": attempt, "pid": 4711})),
            ),
            of_nobody(
                "run_finished",
                id,
                "05",
                with(json!({"attempt": attempt, "outcome": outcome, "duration_seconds": 1.75})),
            ),
        ],
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_that_beat_did_not_send_is_reported_from_its_publishing_to_its_end_in_whatever_order() {
    // Each request states its sender's time, from which the server computes the clock skew. With a stopped clock, all requests have the same skew.
    let (harness, _) = harness::start_at("2026-03-02T01:00:10Z").await;
    let (caller, sdk) = (
        Caller::new(&harness),
        Caller::with_key(&harness, &harness.ping_key),
    );
    let id = Uuid::new_v4();
    let [published, received, ran] = whole_run(id, "shop.mail", "success");

    for events in [&ran, &published, &received, &ran, &published] {
        accepted(&sdk, events).await;
    }

    let seen = caller.get(&format!("/api/v1/runs/{id}")).await;
    for (field, value) in [
        ("state", json!("success")),
        ("entry", Value::Null),
        ("monitor_id", Value::Null),
        ("task", json!("shop.mail")),
        ("queue", json!("mail")),
        ("worker", json!("celery@w1")),
        ("wait_seconds", json!(2)),
        ("run_seconds", json!(1.75)),
        ("attempts", json!(1)),
        ("error", Value::Null),
        ("more_stages", json!(0)),
    ] {
        assert_eq!(seen[field], value, "{field}");
    }
    let kinds: Vec<&Value> = seen["stages"]
        .as_array()
        .unwrap()
        .iter()
        .map(|stage| &stage["kind"])
        .collect();
    assert_eq!(kinds, ["published", "received", "started", "finished"]);
    assert_eq!(seen["stages"][2]["pid"], 4711);
    // No monitor received a ping.
    assert!(caller.pages("/api/v1/monitors", 5).await.is_empty());
    harness.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_that_beat_sent_is_both_in_the_history_and_a_ping_of_its_monitor() {
    let harness = harness::start().await;
    let (caller, sdk) = (
        Caller::new(&harness),
        Caller::with_key(&harness, &harness.ping_key),
    );
    let id = Uuid::new_v4();

    accepted(
        &sdk,
        &[
            schedule(&[entry("a", every(3600.0))]),
            run(
                "run_published",
                "a",
                id,
                json!({"queue": "celery", "worker": null}),
            ),
            run("run_started", "a", id, json!({})),
            run(
                "run_finished",
                "a",
                id,
                json!({"outcome": "failure", "error": "KeyError"}),
            ),
        ],
    )
    .await;

    let monitor = by_entry(&caller, "a").await;
    assert_eq!(
        (&monitor["status"], &monitor["ping_count"]),
        (&json!("down"), &json!(2))
    );
    let path = format!("/api/v1/runs?monitor_id={}", monitor["id"].as_str().unwrap());
    let runs = caller.pages(&path, 5).await;
    assert_eq!(runs.len(), 1);
    assert_eq!(
        (
            &runs[0]["run_id"],
            &runs[0]["state"],
            &runs[0]["error"],
            &runs[0]["entry"]
        ),
        (&json!(id), &json!("failure"), &json!("KeyError"), &json!("a"))
    );
    // A run of an unregistered entry leaves no trace either.
    let results = send(&sdk, &[run("run_published", "b", Uuid::new_v4(), json!({}))]).await;
    assert_eq!(results[0]["code"], "unknown_entry");
    assert_eq!(caller.pages("/api/v1/runs", 5).await.len(), 1);
    harness.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn runs_are_found_by_every_filter_and_paged() {
    let harness = harness::start().await;
    let (caller, sdk) = (
        Caller::new(&harness),
        Caller::with_key(&harness, &harness.ping_key),
    );
    let id = |n: u128| Uuid::from_u128(n);
    // Each run has its own request. Runs sort by the time of the first report, and within a request by their ids.
    for (n, task, outcome) in [(1, "a", "success"), (2, "a", "failure"), (3, "b", "success")] {
        accepted(&sdk, &whole_run(id(n), task, outcome).concat()).await;
    }
    let at_once: Vec<Value> = (4..9)
        .map(|n| {
            of_nobody(
                "run_started",
                id(n),
                "03",
                json!({"task": "c", "worker": "celery@w2", "queue": "slow"}),
            )
        })
        .collect();
    accepted(&sdk, &at_once).await;
    let named = json!({"task": "d", "task_id": "order-4711"});
    let order = Uuid::new_v5(&Uuid::NAMESPACE_OID, b"order-4711");
    accepted(&sdk, &[of_nobody("run_received", order, "03", named)]).await;

    let all = caller.pages("/api/v1/runs", 2).await;
    let mut expected: Vec<Uuid> = vec![order];
    expected.extend((1..9).rev().map(id));
    let ids = |runs: &[Value]| -> Vec<Uuid> {
        runs.iter()
            .map(|run| run["run_id"].as_str().unwrap().parse().unwrap())
            .collect()
    };
    assert_eq!(ids(&all), expected);
    let began = |n: usize| all[n]["heard_first_at"].as_str().unwrap().to_owned();
    for (query, found) in [
        ("task=a".to_owned(), vec![id(2), id(1)]),
        ("task=nobody".to_owned(), vec![]),
        ("task_id=order-4711".to_owned(), vec![order]),
        (format!("task_id={}", id(3)), vec![id(3)]),
        (format!("task_id={}&task=a", id(3)), vec![]),
        ("state=success".to_owned(), vec![id(3), id(1)]),
        ("state=failed".to_owned(), vec![id(2)]),
        ("state=failed&task=a&queue=mail".to_owned(), vec![id(2)]),
        ("state=received".to_owned(), vec![order]),
        (
            "worker=celery@w2&state=open".to_owned(),
            (4..9).rev().map(id).collect(),
        ),
        ("queue=slow&task=b".to_owned(), vec![]),
        (format!("from={}&to={}", began(7), began(6)), vec![id(2)]),
        (format!("monitor_id={}", Uuid::new_v4()), vec![]),
    ] {
        let runs = caller.pages(&format!("/api/v1/runs?{query}"), 2).await;
        assert_eq!(ids(&runs), found, "{query}");
    }
    harness.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn tasks_show_how_many_failed_and_how_long_they_waited_and_took() {
    let harness = harness::start().await;
    let (caller, sdk) = (
        Caller::new(&harness),
        Caller::with_key(&harness, &harness.ping_key),
    );
    for (n, task, outcome) in [
        (1, "a", "success"),
        (2, "a", "failure"),
        (3, "a", "success"),
        (4, "b", "ignored"),
    ] {
        accepted(&sdk, &whole_run(Uuid::from_u128(n), task, outcome).concat()).await;
    }
    accepted(
        &sdk,
        &[of_nobody(
            "run_received",
            Uuid::from_u128(5),
            "02",
            json!({"task": "a"}),
        )],
    )
    .await;

    let seen = caller.get("/api/v1/tasks").await;

    assert_eq!(seen["runs"], 5);
    let (a, b) = (&seen["tasks"][0], &seen["tasks"][1]);
    for (field, value) in [
        ("task", json!("a")),
        ("runs", json!(4)),
        ("ended", json!(3)),
        ("failed", json!(1)),
        ("wait_p50_seconds", json!(2)),
        ("run_p95_seconds", json!(1.75)),
    ] {
        assert_eq!(a[field], value, "{field}");
    }
    assert!((a["failure_ratio"].as_f64().unwrap() - 1.0 / 3.0).abs() < 1e-9);
    assert!(a["runs_per_minute"].as_f64().unwrap() > 0.0);
    assert_eq!((&b["task"], &b["failure_ratio"]), (&json!("b"), &json!(0)));
    let before = caller.get("/api/v1/tasks?to=2026-03-01T00:00:00Z").await;
    assert_eq!((&before["runs"], &before["tasks"]), (&json!(0), &json!([])));
    harness.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn strange_stages_are_kept_within_bounds() {
    let harness = harness::start().await;
    let (caller, sdk) = (
        Caller::new(&harness),
        Caller::with_key(&harness, &harness.ping_key),
    );
    let id = Uuid::new_v4();
    let long = "é\u{0}".repeat(5_000);
    let strange = of_nobody(
        "run_received",
        id,
        "03",
        json!({"beat": "a\u{0}b", "task": long, "task_id": long, "worker": long, "queue": long, "retries": -5, "pid": -1,
            "eta": "+262142-01-01T00:00:00Z", "published_at": "-262143-01-01T00:00:00Z"}),
    );
    let results = send(&sdk, &[strange]).await;
    assert_eq!(results[0]["status"], "accepted", "{}", results[0]);
    // A poison message: a batch reports very many deliveries of it.
    let again: Vec<Value> = (0..500)
        .map(|_| {
            of_nobody(
                "run_received",
                id,
                "04",
                json!({"redelivered": true, "task": "x"}),
            )
        })
        .collect();
    accepted(&sdk, &again).await;

    let seen = caller.get(&format!("/api/v1/runs/{id}")).await;
    assert_eq!(seen["stages"].as_array().map(Vec::len), Some(64));
    assert_eq!(seen["more_stages"], 437);
    for field in ["task", "task_id"] {
        assert_eq!(seen[field].as_str().unwrap().chars().count(), 255, "{field}");
    }
    assert_eq!(
        (&seen["eta"], &seen["published_at"], &seen["retries"]),
        (&Value::Null, &Value::Null, &json!(0))
    );
    assert_eq!(seen["app"], "a\u{fffd}b");
    for (field, value) in [
        ("attempt", json!("x")),
        ("pid", json!("1")),
        ("eta", json!("soon")),
        ("redelivered", json!(1)),
    ] {
        let mut bad = of_nobody("run_started", Uuid::new_v4(), "03", json!({}));
        bad[field] = value;
        let answer = sdk
            .send(
                sdk.request(Method::POST, "/api/v1/events")
                    .json(&batch_of(&[bad])),
            )
            .await;
        assert_eq!(answer.status, StatusCode::OK);
        assert_eq!(answer.json["results"][0]["code"], "invalid_event", "{field}");
    }
    harness.stop().await;
}
