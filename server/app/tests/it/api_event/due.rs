//! Beat reports when the entries that it has just sent are next due. `services/tests/it/celery/beat/due_hint.rs` tests the rules of a hint.

use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use uuid::Uuid;

use super::{accepted, batch_of, by_entry, entry, event, every, path, run, schedule, send};
use crate::contract::{Caller, dump};
use crate::harness;

/// The time at which these tests send their batches, by every clock.
const NOW: &str = "2026-03-02T01:00:10Z";

/// An entry with a minute of grace whose schedule only Beat can compute.
fn by_rule(name: &str, next_due_at: Value) -> Value {
    json!({"name": name, "schedule": {"kind": "hint", "class": "rrule", "text": "FREQ=HOURLY"}, "grace_seconds": 60,
        "next_due_at": next_due_at})
}

fn due(entries: Value) -> Value {
    event("beat_due", json!({"entries": entries}))
}

fn one(name: &str, next_due_at: Value) -> Value {
    due(json!([{"name": name, "next_due_at": next_due_at}]))
}

/// Sends a batch at the time of the server's clock, whatever time the batches of the other tests have.
async fn accepted_at(sdk: &Caller<'_>, now: &str, events: &[Value]) {
    let mut batch = batch_of(events);
    batch["sent_at"] = json!(now);
    let answer = sdk.post("/api/v1/events", &batch).await;
    let results = answer["results"].as_array().unwrap();
    assert!(
        results.iter().all(|result| result["status"] == "accepted"),
        "{answer}"
    );
}

fn due_and_deadline(monitor: &Value) -> (Value, Value) {
    (monitor["next_due_at"].clone(), monitor["deadline_at"].clone())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_beat_alone_can_compute_lives_by_its_hint() {
    let (harness, clock) = harness::start_at(NOW).await;
    let (caller, sdk) = (
        Caller::new(&harness),
        Caller::with_key(&harness, &harness.ping_key),
    );
    let moved_to = |now: &str| clock.set(now.parse().unwrap());
    accepted(&sdk, &[schedule(&[by_rule("statement", Value::Null)])]).await;

    let unhinted = by_entry(&caller, "statement").await;
    assert_eq!(
        (
            unhinted["schedule"]["kind"].as_str(),
            unhinted["schedule_summary"].as_str()
        ),
        (
            Some("hint"),
            Some("at times that Beat computes (rrule: FREQ=HOURLY)")
        )
    );
    assert_eq!(
        due_and_deadline(&unhinted),
        (Value::Null, Value::Null),
        "Beat has sent no hint"
    );
    assert_eq!(unhinted["status"], "new");
    moved_to("2026-03-02T12:00:00Z");
    harness.swept(&clock).await;
    assert!(caller.pages("/api/v1/incidents", 5).await.is_empty());

    // Beat's hint arms the entry, its run satisfies the slot, and a hint that came meanwhile holds.
    let now = "2026-03-02T12:30:00Z";
    moved_to(now);
    accepted_at(&sdk, now, &[one("statement", json!("2026-03-02T13:00:00Z"))]).await;
    let at = path(&unhinted);
    let thirteen = (json!("2026-03-02T13:00:00Z"), json!("2026-03-02T13:01:00Z"));
    assert_eq!(due_and_deadline(&caller.get(&at).await), thirteen);
    let now = "2026-03-02T13:00:01Z";
    moved_to(now);
    accepted_at(&sdk, now, &[one("statement", json!("2026-03-02T14:00:00Z"))]).await;
    assert_eq!(
        due_and_deadline(&caller.get(&at).await),
        thirteen,
        "the run was sent, but has not ended"
    );
    let ended = run(
        "run_finished",
        "statement",
        Uuid::new_v4(),
        json!({"outcome": "success", "at": now}),
    );
    accepted_at(&sdk, now, &[ended]).await;
    let satisfied = caller.get(&at).await;
    assert_eq!(
        due_and_deadline(&satisfied),
        (json!("2026-03-02T14:00:00Z"), json!("2026-03-02T14:01:00Z"))
    );
    assert_eq!(satisfied["status"], "up");

    // Beat sends the next run, which never starts. Beat goes on.
    let now = "2026-03-02T14:00:01Z";
    moved_to(now);
    accepted_at(&sdk, now, &[one("statement", json!("2026-03-02T15:00:00Z"))]).await;
    moved_to("2026-03-02T14:01:00Z");
    harness.swept(&clock).await;
    assert!(
        caller.pages("/api/v1/incidents", 5).await.is_empty(),
        "the ping may still be written"
    );
    for now in [
        "2026-03-02T14:01:01Z",
        "2026-03-02T15:00:01Z",
        "2026-03-02T16:30:00Z",
    ] {
        moved_to(now);
        harness.swept(&clock).await;
        accepted_at(&sdk, now, &[one("statement", json!("2026-03-02T17:00:00Z"))]).await;
        let incidents = caller.pages("/api/v1/incidents", 5).await;
        assert_eq!(
            (incidents.len(), &incidents[0]["cause"]["code"]),
            (1, &json!("UNKNOWN")),
            "at {now}"
        );
    }

    // The entry runs again, and Beat reports that this was the last run.
    let now = "2026-03-02T17:00:01Z";
    moved_to(now);
    let ended = run(
        "run_finished",
        "statement",
        Uuid::new_v4(),
        json!({"outcome": "success", "at": now}),
    );
    accepted_at(&sdk, now, &[one("statement", Value::Null), ended]).await;
    let over = caller.get(&at).await;
    assert_eq!(
        (&over["status"], due_and_deadline(&over)),
        (&json!("up"), (Value::Null, Value::Null))
    );
    moved_to("2026-04-02T17:00:00Z");
    harness.swept(&clock).await;
    let incidents = caller.pages("/api/v1/incidents", 5).await;
    assert!(
        incidents.len() == 1 && incidents[0]["resolved_at"].is_string(),
        "{incidents:?}"
    );
    harness.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn beats_hint_wins_over_the_arithmetic_of_what_can_be_computed() {
    let (harness, _) = harness::start_at(NOW).await;
    let (caller, sdk) = (
        Caller::new(&harness),
        Caller::with_key(&harness, &harness.ping_key),
    );
    let nightly = json!({"kind": "celery", "minute": "0", "hour": "2"});
    accepted(
        &sdk,
        &[schedule(&[
            entry("nightly", nightly),
            entry("often", every(600.0)),
        ])],
    )
    .await;

    let reported = due(json!([
        {"name": "nightly", "next_due_at": "2026-03-02T02:30:00Z"},
        {"name": "often", "next_due_at": "2026-03-02T01:05:00+00:00"},
    ]));
    accepted(&sdk, &[reported]).await;

    assert_eq!(
        by_entry(&caller, "nightly").await["next_due_at"],
        "2026-03-02T02:30:00Z"
    );
    assert_eq!(
        by_entry(&caller, "often").await["next_due_at"],
        "2026-03-02T01:05:00Z"
    );
    // Deadbeat does not trust a hint that lies in the past, or after the slot after next.
    for odd in [json!("2026-03-04T03:00:00Z"), json!("2026-03-02T00:30:00Z")] {
        accepted(&sdk, &[one("nightly", odd.clone())]).await;
        let monitor = by_entry(&caller, "nightly").await;
        assert_eq!(monitor["next_due_at"], "2026-03-02T02:30:00Z", "{odd}");
    }
    // A one-off entry that Beat has sent is not expected again, whatever its crontab says.
    accepted(&sdk, &[one("nightly", Value::Null)]).await;
    assert_eq!(
        due_and_deadline(&by_entry(&caller, "nightly").await),
        (Value::Null, Value::Null)
    );
    harness.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_entry_of_the_sun_is_armed_at_once_and_by_beats_hint() {
    let (harness, _) = harness::start_at(NOW).await;
    let (caller, sdk) = (
        Caller::new(&harness),
        Caller::with_key(&harness, &harness.ping_key),
    );
    let sunset = json!({"kind": "solar", "event": "sunset", "latitude": 52.52, "longitude": 13.405});
    accepted(&sdk, &[schedule(&[entry("lights", sunset)])]).await;

    // The computed time of the sun depends slightly on the time of the computation, as in PyEphem. The second does not depend on it.
    let due_at = async || by_entry(&caller, "lights").await["next_due_at"].as_str().unwrap()[..19].to_owned();
    assert_eq!(due_at().await, "2026-03-02T16:47:03");
    assert!(by_entry(&caller, "lights").await["deadline_at"].is_string());
    // Beat's time differs by a few seconds from the server's. Both mean the same sunset.
    accepted(&sdk, &[one("lights", json!("2026-03-02T16:47:10Z"))]).await;
    assert_eq!(due_at().await, "2026-03-02T16:47:03");
    // When Beat's time differs by minutes, Beat's time counts.
    accepted(&sdk, &[one("lights", json!("2026-03-02T15:00:00Z"))]).await;
    assert_eq!(due_at().await, "2026-03-02T15:00:00");
    harness.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_times_of_a_clock_that_is_wrong_are_put_right() {
    let (harness, _) = harness::start_at(NOW).await;
    let (caller, sdk) = (
        Caller::new(&harness),
        Caller::with_key(&harness, &harness.ping_key),
    );
    accepted(&sdk, &[schedule(&[by_rule("a", Value::Null)])]).await;

    // By this Beat's clock, the time is an hour later.
    accepted_at(
        &sdk,
        "2026-03-02T02:00:10Z",
        &[one("a", json!("2026-03-02T03:00:10Z"))],
    )
    .await;

    assert_eq!(
        by_entry(&caller, "a").await["next_due_at"],
        "2026-03-02T02:00:10Z"
    );
    harness.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn names_and_beats_that_nobody_knows_are_passed_over() {
    let (harness, _) = harness::start_at(NOW).await;
    let (caller, sdk) = (
        Caller::new(&harness),
        Caller::with_key(&harness, &harness.ping_key),
    );
    let later = json!("2026-03-02T02:00:00Z");
    accepted(&sdk, &[schedule(&[by_rule("known", Value::Null)])]).await;
    let before = dump(&harness).await;

    let mut of_another_beat = one("known", later.clone());
    of_another_beat["beat"] = json!("nobody");
    let long = "x".repeat(5_000);
    let strangers = due(json!([
        {"name": "unknown", "next_due_at": later},
        {"name": "", "next_due_at": later},
        {"name": "known\u{0}", "next_due_at": later},
        {"name": "\u{0}", "next_due_at": null},
        {"name": long, "next_due_at": later},
        {"name": "Known", "next_due_at": later, "more": {"than": "the server knows"}},
    ]));
    let mut none = due(json!([]));
    none["more"] = json!(1);
    accepted(&sdk, &[of_another_beat, strangers.clone(), none]).await;
    assert_eq!(dump(&harness).await, before);

    // The batch names one known entry twice: the last hint counts.
    let mut mixed = strangers;
    let entries = mixed["entries"].as_array_mut().unwrap();
    entries.insert(0, json!({"name": "known", "next_due_at": null}));
    entries.push(json!({"name": "known", "next_due_at": later}));
    accepted(&sdk, &[mixed]).await;
    assert_eq!(by_entry(&caller, "known").await["next_due_at"], later);
    assert_eq!(caller.pages("/api/v1/monitors", 5).await.len(), 1);
    assert_eq!(
        caller.get("/api/v1/beats").await["beats"]
            .as_array()
            .unwrap()
            .len(),
        1
    );
    harness.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bad_value_is_rejected_alone() {
    let (harness, _) = harness::start_at(NOW).await;
    let (caller, sdk) = (
        Caller::new(&harness),
        Caller::with_key(&harness, &harness.ping_key),
    );
    let later = json!("2026-03-02T02:00:00Z");
    accepted(&sdk, &[schedule(&[by_rule("a", later.clone())])]).await;
    let armed = by_entry(&caller, "a").await;
    let too_many: Vec<Value> = (0..5_001)
        .map(|n| json!({"name": n.to_string(), "next_due_at": null}))
        .collect();
    let of_beat = |beat: Value| {
        let mut event = one("a", Value::Null);
        event["beat"] = beat;
        event
    };

    for (bad, code) in [
        (event("beat_due", json!({})), "invalid_event"),
        (due(json!({})), "invalid_event"),
        (due(json!([5])), "invalid_event"),
        (due(json!([["a", null]])), "invalid_event"),
        (due(json!([{"next_due_at": null}])), "invalid_event"),
        (due(json!([{"name": null, "next_due_at": null}])), "invalid_event"),
        // A missing field does not mean "never": otherwise a typing mistake would disarm the entry.
        (due(json!([{"name": "a"}])), "invalid_event"),
        (due(json!([{"name": "a", "next_due": null}])), "invalid_event"),
        (one("a", json!("soon")), "invalid_event"),
        (one("a", json!(1_772_413_200)), "invalid_event"),
        (one("a", json!(false)), "invalid_event"),
        (of_beat(Value::Null), "invalid_event"),
        (of_beat(json!("")), "invalid_event"),
        (of_beat(json!("a\u{0}")), "invalid_event"),
        (of_beat(json!("x".repeat(201))), "invalid_event"),
        (due(json!(too_many)), "refused"),
    ] {
        let shown: String = bad.to_string().chars().take(200).collect();
        let good = event("client_loss", json!({"dropped": 1}));
        let results = send(&sdk, &[bad, good]).await;
        assert_eq!(
            (&results[0]["code"], &results[1]["status"]),
            (&json!(code), &json!("accepted")),
            "{shown}: {}",
            results[0]
        );
        assert_eq!(by_entry(&caller, "a").await, armed, "{shown}");
    }
    accepted(&sdk, &[due(json!(too_many[..5_000]))]).await;
    harness.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_time_at_the_ends_of_the_calendar_does_no_harm() {
    let (harness, _) = harness::start_at(NOW).await;
    let (caller, sdk) = (
        Caller::new(&harness),
        Caller::with_key(&harness, &harness.ping_key),
    );
    let entries = [
        by_rule("rule", Value::Null),
        entry("nightly", json!({"kind": "celery", "minute": "0", "hour": "2"})),
        entry("often", every(600.0)),
    ];
    accepted(&sdk, &[schedule(&entries)]).await;
    let before = caller.pages("/api/v1/monitors", 5).await;

    for end in [
        "-262143-01-01T00:00:00Z",
        "+262142-12-31T23:59:59Z",
        "9999-12-31T23:59:59Z",
        "0001-01-01T00:00:00Z",
    ] {
        for name in ["rule", "nightly", "often"] {
            let mut listed = entries.clone();
            for entry in &mut listed {
                entry["next_due_at"] = json!(end);
            }
            accepted_loosely(&sdk, &[one(name, json!(end)), schedule(&listed)]).await;
        }
    }

    assert_eq!(caller.pages("/api/v1/monitors", 5).await, before);
    harness.stop().await;
}

/// The server accepts these events, although the contract does not know years with six digits.
async fn accepted_loosely(sdk: &Caller<'_>, events: &[Value]) {
    for result in send(sdk, events).await {
        assert_eq!(result["status"], "accepted", "{result}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_beat_of_the_same_name_in_another_project_gets_nothing() {
    let (harness, _) = harness::start_at(NOW).await;
    let (caller, sdk) = (
        Caller::new(&harness),
        Caller::with_key(&harness, &harness.ping_key),
    );
    let (their_key, their_ping_key) = harness.other_project().await;
    let (others, their_sdk) = (
        Caller::with_key(&harness, &their_key),
        Caller::with_key(&harness, &their_ping_key),
    );
    let (ours, later) = (json!("2026-03-02T02:00:00Z"), json!("2026-03-02T03:00:00Z"));
    accepted(&sdk, &[schedule(&[by_rule("a", ours.clone())])]).await;
    let before = dump(&harness).await;

    // The other project sends hints before it has such a Beat, and after that.
    accepted(&their_sdk, &[one("a", later.clone())]).await;
    assert_eq!(dump(&harness).await, before);
    accepted(&their_sdk, &[schedule(&[by_rule("a", Value::Null)])]).await;
    accepted(&their_sdk, &[one("a", later.clone())]).await;

    assert_eq!(by_entry(&others, "a").await["next_due_at"], later);
    assert_eq!(by_entry(&caller, "a").await["next_due_at"], ours);
    accepted(&their_sdk, &[one("a", Value::Null)]).await;
    assert_eq!(by_entry(&others, "a").await["next_due_at"], Value::Null);
    assert_eq!(by_entry(&caller, "a").await["next_due_at"], ours);
    harness.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_entry_that_left_or_is_disabled_is_not_armed_by_a_late_report() {
    let (harness, clock) = harness::start_at(NOW).await;
    let (caller, sdk) = (
        Caller::new(&harness),
        Caller::with_key(&harness, &harness.ping_key),
    );
    let later = json!("2026-03-02T02:00:00Z");
    let mut disabled = by_rule("disabled", later.clone());
    accepted(
        &sdk,
        &[schedule(&[by_rule("gone", later.clone()), disabled.clone()])],
    )
    .await;
    disabled["enabled"] = json!(false);
    accepted(&sdk, &[schedule(&[disabled])]).await;

    for name in ["gone", "disabled"] {
        accepted(&sdk, &[one(name, later.clone())]).await;
        let monitor = by_entry(&caller, name).await;
        assert_eq!(
            (&monitor["status"], &monitor["deadline_at"]),
            (&json!("paused"), &Value::Null),
            "{name}"
        );
    }

    clock.set("2026-03-02T12:00:00Z".parse().unwrap());
    harness.swept(&clock).await;
    assert!(caller.pages("/api/v1/incidents", 5).await.is_empty());
    let answer = caller
        .json(Method::POST, "/api/v1/events", &batch_of(&[one("gone", later)]))
        .await;
    assert_eq!(
        (answer.status, answer.code()),
        (StatusCode::FORBIDDEN, "key_scope")
    );
    harness.stop().await;
}
