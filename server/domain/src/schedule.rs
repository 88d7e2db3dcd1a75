//! When reports are expected: the kinds of schedule, their JSON form, and the one question they all answer.
//!
//! A [`Schedule`] is checked when it is made: it names a real zone and has a next slot, so code that holds one never meets a bad
//! expression. Next slots are computed, never stored here; they are UTC instants in whole seconds for crontabs. Nothing reads the
//! clock and no input panics or takes long: texts are capped before they are looked at, searches end after 50 years.

#[cfg(test)]
mod tests;
mod words;

use std::fmt::Display;
use std::str::FromStr;

use chrono::{DateTime, NaiveDateTime, TimeDelta, Timelike, Utc};
use chrono_tz::{TZ_VARIANTS, Tz};
use serde_json::{Map, Value, json};

use crate::celery_crontab::{CeleryCrontab, FIELD_NAMES};
use crate::cron::Cron;
use crate::cron::wall::{Reading, SearchWindow, wall_at};

/// The shortest interval, in seconds; below it, "late" means nothing over a network.
pub const MIN_INTERVAL_SECONDS: f64 = 1.0;

/// The longest interval: a yearly job, also in a leap year.
pub const MAX_INTERVAL_SECONDS: f64 = 366.0 * 86_400.0;

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

/// Every so many seconds, to the microsecond, as Python's `timedelta` has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Interval {
    every: TimeDelta,
    rounding: Rounding,
}

/// Whether the next slot is where the interval ends, or the round wall-clock time before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Rounding {
    Exact,
    /// Celery's `schedule(relative=True)`: down to the day, hour or minute, whichever the interval is at least as long as.
    Down(Tz),
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
    // NaN lies in no range.
    if !(MIN_INTERVAL_SECONDS..=MAX_INTERVAL_SECONDS).contains(&seconds) {
        let message = format!("seconds is from 1 to {MAX_INTERVAL_SECONDS} (366 days), not {seconds}");
        return Err(ScheduleError::at("seconds", message));
    }
    let every = TimeDelta::microseconds((seconds * 1e6).round() as i64);
    Ok(Schedule::Interval(Interval { every, rounding }))
}

fn cron(expression: &str, zone: Tz) -> Result<Schedule, ScheduleError> {
    let cron = Cron::parse(expression).map_err(|error| ScheduleError::at("expression", error))?;
    comes_on_the_clock(Schedule::Cron(CronSchedule { cron, zone }), "expression")
}

fn celery(fields: [&str; 5], zone: Tz) -> Result<Schedule, ScheduleError> {
    let crontab = CeleryCrontab::parse(fields).map_err(|error| ScheduleError::at(error.field, error))?;
    comes_on_the_clock(Schedule::Celery(CelerySchedule { crontab, zone }), "hour")
}

/// Refuses what exists in the calendar but never on the zone's clock: `* 2 * 3 SUN#2` in New York names only skipped minutes.
///
/// The search starts at one fixed instant, so that the answer does not depend on when it is asked.
fn comes_on_the_clock(schedule: Schedule, member: &str) -> Result<Schedule, ScheduleError> {
    let reference = DateTime::from_timestamp(1_767_225_600, 0); // 2026-01-01
    if reference
        .and_then(|reference| schedule.next_after(reference))
        .is_none()
    {
        let zone = schedule.timezone();
        return Err(ScheduleError::at(
            member,
            format!("this never comes: {zone} skips these hours when its clock changes"),
        ));
    }
    Ok(schedule)
}

/// An IANA name, also one of the old ones (`US/Eastern`).
fn parse_zone(name: &str) -> Result<Tz, ScheduleError> {
    Tz::from_str(name).map_err(|_| {
        let meant = TZ_VARIANTS
            .iter()
            .find(|zone| zone.name().eq_ignore_ascii_case(name));
        let hint = meant.map_or_else(
            || "it is an IANA name like Europe/Berlin".to_owned(),
            |zone| format!("did you mean {zone}?"),
        );
        ScheduleError::at(
            "timezone",
            format!("there is no time zone {}; {hint}", quoted(name)),
        )
    })
}

impl Interval {
    /// The length in seconds.
    #[must_use]
    pub fn seconds(&self) -> f64 {
        // Both parts are far below 2^53; the sum is the float nearest to the microseconds.
        self.every.as_seconds_f64()
    }

    fn next_after(&self, after: DateTime<Utc>) -> Option<DateTime<Utc>> {
        SearchWindow::after(after)?;
        match self.rounding {
            Rounding::Exact => Some(after + self.every),
            Rounding::Down(zone) => self.next_round_time(after, zone),
        }
    }

    /// As Celery 5.7 computes it; earlier releases differ only around clock changes.
    fn next_round_time(&self, after: DateTime<Utc>, zone: Tz) -> Option<DateTime<Utc>> {
        let end = after + self.every;
        if self.every >= TimeDelta::days(1) {
            // Whole days are counted on the calendar, across days of 23 and 25 hours; the first midnight of a repeated one counts.
            let wall_end = wall_at(zone, after) + self.every;
            let midnights = showings(floor_to_day(wall_end)?, zone)?;
            return match midnights.into_iter().find(|midnight| *midnight > after) {
                Some(midnight) => Some(midnight),
                None => Some(showings(wall_end, zone)?[0]),
            };
        }
        let (unit, floor): (_, fn(NaiveDateTime) -> Option<NaiveDateTime>) = match self.every {
            every if every >= TimeDelta::hours(1) => (TimeDelta::hours(1), floor_to_hour),
            every if every >= TimeDelta::minutes(1) => (TimeDelta::minutes(1), floor_to_minute),
            _ => return Some(end),
        };
        let wall_end = wall_at(zone, end);
        let mut round_times = showings(floor(wall_end)?, zone)?.to_vec();
        let latest = round_times.iter().copied().filter(|time| *time <= end).max();
        if let Some(time) = latest
            .or_else(|| round_times.iter().copied().min())
            .filter(|time| *time > after)
        {
            return Some(time);
        }
        // The clock was set back by part of an hour: the round time just found lies before the start.
        round_times.extend(showings(floor(wall_end + unit)?, zone)?);
        round_times.extend(showings(floor(wall_at(zone, after) + self.every)?, zone)?);
        round_times.retain(|time| *time > after);
        let latest = round_times.iter().copied().filter(|time| *time <= end).max();
        Some(
            latest
                .or_else(|| round_times.iter().copied().min())
                .unwrap_or(end),
        )
    }
}

/// The instants that Python's two `fold` values give a wall time, the earlier first.
fn showings(wall: NaiveDateTime, zone: Tz) -> Option<[DateTime<Utc>; 2]> {
    Some(match Reading::of(wall, zone)? {
        Reading::Once(instant) | Reading::Skipped { shifted: instant, .. } => [instant; 2],
        Reading::Twice(first, second) => [first, second],
    })
}

fn floor_to_day(wall: NaiveDateTime) -> Option<NaiveDateTime> {
    wall.date().and_hms_opt(0, 0, 0)
}

fn floor_to_hour(wall: NaiveDateTime) -> Option<NaiveDateTime> {
    wall.date().and_hms_opt(wall.hour(), 0, 0)
}

fn floor_to_minute(wall: NaiveDateTime) -> Option<NaiveDateTime> {
    wall.date().and_hms_opt(wall.hour(), wall.minute(), 0)
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
