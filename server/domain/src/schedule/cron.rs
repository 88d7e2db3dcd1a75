//! Crontab lines as Debian's cron reads them, and their slots on the two nights a year when the clocks change.
//!
//! No crate does this right: they number weekdays from 1, always AND the two day fields, or ignore what cron does when
//! the clocks change. Where crontab(5) is silent, the model is cron 3.0pl1 as packaged by Debian, cross-checked with
//! the `cronsim` library. Where those two differ (`3-3/10` is just 3; half-hour clock changes), Debian wins. Debian's
//! crontab has no sixth field (seconds in front): such a line is read as `cronsim` reads it. `docs/schedules.md` lists
//! every difference.

#[cfg(test)]
mod tests;

use chrono::{DateTime, TimeDelta, Utc};

use crate::schedule::expression::{
    ExpressionError, Piece, check_characters, fault, pieces, read_number, single_spaced, split_fields,
};
use crate::schedule::wall::{DayRule, Join, OFFSET_SPREAD, SearchWindow, WallTimes, Years};
use crate::schedule::zone::Zone;

/// The longest expression that is read, in characters. A crontab line that lists every minute, hour and day still fits.
pub const MAX_EXPRESSION_CHARS: usize = 200;

/// A parsed crontab expression that names at least one date that exists.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cron {
    expression: String,
    times: WallTimes,
    job: Job,
}

/// How cron treats a clock change. By cron(8) in Debian, cron makes up for a clock change only for "jobs that run at a
/// specific time and jobs that are run with a granularity greater than one hour". Jobs that run more often are
/// "scheduled normally". Its code distinguishes the two by a leading `*` in the minute or the hour field.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Job {
    /// Neither the minute nor the hour begins with `*`: a skipped time runs right after the gap, a repeated one runs once.
    Fixed,
    /// Follows the clock as it shows: skipped minutes never come, repeated ones come twice.
    Wildcard,
}

impl Cron {
    /// Reads five fields, six with the second in front, or an `@` nickname.
    ///
    /// # Errors
    /// If neither Debian's cron nor cronsim's extensions (`L`, `LW`, `5L`, `MON#2`) accept the expression, or its date
    /// never comes.
    pub fn parse(expression: &str) -> Result<Self, ExpressionError> {
        check_characters(expression, MAX_EXPRESSION_CHARS)?;
        let fields = split_fields(expression);
        if let [(at, nickname)] = fields[..]
            && nickname.starts_with('@')
        {
            let mut cron = Self::parse(expand_nickname(nickname).map_err(|message| fault(at, message))?)?;
            cron.expression = nickname.to_owned();
            return Ok(cron);
        }
        let (second, [minute, hour, date, month, weekday]) = match fields[..] {
            [minute, hour, date, month, weekday] => (None, [minute, hour, date, month, weekday]),
            [second, minute, hour, date, month, weekday] => {
                (Some(second), [minute, hour, date, month, weekday])
            }
            _ => return Err(wrong_field_count(expression, &fields)),
        };

        let mut times = WallTimes {
            seconds: second.map_or(Ok(1), |second| read_values(&SECOND, second))?,
            minutes: read_values(&MINUTE, minute)?,
            hours: read_values(&HOUR, hour)? as u32,
            months: 0,
            days: DayRule::NONE,
            years: Years::Every,
        };
        read_dates(&mut times.days, date)?;
        times.months = read_values(&MONTH, month)? as u16;
        read_weekdays(&mut times.days, weekday)?;
        // crontab(5): the two day fields are alternatives, unless one of them starts with `*`; `*/2` counts.
        let both = date.1.starts_with('*') || weekday.1.starts_with('*');
        times.days.join = if both { Join::Both } else { Join::Either };
        if !times.has_a_date() {
            return Err(no_such_date(date, month, weekday));
        }
        // A program that reads seconds is not Debian's cron, and does not treat clock changes as that does.
        let wildcard = second.is_some() || minute.1.starts_with('*') || hour.1.starts_with('*');
        Ok(Self {
            expression: single_spaced(&fields),
            times,
            job: if wildcard { Job::Wildcard } else { Job::Fixed },
        })
    }

    /// Returns the expression as written, with single spaces between its fields.
    #[must_use]
    pub fn expression(&self) -> &str {
        &self.expression
    }

    pub(crate) fn times(&self) -> &WallTimes {
        &self.times
    }

    /// Returns the next slot strictly after `after`. None: there is none within 50 years.
    #[must_use]
    pub fn next_after(&self, after: DateTime<Utc>, zone: Zone) -> Option<DateTime<Utc>> {
        self.job.next_after(&self.times, after, zone)
    }
}

impl Job {
    /// Returns the next slot of these wall times strictly after `after`.
    pub(crate) fn next_after(
        self,
        times: &WallTimes,
        after: DateTime<Utc>,
        zone: Zone,
    ) -> Option<DateTime<Utc>> {
        let window = SearchWindow::after(after)?;
        match self {
            Self::Fixed => next_fixed(times, &window, zone),
            Self::Wildcard => next_wildcard(times, &window, zone),
        }
    }
}

fn next_fixed(times: &WallTimes, window: &SearchWindow, zone: Zone) -> Option<DateTime<Utc>> {
    let mut wall = zone.wall_at(window.first);
    loop {
        wall = times.at_or_after(wall, window.last_year)?;
        let slot = zone.first_showing(wall)?;
        if slot >= window.first {
            return Some(slot);
        }
        // The search began in the second pass of a repeated hour, and this time ran in the first pass.
        wall += TimeDelta::seconds(1);
    }
}

/// Follows the real clock from one offset change to the next, so that a wall time matches exactly as often as the clock
/// shows it.
fn next_wildcard(times: &WallTimes, window: &SearchWindow, zone: Zone) -> Option<DateTime<Utc>> {
    let mut from = window.first;
    loop {
        let offset = zone.offset_at(from);
        let wall = times.at_or_after(from.naive_utc() + offset, window.last_year)?;
        let candidate = (wall - offset).and_utc();
        let horizon = from + OFFSET_SPREAD * 2;
        match zone.first_change(from, horizon.min(candidate)) {
            // After the change the clock may show this wall time earlier, later, again or never: search again from
            // there.
            Some(change) => from = change,
            None if candidate <= horizon => return Some(candidate),
            // The candidate is far away. No time in between matches, and the search would have found a clock that is
            // set back within the horizon. So leap to a time that lies before the candidate's wall time, whatever the
            // offset is by then.
            None => from = candidate - OFFSET_SPREAD,
        }
    }
}

/// One of the fields: its name, its values, and the names of some values.
struct Field {
    name: &'static str,
    min: u32,
    max: u32,
    /// The first name stands for `min`.
    names: &'static [&'static str],
}

const SECOND: Field = Field {
    name: "second",
    min: 0,
    max: 59,
    names: &[],
};
const MINUTE: Field = Field {
    name: "minute",
    min: 0,
    max: 59,
    names: &[],
};
const HOUR: Field = Field {
    name: "hour",
    min: 0,
    max: 23,
    names: &[],
};
const DATE: Field = Field {
    name: "day-of-month",
    min: 1,
    max: 31,
    names: &[],
};
const MONTH: Field = Field {
    name: "month",
    min: 1,
    max: 12,
    names: &MONTH_NAMES,
};
/// Value 7 is Sunday again, so that `5-7` can be written.
const WEEKDAY: Field = Field {
    name: "day-of-week",
    min: 0,
    max: 7,
    names: &WEEKDAY_NAMES,
};

pub(crate) const MONTH_NAMES: [&str; 12] = [
    "jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec",
];
pub(crate) const WEEKDAY_NAMES: [&str; 7] = ["sun", "mon", "tue", "wed", "thu", "fri", "sat"];

pub(crate) fn no_such_date(date: Piece<'_>, month: Piece<'_>, weekday: Piece<'_>) -> ExpressionError {
    let message = format!(
        "no date matches day-of-month '{}', month '{}' and day-of-week '{}' together, so this would never run",
        date.1, month.1, weekday.1
    );
    fault(date.0, message)
}

fn wrong_field_count(expression: &str, fields: &[Piece<'_>]) -> ExpressionError {
    let hint = match fields.len() {
        7 => "; one with years is a schedule of kind quartz",
        _ => "",
    };
    let position = fields.get(6).map_or(expression.len() + 1, |(at, _)| *at);
    let message = format!(
        "found {} fields, but a crontab has 5: minute, hour, day-of-month, month, day-of-week, or 6 with second in front{hint}",
        fields.len()
    );
    fault(position, message)
}

/// Returns the fields with which cron itself replaces a nickname.
fn expand_nickname(nickname: &str) -> Result<&'static str, String> {
    match nickname {
        "@hourly" => Ok("0 * * * *"),
        "@daily" | "@midnight" => Ok("0 0 * * *"),
        "@weekly" => Ok("0 0 * * 0"),
        "@monthly" => Ok("0 0 1 * *"),
        "@yearly" | "@annually" => Ok("0 0 1 1 *"),
        "@reboot" => {
            Err("@reboot runs when a machine starts, so there is no time at which to expect it".to_owned())
        }
        _ => Err(format!(
            "{nickname} is not known; there are @hourly, @daily, @midnight, @weekly, @monthly, @yearly and @annually, in small letters"
        )),
    }
}

fn read_values(field: &Field, (at, text): Piece<'_>) -> Result<u64, ExpressionError> {
    pieces(at, text, |character| character == ',')
        .try_fold(0, |mask, item| Ok(mask | read_range(field, item)?))
}

fn read_dates(days: &mut DayRule, (at, text): Piece<'_>) -> Result<(), ExpressionError> {
    for item in pieces(at, text, |character| character == ',') {
        match item.1 {
            "L" | "l" => days.dates_from_end |= 1 << 1,
            "LW" | "Lw" | "lW" | "lw" => days.last_workday = true,
            _ => days.dates |= read_range(&DATE, item)? as u32,
        }
    }
    Ok(())
}

fn read_weekdays(days: &mut DayRule, (at, text): Piece<'_>) -> Result<(), ExpressionError> {
    for (at, item) in pieces(at, text, |character| character == ',') {
        let last_of = item
            .strip_suffix(['L', 'l'])
            .filter(|day| day.starts_with(|first: char| first.is_ascii_digit()));
        if let Some(day) = last_of {
            days.last_weekdays |= 1 << (read_value(&WEEKDAY, (at, day))? % 7);
        } else if let Some((day, nth)) = item.split_once('#') {
            let weekday = read_value(&WEEKDAY, (at, day))? % 7;
            let nth_at = at + day.len() + 1;
            let week = read_number(nth)
                .and_then(|number| {
                    days.nth_weekdays
                        .get_mut(usize::try_from(number).ok()?.checked_sub(1)?)
                })
                .ok_or_else(|| {
                    fault(
                        nth_at,
                        format!("after '#' stands the occurrence in the month, 1 to 5, not '{nth}'"),
                    )
                })?;
            *week |= 1 << weekday;
        } else {
            let values = read_range(&WEEKDAY, (at, item))? as u8;
            days.weekdays |= (values & 0x7f) | (values >> 7);
        }
    }
    Ok(())
}

/// Reads `*`, `n` or `a-b`, each with an optional `/step`. `n/step` runs to the end of the field.
fn read_range(field: &Field, (at, text): Piece<'_>) -> Result<u64, ExpressionError> {
    let (range, step) = match text.split_once('/') {
        Some((range, step)) => {
            let step_at = at + range.len() + 1;
            let number = read_number(step).filter(|step| *step > 0);
            let step = number
                .ok_or_else(|| fault(step_at, format!("a step is a whole number from 1, not '{step}'")))?;
            (range, Some(step))
        }
        None => (text, None),
    };
    let (first, last) = if range == "*" {
        (field.min, field.max)
    } else if let Some((first, last)) = range.split_once('-') {
        let bounds = (
            read_value(field, (at, first))?,
            read_value(field, (at + first.len() + 1, last))?,
        );
        if bounds.0 > bounds.1 {
            let hint = if field.max == 7 {
                "; write Sunday as 7 at the end of a range"
            } else {
                ""
            };
            return Err(fault(at, format!("the range '{range}' runs backwards{hint}")));
        }
        bounds
    } else {
        let value = read_value(field, (at, range))?;
        (value, if step.is_some() { field.max } else { value })
    };
    let step = step.unwrap_or(1).min(64);
    Ok((first..=last)
        .step_by(step as usize)
        .fold(0, |mask, value| mask | (1 << value)))
}

fn read_value(field: &Field, (at, text): Piece<'_>) -> Result<u32, ExpressionError> {
    let named = field
        .names
        .iter()
        .zip(field.min..)
        .find(|(name, _)| text.eq_ignore_ascii_case(name));
    if let Some((_, value)) = named {
        return Ok(value);
    }
    let number = read_number(text).filter(|value| (field.min..=field.max).contains(value));
    number.ok_or_else(|| {
        let names = match field.names {
            [first, .., last] => format!(" or {} to {}", first.to_uppercase(), last.to_uppercase()),
            _ => String::new(),
        };
        let Field { name, min, max, .. } = field;
        let found = if text.is_empty() {
            "nothing".to_owned()
        } else {
            format!("'{text}'")
        };
        fault(at, format!("{name} takes {min} to {max}{names}, not {found}"))
    })
}
