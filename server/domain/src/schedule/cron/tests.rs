mod properties;

use super::*;

fn utc(text: &str) -> DateTime<Utc> {
    format!("{text}:00Z").parse().expect("a test instant")
}

fn zone(name: &str) -> Zone {
    name.parse().expect("a test zone")
}

/// Returns all slots within a window, both ends excluded, as UTC to the minute.
fn slots(expression: &str, zone_name: &str, from: &str, to: &str) -> Vec<String> {
    let cron = Cron::parse(expression).expect("a test expression");
    let next = |after: &DateTime<Utc>| {
        cron.next_after(*after, zone(zone_name))
            .filter(|slot| *slot < utc(to))
    };
    let first = next(&utc(from));
    std::iter::successors(first, next)
        .map(|slot| slot.format("%Y-%m-%dT%H:%M").to_string())
        .collect()
}

#[track_caller]
fn assert_slots(expression: &str, zone_name: &str, from: &str, to: &str, expected: &[&str]) {
    // Expected times omit the part that they share with the start of the window: "03-08T07:00", or "07:00".
    let found = slots(expression, zone_name, from, to);
    let matches = found.len() == expected.len()
        && found
            .iter()
            .zip(expected)
            .all(|(found, end)| found.ends_with(end));
    assert!(
        matches,
        "{expression} in {zone_name}:\n found    {found:?}\n expected {expected:?}"
    );
}

/// Measured with cronsim 2.8, whose rules are Debian's, in the same windows as for Celery's reading in
/// `celery_crontab`. One case differs from cronsim. cronsim steps by whole hours, and so misses 01:30 in the second
/// pass of a half-hour change. Debian's cron runs wildcard jobs at each minute that the clock shows.
#[test]
fn clock_changes_follow_debian() {
    let new_york = "America/New_York";
    let sao_paulo = "America/Sao_Paulo";
    let lord_howe = "Australia/Lord_Howe";
    let cases: [(&str, &str, &str, &str, &[&str]); 21] = [
        (
            new_york,
            "30 2 * * *",
            "2026-03-07T12:00",
            "2026-03-09T12:00",
            &["03-08T07:00", "03-09T06:30"],
        ),
        (
            new_york,
            "*/15 2 * * *",
            "2026-03-08T05:00",
            "2026-03-09T07:30",
            &["03-09T06:00", "03-09T06:15", "03-09T06:30", "03-09T06:45"],
        ),
        (
            new_york,
            "0 */2 * * *",
            "2026-03-08T04:00",
            "2026-03-08T09:00",
            &["05:00", "08:00"],
        ),
        (
            new_york,
            "0 * * * *",
            "2026-03-08T05:30",
            "2026-03-08T08:30",
            &["06:00", "07:00", "08:00"],
        ),
        (
            new_york,
            "0 * * * *",
            "2026-11-01T04:30",
            "2026-11-01T08:30",
            &["05:00", "06:00", "07:00", "08:00"],
        ),
        (
            new_york,
            "*/15 * * * *",
            "2026-11-01T05:20",
            "2026-11-01T07:20",
            &[
                "05:30", "05:45", "06:00", "06:15", "06:30", "06:45", "07:00", "07:15",
            ],
        ),
        (
            new_york,
            "30 1 * * *",
            "2026-11-01T04:00",
            "2026-11-02T07:00",
            &["11-01T05:30", "11-02T06:30"],
        ),
        (
            new_york,
            "0,30 1,2 * * *",
            "2026-11-01T04:00",
            "2026-11-01T09:00",
            &["05:00", "05:30", "07:00", "07:30"],
        ),
        (
            "Europe/London",
            "30 1 * * *",
            "2026-03-28T12:00",
            "2026-03-30T12:00",
            &["03-29T01:00", "03-30T00:30"],
        ),
        (
            "Europe/London",
            "0 * * * *",
            "2026-10-24T23:30",
            "2026-10-25T02:30",
            &["00:00", "01:00", "02:00"],
        ),
        (
            lord_howe,
            "15 2 * * *",
            "2026-10-03T01:00",
            "2026-10-04T16:00",
            &["10-03T15:30", "10-04T15:15"],
        ),
        (
            lord_howe,
            "0 * * * *",
            "2026-10-03T13:30",
            "2026-10-03T17:30",
            &["14:30", "16:00", "17:00"],
        ),
        (
            lord_howe,
            "30 * * * *",
            "2026-04-04T13:00",
            "2026-04-04T17:00",
            &["13:30", "14:30", "15:00", "16:00"],
        ),
        (
            lord_howe,
            "*/15 * * * *",
            "2026-04-04T14:20",
            "2026-04-04T15:40",
            &["14:30", "14:45", "15:00", "15:15", "15:30"],
        ),
        (
            sao_paulo,
            "0 0 * * *",
            "2018-11-03T12:00",
            "2018-11-05T12:00",
            &["11-04T03:00", "11-05T02:00"],
        ),
        (
            sao_paulo,
            "*/15 * * * *",
            "2019-02-17T01:20",
            "2019-02-17T03:20",
            &[
                "01:30", "01:45", "02:00", "02:15", "02:30", "02:45", "03:00", "03:15",
            ],
        ),
        (
            sao_paulo,
            "30 23 * * *",
            "2019-02-16T12:00",
            "2019-02-18T12:00",
            &["02-17T01:30", "02-18T02:30"],
        ),
        (
            "Asia/Kathmandu",
            "0 0 * * *",
            "2026-05-01T00:00",
            "2026-05-03T00:00",
            &["05-01T18:15", "05-02T18:15"],
        ),
        (
            "UTC",
            "0 0 */2 * 1",
            "2026-01-01T00:00",
            "2026-02-10T00:00",
            &["01-05T00:00", "01-19T00:00", "02-09T00:00"],
        ),
        (
            "UTC",
            "0 0 29 2 *",
            "2026-01-01T00:00",
            "2033-01-01T00:00",
            &["2028-02-29T00:00", "2032-02-29T00:00"],
        ),
        (
            "UTC",
            "0 0 31 * *",
            "2026-01-01T00:00",
            "2026-08-01T00:00",
            &["01-31T00:00", "03-31T00:00", "05-31T00:00", "07-31T00:00"],
        ),
    ];

    for (zone_name, expression, from, to, expected) in cases {
        assert_slots(expression, zone_name, from, to, expected);
    }
    let thirteenth_or_friday = slots("0 0 13 * 5", "UTC", "2026-01-01T00:00", "2027-01-01T00:00");
    assert_eq!(thirteenth_or_friday.len(), 61);
    assert_eq!(
        thirteenth_or_friday[..3],
        ["2026-01-02T00:00", "2026-01-09T00:00", "2026-01-13T00:00"]
    );
}

/// Errors of other evaluators, one case for each kind of error.
#[test]
fn fields_mean_what_debian_makes_of_them() {
    let january = ["2026-01-01T00:00", "2026-02-01T00:00"];
    let days = |fields: &str| -> Vec<u32> {
        // At noon, so that the 1st lies inside the window.
        slots(&format!("0 12 {fields}"), "UTC", january[0], january[1])
            .iter()
            .map(|slot| slot[8..10].parse().expect("a day"))
            .collect()
    };

    assert_eq!(days("* * 1"), [5, 12, 19, 26], "1 is Monday");
    assert_eq!(days("* * mon"), days("* * MON"));
    assert_eq!(days("* * 0"), [4, 11, 18, 25], "0 is Sunday");
    assert_eq!(days("* * 7"), days("* * 0"));
    assert_eq!(days("* * 5-7"), days("* * 0,5,6"));
    assert_eq!(days("* * 5/2"), days("* * 0,5"), "a step runs to 7");
    assert_eq!(
        days("13 * 5"),
        [2, 9, 13, 16, 23, 30],
        "both restricted: either is enough"
    );
    assert_eq!(days("*/2 * 1"), [5, 19], "a leading star: both have to match");
    assert_eq!(days("*/2,13 * 1"), [5, 19]);
    assert_eq!(days("2 * *,1"), [2], "a star anywhere in the list starts it");
    assert_eq!(days("1-31 * 1").len(), 31, "all dates without a star");
    assert_eq!(days("3-3/10 * *"), [3], "a range of one, not 3/10");
    assert_eq!(
        days("3/10 * *"),
        [3, 13, 23],
        "a step without a range runs to the end"
    );
    assert_eq!(days("*/45 * *"), [1], "a step past the end");
    assert_eq!(days("L * *"), [31]);
    assert_eq!(days("LW * *"), [30], "31 January 2026 is a Saturday");
    assert_eq!(days("1,l * *"), [1, 31]);
    assert_eq!(days("* * 5L"), [30]);
    assert_eq!(days("* * 7L"), [25]);
    assert_eq!(days("* * MON#2"), [12]);
    assert_eq!(days("* * 4#5,0#1"), [4, 29]);
    assert_eq!(days("15 * 5L"), [15, 30]);
    assert!(days("* JUL *").is_empty());
    assert_eq!(
        slots("5/20 0 1 1 *", "UTC", "2025-12-31T00:00", "2026-01-02T00:00").len(),
        3
    );
}

#[test]
fn last_workday_is_found_whatever_day_the_month_ends_on() {
    let found = slots("0 0 LW * *", "UTC", "2025-12-31T12:00", "2026-12-31T12:00");

    let days: Vec<&str> = found.iter().map(|slot| &slot[5..10]).collect();
    assert_eq!(
        days,
        [
            "01-30", "02-27", "03-31", "04-30", "05-29", "06-30", "07-31", "08-31", "09-30", "10-30",
            "11-30", "12-31"
        ]
    );
}

#[test]
fn nicknames_stand_for_their_fields() {
    let cases = [
        ("@hourly", "0 * * * *"),
        ("@daily", "0 0 * * *"),
        ("@midnight", "0 0 * * *"),
        ("@weekly", "0 0 * * 0"),
        ("@monthly", "0 0 1 * *"),
        ("@yearly", "0 0 1 1 *"),
        (" @annually ", "0 0 1 1 *"),
    ];

    for (nickname, fields) in cases {
        let (nickname, fields) = (
            Cron::parse(nickname).expect("known"),
            Cron::parse(fields).expect("right"),
        );
        assert_eq!((&nickname.times, nickname.job), (&fields.times, fields.job));
        assert!(
            nickname.expression().starts_with('@'),
            "the expression is kept as written"
        );
    }
}

#[test]
fn expression_is_kept_with_single_spaces() {
    assert_eq!(
        Cron::parse(" 0\t2  * *   Mon ").expect("right").expression(),
        "0 2 * * Mon"
    );
}

#[test]
fn faults_are_refused_where_they_are() {
    let cases = [
        ("", 1, "found 0 fields"),
        ("* * * *", 8, "found 4 fields"),
        ("0 * * * * * 2026", 13, "kind quartz"),
        ("60 * * * * *", 1, "second takes 0 to 59, not '60'"),
        ("0 60 * * * *", 3, "minute takes 0 to 59, not '60'"),
        ("60 * * * *", 1, "minute takes 0 to 59, not '60'"),
        ("0 24 * * *", 3, "hour takes 0 to 23"),
        ("0 0 0 * *", 5, "day-of-month takes 1 to 31"),
        ("0 0 * 13 *", 7, "month takes 1 to 12 or JAN to DEC"),
        ("0 0 * * 8", 9, "day-of-week takes 0 to 7 or SUN to SAT"),
        ("0 0 * * monday", 9, "not 'monday'"),
        ("0 0 * MON *", 7, "month takes"),
        ("1,2,,3 * * * *", 5, "not nothing"),
        ("1, * * * *", 3, "not nothing"),
        ("5-1 * * * *", 1, "runs backwards"),
        ("0 0 * * FRI-SUN", 9, "write Sunday as 7"),
        ("0 1,2-x * * *", 7, "not 'x'"),
        ("0 -1 * * *", 3, "not nothing"),
        ("*/0 * * * *", 3, "a step is a whole number from 1, not '0'"),
        ("*/ * * * *", 3, "a step"),
        ("*/5/2 * * * *", 3, "not '5/2'"),
        ("*-5 * * * *", 1, "not '*'"),
        ("** * * * *", 1, "not '**'"),
        ("1.5 * * * *", 1, "not '1.5'"),
        ("+5 * * * *", 1, "not '+5'"),
        ("99999999999999999999 * * * *", 1, "minute takes"),
        ("0 0 ? * *", 5, "not '?'"),
        ("0 0 L-3 * *", 5, "not 'L'"),
        ("0 0 L/2 * *", 5, "not 'L'"),
        ("0 0 15W * *", 5, "not '15W'"),
        ("0 0 * * L", 9, "not 'L'"),
        ("0 0 * * FRIL", 9, "not 'FRIL'"),
        ("0 0 * * 8L", 9, "not '8'"),
        ("0 0 * * MON#6", 13, "1 to 5, not '6'"),
        ("0 0 * * MON#0", 13, "1 to 5, not '0'"),
        ("0 0 * * #1", 9, "not nothing"),
        ("0 0 * * 1-5#2", 9, "not '1-5'"),
        ("@reboot", 1, "when a machine starts"),
        ("  @fortnightly", 3, "@fortnightly is not known"),
        ("@Daily", 1, "in small letters"),
        ("@daily @daily", 14, "found 2 fields"),
        ("0 0 30 2 *", 5, "no date matches"),
        ("0 0 31 4,6,9,11 *", 5, "no date matches"),
        ("0 0 */20 * 1#2", 5, "no date matches"),
        ("0 0 LW * */6,6", 5, "no date matches"),
        ("0 0 * * *\n", 10, "'\\n' has no meaning"),
        ("0 0 * * *\0", 10, "has no meaning"),
        ("0 ٣ * * *", 3, "'\\u{663}' has no meaning"),
    ];

    for (expression, position, part) in cases {
        match Cron::parse(expression) {
            Ok(_) => panic!("{expression:?} was taken"),
            Err(error) => {
                assert_eq!(error.position, position, "{expression:?}: {error}");
                assert!(error.message.contains(part), "{expression:?}: {error}");
            }
        }
    }
}

#[test]
fn length_is_capped_before_anything_is_read() {
    let hours: Vec<String> = (0..24).map(|hour| hour.to_string()).collect();
    let longest = format!("{:0>137} {} * * *", 5, hours.join(","));
    assert_eq!(longest.len(), MAX_EXPRESSION_CHARS + 5);

    assert!(Cron::parse(&longest[5..]).is_ok());
    assert_eq!(
        Cron::parse(&longest).expect_err("too long").position,
        MAX_EXPRESSION_CHARS + 1
    );
    assert!(Cron::parse(&"* ".repeat(1 << 20)).is_err());
}

#[test]
fn impossible_date_is_possible_when_the_weekday_is_enough() {
    assert_slots(
        "0 0 31 2 1",
        "UTC",
        "2026-01-01T00:00",
        "2026-02-20T00:00",
        &["02-02T00:00", "02-09T00:00", "02-16T00:00"],
    );
}

#[test]
fn rarest_date_is_found_across_a_century_without_a_leap_year() {
    // A February of 29 days that starts on a Sunday: 2088 has one, 2100 has no 29th, the next is in 2128.
    assert_slots(
        "0 0 */28 2 0#5",
        "UTC",
        "2088-03-01T00:00",
        "2130-01-01T00:00",
        &["2128-02-29T00:00"],
    );
}

#[test]
fn search_gives_up_after_fifty_years() {
    let never = Cron::parse("* 2 * 3 SUN#2").expect("the calendar has such a date");

    assert_eq!(
        never.next_after(utc("2026-01-01T00:00"), zone("America/New_York")),
        None
    );
    assert!(
        never
            .next_after(utc("2026-01-01T00:00"), zone("Europe/London"))
            .is_some()
    );
}

#[test]
fn job_of_the_skipped_day_runs_when_the_date_line_has_moved() {
    // Samoa went from 29 to 31 December 2011 at midnight.
    assert_slots(
        "0 9 30 12 *",
        "Pacific/Apia",
        "2011-12-01T00:00",
        "2011-12-31T00:00",
        &["2011-12-30T10:00"],
    );
    assert_slots(
        "*/30 9 30 12 *",
        "Pacific/Apia",
        "2011-12-01T00:00",
        "2012-12-29T19:30",
        &["2012-12-29T19:00"],
    );
}

#[test]
fn part_of_a_second_does_not_delay_a_slot() {
    let cron = Cron::parse("* * * * *").expect("right");
    let just_before = utc("2026-01-01T00:01") - TimeDelta::nanoseconds(1);

    assert_eq!(
        cron.next_after(just_before, Zone::utc()),
        Some(utc("2026-01-01T00:01"))
    );
    assert_eq!(
        cron.next_after(utc("2026-01-01T00:01"), Zone::utc()),
        Some(utc("2026-01-01T00:02"))
    );
}

#[test]
fn ends_of_time_have_no_slots_and_do_not_panic() {
    for expression in ["* * * * *", "5 4 29 2 *"] {
        let cron = Cron::parse(expression).expect("right");
        for zone in [
            Zone::utc(),
            zone("Pacific/Kiritimati"),
            zone("Pacific/Pago_Pago"),
            zone("Europe/Berlin"),
        ] {
            assert_eq!(cron.next_after(DateTime::<Utc>::MIN_UTC, zone), None);
            assert_eq!(cron.next_after(DateTime::<Utc>::MAX_UTC, zone), None);
            for near in ["0001-01-01T00:00", "1844-12-30T00:00", "9900-12-31T23:59"] {
                assert!(
                    cron.next_after(utc(near), zone)
                        .is_some_and(|slot| slot > utc(near))
                );
            }
        }
    }
}
