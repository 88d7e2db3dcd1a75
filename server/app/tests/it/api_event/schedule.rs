//! Beat reports its schedule and its heartbeats.

use chrono::{DateTime, Utc};
use futures::future::join_all;
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use uuid::Uuid;

use super::{accepted, batch_of, by_entry, entry, event, every, path, run, schedule, send};
use crate::contract::{Caller, dump};
use crate::harness;

#[tokio::test(flavor = "multi_thread")]
async fn a_schedule_registers_monitors_that_are_armed_at_once() {
    let harness = harness::start().await;
    let (caller, sdk) = (
        Caller::new(&harness),
        Caller::with_key(&harness, &harness.ping_key),
    );
    let nightly = json!({"kind": "celery", "minute": "0", "hour": "2", "timezone": "Europe/Berlin"});

    let mut canary = entry("deadbeat.canary", every(60.0));
    canary.as_object_mut().unwrap().extend(
        json!({"canary": true, "queue": null, "next_due_at": "2026-03-02T01:01:00+00:00"})
            .as_object()
            .unwrap()
            .clone(),
    );
    accepted(
        &sdk,
        &[schedule(&[
            entry("Every minute!", every(60.0)),
            entry("nightly", nightly),
            canary,
        ])],
    )
    .await;

    let minute = by_entry(&caller, "Every minute!").await;
    assert_eq!(
        (&minute["name"], &minute["slug"], &minute["status"]),
        (&json!("Every minute!"), &json!("every-minute"), &json!("new"))
    );
    assert_eq!(
        (&minute["grace_seconds"], &minute["longest_run_seconds"]),
        (&json!(60.5), &json!(600))
    );
    assert_eq!(
        (&minute["channels"], &minute["retired_at"]),
        (&json!("all"), &Value::Null)
    );
    assert!(
        minute["deadline_at"].is_string(),
        "its Beat listed it, so its report is expected"
    );
    let nightly = by_entry(&caller, "nightly").await;
    assert_eq!(nightly["schedule"]["kind"], "celery");
    assert_eq!(
        (&nightly["schedule"]["day_of_week"], &nightly["schedule_summary"]),
        (&json!("*"), &json!("at 02:00 every day, Europe/Berlin"))
    );
    let beats = caller.get("/api/v1/beats").await;
    assert_eq!(beats["beats"].as_array().unwrap().len(), 1);
    assert_eq!(
        (&beats["beats"][0]["name"], &beats["beats"][0]["id"]),
        (&json!("shop"), &minute["beat_id"])
    );
    assert_eq!(beats["beats"][0]["status"], "new");
    harness.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_entry_with_a_countdown_is_waited_for_that_much_longer() {
    let harness = harness::start().await;
    let (caller, sdk) = (
        Caller::new(&harness),
        Caller::with_key(&harness, &harness.ping_key),
    );
    let spread = |delay: Value| {
        let mut spread = entry("spread", json!({"kind": "celery", "minute": "0"}));
        spread["delay_seconds"] = delay;
        spread
    };
    let waits = |monitor: &Value| {
        let instant = |field: &str| monitor[field].as_str().unwrap().parse::<DateTime<Utc>>().unwrap();
        (instant("deadline_at") - instant("next_due_at")).as_seconds_f64()
    };
    accepted(&sdk, &[schedule(&[spread(json!(8))])]).await;
    let new = by_entry(&caller, "spread").await;
    assert_eq!((&new["delay_seconds"], waits(&new)), (&json!(8), 68.5));

    // A person's change leaves the delay, and Beat's new delay moves the deadline.
    caller
        .json(Method::PATCH, &path(&new), &json!({"grace_seconds": 7}))
        .await;
    assert_eq!(waits(&by_entry(&caller, "spread").await), 15.0);
    accepted(&sdk, &[schedule(&[spread(json!(20.5))])]).await;
    let moved = by_entry(&caller, "spread").await;
    assert_eq!((&moved["delay_seconds"], waits(&moved)), (&json!(20.5), 81.0));

    let refused = send(&sdk, &[schedule(&[spread(json!(-1))])]).await;
    let detail = "delay_seconds is -1; 0 to 31622400 seconds are allowed";
    assert!(
        refused[0]["detail"].as_str().unwrap().contains(detail),
        "{refused:?}"
    );
    harness.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_schedule_sent_again_unchanged_changes_nothing_and_a_persons_change_stays() {
    let harness = harness::start().await;
    let (caller, sdk) = (
        Caller::new(&harness),
        Caller::with_key(&harness, &harness.ping_key),
    );
    let entries = [
        entry("a", every(3600.1)),
        entry("b", json!({"kind": "celery", "minute": "*/7"})),
    ];
    accepted(&sdk, &[schedule(&entries)]).await;
    let before = dump(&harness).await;

    for _ in 0..3 {
        accepted(
            &sdk,
            &[
                schedule(&entries),
                schedule(&[entries[1].clone(), entries[0].clone()]),
            ],
        )
        .await;
    }
    assert_eq!(dump(&harness).await, before);

    let a = by_entry(&caller, "a").await;
    let change = json!({"grace_seconds": 7, "name": "Mine", "slug": "mine", "tags": ["x"], "channels": []});
    caller.json(Method::PATCH, &path(&a), &change).await;
    let before = dump(&harness).await;
    accepted(&sdk, &[schedule(&entries)]).await;
    assert_eq!(dump(&harness).await, before);

    // Beat's own value has changed and now counts. A person's value stays where Beat sets none.
    let mut changed = entries.clone();
    changed[0]["grace_seconds"] = json!(99);
    accepted(&sdk, &[schedule(&changed)]).await;
    let after = by_entry(&caller, "a").await;
    assert_eq!((&after["id"], &after["grace_seconds"]), (&a["id"], &json!(99)));
    assert_eq!(
        (&after["name"], &after["slug"], &after["tags"], &after["channels"]),
        (&json!("Mine"), &json!("mine"), &json!(["x"]), &json!([]))
    );
    harness.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_entry_that_is_missing_or_disabled_is_retired_without_an_incident_and_comes_back() {
    let harness = harness::start().await;
    let (caller, sdk) = (
        Caller::new(&harness),
        Caller::with_key(&harness, &harness.ping_key),
    );
    let (kept, gone) = (entry("kept", every(3600.0)), entry("gone", every(3600.0)));
    accepted(&sdk, &[schedule(&[kept.clone(), gone.clone()])]).await;
    let id = by_entry(&caller, "gone").await["id"].clone();
    let mut disabled = gone.clone();
    disabled["enabled"] = json!(false);

    for leaves in [vec![kept.clone()], vec![kept.clone(), disabled]] {
        // The monitor is down when its entry leaves the schedule. Its incident then ends, too.
        accepted(
            &sdk,
            &[run(
                "run_finished",
                "gone",
                Uuid::new_v4(),
                json!({"outcome": "failure", "error": "KeyError"}),
            )],
        )
        .await;
        let before = caller.pages("/api/v1/incidents", 50).await.len();
        accepted(&sdk, &[schedule(&leaves)]).await;
        let retired = by_entry(&caller, "gone").await;
        assert_eq!(
            (&retired["id"], &retired["status"], &retired["deadline_at"]),
            (&id, &json!("paused"), &Value::Null)
        );
        assert!(retired["retired_at"].is_string());
        assert_eq!(caller.pages("/api/v1/incidents", 50).await.len(), before);
        assert!(caller.pages("/api/v1/incidents?state=open", 50).await.is_empty());
        // No report can arrive for a retired entry, so only Beat can turn the monitor on.
        let resumed = caller
            .call(Method::POST, &format!("{}/resume", path(&retired)))
            .await;
        assert_eq!(
            (resumed.status, resumed.code()),
            (StatusCode::CONFLICT, "conflict")
        );
        harness
            .client
            .get(retired["ping_url"].as_str().unwrap())
            .send()
            .await
            .unwrap();
        let pinged = caller.get(&path(&retired)).await;
        assert_eq!(
            (&pinged["status"], &pinged["deadline_at"]),
            (&json!("paused"), &Value::Null)
        );
        assert_eq!(by_entry(&caller, "kept").await["status"], "new");

        accepted(&sdk, &[schedule(&[kept.clone(), gone.clone()])]).await;
        let back = by_entry(&caller, "gone").await;
        assert_eq!(
            (&back["id"], &back["status"], &back["retired_at"]),
            (&id, &json!("new"), &Value::Null)
        );
        assert!(back["deadline_at"].is_string());
    }
    harness.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_beat_that_says_that_it_lives_is_up_and_has_a_deadline() {
    let harness = harness::start().await;
    let (caller, sdk) = (
        Caller::new(&harness),
        Caller::with_key(&harness, &harness.ping_key),
    );

    accepted(
        &sdk,
        &[event(
            "beat_alive",
            json!({"period_seconds": 15, "grace_seconds": 60.5, "host": "beat-1", "pid": 1}),
        )],
    )
    .await;

    let beats = caller.get("/api/v1/beats").await;
    let beat = &beats["beats"][0];
    assert_eq!((&beat["status"], &beat["host"]), (&json!("up"), &json!("beat-1")));
    assert_eq!(
        (&beat["period_seconds"], &beat["grace_seconds"]),
        (&json!(15), &json!(60.5))
    );
    assert!(beat["last_seen_at"].is_string() && beat["deadline_at"].is_string());
    assert!(caller.pages("/api/v1/incidents", 5).await.is_empty());
    harness.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn entries_of_one_name_get_slugs_of_their_own_even_when_two_beats_register_at_once() {
    let harness = harness::start().await;
    let (caller, sdk) = (
        Caller::new(&harness),
        Caller::with_key(&harness, &harness.ping_key),
    );
    let names: Vec<String> = [
        "Job",
        "job!",
        "JOB",
        "a".repeat(150).as_str(),
        "a".repeat(151).as_str(),
        "日本",
        "中国",
    ]
    .map(str::to_owned)
    .to_vec();
    let entries: Vec<Value> = names.iter().map(|name| entry(name, every(3600.0))).collect();
    let of = |beat: usize| {
        let mut event = schedule(&entries);
        event["beat"] = json!(format!("beat-{beat}"));
        event
    };

    join_all((0..6).map(|beat| {
        let (sdk, event) = (&sdk, of(beat));
        async move {
            // The server answers "try again" while other requests take the same slugs. The SDK then retries.
            for _ in 0..20 {
                let answer = sdk
                    .json(
                        Method::POST,
                        "/api/v1/events",
                        &batch_of(std::slice::from_ref(&event)),
                    )
                    .await;
                if answer.status == StatusCode::OK {
                    assert_eq!(answer.json["results"][0]["status"], "accepted");
                    return;
                }
                assert_eq!(answer.status, StatusCode::SERVICE_UNAVAILABLE);
            }
            panic!("a schedule was refused twenty times");
        }
    }))
    .await;

    let monitors = caller.pages("/api/v1/monitors", 50).await;
    assert_eq!(monitors.len(), 6 * names.len());
    harness.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_beat_of_the_same_name_in_another_project_is_another() {
    let harness = harness::start().await;
    let (caller, sdk) = (
        Caller::new(&harness),
        Caller::with_key(&harness, &harness.ping_key),
    );
    let (their_key, their_ping_key) = harness.other_project().await;
    let (others, their_sdk) = (
        Caller::with_key(&harness, &their_key),
        Caller::with_key(&harness, &their_ping_key),
    );
    let id = Uuid::new_v4();
    accepted(
        &sdk,
        &[
            schedule(&[entry("a", every(3600.0)), entry("b", every(3600.0))]),
            run("run_started", "a", id, json!({})),
        ],
    )
    .await;
    accepted(
        &sdk,
        &[event(
            "beat_alive",
            json!({"period_seconds": 15, "grace_seconds": 60}),
        )],
    )
    .await;
    let before = dump(&harness).await;

    let unknown = send(
        &their_sdk,
        &[run("run_finished", "a", id, json!({"outcome": "failure"}))],
    )
    .await;
    assert_eq!(unknown[0]["code"], "unknown_entry");
    assert_eq!(dump(&harness).await, before);
    accepted(
        &their_sdk,
        &[
            schedule(&[entry("a", every(60.0))]),
            event("beat_alive", json!({"period_seconds": 1, "grace_seconds": 1})),
        ],
    )
    .await;
    accepted(
        &their_sdk,
        &[run("run_finished", "a", id, json!({"outcome": "failure"}))],
    )
    .await;

    let ours = by_entry(&caller, "a").await;
    assert_eq!(
        (&ours["status"], &ours["running"], &ours["schedule"]["seconds"]),
        (&json!("new"), &json!(true), &json!(3600))
    );
    assert_eq!(by_entry(&caller, "b").await["retired_at"], Value::Null);
    assert_eq!(
        caller.get("/api/v1/beats").await["beats"][0]["period_seconds"],
        15
    );
    assert!(caller.pages("/api/v1/incidents", 5).await.is_empty());
    assert_eq!(others.pages("/api/v1/monitors", 5).await.len(), 1);
    assert_eq!(others.pages("/api/v1/incidents", 5).await.len(), 1);
    harness.stop().await;
}
