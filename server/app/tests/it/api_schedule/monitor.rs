//! Monitors of every kind of schedule: create, read, send again and change.

use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use uuid::Uuid;

use super::{Kind, NOON, foreign, native, preview, slots};
use crate::api_event::{accepted, by_entry, path};
use crate::contract::{Caller, dump};
use crate::harness::{self, Harness};

async fn put(caller: &Caller<'_>, monitor: &Value, body: &Value) -> Value {
    let slug = monitor["slug"].as_str().unwrap();
    let answer = caller
        .json(Method::PUT, &format!("/api/v1/monitors/{slug}"), body)
        .await;
    assert_eq!(answer.status, StatusCode::OK, "{body}: {}", answer.json);
    answer.json
}

async fn ping(harness: &Harness, monitor: &Value) {
    let url = monitor["ping_url"].as_str().unwrap();
    assert_eq!(
        harness.client.get(url).send().await.unwrap().status(),
        StatusCode::OK
    );
}

async fn assert_kept(kinds: Vec<Kind>) {
    let (harness, clock) = harness::start_at(NOON).await;
    let caller = Caller::new(&harness);

    for kind in kinds {
        clock.set(NOON.parse().unwrap());
        let body = json!({"name": "Job", "schedule": kind.sent, "grace_seconds": 5});
        let made = caller.post("/api/v1/monitors", &body).await;

        assert_eq!(made["schedule"], kind.answered, "{}", kind.sent);
        assert_eq!(made["schedule_summary"], kind.summary, "{}", kind.sent);
        assert_eq!(made["next_due_at"], kind.slots[0], "{}", kind.sent);
        assert_eq!(caller.get(&path(&made)).await, made);
        // A client may send back the schedule that it has read, and the schedule that it sent before. Neither moves the due time.
        clock.advance(chrono::TimeDelta::milliseconds(300));
        for schedule in [&kind.answered, &kind.sent] {
            let again = put(&caller, &made, &json!({"schedule": schedule})).await;
            for (field, value) in again.as_object().unwrap() {
                assert!(
                    *value == made[field] || field == "updated_at",
                    "{schedule}: {field}"
                );
            }
        }
        // The report of the first slot arrives half a second late.
        let first: chrono::DateTime<chrono::Utc> = kind.slots[0].parse().unwrap();
        clock.set(first);
        ping(&harness, &made).await;
        let pinged = caller.get(&path(&made)).await;
        assert_eq!(pinged["status"], "up", "{}", kind.sent);
        assert_eq!(pinged["next_due_at"], kind.slots[1], "{}", kind.sent);
        let deadline: chrono::DateTime<chrono::Utc> =
            pinged["deadline_at"].as_str().unwrap().parse().unwrap();
        let second: chrono::DateTime<chrono::Utc> = kind.slots[1].parse().unwrap();
        assert_eq!((deadline - second).num_seconds(), 5, "{}", kind.sent);
        caller.call(Method::DELETE, &path(&made)).await;
    }
    harness.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_monitor_of_any_kind_is_read_back_as_set_and_expects_its_first_slot() {
    assert_kept(native()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn kinds_of_other_programs_are_kept_alike() {
    assert_kept(foreign()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_monitor_of_the_sun_is_kept_and_armed_alike() {
    let (harness, clock) = harness::start_at(NOON).await;
    let caller = Caller::new(&harness);
    let schedule = json!({"kind": "solar", "event": "sunset", "latitude": 52.52, "longitude": 13.405});
    let answer = preview(&caller, &json!({"schedule": schedule, "count": 2})).await;

    let made = caller
        .post(
            "/api/v1/monitors",
            &json!({"name": "Lights", "schedule": schedule, "grace_seconds": 5}),
        )
        .await;

    assert_eq!(made["schedule"], schedule);
    assert_eq!(made["next_due_at"], slots(&answer)[0]);
    assert!(slots(&answer)[0].starts_with("2026-01-15T15:22:0"), "{answer}");
    assert_eq!(
        put(&caller, &made, &json!({"schedule": schedule})).await["next_due_at"],
        made["next_due_at"]
    );
    clock.set(slots(&answer)[0].parse().unwrap());
    ping(&harness, &made).await;
    let next = caller.get(&path(&made)).await["next_due_at"]
        .as_str()
        .unwrap()
        .to_owned();
    assert!(next.starts_with("2026-01-16T15:23:4"), "{next}");
    harness.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fixed_row_is_not_moved_by_reports_and_an_interval_is() {
    let (harness, clock) = harness::start_at(NOON).await;
    let caller = Caller::new(&harness);
    let hourly = json!({"kind": "interval", "seconds": 3600});
    let mut anchored = hourly.clone();
    anchored["anchor"] = json!("2026-01-15T00:00:00Z");
    let make = async |schedule: &Value| {
        let name = format!("job {}", schedule.as_object().unwrap().len());
        caller
            .post("/api/v1/monitors", &json!({"name": name, "schedule": schedule}))
            .await
    };
    let (free, fixed) = (make(&hourly).await, make(&anchored).await);

    clock.set("2026-01-15T13:20:00Z".parse().unwrap());
    for monitor in [&free, &fixed] {
        ping(&harness, monitor).await;
    }

    assert_eq!(
        caller.get(&path(&free)).await["next_due_at"],
        "2026-01-15T14:20:00Z"
    );
    assert_eq!(
        caller.get(&path(&fixed)).await["next_due_at"],
        "2026-01-15T14:00:00Z"
    );
    // An interval that gets an anchor has its first slot on the grid of that anchor.
    anchored["anchor"] = json!("2026-01-15T00:45:00Z");
    let changed = put(&caller, &free, &json!({"schedule": anchored})).await;
    assert_eq!(changed["next_due_at"], "2026-01-15T13:45:00Z");
    harness.stop().await;
}

/// A monitor whose schedule only Beat can compute. It is next due in an hour.
async fn of_a_beat(caller: &Caller<'_>, sdk: &Caller<'_>, now: &str, next_due_at: &str) -> Value {
    let schedule = json!({"kind": "hint", "class": "rrule", "text": "FREQ=HOURLY"});
    let entry =
        json!({"name": "by rule", "schedule": schedule, "grace_seconds": 60, "next_due_at": next_due_at});
    let event =
        json!({"id": Uuid::new_v4(), "type": "beat_schedule", "at": now, "beat": "shop", "entries": [entry]});
    let batch = json!({"sent_at": now, "events": [event]});
    let answer = sdk.post("/api/v1/events", &batch).await;
    assert_eq!(answer["results"][0]["status"], "accepted", "{answer}");
    by_entry(caller, "by rule").await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hint_is_refused_from_a_person_and_the_one_that_a_beat_set_may_be_sent_back() {
    let (harness, _) = harness::start_at(NOON).await;
    let caller = Caller::new(&harness);
    let sdk = Caller::with_key(&harness, &harness.ping_key);
    let theirs = of_a_beat(&caller, &sdk, NOON, "2026-01-15T13:00:00Z").await;
    let own = caller
        .post(
            "/api/v1/monitors",
            &json!({"name": "own", "schedule": {"kind": "interval", "seconds": 60}}),
        )
        .await;
    let before = dump(&harness).await;

    let mut other = theirs["schedule"].clone();
    other["text"] = json!("FREQ=DAILY");
    for (method, at, schedule) in [
        (Method::POST, "/api/v1/monitors".to_owned(), &theirs["schedule"]),
        (
            Method::PUT,
            "/api/v1/monitors/new".to_owned(),
            &theirs["schedule"],
        ),
        (Method::PATCH, path(&own), &theirs["schedule"]),
        (
            Method::PUT,
            "/api/v1/monitors/own".to_owned(),
            &theirs["schedule"],
        ),
        (Method::PATCH, path(&theirs), &other),
    ] {
        let answer = caller
            .json(method.clone(), &at, &json!({"name": "x", "schedule": schedule}))
            .await;
        assert_eq!(
            (answer.status, &answer.json["errors"][0]["pointer"]),
            (StatusCode::BAD_REQUEST, &json!("/schedule/kind")),
            "{method} {at}: {}",
            answer.json
        );
    }
    assert_eq!(dump(&harness).await, before);

    // The client sends the schedule as it was read: the hint stays, and the other changes apply.
    let again = put(
        &caller,
        &theirs,
        &json!({"schedule": theirs["schedule"], "grace_seconds": 300}),
    )
    .await;
    assert_eq!(
        (&again["schedule"], &again["next_due_at"], &again["deadline_at"]),
        (
            &theirs["schedule"],
            &json!("2026-01-15T13:00:00Z"),
            &json!("2026-01-15T13:05:00Z")
        )
    );
    let renamed = caller
        .json(Method::PATCH, &path(&theirs), &json!({"name": "Statement"}))
        .await;
    assert_eq!(
        (renamed.status, &renamed.json["next_due_at"]),
        (StatusCode::OK, &json!("2026-01-15T13:00:00Z"))
    );
    harness.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn years_that_are_over_are_refused_but_from_the_monitor_that_has_them() {
    let (harness, clock) = harness::start_at(NOON).await;
    let caller = Caller::new(&harness);
    let cases = [
        json!({"kind": "quartz", "expression": "0 0 12 1 2 ? 2026", "timezone": "UTC"}),
        json!({"kind": "oncalendar", "expression": "2026-02-01 12:00", "timezone": "UTC"}),
    ];
    let mut monitors = Vec::new();
    for schedule in &cases {
        let body = json!({"name": schedule["kind"], "schedule": schedule});
        let monitor = caller.post("/api/v1/monitors", &body).await;
        assert_eq!(monitor["next_due_at"], "2026-02-01T12:00:00Z");
        monitors.push(monitor);
    }

    clock.set("2026-02-01T12:00:00Z".parse().unwrap());
    for (schedule, monitor) in cases.iter().zip(&monitors) {
        let answer = caller
            .json(
                Method::POST,
                "/api/v1/monitors",
                &json!({"name": "new", "schedule": schedule}),
            )
            .await;
        assert_eq!(
            (
                answer.status,
                &answer.json["errors"][0]["pointer"],
                &answer.json["errors"][0]["position"]
            ),
            (
                StatusCode::BAD_REQUEST,
                &json!("/schedule/expression"),
                &Value::Null
            ),
            "{}",
            answer.json
        );
        ping(&harness, monitor).await;
        let kept = put(
            &caller,
            monitor,
            &json!({"schedule": schedule, "grace_seconds": 5}),
        )
        .await;
        assert_eq!(
            (&kept["status"], &kept["next_due_at"], &kept["deadline_at"]),
            (&json!("up"), &Value::Null, &Value::Null),
            "after its last run the entry is not expected, and opens no incident"
        );
    }
    clock.set("2027-02-01T12:00:00Z".parse().unwrap());
    harness.swept(&clock).await;
    assert!(caller.pages("/api/v1/incidents", 5).await.is_empty());
    harness.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_changed_schedule_or_zone_counts_from_now_and_opens_no_incident() {
    let (harness, clock) = harness::start_at(NOON).await;
    let caller = Caller::new(&harness);
    let cron =
        |expression: &str, zone: &str| json!({"kind": "cron", "expression": expression, "timezone": zone});
    let body = json!({"name": "Job", "schedule": cron("0 13 * * *", "UTC"), "grace_seconds": 60});
    let monitor = caller.post("/api/v1/monitors", &body).await;
    ping(&harness, &monitor).await;

    // Each change comes after the previous slot has passed, and within its grace.
    for (now, schedule, due) in [
        // 13:00 in Berlin was an hour ago, so tomorrow's slot is expected.
        (
            "2026-01-15T13:00:30Z",
            cron("0 13 * * *", "Europe/Berlin"),
            "2026-01-16T12:00:00Z",
        ),
        (
            "2026-01-16T12:00:30Z",
            cron("0 13 * * *", "America/New_York"),
            "2026-01-16T18:00:00Z",
        ),
        (
            "2026-01-16T18:00:30Z",
            json!({"kind": "celery", "minute": [0, 30]}),
            "2026-01-16T18:30:00Z",
        ),
        (
            "2026-01-16T18:30:30Z",
            json!({"kind": "interval", "seconds": 600}),
            "2026-01-16T18:40:30Z",
        ),
    ] {
        clock.set(now.parse().unwrap());
        let changed = put(&caller, &monitor, &json!({"schedule": schedule})).await;
        assert_eq!(
            (&changed["status"], &changed["next_due_at"]),
            (&json!("up"), &json!(due)),
            "{schedule}"
        );
        // The clock moves past the previous deadline.
        clock.set(now.parse::<chrono::DateTime<chrono::Utc>>().unwrap() + chrono::TimeDelta::seconds(60));
        harness.swept(&clock).await;
        assert!(
            caller.pages("/api/v1/incidents", 5).await.is_empty(),
            "{schedule}"
        );
    }
    // The evaluator judges the newly expected slot.
    clock.set("2026-01-16T18:41:31Z".parse().unwrap());
    harness.swept(&clock).await;
    let incidents = caller.pages("/api/v1/incidents", 5).await;
    assert_eq!(
        (incidents.len(), &incidents[0]["cause"]["code"]),
        (1, &json!("MISSED"))
    );
    harness.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_zone_under_its_former_name_is_no_change() {
    let (harness, clock) = harness::start_at(NOON).await;
    let caller = Caller::new(&harness);
    let every = |zone: &str| json!({"kind": "cron", "expression": "0 13 * * *", "timezone": zone});
    let body = json!({"name": "Job", "schedule": every("Europe/Kiev"), "grace_seconds": 3600});
    let monitor = caller.post("/api/v1/monitors", &body).await;
    ping(&harness, &monitor).await;
    assert_eq!(monitor["schedule"], every("Europe/Kyiv"));

    // 13:00 in Kyiv is 11:00Z. That slot has passed without a report, and a change would forgive it.
    clock.set("2026-01-16T11:10:00Z".parse().unwrap());
    for zone in ["Europe/Kiev", "Europe/Kyiv"] {
        let again = put(&caller, &monitor, &json!({"schedule": every(zone)})).await;
        assert_eq!(
            (&again["status"], &again["next_due_at"]),
            (&json!("late"), &json!("2026-01-16T11:00:00Z")),
            "{zone}"
        );
    }
    harness.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn lists_that_celery_made_are_the_texts_that_stand_for_them() {
    let (harness, _) = harness::start_at(NOON).await;
    let caller = Caller::new(&harness);
    let sdk = Caller::with_key(&harness, &harness.ping_key);
    let all: Vec<u32> = (0..60).collect();
    let text = all.iter().map(u32::to_string).collect::<Vec<_>>().join(",");
    let entry = |schedule: Value| json!({"name": "lists", "schedule": schedule, "grace_seconds": 60});
    let event = |entry: Value| json!({"id": Uuid::new_v4(), "type": "beat_schedule", "at": "2026-03-02T01:00:00Z", "beat": "shop", "entries": [entry]});

    let lists = json!({"kind": "celery", "minute": all, "hour": [7, 8], "day_of_week": [0], "timezone": "US/Pacific"});
    accepted(&sdk, &[event(entry(lists))]).await;
    let monitor = by_entry(&caller, "lists").await;

    let texts = json!({"kind": "celery", "minute": text, "hour": "7,8", "day_of_month": "*", "month_of_year": "*",
        "day_of_week": "0", "timezone": "America/Los_Angeles"});
    assert_eq!(monitor["schedule"], texts);
    assert_eq!(monitor["next_due_at"], "2026-01-18T15:00:00Z", "Sunday, 07:00");
    let again = put(&caller, &monitor, &json!({"schedule": texts})).await;
    assert_eq!(again["next_due_at"], monitor["next_due_at"]);
    harness.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_place_with_all_its_digits_is_the_same_place_when_it_is_reported_again() {
    let (harness, clock) = harness::start_at(NOON).await;
    let caller = Caller::new(&harness);
    let sdk = Caller::with_key(&harness, &harness.ping_key);
    let entries: Vec<Value> = [
        -56.042_133_558_251_12,
        52.516_272_000_000_01,
        0.1 + 0.2,
        1.0 / 3.0,
    ]
    .into_iter()
    .enumerate()
    .map(|(number, latitude)| {
        let schedule =
            json!({"kind": "solar", "event": "sunset", "latitude": latitude, "longitude": -latitude});
        json!({"name": format!("place {number}"), "schedule": schedule, "grace_seconds": 86_400})
    })
    .collect();
    let event = json!({"id": Uuid::new_v4(), "type": "beat_schedule", "at": NOON, "beat": "shop", "entries": entries});
    let batch = json!({"sent_at": NOON, "events": [event]});
    assert_eq!(
        sdk.post("/api/v1/events", &batch).await["results"][0]["status"],
        "accepted"
    );
    let before = dump(&harness).await;

    // A day later, a sunset has passed without a report. A changed schedule would forgive it.
    clock.set("2026-01-16T08:00:00Z".parse().unwrap());
    assert_eq!(
        sdk.post("/api/v1/events", &batch).await["results"][0]["status"],
        "accepted"
    );
    assert_eq!(dump(&harness).await, before);
    for (monitor, entry) in caller
        .pages("/api/v1/monitors", 5)
        .await
        .iter()
        .rev()
        .zip(&entries)
    {
        assert_eq!(monitor["schedule"], entry["schedule"]);
        assert_eq!(monitor["status"], "late");
        let again = put(&caller, monitor, &json!({"schedule": monitor["schedule"]})).await;
        assert_eq!(again["next_due_at"], monitor["next_due_at"]);
    }
    harness.stop().await;
}
