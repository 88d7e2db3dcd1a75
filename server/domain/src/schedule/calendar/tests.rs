mod properties;
mod slots;

use super::*;
use crate::schedule::Schedule;

fn zone(name: &str) -> Zone {
    name.parse().expect("a test zone")
}

fn utc(text: &str) -> DateTime<Utc> {
    format!("{text}Z").parse().expect("a test instant")
}

fn parse(text: &str) -> Calendar {
    Calendar::parse(text, Zone::utc()).unwrap_or_else(|error| panic!("{text:?}: {error}"))
}

/// The examples of systemd.time(7), "Examples for valid timestamps and their normalized form", and the output of
/// `systemd-analyze calendar` of systemd 252 for further forms.
#[test]
fn each_form_is_read_as_its_normal_form() {
    let cases = [
        ("Sat,Thu,Mon..Wed,Sat..Sun", "Mon..Thu,Sat,Sun *-*-* 00:00:00"),
        ("Mon,Sun 12-*-* 2,1:23", "Mon,Sun 2012-*-* 01,02:23:00"),
        ("Wed *-1", "Wed *-*-01 00:00:00"),
        ("Wed..Wed,Wed *-1", "Wed *-*-01 00:00:00"),
        ("Wed, 17:48", "Wed *-*-* 17:48:00"),
        ("Wed..Sat,Tue 12-10-16 1:2:3", "Tue..Sat 2012-10-16 01:02:03"),
        ("*-*-7 0:0:0", "*-*-07 00:00:00"),
        ("10-15", "*-10-15 00:00:00"),
        ("monday *-12-* 17:00", "Mon *-12-* 17:00:00"),
        ("Mon,Fri *-*-3,1,2 *:30:45", "Mon,Fri *-*-01,02,03 *:30:45"),
        ("12,14,13,12:20,10,30", "*-*-* 12,13,14:10,20,30:00"),
        ("12..14:10,20,30", "*-*-* 12..14:10,20,30:00"),
        ("mon,fri *-1/2-1,3 *:30:45", "Mon,Fri *-01/2-01,03 *:30:45"),
        ("03-05 08:05:40", "*-03-05 08:05:40"),
        ("08:05:40", "*-*-* 08:05:40"),
        ("05:40", "*-*-* 05:40:00"),
        ("Sat,Sun 12-05 08:05:40", "Sat,Sun *-12-05 08:05:40"),
        ("Sat,Sun 08:05:40", "Sat,Sun *-*-* 08:05:40"),
        ("2003-03-05 05:40", "2003-03-05 05:40:00"),
        ("2003-02..04-05", "2003-02..04-05 00:00:00"),
        ("2003-03-05 05:40 UTC", "2003-03-05 05:40:00 UTC"),
        ("2003-03-05", "2003-03-05 00:00:00"),
        ("03-05", "*-03-05 00:00:00"),
        ("minutely", "*-*-* *:*:00"),
        ("hourly", "*-*-* *:00:00"),
        ("daily", "*-*-* 00:00:00"),
        ("daily UTC", "*-*-* 00:00:00 UTC"),
        ("monthly", "*-*-01 00:00:00"),
        ("weekly", "Mon *-*-* 00:00:00"),
        ("weekly Pacific/Auckland", "Mon *-*-* 00:00:00 Pacific/Auckland"),
        ("quarterly", "*-01,04,07,10-01 00:00:00"),
        ("yearly", "*-01-01 00:00:00"),
        ("annually", "*-01-01 00:00:00"),
        ("semiannually", "*-01,07-01 00:00:00"),
        ("*:2/3", "*-*-* *:02/3:00"),
        // Forms that the manual page does not have.
        ("anually", "*-01-01 00:00:00"),
        ("Bi-Annually", "*-01,07-01 00:00:00"),
        ("biannually", "*-01,07-01 00:00:00"),
        ("SEMI-ANNUALLY utc", "*-01,07-01 00:00:00 UTC"),
        ("Mon-Fri,SUNDAY,", "Mon..Fri,Sun *-*-* 00:00:00"),
        ("Mon  *-1   5:0", "Mon *-*-01 05:00:00"),
        ("1-1  UTC", "*-01-01 00:00:00 UTC"),
        ("98..03-1-1", "1998..2003-01-01 00:00:00"),
        ("0-1-1", "2000-01-01 00:00:00"),
        ("69,70-1-1", "1970,2069-01-01 00:00:00"),
        ("@1395716396", "2014-03-25 02:59:56 UTC"),
        ("Tue @1395716396 Europe/Berlin", "Tue 2014-03-25 02:59:56 UTC"),
        ("@7258118399", "2199-12-31 23:59:59 UTC"),
        ("02~03", "*-02~03 00:00:00"),
        ("*~*", "*-*-* 00:00:00"),
        ("Mon *-05~07/1", "Mon *-05~01..07 00:00:00"),
        ("*-*~7/3", "*-*~01,04,07 00:00:00"),
        ("*-*~1..8/3", "*-*~01..07/3 00:00:00"),
        ("*-*~24..25/6,24,13", "*-*~13,24 00:00:00"),
        ("*-*~28/27", "*-*~1..28/27 00:00:00"),
        ("5..5:0", "*-*-* 05:00:00"),
        ("*-*-1..31/31", "*-*-01 00:00:00"),
        ("5..99/100:0", "*-*-* 05:00:00"),
        ("0:0..65/50", "*-*-* 00:00..50/50:00"),
        ("0:0:5..5/1", "*-*-* 00:00:05"),
        ("00005:00", "*-*-* 05:00:00"),
        ("1:2:*", "*-*-* 01:02:*"),
        ("1..3:0:0..58/2", "*-*-* 01,02,03:00:0..59/2"),
    ];

    for (text, normal) in cases {
        let (read, normal) = (parse(text), parse(normal));
        let times = |calendar: &Calendar| {
            let line = &calendar.lines[0];
            (line.times.clone(), line.zone)
        };
        assert_eq!(times(&read), times(&normal), "{text}");
    }
}

/// systemd 252 refuses all of these, too, except the marked ones.
#[test]
fn refusals_name_the_first_faulty_character() {
    let cases = [
        ("", 1, "no expression"),
        (" \n\t\n", 1, "no expression"),
        (
            "reboot",
            1,
            "'reboot' is no weekday (Mon to Sun, Monday to Sunday) and none of minutely",
        ),
        ("UTC", 1, "'UTC' is no weekday"),
        ("Mond 1:00", 1, "'Mond' is no weekday"),
        ("Mon,,Tue", 5, "nothing is no weekday"),
        ("Mon..", 6, "nothing is no weekday"),
        ("Mon..Wed..Fri", 6, "'Wed..Fri' is no weekday"),
        ("Sat,Fri..Mon 1:00", 5, "'Fri..Mon' runs backwards"),
        ("Mon Tue", 5, "'Tue' is not expected here"),
        ("Mon daily", 5, "no time zone 'daily'"),
        ("daily 05:00", 1, "'daily' stands alone"),
        ("daily  UTC", 7, "one blank between 'daily' and the time zone"),
        ("05:00   Europe/Berlin", 7, "one blank between '05:00'"),
        ("05:00 europe/berlin", 7, "did you mean Europe/Berlin?"),
        ("05:00 CEST", 7, "no time zone 'CEST'"),
        (
            "05:00 Mon",
            7,
            "'Mon' is not expected here; the order is weekdays, date, time",
        ),
        ("05:00 1-1", 7, "'1-1' is not expected here"),
        ("daily UTC UTC", 1, "'daily' stands alone"),
        ("5", 1, "'5' is no date (year-month-day or month-day) and no time"),
        ("*", 1, "'*' is no date"),
        ("Mon\t5:00", 4, "tab"),
        ("Mon ü", 5, "has no meaning"),
        ("24:00", 1, "hour takes 0 to 23, not '24'"),
        ("0:60", 3, "minute takes 0 to 59, not '60'"),
        ("0:0:60", 5, "second takes 0 to 59, not '60'"),
        ("0:0:0:0", 6, "at most three parts, hour:minute:second"),
        (":30", 1, "hour takes 0 to 23, not nothing"),
        ("9-17:00", 1, "a range is written 9..17"),
        (
            "*/5:00",
            1,
            "'*' stands alone for every hour; with a step it is 0/n",
        ),
        ("1,*:00", 3, "'*' stands alone"),
        ("20/5:00", 4, "no hour comes 5 after 20"),
        (
            "*:0/0",
            5,
            "a step is a whole number from 1 to 2147483647, not '0'",
        ),
        ("*:0/", 5, "not nothing"),
        ("*:5..3", 3, "the range '5..3' runs backwards"),
        ("*:3..99", 6, "minute takes 0 to 59, not '99'"),
        ("*:3..99/20", 6, "minute takes 0 to 59, not '99'"),
        ("1:1:5..5", 5, "a range of seconds has two ends"),
        ("1:1:1..2/2148", 10, "from 1 to 2147"),
        // A deliberate difference: systemd accepts it.
        (
            "05:40:23.42",
            9,
            "'23.42' has a fraction; systemd takes one, but seconds are whole here",
        ),
        ("05:40:0/3.5", 10, "has a fraction"),
        ("1:1.5", 3, "minute takes 0 to 59, not '1.5'"),
        ("0x5:00", 1, "not '0x5'"),
        ("100-1-1", 1, "year takes 1970 to 2199, not '100'"),
        ("2200-1-1", 1, "not '2200'"),
        ("*-13-1", 3, "month takes 1 to 12, not '13'"),
        ("*-*-32", 5, "day takes 1 to 31, not '32'"),
        ("*-*-2/30", 7, "no day comes 30 after 2"),
        (
            "*-*~29",
            5,
            "day from the end of the month takes 1 to 28, not '29'",
        ),
        ("*-*~3/3", 7, "no day of the month comes 3 after 3"),
        ("*-*~26,3", 5, "days to 25 here, not '26'"),
        ("~1", 1, "month takes 1 to 12, not nothing"),
        ("2012~02-03", 5, "'~' stands between month and day"),
        ("1-2-3-4", 6, "at most three parts, year-month-day"),
        ("@", 2, "seconds since 1970, up to 7258118399, not nothing"),
        ("@7258118400", 2, "not '7258118400'"),
        ("@-5", 2, "not '-5'"),
        ("@5 0:0", 4, "'0:0' is not expected here"),
        // Differences: systemd accepts these, and they never elapse.
        ("*-02-30", 1, "no year has such a day"),
        ("Mon 2025-01-01", 5, "no year has such a day"),
        ("Wed 2100-02-29 5:00", 5, "no year has such a day"),
        (
            "2025-3-9 2:30 America/New_York",
            10,
            "never comes: America/New_York skips these hours",
        ),
    ];

    for (text, position, message) in cases {
        let error = Calendar::parse(text, Zone::utc()).expect_err(text);
        assert_eq!(error.position, position, "{text}: {error}");
        assert!(error.message.contains(message), "{text}: {error}");
    }
}

#[test]
fn a_fault_is_found_in_the_whole_text() {
    let error = Calendar::parse("daily\r\n\n  Mon 5:00\n 25:00", Zone::utc()).expect_err("hour 25");

    assert_eq!(error.position, 21);
    assert_eq!(error.message, "line 4: hour takes 0 to 23, not '25'");
}

#[test]
fn lines_and_characters_are_limited() {
    let refusal = |text: &str| Calendar::parse(text, Zone::utc()).expect_err("too much").position;
    let line = format!("{}0:00", "0,".repeat(98));

    assert_eq!(line.len(), MAX_LINE_CHARS);
    parse(&line);
    parse(&["daily"; MAX_LINES].join("\n"));
    parse(&format!("daily{}", "\n".repeat(MAX_TEXT_CHARS - 5)));
    assert_eq!(refusal(&format!("daily\n0,{line}")), 6 + MAX_LINE_CHARS + 1);
    assert_eq!(refusal(&["daily"; MAX_LINES + 1].join("\n")), 6 * MAX_LINES + 1);
    assert_eq!(refusal(&"\n".repeat(MAX_TEXT_CHARS + 1)), MAX_TEXT_CHARS + 1);
    assert_eq!(refusal(&"ü".repeat(MAX_TEXT_CHARS + 1)), MAX_TEXT_CHARS + 1);
}

#[test]
fn the_json_form_keeps_the_lines() {
    let json = serde_json::json!({
        "kind": "oncalendar",
        "expression": " daily \r\n\nMon 5:00  \n 6:0 US/Eastern",
        "timezone": "Asia/Tokyo",
    });

    let schedule = Schedule::from_json(&json).expect("a schedule");

    let canonical = schedule.to_json();
    assert_eq!(canonical["expression"], "daily\nMon 5:00\n6:0 US/Eastern");
    assert_eq!(canonical["timezone"], "Asia/Tokyo");
    assert_eq!(Schedule::from_json(&canonical), Ok(schedule));
}

#[test]
fn years_that_are_over_can_still_be_read() {
    let schedule = serde_json::json!({"kind": "oncalendar", "expression": "1999..2003-*-1\n@0"});
    let now: DateTime<Utc> = "2026-01-01T00:00:00Z".parse().expect("a time");

    let schedule = Schedule::from_json(&schedule).expect("a stored schedule");

    assert_eq!(schedule.next_after(now), None);
}
