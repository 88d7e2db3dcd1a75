use chrono::TimeDelta;
use proptest::prelude::*;

use super::*;

type Place = (f64, f64);

const BERLIN: Place = (52.52, 13.405);
const TROMSO: Place = (69.6496, 18.956);
const DATELINE_WEST: Place = (-16.8, -180.0);
const EQUATOR: Place = (0.0, 0.0);
const NORTH_POLE: Place = (90.0, 0.0);
const SOUTH_POLE: Place = (-90.0, 0.0);

fn utc(text: &str) -> DateTime<Utc> {
    format!("{text}Z").parse().expect("a test instant")
}

fn solar(name: &str, (latitude, longitude): Place) -> Solar {
    let event = SolarEvent::from_name(name).expect("a test event");
    Solar::new(event, latitude, longitude).expect("a test place")
}

fn slots(solar: Solar, after: DateTime<Utc>) -> impl Iterator<Item = DateTime<Utc>> {
    std::iter::successors(solar.next_after(after), move |slot| solar.next_after(*slot))
}

/// Celery's own slots, within the second that the documentation promises.
#[test]
fn slots_are_those_of_celery() {
    let rows = include_str!("tests/by_celery.txt")
        .lines()
        .filter(|line| !line.is_empty() && !line.starts_with('#'));
    for row in rows {
        let [latitude, longitude, event, after, expected @ ..] = &row.split(' ').collect::<Vec<_>>()[..]
        else {
            panic!("a row of at least four: {row}");
        };
        let place = [latitude, longitude].map(|degrees| degrees.parse().expect("degrees"));
        let solar = solar(event, place.into());

        let found: Vec<DateTime<Utc>> = slots(solar, utc(after)).take(3).collect();

        let agree = found
            .iter()
            .zip(expected)
            .filter(|(slot, expected)| (**slot - utc(expected)).abs() < TimeDelta::seconds(1));
        assert_eq!(agree.count(), 3, "{row}: {found:?}");
    }
}

/// The sun passes within an arcsecond of the altitude of nautical dawn. So the smallest error of its position moves the
/// crossing by seconds.
#[test]
fn a_grazing_sun_is_met_within_seconds() {
    let solar = solar("dawn_nautical", (66.0, -87.2));

    let slot = solar.next_after(utc("2029-07-16T07:32:14")).expect("a slot");

    let difference = (slot - utc("2029-08-21T05:52:57.913")).abs();
    assert!(difference < TimeDelta::seconds(10), "{slot}");
}

#[test]
fn the_nine_events_come_in_the_order_of_a_day() {
    let midnight = utc("2026-03-20T00:00:00");

    let day = SolarEvent::ALL.map(|event| solar(event.name(), BERLIN).next_after(midnight));

    assert!(day.is_sorted(), "{day:?}");
}

#[test]
fn events_have_the_names_of_celery_and_words() {
    let names = SolarEvent::ALL.map(SolarEvent::name);
    let words = SolarEvent::ALL.map(SolarEvent::words);

    let by_celery = [
        "dawn_astronomical",
        "dawn_nautical",
        "dawn_civil",
        "sunrise",
        "solar_noon",
        "sunset",
        "dusk_civil",
        "dusk_nautical",
        "dusk_astronomical",
    ];
    assert_eq!(names, by_celery);
    assert_eq!(
        words,
        [
            "astronomical dawn",
            "nautical dawn",
            "civil dawn",
            "sunrise",
            "solar noon",
            "sunset",
            "civil dusk",
            "nautical dusk",
            "astronomical dusk"
        ]
    );
    for event in SolarEvent::ALL {
        assert_eq!(SolarEvent::from_name(event.name()), Some(event));
    }
    for unknown in ["", "Sunrise", "sunrise ", "noon", "solar noon", "dawn"] {
        assert_eq!(SolarEvent::from_name(unknown), None, "{unknown}");
    }
}

#[test]
fn places_off_the_globe_are_refused_by_member() {
    let cases = [
        (
            90.1,
            0.0,
            "latitude",
            "latitude is from -90 to 90 degrees north, not 90.1",
        ),
        (
            -91.0,
            200.0,
            "latitude",
            "latitude is from -90 to 90 degrees north, not -91",
        ),
        (
            f64::NAN,
            0.0,
            "latitude",
            "latitude is from -90 to 90 degrees north, not NaN",
        ),
        (
            0.0,
            180.5,
            "longitude",
            "longitude is from -180 to 180 degrees east, not 180.5",
        ),
        (
            0.0,
            f64::INFINITY,
            "longitude",
            "longitude is from -180 to 180 degrees east, not inf",
        ),
        (
            0.0,
            -1e300,
            "longitude",
            "longitude is from -180 to 180 degrees east, not",
        ),
    ];
    for (latitude, longitude, field, message) in cases {
        let error = Solar::new(SolarEvent::Sunrise, latitude, longitude).expect_err("off the globe");

        assert_eq!(error.field, field);
        assert!(error.message.starts_with(message), "{}", error.message);
        assert_eq!(error.to_string(), error.message);
    }
}

#[test]
fn a_place_on_the_globe_keeps_its_numbers() {
    for (latitude, longitude) in [
        (90.0, 180.0),
        (-90.0, -180.0),
        (-0.0, 0.0),
        (52.520_008, 13.404_954),
    ] {
        let solar = Solar::new(SolarEvent::SolarNoon, latitude, longitude).expect("on the globe");

        assert_eq!((solar.latitude(), solar.longitude()), (latitude, longitude));
        assert_eq!(solar.event(), SolarEvent::SolarNoon);
    }
}

/// A run at Celery's time may come shortly before the server's slot. No slot of the same event may follow it.
#[test]
fn what_is_less_than_a_second_ahead_has_been() {
    for event in SolarEvent::ALL {
        let solar = solar(event.name(), BERLIN);
        let slot = solar.next_after(utc("2026-03-20T00:00:00")).expect("a slot");

        let soon_after = solar.next_after(slot - TimeDelta::milliseconds(900));
        let early = solar.next_after(slot - TimeDelta::milliseconds(1_100));

        let next_day = slot + TimeDelta::hours(23);
        assert!(soon_after.is_some_and(|next| next > next_day), "{event:?}");
        assert!(
            early.is_some_and(|next| (next - slot).abs() < TimeDelta::milliseconds(100)),
            "{event:?}"
        );
    }
}

#[test]
fn the_ends_of_the_calendar_have_no_slots_and_no_panics() {
    let ends = [
        DateTime::<Utc>::MIN_UTC,
        DateTime::<Utc>::MAX_UTC,
        utc("0000-12-31T23:59:59"),
        utc("5999-01-01T00:00:00"),
        utc("9999-12-31T23:59:59.999999999"),
    ];
    for event in SolarEvent::ALL {
        for place in [EQUATOR, BERLIN, TROMSO, NORTH_POLE, SOUTH_POLE, DATELINE_WEST] {
            let solar = solar(event.name(), place);

            for end in ends {
                assert_eq!(solar.next_after(end), None, "{event:?} after {end}");
            }
            for inside in ["0001-01-01T00:00:00", "5998-12-31T23:59:59.999999"] {
                let slot = solar.next_after(utc(inside));
                assert!(
                    slot.is_some_and(|slot| slot > utc(inside)),
                    "{event:?} after {inside}"
                );
            }
        }
    }
}

/// chrono writes a leap second as a time beyond 999,999 microseconds.
#[test]
fn a_leap_second_is_a_time_like_others() {
    let leap_second = utc("2016-12-31T23:59:60.5");

    let slot = solar("sunrise", BERLIN).next_after(leap_second).expect("a slot");

    assert!(
        (slot - utc("2017-01-01T07:15:40")).abs() < TimeDelta::minutes(2),
        "{slot}"
    );
}

proptest! {
    #[test]
    fn slots_come_one_after_the_other(
        event in prop::sample::select(SolarEvent::ALL.to_vec()),
        latitude in prop_oneof![-90.0..=90.0, 60.0..=72.0, -72.0..=-60.0, 85.0..=90.0],
        longitude in -180.0..=180.0,
        micros in -1_000_000_000_000_000_i64..4_000_000_000_000_000,
    ) {
        let solar = Solar::new(event, latitude, longitude).expect("on the globe");
        let after = DateTime::from_timestamp_micros(micros).expect("in the calendar");

        let chain: Vec<DateTime<Utc>> = slots(solar, after).take(4).collect();

        prop_assert_eq!(chain.len(), 4);
        prop_assert!(after < chain[0], "{:?}", chain);
        prop_assert!(chain.is_sorted_by(|slot, next| slot < next), "{:?}", chain);
        let last = after + TimeDelta::days(4 * 367);
        prop_assert!(chain[3] < last, "{:?}", chain);
        prop_assert!(chain.iter().all(|slot| slot.timestamp_subsec_nanos() % 1_000 == 0));
    }

    #[test]
    fn any_instant_and_place_is_answered(
        event in prop::sample::select(SolarEvent::ALL.to_vec()),
        latitude in prop::num::f64::ANY,
        longitude in prop::num::f64::ANY,
        seconds in any::<i64>(),
        nanos in 0_u32..2_000_000_000,
    ) {
        let after = DateTime::from_timestamp(seconds % 200_000_000_000, nanos).unwrap_or_default();

        let slot = Solar::new(event, latitude, longitude)
            .or_else(|_| Solar::new(event, latitude % 90.0, longitude % 180.0))
            .map(|solar| solar.next_after(after));

        if let Ok(Some(slot)) = slot {
            prop_assert!(slot > after);
        }
    }
}
