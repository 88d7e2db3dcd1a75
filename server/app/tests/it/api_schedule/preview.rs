//! Previews: what a schedule means before a monitor has it.

use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use super::{Kind, NOON, foreign, native, preview, slots};
use crate::contract::{Caller, dump};
use crate::harness;

const PATH: &str = "/api/v1/schedules/preview";

#[tokio::test(flavor = "multi_thread")]
async fn a_slot_that_the_clock_jumps_over_comes_right_after_the_gap() {
    let harness = harness::start().await;
    let caller = Caller::with_key(&harness, &harness.read_key);
    let berlin =
        |expression: &str| json!({"kind": "cron", "expression": expression, "timezone": "Europe/Berlin"});

    let answer = preview(
        &caller,
        &json!({"schedule": berlin("30 2 * * *"), "after": "2026-03-29T00:00:00Z"}),
    )
    .await;

    assert_eq!(
        slots(&answer)[..2],
        ["2026-03-29T01:00:00Z", "2026-03-30T00:30:00Z"],
        "02:30 does not exist: 03:00, and on the next day 02:30 summer time"
    );
    assert_eq!(answer["summary"], "at 02:30 every day, Europe/Berlin");
    assert_eq!(answer["schedule"], berlin("30 2 * * *"));
    let release = answer["time_zone_database"].as_str().unwrap();
    assert!(
        release.len() == 5 && release[..4].parse::<u32>().is_ok_and(|year| year >= 2026),
        "{release}"
    );
    // The night in which an hour comes twice. A fixed time has one slot; a schedule that repeats within the hour follows the clock.
    for (expression, expected) in [
        ("30 2 * * *", ["2026-10-25T00:30:00Z", "2026-10-26T01:30:00Z"]),
        ("*/30 2 * * *", ["2026-10-25T00:00:00Z", "2026-10-25T00:30:00Z"]),
    ] {
        let body = json!({"schedule": berlin(expression), "after": "2026-10-24T22:00:00Z", "count": 4});
        let answer = preview(&caller, &body).await;
        assert_eq!(slots(&answer)[..2], expected, "{expression}");
        let again = slots(&answer).contains(&"2026-10-25T01:30:00Z");
        assert_eq!(again, expression.starts_with('*'), "{expression}: {answer}");
    }
    harness.stop().await;
}

async fn assert_previewed(kinds: Vec<Kind>) {
    let (harness, _) = harness::start_at(NOON).await;
    let caller = Caller::with_key(&harness, &harness.read_key);

    for kind in kinds {
        let answer = preview(&caller, &json!({"schedule": kind.sent, "count": 3})).await;

        assert_eq!(slots(&answer), kind.slots, "{}", kind.sent);
        assert_eq!(answer["summary"], kind.summary, "{}", kind.sent);
        assert_eq!(answer["schedule"], kind.answered, "{}", kind.sent);
        let again = preview(
            &caller,
            &json!({"schedule": kind.answered, "after": NOON, "count": 3}),
        )
        .await;
        assert_eq!(again, answer, "a client can send the answer back");
    }
    harness.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_kind_is_previewed_with_its_slots_and_its_words() {
    assert_previewed(native()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn kinds_of_other_programs_are_previewed_alike() {
    assert_previewed(foreign()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_sun_does_is_previewed_as_celery_has_it() {
    let harness = harness::start().await;
    let caller = Caller::new(&harness);

    // The expected times are from PyEphem, which Celery uses: for Berlin, and for a place with a southern latitude and a western longitude.
    for (event, latitude, longitude, after, expected, summary) in [
        (
            "sunrise",
            json!(52.52),
            json!(13.405),
            "2026-06-21T00:00:00Z",
            ["2026-06-21T02:43:08Z", "2026-06-22T02:43:22Z"],
            "at sunrise, 52.52° N 13.405° E",
        ),
        (
            "dusk_civil",
            json!(-33),
            json!(-70.5),
            "2026-06-21T12:00:00Z",
            ["2026-06-21T22:10:23Z", "2026-06-22T22:10:38Z"],
            "at civil dusk, 33° S 70.5° W",
        ),
    ] {
        let schedule = json!({"kind": "solar", "event": event, "latitude": latitude, "longitude": longitude});
        let answer = preview(
            &caller,
            &json!({"schedule": schedule, "after": after, "count": 2}),
        )
        .await;

        assert_eq!(answer["summary"], summary);
        for field in ["kind", "event"] {
            assert_eq!(answer["schedule"][field], schedule[field]);
        }
        for field in ["latitude", "longitude"] {
            assert_eq!(answer["schedule"][field].as_f64(), schedule[field].as_f64());
        }
        for (found, expected) in slots(&answer).into_iter().zip(expected) {
            let instant = |text: &str| chrono::DateTime::parse_from_rfc3339(text).unwrap();
            let off = (instant(found) - instant(expected)).num_seconds().abs();
            assert!(off <= 5, "{event}: {found}, not {expected}");
        }
        assert_eq!(slots(&answer).len(), 2);
    }
    harness.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hint_has_no_slots_that_could_be_computed() {
    let harness = harness::start().await;
    let caller = Caller::new(&harness);

    for (schedule, summary) in [
        (
            json!({"kind": "hint", "class": "rrule", "text": "FREQ=DAILY"}),
            "at times that Beat computes (rrule: FREQ=DAILY)",
        ),
        (
            json!({"kind": "hint", "class": "shop.Moon"}),
            "at times that Beat computes (shop.Moon)",
        ),
    ] {
        let answer = preview(&caller, &json!({"schedule": schedule, "count": 500})).await;
        assert_eq!(
            (&answer["slots"], &answer["schedule"], &answer["summary"]),
            (&json!([]), &schedule, &json!(summary))
        );
    }
    harness.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn slots_come_strictly_after_and_as_many_as_were_asked_for() {
    let (harness, _) = harness::start_at(NOON).await;
    let caller = Caller::new(&harness);
    let minutes = json!({"kind": "cron", "expression": "* * * * *"});

    let answer = preview(&caller, &json!({"schedule": minutes})).await;
    assert_eq!(slots(&answer).len(), 10, "the default number of slots");
    assert_eq!(
        slots(&answer)[0],
        "2026-01-15T12:01:00Z",
        "the slot at `after` itself does not count"
    );
    for count in [1, 2, 499, 500] {
        let answer = preview(&caller, &json!({"schedule": minutes, "count": count})).await;
        assert_eq!(slots(&answer).len(), count);
    }
    for (after, first) in [
        ("2026-01-15T11:59:59.999999Z", "2026-01-15T12:00:00Z"),
        ("2026-01-15T12:00:00.000001Z", "2026-01-15T12:01:00Z"),
        ("2026-01-15T13:00:00+01:00", "2026-01-15T12:01:00Z"),
        ("2026-01-15t12:00:00z", "2026-01-15T12:01:00Z"),
        ("2016-12-31T23:59:60Z", "2017-01-01T00:01:00Z"),
        ("1900-01-01T00:00:00Z", "1900-01-01T00:01:00Z"),
        ("9899-12-31T23:59:59Z", "9900-01-01T00:00:00Z"),
    ] {
        let answer = preview(&caller, &json!({"schedule": minutes, "after": after, "count": 1})).await;
        assert_eq!(slots(&answer), [first], "after {after}");
    }
    harness.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn at_the_ends_of_the_calendar_there_is_nothing_and_no_harm() {
    let (harness, _) = harness::start_at(NOON).await;
    let caller = Caller::new(&harness);

    for kind in native().into_iter().chain(foreign()) {
        for after in ["0000-01-01T00:00:00Z", "9999-12-31T23:59:59Z"] {
            let answer = caller
                .json(
                    Method::POST,
                    PATH,
                    &json!({"schedule": kind.sent, "after": after, "count": 500}),
                )
                .await;
            assert_eq!(
                answer.status,
                StatusCode::OK,
                "{} after {after}: {}",
                kind.sent,
                answer.json
            );
            assert_eq!(answer.json["slots"], json!([]), "{} after {after}", kind.sent);
        }
    }
    harness.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn years_that_are_over_are_shown_and_have_no_slots() {
    let (harness, _) = harness::start_at(NOON).await;
    let caller = Caller::new(&harness);

    for schedule in [
        json!({"kind": "quartz", "expression": "0 0 12 1 1 ? 2024-2025"}),
        json!({"kind": "oncalendar", "expression": "2025-12-31 23:59:59"}),
    ] {
        let answer = preview(&caller, &json!({"schedule": schedule})).await;
        assert_eq!(answer["slots"], json!([]), "{schedule}");
        let answer = preview(
            &caller,
            &json!({"schedule": schedule, "after": "2023-12-31T00:00:00Z"}),
        )
        .await;
        assert!(!slots(&answer).is_empty(), "{schedule}");
    }
    harness.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fault_is_reported_with_its_field_and_its_character() {
    let harness = harness::start().await;
    let caller = Caller::new(&harness);
    let before = dump(&harness).await;
    let cron = |expression: &str| json!({"kind": "cron", "expression": expression});

    for (schedule, pointer, position, part) in [
        (
            cron("0 25 * * *"),
            "/expression",
            json!(3),
            "hour takes 0 to 23, not '25'",
        ),
        (cron("0 1,2,24 * * *"), "/expression", json!(7), "not '24'"),
        (cron("* * *"), "/expression", json!(6), "found 3 fields"),
        (cron("0 0 * * * * 2026"), "/expression", json!(13), "kind quartz"),
        (cron("0 0 31 2 *"), "/expression", json!(5), "never run"),
        (cron("* * * * \u{e9}"), "/expression", json!(9), "has no meaning"),
        (cron("@never"), "/expression", json!(1), "@never is not known"),
        (
            json!({"kind": "celery", "hour": "8-25"}),
            "/hour",
            json!(3),
            "takes 0 to 23, not '25'",
        ),
        // The hour is not a text, so the fault names no character.
        (
            json!({"kind": "celery", "hour": [8, 25]}),
            "/hour/1",
            Value::Null,
            "takes 0 to 23, not '25'",
        ),
        (
            json!({"kind": "celery", "day_of_month": "31", "month_of_year": "2,4"}),
            "/day_of_month",
            Value::Null,
            "never run",
        ),
        (
            json!({"kind": "cron", "expression": "* * * * *", "timezone": "Europe/Bonn"}),
            "/timezone",
            Value::Null,
            "no time zone 'Europe/Bonn'",
        ),
        (
            json!({"kind": "interval", "seconds": 0}),
            "/seconds",
            Value::Null,
            "366 days",
        ),
        (
            json!({"kind": "lunar"}),
            "/kind",
            Value::Null,
            "oncalendar or hint, not 'lunar'",
        ),
        (json!("* * * * *"), "", Value::Null, "a schedule is an object"),
    ] {
        let answer = caller
            .json(Method::POST, PATH, &json!({"schedule": schedule}))
            .await;
        let fault = &answer.json["errors"][0];
        assert_eq!(
            (answer.status, answer.code()),
            (StatusCode::BAD_REQUEST, "invalid_fields"),
            "{schedule}: {}",
            answer.json
        );
        assert_eq!(
            (&fault["pointer"], &fault["position"]),
            (&json!(format!("/schedule{pointer}")), &position),
            "{schedule}: {}",
            answer.json
        );
        assert!(
            fault["message"].as_str().unwrap().contains(part),
            "{schedule}: {fault}"
        );
        // The server refuses the schedule of a monitor with the same words.
        let monitor = caller
            .json(
                Method::POST,
                "/api/v1/monitors",
                &json!({"name": "x", "schedule": schedule}),
            )
            .await;
        assert_eq!(monitor.json["errors"], answer.json["errors"], "{schedule}");
    }
    assert_eq!(dump(&harness).await, before);
    harness.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn faults_of_other_programs_expressions_are_reported_with_their_character() {
    let harness = harness::start().await;
    let caller = Caller::new(&harness);

    for (schedule, position) in [
        (json!({"kind": "quartz", "expression": "0 0 25 * * ?"}), 5),
        (json!({"kind": "quartz", "expression": "0 0 12 ? * 8"}), 12),
        (
            json!({"kind": "oncalendar", "expression": "daily\nMon 25:00"}),
            11,
        ),
    ] {
        let answer = caller
            .json(Method::POST, PATH, &json!({"schedule": schedule}))
            .await;
        assert_eq!(
            (answer.status, &answer.json["errors"][0]["pointer"]),
            (StatusCode::BAD_REQUEST, &json!("/schedule/expression")),
            "{schedule}: {}",
            answer.json
        );
        assert_eq!(
            answer.json["errors"][0]["position"], position,
            "{schedule}: {}",
            answer.json
        );
    }
    for (schedule, pointer) in [
        (
            json!({"kind": "solar", "event": "sunrise", "latitude": 90.1, "longitude": 0}),
            "/schedule/latitude",
        ),
        (
            json!({"kind": "solar", "event": "sunrise", "latitude": 0, "longitude": -180.1}),
            "/schedule/longitude",
        ),
        (
            json!({"kind": "solar", "event": "noon", "latitude": 0, "longitude": 0}),
            "/schedule/event",
        ),
    ] {
        let answer = caller
            .json(Method::POST, PATH, &json!({"schedule": schedule}))
            .await;
        assert_eq!(
            (answer.status, &answer.json["errors"][0]["pointer"]),
            (StatusCode::BAD_REQUEST, &json!(pointer)),
            "{schedule}: {}",
            answer.json
        );
    }
    harness.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_asked_beside_the_schedule_is_checked_too() {
    let harness = harness::start().await;
    let caller = Caller::new(&harness);
    let minutes = json!({"kind": "cron", "expression": "* * * * *"});

    for (field, value, pointer) in [
        ("count", json!(0), "/count"),
        ("count", json!(501), "/count"),
        ("count", json!(-1), "/count"),
        ("count", json!(9_223_372_036_854_775_807_i64), "/count"),
        ("count", json!(18_446_744_073_709_551_615_u64), "/count"),
        ("count", json!(1.5), "/count"),
        ("count", json!(1e300), "/count"),
        ("count", json!("5"), "/count"),
        ("count", json!([5]), "/count"),
        ("count", Value::Null, "/count"),
        ("after", json!("yesterday"), "/after"),
        ("after", json!(""), "/after"),
        ("after", json!("2026-03-29"), "/after"),
        ("after", json!("2026-03-29T00:00:00"), "/after"),
        ("after", json!("2026-03-29 00:00:00Z"), "/after"),
        ("after", json!("2026-3-9T00:00:00Z"), "/after"),
        ("after", json!("2026-02-30T00:00:00Z"), "/after"),
        ("after", json!("+262142-12-31T23:59:59Z"), "/after"),
        ("after", json!("9999-12-31T23:59:59-00:01"), "/after"),
        ("after", json!("\u{0}".repeat(100_000)), "/after"),
        ("after", json!(1_767_225_600), "/after"),
        ("after", Value::Null, "/after"),
        ("schedule", Value::Null, "/schedule"),
        ("schedule", json!([]), "/schedule"),
        ("before", json!("2026-03-29T00:00:00Z"), "/before"),
    ] {
        let mut body = json!({"schedule": minutes});
        body[field] = value;
        let shown: String = body.to_string().chars().take(200).collect();
        let answer = caller.json(Method::POST, PATH, &body).await;
        assert_eq!(
            (
                answer.status,
                answer.code(),
                answer.json["errors"][0]["pointer"].as_str()
            ),
            (StatusCode::BAD_REQUEST, "invalid_fields", Some(pointer)),
            "{shown}: {}",
            answer.json
        );
        assert!(answer.json["detail"].as_str().unwrap().len() < 700, "{shown}");
    }
    let nothing = caller.json(Method::POST, PATH, &json!({})).await;
    assert_eq!(nothing.status, StatusCode::BAD_REQUEST);
    // One answer lists all faults that can be found together.
    let both = json!({"schedule": {"kind": "cron", "expression": "* * * * 9"}, "count": 0});
    let answer = caller.json(Method::POST, PATH, &both).await;
    let pointers: Vec<&Value> = answer.json["errors"]
        .as_array()
        .unwrap()
        .iter()
        .map(|fault| &fault["pointer"])
        .collect();
    assert_eq!(pointers, ["/count", "/schedule/expression"]);
    harness.stop().await;
}
