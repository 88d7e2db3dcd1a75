//! Properties of every kind of schedule, for any expression and any instant.
//!
//! Some kinds have no fixed slots:
//! * A plain interval and one with `relative` count from the last report. With `relative`, a later report may be
//!   followed by an earlier slot, if the clock is set back between the two.
//! * A Celery crontab is *defined* by iteration from the last dispatch (`celery_crontab`). Near a clock change its
//!   slots depend on where the iteration began.
//! * Solar events are found by approximation. On the days near a polar night the search may find an event or not.
//!
//! Separate tests show which properties these kinds have.

mod made_up;

use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;
use serde_json::{Value, json};

use super::*;
use crate::schedule::wall::OFFSET_SPREAD;

/// Returns instants from 1970 to 2100, to the nanosecond, mostly whole seconds.
fn instant() -> impl Strategy<Value = DateTime<Utc>> {
    let nanoseconds = prop_oneof![3 => Just(0), 1 => 0..1_000_000_000u32, 1 => Just(999_999_999)];
    (0..4_102_444_800i64, nanoseconds)
        .prop_map(|(seconds, nanoseconds)| DateTime::from_timestamp(seconds, nanoseconds).expect("in range"))
}

/// Returns an instant, and how far to move it towards the next clock change of the schedule's zone. Without that move, only one case in some 200
/// would meet a change, and changes cause most faults.
fn place() -> impl Strategy<Value = (DateTime<Utc>, Option<TimeDelta>)> {
    let distance = (-200_000..200_000i64).prop_map(TimeDelta::seconds);
    (instant(), prop::option::of(distance))
}

fn placed((instant, distance): (DateTime<Utc>, Option<TimeDelta>), schedule: &Schedule) -> DateTime<Utc> {
    let Some(distance) = distance else { return instant };
    let days = (0..400).map(|day| instant + TimeDelta::days(day));
    days.map_while(|day| (day.timestamp() < 4_102_444_800).then_some(day))
        .find_map(|day| schedule.timezone().first_change(day, day + TimeDelta::days(1)))
        .map_or(instant, |change| change + distance)
}

/// Returns some instant from `from` on and before `to`.
fn between(from: DateTime<Utc>, to: DateTime<Utc>, share: f64) -> DateTime<Utc> {
    let share = TimeDelta::nanoseconds(((to - from).as_seconds_f64() * share * 1e9) as i64);
    (from + share).min(to - TimeDelta::nanoseconds(1))
}

fn same_offset(schedule: &Schedule, from: DateTime<Utc>, to: DateTime<Utc>) -> bool {
    let zone = schedule.timezone();
    let mut days = (0..)
        .map(|day| from + TimeDelta::days(day))
        .take_while(|day| *day < to);
    days.all(|day| zone.first_change(day, to.min(day + TimeDelta::days(1))).is_none())
}

#[test]
fn nearly_all_of_what_is_made_up_is_taken() {
    let mut runner = TestRunner::deterministic();
    let kinds = [
        made_up::interval(),
        made_up::interval_relative(),
        made_up::interval_from_anchor(),
        made_up::cron(),
        made_up::cron_with_seconds(),
        made_up::quartz(),
        made_up::celery(),
        made_up::solar(),
        made_up::on_calendar(),
    ];

    for kind in kinds {
        let samples: Vec<Value> = (0..200)
            .map(|_| kind.new_tree(&mut runner).expect("a sample").current())
            .collect();
        let taken = samples
            .iter()
            .filter(|sample| Schedule::from_json(sample).is_ok())
            .count();
        assert!(taken > 150, "only {taken} of 200 like {}", samples[0]);
    }
}

proptest! {
    #[test]
    fn json_form_reads_back_the_same(given in made_up::any_kind()) {
        if let Ok(schedule) = Schedule::from_json(&given) {
            let canonical = schedule.to_json();
            let through_text: Value = serde_json::from_str(&canonical.to_string()).expect("JSON");

            prop_assert_eq!(Schedule::from_json(&canonical), Ok(schedule.clone()));
            prop_assert_eq!(Schedule::from_json(&through_text), Ok(schedule.clone()));
            prop_assert_eq!(Schedule::from_json(&canonical).expect("just read").to_json(), canonical);
            prop_assert!(!schedule.summary().is_empty());
        }
    }

    #[test]
    fn next_slot_is_strictly_ahead(given in made_up::any_kind(), place in place()) {
        if let Ok(schedule) = Schedule::from_json(&given) {
            let after = placed(place, &schedule);
            for (before, slot) in steps(&schedule, after).take(5) {
                prop_assert!(slot > before, "{} after {}", slot, before);
            }
        }
    }

    #[test]
    fn slots_are_one_row_wherever_the_search_begins(
        given in made_up::with_a_row(),
        place in place(),
        share in 0.0..=1.0,
    ) {
        if let Ok(schedule) = Schedule::from_json(&given) {
            for (before, slot) in steps(&schedule, placed(place, &schedule)).take(5) {
                let begin = between(before, slot, share);
                prop_assert_eq!(schedule.next_after(begin), Some(slot), "from {} as from {}", begin, before);
            }
        }
    }

    #[test]
    fn slots_never_go_back_when_time_goes_on(
        given in prop_oneof![made_up::with_a_row(), made_up::interval()],
        place in place(),
        seconds in prop_oneof![0..10_000i64, 0..400_000_000i64],
    ) {
        if let Ok(schedule) = Schedule::from_json(&given) {
            let after = placed(place, &schedule);
            let later = after + TimeDelta::seconds(seconds);
            if let Some(slot) = schedule.next_after(later) {
                prop_assert!(schedule.next_after(after).is_some_and(|earlier| earlier <= slot));
            }
        }
    }

    /// Away from clock changes a Celery crontab has fixed slots, too.
    #[test]
    fn celery_slots_are_one_row_while_the_clock_does_not_change(
        given in made_up::celery(),
        place in place(),
        share in 0.0..=1.0,
    ) {
        if let Ok(schedule) = Schedule::from_json(&given) {
            for (before, slot) in steps(&schedule, placed(place, &schedule)).take(5) {
                let begin = between(before, slot, share);
                if same_offset(&schedule, before, slot) {
                    prop_assert_eq!(schedule.next_after(begin), Some(slot), "from {} as from {}", begin, before);
                }
            }
        }
    }

    /// A relative interval is rounded down: it is never longer than its length, and never shorter by a whole unit. A
    /// clock change lengthens or shortens it by as much as the clock moves.
    #[test]
    fn relative_interval_is_rounded_down(given in made_up::interval_relative(), place in place()) {
        if let Ok(schedule) = Schedule::from_json(&given) {
            let every = TimeDelta::microseconds((given["seconds"].as_f64().expect("a number") * 1e6).round() as i64);
            for (before, slot) in steps(&schedule, placed(place, &schedule)).take(5) {
                let change = if same_offset(&schedule, before, slot.max(before + every)) {
                    TimeDelta::zero()
                } else {
                    OFFSET_SPREAD
                };
                let unit = [TimeDelta::days(1), TimeDelta::hours(1), TimeDelta::minutes(1)]
                    .into_iter()
                    .find(|unit| every >= *unit)
                    .unwrap_or(TimeDelta::seconds(1));
                prop_assert!(slot - before <= every + change);
                prop_assert!(slot - before > every - unit - change);
            }
        }
    }

    #[test]
    fn solar_slots_are_one_row_to_within_a_second_where_every_day_has_them(
        given in made_up::solar(),
        place in place(),
        share in 0.0..=1.0,
    ) {
        let latitude = given["latitude"].as_f64().expect("a number");
        // White nights without astronomical dusk begin at 48.5 degrees. There the sun barely reaches its horizon, or
        // does not.
        if let Ok(schedule) = Schedule::from_json(&given) && latitude.abs() < 48.0 {
            let second = TimeDelta::seconds(1);
            for (index, (before, slot)) in steps(&schedule, placed(place, &schedule)).take(5).enumerate() {
                let begin = between(before, slot, share);
                let found = schedule.next_after(begin).expect("the sun comes every day");
                prop_assert!(slot - begin < second || (found - slot).abs() < second, "{} from {}", found, begin);
                prop_assert!(index == 0 || slot - before > TimeDelta::hours(20), "{} after {}", slot, before);
            }
        }
    }

    #[test]
    fn no_instant_is_too_far_away(given in made_up::any_kind(), seconds in any::<i64>(), shift in 0..63) {
        if let Ok(schedule) = Schedule::from_json(&given) {
            let instants = DateTime::from_timestamp(seconds >> shift, 999_999_999)
                .into_iter()
                .chain([DateTime::<Utc>::MIN_UTC, DateTime::<Utc>::MAX_UTC]);
            for instant in instants {
                prop_assert!(schedule.next_after(instant).is_none_or(|slot| slot > instant));
            }
        }
    }

    #[test]
    fn any_object_is_read_or_refused(given in any_json()) {
        if let Ok(schedule) = Schedule::from_json(&given) {
            prop_assert!(!schedule.summary().is_empty());
        }
    }

    #[test]
    fn any_text_in_a_schedule_is_read_or_refused(
        mut given in made_up::any_kind(),
        member in any::<prop::sample::Index>(),
        text in prop_oneof![any::<String>(), "[-*/?,#@LWa-cMON0-9 .:~]{0,30}"],
        cut in any::<prop::sample::Index>(),
    ) {
        let members = given.as_object_mut().expect("an object");
        let index = member.index(members.len());
        let value = members.values_mut().nth(index).expect("an index of it");
        // Splice the new text into the old one, so that much of it stays valid.
        let old = value.as_str().unwrap_or_default().to_owned();
        let cut = old.char_indices().map(|(at, _)| at).nth(cut.index(old.chars().count() + 1)).unwrap_or(old.len());
        *value = Value::from(format!("{}{text}{}", &old[..cut], &old[cut..]));
        if let Err(error) = Schedule::from_json(&given) {
            prop_assert!(error.message.len() < 1_000 && error.position != Some(0));
        }
    }
}

/// Returns each slot with the one before it, from an instant on.
fn steps(schedule: &Schedule, after: DateTime<Utc>) -> impl Iterator<Item = (DateTime<Utc>, DateTime<Utc>)> {
    let next = |before: DateTime<Utc>| schedule.next_after(before).map(|slot| (before, slot));
    std::iter::successors(next(after), move |(_, slot)| next(*slot))
}

fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<String>().prop_map(Value::from),
        prop::collection::vec(0..70u32, 0..4).prop_map(Value::from),
        prop::sample::select(vec![
            "interval",
            "cron",
            "quartz",
            "celery",
            "solar",
            "oncalendar",
            "hint",
            "*",
            "*/5",
            "1-5",
            "* * * * *",
            "* * * * * *",
            "*-*-* 0:0:0",
            "sunrise",
            "Asia/Tokyo",
        ])
        .prop_map(Value::from),
    ];
    let names = prop::sample::select(vec![
        "kind",
        "seconds",
        "relative",
        "anchor",
        "expression",
        "timezone",
        "minute",
        "hour",
        "event",
        "latitude",
        "longitude",
        "class",
        "other",
    ]);
    prop::collection::btree_map(names.prop_map(str::to_owned), leaf, 0..6).prop_map(|members| json!(members))
}
