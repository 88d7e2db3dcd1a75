//! Properties of every crontab line, compared with a clock that is walked minute by minute.

use std::collections::BTreeSet;
use std::sync::LazyLock;

use chrono::{Datelike, Timelike};
use proptest::prelude::*;

use super::{utc, zone};
use crate::schedule::cron::*;
use crate::schedule::zone::Reading;

const ZONES: [&str; 12] = [
    "UTC",
    "America/New_York",
    "Europe/London",
    "Australia/Lord_Howe",
    "America/Sao_Paulo",
    "America/Havana",
    "Asia/Tehran",
    "Pacific/Apia",
    "Pacific/Chatham",
    "Antarctica/Troll",
    "Africa/Casablanca",
    "Asia/Kathmandu",
];

/// Each zone's offset changes from 2008 to 2035.
static CLOCK_CHANGES: LazyLock<Vec<(Zone, Vec<DateTime<Utc>>)>> = LazyLock::new(|| {
    let day = TimeDelta::days(1);
    let start = utc("2008-01-01T00:00");
    let changes = |zone: Zone| {
        (0..365 * 28).filter_map(move |days| zone.first_change(start + day * days, start + day * (days + 1)))
    };
    ZONES
        .map(zone)
        .into_iter()
        .map(|zone| (zone, changes(zone).collect()))
        .collect()
});

/// Returns a zone, and instants mostly near its clock changes.
fn places() -> impl Strategy<Value = (Zone, DateTime<Utc>)> {
    (
        any::<prop::sample::Index>(),
        any::<prop::sample::Index>(),
        -90_000..90_000i64,
    )
        .prop_map(|(zone, change, seconds)| {
            let (zone, changes) = zone.get(&CLOCK_CHANGES);
            let near = if changes.is_empty() {
                utc("2026-02-28T12:00")
            } else {
                *change.get(changes)
            };
            (*zone, near + TimeDelta::seconds(seconds))
        })
}

/// Returns a field as people write them.
fn field(min: u32, max: u32) -> impl Strategy<Value = String> {
    let item = prop_oneof![
        3 => Just("*".to_owned()),
        2 => (1..=20u32).prop_map(|step| format!("*/{step}")),
        3 => (min..=max).prop_map(|value| value.to_string()),
        2 => (min..=max, min..=max).prop_map(|(a, b)| format!("{}-{}", a.min(b), a.max(b))),
        1 => (min..=max, min..=max, 1..=9u32).prop_map(|(a, b, step)| format!("{}-{}/{step}", a.min(b), a.max(b))),
        1 => (min..=max, 1..=20u32).prop_map(|(value, step)| format!("{value}/{step}")),
    ];
    prop::collection::vec(item, 1..=2).prop_map(|items| items.join(","))
}

fn expressions() -> impl Strategy<Value = String> {
    let hour = prop_oneof![
        field(0, 23),
        prop::sample::select(vec!["0", "1", "2", "1,2", "0-3", "*/2"]).prop_map(str::to_owned)
    ];
    let date = prop_oneof![4 => Just("*".to_owned()), 3 => field(1, 31), 1 => Just("L".to_owned()), 1 => Just("LW".to_owned())];
    let month = prop_oneof![3 => Just("*".to_owned()), 1 => field(1, 12)];
    let weekday = prop_oneof![
        4 => Just("*".to_owned()),
        3 => field(0, 7),
        1 => (0..=7u32).prop_map(|day| format!("{day}L")),
        1 => (0..=7u32, 1..=5u32).prop_map(|(day, nth)| format!("{day}#{nth}")),
    ];
    (field(0, 59), hour, date, month, weekday)
        .prop_map(|(minute, hour, date, month, weekday)| format!("{minute} {hour} {date} {month} {weekday}"))
}

/// True if the fields match a wall time. Deliberately naive: day by day.
fn shows(times: &WallTimes, wall: chrono::NaiveDateTime) -> bool {
    let days = &times.days;
    let (day, weekday) = (wall.day(), wall.weekday().num_days_from_sunday());
    let tomorrow = wall.date() + TimeDelta::days(1);
    let is_workday = |date: chrono::NaiveDate| date.weekday().number_from_monday() <= 5;
    let later_workday = (1..=3).map(|ahead| wall.date() + TimeDelta::days(ahead));
    let by_date = days.dates >> day & 1 == 1
        || days.dates_from_end & 2 != 0 && tomorrow.month() != wall.month()
        || days.last_workday
            && is_workday(wall.date())
            && later_workday
                .filter(|date| is_workday(*date))
                .all(|date| date.month() != wall.month());
    let by_weekday = days.weekdays >> weekday & 1 == 1
        || days.nth_weekdays[(day as usize - 1) / 7] >> weekday & 1 == 1
        || days.last_weekdays >> weekday & 1 == 1
            && (wall.date() + TimeDelta::days(7)).month() != wall.month();
    let day_matches = match days.join {
        Join::Both => by_date && by_weekday,
        Join::Either => by_date || by_weekday,
    };
    times.minutes >> wall.minute() & 1 == 1
        && times.hours >> wall.hour() & 1 == 1
        && times.months >> wall.month() & 1 == 1
        && day_matches
}

/// Applies Debian's rules to each minute of the real clock, for a day and a half from a whole minute.
fn simulated(cron: &Cron, zone: Zone, from: DateTime<Utc>) -> BTreeSet<DateTime<Utc>> {
    let minute = TimeDelta::minutes(1);
    let mut slots = BTreeSet::new();
    for now in (1..=36 * 60).map(|minutes| from + minute * minutes) {
        let wall = zone.wall_at(now);
        let first_showing =
            matches!(zone.read(wall), Some(Reading::Once(first) | Reading::Twice(first, _)) if first == now);
        // Wall times that the clock has just jumped over: a fixed job makes up for them now.
        let expected_wall = zone.wall_at(now - minute) + minute;
        let skipped =
            (0..(wall - expected_wall).num_minutes()).map(|minutes| expected_wall + minute * minutes as i32);
        let runs = match cron.job {
            Job::Wildcard => shows(&cron.times, wall),
            Job::Fixed => {
                first_showing && shows(&cron.times, wall)
                    || skipped.into_iter().any(|wall| shows(&cron.times, wall))
            }
        };
        if runs {
            slots.insert(now);
        }
    }
    slots
}

proptest! {
    #[test]
    fn slots_are_those_of_the_real_clock(expression in expressions(), (zone, near) in places()) {
        let Ok(cron) = Cron::parse(&expression) else { return Ok(()) };
        let from = near.with_second(0).expect("a whole minute");

        let until = from + TimeDelta::hours(36);
        let next = |after: &DateTime<Utc>| cron.next_after(*after, zone).filter(|slot| *slot <= until);
        let first = next(&from);
        let found: BTreeSet<_> = std::iter::successors(first, next).collect();

        prop_assert_eq!(found, simulated(&cron, zone, from), "{} in {} from {}", expression, zone, from);
    }

    #[test]
    fn next_slot_lies_ahead_and_never_moves_back(
        expression in expressions(), (zone, after) in places(), later in 0..400_000i64,
    ) {
        let Ok(cron) = Cron::parse(&expression) else { return Ok(()) };

        let next = cron.next_after(after, zone);
        let after_later = cron.next_after(after + TimeDelta::seconds(later), zone);

        prop_assert!(next.is_none_or(|slot| slot > after && zone.wall_at(slot).second() == 0));
        if let (Some(next), Some(after_later)) = (next, after_later) {
            prop_assert!(next <= after_later);
        }
    }

    #[test]
    fn any_text_is_read_or_refused(text in any::<String>()) {
        let _ = Cron::parse(&text);
    }

    #[test]
    fn any_text_of_crontab_characters_is_read_or_refused(
        text in "[-0-9*/,#LWlwA-Za-z@? \t]{0,40}", (zone, after) in places(),
    ) {
        if let Ok(cron) = Cron::parse(&text) {
            prop_assert!(cron.next_after(after, zone).is_none_or(|slot| slot > after));
        }
    }

    #[test]
    fn any_five_fields_are_read_or_refused(
        text in "[-0-9*/,#L]{1,6} [-0-9*/,]{1,6} [-0-9*/,LW]{1,6} [-0-9*/,]{1,5} [-0-9*/,#L]{1,6}",
        (zone, after) in places(),
    ) {
        match Cron::parse(&text) {
            Ok(cron) => prop_assert!(cron.next_after(after, zone).is_none_or(|slot| slot > after)),
            Err(error) => prop_assert!((1..=text.len() + 1).contains(&error.position)),
        }
    }
}
