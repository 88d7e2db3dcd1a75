//! `/api/v1/schedules/preview`, and monitors of every kind of schedule. Every answer is checked by the contract.

mod monitor;
mod preview;

use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use crate::contract::Caller;

/// A Thursday noon, far from any change between standard and summer time.
pub const NOON: &str = "2026-01-15T12:00:00Z";

/// An accepted schedule as a client sends it, as the server answers it, in words, and with its slots after [`NOON`].
pub struct Kind {
    pub sent: Value,
    pub answered: Value,
    pub summary: &'static str,
    pub slots: [&'static str; 3],
}

/// Schedules that the server counts by the clock. [`foreign`] has the schedules of other programs.
pub fn native() -> Vec<Kind> {
    vec![
        Kind {
            sent: json!({"kind": "interval", "seconds": 90.5}),
            answered: json!({"kind": "interval", "seconds": 90.5}),
            summary: "every 90.5 seconds",
            slots: [
                "2026-01-15T12:01:30.500Z",
                "2026-01-15T12:03:01Z",
                "2026-01-15T12:04:31.500Z",
            ],
        },
        Kind {
            // The slots also exist before the anchor. The answer has the offset converted to UTC.
            sent: json!({"kind": "interval", "seconds": 3600, "anchor": "2026-01-16T01:15:00+01:00", "relative": false}),
            answered: json!({"kind": "interval", "seconds": 3600, "anchor": "2026-01-16T00:15:00Z"}),
            summary: "every hour from 2026-01-16T00:15:00Z",
            slots: [
                "2026-01-15T12:15:00Z",
                "2026-01-15T13:15:00Z",
                "2026-01-15T14:15:00Z",
            ],
        },
        Kind {
            sent: json!({"kind": "interval", "seconds": 5400, "relative": true, "timezone": "Asia/Calcutta"}),
            answered: json!({"kind": "interval", "seconds": 5400, "relative": true, "timezone": "Asia/Kolkata"}),
            summary: "every 90 minutes, at round times, Asia/Kolkata",
            slots: [
                "2026-01-15T13:30:00Z",
                "2026-01-15T14:30:00Z",
                "2026-01-15T15:30:00Z",
            ],
        },
        Kind {
            sent: json!({"kind": "cron", "expression": " 30  2 * *\tmon-fri ", "timezone": "US/Eastern"}),
            answered: json!({"kind": "cron", "expression": "30 2 * * mon-fri", "timezone": "America/New_York"}),
            summary: "at 02:30 on weekdays, America/New_York",
            slots: [
                "2026-01-16T07:30:00Z",
                "2026-01-19T07:30:00Z",
                "2026-01-20T07:30:00Z",
            ],
        },
        Kind {
            sent: json!({"kind": "cron", "expression": "15/20 0 12 * * *"}),
            answered: json!({"kind": "cron", "expression": "15/20 0 12 * * *", "timezone": "UTC"}),
            summary: "cron 15/20 0 12 * * *, UTC",
            slots: [
                "2026-01-15T12:00:15Z",
                "2026-01-15T12:00:35Z",
                "2026-01-15T12:00:55Z",
            ],
        },
        Kind {
            sent: json!({"kind": "cron", "expression": "@weekly", "timezone": "Europe/Kiev"}),
            answered: json!({"kind": "cron", "expression": "@weekly", "timezone": "Europe/Kyiv"}),
            summary: "at 00:00 on Sundays, Europe/Kyiv",
            slots: [
                "2026-01-17T22:00:00Z",
                "2026-01-24T22:00:00Z",
                "2026-01-31T22:00:00Z",
            ],
        },
        Kind {
            sent: json!({"kind": "celery"}),
            answered: json!({"kind": "celery", "minute": "*", "hour": "*", "day_of_month": "*", "month_of_year": "*",
                "day_of_week": "*", "timezone": "UTC"}),
            summary: "every minute, UTC",
            slots: [
                "2026-01-15T12:01:00Z",
                "2026-01-15T12:02:00Z",
                "2026-01-15T12:03:00Z",
            ],
        },
        Kind {
            // The schedule mixes lists as Celery has expanded them, numbers, and text as a person writes it.
            sent: json!({"kind": "celery", "minute": [0, 30], "hour": 6, "day_of_month": "*", "month_of_year": [1, 12],
                "day_of_week": "mon,fri", "timezone": "Europe/Berlin"}),
            answered: json!({"kind": "celery", "minute": "0,30", "hour": "6", "day_of_month": "*", "month_of_year": "1,12",
                "day_of_week": "mon,fri", "timezone": "Europe/Berlin"}),
            summary: "celery 0,30 6 * 1,12 mon,fri, Europe/Berlin",
            slots: [
                "2026-01-16T05:00:00Z",
                "2026-01-16T05:30:00Z",
                "2026-01-19T05:00:00Z",
            ],
        },
    ]
}

/// Schedules in the syntax of other programs.
pub fn foreign() -> Vec<Kind> {
    vec![
        Kind {
            // In Quartz, 1 is Sunday, so 2-6 are the weekdays.
            sent: json!({"kind": "quartz", "expression": "0  30 18 ? * 2-6", "timezone": "America/New_York"}),
            answered: json!({"kind": "quartz", "expression": "0 30 18 ? * 2-6", "timezone": "America/New_York"}),
            summary: "at 18:30 on weekdays, America/New_York",
            slots: [
                "2026-01-15T23:30:00Z",
                "2026-01-16T23:30:00Z",
                "2026-01-19T23:30:00Z",
            ],
        },
        Kind {
            sent: json!({"kind": "quartz", "expression": "*/20 0 12 15 1 ? 2026-2027"}),
            answered: json!({"kind": "quartz", "expression": "*/20 0 12 15 1 ? 2026-2027", "timezone": "UTC"}),
            summary: "quartz */20 0 12 15 1 ? 2026-2027, UTC",
            slots: [
                "2026-01-15T12:00:20Z",
                "2026-01-15T12:00:40Z",
                "2027-01-15T12:00:00Z",
            ],
        },
        Kind {
            sent: json!({"kind": "oncalendar", "expression": "\n Mon..Fri *-*-* 06:30  \n\nSat *-*-* 09:00 Asia/Tokyo\n",
                "timezone": "Europe/Berlin"}),
            answered: json!({"kind": "oncalendar", "expression": "Mon..Fri *-*-* 06:30\nSat *-*-* 09:00 Asia/Tokyo",
                "timezone": "Europe/Berlin"}),
            summary: "calendar Mon..Fri *-*-* 06:30 and Sat *-*-* 09:00 Asia/Tokyo, Europe/Berlin",
            slots: [
                "2026-01-16T05:30:00Z",
                "2026-01-17T00:00:00Z",
                "2026-01-19T05:30:00Z",
            ],
        },
    ]
}

pub async fn preview(caller: &Caller<'_>, body: &Value) -> Value {
    let answer = caller.json(Method::POST, "/api/v1/schedules/preview", body).await;
    assert_eq!(answer.status, StatusCode::OK, "{body}: {}", answer.json);
    answer.json
}

pub fn slots(preview: &Value) -> Vec<&str> {
    preview["slots"]
        .as_array()
        .unwrap()
        .iter()
        .map(|slot| slot.as_str().unwrap())
        .collect()
}
