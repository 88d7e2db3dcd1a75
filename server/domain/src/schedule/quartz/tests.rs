use super::*;

fn utc(text: &str) -> DateTime<Utc> {
    format!("{text}Z").parse().expect("a test instant")
}

fn quartz(expression: &str) -> Quartz {
    match Quartz::parse(expression) {
        Ok(quartz) => quartz,
        Err(error) => panic!("{expression:?}: {error}"),
    }
}

/// Returns all slots within a window, both ends excluded.
fn slots(expression: &str, zone: &str, from: &str, to: &str) -> Vec<String> {
    let quartz = quartz(expression);
    let zone: Zone = zone.parse().expect("a test zone");
    let next = |after: &DateTime<Utc>| quartz.next_after(*after, zone).filter(|slot| *slot < utc(to));
    std::iter::successors(next(&utc(from)), next)
        .map(|slot| slot.format("%Y-%m-%dT%H:%M:%S").to_string())
        .collect()
}

/// Returns the days of January 2026 on which an expression's date fields fall; it starts on a Thursday.
fn days(fields: &str) -> Vec<u32> {
    slots(
        &format!("0 0 12 {fields}"),
        "UTC",
        "2026-01-01T00:00:00",
        "2026-02-01T00:00:00",
    )
    .iter()
    .map(|slot| slot[8..10].parse().expect("a day"))
    .collect()
}

#[test]
fn fields_mean_what_the_crate_makes_of_them() {
    assert_eq!(days("? * 1"), [4, 11, 18, 25], "1 is Sunday");
    assert_eq!(days("? * 7"), [3, 10, 17, 24, 31], "7 is Saturday");
    assert_eq!(days("? * MON"), days("* * 2"));
    assert_eq!(days("? * tues,Thursday"), days("? * 3,5"));
    assert_eq!(days("? January Mon-Wednesday/2"), days("? 1 2,4"));
    assert_eq!(days("13-20 * 6"), [16], "a day must match in both fields");
    assert_eq!(
        days("1/10 * ?"),
        [1, 11, 21, 31],
        "a step runs to the end of the field"
    );
    assert_eq!(days("?/10 * ?"), [1, 11, 21, 31]);
    assert_eq!(days("5-20/10 * ?"), [5, 15]);
    assert_eq!(
        days("1 , 9 - 13 / 2 * ?"),
        [1, 9, 11, 13],
        "blanks around the signs"
    );
    assert_eq!(days("9*?"), [9], "no blanks between the fields");
    assert!(days("? 2 ?").is_empty());
    assert_eq!(
        slots(
            "15,45 59 23 31 12 ? 2026-2027",
            "UTC",
            "2026-01-01T00:00:00",
            "2040-01-01T00:00:00"
        ),
        [
            "2026-12-31T23:59:15",
            "2026-12-31T23:59:45",
            "2027-12-31T23:59:15",
            "2027-12-31T23:59:45"
        ]
    );
}

/// Signs that the Quartz scheduler has and the crate refuses.
#[test]
fn last_and_nth_days_are_taken_as_the_scheduler_writes_them() {
    assert_eq!(days("L * ?"), [31]);
    assert_eq!(days("LW * ?"), [30], "31 January 2026 is a Saturday");
    assert_eq!(days("1,l * ?"), [1, 31]);
    assert_eq!(days("? * 6L"), [30], "6 is Friday");
    assert_eq!(days("? * FRIL,2l"), [26, 30]);
    assert_eq!(days("? * 6#3"), [16]);
    assert_eq!(days("? * FRI#3,thursday#5"), [16, 29]);
    assert_eq!(days("L * 7"), [31], "a day must match in both fields here too");
    assert!(days("L * 6").is_empty());
}

#[test]
fn shorthands_stand_for_their_fields() {
    let cases = [
        ("@hourly", "0 0 * * * *"),
        ("@daily", "0 0 0 * * ?"),
        (" @weekly", "0 0 0 ? * SUN"),
        ("@monthly ", "0 0 0 1 * ?"),
        ("@yearly", "0 0 0 1 JAN ?"),
    ];

    for (shorthand, fields) in cases {
        let (short, long) = (quartz(shorthand), quartz(fields));
        assert_eq!((&short.times, short.job), (&long.times, long.job), "{shorthand}");
        assert_eq!(short.expression(), shorthand.trim());
    }
}

#[test]
fn expression_is_kept_with_single_spaces() {
    assert_eq!(
        quartz(" 0\t0  9 ,17 * * Mon-Fri ").expression(),
        "0 0 9 ,17 * * Mon-Fri"
    );
    assert_eq!(quartz("0 0 12**?").expression(), "0 0 12**?");
}

/// Not measured: the crate drops a skipped time, and runs a repeated time twice. The expected results follow the rule
/// of `cron`.
#[test]
fn clock_changes_follow_the_rule_of_cron() {
    let spring = ["2026-03-28T12:00:00", "2026-03-30T12:00:00"];
    let autumn = ["2026-10-24T12:00:00", "2026-10-26T12:00:00"];
    let berlin = |expression: &str, [from, to]: [&str; 2]| -> Vec<String> {
        let slots = slots(expression, "Europe/Berlin", from, to);
        slots.iter().map(|slot| slot[5..].to_owned()).collect()
    };

    assert_eq!(
        berlin("0 30 2 * * ?", spring),
        ["03-29T01:00:00", "03-30T00:30:00"]
    );
    assert_eq!(
        berlin("0 30 2 * * ?", autumn),
        ["10-25T00:30:00", "10-26T01:30:00"]
    );
    assert_eq!(
        berlin("10,20 30 2 * * ?", spring),
        ["03-29T01:00:00", "03-30T00:30:10", "03-30T00:30:20"],
        "what is made up for is made up for once"
    );
    let follows_the_clock = [
        ("*/30 30 2 * * ?", "0/30 30 2 * * ?"),
        ("0 */30 2 * * ?", "0 0/30 2 * * ?"),
        ("0 30 */2 * * ?", "0 30 00 / 2 * * ?"),
    ];
    for (star, from_zero) in follows_the_clock {
        let (star, from_zero) = (quartz(star), quartz(from_zero));
        assert_eq!((star.job, from_zero.job), (Job::Wildcard, Job::Wildcard));
        assert_eq!(star.times, from_zero.times);
    }
    for fixed in ["0,30 30 2 * * ?", "0 5/10 2 * * ?", "0 0 0-23/2 * * ?"] {
        assert_eq!(quartz(fixed).job, Job::Fixed, "{fixed}");
    }
    assert_eq!(
        berlin("0 0/30 2 * * ?", spring),
        ["03-30T00:00:00", "03-30T00:30:00"]
    );
    assert_eq!(
        berlin("0 0/30 2 * * ?", autumn),
        [
            "10-25T00:00:00",
            "10-25T00:30:00",
            "10-25T01:00:00",
            "10-25T01:30:00",
            "10-26T01:00:00",
            "10-26T01:30:00"
        ]
    );
}

#[test]
fn faults_are_refused_where_they_are() {
    let cases = [
        ("", 1, "found 0 fields"),
        (
            "30 2 * * 1-5",
            13,
            "found 5 fields, but a Quartz expression has 6",
        ),
        ("30 2 * * MON-FRI", 17, "five fields is a schedule of kind cron"),
        ("99 * * * *", 11, "kind cron"),
        ("* * * * * * * *", 15, "nothing comes after the seventh field"),
        ("60 * * * * *", 1, "second takes 0 to 59, not '60'"),
        ("0 0,60 * * * *", 5, "minute takes 0 to 59, not '60'"),
        ("0 0 24 * * *", 5, "hour takes 0 to 23, not '24'"),
        ("0 0 0 0 * *", 7, "day-of-month takes 1 to 31, L or LW, not '0'"),
        ("0 0 0 1 13 *", 9, "month takes 1 to 12, JAN to DEC, not '13'"),
        ("0 0 0 ? Sept *", 9, "not 'Sept'"),
        (
            "0 0 0 ? * 0",
            11,
            "day-of-week takes 1 to 7, SUN to SAT (Sunday is 1), 6L or 6#3, not '0'",
        ),
        ("0 0 0 ? * 8", 11, "not '8'"),
        ("0 0 0 ? * Weds", 11, "not 'Weds'"),
        ("0 0 0 * * ? 1969", 13, "year takes 1970 to 2100, not '1969'"),
        ("0 0 0 * * ? 2020-2101", 18, "not '2101'"),
        ("0 0 0 * * ? 99999999999999999999", 13, "year takes"),
        ("? 0 0 * * *", 1, "second takes 0 to 59, not '?'"),
        ("0 0 0 * ? *", 9, "month takes"),
        ("0 MON 0 * * *", 3, "minute takes 0 to 59, not 'MON'"),
        ("1,,2 0 0 * * *", 3, "not nothing"),
        ("1, 0 0 * * MON *", 12, "month takes"),
        ("1, * 0 * * *", 4, "not '*'"),
        ("* ,1 0 0 * * *", 3, "minute takes"),
        (
            "* /5 0 0 * * *",
            3,
            "second has '*' and then '/5', which cannot follow it",
        ),
        ("*-5 0 0 * * *", 2, "'-5', which cannot follow"),
        ("-5 0 0 * * *", 1, "not '-5'"),
        ("1-5-9 0 0 * * *", 4, "second has '1-5' and then '-9'"),
        ("5-1 0 0 * * *", 1, "the range '5-1' runs backwards"),
        ("0 0 0 ? * FRI-MON", 11, "runs backwards"),
        (
            "0 0 0 ? * 2-FRI",
            13,
            "two numbers or two names, not '2' and 'FRI'",
        ),
        ("0 0 0 ? * MON/2", 14, "day-of-week has 'MON' and then '/2'"),
        ("*/0 0 0 * * *", 3, "a step of second is from 1 to 59, not '0'"),
        ("0 0 */24 * * *", 7, "a step of hour is from 1 to 23, not '24'"),
        ("0 0 */ * * *", 8, "not '*'"),
        ("*/5/2 0 0 * * *", 4, "second has '*/5' and then '/2'"),
        ("1.5 0 0 * * *", 2, "minute takes 0 to 59, not '.5'"),
        ("0 0 0 L-3 * ?", 8, "day-of-month has 'L' and then '-3'"),
        ("0 0 0 15W * ?", 9, "not 'W'"),
        ("0 0 0 ? * L", 11, "6L or 6#3, not 'L'"),
        ("0 0 0 ? * 8L", 11, "not '8'"),
        ("0 0 0 ? * 6 L", 13, "year takes"),
        ("0 0 0 ? * 8#1", 11, "not '8'"),
        ("0 0 0 ? * 6#6", 13, "1 to 5, not '6'"),
        ("0 0 0 ? * MON#", 15, "1 to 5, not nothing"),
        ("0 0 0 ? * 6L/2", 13, "which cannot follow"),
        ("0 0 0 ? * #1", 11, "not '#1'"),
        ("@midnight", 1, "@midnight is not known"),
        (" @Daily", 2, "in small letters"),
        ("@daily 5", 8, "nothing comes after a shorthand, but '5' does"),
        (
            "0 0 0 31 2 *",
            7,
            "no date matches day-of-month '31', month '2', day-of-week '*' together",
        ),
        ("0 0 0 29 2 ? 2025-2027", 7, "and year '2025-2027' together"),
        ("0 0 0 1 * 6L", 7, "no date matches"),
        ("0 0 0 * * ?\n", 12, "'\\n' has no meaning"),
        ("0 0 ٣ * * *", 5, "'\\u{663}' has no meaning"),
    ];

    for (expression, position, part) in cases {
        match Quartz::parse(expression) {
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
    let longest = format!("{:0>190} * * * * *", 5);
    assert_eq!(longest.len(), MAX_EXPRESSION_CHARS);

    assert!(Quartz::parse(&longest).is_ok());
    let error = Quartz::parse(&format!("0{longest}")).expect_err("too long");
    assert_eq!(error.position, MAX_EXPRESSION_CHARS + 1);
    assert!(Quartz::parse(&"*,".repeat(1 << 20)).is_err());
}

#[test]
fn years_that_are_over_are_read_and_have_no_slots_left() {
    let over = quartz("0 0 12 1 1 ? 1999,2010-2020/5");

    assert_eq!(over.next_after(utc("2026-01-01T00:00:00"), Zone::utc()), None);
    assert_eq!(
        over.next_after(utc("2015-06-01T00:00:00"), Zone::utc()),
        Some(utc("2020-01-01T12:00:00"))
    );
    assert_eq!(
        over.next_after(utc("1950-01-01T00:00:00"), Zone::utc()),
        Some(utc("1999-01-01T12:00:00"))
    );
}

#[test]
fn only_named_years_end_in_2100() {
    let end_of_2100 = utc("2100-12-31T23:59:59");
    let next = |expression: &str| quartz(expression).next_after(end_of_2100, Zone::utc());

    assert_eq!(next("0 0 0 * * ?"), Some(utc("2101-01-01T00:00:00")));
    assert_eq!(next("0 0 0 * * ? *"), next("0 0 0 * * ?"));
    assert_eq!(next("0 0 0 * * ? 1970-2100"), None);
    assert_eq!(next("0 0 0 * * ? */2"), None);
}
