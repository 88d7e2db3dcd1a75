use serde_json::{Value, json};

use super::*;

fn utc(text: &str) -> DateTime<Utc> {
    format!("{text}Z").parse().expect("a test instant")
}

fn read(value: Value) -> Schedule {
    Schedule::from_json(&value).expect("a test schedule")
}

#[test]
fn canonical_form_spells_out_what_was_left_out() {
    let cases = [
        (
            json!({"kind": "interval", "seconds": 60.0}),
            json!({"kind": "interval", "seconds": 60}),
        ),
        (
            json!({"kind": "interval", "seconds": 1.5, "relative": false}),
            json!({"kind": "interval", "seconds": 1.5}),
        ),
        (
            json!({"kind": "interval", "seconds": 90, "relative": true}),
            json!({"kind": "interval", "seconds": 90, "relative": true, "timezone": "UTC"}),
        ),
        // Elapsed time needs no zone.
        (
            json!({"kind": "interval", "seconds": 90, "timezone": "Asia/Tokyo"}),
            json!({"kind": "interval", "seconds": 90}),
        ),
        (
            json!({"kind": "cron", "expression": " 0  2 * * mon"}),
            json!({"kind": "cron", "expression": "0 2 * * mon", "timezone": "UTC"}),
        ),
        (
            json!({"kind": "cron", "expression": "@daily", "timezone": "US/Eastern"}),
            json!({"kind": "cron", "expression": "@daily", "timezone": "America/New_York"}),
        ),
        (
            json!({"kind": "celery", "minute": "*/5"}),
            json!({"kind": "celery", "minute": "*/5", "hour": "*", "day_of_month": "*", "month_of_year": "*",
                   "day_of_week": "*", "timezone": "UTC"}),
        ),
    ];

    for (given, canonical) in cases {
        assert_eq!(read(given.clone()).to_json(), canonical);
        assert_eq!(read(canonical), read(given));
    }
}

#[test]
fn faults_point_at_their_member() {
    let cases = [
        (json!(60), "", "a schedule is an object"),
        (json!([]), "", "not a list"),
        (json!({}), "/kind", "kind is missing"),
        (json!({"kind": 1}), "/kind", "kind is a text, not 1"),
        (
            json!({"kind": "lunar"}),
            "/kind",
            "oncalendar or hint, not 'lunar'",
        ),
        (json!({"kind": "interval"}), "/seconds", "missing"),
        (
            json!({"kind": "interval", "seconds": "60"}),
            "/seconds",
            "a number, not the text '60'",
        ),
        (
            json!({"kind": "interval", "seconds": 0.999}),
            "/seconds",
            "from 1 to 31622400 (366 days), not 0.999",
        ),
        (json!({"kind": "interval", "seconds": -60}), "/seconds", "not -60"),
        (
            json!({"kind": "interval", "seconds": 1e300}),
            "/seconds",
            "366 days",
        ),
        (
            json!({"kind": "interval", "seconds": 31_622_401}),
            "/seconds",
            "366 days",
        ),
        (
            json!({"kind": "interval", "seconds": 60, "relative": "yes"}),
            "/relative",
            "true or false",
        ),
        (
            json!({"kind": "interval", "seconds": 60, "timezone": "Mars"}),
            "/timezone",
            "no time zone 'Mars'",
        ),
        (
            json!({"kind": "interval", "seconds": 60, "grace": 5}),
            "/grace",
            "has no 'grace'; it has kind, seconds",
        ),
        (
            json!({"kind": "interval", "seconds": 60, "a/b~": 5}),
            "/a~1b~0",
            "has no",
        ),
        (json!({"kind": "cron"}), "/expression", "missing"),
        (
            json!({"kind": "cron", "expression": null}),
            "/expression",
            "a text, not null",
        ),
        (
            json!({"kind": "cron", "expression": "0 25 * * *"}),
            "/expression",
            "character 3: hour takes 0 to 23",
        ),
        (
            json!({"kind": "cron", "expression": "0 0 31 2 *"}),
            "/expression",
            "never run",
        ),
        (
            json!({"kind": "cron", "expression": "0 0 * * *", "timezone": 1}),
            "/timezone",
            "a text, not 1",
        ),
        (
            json!({"kind": "cron", "expression": "0 0 * * *", "timezone": ""}),
            "/timezone",
            "IANA name",
        ),
        (
            json!({"kind": "cron", "expression": "0 0 * * *", "timezone": "europe/berlin"}),
            "/timezone",
            "did you mean Europe/Berlin?",
        ),
        (
            json!({"kind": "cron", "expression": "* 2 * 3 SUN#2", "timezone": "America/New_York"}),
            "/expression",
            "America/New_York skips these hours",
        ),
        (
            json!({"kind": "quartz", "expression": "0 0 25 * * ?"}),
            "/expression",
            "character 5: hour takes 0 to 23",
        ),
        (
            json!({"kind": "quartz", "expression": "0 */2 2 ? 3 1#2", "timezone": "America/New_York"}),
            "/expression",
            "America/New_York skips these hours",
        ),
        (
            json!({"kind": "quartz", "expression": "0 * 2 ? 3 SUN#2 2007-2100", "timezone": "America/New_York"}),
            "/expression",
            "America/New_York skips these hours",
        ),
        (
            json!({"kind": "celery", "minute": true}),
            "/minute",
            "a list of 1 to 60 of them, not true",
        ),
        (json!({"kind": "celery", "minute": []}), "/minute", "not a list"),
        (
            json!({"kind": "celery", "minute": [5, "6"]}),
            "/minute",
            "not a list",
        ),
        (
            json!({"kind": "celery", "minute": [5, 60]}),
            "/minute/1",
            "minute takes 0 to 59, not '60'",
        ),
        (
            json!({"kind": "celery", "hour": 24}),
            "/hour",
            "hour takes 0 to 23, not '24'",
        ),
        (
            json!({"kind": "interval", "seconds": 60, "anchor": "9999-12-31T23:59:59-00:01"}),
            "/anchor",
            "a time like 2026-03-29T00:00:00Z",
        ),
        (
            json!({"kind": "interval", "seconds": 60, "anchor": "2026-01-01T00:00:00Z", "relative": true}),
            "/anchor",
            "either relative or has an anchor",
        ),
        (
            json!({"kind": "celery", "day_of_week": "7"}),
            "/day_of_week",
            "Sunday is 0",
        ),
        (
            json!({"kind": "celery", "day_of_month": "31", "month_of_year": "2"}),
            "/day_of_month",
            "never run",
        ),
        (
            json!({"kind": "celery", "weekday": "1"}),
            "/weekday",
            "has no 'weekday'",
        ),
    ];

    for (given, field, part) in cases {
        match Schedule::from_json(&given) {
            Ok(_) => panic!("{given} was taken"),
            Err(error) => {
                assert_eq!(error.field, field, "{given}: {error}");
                assert!(error.message.contains(part), "{given}: {error}");
                // Only a text has positions.
                let in_text = given.pointer(&error.field).is_some_and(Value::is_string);
                assert!(error.position.is_none() || in_text, "{given}: {error:?}");
            }
        }
    }
    for seconds in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY, 0.0] {
        assert_eq!(
            Schedule::interval(seconds).expect_err("no interval").field,
            "/seconds"
        );
    }
}

#[test]
fn messages_stay_short_and_printable_whatever_was_sent() {
    let long = "\u{202e}\n\0é".repeat(1 << 18);
    let cases = [
        json!({"kind": long}),
        json!({"kind": "cron", "expression": long}),
        json!({"kind": "cron", "expression": "* * * * *", "timezone": long}),
        json!({"kind": "celery", "minute": long}),
        json!({"kind": "interval", "seconds": 60, long.as_str(): 1}),
        // Tabs count as blanks in an expression.
        json!({"kind": "celery", "minute": "5\t5"}),
        json!({"kind": "celery", "day_of_month": "31\t", "month_of_year": "2"}),
        json!({"kind": "quartz", "expression": "1\t,2-3-4 * * * * *"}),
    ];

    for given in cases {
        let error = Schedule::from_json(&given).expect_err("nonsense");
        assert!(error.message.len() < 700 && error.field.len() < 300, "{error:?}");
        assert!(
            !error.message.contains(['\n', '\t', '\0', '\u{202e}']),
            "{error:?}"
        );
    }
}

#[test]
fn interval_counts_from_the_last_report() {
    let schedule = Schedule::interval(90.5).expect("right");

    assert_eq!(
        schedule.next_after(utc("2026-01-01T00:00:00.25")),
        Some(utc("2026-01-01T00:01:30.75"))
    );
    assert_eq!(schedule.next_after(DateTime::<Utc>::MAX_UTC), None);
    assert_eq!(schedule.next_after(DateTime::<Utc>::MIN_UTC), None);
}

/// Expected values computed with the arithmetic of `schedule(relative=True)` in Celery 5.7.
#[test]
fn relative_interval_ends_at_a_round_time() {
    let cases = [
        (3_600, "UTC", "2026-01-01T07:07:13", "2026-01-01T08:00:00"),
        (300, "UTC", "2026-01-01T07:07:13", "2026-01-01T07:12:00"),
        (5_400, "UTC", "2026-01-01T07:07:13", "2026-01-01T08:00:00"),
        (5_400, "UTC", "2026-01-01T08:00:00", "2026-01-01T09:00:00"),
        (90, "UTC", "2026-01-01T07:07:00", "2026-01-01T07:08:00"),
        (30, "UTC", "2026-01-01T07:07:13", "2026-01-01T07:07:43"),
        // Below a minute, Celery drops the fraction of a second as well: a late sending does not make the next one
        // later.
        (30, "UTC", "2026-01-01T07:07:13.25", "2026-01-01T07:07:43"),
        (1, "UTC", "2026-01-01T07:07:13.999999", "2026-01-01T07:07:14"),
        (86_400, "UTC", "2026-01-01T07:07:13", "2026-01-02T00:00:00"),
        (
            3_600,
            "Asia/Kolkata",
            "2026-01-01T07:07:13",
            "2026-01-01T07:30:00",
        ),
        (
            86_400,
            "Europe/Berlin",
            "2026-03-28T12:00:00",
            "2026-03-28T23:00:00",
        ),
        // A day of 23 hours, and midnights that are skipped or shown twice.
        (
            86_400,
            "Europe/Berlin",
            "2026-03-28T23:00:00",
            "2026-03-29T22:00:00",
        ),
        (
            86_400,
            "America/Havana",
            "2026-03-07T05:00:00",
            "2026-03-08T05:00:00",
        ),
        (
            86_400,
            "America/Havana",
            "2026-10-31T04:00:00",
            "2026-11-01T04:00:00",
        ),
        // Half-hour clock changes.
        (
            3_600,
            "Australia/Lord_Howe",
            "2026-10-03T14:40:00",
            "2026-10-03T15:30:00",
        ),
        (
            3_600,
            "Australia/Lord_Howe",
            "2026-04-04T14:05:00",
            "2026-04-04T15:30:00",
        ),
    ];

    for (seconds, zone, after, expected) in cases {
        let schedule =
            read(json!({"kind": "interval", "seconds": seconds, "relative": true, "timezone": zone}));
        assert_eq!(
            schedule.next_after(utc(after)),
            Some(utc(expected)),
            "{seconds} s after {after} in {zone}"
        );
    }
}

#[test]
fn kinds_read_the_same_fields_differently() {
    let cron = Schedule::cron("0 0 13 * 5", "UTC").expect("right");
    let celery =
        read(json!({"kind": "celery", "minute": "0", "hour": "0", "day_of_month": "13", "day_of_week": "5"}));
    let new_year = utc("2026-01-01T00:00:00");

    assert_eq!(cron.next_after(new_year), Some(utc("2026-01-02T00:00:00")));
    assert_eq!(celery.next_after(new_year), Some(utc("2026-02-13T00:00:00")));
    assert_eq!((cron.kind(), celery.kind()), ("cron", "celery"));
    assert_eq!(cron.timezone(), Zone::utc());
}

#[test]
fn years_of_quartz_may_be_over() {
    let over = read(json!({"kind": "quartz", "expression": "0 0 0 1 1 ? 1970", "timezone": "Asia/Tokyo"}));

    assert_eq!(over.next_after(utc("2026-01-01T00:00:00")), None);
    assert_eq!(
        over.next_after(utc("1969-12-01T00:00:00")),
        Some(utc("1969-12-31T15:00:00"))
    );
}

#[test]
fn summaries_are_words_where_words_are_clearer() {
    let interval = |seconds: f64| Schedule::interval(seconds).expect("right").summary();
    let cron = |expression: &str| {
        Schedule::cron(expression, "Europe/Berlin")
            .expect("right")
            .summary()
    };

    assert_eq!(interval(1.0), "every second");
    assert_eq!(interval(1.5), "every 1.5 seconds");
    assert_eq!(interval(90.0), "every 90 seconds");
    assert_eq!(interval(300.0), "every 5 minutes");
    assert_eq!(interval(3_600.0), "every hour");
    assert_eq!(interval(172_800.0), "every 2 days");

    let cases = [
        ("30 2 * * 1-5", "at 02:30 on weekdays"),
        ("30 2 * * *", "at 02:30 every day"),
        ("0 9,17 * * 0,6", "at 09:00 and 17:00 at weekends"),
        (
            "0,30 9 * * MON,WED,FRI",
            "at 09:00 and 09:30 on Mondays, Wednesdays and Fridays",
        ),
        ("* * * * *", "every minute"),
        ("*/5 * * * *", "every 5 minutes"),
        ("*/5 * * * 1-5", "every 5 minutes on weekdays"),
        ("5 * * * *", "every hour at minute 5"),
        ("5 */4 * * *", "every 4 hours at minute 5"),
        ("0 */12 * * *", "at 00:00 and 12:00 every day"),
        ("0 4 1 * *", "at 04:00 on day 1 of every month"),
        ("0 4 L * *", "at 04:00 on the last day of every month"),
        ("0 4 24 12 *", "at 04:00 on 24 December"),
        ("@weekly", "at 00:00 on Sundays"),
        // Words for these would mislead, or be longer than the expression.
        ("*/7 * * * *", "cron */7 * * * *"),
        ("0 */5 * * *", "cron 0 */5 * * *"),
        ("* 2 * * *", "cron * 2 * * *"),
        ("0 0 13 * 5", "cron 0 0 13 * 5"),
        ("0 0 * * 5L", "cron 0 0 * * 5L"),
        ("5 4 * 2 1-5", "cron 5 4 * 2 1-5"),
    ];
    for (expression, expected) in cases {
        assert_eq!(cron(expression), format!("{expected}, Europe/Berlin"));
    }

    let celery = read(json!({"kind": "celery", "minute": "30", "hour": "2", "day_of_week": "mon-fri"}));
    assert_eq!(celery.summary(), "at 02:30 on weekdays, UTC");
    let celery = read(json!({"kind": "celery", "minute": "*/7", "day_of_week": "mon-fri"}));
    assert_eq!(celery.summary(), "celery */7 * * * mon-fri, UTC");
    let quartz = |expression: &str| read(json!({"kind": "quartz", "expression": expression})).summary();
    assert_eq!(quartz("0 30 2 ? * MON-FRI"), "at 02:30 on weekdays, UTC");
    assert_eq!(quartz("0 0/5 * * * ?"), "every 5 minutes, UTC");
    assert_eq!(
        quartz("0 0 4 L * ?"),
        "at 04:00 on the last day of every month, UTC"
    );
    assert_eq!(quartz("30 0 4 * * ?"), "quartz 30 0 4 * * ?, UTC");
    assert_eq!(quartz("0 0 4 * * ? 2026"), "quartz 0 0 4 * * ? 2026, UTC");
    let relative = read(json!({"kind": "interval", "seconds": 3600, "relative": true}));
    assert_eq!(relative.summary(), "every hour, at round times, UTC");
}

#[test]
fn a_place_is_the_same_place_when_it_is_read_back() {
    // serde_json's default reader trades accuracy for speed: some numbers then differ in the last bit.
    for latitude in ["-56.042133558251116", "52.51627200000001", "-17.778523459339024"] {
        let text =
            format!(r#"{{"kind": "solar", "event": "sunset", "latitude": {latitude}, "longitude": 0.1}}"#);
        let schedule = read(serde_json::from_str(&text).expect("JSON"));

        let written = schedule.to_json().to_string();

        assert!(written.contains(latitude), "{written}");
        assert_eq!(read(serde_json::from_str(&written).expect("JSON")), schedule);
    }
}
