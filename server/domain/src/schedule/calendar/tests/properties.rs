use std::collections::BTreeSet;

use chrono::{NaiveDateTime, Timelike};
use proptest::prelude::*;

use super::*;

fn values(low: u32, high: u32) -> impl Strategy<Value = String> {
    let item = (low..high, 0..=high - low, 1..9u32, 0..4).prop_map(move |(first, length, step, form)| {
        let last = (first + length).min(high);
        match form {
            0 | 1 => first.to_string(),
            2 => format!("{first}..{}/{step}", last.max(first + 1)),
            _ => format!("{first}/{}", step.min(high - first)),
        }
    });
    let list = prop::collection::vec(item, 1..3).prop_map(|items| items.join(","));
    prop_oneof![2 => Just("*".to_owned()), 3 => list]
}

fn expressions() -> impl Strategy<Value = String> {
    let weekdays = prop::sample::select(vec!["", "", "Mon..Fri ", "Sat,Sun ", "Tue,Thu..Sun "]);
    let dates = prop_oneof![
        3 => Just(String::new()),
        2 => (values(1, 12), values(1, 31)).prop_map(|(month, day)| format!("{month}-{day} ")),
        1 => (1..28u32).prop_map(|day| format!("*~{day} ")),
    ];
    (weekdays, dates, values(0, 23), values(0, 59))
        .prop_map(|(weekdays, date, hour, minute)| format!("{weekdays}{date}{hour}:{minute}"))
}

/// Returns a zone, and a whole minute within two days of one of its clock changes.
fn places() -> impl Strategy<Value = (Zone, DateTime<Utc>)> {
    let changes = [
        ("America/New_York", "2026-03-08T07:00:00"),
        ("America/New_York", "2026-11-01T06:00:00"),
        ("Australia/Lord_Howe", "2026-04-04T15:00:00"),
        ("Australia/Lord_Howe", "2026-10-03T15:30:00"),
        ("America/Sao_Paulo", "2018-11-04T03:00:00"),
        ("America/Sao_Paulo", "2018-02-18T02:00:00"),
        ("Pacific/Apia", "2011-12-30T10:00:00"),
        ("Antarctica/Troll", "2026-10-25T01:00:00"),
        ("America/St_Johns", "2010-03-14T03:31:00"),
        ("UTC", "2026-01-01T00:00:00"),
    ];
    (prop::sample::select(changes.to_vec()), -2880..2880i64)
        .prop_map(|((name, change), minutes)| (zone(name), utc(change) + TimeDelta::minutes(minutes)))
}

/// Applies the rule for clock changes to each minute of the real clock, for a day and a half. Does not model the lost
/// steps.
fn simulated(line: &Line, from: DateTime<Utc>) -> BTreeSet<DateTime<Utc>> {
    let matches = |wall: NaiveDateTime| {
        line.times.minutes >> wall.minute() & 1 == 1
            && line.times.hours >> wall.hour() & 1 == 1
            && line.times.has_day(wall.date())
    };
    (1..=36 * 60)
        .map(|minutes| from + TimeDelta::minutes(minutes))
        .filter(|now| {
            let wall = line.zone.wall_at(*now);
            let is_first = match line.zone.read(wall) {
                Some(Reading::Once(instant) | Reading::Twice(instant, _)) => instant == *now,
                _ => false,
            };
            is_first && matches(wall)
        })
        .collect()
}

proptest! {
    #[test]
    fn slots_are_the_first_showings(expression in expressions(), (zone, from) in places()) {
        let Ok(mut calendar) = Calendar::parse(&expression, zone) else { return Ok(()) };
        calendar.lines[0].overruns = Overruns::default();

        let until = from + TimeDelta::hours(36);
        let next = |after: &DateTime<Utc>| calendar.next_after(*after).filter(|slot| *slot <= until);
        let found: BTreeSet<_> = std::iter::successors(next(&from), next).collect();

        let expected = simulated(&calendar.lines[0], from);
        prop_assert_eq!(found, expected, "{} in {} from {}", expression, zone, from);
    }

    #[test]
    fn next_slot_lies_ahead_and_never_moves_back(
        lines in prop::collection::vec(expressions(), 1..4),
        (zone, after) in places(),
        later in 0..400_000i64,
    ) {
        let Ok(calendar) = Calendar::parse(&lines.join("\n"), zone) else { return Ok(()) };

        let next = calendar.next_after(after);
        let after_later = calendar.next_after(after + TimeDelta::seconds(later));

        prop_assert!(next.is_none_or(|slot| slot > after));
        if let (Some(next), Some(after_later)) = (next, after_later) {
            prop_assert!(next <= after_later);
            // Slots are fixed: a search that starts in between finds the same ones.
            prop_assert!(next == after_later || next <= after + TimeDelta::seconds(later));
        }
    }
}

proptest! {
    #[test]
    fn any_text_is_read_or_refused(text in any::<String>()) {
        let _ = Calendar::parse(&text, Zone::utc());
    }

    #[test]
    fn any_text_of_calendar_characters_is_read_or_refused(
        text in "(Mon|Tue|Sun|daily|UTC|Europe/Berlin|[0-9]{1,4}|[-0-9*/,.:~@ \n\r\t]|[A-Za-z]){0,24}",
        seconds in 0..4_000_000_000i64,
    ) {
        let after = DateTime::from_timestamp(seconds, 0).expect("a time");
        match Calendar::parse(&text, zone("America/New_York")) {
            Ok(calendar) => prop_assert!(calendar.next_after(after).is_none_or(|slot| slot > after)),
            Err(error) => prop_assert!((1..=text.len() + 1).contains(&error.position)),
        }
    }
}
