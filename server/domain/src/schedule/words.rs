//! Schedules in words, for pages and alerts. Only if the words are shorter and clearer than the expression.

use chrono::SecondsFormat;

use super::interval::{Interval, Rounding};
use crate::schedule::calendar::Calendar;
use crate::schedule::solar::Solar;
use crate::schedule::wall::{Join, WallTimes, Years};

const ALL_MINUTES: u64 = (1 << 60) - 1;
const ALL_HOURS: u32 = (1 << 24) - 1;
const ALL_DATES: u32 = !1;
const ALL_MONTHS: u16 = 0b1_1111_1111_1110;
const ALL_WEEKDAYS: u8 = 0x7f;
const WEEKDAYS: [&str; 7] = [
    "Sundays",
    "Mondays",
    "Tuesdays",
    "Wednesdays",
    "Thursdays",
    "Fridays",
    "Saturdays",
];
const MONTHS: [&str; 12] = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
];

/// Returns "every 90 seconds", "every hour": in the largest unit that divides the interval.
pub(super) fn interval(interval: &Interval) -> String {
    let every = every(interval.seconds());
    match interval.rounding {
        Rounding::Exact => every,
        Rounding::Down(zone) => format!("{every}, at round times, {zone}"),
        Rounding::From(anchor) => {
            format!(
                "{every} from {}",
                anchor.to_rfc3339_opts(SecondsFormat::AutoSi, true)
            )
        }
    }
}

/// Returns "at sunrise, 52.52 N 13.405 E".
pub(super) fn solar(solar: &Solar) -> String {
    let (north, east) = (solar.latitude(), solar.longitude());
    format!(
        "at {}, {}° {} {}° {}",
        solar.event().words(),
        north.abs(),
        if north < 0.0 { "S" } else { "N" },
        east.abs(),
        if east < 0.0 { "W" } else { "E" },
    )
}

/// Returns the expressions on one line. systemd's own form is readable enough.
pub(super) fn calendar(calendar: &Calendar) -> String {
    let lines = calendar.expression().replace('\n', " and ");
    format!("calendar {lines}, {}", calendar.zone())
}

fn every(seconds: f64) -> String {
    let units = [(86_400.0, "day"), (3_600.0, "hour"), (60.0, "minute")];
    let (count, unit) = units
        .iter()
        .find(|(length, _)| seconds % length == 0.0)
        .map_or((seconds, "second"), |(length, unit)| (seconds / length, *unit));
    if count == 1.0 {
        format!("every {unit}")
    } else {
        format!("every {count} {unit}s")
    }
}

/// Returns "at 02:30 on weekdays", "every 5 minutes". None: the schedule is too complicated for words.
pub(super) fn wall_times(times: &WallTimes) -> Option<String> {
    let day = day(times)?;
    let (time, repeats) = time(times)?;
    Some(match day {
        Some(day) => format!("{time} {day}"),
        None if repeats => time,
        None => format!("{time} every day"),
    })
}

/// Returns the time of day in words, and whether these contain "every" already.
fn time(times: &WallTimes) -> Option<(String, bool)> {
    if times.seconds != 1 {
        return None;
    }
    let minutes = bits(times.minutes);
    let hours = bits(times.hours.into());
    let every_hour = times.hours == ALL_HOURS;
    if every_hour && times.minutes == ALL_MINUTES {
        return Some(("every minute".to_owned(), true));
    }
    if every_hour && let Some(step) = even_step(&minutes, 60) {
        return Some((format!("every {step} minutes"), true));
    }
    if minutes.len() * hours.len() <= 4 {
        let times = hours
            .iter()
            .flat_map(|hour| minutes.iter().map(move |minute| format!("{hour:02}:{minute:02}")));
        return Some((format!("at {}", listed(times.collect())), false));
    }
    let [minute] = minutes[..] else { return None };
    if every_hour {
        return Some((format!("every hour at minute {minute}"), true));
    }
    even_step(&hours, 24).map(|step| (format!("every {step} hours at minute {minute}"), true))
}

/// Returns the days in words. `Some(None)`: every day. None: the days are too complicated for words.
fn day(times: &WallTimes) -> Option<Option<String>> {
    let days = &times.days;
    let special = days.last_workday || days.last_weekdays != 0 || days.nth_weekdays != [0; 5];
    if special || times.years != Years::Every {
        return None;
    }
    let all_dates = days.dates == ALL_DATES;
    let all_weekdays = days.weekdays == ALL_WEEKDAYS;
    let (by_date, by_weekday) = match days.join {
        Join::Both => (!all_dates, !all_weekdays),
        Join::Either if all_dates || all_weekdays => (false, false),
        Join::Either => return None,
    };
    let every_month = times.months == ALL_MONTHS;
    match (by_date, by_weekday) {
        (false, false) => every_month.then_some(None),
        (false, true) if every_month => Some(Some(weekdays(days.weekdays))),
        (true, false) => {
            let (dates, months) = (bits(days.dates.into()), bits(times.months.into()));
            match (&dates[..], &months[..]) {
                ([], _) if every_month && days.dates_from_end == 1 << 1 => {
                    Some(Some("on the last day of every month".to_owned()))
                }
                _ if days.dates_from_end == 1 << 1 => None,
                ([date], _) if every_month => Some(Some(format!("on day {date} of every month"))),
                ([date], [month]) => Some(Some(format!("on {date} {}", MONTHS[*month as usize - 1]))),
                _ => None,
            }
        }
        _ => None,
    }
}

fn weekdays(mask: u8) -> String {
    match mask {
        0b011_1110 => "on weekdays".to_owned(),
        0b100_0001 => "at weekends".to_owned(),
        _ => format!(
            "on {}",
            listed(
                bits(mask.into())
                    .iter()
                    .map(|day| WEEKDAYS[*day as usize].to_owned())
                    .collect()
            )
        ),
    }
}

/// Returns the step of the values 0, n, 2n, … if they reach 0 again at `cycle`.
fn even_step(values: &[u32], cycle: u32) -> Option<u32> {
    let step = cycle.checked_div(u32::try_from(values.len()).ok()?)?;
    let even = values.len() > 1 && (0..cycle).step_by(step as usize).eq(values.iter().copied());
    (even && cycle.is_multiple_of(step)).then_some(step)
}

fn bits(mask: u64) -> Vec<u32> {
    (0..64).filter(|bit| mask & (1 << bit) != 0).collect()
}

fn listed(mut items: Vec<String>) -> String {
    match items.pop() {
        Some(last) if items.is_empty() => last,
        Some(last) => format!("{} and {last}", items.join(", ")),
        None => String::new(),
    }
}
