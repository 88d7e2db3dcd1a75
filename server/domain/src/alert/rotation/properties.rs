//! Properties of every rotation, mostly near nights on which a clock changes.

use proptest::prelude::*;
use proptest::sample::select;
use uuid::Uuid;

use super::*;
use crate::schedule::Schedule;

const ZONES: [&str; 9] = [
    "Europe/Berlin",
    "America/New_York",
    // Half an hour of summer time.
    "Australia/Lord_Howe",
    // No 30 December 2011.
    "Pacific/Apia",
    // Changed at one minute after midnight.
    "America/St_Johns",
    // Changes at midnight.
    "America/Asuncion",
    "Africa/Casablanca",
    "Asia/Kolkata",
    "UTC",
];

const NAMES: [&str; 3] = ["Ann", "Ben", "Cem"];

fn time() -> impl Strategy<Value = String> {
    prop_oneof![
        // Where clocks change.
        2 => (0..4u32, select(vec![0u32, 1, 15, 30, 59])),
        1 => (0..24u32, 0..60u32),
    ]
    .prop_map(|(hour, minute)| format!("{hour:02}:{minute:02}"))
}

/// An instant of 1975 to 2095.
fn instants() -> impl Strategy<Value = DateTime<Utc>> {
    prop_oneof![
        3 => 157_766_400..3_944_678_400i64,
        // Around the day that Samoa skipped.
        1 => 1_324_900_000..1_325_600_000i64,
    ]
    .prop_map(|seconds| DateTime::from_timestamp(seconds, 0).unwrap())
}

fn handover() -> impl Strategy<Value = Handover> {
    select(vec![Handover::Daily, Handover::Weekly])
}

fn layer() -> impl Strategy<Value = LayerSettings> {
    let weekdays = prop::option::of(prop::collection::vec(
        select(vec![Weekday::Mon, Weekday::Wed, Weekday::Sat, Weekday::Sun]),
        1..3,
    ));
    let only = prop::option::of((weekdays, time(), time()));
    (
        prop::collection::vec(select(&NAMES[..]), 1..4),
        handover(),
        time(),
        0..365i64,
        only,
    )
        .prop_map(|(people, handover, at, day, only)| LayerSettings {
            people: people.into_iter().map(str::to_owned).collect(),
            handover,
            at,
            starts_on: later(NaiveDate::from_ymd_opt(2026, 1, 1).unwrap(), day).to_string(),
            only: only.map(|(weekdays, from, to)| HoursSettings { weekdays, from, to }),
        })
}

/// A rotation, and an instant near which its overrides lie, mostly near a change of its clock.
fn rotation() -> impl Strategy<Value = (Rotation, DateTime<Utc>)> {
    let layers = prop::collection::vec(layer(), 1..4);
    let overrides = prop::collection::vec((select(&NAMES[..]), -60..60i64, 1..60i64), 0..4);
    let place = (instants(), prop::option::weighted(0.8, -200_000..200_000i64));
    (select(&ZONES[..]), layers, overrides, place).prop_filter_map(
        "an override that the clock skips",
        |(zone, mut layers, overrides, (instant, distance))| {
            layers[0].only = None;
            let zone: Zone = zone.parse().unwrap();
            let change = (0..400)
                .map(|day| instant + TimeDelta::days(day))
                .find_map(|day| zone.first_change(day, day + TimeDelta::days(1)));
            let at = match (change, distance) {
                (Some(change), Some(distance)) => change + TimeDelta::seconds(distance),
                _ => instant,
            };
            let wall = zone.wall_at(at);
            let local = |hours: i64| {
                (wall + TimeDelta::hours(hours))
                    .format("%Y-%m-%dT%H:%M")
                    .to_string()
            };
            let overrides = overrides
                .into_iter()
                .map(|(person, from, hours)| OverrideSettings {
                    person: person.to_owned(),
                    from: local(from),
                    until: local(from + hours),
                });
            let channels = vec![ChannelId(Uuid::nil())];
            let people = NAMES.map(|name| Person {
                name: name.to_owned(),
                channels: channels.clone(),
            });
            let rotation = Rotation::read(RotationSettings {
                name: "x".to_owned(),
                timezone: zone.name().to_owned(),
                people: people.to_vec(),
                layers,
                overrides: overrides.collect(),
            });
            Some((rotation.ok()?, at))
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(100))]

    #[test]
    fn shifts_follow_one_another_without_gap_and_without_overlap((rotation, at) in rotation(), part in 0.0..1.0f64) {
        let mut end = None;
        for shift in rotation.shifts(at, at + TimeDelta::days(9)) {
            prop_assert!(shift.starts_at < shift.ends_at);
            prop_assert!(end.is_none_or(|end| end == shift.starts_at));
            prop_assert!(end.is_some() || (shift.starts_at <= at && at < shift.ends_at));
            // A query for a time within the shift returns the same shift.
            let length = (shift.ends_at - shift.starts_at).num_seconds();
            let within = shift.starts_at + TimeDelta::seconds((length as f64 * part) as i64);
            for asked in [shift.starts_at, within, shift.ends_at - TimeDelta::microseconds(1)] {
                prop_assert_eq!(rotation.on_call(asked), Some(shift));
            }
            end = Some(shift.ends_at);
        }
        prop_assert!(end >= Some(at + TimeDelta::days(9)));
    }

    #[test]
    fn the_last_override_of_an_instant_wins((rotation, at) in rotation()) {
        for minutes in (-60 * 60..120 * 60).step_by(487) {
            let at = at + TimeDelta::minutes(minutes);
            let shift = rotation.on_call(at).unwrap();
            match rotation.overrides.iter().rfind(|one| one.from <= at && at < one.until) {
                Some(one) => {
                    prop_assert!(shift.is_override);
                    prop_assert_eq!(&shift.person.name, NAMES[one.person]);
                    prop_assert!(shift.starts_at >= one.from && shift.ends_at <= one.until);
                }
                None => prop_assert!(!shift.is_override),
            }
        }
    }

    /// A crontab with a fixed time states the same rule, and crontabs were compared with Debian's cron.
    #[test]
    fn a_layer_hands_over_at_the_slots_of_a_crontab(zone in select(&ZONES[..]), at in time(), handover in handover(),
        day in 0..7i64, from in instants())
    {
        let starts_on = later(NaiveDate::from_ymd_opt(2026, 10, 5).unwrap(), day);
        let (hour, minute) = at.split_once(':').unwrap();
        let weekday = match handover {
            Handover::Daily => "*".to_owned(),
            // 5 October 2026 is a Monday.
            Handover::Weekly => ((1 + day) % 7).to_string(),
        };
        let crontab = Schedule::cron(&format!("{minute} {hour} * * {weekday}"), zone).unwrap();
        let people: Vec<Person> = NAMES.iter().map(|name| Person {
            name: (*name).to_owned(),
            channels: vec![ChannelId(Uuid::nil())],
        }).collect();
        let layer = LayerSettings {
            people: NAMES.map(str::to_owned).to_vec(),
            handover,
            at: at.clone(),
            starts_on: starts_on.to_string(),
            only: None,
        };
        let rotation = Rotation::read(RotationSettings {
            name: "x".to_owned(),
            timezone: zone.to_owned(),
            people,
            layers: vec![layer],
            overrides: Vec::new(),
        }).unwrap();

        let to = from + TimeDelta::days(40);
        let handovers: Vec<DateTime<Utc>> = rotation.shifts(from, to).map(|shift| shift.ends_at).collect();
        let slots: Vec<DateTime<Utc>> = crontab.slots(from).take(handovers.len()).collect();

        prop_assert_eq!(handovers, slots);
    }
}
