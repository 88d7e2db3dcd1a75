//! Crontabs as Celery reads them (`celery.schedules.crontab`), and the times at which a real Beat sends the task.
//!
//! The grammar is Celery's own: ranges wrap around (`22-2`, `fri-mon`), names may be of any length (`monday`), `5/15`
//! and a weekday 7 are errors, and a day must match in *all* three day fields.
//!
//! The rules for clock changes are Celery's own, too. They were measured by driving the scheduler of Celery 5.5 to 5.7
//! through clock changes with a false clock. Beat looks for the next matching time on the naive wall clock, and
//! converts it with Python's rules. So a repeated hour has one pass only (an hourly cron job would run twice), and a
//! skipped time runs at that time plus the gap.

#[cfg(test)]
mod tests;

use chrono::{DateTime, TimeDelta, Utc};

use crate::schedule::cron::{MAX_EXPRESSION_CHARS, MONTH_NAMES, WEEKDAY_NAMES};
use crate::schedule::expression::{ExpressionError, Piece, check_characters, fault, pieces, read_number};
use crate::schedule::wall::{DayRule, Join, SearchWindow, WallTimes, Years};
use crate::schedule::zone::{Reading, Zone};

/// The names of the five fields, in crontab order.
pub const FIELD_NAMES: [&str; 5] = ["minute", "hour", "day_of_month", "month_of_year", "day_of_week"];

/// A parsed Celery crontab that names at least one date that exists.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CeleryCrontab {
    /// As written, in the order of [`FIELD_NAMES`].
    fields: [String; 5],
    times: WallTimes,
}

/// A fault of a field of a Celery crontab.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct CeleryCrontabError {
    /// One of [`FIELD_NAMES`].
    pub field: &'static str,
    /// The first faulty character of that field, counted from 1. None: the date as a whole never comes.
    pub position: Option<usize>,
    /// A message for a person: the faulty value, and the allowed ones.
    pub message: String,
}

impl CeleryCrontab {
    /// Reads the five fields, in the order of [`FIELD_NAMES`].
    ///
    /// # Errors
    /// If Celery's parser refuses a field, or the date never comes (31 February).
    pub fn parse(fields: [&str; 5]) -> Result<Self, CeleryCrontabError> {
        let [minute, hour, date, month, weekday] = [
            read_field(0, fields[0], 0, 59)?,
            read_field(1, fields[1], 0, 23)?,
            read_field(2, fields[2], 1, 31)?,
            read_field(3, fields[3], 1, 12)?,
            read_field(4, fields[4], 0, 6)?,
        ];
        let times = WallTimes {
            seconds: 1,
            minutes: minute,
            hours: hour as u32,
            months: month as u16,
            days: DayRule {
                dates: date as u32,
                weekdays: weekday as u8,
                join: Join::Both,
                ..DayRule::NONE
            },
            years: Years::Every,
        };
        if !times.has_a_date() {
            let message = format!(
                "no month in '{}' has a day in '{}', so this would never run",
                fields[3], fields[2]
            );
            return Err(CeleryCrontabError {
                field: FIELD_NAMES[2],
                position: None,
                message: message.replace('\t', " "),
            });
        }
        Ok(Self {
            fields: fields.map(str::to_owned),
            times,
        })
    }

    /// Returns the fields as written, in the order of [`FIELD_NAMES`].
    #[must_use]
    pub fn fields(&self) -> &[String; 5] {
        &self.fields
    }

    pub(crate) fn times(&self) -> &WallTimes {
        &self.times
    }

    /// Returns the time at which Beat sends the task next, if it last sent the task at `last_sent`.
    ///
    /// Slots follow from one another; they are not a fixed set. A Beat that starts between two slots of a skipped hour
    /// may choose other slots than a Beat that ran before the gap. So iterate from the last dispatch, not from any
    /// instant.
    #[must_use]
    pub fn next_after(&self, last_sent: DateTime<Utc>, zone: Zone) -> Option<DateTime<Utc>> {
        let window = SearchWindow::after(last_sent)?;
        let mut wall = zone.wall_at(last_sent);
        loop {
            // Celery looks for a later minute, not for a later second.
            wall = self
                .times
                .at_or_after(wall + TimeDelta::nanoseconds(1), window.last_year)?;
            let slot = match zone.read(wall)? {
                Reading::Once(instant) | Reading::Twice(instant, _) => instant,
                Reading::Skipped { shifted, .. } => shifted,
            };
            // Otherwise Beat started within the second pass of a repeated hour. A real Beat, up to 5.7 at least, then
            // sends the task without end. The intended time is the first one after the hour.
            if slot > last_sent {
                return Some(slot);
            }
        }
    }
}

/// Reads comma-separated items: `*`, `*/step`, `n`, `a-b` or `a-b/step`.
fn read_field(index: usize, text: &str, min: u32, max: u32) -> Result<u64, CeleryCrontabError> {
    let field = FIELD_NAMES[index];
    check_characters(text, MAX_EXPRESSION_CHARS)
        .and_then(|()| {
            pieces(1, text, |character| character == ',').try_fold(0, |mask, item| {
                Ok(mask | read_item(without_blanks(item)?, min, max)?)
            })
        })
        .map_err(|error| CeleryCrontabError {
            field,
            position: Some(error.position),
            message: format!("{field}, character {}: {}", error.position, error.message),
        })
}

/// Celery accepts blanks around a number, because Python's `int()` does. Elsewhere it accepts them only after an item
/// that does not end in `*`, because it does not check there. `0, 30` is right, and `0, */30` is not.
fn without_blanks((at, item): Piece<'_>) -> Result<Piece<'_>, ExpressionError> {
    let behind = item.trim_end();
    let plain = behind.trim_start();
    let alone = plain.is_empty() || read_number(plain).is_some();
    if !alone && (plain.len() < behind.len() || plain == "*" && plain.len() < item.len()) {
        let message = format!("Celery takes a blank only beside a number, and '{plain}' is none");
        return Err(fault(at, message));
    }
    Ok((at + behind.len() - plain.len(), plain))
}

fn read_item((at, item): Piece<'_>, min: u32, max: u32) -> Result<u64, ExpressionError> {
    let (range, step) = match item.split_once('/') {
        Some((range, step)) => {
            let number = read_number(step).filter(|step| *step > 0);
            let wrong = || {
                fault(
                    at + range.len() + 1,
                    format!("a step is a whole number from 1, not '{step}'"),
                )
            };
            (range, number.ok_or_else(wrong)?)
        }
        None => (item, 1),
    };
    let length = max - min + 1;
    let (first, count) = if range == "*" {
        (min, length)
    } else if let Some((first, last)) = range.split_once('-') {
        let last_at = at + first.len() + 1;
        let (first, last) = (
            read_value((at, first), min, max)?,
            read_value((last_at, last), min, max)?,
        );
        // A range backwards wraps around the end: 22-2 is 22, 23, 0, 1, 2.
        (first, (last + length - first) % length + 1)
    } else if item.contains('/') {
        return Err(fault(
            at,
            format!(
                "Celery takes a step only after '*' or a range, not in '{item}'; write {range}-{max}/{step}"
            ),
        ));
    } else {
        (read_value((at, range), min, max)?, 1)
    };
    let steps = (0..count).step_by(step.min(length) as usize);
    Ok(steps.fold(0, |mask, nth| mask | 1 << ((first - min + nth) % length + min)))
}

/// Reads a number or a name. Celery recognises names by their first three letters, and accepts them in every field,
/// months before weekdays.
///
/// Celery also accepts a name with any characters behind these letters, and drops them: `june?-may` is June. Here only
/// letters may follow.
fn read_value((at, text): Piece<'_>, min: u32, max: u32) -> Result<u32, ExpressionError> {
    let value = read_number(text).or_else(|| {
        let letters = text.bytes().all(|byte| byte.is_ascii_alphabetic());
        let name = text.get(..3).filter(|_| letters)?.to_ascii_lowercase();
        let month = MONTH_NAMES.iter().zip(1..).find(|(month, _)| **month == name);
        let weekday = WEEKDAY_NAMES
            .iter()
            .zip(0..)
            .find(|(weekday, _)| **weekday == name);
        month.or(weekday).map(|(_, value)| value)
    });
    match value {
        Some(value) if (min..=max).contains(&value) => Ok(value),
        _ => {
            let found = if text.is_empty() {
                "nothing".to_owned()
            } else {
                format!("'{text}'")
            };
            let hint = if max == 6 { " (Sunday is 0)" } else { "" };
            Err(fault(at, format!("takes {min} to {max}{hint}, not {found}")))
        }
    }
}
