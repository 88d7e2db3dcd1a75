//! Quartz expressions: crontabs with seconds in front and optional years at the end, as Rust's `cron` crate reads them.
//!
//! Sunday is 1 and Saturday 7, a day must match in *both* day fields, and `?` means the same as `*`.
//! `quartz/differential.rs` tests accepted texts and their slots against version 0.17 of the crate, down to blanks
//! around the signs (`9, 17`) and none between the fields (`0 0 12**?`). This module also accepts four signs of the
//! Quartz scheduler that the crate refuses: `L`, `LW`, `6L` and `6#3`. "The documentation" below is that of
//! `org.quartz.CronExpression`.
//!
//! Clock changes are treated as cron treats them (`Job` in `cron`). The crate drops a skipped time, and jumps to and
//! fro in a repeated hour. `docs/schedules.md` lists every difference.

#[cfg(test)]
mod differential;
mod reader;
#[cfg(test)]
mod tests;

use chrono::{DateTime, Utc};

use self::reader::{DATE, FieldText, HOUR, Item, MINUTE, MONTH, Reader, SECOND, WEEKDAY, YEAR};
use crate::schedule::cron::{Job, MAX_EXPRESSION_CHARS};
use crate::schedule::expression::{ExpressionError, check_characters, fault, single_spaced, split_fields};
use crate::schedule::wall::{DayRule, Join, WallTimes, Years};
use crate::schedule::zone::Zone;

/// A parsed Quartz expression that names at least one date that exists.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Quartz {
    expression: String,
    times: WallTimes,
    job: Job,
}

impl Quartz {
    /// Reads six fields, seven with years at the end, or one of the crate's five shorthands.
    ///
    /// # Errors
    /// If the `cron` crate refuses the expression, apart from `L`, `LW`, `6L` and `6#3`. If it has line breaks or more
    /// than [`MAX_EXPRESSION_CHARS`] characters, or its date never comes.
    pub fn parse(expression: &str) -> Result<Self, ExpressionError> {
        check_characters(expression, MAX_EXPRESSION_CHARS)?;
        let pieces = split_fields(expression);
        let fields = match pieces[..] {
            [(at, shorthand), ref rest @ ..] if shorthand.starts_with('@') => {
                if let Some((at, text)) = rest.first() {
                    return Err(fault(
                        *at,
                        format!("nothing comes after a shorthand, but '{text}' does"),
                    ));
                }
                expand_shorthand(shorthand).map_err(|message| fault(at, message))?
            }
            _ => expression,
        };
        let fields = Fields::read(fields).map_err(|error| {
            // Blanks between fields may be left out, so too few pieces are a fault only if they cannot be read. Then
            // the text is most likely a plain crontab. To say so helps more than to name the first value that does not
            // fit.
            match pieces.len() {
                6.. => error,
                count => wrong_field_count(expression.len() + 1, count),
            }
        })?;
        let times = fields.times();
        if !times.has_a_date() {
            return Err(fields.no_such_date());
        }
        Ok(Self {
            expression: single_spaced(&pieces),
            times,
            job: fields.job(),
        })
    }

    /// Returns the expression as written, with single spaces where it has blanks.
    #[must_use]
    pub fn expression(&self) -> &str {
        &self.expression
    }

    pub(crate) fn times(&self) -> &WallTimes {
        &self.times
    }

    /// Returns the next slot strictly after `after`. None: there is none until the last listed year or, without listed years, within 50 years.
    #[must_use]
    pub fn next_after(&self, after: DateTime<Utc>, zone: Zone) -> Option<DateTime<Utc>> {
        self.job.next_after(&self.times, after, zone)
    }
}

/// The fields of an expression.
struct Fields<'a> {
    second: FieldText<'a>,
    minute: FieldText<'a>,
    hour: FieldText<'a>,
    date: FieldText<'a>,
    month: FieldText<'a>,
    weekday: FieldText<'a>,
    year: Option<FieldText<'a>>,
}

impl<'a> Fields<'a> {
    fn read(expression: &'a str) -> Result<Self, ExpressionError> {
        let mut reader = Reader::new(expression);
        let fields = Self {
            second: reader.field(&SECOND)?,
            minute: reader.field(&MINUTE)?,
            hour: reader.field(&HOUR)?,
            date: reader.field(&DATE)?,
            month: reader.field(&MONTH)?,
            weekday: reader.field(&WEEKDAY)?,
            year: if reader.is_at_end() {
                None
            } else {
                Some(reader.field(&YEAR)?)
            },
        };
        if reader.is_at_end() {
            Ok(fields)
        } else {
            Err(fault(
                reader.position(),
                "nothing comes after the seventh field, year",
            ))
        }
    }

    fn times(&self) -> WallTimes {
        WallTimes {
            seconds: self.second.mask(),
            minutes: self.minute.mask(),
            hours: self.hour.mask() as u32,
            months: self.month.mask() as u16,
            days: self.days(),
            years: self.year.as_ref().map_or(Years::Every, years),
        }
    }

    fn days(&self) -> DayRule {
        let mut days = DayRule {
            dates: self.date.mask() as u32,
            // Quartz counts weekdays from 1, a mask from bit 0.
            weekdays: (self.weekday.mask() >> 1) as u8,
            join: Join::Both,
            ..DayRule::NONE
        };
        for item in self.date.items.iter().chain(&self.weekday.items) {
            match *item {
                Item::LastDay => days.dates_from_end |= 1 << 1,
                Item::LastWorkday => days.last_workday = true,
                Item::LastOf(weekday) => days.last_weekdays |= 1 << (weekday - 1),
                Item::Nth { weekday, nth } => days.nth_weekdays[nth - 1] |= 1 << (weekday - 1),
                Item::Every { .. } | Item::Onward { .. } | Item::Range { .. } => {}
            }
        }
        days
    }

    /// Returns how the job treats clock changes. With a leading star it follows the clock, as in a crontab. Here the second counts as well as minute
    /// and hour.
    ///
    /// By the documentation, `0/5` means the same as `*/5`, and is the usual form in Quartz. So both must make the same kind of job.
    fn job(&self) -> Job {
        let star = |field: &FieldText<'_>| {
            matches!(
                field.items.first(),
                Some(Item::Every { .. } | Item::Onward { first: 0, .. })
            )
        };
        if star(&self.second) || star(&self.minute) || star(&self.hour) {
            Job::Wildcard
        } else {
            Job::Fixed
        }
    }

    fn no_such_date(&self) -> ExpressionError {
        let year = self.year.as_ref();
        let message = format!(
            "no date matches day-of-month '{}', month '{}', day-of-week '{}'{} together, so this would never run",
            self.date.text,
            self.month.text,
            self.weekday.text,
            year.map_or(String::new(), |year| format!(" and year '{}'", year.text)),
        );
        fault(self.date.at, message)
    }
}

/// Returns the years of the year field. `*` is every year, also after 2100, where the crate's years end.
fn years(year: &FieldText<'_>) -> Years {
    if year.items.contains(&Item::Every { step: 1 }) {
        return Years::Every;
    }
    let mut years = Years::NONE;
    for value in year.values() {
        years.insert(value as i32);
    }
    years
}

fn wrong_field_count(position: usize, count: usize) -> ExpressionError {
    let hint = match count {
        5 => "; a crontab of five fields is a schedule of kind cron",
        _ => "",
    };
    let message = format!(
        "found {count} fields, but a Quartz expression has 6: second, minute, hour, day-of-month, month, day-of-week, or 7 with year \
         at the end{hint}"
    );
    fault(position, message)
}

/// Returns the fields with which the crate replaces a shorthand. The crate knows fewer than cron, and only in small letters.
fn expand_shorthand(shorthand: &str) -> Result<&'static str, String> {
    match shorthand {
        "@hourly" => Ok("0 0 * * * *"),
        "@daily" => Ok("0 0 0 * * *"),
        "@weekly" => Ok("0 0 0 * * 1"),
        "@monthly" => Ok("0 0 0 1 * *"),
        "@yearly" => Ok("0 0 0 1 1 *"),
        _ => Err(format!(
            "{shorthand} is not known; there are @hourly, @daily, @weekly, @monthly and @yearly, in small letters"
        )),
    }
}
