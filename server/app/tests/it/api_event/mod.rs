//! `/api/v1/events`: the SDK reports Beat and its runs, and each event gets a verdict of its own.

mod batch;
mod due;
mod run;
mod schedule;
mod trace;

use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::contract::Caller;

/// An event of the Beat `shop`.
pub fn event(kind: &str, fields: Value) -> Value {
    let mut event = json!({"id": Uuid::new_v4(), "type": kind, "at": "2026-03-02T01:00:00Z", "beat": "shop"});
    event
        .as_object_mut()
        .unwrap()
        .extend(fields.as_object().unwrap().clone());
    event
}

/// A batch that the client sent ten seconds after its events.
pub fn batch_of(events: &[Value]) -> Value {
    json!({"sdk": {"name": "test"}, "sent_at": "2026-03-02T01:00:10Z", "events": events})
}

/// An entry of a schedule.
pub fn entry(name: &str, schedule: Value) -> Value {
    json!({"name": name, "task": "shop.tasks.x", "schedule": schedule, "enabled": true, "grace_seconds": 60.5,
        "longest_run_seconds": 600, "next_due_at": null})
}

/// An interval schedule.
pub fn every(seconds: f64) -> Value {
    json!({"kind": "interval", "seconds": seconds})
}

/// A `beat_schedule` event with all entries.
pub fn schedule(entries: &[Value]) -> Value {
    event("beat_schedule", json!({"entries": entries}))
}

/// An event about a run.
pub fn run(kind: &str, entry: &str, run: Uuid, more: Value) -> Value {
    let mut fields = json!({"entry": entry, "run_id": run, "task": "shop.tasks.x", "task_id": run, "worker": "celery@w1", "retries": 0});
    fields
        .as_object_mut()
        .unwrap()
        .extend(more.as_object().unwrap().clone());
    event(kind, fields)
}

/// Sends a batch that the server accepts. Returns the verdicts.
pub async fn send(sdk: &Caller<'_>, events: &[Value]) -> Vec<Value> {
    let answer = sdk
        .send(
            sdk.request(Method::POST, "/api/v1/events")
                .json(&batch_of(events)),
        )
        .await;
    assert_eq!(answer.status, StatusCode::OK, "{}", answer.json);
    let results = answer.json["results"].as_array().unwrap().clone();
    assert_eq!(results.len(), events.len());
    results
}

/// Sends a batch that follows the contract, and asserts that the server accepts every event.
pub async fn accepted(sdk: &Caller<'_>, events: &[Value]) {
    let answer = sdk.json(Method::POST, "/api/v1/events", &batch_of(events)).await;
    assert_eq!(answer.status, StatusCode::OK, "{}", answer.json);
    for (result, event) in answer.json["results"].as_array().unwrap().iter().zip(events) {
        assert_eq!(
            (&result["status"], &result["id"]),
            (&json!("accepted"), &event["id"]),
            "{event}: {result}"
        );
    }
}

/// Returns the monitor of an entry.
pub async fn by_entry(caller: &Caller<'_>, name: &str) -> Value {
    let monitors = caller.pages("/api/v1/monitors", 50).await;
    monitors
        .into_iter()
        .find(|monitor| monitor["entry"] == name)
        .unwrap_or_else(|| panic!("no monitor of {name}"))
}

/// Returns the API path of a monitor.
pub fn path(monitor: &Value) -> String {
    format!("/api/v1/monitors/{}", monitor["id"].as_str().unwrap())
}
