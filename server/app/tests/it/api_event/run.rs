//! Workers report runs.

use serde_json::{Value, json};
use uuid::Uuid;

use super::{accepted, by_entry, entry, every, path, run, schedule};
use crate::contract::Caller;
use crate::harness;

#[tokio::test(flavor = "multi_thread")]
async fn a_start_and_an_end_are_one_run() {
    let harness = harness::start().await;
    let (caller, sdk) = (
        Caller::new(&harness),
        Caller::with_key(&harness, &harness.ping_key),
    );
    let id = Uuid::new_v4();
    let begun = run("run_started", "a", id, json!({"at": "2026-03-02T01:00:01Z"}));
    let ended = json!({"outcome": "success", "duration_seconds": 7.25, "error": null, "at": "2026-03-02T01:00:08.25Z"});

    accepted(&sdk, &[schedule(&[entry("a", every(3600.0))]), begun]).await;
    let running = by_entry(&caller, "a").await;
    assert_eq!(running["running"], true);
    accepted(&sdk, &[run("run_finished", "a", id, ended)]).await;

    let monitor = caller.get(&path(&running)).await;
    assert_eq!(
        (
            &monitor["status"],
            &monitor["running"],
            &monitor["last_duration_seconds"]
        ),
        (&json!("up"), &json!(false), &json!(7.25))
    );
    assert_eq!(monitor["ping_count"], 2);
    let runs = caller.pages(&format!("{}/runs", path(&monitor)), 5).await;
    assert_eq!(runs.len(), 1);
    assert_eq!(
        (
            &runs[0]["run_id"],
            &runs[0]["status"],
            &runs[0]["duration_seconds"]
        ),
        (&json!(id), &json!("success"), &json!(7.25))
    );
    assert_eq!(
        (&runs[0]["task"], &runs[0]["worker"], &runs[0]["retries"]),
        (&json!("shop.tasks.x"), &json!("celery@w1"), &json!(0))
    );
    let pings = caller.pages(&format!("{}/pings", path(&monitor)), 5).await;
    assert!(
        pings
            .iter()
            .all(|ping| ping["source"] == "event" && ping["run_id"] == json!(id))
    );
    harness.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_retry_is_no_failure_and_its_run_goes_on() {
    let harness = harness::start().await;
    let (caller, sdk) = (
        Caller::new(&harness),
        Caller::with_key(&harness, &harness.ping_key),
    );
    let id = Uuid::new_v4();
    accepted(&sdk, &[schedule(&[entry("a", every(3600.0))])]).await;

    accepted(
        &sdk,
        &[
            run("run_started", "a", id, json!({})),
            run("run_retried", "a", id, json!({"error": "Timeout"})),
            run("run_started", "a", id, json!({"retries": 1})),
            run("run_retried", "a", id, json!({"retries": 1, "error": "Timeout"})),
            run("run_started", "a", id, json!({"retries": 2})),
        ],
    )
    .await;
    let monitor = by_entry(&caller, "a").await;
    assert_eq!(
        (&monitor["running"], &monitor["status"]),
        (&json!(true), &json!("new"))
    );
    accepted(
        &sdk,
        &[run(
            "run_finished",
            "a",
            id,
            json!({"retries": 2, "outcome": "success"}),
        )],
    )
    .await;

    let runs = caller.pages(&format!("{}/runs", path(&monitor)), 5).await;
    assert_eq!(runs.len(), 1);
    assert_eq!(
        (&runs[0]["status"], &runs[0]["retries"]),
        (&json!("success"), &json!(2))
    );
    assert!(caller.pages("/api/v1/incidents", 5).await.is_empty());
    harness.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_bad_outcome_is_a_failure_that_names_itself() {
    let harness = harness::start().await;
    let (caller, sdk) = (
        Caller::new(&harness),
        Caller::with_key(&harness, &harness.ping_key),
    );
    // Each outcome has an entry of its own: an entry that fails several times in an hour flaps.
    let names = ["a", "b", "c", "d", "e", "f", "g", "h"];
    let entries = names.map(|name| entry(name, every(3600.0)));
    accepted(&sdk, &[schedule(&entries)]).await;

    let outcomes = [
        ("failure", json!("KeyError"), "FAILED", "KeyError"),
        (
            "retries_exhausted",
            json!("KeyError"),
            "RETRIES_EXHAUSTED",
            "KeyError",
        ),
        ("rejected", Value::Null, "REJECTED", "rejected"),
        ("aborted", Value::Null, "FAILED", "aborted"),
        ("revoked", Value::Null, "REVOKED", "revoked"),
        ("expired", Value::Null, "EXPIRED", "expired"),
        (
            "time_limit",
            json!("TimeLimitExceeded"),
            "TIME_LIMIT",
            "time limit",
        ),
        ("lost", json!("WorkerLostError"), "WORKER_KILLED", "killed"),
    ];
    for (name, (outcome, error, code, named)) in names.into_iter().zip(outcomes) {
        accepted(
            &sdk,
            &[run(
                "run_finished",
                name,
                Uuid::new_v4(),
                json!({"outcome": outcome, "error": error}),
            )],
        )
        .await;
        let open = caller.pages("/api/v1/incidents?state=open", 5).await;
        assert_eq!(
            (open.len(), &open[0]["cause"]["code"]),
            (1, &json!(code)),
            "{outcome}"
        );
        assert!(
            open[0]["cause"]["summary"].as_str().unwrap().contains(named),
            "{outcome}: {}",
            open[0]
        );
        let good = if outcome == "lost" { "ignored" } else { "success" };
        accepted(
            &sdk,
            &[run(
                "run_finished",
                name,
                Uuid::new_v4(),
                json!({"outcome": good}),
            )],
        )
        .await;
        assert!(caller.pages("/api/v1/incidents?state=open", 5).await.is_empty());
    }
    harness.stop().await;
}
