use proptest::prelude::*;

use super::*;

fn zone(name: &str) -> Zone {
    name.parse().expect("a test zone")
}

fn utc(text: &str) -> DateTime<Utc> {
    format!("{text}:00Z").parse().expect("a test instant")
}

/// Reads fields in crontab order, as `crontab.from_string` does.
fn parse(text: &str) -> Result<CeleryCrontab, CeleryCrontabError> {
    let fields: Vec<&str> = text.split(' ').collect();
    CeleryCrontab::parse(fields.try_into().expect("five fields"))
}

#[track_caller]
fn assert_slots(text: &str, zone_name: &str, from: &str, to: &str, expected: &[&str]) {
    let (crontab, zone) = (
        parse(text).expect("a test crontab"),
        zone_name.parse().expect("a test zone"),
    );
    let next = |after: &DateTime<Utc>| crontab.next_after(*after, zone).filter(|slot| *slot < utc(to));
    let first = next(&utc(from));
    let found: Vec<String> = std::iter::successors(first, next)
        .map(|slot| slot.format("%Y-%m-%dT%H:%M").to_string())
        .collect();
    let matches = found.len() == expected.len()
        && found
            .iter()
            .zip(expected)
            .all(|(found, end)| found.ends_with(end));
    assert!(
        matches,
        "{text} in {zone_name}:\n found    {found:?}\n expected {expected:?}"
    );
}

/// Measured with Celery 5.5.3, 5.6.3 and 5.7.0: a real Beat scheduler driven with a false clock.
#[test]
fn clock_changes_follow_beat() {
    let new_york = "America/New_York";
    let sao_paulo = "America/Sao_Paulo";
    let lord_howe = "Australia/Lord_Howe";
    let cases: [(&str, &str, &str, &str, &[&str]); 22] = [
        (
            new_york,
            "30 2 * * *",
            "2026-03-07T12:00",
            "2026-03-09T12:00",
            &["03-08T07:30", "03-09T06:30"],
        ),
        (
            new_york,
            "*/15 2 * * *",
            "2026-03-08T05:00",
            "2026-03-09T07:30",
            &[
                "03-08T07:00",
                "03-09T06:00",
                "03-09T06:15",
                "03-09T06:30",
                "03-09T06:45",
            ],
        ),
        (
            new_york,
            "0 */2 * * *",
            "2026-03-08T04:00",
            "2026-03-08T09:00",
            &["05:00", "07:00", "08:00"],
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
            &["05:00", "07:00", "08:00"],
        ),
        (
            new_york,
            "*/15 * * * *",
            "2026-11-01T05:20",
            "2026-11-01T07:20",
            &["05:30", "05:45", "07:00", "07:15"],
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
            &["03-29T01:30", "03-30T00:30"],
        ),
        (
            "Europe/London",
            "0 * * * *",
            "2026-10-24T23:30",
            "2026-10-25T02:30",
            &["00:00", "02:00"],
        ),
        (
            lord_howe,
            "15 2 * * *",
            "2026-10-03T01:00",
            "2026-10-04T16:00",
            &["10-03T15:45", "10-04T15:15"],
        ),
        (
            lord_howe,
            "0 * * * *",
            "2026-10-03T13:30",
            "2026-10-03T17:30",
            &["14:30", "15:30", "16:00", "17:00"],
        ),
        (
            lord_howe,
            "30 * * * *",
            "2026-04-04T13:00",
            "2026-04-04T17:00",
            &["13:30", "14:30", "16:00"],
        ),
        (
            lord_howe,
            "*/15 * * * *",
            "2026-04-04T14:20",
            "2026-04-04T15:40",
            &["14:30", "14:45", "15:30"],
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
            &["01:30", "01:45", "03:00", "03:15"],
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
            "0 0 13 * 5",
            "2026-01-01T00:00",
            "2027-01-01T00:00",
            &["02-13T00:00", "03-13T00:00", "11-13T00:00"],
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

    for (zone_name, text, from, to, expected) in cases {
        assert_slots(text, zone_name, from, to, expected);
    }
}

#[test]
fn start_in_the_second_pass_waits_for_the_end_of_the_repeated_hour() {
    // 01:20 EST: from now on a real Beat would send without end, because 01:45 EDT stays in the past.
    assert_slots(
        "*/45 * * * *",
        "America/New_York",
        "2026-11-01T06:20",
        "2026-11-01T07:50",
        &["07:00", "07:45"],
    );
}

#[test]
fn seconds_of_a_late_dispatch_do_not_repeat_its_minute() {
    let crontab = parse("* * * * *").expect("right");
    let late = utc("2026-01-01T00:01") + TimeDelta::milliseconds(30_250);

    assert_eq!(
        crontab.next_after(late, Zone::utc()),
        Some(utc("2026-01-01T00:02"))
    );
}

#[test]
fn fields_mean_what_celery_makes_of_them() {
    let values = |index: usize, text: &str| -> Vec<u32> {
        let (min, max) = [(0, 59), (0, 23), (1, 31), (1, 12), (0, 6)][index];
        let mask = read_field(index, text, min, max).expect("right");
        (0..64).filter(|bit| mask >> bit & 1 == 1).collect()
    };

    assert_eq!(values(0, "*/15"), [0, 15, 30, 45]);
    assert_eq!(values(0, "*/45"), [0, 45]);
    assert_eq!(values(0, "*/61"), [0]);
    assert_eq!(values(0, "50-10/5"), [0, 5, 10, 50, 55]);
    assert_eq!(values(0, "0, 30 "), [0, 30]);
    assert_eq!(values(0, "0-2 ,*/30 "), [0, 1, 2, 30]);
    assert_eq!(values(1, "22-2"), [0, 1, 2, 22, 23]);
    assert_eq!(values(1, "22-3/2"), [0, 2, 22]);
    assert_eq!(values(1, "9-9"), [9]);
    assert_eq!(values(2, "*/2").len(), 16);
    assert_eq!(values(2, "30-2"), [1, 2, 30, 31]);
    assert_eq!(values(3, "nov-feb"), [1, 2, 11, 12]);
    assert_eq!(values(3, "2-12/2"), [2, 4, 6, 8, 10, 12]);
    assert_eq!(values(3, "mon"), [1], "a weekday's name is its number");
    assert_eq!(values(4, "fri-mon"), [0, 1, 5, 6]);
    assert_eq!(values(4, "Monday,TUES"), [1, 2]);
    assert_eq!(values(4, "jan"), [1], "a month's name is its number");
    assert_eq!(values(4, "*/2"), [0, 2, 4, 6]);
}

#[test]
fn faults_name_their_field() {
    let cases = [
        ("5/15 * * * *", "minute", "a step only after '*' or a range"),
        ("60 * * * *", "minute", "takes 0 to 59, not '60'"),
        ("*/0 * * * *", "minute", "a step is a whole number from 1"),
        ("1-5/ * * * *", "minute", "a step"),
        (", * * * *", "minute", "not nothing"),
        ("* 24 * * *", "hour", "takes 0 to 23"),
        ("* -1 * * *", "hour", "not nothing"),
        ("* 1- * * *", "hour", "not nothing"),
        ("* * 0 * *", "day_of_month", "takes 1 to 31"),
        ("* * L * *", "day_of_month", "not 'L'"),
        ("* * ? * *", "day_of_month", "not '?'"),
        ("* * * 13 *", "month_of_year", "takes 1 to 12"),
        ("* * * sun *", "month_of_year", "takes 1 to 12"),
        ("* * * * 7", "day_of_week", "(Sunday is 0)"),
        ("* * * * mo", "day_of_week", "not 'mo'"),
        ("* * * * mon*", "day_of_week", "not 'mon*'"),
        ("* * * june?-may/2 *", "month_of_year", "not 'june?'"),
        ("* * * * 1#2", "day_of_week", "not '1#2'"),
        ("* * * * 5L", "day_of_week", "not '5L'"),
        ("* * * * sep", "day_of_week", "takes 0 to 6"),
        ("99999999999999999999 * * * *", "minute", "takes 0 to 59"),
        ("٣ * * * *", "minute", "has no meaning"),
        ("\0 * * * *", "minute", "has no meaning"),
        ("* * 30 2 *", "day_of_month", "would never run"),
        ("* * 31 4,6,9,11 *", "day_of_month", "would never run"),
    ];

    for (text, field, part) in cases {
        match parse(text) {
            Ok(_) => panic!("{text:?} was taken"),
            Err(error) => {
                assert_eq!(error.field, field, "{text:?}: {error}");
                assert!(error.message.contains(part), "{text:?}: {error}");
            }
        }
    }
    for (minute, part) in [
        ("0, */15", "blank"),
        ("0, 20-30", "blank"),
        (" mon", "blank"),
        ("* ", "blank"),
        (" *", "blank"),
        (" ", "nothing"),
    ] {
        let error = CeleryCrontab::parse([minute, "*", "*", "*", "*"]).expect_err(minute);
        assert!(error.message.contains(part), "{minute:?}: {error}");
    }
    let long = "1,".repeat(1 << 20);
    assert!(CeleryCrontab::parse([&long, "*", "*", "*", "*"]).is_err());
}

#[test]
fn ends_of_time_have_no_slots_and_do_not_panic() {
    let crontab = parse("* * * * *").expect("right");

    for zone in [Zone::utc(), zone("Pacific/Kiritimati"), zone("Pacific/Pago_Pago")] {
        assert_eq!(crontab.next_after(DateTime::<Utc>::MIN_UTC, zone), None);
        assert_eq!(crontab.next_after(DateTime::<Utc>::MAX_UTC, zone), None);
    }
}

proptest! {
    #[test]
    fn any_text_is_read_or_refused(fields in [any::<String>(), any::<String>(), any::<String>(), any::<String>(), any::<String>()]) {
        let _ = CeleryCrontab::parse(fields.each_ref().map(String::as_str));
    }

    #[test]
    fn any_fields_that_are_taken_have_a_next_slot_ahead(
        text in "[-0-9*/,]{1,6} [-0-9*/,]{1,6} [-0-9*/,]{1,6} [-0-9*/,a-z]{1,6} [-0-9*/,a-z]{1,6}",
        seconds in 1_500_000_000..1_900_000_000i64,
        zone in prop::sample::select(vec![Zone::utc(), zone("America/New_York"), zone("Australia/Lord_Howe"), zone("Pacific/Apia")]),
    ) {
        let after = DateTime::from_timestamp(seconds, 0).expect("in range");
        if let Ok(crontab) = parse(&text) {
            prop_assert!(crontab.next_after(after, zone).is_some_and(|slot| slot > after));
        }
    }
}
