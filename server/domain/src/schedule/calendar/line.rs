//! One line: weekdays, date, time and zone, each optional, or a shorthand and an optional zone.

use chrono::{DateTime, Datelike, Timelike, Utc};

use super::Line;
use super::overrun::Overruns;
use super::values::{DAY, DAY_FROM_END, HOUR, MINUTE, MONTH, SECOND, Span, YEAR, found};
use crate::schedule::cron::WEEKDAY_NAMES;
use crate::schedule::expression::{ExpressionError, Piece, fault, pieces, split_fields};
use crate::schedule::wall::{DayRule, Join, WallTimes, Years};
use crate::schedule::zone::Zone;

const ALL_MONTHS: u16 = 0b1_1111_1111_1110;
const ALL_DATES: u32 = !1;
const ALL_WEEKDAYS: u8 = 0x7f;

/// The last second of 2199, where systemd's search ends.
const LAST_TIMESTAMP: i64 = 7_258_118_399;

/// The shorthands and their long forms. systemd has several spellings of some, for old units.
const SHORTHANDS: [(&str, &str); 13] = [
    ("minutely", "*:*:00"),
    ("hourly", "*:00:00"),
    ("daily", "00:00:00"),
    ("weekly", "Mon 00:00:00"),
    ("monthly", "*-01 00:00:00"),
    ("quarterly", "01,04,07,10-01 00:00:00"),
    ("yearly", "01-01 00:00:00"),
    ("annually", "01-01 00:00:00"),
    ("anually", "01-01 00:00:00"),
    ("semiannually", "01,07-01 00:00:00"),
    ("semi-annually", "01,07-01 00:00:00"),
    ("biannually", "01,07-01 00:00:00"),
    ("bi-annually", "01,07-01 00:00:00"),
];

/// The long names, in the order of [`WEEKDAY_NAMES`].
const LONG_WEEKDAY_NAMES: [&str; 7] = [
    "sunday",
    "monday",
    "tuesday",
    "wednesday",
    "thursday",
    "friday",
    "saturday",
];

/// Reads a line without blanks around it. A line without a zone gets `zone`.
pub(super) fn read(text: &str, zone: Zone) -> Result<Line, ExpressionError> {
    if let Some(index) = text.find('\t') {
        let message = "there is a tab; systemd takes only blanks between the parts";
        return Err(fault(index + 1, message));
    }
    let words = split_fields(text);
    let (words, zone) = split_zone(&words)?.unwrap_or((&words, zone));
    let long_form = match words {
        [(_, word)] => shorthand(word),
        _ => None,
    };
    let line = match long_form {
        Some(long_form) => read_words(&split_fields(long_form), zone)?,
        None => read_words(words, zone)?,
    };
    if !line.times.has_a_date() {
        let date = words.iter().find(|(_, word)| !starts_with_letter(word));
        let at = date.map_or(1, |(at, _)| *at);
        return Err(fault(at, "no year has such a day, so this would never come"));
    }
    if !line.comes() {
        let at = words.last().map_or(1, |(at, _)| *at);
        let zone = line.zone;
        let message = format!("this never comes: {zone} skips these hours when its clock changes");
        return Err(fault(at, message));
    }
    Ok(line)
}

/// If the last word is a zone, returns the words before it and the zone.
fn split_zone<'a, 'b>(words: &'b [Piece<'a>]) -> Result<Option<(&'b [Piece<'a>], Zone)>, ExpressionError> {
    let [before @ .., (previous_at, previous), (at, name)] = words else {
        return Ok(None);
    };
    let zone = if name.eq_ignore_ascii_case("UTC") {
        Zone::utc()
    } else if starts_with_letter(name)
        && let Ok(zone) = name.parse()
    {
        zone
    } else {
        return Ok(None);
    };
    // systemd removes the zone together with one blank. Only after dates and weekdays more blanks are allowed.
    let previous_end = previous_at + previous.len();
    let takes_blanks = !previous.contains([':', '@']) && shorthand(previous).is_none();
    if *at > previous_end + 1 && !takes_blanks {
        let message = format!("systemd takes one blank between '{previous}' and the time zone");
        return Err(fault(previous_end + 1, message));
    }
    Ok(Some((&words[..=before.len()], zone)))
}

fn shorthand(word: &str) -> Option<&'static str> {
    SHORTHANDS
        .iter()
        .find(|(name, _)| word.eq_ignore_ascii_case(name))
        .map(|(_, long_form)| *long_form)
}

fn starts_with_letter(word: &str) -> bool {
    word.starts_with(|first: char| first.is_ascii_alphabetic())
}

/// Reads weekdays, date and time, each optional. An instant may stand in place of date and time.
fn read_words(words: &[Piece<'_>], zone: Zone) -> Result<Line, ExpressionError> {
    let mut line = Line {
        times: WallTimes {
            seconds: 1,
            minutes: 1,
            hours: 1,
            months: ALL_MONTHS,
            days: DayRule {
                dates: ALL_DATES,
                weekdays: ALL_WEEKDAYS,
                join: Join::Both,
                ..DayRule::NONE
            },
            years: Years::Every,
        },
        overruns: Overruns::default(),
        zone,
    };
    let mut rest = words;
    if let [word, others @ ..] = rest
        && starts_with_letter(word.1)
    {
        line.times.days.weekdays = read_weekdays(*word)?;
        rest = others;
    }
    if let [word, others @ ..] = rest
        && word.1.starts_with('@')
    {
        read_timestamp(&mut line.times, *word)?;
        // An instant is the same in every zone.
        line.zone = Zone::utc();
        rest = others;
    } else {
        if let [word, others @ ..] = rest
            && !word.1.contains(':')
            && !starts_with_letter(word.1)
        {
            read_date(&mut line, *word)?;
            rest = others;
        }
        if let [word, others @ ..] = rest
            && word.1.contains(':')
        {
            read_time(&mut line, *word)?;
            rest = others;
        }
    }
    match rest {
        [] => Ok(line),
        [word, others @ ..] => Err(out_of_place(*word, others.is_empty())),
    }
}

fn out_of_place((at, word): Piece<'_>, is_last: bool) -> ExpressionError {
    if is_last
        && starts_with_letter(word)
        && read_weekdays((at, word)).is_err()
        && let Err(error) = word.parse::<Zone>()
    {
        return fault(at, error.to_string());
    }
    let order = "the order is weekdays, date, time, time zone, with blanks between";
    fault(at, format!("'{word}' is not expected here; {order}"))
}

/// Reads comma-separated names and ranges of names. A comma may follow the last one.
fn read_weekdays((at, text): Piece<'_>) -> Result<u8, ExpressionError> {
    if shorthand(text).is_some() {
        return Err(fault(
            at,
            format!("'{text}' stands alone, followed at most by a time zone"),
        ));
    }
    let list = text.strip_suffix(',').unwrap_or(text);
    let mut weekdays = 0;
    for (at, item) in pieces(at, list, |character| character == ',') {
        let range = match item.split_once("..") {
            Some((first, last)) => Some((first, 2, last)),
            None => item.split_once('-').map(|(first, last)| (first, 1, last)),
        };
        let (first, last) = match range {
            Some((first, separator, last)) => (
                read_weekday((at, first))?,
                read_weekday((at + first.len() + separator, last))?,
            ),
            None => {
                let day = read_weekday((at, item))?;
                (day, day)
            }
        };
        if first > last {
            let message =
                format!("the range '{item}' runs backwards; Monday is the first day, Sunday the last");
            return Err(fault(at, message));
        }
        for day in first..=last {
            weekdays |= 1 << ((day + 1) % 7);
        }
    }
    Ok(weekdays)
}

/// Reads a weekday. Monday is 0.
fn read_weekday((at, text): Piece<'_>) -> Result<usize, ExpressionError> {
    let is_named =
        |(short, long): (&&str, &&str)| text.eq_ignore_ascii_case(short) || text.eq_ignore_ascii_case(long);
    let from_sunday = WEEKDAY_NAMES.iter().zip(&LONG_WEEKDAY_NAMES).position(is_named);
    from_sunday.map(|day| (day + 6) % 7).ok_or_else(|| {
        let shorthands = "minutely, hourly, daily, weekly, monthly, quarterly, semiannually or yearly";
        let message = format!(
            "{} is no weekday (Mon to Sun, Monday to Sunday) and none of {shorthands}",
            found(text)
        );
        fault(at, message)
    })
}

/// Reads `@` and seconds since 1970.
fn read_timestamp(times: &mut WallTimes, (at, word): Piece<'_>) -> Result<(), ExpressionError> {
    let instant = read_seconds(&word[1..]).ok_or_else(|| {
        let message = format!(
            "after '@' come the seconds since 1970, up to {LAST_TIMESTAMP}, not {}",
            found(&word[1..])
        );
        fault(at + 1, message)
    })?;
    times.seconds = 1 << instant.second();
    times.minutes = 1 << instant.minute();
    times.hours = 1 << instant.hour();
    times.days.dates = 1 << instant.day();
    times.months = 1 << instant.month();
    times.years = Years::NONE;
    times.years.insert(instant.year());
    Ok(())
}

fn read_seconds(text: &str) -> Option<DateTime<Utc>> {
    let digits = text.bytes().all(|byte| byte.is_ascii_digit());
    let seconds: i64 = text.parse().ok().filter(|_| digits)?;
    DateTime::from_timestamp(seconds, 0).filter(|_| seconds <= LAST_TIMESTAMP)
}

/// Reads `year-month-day` or `month-day`. A `~` before the day counts from the end of the month.
fn read_date(line: &mut Line, (at, word): Piece<'_>) -> Result<(), ExpressionError> {
    let parts: Vec<Piece<'_>> = pieces(at, word, |character| matches!(character, '-' | '~')).collect();
    let (year, month, day) = match parts[..] {
        [month, day] => (None, month, day),
        [year, month, day] => (Some(year), month, day),
        [_] => {
            let message = format!(
                "'{word}' is no date (year-month-day or month-day) and no time (hour:minute or with :second)"
            );
            return Err(fault(at, message));
        }
        [_, _, _, (extra_at, _), ..] => {
            let message = "a date has at most three parts, year-month-day; a range is written a..b";
            return Err(fault(extra_at - 1, message));
        }
        [] => return Ok(()),
    };
    let separator = |part: Piece<'_>| word.as_bytes().get(part.0 - at - 1);
    if year.is_some() && separator(month) == Some(&b'~') {
        let message = "'~' stands between month and day and counts the days from the end of the month";
        return Err(fault(month.0 - 1, message));
    }
    if let Some(year) = year
        && let Some(spans) = YEAR.read_spans(year)?
    {
        line.times.years = Years::NONE;
        for year in spans.iter().flat_map(Span::values) {
            line.times.years.insert(year as i32);
        }
    }
    line.times.months = MONTH.read_values(month)?.mask as u16;
    // `~*` means every day, too.
    let days = if separator(day) == Some(&b'~') && day.1 != "*" {
        let days = DAY_FROM_END.read_values(day)?;
        line.times.days.dates_from_end = days.mask as u32;
        line.times.days.dates = 0;
        days
    } else {
        let days = DAY.read_values(day)?;
        line.times.days.dates = days.mask as u32;
        days
    };
    line.overruns.day = days.overrun;
    Ok(())
}

/// Reads `hour:minute` or `hour:minute:second`.
fn read_time(line: &mut Line, (at, word): Piece<'_>) -> Result<(), ExpressionError> {
    let parts: Vec<Piece<'_>> = pieces(at, word, |character| character == ':').collect();
    let (hour, minute, second) = match parts[..] {
        [hour, minute] => (hour, minute, None),
        [hour, minute, second] => (hour, minute, Some(second)),
        [_, _, _, (extra_at, _), ..] => {
            let message = "a time has at most three parts, hour:minute:second";
            return Err(fault(extra_at - 1, message));
        }
        [] | [_] => return Ok(()),
    };
    let (hours, minutes) = (HOUR.read_values(hour)?, MINUTE.read_values(minute)?);
    line.times.hours = hours.mask as u32;
    line.times.minutes = minutes.mask;
    line.overruns.hour = hours.overrun;
    line.overruns.minute = minutes.overrun;
    if let Some(second) = second {
        let seconds = SECOND.read_values(second)?;
        line.times.seconds = seconds.mask;
        line.overruns.second = seconds.overrun;
    }
    Ok(())
}
