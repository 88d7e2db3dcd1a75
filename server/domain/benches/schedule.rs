//! How long a schedule takes to be read, and to give its next slot: what people write, and the slowest of what they may write.
//!
//! `cargo bench -p deadbeat-domain --bench schedule`. A server asks for a slot once a report and reads a schedule once a change, so anything below a
//! microsecond is for nothing; that nothing legal takes a millisecond is what keeps one row from stalling the others.

use std::hint::black_box;

use chrono::{DateTime, Utc};
use criterion::{Criterion, criterion_group, criterion_main};
use deadbeat_domain::schedule::Schedule;
use serde_json::{Value, json};

const WINTER: &str = "2026-01-15T10:17:42.5Z";
/// The changes of this year are already computed from a rule, not looked up.
const FAR_AWAY: &str = "2090-06-01T00:00:00Z";

fn cron(expression: &str, zone: &str) -> Value {
    json!({"kind": "cron", "expression": expression, "timezone": zone})
}

fn quartz(expression: &str, zone: &str) -> Value {
    json!({"kind": "quartz", "expression": expression, "timezone": zone})
}

fn oncalendar(expression: &str, zone: &str) -> Value {
    json!({"kind": "oncalendar", "expression": expression, "timezone": zone})
}

/// Name, schedule, and the instant from which the next slot is asked for.
fn common() -> Vec<(&'static str, Value, &'static str)> {
    let new_york = "America/New_York";
    vec![
        ("interval", json!({"kind": "interval", "seconds": 300}), WINTER),
        (
            "interval anchored",
            json!({"kind": "interval", "seconds": 300, "anchor": "2025-01-01T00:00:00Z"}),
            WINTER,
        ),
        (
            "interval relative hour",
            json!({"kind": "interval", "seconds": 3_600, "relative": true, "timezone": "Europe/Berlin"}),
            WINTER,
        ),
        (
            "interval relative day",
            json!({"kind": "interval", "seconds": 86_400, "relative": true, "timezone": "Europe/Berlin"}),
            WINTER,
        ),
        ("cron * * * * *", cron("* * * * *", "UTC"), WINTER),
        ("cron */5 * * * *", cron("*/5 * * * *", "Europe/Berlin"), WINTER),
        ("cron 0 3 * * *", cron("0 3 * * *", "Europe/Berlin"), WINTER),
        ("cron 30 2 * * 1-5", cron("30 2 * * 1-5", new_york), WINTER),
        (
            "cron 0 3 * * * far away",
            cron("0 3 * * *", "Europe/Berlin"),
            FAR_AWAY,
        ),
        ("cron 0 0 1 1 *", cron("0 0 1 1 *", new_york), WINTER),
        ("cron */10 * * * * *", cron("*/10 * * * * *", new_york), WINTER),
        (
            "celery */5",
            json!({"kind": "celery", "minute": "*/5", "timezone": "Europe/Berlin"}),
            WINTER,
        ),
        (
            "celery 30 2 * * mon-fri",
            json!({"kind": "celery", "minute": "30", "hour": "2", "day_of_week": "mon-fri", "timezone": new_york}),
            WINTER,
        ),
        (
            "quartz 0 0/5 * * * ?",
            quartz("0 0/5 * * * ?", "Europe/Berlin"),
            WINTER,
        ),
        (
            "quartz 0 30 2 ? * MON-FRI",
            quartz("0 30 2 ? * MON-FRI", new_york),
            WINTER,
        ),
        (
            "quartz 0 0 9 L * ? 2026-2030",
            quartz("0 0 9 L * ? 2026-2030", new_york),
            WINTER,
        ),
        (
            "oncalendar Mon..Fri 02:30",
            oncalendar("Mon..Fri 02:30", "Europe/Berlin"),
            WINTER,
        ),
        (
            "solar sunrise in Berlin",
            json!({"kind": "solar", "event": "sunrise", "latitude": 52.52, "longitude": 13.4}),
            WINTER,
        ),
    ]
}

/// The slowest that a search among 400,000 made-up schedules found (dates, times and years that are rare together, in every zone),
/// and their kin. Three are refused, but only after the search has gone through every year.
fn worst() -> Vec<(&'static str, Value, &'static str)> {
    let new_york = "America/New_York";
    let rare = "2088-03-02T00:00:00Z";
    vec![
        // 40 years to the next February that ends on a fifth Sunday.
        ("cron */28 2 0#5", cron("0 0 */28 2 0#5", "UTC"), rare),
        (
            "cron */28 2 0#5 by the clock",
            cron("* * */28 2 0#5", new_york),
            rare,
        ),
        (
            "quartz 29 2 ? in 2096",
            quartz("0 0 0 29 2 ? 2096", new_york),
            "1970-01-01T00:00:00Z",
        ),
        // Refused: the first Monday of a month is never its last workday.
        (
            "quartz LW 2#1",
            quartz("0 0 0 LW * 2#1 1970-2100", new_york),
            WINTER,
        ),
        // Skipped by the clock in most years, and the second one in all up to 2100.
        (
            "cron in many gaps",
            cron("* 2 */28 2,4 5#5", "Africa/Cairo"),
            "2047-07-29T02:23:34Z",
        ),
        (
            "quartz in many gaps",
            quartz("0 */30 1 28/1 3 1#5 1992-2100", "Antarctica/Troll"),
            "2011-04-23T04:36:53Z",
        ),
        (
            "celery 29 Feb on a Sunday",
            json!({"kind": "celery", "minute": "0", "hour": "2", "day_of_month": "29",
            "month_of_year": "2", "day_of_week": "0", "timezone": new_york}),
            rare,
        ),
        (
            "oncalendar ten lines",
            oncalendar(&["Mon *-02-29 02:30"; 10].join("\n"), new_york),
            rare,
        ),
        // A season is skipped.
        (
            "solar polar night",
            json!({"kind": "solar", "event": "sunrise", "latitude": 78.2, "longitude": 15.6}),
            "2026-10-27T00:00:00Z",
        ),
        (
            "solar at the pole",
            json!({"kind": "solar", "event": "dawn_civil", "latitude": 90.0, "longitude": 0.0}),
            WINTER,
        ),
        // Refused: always skipped.
        ("cron only in gaps", cron("* 2 * 3 SUN#2", new_york), WINTER),
        (
            "quartz only in gaps",
            quartz("0 */30 2 ? 3 1#2 2007-2100", new_york),
            WINTER,
        ),
    ]
}

fn read(given: &Value) -> Option<Schedule> {
    Schedule::from_json(given).ok()
}

fn bench(criterion: &mut Criterion) {
    for (group, cases) in [("common", common()), ("worst", worst())] {
        for (name, given, after) in cases {
            let after: DateTime<Utc> = after.parse().expect("an instant");
            criterion.bench_function(&format!("{group}: read {name}"), |bencher| {
                bencher.iter(|| read(black_box(&given)));
            });
            // Without a schedule there was nothing but a refusal to measure.
            if let Some(schedule) = read(&given) {
                criterion.bench_function(&format!("{group}: next of {name}"), |bencher| {
                    bencher.iter(|| schedule.next_after(black_box(after)));
                });
            }
        }
    }
}

criterion_group!(benches, bench);
criterion_main!(benches);
