use super::*;

/// Asserts the slots after `after`, given by the ends of their UTC texts.
#[track_caller]
fn assert_slots(text: &str, zone_name: &str, after: &str, expected: &[&str]) {
    let calendar = Calendar::parse(text, zone(zone_name)).expect("a test calendar");
    let next = |after: &DateTime<Utc>| calendar.next_after(*after);
    let found: Vec<String> = std::iter::successors(next(&utc(after)), next)
        .take(expected.len())
        .map(|slot| slot.format("%Y-%m-%dT%H:%M:%S").to_string())
        .collect();
    let matches = found.len() == expected.len()
        && found.iter().zip(expected).all(|(found, end)| {
            found
                .strip_suffix(":00")
                .is_some_and(|found| found.ends_with(end))
                || found.ends_with(end)
        });
    assert!(
        matches,
        "{text} in {zone_name}:\n found    {found:?}\n expected {expected:?}"
    );
}

/// Measured with `systemd-analyze calendar --iterations` of systemd 252.
#[test]
fn a_skipped_time_does_not_come() {
    let cases: [(&str, &str, &str, &[&str]); 11] = [
        (
            "2:30",
            "America/New_York",
            "2026-03-07T06:10:00",
            &["03-07T07:30", "03-09T06:30"],
        ),
        (
            "*:0/30",
            "America/New_York",
            "2026-03-08T06:10:00",
            &["08T06:30", "08T07:00", "08T07:30"],
        ),
        (
            "2..22/4:30",
            "Australia/Sydney",
            "2019-10-05T13:00:00",
            &["05T19:30", "05T23:30", "06T03:30"],
        ),
        (
            "2:15",
            "Australia/Lord_Howe",
            "2026-10-03T10:05:00",
            &["10-04T15:15", "10-05T15:15"],
        ),
        (
            "2:40",
            "Australia/Lord_Howe",
            "2026-10-03T10:05:00",
            &["10-03T15:40", "10-04T15:40"],
        ),
        (
            "daily",
            "America/Sao_Paulo",
            "2018-11-02T10:15:00",
            &["11-03T03:00", "11-05T02:00"],
        ),
        (
            "*:0/30",
            "America/Sao_Paulo",
            "2018-11-04T02:15:00",
            &["04T02:30", "04T03:00", "04T03:30"],
        ),
        (
            "daily",
            "America/Santiago",
            "2026-09-04T14:20:00",
            &["09-05T04:00", "09-07T03:00"],
        ),
        (
            "1:30",
            "Europe/Dublin",
            "2026-03-28T00:15:00",
            &["03-28T01:30", "03-30T00:30"],
        ),
        (
            "2:30",
            "Africa/Casablanca",
            "2024-04-13T00:15:00",
            &["04-13T02:30", "04-15T01:30"],
        ),
        // The whole day was skipped.
        (
            "12-30 12:00",
            "Pacific/Apia",
            "2010-12-28T20:15:00",
            &["2010-12-30T22:00", "2012-12-29T22:00"],
        ),
    ];
    for (text, zone, after, expected) in cases {
        assert_slots(text, zone, after, expected);
    }
}

/// Measured in the same way, started before the hour.
#[test]
fn a_repeated_time_comes_at_its_first_showing() {
    let cases: [(&str, &str, &str, &[&str]); 8] = [
        (
            "1:30",
            "America/New_York",
            "2026-10-31T06:10:00",
            &["11-01T05:30", "11-02T06:30"],
        ),
        (
            "*:0/30",
            "America/New_York",
            "2026-11-01T04:45:00",
            &["01T05:00", "01T05:30", "01T07:00", "01T07:30"],
        ),
        (
            "*:0/10",
            "Australia/Lord_Howe",
            "2026-04-04T14:35:00",
            &["04T14:40", "04T14:50", "04T15:30", "04T15:40"],
        ),
        (
            "*:0/30",
            "America/Sao_Paulo",
            "2018-02-18T01:15:00",
            &["18T01:30", "18T03:00", "18T03:30"],
        ),
        (
            "23:30",
            "America/Santiago",
            "2026-04-03T14:20:00",
            &["04-04T02:30", "04-05T02:30", "04-06T03:30"],
        ),
        (
            "*:0/30",
            "Europe/Dublin",
            "2026-10-25T00:10:00",
            &["25T00:30", "25T02:00"],
        ),
        (
            "*:0/30",
            "Africa/Casablanca",
            "2024-03-10T00:50:00",
            &["10T01:00", "10T01:30", "10T03:00"],
        ),
        (
            "Sun *-*~7/1 02:30",
            "Europe/Berlin",
            "2026-10-24T20:00:00",
            &["10-25T00:30", "11-29T01:30"],
        ),
    ];
    for (text, zone, after, expected) in cases {
        assert_slots(text, zone, after, expected);
    }
}

/// A timer of systemd that is started within the second showing would run in it. The slots here do not change.
#[test]
fn a_search_from_the_second_showing_finds_the_times_after_it() {
    assert_slots(
        "*:*:*",
        "America/New_York",
        "2026-11-01T06:10:00",
        &["T07:00", "T07:00:01"],
    );
    assert_slots("1:30", "America/New_York", "2026-11-01T06:10:00", &["02T06:30"]);
    assert_slots(
        "*:0/20",
        "Australia/Lord_Howe",
        "2026-04-04T15:00:01",
        &["T15:30", "T15:50"],
    );
}

/// Measured in the same way. See `overrun`.
#[test]
fn an_uneven_step_loses_what_systemd_loses() {
    let cases: [(&str, &str, &[&str]); 12] = [
        (
            "*:0/7",
            "2026-11-20T23:45:00",
            &["20T23:49", "20T23:56", "21T00:07", "21T00:14"],
        ),
        (
            "0..22:0/7",
            "2026-11-20T22:55:00",
            &["20T22:56", "21T00:00", "21T00:07"],
        ),
        ("Sat *:0/7", "2026-11-20T23:45:00", &["21T00:00", "21T00:07"]),
        (
            "*:0..59/7",
            "2026-11-20T23:45:00",
            &["20T23:49", "20T23:56", "21T00:00"],
        ),
        ("*:0/15", "2026-11-20T23:45:00", &["21T00:00", "21T00:15"]),
        (
            "0/5:00",
            "2026-11-30T12:00:00",
            &["30T15:00", "30T20:00", "01T05:00"],
        ),
        ("0/5:00", "2026-11-29T20:00:00", &["30T00:00"]),
        (
            "*:*:0/7",
            "2026-11-20T22:59:45",
            &["22:59:49", "22:59:56", "23:00:07"],
        ),
        (
            "*-*-1/7",
            "2025-12-28T00:00:00",
            &["2025-12-29T00:00", "2026-01-08T00:00"],
        ),
        (
            "*-*-1/7",
            "2025-11-28T00:00:00",
            &["2025-11-29T00:00", "2025-12-01T00:00"],
        ),
        (
            "*-*-1/5",
            "2025-12-30T00:00:00",
            &["2025-12-31T00:00", "2026-01-01T00:00"],
        ),
        (
            "2025/2-*-1/7",
            "2025-12-28T00:00:00",
            &["2025-12-29T00:00", "2027-01-01T00:00"],
        ),
    ];
    for (text, after, expected) in cases {
        assert_slots(text, "UTC", after, expected);
    }
}

#[test]
fn days_are_counted_from_the_end_of_the_month() {
    let cases: [(&str, &str, &[&str]); 6] = [
        (
            "*-02~03",
            "2026-12-01T00:00:00",
            &["2027-02-26T00:00", "2028-02-27T00:00"],
        ),
        (
            "Mon *-05~07/1",
            "2026-01-01T00:00:00",
            &["2026-05-25T00:00", "2027-05-31T00:00"],
        ),
        (
            "*~1",
            "2027-01-31T00:00:00",
            &["2027-02-28T00:00", "2027-03-31T00:00"],
        ),
        (
            "*~28",
            "2027-01-31T00:00:00",
            &["2027-02-01T00:00", "2027-03-04T00:00"],
        ),
        (
            "*-*~1..8/3",
            "2025-03-01T00:00:00",
            &["03-25T00:00", "03-28T00:00", "03-31T00:00"],
        ),
        (
            "*-*~8/3",
            "2025-04-01T00:00:00",
            &["04-23T00:00", "04-26T00:00", "04-29T00:00"],
        ),
    ];
    for (text, after, expected) in cases {
        assert_slots(text, "UTC", after, expected);
    }
}

#[test]
fn lines_count_together_each_in_its_zone() {
    let text = "Mon..Fri 09:00\n09:00 UTC\nSun *-*~07/1 23:00:30 America/New_York";

    let berlin = &["17T08:00", "17T09:00", "18T08:00", "18T09:00", "19T09:00"];
    assert_slots(text, "Europe/Berlin", "2026-12-16T10:00:00", berlin);
    assert_slots(
        text,
        "Europe/Berlin",
        "2026-12-27T09:00:00",
        &["28T04:00:30", "28T08:00"],
    );
}

#[test]
fn only_what_lies_ahead_counts() {
    let timestamp = Calendar::parse("@1395716396", zone("Asia/Tokyo")).expect("a timestamp");
    let slot = utc("2014-03-25T02:59:56");

    assert_eq!(timestamp.next_after(slot - TimeDelta::nanoseconds(1)), Some(slot));
    assert_eq!(timestamp.next_after(slot), None);
    // Half a second later, the next whole second lies ahead.
    assert_slots("*:*:*", "UTC", "2026-01-01T00:00:00.5", &["00:00:01"]);
    assert_eq!(
        parse("2199-12-31 23:59:59").next_after(utc("2199-12-31T23:59:59")),
        None
    );
    assert_eq!(parse("daily").next_after(DateTime::<Utc>::MAX_UTC), None);
    assert_eq!(parse("daily").next_after(DateTime::<Utc>::MIN_UTC), None);
}
