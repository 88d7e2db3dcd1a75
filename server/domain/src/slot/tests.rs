//! Credit as tables.

use super::*;
use crate::transition::tests::{at, cron, interval};

#[test]
fn a_report_is_credited_to_the_earliest_slot_that_is_owed() {
    // Every ten minutes from noon; the tolerance is 30 s: (due, report, due afterwards)
    let table = [
        (600.0, 600.0, 1_200.0),   // on time
        (600.0, 601.0, 1_200.0),   // late
        (600.0, 1_199.0, 1_200.0), // late, and so near the next slot: still the owed one's
        (600.0, 1_200.0, 1_800.0), // at the next slot: both
        (600.0, 4_000.0, 4_200.0), // several missed ones at once
        (600.0, 570.0, 1_200.0),   // 30 s early counts
        (600.0, 569.9, 600.0),     // 30.1 s early does not
        (600.0, 100.0, 600.0),     // an extra report between slots
        (600.0, -9_000.0, 600.0),  // an old one, replayed
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
    // Lord Howe skips 02:00 to 02:30 on 4 October 2026 (15:30Z): Beat, coming from before, sends 02:20 at 02:50, and 02:35 not at
    // all; one that is asked within the half hour after the change would name 02:35.
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
