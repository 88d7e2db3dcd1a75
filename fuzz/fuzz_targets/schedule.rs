//! Any bytes make a schedule or a refusal that points into them, and slots that come one after the other.
//!
//! How long that takes is asserted by the fuzzer itself (`-timeout`); what is typical and what is the worst is measured by
//! `server/domain/benches/schedule.rs`.
#![no_main]

use chrono::{DateTime, Utc};
use deadbeat_domain::schedule::calendar::Calendar;
use deadbeat_domain::schedule::celery_crontab::{CeleryCrontab, FIELD_NAMES};
use deadbeat_domain::schedule::cron::Cron;
use deadbeat_domain::schedule::expression::ExpressionError;
use deadbeat_domain::schedule::quartz::Quartz;
use deadbeat_domain::schedule::Schedule;
use deadbeat_domain::schedule::zone::Zone;
use libfuzzer_sys::arbitrary::{self, Arbitrary};
use libfuzzer_sys::fuzz_target;
use serde_json::{Value, json};

#[derive(Debug, Arbitrary)]
struct Given<'a> {
    form: Form,
    zone: u16,
    after: Instant,
    text: &'a str,
}

/// What the text is taken for.
#[derive(Debug, Arbitrary)]
enum Form {
    Json,
    Cron,
    Quartz,
    /// A field a line.
    Celery,
    OnCalendar,
    Interval {
        seconds: f64,
        relative: bool,
    },
    Solar {
        event: u8,
        latitude: f64,
        longitude: f64,
    },
    Zone,
}

#[derive(Debug, Arbitrary)]
enum Instant {
    Anywhere {
        seconds: i64,
        nanoseconds: u32,
    },
    /// From 1970 to 2106.
    InReach {
        seconds: u32,
    },
}

fuzz_target!(|given: Given| {
    let zones: Vec<Zone> = Zone::all().collect();
    let zone = zones[usize::from(given.zone) % zones.len()];
    let Some(json) = as_json(&given.form, zone, given.text) else {
        return;
    };
    let after = match given.after {
        Instant::Anywhere { seconds, nanoseconds } => {
            DateTime::from_timestamp(seconds, nanoseconds).unwrap_or(DateTime::<Utc>::MAX_UTC)
        }
        Instant::InReach { seconds } => DateTime::from_timestamp(seconds.into(), 0).expect("in reach"),
    };

    match Schedule::from_json(&json) {
        Ok(schedule) => {
            let canonical = schedule.to_json();
            assert_eq!(
                Schedule::from_json(&canonical),
                Ok(schedule.clone()),
                "{canonical}"
            );
            assert!(!schedule.summary().is_empty());
            step(after, |slot| schedule.next_after(slot));
        }
        Err(error) => {
            assert!(error.message.chars().count() < 1_000, "{error}");
            assert!(!error.message.contains(char::is_control), "{error:?}");
        }
    }

    // Once more without JSON around it, for the position of a fault.
    if let Some(cron) = checked(Cron::parse(given.text), given.text) {
        step(after, |slot| cron.next_after(slot, zone));
    }
    if let Some(quartz) = checked(Quartz::parse(given.text), given.text) {
        step(after, |slot| quartz.next_after(slot, zone));
    }
    if let Some(calendar) = checked(Calendar::parse(given.text, zone), given.text) {
        step(after, |slot| calendar.next_after(slot));
    }
    if let Ok(crontab) = CeleryCrontab::parse(five(given.text)) {
        step(after, |slot| crontab.next_after(slot, zone));
    }
});

fn step(after: DateTime<Utc>, next: impl Fn(DateTime<Utc>) -> Option<DateTime<Utc>>) {
    let mut before = after;
    for _ in 0..3 {
        let Some(slot) = next(before) else { return };
        assert!(slot > before, "{slot} after {before}");
        before = slot;
    }
}

fn checked<T>(read: Result<T, ExpressionError>, text: &str) -> Option<T> {
    read.map_err(|error| {
        let length = text.chars().count();
        assert!(
            (1..=length + 1).contains(&error.position),
            "{error} in {length} characters"
        );
    })
    .ok()
}

fn as_json(form: &Form, zone: Zone, text: &str) -> Option<Value> {
    let expression = |kind: &str| json!({"kind": kind, "expression": text, "timezone": zone.name()});
    Some(match *form {
        Form::Json => serde_json::from_str(text).ok()?,
        Form::Cron => expression("cron"),
        Form::Quartz => expression("quartz"),
        Form::OnCalendar => expression("oncalendar"),
        Form::Celery => {
            let fields = FIELD_NAMES
                .into_iter()
                .zip(five(text))
                .map(|(name, field)| (name, json!(field)));
            let others = [("kind", json!("celery")), ("timezone", json!(zone.name()))];
            fields
                .chain(others)
                .map(|(name, value)| (name.to_owned(), value))
                .collect()
        }
        Form::Interval {
            seconds,
            relative: true,
        } => {
            json!({"kind": "interval", "seconds": seconds, "relative": true, "timezone": zone.name()})
        }
        Form::Interval {
            seconds,
            relative: false,
        } => json!({"kind": "interval", "seconds": seconds, "anchor": text}),
        Form::Solar {
            event,
            latitude,
            longitude,
        } => {
            let events = [
                "dawn_civil",
                "sunrise",
                "solar_noon",
                "sunset",
                "dusk_astronomical",
            ];
            let event = events[usize::from(event) % events.len()];
            json!({"kind": "solar", "event": event, "latitude": latitude, "longitude": longitude})
        }
        Form::Zone => json!({"kind": "cron", "expression": "0 2 * * *", "timezone": text}),
    })
}

fn five(text: &str) -> [&str; 5] {
    let mut lines = text.split('\n');
    [(); 5].map(|()| lines.next().unwrap_or("*"))
}
