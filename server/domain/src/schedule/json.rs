//! Reads and writes the JSON form of a schedule. `openapi.yaml` describes it for clients.

use std::borrow::Cow;

use chrono::{DateTime, SecondsFormat, Utc};
use serde_json::{Map, Value, json};

use super::interval::Rounding;
use super::{
    CelerySchedule, CronSchedule, HintSchedule, Interval, QuartzSchedule, Schedule, ScheduleError, calendar,
    celery, cron, interval, parse_zone, quartz,
};
use crate::schedule::celery_crontab::FIELD_NAMES;
use crate::schedule::solar::{Solar, SolarEvent};
use crate::schedule::zone::Zone;

const KINDS: &str = "interval, cron, quartz, celery, solar, oncalendar or hint";
/// The most characters of the class name or text that Beat reports for a schedule which only Beat can compute.
pub(crate) const HINT_CHARS: usize = 200;

impl Schedule {
    /// Reads the JSON form and checks it.
    ///
    /// # Errors
    /// If a kind, member or zone is unknown, a value has a wrong type or is out of range, or an expression cannot be
    /// read or never comes.
    pub fn from_json(value: &Value) -> Result<Self, ScheduleError> {
        let members = Members::of(value)?;
        match members.text("kind")? {
            Some("interval") => read_interval(&members),
            Some("cron") => {
                members.allow(&["expression", "timezone"])?;
                cron(members.required_text("expression")?, members.zone()?)
            }
            Some("quartz") => {
                members.allow(&["expression", "timezone"])?;
                quartz(members.required_text("expression")?, members.zone()?)
            }
            Some("celery") => {
                members.allow(&[&FIELD_NAMES[..], &["timezone"]].concat())?;
                let mut fields = [const { Cow::Borrowed("*") }; 5];
                for (field, name) in fields.iter_mut().zip(FIELD_NAMES) {
                    if let Some(value) = members.get(name) {
                        *field = members.celery_field(name, value)?;
                    }
                }
                let fields = fields.each_ref().map(AsRef::as_ref);
                celery(fields, members.zone()?).map_err(|error| members.at_number(error, fields))
            }
            Some("solar") => {
                members.allow(&["event", "latitude", "longitude"])?;
                let name = members.required_text("event")?;
                let event = SolarEvent::from_name(name).ok_or_else(|| {
                    let names = SolarEvent::ALL.map(SolarEvent::name).join(", ");
                    ScheduleError::at("event", format!("event is one of {names}, not {}", quoted(name)))
                })?;
                let (latitude, longitude) = (members.number("latitude")?, members.number("longitude")?);
                Solar::new(event, latitude, longitude)
                    .map(Schedule::Solar)
                    .map_err(|error| ScheduleError::at(error.field, error))
            }
            Some("oncalendar") => {
                members.allow(&["expression", "timezone"])?;
                calendar(members.required_text("expression")?, members.zone()?)
            }
            Some("hint") => {
                members.allow(&["class", "text"])?;
                let class = members.required_text("class")?;
                Ok(Self::Hint(HintSchedule {
                    class: members.short("class", class)?,
                    text: members
                        .text("text")?
                        .map(|text| members.short("text", text))
                        .transpose()?,
                }))
            }
            Some(kind) => Err(ScheduleError::at(
                "kind",
                format!("kind is {KINDS}, not {}", quoted(kind)),
            )),
            None => Err(ScheduleError::at(
                "kind",
                format!("kind is missing; it is {KINDS}"),
            )),
        }
    }

    /// Returns the canonical JSON form. Reading it yields the same schedule.
    #[must_use]
    pub fn to_json(&self) -> Value {
        let kind = self.kind();
        match self {
            Self::Interval(interval) => write_interval(interval),
            Self::Cron(CronSchedule { cron, zone }) => {
                json!({"kind": kind, "expression": cron.expression(), "timezone": zone.name()})
            }
            Self::Quartz(QuartzSchedule { quartz, zone }) => {
                json!({"kind": kind, "expression": quartz.expression(), "timezone": zone.name()})
            }
            Self::Celery(CelerySchedule { crontab, zone }) => {
                let fields = FIELD_NAMES
                    .iter()
                    .zip(crontab.fields())
                    .map(|(name, text)| ((*name).to_owned(), json!(text)));
                let mut members: Map<String, Value> = fields.collect();
                members.insert("kind".to_owned(), json!(kind));
                members.insert("timezone".to_owned(), json!(zone.name()));
                Value::Object(members)
            }
            Self::Solar(solar) => json!({
                "kind": kind,
                "event": solar.event().name(),
                "latitude": solar.latitude(),
                "longitude": solar.longitude(),
            }),
            Self::OnCalendar(calendar) => {
                json!({"kind": kind, "expression": calendar.expression(), "timezone": calendar.zone().name()})
            }
            Self::Hint(HintSchedule { class, text }) => match text {
                Some(text) => json!({"kind": kind, "class": class, "text": text}),
                None => json!({"kind": kind, "class": class}),
            },
        }
    }
}

fn read_interval(members: &Members<'_>) -> Result<Schedule, ScheduleError> {
    members.allow(&["seconds", "relative", "timezone", "anchor"])?;
    let seconds = members.number("seconds")?;
    let zone = members.zone()?;
    let anchor = members.instant("anchor")?;
    let rounding = match (members.flag("relative")?, anchor) {
        (true, Some(_)) => {
            let message = "an interval is either relative or has an anchor: both say where its slots lie";
            return Err(ScheduleError::at("anchor", message));
        }
        (true, None) => Rounding::Down(zone),
        (false, Some(anchor)) => Rounding::From(anchor),
        (false, None) => Rounding::Exact,
    };
    interval(seconds, rounding)
}

fn write_interval(interval: &Interval) -> Value {
    let seconds = interval.seconds();
    // Write a whole number as one: 60, not 60.0. It is at most 366 days, so the cast loses nothing.
    let number = if seconds.fract() == 0.0 {
        json!(seconds as u32)
    } else {
        json!(seconds)
    };
    match interval.rounding {
        Rounding::Exact => json!({"kind": "interval", "seconds": number}),
        Rounding::Down(zone) => {
            json!({"kind": "interval", "seconds": number, "relative": true, "timezone": zone.name()})
        }
        Rounding::From(anchor) => {
            let anchor = anchor.to_rfc3339_opts(SecondsFormat::AutoSi, true);
            json!({"kind": "interval", "seconds": number, "anchor": anchor})
        }
    }
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

    /// Refuses members that this kind does not have, because a misspelt member must not be ignored.
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

    fn required_text(&self, name: &str) -> Result<&'a str, ScheduleError> {
        self.text(name)?
            .ok_or_else(|| ScheduleError::at(name, format!("{name} is missing")))
    }

    fn number(&self, name: &str) -> Result<f64, ScheduleError> {
        let value = self
            .get(name)
            .ok_or_else(|| ScheduleError::at(name, format!("{name} is missing")))?;
        value
            .as_f64()
            .ok_or_else(|| self.wrong_type(name, "a number", value))
    }

    fn instant(&self, name: &str) -> Result<Option<DateTime<Utc>>, ScheduleError> {
        let Some(value) = self.get(name) else {
            return Ok(None);
        };
        match value.as_str().and_then(crate::time::read_instant) {
            Some(instant) => Ok(Some(instant)),
            None => Err(self.wrong_type(name, "a time like 2026-03-29T00:00:00Z", value)),
        }
    }

    /// Reads a field of a Celery crontab: a text in Celery's grammar, a number, or the list of numbers that Celery made
    /// from the text.
    fn celery_field(&self, name: &str, value: &'a Value) -> Result<Cow<'a, str>, ScheduleError> {
        let whole = |value: &Value| value.as_u64().map(|number| number.to_string());
        let text = match value {
            Value::String(text) => return Ok(Cow::Borrowed(text)),
            Value::Number(_) => whole(value),
            // No field has more than 60 values.
            Value::Array(values) if (1..=60).contains(&values.len()) => {
                let numbers: Option<Vec<String>> = values.iter().map(whole).collect();
                numbers.map(|numbers| numbers.join(","))
            }
            _ => None,
        };
        text.map(Cow::Owned).ok_or_else(|| {
            self.wrong_type(name, "a text, a whole number or a list of 1 to 60 of them", value)
        })
    }

    /// Removes the position of a fault if the client sent numbers: the position would point into a text that nobody
    /// wrote. Points at the number instead.
    fn at_number(&self, error: ScheduleError, fields: [&str; 5]) -> ScheduleError {
        let field = FIELD_NAMES
            .iter()
            .zip(fields)
            .find(|(name, _)| error.field.strip_prefix('/') == Some(name));
        let (Some(position), Some((name, text))) = (error.position, field) else {
            return error;
        };
        let field = match self.get(name) {
            Some(Value::Array(_)) => format!("/{name}/{}", text[..position - 1].matches(',').count()),
            Some(Value::Number(_)) => error.field,
            _ => return error,
        };
        ScheduleError {
            field,
            position: None,
            message: error.message.replacen(&format!(", character {position}:"), "", 1),
        }
    }

    fn short(&self, name: &str, text: &str) -> Result<String, ScheduleError> {
        if text.is_empty() || text.chars().count() > HINT_CHARS || text.chars().any(char::is_control) {
            let message = format!(
                "{name} has 1 to {HINT_CHARS} characters and no control characters, not {}",
                quoted(text)
            );
            return Err(ScheduleError::at(name, message));
        }
        Ok(text.to_owned())
    }

    fn flag(&self, name: &str) -> Result<bool, ScheduleError> {
        let flag = self.get(name).map(|value| {
            value
                .as_bool()
                .ok_or_else(|| self.wrong_type(name, "true or false", value))
        });
        Ok(flag.transpose()?.unwrap_or(false))
    }

    fn zone(&self) -> Result<Zone, ScheduleError> {
        self.text("timezone")?.map_or_else(|| Ok(Zone::utc()), parse_zone)
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

/// Quotes a person's text for a message: short, in one line, whatever characters it has.
fn quoted(text: &str) -> String {
    format!("'{}'", shortened(text).escape_debug())
}

fn shortened(text: &str) -> String {
    match text.char_indices().nth(40) {
        Some((cut, _)) => format!("{}…", &text[..cut]),
        None => text.to_owned(),
    }
}
