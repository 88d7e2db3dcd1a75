//! Batches of events: which events the server refuses, and that it accepts the rest.

use std::io::Write;

use flate2::Compression;
use flate2::write::GzEncoder;
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use uuid::Uuid;

use super::{accepted, batch_of, by_entry, entry, event, every, path, run, schedule, send};
use crate::contract::Caller;
use crate::harness;

/// Returns events that the server must refuse.
fn bad_events() -> Vec<Value> {
    let alive = |fields: Value| event("beat_alive", fields);
    let finished = |fields: Value| run("run_finished", "a", Uuid::new_v4(), fields);
    let without = |mut event: Value, field: &str| {
        event.as_object_mut().unwrap().remove(field);
        event
    };
    let good = finished(json!({"outcome": "success"}));
    let beat = |name: Value| alive(json!({"beat": name, "period_seconds": 1, "grace_seconds": 1}));
    let mut events = vec![
        json!(5),
        json!(null),
        json!("x"),
        json!([]),
        json!({}),
        json!([[]]),
        json!({"\u{0}": "\u{0}"}),
    ];
    events.extend(
        ["id", "type", "at", "beat", "entry", "run_id", "outcome"].map(|field| without(good.clone(), field)),
    );
    events.extend(["entries"].map(|field| without(schedule(&[]), field)));
    for (field, value) in [
        ("id", json!("x")),
        ("id", json!("\u{0}")),
        ("id", json!(5)),
        ("at", json!("yesterday")),
        ("at", json!(5)),
        ("at", json!("2026-02-30T00:00:00Z")),
        ("at", json!("\u{0}")),
        ("type", json!("run_vanished")),
        ("type", json!("\u{0}")),
        ("type", json!(["run_started"])),
        ("run_id", json!("x")),
        ("run_id", json!(null)),
        ("entry", json!(5)),
        ("outcome", json!("great")),
        ("outcome", json!("\u{0}")),
        ("outcome", json!(null)),
        ("retries", json!("1")),
        ("retries", json!(1.5)),
        ("retries", json!(3_000_000_000_u64)),
        ("duration_seconds", json!("x")),
        ("task", json!(5)),
    ] {
        let mut event = good.clone();
        event[field] = value;
        events.push(event);
    }
    events.extend(
        [
            json!(""),
            json!(" "),
            json!("x".repeat(201)),
            json!("a\u{0}b"),
            json!("a\nb"),
            json!(5),
            json!(null),
        ]
        .map(beat),
    );
    for (period, grace) in [
        (json!(0), json!(1)),
        (json!(-1), json!(1)),
        (json!(1e9), json!(1)),
        (json!("1"), json!(1)),
        (json!(1), json!(-0.1)),
        (json!(1), json!(1e300)),
        (json!(null), json!(1)),
    ] {
        events.push(alive(json!({"period_seconds": period, "grace_seconds": grace})));
    }
    for entries in [
        json!("x"),
        json!({}),
        json!([5]),
        json!([{}]),
        json!([{"name": "x", "schedule": every(1.0)}]),
        json!([{"name": 5, "schedule": every(1.0), "grace_seconds": 1}]),
        json!([["x", null, every(1.0), true, 1.0]]),
    ] {
        events.push(event("beat_schedule", json!({"entries": entries})));
    }
    events.extend(
        [json!(-1), json!("x"), json!(1.5), json!(null)]
            .map(|dropped| event("client_loss", json!({"dropped": dropped}))),
    );
    events
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bad_event_is_rejected_alone() {
    let harness = harness::start().await;
    let (caller, sdk) = (
        Caller::new(&harness),
        Caller::with_key(&harness, &harness.ping_key),
    );
    accepted(&sdk, &[schedule(&[entry("a", every(3600.0))])]).await;
    let bad = bad_events();
    let mut events = vec![run("run_started", "a", Uuid::new_v4(), json!({}))];
    for event in &bad {
        events.push(event.clone());
        events.push(run("run_started", "a", Uuid::new_v4(), json!({})));
    }

    let results = send(&sdk, &events).await;

    for (index, (event, result)) in events.iter().zip(&results).enumerate() {
        if index % 2 == 0 {
            assert_eq!(
                (&result["status"], &result["id"]),
                (&json!("accepted"), &event["id"])
            );
        } else {
            assert_eq!(
                (&result["status"], &result["code"]),
                (&json!("rejected"), &json!("invalid_event")),
                "{event}: {result}"
            );
            let id = event
                .get("id")
                .filter(|id| id.as_str().is_some_and(|id| Uuid::parse_str(id).is_ok()));
            assert_eq!(result["id"], id.cloned().unwrap_or_default(), "{event}");
        }
    }
    let monitor = by_entry(&caller, "a").await;
    assert_eq!(monitor["ping_count"], bad.len() + 1);
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
async fn an_entry_that_nobody_registered_is_said_so_and_a_bad_entry_spoils_no_other() {
    let harness = harness::start().await;
    let (caller, sdk) = (
        Caller::new(&harness),
        Caller::with_key(&harness, &harness.ping_key),
    );
    accepted(&sdk, &[schedule(&[entry("known", every(3600.0))])]).await;

    let mut of_another_beat = run("run_started", "known", Uuid::new_v4(), json!({}));
    of_another_beat["beat"] = json!("other");
    let results = send(
        &sdk,
        &[
            run("run_started", "unknown", Uuid::new_v4(), json!({})),
            of_another_beat,
            run("run_started", "known", Uuid::new_v4(), json!({})),
        ],
    )
    .await;
    let codes: Vec<&Value> = results.iter().map(|result| &result["code"]).collect();
    assert_eq!(
        codes,
        [&json!("unknown_entry"), &json!("unknown_entry"), &Value::Null]
    );

    let bad = |name: &str| {
        entry(
            name,
            json!({"kind": "celery", "day_of_month": "31", "month_of_year": "2"}),
        )
    };
    let long = "x".repeat(201);
    let results = send(
        &sdk,
        &[schedule(&[
            bad("known"),
            bad("new"),
            entry("", every(5.0)),
            entry(&long, every(5.0)),
            entry("a\u{0}", every(5.0)),
            entry("good", every(5.0)),
            entry("good", every(6.0)),
            entry("short", every(0.5)),
        ])],
    )
    .await;
    assert_eq!(results[0]["code"], "some_entries");
    assert!(
        results[0]["detail"]
            .as_str()
            .unwrap()
            .starts_with("6 of the entries"),
        "{}",
        results[0]
    );
    let monitors = caller.pages("/api/v1/monitors", 50).await;
    assert_eq!(monitors.len(), 2);
    // A known entry stays unchanged: an unreadable entry is no reason to retire its monitor.
    let known = by_entry(&caller, "known").await;
    assert_eq!(
        (&known["retired_at"], &known["schedule"]),
        (&Value::Null, &json!({"kind": "interval", "seconds": 3600}))
    );
    harness.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nul_and_times_at_the_ends_of_the_calendar_do_no_harm() {
    let harness = harness::start().await;
    let (caller, sdk) = (
        Caller::new(&harness),
        Caller::with_key(&harness, &harness.ping_key),
    );
    let mut odd = entry("a", every(3600.0));
    odd["task"] = json!(format!("t\u{0}{}", "x".repeat(5_000)));
    odd["next_due_at"] = json!("+262142-12-31T23:59:59Z");
    let nul = json!({"task": "t\u{0}", "task_id": "\u{0}", "worker": "w\u{0}\u{1b}", "error": "E\u{0}", "outcome": "failure", "retries": -5,
        "duration_seconds": -1});

    for (sent_at, at) in [
        ("2026-03-02T01:00:10Z", "2026-03-02T01:00:10Z"),
        ("-262143-01-01T00:00:00Z", "+262142-12-31T23:59:59Z"),
        ("+262142-12-31T23:59:59Z", "-262143-01-01T00:00:00Z"),
        ("0000-01-01T00:00:00Z", "9999-12-31T23:59:60Z"),
        ("1969-12-31T23:59:59.999999999+23:59", "2200-01-01T00:00:00-23:59"),
    ] {
        let mut events = [
            schedule(&[odd.clone()]),
            event(
                "beat_alive",
                json!({"period_seconds": 15, "grace_seconds": 60, "host": "h\u{0}"}),
            ),
            run("run_started", "a", Uuid::new_v4(), nul.clone()),
            run("run_finished", "a", Uuid::new_v4(), nul.clone()),
            run("run_finished", "a\u{0}", Uuid::new_v4(), nul.clone()),
            event("client_loss", json!({"dropped": u64::MAX, "process": "\u{0}"})),
        ];
        for event in &mut events {
            event["at"] = json!(at);
        }
        let mut batch = batch_of(&events);
        batch["sent_at"] = json!(sent_at);
        batch["sdk"] = json!({"\u{0}": "\u{0}"});

        let answer = sdk
            .send(sdk.request(Method::POST, "/api/v1/events").json(&batch))
            .await;

        assert!(
            [StatusCode::OK, StatusCode::BAD_REQUEST].contains(&answer.status),
            "{sent_at} {at}: {}",
            answer.json
        );
        for result in answer.json["results"].as_array().into_iter().flatten().take(4) {
            assert!(
                result["status"] == "accepted" || result["code"] == "invalid_event",
                "{sent_at} {at}: {result}"
            );
        }
    }
    let monitor = by_entry(&caller, "a").await;
    for run in caller.pages(&format!("{}/runs", path(&monitor)), 50).await {
        assert_eq!(
            (&run["task"], &run["worker"], &run["retries"]),
            (&json!("t\u{fffd}"), &json!("w\u{fffd}\u{fffd}"), &json!(0))
        );
    }
    accepted(&sdk, &[run("run_started", "a", Uuid::new_v4(), json!({}))]).await;
    harness.stop().await;
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_may_be_compressed_and_a_bomb_is_refused() {
    let harness = harness::start().await;
    let (caller, sdk) = (
        Caller::new(&harness),
        Caller::with_key(&harness, &harness.ping_key),
    );
    let text = batch_of(&[schedule(&[entry("a", every(3600.0))])]).to_string();
    let (first, second) = text.as_bytes().split_at(100);
    let blanks = |count: usize| [text.as_bytes(), &vec![b' '; count]].concat();
    let most = blanks(4_000_000 - text.len());
    let packed = gzip(text.as_bytes());
    let with_encoding = async |encoding: &str, body: Vec<u8>| {
        let request = sdk
            .request(Method::POST, "/api/v1/events")
            .header("Content-Encoding", encoding)
            .body(body);
        let answer = sdk.send(request).await;
        (answer.status.as_u16(), answer.code().to_owned())
    };

    for (what, encoding, body, status, code) in [
        ("gzip", "gzip", packed.clone(), 200, ""),
        ("identity", "identity", text.clone().into_bytes(), 200, ""),
        (
            "two members",
            "gzip",
            [gzip(first), gzip(second)].concat(),
            200,
            "",
        ),
        ("as large as allowed", "gzip", gzip(&most), 200, ""),
        (
            "one byte too large",
            "gzip",
            gzip(&[&most[..], b" "].concat()),
            413,
            "body_too_large",
        ),
        (
            "bomb",
            "gzip",
            gzip(&vec![b' '; 200_000_000]),
            413,
            "body_too_large",
        ),
        (
            "bomb in a list",
            "gzip",
            gzip(&vec![b'['; 50_000_000]),
            413,
            "body_too_large",
        ),
        (
            "more than a megabyte before unpacking",
            "gzip",
            vec![0; 1_000_001],
            413,
            "body_too_large",
        ),
        (
            "not compressed",
            "gzip",
            text.clone().into_bytes(),
            400,
            "invalid_json",
        ),
        (
            "cut",
            "gzip",
            packed[..packed.len() - 5].to_vec(),
            400,
            "invalid_json",
        ),
        (
            "damaged",
            "gzip",
            [&packed[..20], &[0xff; 20], &packed[40..]].concat(),
            400,
            "invalid_json",
        ),
        ("empty", "gzip", Vec::new(), 400, "invalid_json"),
        ("twice", "gzip", gzip(&packed), 400, "invalid_json"),
        ("another", "br", packed.clone(), 400, "invalid_json"),
        ("not said", "identity", packed.clone(), 400, "invalid_json"),
        ("two codings", "gzip, gzip", packed.clone(), 400, "invalid_json"),
    ] {
        assert_eq!(
            with_encoding(encoding, body).await,
            (status, code.to_owned()),
            "{what}"
        );
    }
    assert_eq!(caller.pages("/api/v1/monitors", 5).await.len(), 1);
    harness.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_has_limits() {
    let harness = harness::start().await;
    let (caller, sdk) = (
        Caller::new(&harness),
        Caller::with_key(&harness, &harness.ping_key),
    );
    let loss = || event("client_loss", json!({"dropped": 1}));
    let events: Vec<Value> = (0..1_001).map(|_| loss()).collect();

    accepted(&sdk, &[]).await;
    accepted(&sdk, &events[..1_000]).await;
    let too_many = sdk.json(Method::POST, "/api/v1/events", &batch_of(&events)).await;
    assert_eq!(
        (too_many.status, too_many.json["errors"][0]["pointer"].as_str()),
        (StatusCode::BAD_REQUEST, Some("/events"))
    );
    let entries: Vec<Value> = (0..5_001)
        .map(|n| json!({"name": n.to_string(), "schedule": every(60.0), "grace_seconds": 1}))
        .collect();
    let results = send(&sdk, &[schedule(&entries), loss()]).await;
    assert_eq!(
        (&results[0]["code"], &results[1]["status"]),
        (&json!("refused"), &json!("accepted"))
    );
    for (body, pointer) in [
        (json!({"events": []}), ""),
        (json!({"sent_at": "2026-01-01T00:00:00Z"}), ""),
        (json!({"sent_at": "now", "events": []}), "/sent_at"),
        (json!({"sent_at": null, "events": []}), "/sent_at"),
        (
            json!({"sent_at": "2026-01-01T00:00:00Z", "events": {}}),
            "/events",
        ),
        (
            json!({"sent_at": "2026-01-01T00:00:00Z", "events": "\u{0}"}),
            "/events",
        ),
    ] {
        let answer = sdk.json(Method::POST, "/api/v1/events", &body).await;
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
    assert!(caller.pages("/api/v1/monitors", 5).await.is_empty());
    harness.stop().await;
}
