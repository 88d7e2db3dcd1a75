//! Credit as tables.

use super::*;
use crate::monitor::transition::tests::{at, cron, interval};

#[test]
fn a_report_is_credited_to_the_earliest_slot_that_is_owed() {
    // Every ten minutes from noon; the tolerance is 30 s: (due, report, due afterwards)
    let table = [
        (600.0, 600.0, 1_200.0),   // on time
        (600.0, 601.0, 1_200.0),   // late
        (600.0, 1_199.0, 1_200.0), // late, and close to the next slot: still counts for the earlier one
        (600.0, 1_200.0, 1_800.0), // at the next slot: satisfies both
        (600.0, 4_000.0, 4_200.0), // several missed ones at once
        (600.0, 570.0, 1_200.0),   // 30 s early counts
        (600.0, 569.9, 600.0),     // 30.1 s early does not
        (600.0, 100.0, 600.0),     // an extra report between slots
        (600.0, -9_000.0, 600.0),  // an old report, replayed
    ];
    for (due, report, expected) in table {
        let after = due_after_report(&cron("*/10 * * * *"), Some(at(due)), at(report));
        assert_eq!(after, Some(at(expected)), "due {due}, report {report}");
    }
    assert_eq!(
        due_after_report(&cron("*/10 * * * *"), None, at(1.0)),
        Some(at(600.0))
    );
}

#[test]
fn an_early_report_counts_within_a_tenth_of_the_gap_when_slots_are_close() {
    for (early, counts) in [(6.0, true), (6.1, false)] {
        let after = due_after_report(&cron("* * * * *"), Some(at(60.0)), at(60.0 - early));
        assert_eq!(
            after,
            Some(at(if counts { 120.0 } else { 60.0 })),
            "{early} s early"
        );
    }
}

#[test]
fn a_second_early_report_is_not_credited_to_the_slot_after() {
    let schedule = cron("*/10 * * * *");
    let once = due_after_report(&schedule, Some(at(600.0)), at(598.0));

    let twice = due_after_report(&schedule, once, at(599.0));

    assert_eq!((once, twice), (Some(at(1_200.0)), Some(at(1_200.0))));
}

#[test]
fn an_interval_counts_from_the_last_report_and_is_never_pulled_back() {
    // (due, report, due afterwards)
    for (due, report, expected) in [
        (60.0, 60.0, 120.0),
        (60.0, 10.0, 70.0),
        (60.0, 500.0, 560.0),
        (60.0, -90.0, 60.0),
    ] {
        let after = due_after_report(&interval(60.0), Some(at(due)), at(report));
        assert_eq!(after, Some(at(expected)), "due {due}, report {report}");
    }
}

#[test]
fn slots_of_a_skipped_hour_follow_from_the_last_one_as_beat_has_it() {
    // Lord Howe skips 02:00 to 02:30 on 4 October 2026 (15:30Z). Beat computes from the slot before: it sends 02:20 at
    // 02:50, and does not send 02:35. A computation that starts in the half hour after the change would name 02:35.
    let json = serde_json::json!({"kind": "celery", "minute": "20,35", "hour": "2", "timezone": "Australia/Lord_Howe"});
    let schedule = Schedule::from_json(&json).unwrap();
    let utc = |text: &str| text.parse::<DateTime<Utc>>().unwrap();
    let (yesterday, due) = (utc("2026-10-02T16:05:03Z"), utc("2026-10-03T15:50:00Z"));
    assert_eq!(
        due_after_report(&schedule, None, yesterday),
        Some(due),
        "02:35 of the day before, then the skipped 02:20"
    );

    let extra = due_after_report(&schedule, Some(due), utc("2026-10-03T15:31:00Z"));
    let early = due_after_report(&schedule, Some(due), utc("2026-10-03T15:49:50Z"));
    let late = due_after_report(&schedule, Some(due), utc("2026-10-03T15:50:10Z"));

    let following = Some(utc("2026-10-04T15:20:00Z"));
    assert_eq!(
        extra,
        Some(due),
        "a report between slots does not bring the other 02:35 in"
    );
    assert_eq!((early, late), (following, following));
}

/// Runs the truth table of `docs/schedules.md`, so that the page says what the code does.
mod truth_table {
    use chrono::{DateTime, Utc};
    use serde_json::json;

    use crate::monitor::ping::PingKind;
    use crate::monitor::transition::tests::{entry, signal, signal_of};
    use crate::monitor::transition::{on_due_hint, on_ping};
    use crate::schedule::Schedule;

    const DOCUMENT: &str = include_str!("../../../../../docs/schedules.md");

    /// A time of the day on which the monitor was registered.
    fn time(text: &str) -> DateTime<Utc> {
        let instant = format!("2026-01-15T{text}Z");
        instant.parse().unwrap_or_else(|_| panic!("{text} is no time"))
    }

    fn schedule(text: &str) -> Schedule {
        let (kind, rest) = text.split_once(' ').expect("a kind and more");
        let value = match (kind, rest.split_once(" from ")) {
            ("cron", _) => json!({"kind": "cron", "expression": rest.trim_matches('`')}),
            ("interval", None) => {
                json!({"kind": "interval", "seconds": rest.parse::<f64>().expect("seconds")})
            }
            ("interval", Some((seconds, anchor))) => {
                let seconds: f64 = seconds.parse().expect("seconds");
                json!({"kind": "interval", "seconds": seconds, "anchor": time(anchor).to_rfc3339()})
            }
            ("hint", _) => json!({"kind": "hint", "class": rest}),
            _ => panic!("{text} is no schedule of the table"),
        };
        Schedule::from_json(&value).expect("a schedule")
    }

    fn happen(state: &mut crate::monitor::MonitorState, what: &str) {
        let words: Vec<&str> = what.split(' ').collect();
        let kind = match words[0] {
            "nothing" => return,
            "hint" => {
                let hint = (words[1] != "never").then(|| time(words[1]));
                assert_eq!(words[2], "at");
                on_due_hint(state, hint, time(words[3]));
                return;
            }
            "start" => PingKind::Start,
            "success" => PingKind::Success,
            "fail" => PingKind::Fail,
            other => panic!("{other} is nothing that happens"),
        };
        let signal = match words[1].strip_prefix('#') {
            Some(run) => signal_of(run.parse().expect("a run"), kind, time(words[2])),
            None => signal(kind, time(words[1])),
        };
        let _ = on_ping(state, &signal);
    }

    #[test]
    fn every_row_of_the_document_holds() {
        let (_, table) = DOCUMENT.split_once("<!-- truth table -->").expect("its begin");
        let (table, _) = table
            .split_once("<!-- end of the truth table -->")
            .expect("its end");
        let rows: Vec<&str> = table.trim().lines().skip(2).collect();
        assert!(rows.len() > 35, "{} rows", rows.len());
        for row in rows {
            let cells: Vec<&str> = row.trim_matches('|').split(" | ").map(str::trim).collect();
            let [expected, grace, longest, happens, due, deadline, _] = cells[..] else {
                panic!("a row has seven cells: {row}");
            };
            let longest = longest.parse().ok();
            let mut state = entry(schedule(expected), grace.parse().expect("a grace"), longest);
            for what in happens.split(", ") {
                happen(&mut state, what);
            }
            let shown = |text: &str| (text != "–").then(|| time(text));
            assert_eq!(
                (state.next_due_at, state.deadline_at),
                (shown(due), shown(deadline)),
                "{row}"
            );
        }
    }
}

/// Slots that Beat puts off after a restart, because it has forgotten its last sending of the entry.
mod postponed {
    use chrono::{DateTime, Utc};

    use crate::change::Trigger;
    use crate::monitor::MonitorState;
    use crate::monitor::ping::PingKind;
    use crate::monitor::transition::tests::{at, cron, entry, interval, monitor, ping};
    use crate::monitor::transition::{on_due_hint, on_pause, on_resume, on_sent, on_settings_change};
    use crate::schedule::Schedule;

    /// An entry of ten minutes, due at 600, which Beat puts off to 900.
    fn put_off() -> MonitorState {
        let mut state = entry(interval(600.0), 60.0, None);
        on_due_hint(&mut state, Some(at(900.0)), at(300.0));
        assert_eq!(
            (state.postponed_from, state.next_due_at),
            (Some(at(600.0)), Some(at(900.0)))
        );
        state
    }

    #[test]
    fn only_an_interval_of_a_beat_can_be_put_off() {
        let anchored = Schedule::from_json(
            &serde_json::json!({"kind": "interval", "seconds": 600, "anchor": at(0.0).to_rfc3339()}),
        )
        .unwrap();
        for mut state in [
            entry(cron("*/10 * * * *"), 60.0, None),
            entry(anchored, 60.0, None),
            monitor(interval(600.0), 60.0, None),
        ] {
            on_due_hint(&mut state, Some(at(1_200.0)), at(300.0));
            assert_eq!(state.postponed_from, None, "{:?}", state.expectation.schedule);
        }
    }

    #[test]
    fn a_hint_that_wavers_or_comes_sooner_puts_nothing_off() {
        for hint in [300.0, 599.0, 600.0, 605.0] {
            let mut state = entry(interval(600.0), 60.0, None);
            on_due_hint(&mut state, Some(at(hint)), at(200.0));
            assert_eq!(state.postponed_from, None, "{hint}");
        }
        let mut state = entry(interval(600.0), 60.0, None);
        on_due_hint(&mut state, Some(at(605.1)), at(200.0));
        assert_eq!(state.postponed_from, Some(at(600.0)));
    }

    #[test]
    fn its_deadline_is_twice_the_interval_and_never_later_than_the_due_has_it() {
        let deadline = |hints: &[(f64, f64)]| -> Option<DateTime<Utc>> {
            let mut state = entry(interval(600.0), 60.0, None);
            for (started, hint) in hints {
                on_due_hint(&mut state, Some(at(*hint)), at(*started));
            }
            state.deadline_at
        };

        assert_eq!(deadline(&[(300.0, 900.0)]), Some(at(960.0)));
        assert_eq!(deadline(&[(599.0, 1_199.0)]), Some(at(1_259.0)));
        assert_eq!(deadline(&[(300.0, 900.0), (800.0, 1_400.0)]), Some(at(1_260.0)));
        assert_eq!(
            deadline(&[(300.0, 900.0), (800.0, 1_400.0), (1_200.0, 1_800.0)]),
            Some(at(1_260.0))
        );
    }

    #[test]
    fn it_is_forgotten_when_the_entry_is_sent_or_reports_or_is_expected_anew() {
        let mut sent = put_off();
        on_sent(&mut sent, Some(at(1_500.0)), at(900.0));
        assert_eq!(sent.postponed_from, None);

        let mut reported = put_off();
        ping(&mut reported, PingKind::Success, 901.0);
        assert_eq!(reported.postponed_from, None);

        let mut resumed = put_off();
        on_pause(&mut resumed, Trigger::Pause, at(400.0)).unwrap();
        on_due_hint(&mut resumed, Some(at(1_000.0)), at(400.0));
        on_resume(&mut resumed, Trigger::Resume, at(500.0)).unwrap();
        assert_eq!(resumed.postponed_from, None);

        let mut changed = put_off();
        let mut expectation = changed.expectation.clone();
        expectation.schedule = interval(1_200.0);
        on_settings_change(&mut changed, expectation, at(400.0));
        assert_eq!(changed.postponed_from, None);
    }
}

/// The time zone data changed under a stored due time.
mod zone_data {
    use super::*;
    use crate::change::Trigger;
    use crate::monitor::ping::PingKind;
    use crate::monitor::status::Status;
    use crate::monitor::transition::tests::{monitor, signal};
    use crate::monitor::transition::{on_pause, on_ping, on_zone_data_change};

    fn utc(text: &str) -> DateTime<Utc> {
        text.parse().expect("an instant")
    }

    /// A monitor that reported at 02:00 in Havana on 28 November 2026, while Cuba stayed on summer time (UTC-4).
    fn havana(expression: &str, due: &str) -> crate::monitor::MonitorState {
        let schedule = Schedule::cron(expression, "America/Havana").expect("a schedule");
        let mut state = monitor(schedule, 600.0, None);
        let _ = on_ping(
            &mut state,
            &signal(PingKind::Success, utc("2026-11-28T06:00:01Z")),
        );
        // By older data: UTC-5.
        state.next_due_at = Some(utc(due));
        state.deadline_at = Some(utc(due) + TimeDelta::minutes(10));
        state
    }

    #[test]
    fn a_due_that_is_no_slot_any_more_is_computed_anew() {
        let table = [
            // The older data named a time an hour too late.
            (
                "0 2 * * *",
                "2026-11-29T07:00:00Z",
                "2026-11-28T20:00:00Z",
                "2026-11-29T06:00:00Z",
            ),
            // That hour is over when the data change. Expect the next slot, because new data alone raise no alert.
            (
                "0 2 * * *",
                "2026-11-29T07:00:00Z",
                "2026-11-29T06:30:00Z",
                "2026-11-30T06:00:00Z",
            ),
            // A slot only by the older data.
            (
                "0 2 * * *",
                "2026-11-29T05:00:00Z",
                "2026-11-29T05:05:00Z",
                "2026-11-29T06:00:00Z",
            ),
            // Still a slot, but another one comes first.
            (
                "0 2,3 * * *",
                "2026-11-29T07:00:00Z",
                "2026-11-29T04:00:00Z",
                "2026-11-29T06:00:00Z",
            ),
        ];
        for (expression, due, now, expected) in table {
            let mut state = havana(expression, due);
            assert!(on_zone_data_change(&mut state, utc(now)), "{expression} at {now}");
            assert_eq!(state.next_due_at, Some(utc(expected)), "{expression} at {now}");
            assert_eq!(state.deadline_at, Some(utc(expected) + TimeDelta::minutes(10)));
            assert!(!on_zone_data_change(&mut state, utc(now)), "once is enough");
        }
    }

    #[test]
    fn a_due_that_is_a_slot_stays() {
        for (due, now) in [
            ("2026-11-29T06:00:00Z", "2026-11-28T20:00:00Z"),
            // Unsatisfied and late: this does not change.
            ("2026-11-29T06:00:00Z", "2026-11-29T06:05:00Z"),
            // A success shortly before 06:00 has satisfied that slot.
            ("2026-11-30T06:00:00Z", "2026-11-29T05:59:59Z"),
        ] {
            let mut state = havana("0 2 * * *", due);
            if due.starts_with("2026-11-30") {
                state.last_success_at = Some(utc("2026-11-29T05:59:58Z"));
            }
            let before = state.clone();
            assert!(!on_zone_data_change(&mut state, utc(now)), "{due} at {now}");
            assert_eq!(state, before);
        }
    }

    #[test]
    fn what_has_no_wall_clock_or_follows_beats_hint_stays() {
        let now = at(0.0);
        let mut every = monitor(interval(600.0), 60.0, None);
        let _ = on_ping(&mut every, &signal(PingKind::Success, now));
        assert!(!on_zone_data_change(&mut every, now));

        let mut hinted = havana("0 2 * * *", "2026-11-29T07:00:00Z");
        hinted.hinted_due_at = hinted.next_due_at;
        assert!(!on_zone_data_change(&mut hinted, utc("2026-11-28T20:00:00Z")));
    }

    #[test]
    fn a_paused_monitor_is_not_armed_by_it() {
        let mut state = havana("0 2 * * *", "2026-11-29T07:00:00Z");
        on_pause(&mut state, Trigger::Pause, utc("2026-11-28T12:00:00Z")).expect("it was not paused");

        assert!(on_zone_data_change(&mut state, utc("2026-11-28T20:00:00Z")));

        assert_eq!((state.status, state.deadline_at), (Status::Paused, None));
    }
}
