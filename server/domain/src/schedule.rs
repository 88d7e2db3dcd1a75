//! When reports are expected: the kinds of schedule, their JSON form, and the one question they all answer.
//!
//! A [`Schedule`] is checked when it is made: it names a real zone and has a next slot, so code that holds one never meets a bad
//! expression. Next slots are computed, never stored here; they are UTC instants in whole seconds for crontabs. Nothing reads the
//! clock and no input panics or takes long: texts are capped before they are looked at, searches end after 50 years.

mod interval;
#[cfg(test)]
mod tests;
mod words;

use std::fmt::Display;
use std::str::FromStr;

use chrono::{DateTime, Utc};
use chrono_tz::{TZ_VARIANTS, Tz};
use serde_json::{Map, Value, json};

use self::interval::Rounding;
use crate::celery_crontab::{CeleryCrontab, FIELD_NAMES};
use crate::cron::Cron;

pub use self::interval::{Interval, MAX_INTERVAL_SECONDS, MIN_INTERVAL_SECONDS};

/// When reports are expected.
#[derive(Debug, Clone, PartialEq)]
pub enum Schedule {
    /// Every so many seconds after the last report.
    Interval(Interval),
    /// A crontab line as Debian's cron reads it.
    Cron(CronSchedule),
    /// A crontab as Celery reads it.
    Celery(CelerySchedule),
}

/// A crontab line and the zone of the clock it means.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CronSchedule {
    cron: Cron,
    zone: Tz,
}

/// A Celery crontab and the zone of the app that runs it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CelerySchedule {
    crontab: CeleryCrontab,
    zone: Tz,
}

/// Why a schedule is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct ScheduleError {
    /// JSON pointer to the faulty member, below the schedule object: `/expression`. Empty for the object itself.
    pub field: String,
    /// What was found and what is allowed, for a person.
    pub message: String,
}

impl ScheduleError {
    fn at(member: &str, message: impl Display) -> Self {
        let member = member.replace('~', "~0").replace('/', "~1");
        Self {
            field: format!("/{member}"),
            message: message.to_string(),
        }
    }

    fn whole(message: impl Display) -> Self {
        Self {
            field: String::new(),
            message: message.to_string(),
        }
    }
}

impl Schedule {
    /// Reads the JSON form and checks it.
    ///
    /// # Errors
    /// For an unknown kind or member, a value of a wrong type or out of range, an unknown zone, and a crontab that cannot be read
    /// or never comes.
    pub fn from_json(value: &Value) -> Result<Self, ScheduleError> {
        let members = Members::of(value)?;
        match members.text("kind")? {
            Some("interval") => {
                members.allow(&["seconds", "relative", "timezone"])?;
                let seconds = members
                    .get("seconds")
                    .ok_or_else(|| ScheduleError::at("seconds", "seconds is missing"))?;
                let seconds = seconds
                    .as_f64()
                    .ok_or_else(|| members.wrong_type("seconds", "a number", seconds))?;
                let zone = members.zone()?;
                let relative = members.flag("relative")?;
                interval(
                    seconds,
                    if relative {
                        Rounding::Down(zone)
                    } else {
                        Rounding::Exact
                    },
                )
            }
            Some("cron") => {
                members.allow(&["expression", "timezone"])?;
                let expression = members.text("expression")?;
                let expression =
                    expression.ok_or_else(|| ScheduleError::at("expression", "expression is missing"))?;
                cron(expression, members.zone()?)
            }
            Some("celery") => {
                members.allow(&[&FIELD_NAMES[..], &["timezone"]].concat())?;
                let mut fields = ["*"; 5];
                for (text, name) in fields.iter_mut().zip(FIELD_NAMES) {
                    *text = members.text(name)?.unwrap_or("*");
                }
                celery(fields, members.zone()?)
            }
            Some(kind) => Err(ScheduleError::at(
                "kind",
                format!("kind is interval, cron or celery, not {}", quoted(kind)),
            )),
            None => Err(ScheduleError::at(
                "kind",
                "kind is missing; it is interval, cron or celery",
            )),
        }
    }

    /// Every `seconds`, from 1 second to 366 days.
    ///
    /// # Errors
    /// For anything outside, and for what is no number.
    pub fn interval(seconds: f64) -> Result<Self, ScheduleError> {
        interval(seconds, Rounding::Exact)
    }

    /// A crontab line as Debian's cron reads it, on the clock of an IANA zone.
    ///
    /// # Errors
    /// For an expression that cannot be read or never comes, and an unknown zone.
    pub fn cron(expression: &str, timezone: &str) -> Result<Self, ScheduleError> {
        cron(expression, parse_zone(timezone)?)
    }

    /// The canonical JSON form; reading it gives the same schedule.
    #[must_use]
    pub fn to_json(&self) -> Value {
        match self {
            Self::Interval(interval) => {
                let seconds = interval.seconds();
                // A whole number is written as one: 60, not 60.0. It is at most 366 days, so nothing is cut off.
                let number = if seconds.fract() == 0.0 {
                    json!(seconds as u32)
                } else {
                    json!(seconds)
                };
                match interval.rounding {
                    Rounding::Exact => json!({"kind": self.kind(), "seconds": number}),
                    Rounding::Down(zone) => {
                        json!({"kind": self.kind(), "seconds": number, "relative": true, "timezone": zone.name()})
                    }
                }
            }
            Self::Cron(CronSchedule { cron, zone }) => {
                json!({"kind": self.kind(), "expression": cron.expression(), "timezone": zone.name()})
            }
            Self::Celery(CelerySchedule { crontab, zone }) => {
                let fields = FIELD_NAMES
                    .iter()
                    .zip(crontab.fields())
                    .map(|(name, text)| ((*name).to_owned(), json!(text)));
                let mut members: Map<String, Value> = fields.collect();
                members.insert("kind".to_owned(), json!(self.kind()));
                members.insert("timezone".to_owned(), json!(zone.name()));
                Value::Object(members)
            }
        }
    }

    /// The next slot strictly after `after`, or none within 50 years.
    ///
    /// For an interval, `after` is the last report; for a Celery crontab the last dispatch, where a clock change is near.
    #[must_use]
    pub fn next_after(&self, after: DateTime<Utc>) -> Option<DateTime<Utc>> {
        match self {
            Self::Interval(interval) => interval.next_after(after),
            Self::Cron(CronSchedule { cron, zone }) => cron.next_after(after, *zone),
            Self::Celery(CelerySchedule { crontab, zone }) => crontab.next_after(after, *zone),
        }
    }

    /// The `kind` of the JSON form.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Interval(_) => "interval",
            Self::Cron(_) => "cron",
            Self::Celery(_) => "celery",
        }
    }

    /// The zone of the wall clock it follows; UTC where none matters.
    #[must_use]
    pub fn timezone(&self) -> Tz {
        match self {
            Self::Interval(Interval {
                rounding: Rounding::Exact,
                ..
            }) => Tz::UTC,
            Self::Interval(Interval {
                rounding: Rounding::Down(zone),
                ..
            })
            | Self::Cron(CronSchedule { zone, .. })
            | Self::Celery(CelerySchedule { zone, .. }) => *zone,
        }
    }

    /// In words: "every 90 seconds", "at 02:30 on weekdays, Europe/Berlin"; the crontab itself where words would be longer.
    #[must_use]
    pub fn summary(&self) -> String {
        match self {
            Self::Interval(interval) => {
                let every = words::interval(interval.seconds());
                match interval.rounding {
                    Rounding::Exact => every,
                    Rounding::Down(zone) => format!("{every}, at round times, {zone}"),
                }
            }
            Self::Cron(CronSchedule { cron, zone }) => {
                let words = words::crontab(cron.times());
                format!(
                    "{}, {zone}",
                    words.unwrap_or_else(|| format!("cron {}", cron.expression()))
                )
            }
            Self::Celery(CelerySchedule { crontab, zone }) => {
                let words = words::crontab(crontab.times());
                format!(
                    "{}, {zone}",
                    words.unwrap_or_else(|| format!("celery {}", crontab.fields().join(" ")))
                )
            }
        }
    }
}

fn interval(seconds: f64, rounding: Rounding) -> Result<Schedule, ScheduleError> {
    let interval = Interval::new(seconds, rounding).ok_or_else(|| {
        let message = format!("seconds is from 1 to {MAX_INTERVAL_SECONDS} (366 days), not {seconds}");
        ScheduleError::at("seconds", message)
    })?;
    Ok(Schedule::Interval(interval))
}

fn cron(expression: &str, zone: Tz) -> Result<Schedule, ScheduleError> {
    let cron = Cron::parse(expression).map_err(|error| ScheduleError::at("expression", error))?;
    // What exists in the calendar may never come on the zone's clock: `* 2 * 3 SUN#2` in New York names only skipped minutes.
    // The search starts at one fixed instant, so that the answer does not depend on when it is asked.
    let start_of_2026 = DateTime::from_timestamp(1_767_225_600, 0);
    if start_of_2026
        .and_then(|start| cron.next_after(start, zone))
        .is_none()
    {
        let message = format!("this never comes: {zone} skips these hours when its clock changes");
        return Err(ScheduleError::at("expression", message));
    }
    Ok(Schedule::Cron(CronSchedule { cron, zone }))
}

fn celery(fields: [&str; 5], zone: Tz) -> Result<Schedule, ScheduleError> {
    let crontab = CeleryCrontab::parse(fields).map_err(|error| ScheduleError::at(error.field, error))?;
    Ok(Schedule::Celery(CelerySchedule { crontab, zone }))
}

/// An IANA name, also one of the old ones (`US/Eastern`).
fn parse_zone(name: &str) -> Result<Tz, ScheduleError> {
    // The longest name has 32 characters; a megabyte is not even hashed.
    let known = (name.len() <= 64).then(|| Tz::from_str(name).ok()).flatten();
    known.ok_or_else(|| {
        let meant = TZ_VARIANTS
            .iter()
            .find(|zone| zone.name().eq_ignore_ascii_case(name));
        let hint = match meant {
            Some(zone) => format!("did you mean {zone}?"),
            None => "it is an IANA name like Europe/Berlin".to_owned(),
        };
        ScheduleError::at(
            "timezone",
            format!("there is no time zone {}; {hint}", quoted(name)),
        )
    })
}

/// The members of a schedule object.
struct Members<'a>(&'a Map<String, Value>);

impl<'a> Members<'a> {
    fn of(value: &'a Value) -> Result<Self, ScheduleError> {
        value.as_object().map(Self).ok_or_else(|| {
            ScheduleError::whole(format!(
                "a schedule is an object like {{\"kind\": \"interval\", \"seconds\": 60}}, not {}",
                described(value)
            ))
        })
    }

    fn get(&self, name: &str) -> Option<&'a Value> {
        self.0.get(name)
    }

    /// Refuses members that this kind does not have: a misspelt one must not be ignored.
    fn allow(&self, allowed: &[&str]) -> Result<(), ScheduleError> {
        match self
            .0
            .keys()
            .find(|name| *name != "kind" && !allowed.contains(&name.as_str()))
        {
            Some(name) => {
                let message = format!(
                    "this kind of schedule has no {}; it has kind, {}",
                    quoted(name),
                    allowed.join(", ")
                );
                Err(ScheduleError::at(&shortened(name), message))
            }
            None => Ok(()),
        }
    }

    fn text(&self, name: &str) -> Result<Option<&'a str>, ScheduleError> {
        self.get(name)
            .map(|value| {
                value
                    .as_str()
                    .ok_or_else(|| self.wrong_type(name, "a text", value))
            })
            .transpose()
    }

    fn flag(&self, name: &str) -> Result<bool, ScheduleError> {
        let flag = self.get(name).map(|value| {
            value
                .as_bool()
                .ok_or_else(|| self.wrong_type(name, "true or false", value))
        });
        Ok(flag.transpose()?.unwrap_or(false))
    }

    fn zone(&self) -> Result<Tz, ScheduleError> {
        self.text("timezone")?.map_or(Ok(Tz::UTC), parse_zone)
    }

    fn wrong_type(&self, name: &str, expected: &str, found: &Value) -> ScheduleError {
        ScheduleError::at(name, format!("{name} is {expected}, not {}", described(found)))
    }
}

fn described(value: &Value) -> String {
    match value {
        Value::Null => "null".to_owned(),
        Value::Bool(flag) => flag.to_string(),
        Value::Number(number) => number.to_string(),
        Value::String(text) => format!("the text {}", quoted(text)),
        Value::Array(_) => "a list".to_owned(),
        Value::Object(_) => "an object".to_owned(),
    }
}

/// A person's text for a message: short, in one line, whatever it holds.
fn quoted(text: &str) -> String {
    format!("'{}'", shortened(text).escape_debug())
}

fn shortened(text: &str) -> String {
    match text.char_indices().nth(40) {
        Some((cut, _)) => format!("{}…", &text[..cut]),
        None => text.to_owned(),
    }
}
