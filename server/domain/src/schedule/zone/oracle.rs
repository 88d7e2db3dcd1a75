//! Compares the clocks of `chrono-tz` with those of this module. The data of `chrono-tz` are older (IANA 2025b), so
//! some zones differ. The test finds these zones itself, and compares them with the list below.

use std::collections::{BTreeMap, BTreeSet};

use chrono::{DateTime, Offset, TimeDelta, TimeZone, Utc};

use super::{Reading, Zone};

const FROM: &str = "2020-01-01T00:00:00Z";
/// The number of years that are compared.
const YEARS: i64 = 17;

/// The zones whose clocks differ between `chrono-tz` 0.10.4 and IANA 2026f in 2020 to 2036, and why.
const OLDER_THERE: [(&[&str], &str); 4] = [
    (
        &["Africa/Casablanca", "Africa/El_Aaiun"],
        "Morocco stays on UTC from September 2026 on",
    ),
    (
        &["America/Havana", "Cuba"],
        "Cuba stays on summer time in the winter of 2026",
    ),
    (
        &[
            "America/Edmonton",
            "America/Inuvik",
            "America/Rainy_River",
            "America/Vancouver",
            "America/Winnipeg",
            "America/Yellowknife",
            "Canada/Central",
            "Canada/Mountain",
            "Canada/Pacific",
        ],
        "these parts of Canada stay on summer time from November 2026 on",
    ),
    (
        &["Europe/Chisinau", "Europe/Tiraspol"],
        "Moldova changes its clocks at 01:00 UTC since 2022, an hour later than 2025b says",
    ),
];

fn from() -> DateTime<Utc> {
    FROM.parse().expect("an instant")
}

/// Returns the zones that both crates have.
fn both() -> impl Iterator<Item = (Zone, chrono_tz::Tz)> {
    Zone::all().filter_map(|zone| Some((zone, zone.name().parse().ok()?)))
}

fn their_offset(zone: chrono_tz::Tz, at: DateTime<Utc>) -> TimeDelta {
    let seconds = zone
        .offset_from_utc_datetime(&at.naive_utc())
        .fix()
        .local_minus_utc();
    TimeDelta::seconds(seconds.into())
}

/// Returns noon of each seventh day, and the seconds before and at each clock change.
fn instants(zone: Zone) -> Vec<DateTime<Utc>> {
    let mut instants = Vec::new();
    for week in 0..52 * YEARS {
        let noon = from() + TimeDelta::weeks(week) + TimeDelta::hours(12);
        instants.push(noon);
        if let Some(change) = zone.first_change(noon, noon + TimeDelta::weeks(1)) {
            instants.extend([change - TimeDelta::seconds(1), change]);
        }
    }
    instants
}

/// Returns the zones whose clocks differ at some instant, and the first such instant.
fn differing() -> BTreeMap<&'static str, DateTime<Utc>> {
    both()
        .filter_map(|(ours, theirs)| {
            let first = instants(ours)
                .into_iter()
                .find(|at| ours.offset_at(*at) != their_offset(theirs, *at))?;
            Some((ours.name(), first))
        })
        .collect()
}

#[test]
fn chrono_tz_shows_the_same_clocks_but_where_its_data_are_older() {
    let listed: BTreeSet<&str> = OLDER_THERE
        .iter()
        .flat_map(|(zones, _)| zones.iter().copied())
        .collect();

    let found = differing();

    assert!(both().count() > 590, "{} zones are compared", both().count());
    let unlisted: Vec<_> = found.iter().filter(|(zone, _)| !listed.contains(*zone)).collect();
    assert!(unlisted.is_empty(), "chrono-tz differs in: {unlisted:#?}");
    let agreeing: Vec<_> = listed.iter().filter(|zone| !found.contains_key(*zone)).collect();
    assert!(agreeing.is_empty(), "chrono-tz agrees by now about: {agreeing:?}");
}

#[test]
fn chrono_tz_reads_wall_times_as_we_do() {
    let differing = differing();
    let mut compared = 0;
    for (ours, theirs) in both().filter(|(ours, _)| !differing.contains_key(ours.name())) {
        // Around each clock change: wall times that are skipped, repeated, and neither.
        for change in instants(ours)
            .windows(2)
            .filter(|pair| pair[1] - pair[0] == TimeDelta::seconds(1))
        {
            for minutes in [-181, -61, -31, -30, -1, 0, 1, 29, 31, 60, 181] {
                let wall = ours.wall_at(change[0]) + TimeDelta::minutes(minutes);
                let read = theirs.from_local_datetime(&wall);
                let theirs = (read.earliest(), read.latest());
                let ours = match ours.read(wall) {
                    Some(Reading::Once(at)) => (Some(at), Some(at)),
                    Some(Reading::Twice(first, second)) => (Some(first), Some(second)),
                    Some(Reading::Skipped { .. }) | None => (None, None),
                };
                let utc = |at: Option<DateTime<chrono_tz::Tz>>| at.map(|at| at.with_timezone(&Utc));
                assert_eq!(
                    ours,
                    (utc(theirs.0), utc(theirs.1)),
                    "{wall} around {}",
                    change[1]
                );
                compared += 1;
            }
        }
    }
    assert!(compared > 20_000, "{compared} wall times are compared");
}
