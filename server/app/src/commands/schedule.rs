//! `deadbeat schedule`: explains an expression and lists its next slots. Needs no server and no database.

use std::fmt::Write;

use anyhow::Context;
use chrono::{DateTime, Utc};
use clap::{Args, ValueEnum};
use deadbeat_domain::limits;
use deadbeat_domain::schedule::{Schedule, ScheduleError, zone};
use deadbeat_domain::time::Clock;
use serde_json::{Value, json};

use crate::clock::SystemClock;

/// The arguments of `deadbeat schedule`.
#[derive(Debug, Args)]
pub struct Command {
    /// A crontab line, or what --kind says; or the schedule in its JSON form: '{"kind": "interval", "seconds": 90}'.
    expression: String,
    /// The time zone of the schedule, an IANA name. UTC by default.
    #[arg(long = "tz", value_name = "ZONE")]
    timezone: Option<String>,
    /// How to read the expression.
    #[arg(long, value_enum, default_value_t = Kind::Cron)]
    kind: Kind,
    /// Show the slots strictly after this instant, like 2026-03-29T00:00:00Z. Now by default.
    #[arg(long)]
    after: Option<DateTime<Utc>>,
    /// How many slots to show.
    #[arg(long, default_value_t = limits::PREVIEW_DEFAULT as u16, value_parser = clap::value_parser!(u16).range(1..=limits::PREVIEW_MAX))]
    count: u16,
    /// Answer as the API does: slots, summary, schedule, time_zone_database, time_zone_origin.
    #[arg(long)]
    json: bool,
}

/// The kinds of schedule that fit into one text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Kind {
    /// minute hour day-of-month month day-of-week, as Debian's cron reads them; with six fields, second comes first.
    Cron,
    /// The same five fields as Celery reads them.
    Celery,
    /// second minute hour day-of-month month day-of-week [year], as Quartz reads them.
    Quartz,
    /// systemd's OnCalendar, one expression a line.
    Oncalendar,
    /// Seconds, counted from --after.
    Interval,
}

/// Runs the command.
///
/// # Errors
/// If the expression is invalid or has no slot. The message points at the faulty character.
pub fn run(command: &Command) -> anyhow::Result<()> {
    let (json, members) = form(command)?;
    let schedule = Schedule::from_json(&json).map_err(|error| pointed_at(&error, &members))?;
    let after = command.after.unwrap_or_else(|| SystemClock.now());
    let slots: Vec<DateTime<Utc>> = schedule.slots(after).take(command.count.into()).collect();
    if command.json {
        let answer = json!({
            "slots": slots.iter().map(|slot| instant(*slot)).collect::<Vec<_>>(),
            "summary": schedule.summary(),
            "schedule": schedule.to_json(),
            "time_zone_database": zone::database_version(),
            "time_zone_origin": zone::data::origin().as_str(),
        });
        println!("{answer}");
        return Ok(());
    }
    println!("{}", schedule.summary());
    for slot in slots {
        let (wall, offset) = schedule.timezone().show(slot);
        println!(
            "{}  {} {offset}",
            instant(slot),
            wall.format("%a %Y-%m-%d %H:%M:%S")
        );
    }
    Ok(())
}

fn instant(at: DateTime<Utc>) -> String {
    deadbeat_domain::json::instant(at)
}

/// Returns the JSON form of the schedule. Also returns the original text of each member, so that a message can point into it.
fn form(command: &Command) -> anyhow::Result<(Value, Vec<(String, String)>)> {
    let Command {
        expression, timezone, ..
    } = command;
    let mut form: Value = if expression.trim_start().starts_with('{') {
        serde_json::from_str(expression).context("the schedule is not valid JSON")?
    } else {
        match command.kind {
            Kind::Cron => json!({"kind": "cron", "expression": expression}),
            Kind::Quartz => json!({"kind": "quartz", "expression": expression}),
            Kind::Oncalendar => json!({"kind": "oncalendar", "expression": expression}),
            Kind::Celery => celery(expression)?,
            Kind::Interval => {
                let seconds: f64 = expression
                    .trim()
                    .parse()
                    .with_context(|| format!("an interval is a number of seconds, not '{expression}'"))?;
                json!({"kind": "interval", "seconds": seconds})
            }
        }
    };
    if let Some(timezone) = timezone {
        form["timezone"] = json!(timezone);
    }
    let texts = form.as_object().into_iter().flatten();
    let texts = texts
        .filter_map(|(name, value)| Some((format!("/{name}"), value.as_str()?.to_owned())))
        .collect();
    Ok((form, texts))
}

/// Reads the five fields in crontab's order, as Celery's `crontab.from_string` takes them.
fn celery(expression: &str) -> anyhow::Result<Value> {
    let fields: Vec<&str> = expression.split_whitespace().collect();
    let [minute, hour, day_of_month, month_of_year, day_of_week] = fields[..] else {
        anyhow::bail!(
            "found {} fields, but a Celery crontab has 5: minute, hour, day of month, month of year, day of week",
            fields.len()
        );
    };
    Ok(json!({
        "kind": "celery", "minute": minute, "hour": hour, "day_of_month": day_of_month, "month_of_year": month_of_year,
        "day_of_week": day_of_week,
    }))
}

/// Formats an error with a caret below the faulty character.
fn pointed_at(error: &ScheduleError, members: &[(String, String)]) -> anyhow::Error {
    let mut text = error.message.clone();
    let member = members.iter().find(|(field, _)| *field == error.field);
    if let (Some(position), Some((_, written))) = (error.position, member) {
        let before: String = written.chars().take(position - 1).collect();
        let line_start = before.rfind('\n').map_or(0, |at| at + 1);
        let line = written[line_start..].lines().next().unwrap_or_default();
        let column = before[line_start..].chars().count();
        // Writing into a String cannot fail.
        let _ = write!(text, "\n  {}\n  {}^", line.replace('\t', " "), " ".repeat(column));
    }
    anyhow::anyhow!(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(expression: &str, kind: Kind) -> String {
        let command = Command {
            expression: expression.to_owned(),
            timezone: None,
            kind,
            after: None,
            count: 1,
            json: false,
        };
        run(&command).expect_err("refused").to_string()
    }

    #[test]
    fn a_fault_is_pointed_at() {
        assert_eq!(
            refusal("0 25 * * *", Kind::Cron),
            "character 3: hour takes 0 to 23, not '25'\n  0 25 * * *\n    ^"
        );
        assert_eq!(
            refusal("0 1,24 * * *", Kind::Celery),
            "hour, character 3: takes 0 to 23, not '24'\n  1,24\n    ^"
        );
        assert_eq!(
            refusal("ten", Kind::Interval),
            "an interval is a number of seconds, not 'ten'"
        );
    }
}
