//! Maintenance windows: planned times in which alerts wait. Deadbeat still records incidents, statuses and pings.

use std::collections::BTreeSet;

use chrono::{DateTime, TimeDelta, Utc};
use serde_json::{Map, Value, json};
use uuid::Uuid;

use super::hold::{Hold, Scope, Time};
use super::quiet_hours::unknown;
use crate::json::instant;
use crate::limits;
use crate::monitor::{FieldError, check_tags, read_label};
use crate::schedule::Schedule;
use crate::time::read_instant;

/// The shortest window, in seconds.
const LEAST_SECONDS: i64 = 60;
/// The longest stretch of a recurring window: a week, in seconds.
const MOST_SECONDS: i64 = 7 * 86_400;
/// The longest window that does not recur: 92 days, in seconds.
const MOST_SECONDS_ONCE: i64 = 92 * 86_400;
/// Monitors that one window may name.
const MOST_MONITORS: usize = 1_000;
/// How many stretches of a recurring window are checked for a gap.
const STRETCHES_CHECKED: usize = 100;

/// A maintenance window.
#[derive(Debug, Clone, PartialEq)]
pub struct Window {
    /// Its name for people.
    pub name: String,
    /// When it holds alerts.
    pub when: When,
    /// The monitors that it covers.
    pub monitors: Vec<Uuid>,
    /// The tags of monitors that it covers. A window without monitors and tags covers the whole project.
    pub tags: Vec<String>,
}

/// When a window holds alerts.
#[derive(Debug, Clone, PartialEq)]
pub enum When {
    /// Once.
    Once {
        /// Its beginning.
        starts_at: DateTime<Utc>,
        /// Its end.
        ends_at: DateTime<Utc>,
    },
    /// Recurring.
    Each {
        /// Each of its slots is a beginning.
        schedule: Box<Schedule>,
        /// How long it lasts, in seconds.
        duration_seconds: i32,
    },
}

/// The members of the JSON form that people can set.
pub const MEMBERS: [&str; 6] = [
    "name",
    "starts_at",
    "ends_at",
    "schedule",
    "duration_seconds",
    "match",
];

impl Window {
    /// Reads the JSON form that a person gave.
    ///
    /// # Errors
    /// A member is missing, unknown or malformed; the window is over; or its stretches leave no gap.
    pub fn from_json(given: &Map<String, Value>, now: DateTime<Utc>) -> Result<Self, Vec<FieldError>> {
        let mut faults = Vec::new();
        unknown("", given.keys(), &MEMBERS, &mut faults);
        let name = match given.get("name").and_then(Value::as_str) {
            Some(name) => read_label("/name", name, limits::NAME_CHARS, &mut faults),
            None => {
                faults.push(FieldError::new("/name", "must be a text"));
                String::new()
            }
        };
        let (monitors, tags) = read_match(given.get("match"), &mut faults);
        let when = read_when(given, now, &mut faults);
        match when {
            Some(when) if faults.is_empty() => Ok(Self {
                name,
                when,
                monitors,
                tags,
            }),
            _ => Err(faults),
        }
    }

    /// The JSON form, as people set it.
    #[must_use]
    pub fn to_json(&self) -> Map<String, Value> {
        let (starts_at, ends_at, schedule, duration) = match &self.when {
            When::Once { starts_at, ends_at } => (
                json!(instant(*starts_at)),
                json!(instant(*ends_at)),
                Value::Null,
                Value::Null,
            ),
            When::Each {
                schedule,
                duration_seconds,
            } => (
                Value::Null,
                Value::Null,
                schedule.to_json(),
                json!(duration_seconds),
            ),
        };
        let values = [
            json!(self.name),
            starts_at,
            ends_at,
            schedule,
            duration,
            json!({"monitors": self.monitors, "tags": self.tags}),
        ];
        MEMBERS.map(str::to_owned).into_iter().zip(values).collect()
    }

    /// Returns the hold that it causes from `now` on.
    #[must_use]
    pub fn hold(&self, now: DateTime<Utc>) -> Hold {
        let time = match &self.when {
            When::Once { starts_at, ends_at } => Time::Once {
                from: *starts_at,
                until: *ends_at,
            },
            When::Each {
                schedule,
                duration_seconds,
            } => Time::each(
                schedule.clone(),
                TimeDelta::seconds((*duration_seconds).into()),
                now,
            ),
        };
        let scope = if self.monitors.is_empty() && self.tags.is_empty() {
            Scope::Project
        } else {
            Scope::Monitors {
                ids: self.monitors.iter().copied().collect(),
                tags: self.tags.iter().cloned().collect::<BTreeSet<_>>(),
            }
        };
        Hold { scope, time }
    }
}

fn read_match(value: Option<&Value>, faults: &mut Vec<FieldError>) -> (Vec<Uuid>, Vec<String>) {
    let (mut monitors, mut tags) = (Vec::new(), Vec::new());
    let members = match value {
        None | Some(Value::Null) => return (monitors, tags),
        Some(Value::Object(members)) => members,
        Some(_) => {
            let shape = r#"is no object; {"monitors":[],"tags":[]} is allowed; without both, the window covers the whole project"#;
            faults.push(FieldError::new("/match", shape));
            return (monitors, tags);
        }
    };
    unknown("/match", members.keys(), &["monitors", "tags"], faults);
    let mut list = |member: &str| -> &[Value] {
        match members.get(member) {
            None => &[],
            Some(Value::Array(list)) => list,
            Some(_) => {
                faults.push(FieldError::new(
                    format!("/match/{member}"),
                    "must be a list of texts",
                ));
                &[]
            }
        }
    };
    let (ids, names) = (list("monitors"), list("tags"));
    if ids.len() > MOST_MONITORS {
        let message = format!(
            "has {} monitors; at most {MOST_MONITORS} are allowed; use a tag for more",
            ids.len()
        );
        faults.push(FieldError::new("/match/monitors", message));
    }
    for (index, id) in ids.iter().enumerate().take(MOST_MONITORS) {
        match id.as_str().and_then(|id| Uuid::try_parse(id).ok()) {
            Some(id) if monitors.contains(&id) => {}
            Some(id) => monitors.push(id),
            None => faults.push(FieldError::new(
                format!("/match/monitors/{index}"),
                "must be the id of a monitor",
            )),
        }
    }
    for (index, tag) in names.iter().enumerate() {
        match tag.as_str() {
            Some(tag) => tags.push(tag.to_owned()),
            None => faults.push(FieldError::new(format!("/match/tags/{index}"), "must be a text")),
        }
    }
    check_tags("/match/tags", &mut tags, faults);
    (monitors, tags)
}

fn read_when(given: &Map<String, Value>, now: DateTime<Utc>, faults: &mut Vec<FieldError>) -> Option<When> {
    let get = |member: &str| given.get(member).filter(|value| !value.is_null());
    let is_once = get("starts_at").is_some() || get("ends_at").is_some();
    let is_each = get("schedule").is_some() || get("duration_seconds").is_some();
    if is_once == is_each {
        let message = "needs either starts_at and ends_at, or schedule and duration_seconds";
        faults.push(FieldError::new("", message));
        return None;
    }
    if is_once {
        let mut time = |member: &str| {
            let found = get(member).and_then(Value::as_str).and_then(read_instant);
            if found.is_none() {
                let message = "must be a time like 2026-03-29T00:00:00Z";
                faults.push(FieldError::new(format!("/{member}"), message));
            }
            found
        };
        let (starts_at, ends_at) = (time("starts_at"), time("ends_at"));
        let (starts_at, ends_at) = (starts_at?, ends_at?);
        let length = (ends_at - starts_at).num_seconds();
        if !(LEAST_SECONDS..=MOST_SECONDS_ONCE).contains(&length) {
            let message =
                format!("must be {LEAST_SECONDS} to {MOST_SECONDS_ONCE} seconds (92 days) after starts_at");
            faults.push(FieldError::new("/ends_at", message));
        } else if ends_at <= now {
            faults.push(FieldError::new("/ends_at", "is over"));
        }
        return Some(When::Once { starts_at, ends_at });
    }
    let duration = get("duration_seconds").and_then(Value::as_i64);
    let duration = duration.filter(|seconds| (LEAST_SECONDS..=MOST_SECONDS).contains(seconds));
    let duration = duration.and_then(|seconds| i32::try_from(seconds).ok());
    if duration.is_none() {
        let message = format!("must be a whole number from {LEAST_SECONDS} to {MOST_SECONDS} (7 days)");
        faults.push(FieldError::new("/duration_seconds", message));
    }
    let schedule = match Schedule::from_json(get("schedule").unwrap_or(&Value::Null)) {
        Ok(schedule) => schedule,
        Err(error) => {
            faults.push(FieldError::of_schedule("/schedule", error));
            return None;
        }
    };
    // Slots that follow reports are not fixed in time.
    if schedule.follows_reports() || schedule.next_after(now).is_none() {
        let message =
            "has no future slot at a fixed time; a crontab, or an interval with an anchor, is allowed";
        faults.push(FieldError::new("/schedule", message));
        return None;
    }
    let duration_seconds = duration?;
    let length = TimeDelta::seconds(duration_seconds.into());
    let starts: Vec<DateTime<Utc>> = schedule.slots(now).take(STRETCHES_CHECKED).collect();
    let has_gap =
        starts.len() < STRETCHES_CHECKED || starts.windows(2).any(|pair| pair[1] - pair[0] > length);
    if !has_gap {
        let message =
            "is so long that the next stretch begins before this one ends: alerts would wait forever";
        faults.push(FieldError::new("/duration_seconds", message));
    }
    Some(When::Each {
        schedule: Box::new(schedule),
        duration_seconds,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn now() -> DateTime<Utc> {
        "2026-03-01T00:00:00Z".parse().unwrap()
    }

    fn read(given: &Value) -> Result<Window, Vec<FieldError>> {
        Window::from_json(given.as_object().unwrap(), now())
    }

    #[test]
    fn the_json_form_is_read_back() {
        let nightly = json!({"kind": "cron", "expression": "0 2 * * *", "timezone": "Europe/Berlin"});
        for given in [
            json!({"name": "Move", "starts_at": "2026-03-02T00:00:00Z", "ends_at": "2026-03-02T04:00:00Z"}),
            json!({"name": "Backup", "schedule": nightly, "duration_seconds": 3_600,
                "match": {"monitors": ["0198c0de-0000-7000-8000-000000000001"], "tags": ["db", "db"]}}),
        ] {
            let window = read(&given).unwrap();

            assert_eq!(read(&Value::Object(window.to_json())).unwrap(), window);
        }
    }

    #[test]
    fn bad_windows_are_refused_where_the_fault_is() {
        let cron = |expression: &str| json!({"kind": "cron", "expression": expression});
        let once = |starts: &str, ends: &str| json!({"name": "x", "starts_at": starts, "ends_at": ends});
        let each = |schedule: Value, seconds: Value| json!({"name": "x", "schedule": schedule, "duration_seconds": seconds});
        let with = |matching: Value| {
            let mut window = each(cron("0 2 * * *"), json!(60));
            window["match"] = matching;
            window
        };
        for (given, pointer) in [
            (json!({"name": "x"}), ""),
            (
                json!({"name": "x", "starts_at": "2026-03-02T00:00:00Z", "schedule": cron("0 2 * * *")}),
                "",
            ),
            (
                json!({"name": "", "schedule": cron("0 2 * * *"), "duration_seconds": 60}),
                "/name",
            ),
            (
                json!({"schedule": cron("0 2 * * *"), "duration_seconds": 60}),
                "/name",
            ),
            (
                json!({"name": "x", "starts_at": "2026-03-02T00:00:00Z"}),
                "/ends_at",
            ),
            (once("tomorrow", "2026-03-02T04:00:00Z"), "/starts_at"),
            (once("2026-03-02T04:00:00Z", "2026-03-02T04:00:59Z"), "/ends_at"),
            (once("2026-03-02T04:00:00Z", "2026-03-02T03:00:00Z"), "/ends_at"),
            (once("2026-03-02T04:00:00Z", "2026-07-02T04:00:00Z"), "/ends_at"),
            (once("2026-02-02T04:00:00Z", "2026-02-02T06:00:00Z"), "/ends_at"),
            (each(cron("0 25 * * *"), json!(60)), "/schedule/expression"),
            (each(json!(7), json!(60)), "/schedule"),
            (
                each(json!({"kind": "interval", "seconds": 3_600}), json!(60)),
                "/schedule",
            ),
            (
                each(json!({"kind": "hint", "class": "x"}), json!(60)),
                "/schedule",
            ),
            (each(cron("0 2 * * *"), json!(59)), "/duration_seconds"),
            (each(cron("0 2 * * *"), json!(604_801)), "/duration_seconds"),
            (each(cron("0 2 * * *"), json!("60")), "/duration_seconds"),
            (each(cron("0 2 * * *"), json!(86_400)), "/duration_seconds"),
            (each(cron("* * * * *"), json!(60)), "/duration_seconds"),
            (with(json!([])), "/match"),
            (with(json!({"monitor": []})), "/match/monitor"),
            (with(json!({"monitors": ["x"]})), "/match/monitors/0"),
            (with(json!({"monitors": "x"})), "/match/monitors"),
            (with(json!({"tags": [7]})), "/match/tags/0"),
            (with(json!({"tags": ["a b"]})), "/match/tags/0"),
            (
                json!({"name": "x", "schedule": cron("0 2 * * *"), "duration_seconds": 60, "mood": 1}),
                "/mood",
            ),
        ] {
            let faults = read(&given).unwrap_err();

            assert_eq!(faults[0].pointer, pointer, "{given}: {faults:?}");
        }
    }
}
