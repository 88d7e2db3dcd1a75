//! Each field of a monitor with values that the server must refuse.

use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::api_monitor::{hourly, path};
use crate::contract::{Caller, dump};
use crate::harness;

/// Returns fields with a bad value, and the place that the answer must name.
fn bad_fields() -> Vec<(&'static str, Value, &'static str)> {
    let cron = |expression: &str| json!({"kind": "cron", "expression": expression});
    vec![
        ("name", json!(""), "/name"),
        ("name", json!("  \u{a0}"), "/name"),
        ("name", json!("x".repeat(201)), "/name"),
        ("name", json!("a\u{0}b"), "/name"),
        ("name", json!("a\nb"), "/name"),
        ("name", json!("a\u{7f}"), "/name"),
        ("name", json!("a\u{85}"), "/name"),
        ("name", json!(5), "/name"),
        ("name", json!(["x"]), "/name"),
        ("name", json!({"x": 1}), "/name"),
        ("slug", json!(""), "/slug"),
        ("slug", json!("a b"), "/slug"),
        ("slug", json!("a\u{0}"), "/slug"),
        ("slug", json!("é"), "/slug"),
        ("slug", json!("x".repeat(101)), "/slug"),
        ("slug", json!(true), "/slug"),
        ("tags", json!("prod"), "/tags"),
        ("tags", json!([""]), "/tags/0"),
        ("tags", json!(["ok", "a b"]), "/tags/1"),
        ("tags", json!(["a\u{0}"]), "/tags/0"),
        ("tags", json!(["x".repeat(101)]), "/tags/0"),
        ("tags", json!([5]), "/tags/0"),
        (
            "tags",
            json!((0..51).map(|n| n.to_string()).collect::<Vec<_>>()),
            "/tags",
        ),
        ("grace_seconds", json!(-1), "/grace_seconds"),
        ("grace_seconds", json!(-0.1), "/grace_seconds"),
        ("grace_seconds", json!(31_622_401), "/grace_seconds"),
        ("grace_seconds", json!(1e300), "/grace_seconds"),
        ("grace_seconds", json!("60"), "/grace_seconds"),
        ("grace_seconds", json!([60]), "/grace_seconds"),
        ("longest_run_seconds", json!(0), "/longest_run_seconds"),
        ("longest_run_seconds", json!(0.1), "/longest_run_seconds"),
        ("longest_run_seconds", json!(-1), "/longest_run_seconds"),
        ("longest_run_seconds", json!(1e9), "/longest_run_seconds"),
        ("longest_run_seconds", json!("x"), "/longest_run_seconds"),
        ("channels", json!("some"), "/channels"),
        ("channels", json!("ALL"), "/channels"),
        ("channels", json!(5), "/channels"),
        ("channels", json!({}), "/channels"),
        ("channels", json!(["x"]), "/channels/0"),
        ("channels", json!(["\u{0}"]), "/channels/0"),
        ("channels", json!([Uuid::nil()]), "/channels"),
        ("severity", json!("urgent"), "/severity"),
        ("severity", json!("Critical"), "/severity"),
        ("severity", json!(2), "/severity"),
        ("failure_threshold", json!(0), "/failure_threshold"),
        ("failure_threshold", json!(101), "/failure_threshold"),
        ("failure_threshold", json!(-1), "/failure_threshold"),
        ("failure_threshold", json!(1.5), "/failure_threshold"),
        ("failure_threshold", json!("3"), "/failure_threshold"),
        ("failure_threshold", json!(null), "/failure_threshold"),
        ("failure_threshold", json!(u64::MAX), "/failure_threshold"),
        ("recovery_threshold", json!(0), "/recovery_threshold"),
        ("recovery_threshold", json!(101), "/recovery_threshold"),
        ("recovery_threshold", json!([]), "/recovery_threshold"),
        ("schedule", json!("* * * * *"), "/schedule"),
        ("schedule", json!([]), "/schedule"),
        ("schedule", json!({}), "/schedule/kind"),
        ("schedule", json!({"kind": "\u{0}"}), "/schedule/kind"),
        ("schedule", json!({"kind": "lunar"}), "/schedule/kind"),
        (
            "schedule",
            json!({"kind": "hint", "class": "rrule"}),
            "/schedule/kind",
        ),
        ("schedule", json!({"kind": "hint"}), "/schedule/class"),
        (
            "schedule",
            json!({"kind": "hint", "class": "a\u{0}"}),
            "/schedule/class",
        ),
        ("schedule", json!({"kind": "solar"}), "/schedule/event"),
        (
            "schedule",
            json!({"kind": "solar", "event": "eclipse", "latitude": 0, "longitude": 0}),
            "/schedule/event",
        ),
        (
            "schedule",
            json!({"kind": "solar", "event": "sunrise", "longitude": 0}),
            "/schedule/latitude",
        ),
        (
            "schedule",
            json!({"kind": "solar", "event": "sunrise", "latitude": "52", "longitude": 0}),
            "/schedule/latitude",
        ),
        ("schedule", json!({"kind": "quartz"}), "/schedule/expression"),
        (
            "schedule",
            json!({"kind": "quartz", "expression": "* * * * *"}),
            "/schedule/expression",
        ),
        (
            "schedule",
            json!({"kind": "quartz", "expression": "\u{0}"}),
            "/schedule/expression",
        ),
        (
            "schedule",
            json!({"kind": "quartz", "expression": "0 ".repeat(300_000)}),
            "/schedule/expression",
        ),
        ("schedule", json!({"kind": "oncalendar"}), "/schedule/expression"),
        (
            "schedule",
            json!({"kind": "oncalendar", "expression": "\n"}),
            "/schedule/expression",
        ),
        (
            "schedule",
            json!({"kind": "oncalendar", "expression": "daily\n\u{0}"}),
            "/schedule/expression",
        ),
        (
            "schedule",
            json!({"kind": "oncalendar", "expression": "daily\n".repeat(100_000)}),
            "/schedule/expression",
        ),
        ("schedule", json!({"kind": 5}), "/schedule/kind"),
        ("schedule", json!({"kind": "interval"}), "/schedule/seconds"),
        (
            "schedule",
            json!({"kind": "interval", "seconds": 0.1}),
            "/schedule/seconds",
        ),
        (
            "schedule",
            json!({"kind": "interval", "seconds": -1}),
            "/schedule/seconds",
        ),
        (
            "schedule",
            json!({"kind": "interval", "seconds": 1e300}),
            "/schedule/seconds",
        ),
        (
            "schedule",
            json!({"kind": "interval", "seconds": "60"}),
            "/schedule/seconds",
        ),
        (
            "schedule",
            json!({"kind": "interval", "seconds": 60, "minutes": 1}),
            "/schedule/minutes",
        ),
        (
            "schedule",
            json!({"kind": "interval", "seconds": 60, "\u{0}": 1}),
            "/schedule/\u{0}",
        ),
        (
            "schedule",
            json!({"kind": "interval", "seconds": 60, "relative": 1}),
            "/schedule/relative",
        ),
        (
            "schedule",
            json!({"kind": "interval", "seconds": 60, "anchor": "2026-01-01T00:00:00Z", "relative": true}),
            "/schedule/anchor",
        ),
        (
            "schedule",
            json!({"kind": "interval", "seconds": 60, "anchor": 0}),
            "/schedule/anchor",
        ),
        (
            "schedule",
            json!({"kind": "interval", "seconds": 60, "anchor": "noon"}),
            "/schedule/anchor",
        ),
        (
            "schedule",
            json!({"kind": "interval", "seconds": 60, "anchor": "2026-01-01"}),
            "/schedule/anchor",
        ),
        (
            // In UTC, this is the year 10000. The database could store it, but the server could not read it again.
            "schedule",
            json!({"kind": "interval", "seconds": 60, "anchor": "9999-12-31T23:59:59-00:01"}),
            "/schedule/anchor",
        ),
        ("schedule", cron(""), "/schedule/expression"),
        ("schedule", cron("* * * *"), "/schedule/expression"),
        ("schedule", cron("60 * * * * *"), "/schedule/expression"),
        ("schedule", cron("0 0 0 1 1 * 2030"), "/schedule/expression"),
        ("schedule", cron("60 * * * *"), "/schedule/expression"),
        ("schedule", cron("0 0 31 2 *"), "/schedule/expression"),
        ("schedule", cron("0 0 30 feb *"), "/schedule/expression"),
        ("schedule", cron("* * * * *\u{0}"), "/schedule/expression"),
        ("schedule", cron("@never"), "/schedule/expression"),
        (
            "schedule",
            json!({"kind": "cron", "expression": "* ".repeat(300_000)}),
            "/schedule/expression",
        ),
        (
            "schedule",
            json!({"kind": "cron", "expression": 5}),
            "/schedule/expression",
        ),
        ("schedule", json!({"kind": "cron"}), "/schedule/expression"),
        (
            "schedule",
            json!({"kind": "cron", "expression": "* * * * *", "timezone": "Mars/Olympus"}),
            "/schedule/timezone",
        ),
        (
            "schedule",
            json!({"kind": "cron", "expression": "* * * * *", "timezone": "europe/berlin"}),
            "/schedule/timezone",
        ),
        (
            "schedule",
            json!({"kind": "cron", "expression": "* * * * *", "timezone": "UTC\u{0}"}),
            "/schedule/timezone",
        ),
        (
            "schedule",
            json!({"kind": "cron", "expression": "* * * * *", "timezone": ""}),
            "/schedule/timezone",
        ),
        (
            "schedule",
            json!({"kind": "cron", "expression": "* * * * *", "timezone": "x".repeat(500_000)}),
            "/schedule/timezone",
        ),
        (
            "schedule",
            json!({"kind": "celery", "day_of_month": "31", "month_of_year": "2"}),
            "/schedule/day_of_month",
        ),
        (
            "schedule",
            json!({"kind": "celery", "day_of_week": "7"}),
            "/schedule/day_of_week",
        ),
        (
            "schedule",
            json!({"kind": "celery", "minute": "5/15"}),
            "/schedule/minute",
        ),
        (
            "schedule",
            json!({"kind": "celery", "hour": "\u{0}"}),
            "/schedule/hour",
        ),
        (
            "schedule",
            json!({"kind": "celery", "hour": 24}),
            "/schedule/hour",
        ),
        (
            "schedule",
            json!({"kind": "celery", "hour": -1}),
            "/schedule/hour",
        ),
        (
            "schedule",
            json!({"kind": "celery", "hour": 1.5}),
            "/schedule/hour",
        ),
        (
            "schedule",
            json!({"kind": "celery", "hour": []}),
            "/schedule/hour",
        ),
        (
            "schedule",
            json!({"kind": "celery", "hour": ["1"]}),
            "/schedule/hour",
        ),
        (
            "schedule",
            json!({"kind": "celery", "hour": [1, 24]}),
            "/schedule/hour/1",
        ),
        (
            "schedule",
            json!({"kind": "celery", "minute": vec![0; 61]}),
            "/schedule/minute",
        ),
        (
            "schedule",
            json!({"kind": "celery", "timezone": null}),
            "/schedule/timezone",
        ),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn no_bad_field_is_taken_and_each_is_named() {
    let harness = harness::start().await;
    let caller = Caller::new(&harness);
    let monitor = caller
        .post(
            "/api/v1/monitors",
            &json!({"name": "Job", "slug": "job", "schedule": hourly()}),
        )
        .await;
    let before = dump(&harness).await;

    for (field, value, pointer) in bad_fields() {
        let mut new = json!({"name": "New", "schedule": hourly()});
        new[field] = value.clone();
        let change = json!({field: value});
        let mut requests = vec![
            (Method::POST, "/api/v1/monitors".to_owned(), new.clone()),
            (Method::PATCH, path(&monitor), change.clone()),
        ];
        if field != "slug" {
            requests.push((Method::PUT, "/api/v1/monitors/job".to_owned(), change));
            requests.push((Method::PUT, "/api/v1/monitors/new-one".to_owned(), new));
        }
        for (method, path, body) in requests {
            let answer = caller.json(method.clone(), &path, &body).await;
            let shown: String = body.to_string().chars().take(200).collect();
            assert_eq!(
                (answer.status, answer.code()),
                (StatusCode::BAD_REQUEST, "invalid_fields"),
                "{method} {shown}: {}",
                answer.json
            );
            assert_eq!(
                answer.json["errors"][0]["pointer"], pointer,
                "{method} {shown}: {}",
                answer.json
            );
            assert!(
                answer.json["detail"].as_str().unwrap().chars().count() < 700,
                "{method} {shown}"
            );
        }
    }
    // One answer lists all faults.
    let answer = caller
        .json(
            Method::POST,
            "/api/v1/monitors",
            &json!({"name": "", "slug": "A", "tags": [""], "grace_seconds": -1}),
        )
        .await;
    assert_eq!(answer.json["errors"].as_array().unwrap().len(), 5);
    assert_eq!(dump(&harness).await, before);
    harness.stop().await;
}
