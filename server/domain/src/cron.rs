//! Crontab lines as Debian's cron reads them, and what happens on the two awkward nights of the year.
//!
//! No crate does this rightly: they number weekdays from 1, always AND the two day fields, or forget what cron does when the
//! clocks change. Where crontab(5) is silent, the behaviour is that of cron 3.0pl1 as packaged by Debian, cross-checked with the
//! `cronsim` library; where those two differ (`3-3/10` is just 3; half-hour clock changes), Debian's clock wins.

#[cfg(test)]
mod tests;
pub(crate) mod wall;

use chrono::{DateTime, TimeDelta, Utc};
use chrono_tz::Tz;

use self::wall::{
    DayRule, Join, OFFSET_SPREAD, Reading, SearchWindow, WallTimes, first_change, offset_at, wall_at,
};

/// The longest expression read, in characters. A crontab line that lists every minute, hour and day still fits.
pub const MAX_EXPRESSION_CHARS: usize = 200;

/// A crontab expression that has been read and names at least one date that exists.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cron {
    expression: String,
    times: WallTimes,
    job: Job,
}

/// How cron treats a clock change. cron(8) in Debian: a change of the clock is made up for only by "jobs that run at a specific
/// time and jobs that are run with a granularity greater than one hour"; what runs more often is "scheduled normally". Its code
/// tells the two apart by a leading `*` in the minute or the hour field.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Job {
    /// Neither the minute nor the hour begins with `*`: a skipped time runs right after the gap, a repeated one runs once.
    Fixed,
    /// Follows the clock as it shows: skipped minutes never come, repeated ones come twice.
    Wildcard,
}

/// What is wrong with a crontab expression, and where.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("character {position}: {message}")]
pub struct CronError {
    /// The first faulty character, counted from 1.
    pub position: usize,
    /// What was found and what is allowed.
    pub message: String,
}

impl Cron {
    /// Reads five fields or an `@` nickname.
    ///
    /// # Errors
    /// For anything Debian's cron (with cronsim's `L`, `LW`, `5L` and `MON#2`) does not take, and for dates that never come.
    pub fn parse(expression: &str) -> Result<Self, CronError> {
        check_characters(expression)?;
        let fields = split_fields(expression);
        if let [(at, nickname)] = fields[..]
            && nickname.starts_with('@')
        {
            let mut cron = Self::parse(expand_nickname(nickname).map_err(|message| fault(at, message))?)?;
            cron.expression = nickname.to_owned();
            return Ok(cron);
        }
        let [minute, hour, date, month, weekday] = fields[..] else {
            return Err(wrong_field_count(expression, &fields));
        };

        let mut times = WallTimes {
            minutes: read_values(&MINUTE, minute)?,
            hours: read_values(&HOUR, hour)? as u32,
            months: 0,
            days: DayRule::NONE,
        };
        read_dates(&mut times.days, date)?;
        times.months = read_values(&MONTH, month)? as u16;
        read_weekdays(&mut times.days, weekday)?;
        // crontab(5): the two day fields are alternatives, unless one of them starts with `*`; `*/2` counts.
        let both = date.1.starts_with('*') || weekday.1.starts_with('*');
        times.days.join = if both { Join::Both } else { Join::Either };
        if !times.has_a_date() {
            return Err(fault(
                date.0,
                format!(
                    "no date matches day-of-month '{}', month '{}' and day-of-week '{}' together, so this would never run",
                    date.1, month.1, weekday.1
                ),
            ));
        }
        let wildcard = minute.1.starts_with('*') || hour.1.starts_with('*');
        Ok(Self {
            expression: [minute, hour, date, month, weekday]
                .map(|(_, text)| text)
                .join(" "),
            times,
            job: if wildcard { Job::Wildcard } else { Job::Fixed },
        })
    }

    /// The expression as written, with single spaces between its fields.
    #[must_use]
    pub fn expression(&self) -> &str {
        &self.expression
    }

    pub(crate) fn times(&self) -> &WallTimes {
        &self.times
    }

    /// The next slot strictly after `after`, or none within 50 years.
    #[must_use]
    pub fn next_after(&self, after: DateTime<Utc>, zone: Tz) -> Option<DateTime<Utc>> {
        let window = SearchWindow::after(after)?;
        match self.job {
            Job::Fixed => self.next_fixed(&window, zone),
            Job::Wildcard => self.next_wildcard(&window, zone),
        }
    }

    fn next_fixed(&self, window: &SearchWindow, zone: Tz) -> Option<DateTime<Utc>> {
        let mut wall = wall_at(zone, window.first);
        loop {
            wall = self.times.at_or_after(wall, window.last_year)?;
            let slot = match Reading::of(wall, zone)? {
                Reading::Once(instant) | Reading::Twice(instant, _) => instant,
                Reading::Skipped { gap_end, .. } => gap_end,
            };
            if slot >= window.first {
                return Some(slot);
            }
            // The search began in the second pass of a repeated hour: this time had its run in the first.
            wall += TimeDelta::minutes(1);
        }
    }

    /// Follows the real clock from one offset change to the next, so a wall time is matched exactly as often as it is shown.
    fn next_wildcard(&self, window: &SearchWindow, zone: Tz) -> Option<DateTime<Utc>> {
        let mut from = window.first;
        loop {
            let offset = offset_at(zone, from);
            let wall = self
                .times
                .at_or_after(from.naive_utc() + offset, window.last_year)?;
            let candidate = (wall - offset).and_utc();
            let horizon = from + OFFSET_SPREAD * 2;
            match first_change(zone, from, horizon.min(candidate)) {
                // Past the change the clock may show this wall time earlier, later, again or never: look anew from there.
                Some(change) => from = change,
                None if candidate <= horizon => return Some(candidate),
                // Far away. No time in between matches, and a clock set back within the horizon would have been seen: leap
                // to where the wall time must lie ahead whatever the offset is by then.
                None => from = candidate - OFFSET_SPREAD,
            }
        }
    }
}

/// One of the five fields: its name, its values and the names some of them have.
struct Field {
    name: &'static str,
    min: u32,
    max: u32,
    /// The first name stands for `min`.
    names: &'static [&'static str],
}

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
/// 7 is Sunday again, so that `5-7` can be written.
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

/// A piece of the expression and the position of its first character, counted from 1. The expression is ASCII by then.
type Piece<'a> = (usize, &'a str);

fn fault(position: usize, message: impl Into<String>) -> CronError {
    CronError {
        position,
        message: message.into(),
    }
}

fn check_characters(expression: &str) -> Result<(), CronError> {
    for (index, character) in expression.chars().enumerate() {
        if index == MAX_EXPRESSION_CHARS {
            return Err(fault(
                index + 1,
                format!("an expression has at most {MAX_EXPRESSION_CHARS} characters"),
            ));
        }
        if !matches!(character, ' ' | '\t' | '!'..='~') {
            let message = format!(
                "'{}' has no meaning in a crontab expression",
                character.escape_default()
            );
            return Err(fault(index + 1, message));
        }
    }
    Ok(())
}

fn split_fields(expression: &str) -> Vec<Piece<'_>> {
    pieces(1, expression, |character| matches!(character, ' ' | '\t'))
        .filter(|(_, text)| !text.is_empty())
        .collect()
}

/// Splits ASCII text and keeps the positions.
fn pieces(at: usize, text: &str, separator: fn(char) -> bool) -> impl Iterator<Item = Piece<'_>> {
    let mut next_at = at;
    text.split(separator).map(move |piece| {
        let at = next_at;
        next_at += piece.len() + 1;
        (at, piece)
    })
}

fn wrong_field_count(expression: &str, fields: &[Piece<'_>]) -> CronError {
    let hint = match fields.len() {
        6 | 7 => " (seconds and years are not part of a crontab)",
        _ => "",
    };
    let position = fields.get(5).map_or(expression.len() + 1, |(at, _)| *at);
    let message = format!(
        "found {} fields, but a crontab has 5: minute, hour, day-of-month, month, day-of-week{hint}",
        fields.len()
    );
    fault(position, message)
}

/// The fields that cron itself puts in place of a nickname.
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

fn read_values(field: &Field, (at, text): Piece<'_>) -> Result<u64, CronError> {
    pieces(at, text, |character| character == ',')
        .try_fold(0, |mask, item| Ok(mask | read_range(field, item)?))
}

fn read_dates(days: &mut DayRule, (at, text): Piece<'_>) -> Result<(), CronError> {
    for item in pieces(at, text, |character| character == ',') {
        match item.1 {
            "L" | "l" => days.last_date = true,
            "LW" | "Lw" | "lW" | "lw" => days.last_workday = true,
            _ => days.dates |= read_range(&DATE, item)? as u32,
        }
    }
    Ok(())
}

fn read_weekdays(days: &mut DayRule, (at, text): Piece<'_>) -> Result<(), CronError> {
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
                        format!("after '#' comes which one of the month, 1 to 5, not '{nth}'"),
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

/// `*`, `n` or `a-b`, each with an optional `/step`; `n/step` runs to the end of the field.
fn read_range(field: &Field, (at, text): Piece<'_>) -> Result<u64, CronError> {
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

fn read_value(field: &Field, (at, text): Piece<'_>) -> Result<u32, CronError> {
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

/// Digits alone; a number too large to hold is as good as the largest one.
pub(crate) fn read_number(text: &str) -> Option<u32> {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    digits.then(|| text.parse().unwrap_or(u32::MAX))
}
