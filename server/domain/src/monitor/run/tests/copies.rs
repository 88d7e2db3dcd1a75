//! A message that begins again: as a retry, as a second copy, or as another run.

use super::{HOUR, event, only, try_of};
use crate::monitor::ping::PingKind::{Fail, Start, Success};
use crate::monitor::ping::{PingKind, Signal};
use crate::monitor::run::pairing::{finish, is_known, retried, start};
use crate::monitor::run::*;
use crate::monitor::transition::tests::{at, seconds, signal_of};

#[test]
fn an_event_is_known_once_it_has_changed_its_run_and_to_no_other_run() {
    let mut runs = Vec::new();
    let begun = event(1, Start, 1, 0.0);
    let retry = event(2, PingKind::Log, 1, 1.0);
    let begun_again = try_of(event(3, Start, 2, 2.0), 1);
    let over = try_of(event(4, Success, 2, 3.0), 1);
    for event in [&begun, &retry, &begun_again, &over] {
        assert!(!is_known(&runs, event));
        match event.kind {
            Start => drop(start(&mut runs, event, HOUR)),
            PingKind::Log => drop(retried(&mut runs, event)),
            Success | Fail => drop(finish(&mut runs, event)),
        }
        assert!(is_known(&runs, event), "{:?}", event.kind);
    }
    assert!(is_known(&runs, &begun), "the first event still is");
    let of_another = Signal {
        run_id: Some(Uuid::from_u128(2)),
        ..begun
    };
    assert!(!is_known(&runs, &of_another));
    assert!(
        !is_known(&runs, &signal_of(1, Start, at(0.0))),
        "a ping URL has no events"
    );
}

#[test]
fn the_newest_sixteen_events_of_a_run_are_remembered() {
    let mut runs = Vec::new();
    for number in 1..=20 {
        start(&mut runs, &event(number, Start, 1, 0.0), HOUR);
    }

    let known = (1..=20).filter(|number| is_known(&runs, &event(*number, Start, 1, 0.0)));

    assert_eq!(known.collect::<Vec<_>>(), (5..=20).collect::<Vec<_>>());
}

#[test]
fn a_message_that_begins_again_while_it_is_open_is_to_be_judged() {
    let mut runs = Vec::new();
    start(&mut runs, &event(1, Start, 1, 0.0), HOUR);
    assert_eq!((only(&runs).attempts, only(&runs).contest), (1, None));

    start(&mut runs, &event(2, Start, 1, 1.0), HOUR);
    assert_eq!(
        (only(&runs).attempts, only(&runs).contest),
        (1, None),
        "the same execution"
    );
    start(&mut runs, &event(3, Start, 2, 100.0), HOUR);

    let run = only(&runs);
    assert_eq!((run.attempts, run.contest), (2, Some(Contest::Again)));
    assert_eq!(run.deadline_at, Some(at(100.0) + CONTEST_PATIENCE));
    assert_eq!(run.started_at, Some(at(1.0)), "it has run since then");
    start(&mut runs, &event(4, Start, 3, 102.0), HOUR);
    assert_eq!(
        (only(&runs).attempts, only(&runs).deadline_at),
        (3, Some(at(107.0))),
        "the first doubt stays"
    );
}

#[test]
fn a_contest_never_puts_a_deadline_off() {
    let mut runs = Vec::new();
    start(&mut runs, &event(1, Start, 1, 0.0), seconds(12));

    start(&mut runs, &event(2, Start, 2, 10.0), seconds(12));

    assert_eq!(only(&runs).deadline_at, Some(at(12.0)));
}

#[test]
fn a_contest_that_was_reported_is_not_judged_again() {
    let mut runs = Vec::new();
    start(&mut runs, &event(1, Start, 1, 0.0), HOUR);
    runs[0].contest = Some(Contest::Alerted);

    start(&mut runs, &event(2, Start, 2, 10.0), HOUR);

    assert_eq!(
        (only(&runs).contest, only(&runs).deadline_at),
        (Some(Contest::Alerted), Some(at(0.0) + HOUR))
    );
}

#[test]
fn a_retry_and_a_ping_url_contest_nothing() {
    let mut runs = Vec::new();
    start(&mut runs, &event(1, Start, 1, 0.0), HOUR);
    start(&mut runs, &try_of(event(2, Start, 2, 10.0), 1), HOUR);
    assert_eq!((only(&runs).attempts, only(&runs).contest), (1, None));
    assert_eq!(only(&runs).started_at, Some(at(0.0)));

    let mut runs = Vec::new();
    start(&mut runs, &signal_of(1, Start, at(0.0)), HOUR);
    start(&mut runs, &signal_of(1, Start, at(10.0)), HOUR);
    assert_eq!((only(&runs).attempts, only(&runs).contest), (1, None));
}

#[test]
fn a_message_that_begins_again_after_it_ended_well_is_repeated_and_after_a_failure_is_not() {
    for (end, expected) in [(Success, Some(Contest::Repeated)), (Fail, None)] {
        let mut runs = Vec::new();
        start(&mut runs, &event(1, Start, 1, 0.0), HOUR);
        finish(&mut runs, &event(2, end, 1, 5.0));

        let again = start(&mut runs, &event(3, Start, 2, 60.0), HOUR).unwrap();

        assert_eq!(
            (again.contest, again.attempts, again.is_open()),
            (expected, 1, true),
            "{end:?}"
        );
        let deadline = if expected.is_some() {
            at(60.0) + CONTEST_PATIENCE
        } else {
            at(60.0) + HOUR
        };
        assert_eq!(again.deadline_at, Some(deadline), "{end:?}");
    }
}

#[test]
fn a_repeated_message_that_ends_well_at_once_is_proved() {
    let mut runs = Vec::new();
    start(&mut runs, &event(1, Start, 1, 0.0), HOUR);
    finish(&mut runs, &event(2, Success, 1, 5.0));
    start(&mut runs, &event(3, Start, 2, 60.0), HOUR);

    let twice = finish(&mut runs, &event(4, Success, 2, 60.1)).unwrap();

    assert_eq!(
        (twice.status, twice.contest),
        (RunStatus::Success, Some(Contest::Proved))
    );
}

#[test]
fn a_third_execution_that_ends_well_after_the_first_one_did_proves_it_whatever_became_of_the_second() {
    let mut runs = Vec::new();
    start(&mut runs, &event(1, Start, 1, 0.0), HOUR);
    start(&mut runs, &event(2, Start, 2, 10.0), HOUR);
    finish(&mut runs, &event(3, Success, 1, 12.0));

    start(&mut runs, &event(4, Start, 3, 13.0), HOUR);
    assert_eq!(
        (only(&runs).contest, only(&runs).deadline_at),
        (Some(Contest::Repeated), Some(at(12.0) + CONTEST_PATIENCE))
    );
    finish(&mut runs, &event(5, Success, 3, 14.0));

    assert_eq!(
        (only(&runs).status, only(&runs).contest),
        (RunStatus::Success, Some(Contest::Proved))
    );
}

#[test]
fn an_earlier_judgement_of_a_run_moves_not_when_the_end_of_one_execution_was_received() {
    let mut runs = Vec::new();
    start(&mut runs, &event(1, Start, 1, 0.0), HOUR);
    start(&mut runs, &event(2, Start, 2, 10.0), HOUR);
    finish(&mut runs, &event(3, Success, 1, 12.0));
    // The owner of the second execution ended, so the evaluator judges the run now.
    runs[0].deadline_at = Some(at(13.0));

    // A start that occurred before that end was only delayed on its way.
    start(&mut runs, &event(4, Start, 3, 11.0), HOUR);

    assert_eq!(
        (only(&runs).contest, only(&runs).ended_at),
        (Some(Contest::Ended), Some(at(12.0)))
    );
}

#[test]
fn where_the_last_release_noted_no_end_it_is_seven_seconds_before_the_deadline() {
    for (began, expected) in [(11.0, Contest::Ended), (13.0, Contest::Repeated)] {
        let mut runs = Vec::new();
        start(&mut runs, &event(1, Start, 1, 0.0), HOUR);
        start(&mut runs, &event(2, Start, 2, 10.0), HOUR);
        finish(&mut runs, &event(3, Success, 1, 12.0));
        assert_eq!(only(&runs).deadline_at, Some(at(12.0) + CONTEST_PATIENCE));
        runs[0].ended_at = None;

        start(&mut runs, &event(4, Start, 3, began), HOUR);

        assert_eq!(only(&runs).contest, Some(expected), "{began}");
    }
}

/// The task raised `Ignore`: another execution holds its lock, or has done the work.
fn ignored(number: u128, attempt: u128, seconds: f64) -> Signal {
    let mut signal = event(number, Success, attempt, seconds);
    signal.detail.run.outcome = Some(Outcome::Ignored);
    signal
}

#[test]
fn an_execution_that_was_ignored_proves_nothing() {
    let mut runs = Vec::new();
    start(&mut runs, &event(1, Start, 1, 0.0), HOUR);
    finish(&mut runs, &event(2, Success, 1, 5.0));
    start(&mut runs, &event(3, Start, 2, 60.0), HOUR);
    let after = finish(&mut runs, &ignored(4, 2, 60.1)).unwrap();
    assert_eq!(
        (after.status, after.contest),
        (RunStatus::Success, Some(Contest::Repeated)),
        "begun again after its end: closed, and not reported"
    );

    let mut runs = Vec::new();
    start(&mut runs, &event(1, Start, 1, 0.0), HOUR);
    start(&mut runs, &event(2, Start, 2, 10.0), HOUR);
    let beside = finish(&mut runs, &ignored(3, 2, 10.1)).unwrap();
    assert!(beside.is_open(), "the first execution continues");
    assert_eq!(
        beside.contest,
        Some(Contest::Again),
        "and the doubt about it stays"
    );

    let mut runs = Vec::new();
    start(&mut runs, &event(1, Start, 1, 0.0), HOUR);
    start(&mut runs, &event(2, Start, 2, 10.0), HOUR);
    finish(&mut runs, &event(3, Success, 1, 12.0));
    let both = finish(&mut runs, &ignored(4, 2, 13.0)).unwrap();
    assert_eq!(
        (both.status, both.contest),
        (RunStatus::Success, Some(Contest::Ended))
    );
}

#[test]
fn a_message_of_the_same_id_that_was_sent_after_the_end_is_another_one() {
    for (sent, expected) in [
        (59.0, None),
        (5.0, Some(Contest::Repeated)),
        (0.0, Some(Contest::Repeated)),
    ] {
        let mut runs = Vec::new();
        start(&mut runs, &event(1, Start, 1, 0.0), HOUR);
        finish(&mut runs, &event(2, Success, 1, 5.0));
        let mut next = event(3, Start, 2, 60.0);
        next.detail.published_at = Some(at(sent));

        let run = start(&mut runs, &next, HOUR).unwrap();

        assert_eq!(run.contest, expected, "sent at {sent}");
    }
}

#[test]
fn a_start_from_before_the_end_is_no_repetition_however_late_it_is_received() {
    let mut runs = Vec::new();
    start(&mut runs, &event(1, Start, 1, 0.0), HOUR);
    start(&mut runs, &event(3, Start, 3, 10.0), HOUR);
    finish(&mut runs, &event(4, Success, 3, 12.0));

    start(&mut runs, &event(2, Start, 2, 5.0), HOUR);

    assert_eq!(
        (only(&runs).contest, only(&runs).attempts),
        (Some(Contest::Ended), 3)
    );
}

#[test]
fn a_start_that_is_received_after_its_end_repeats_nothing() {
    let mut runs = Vec::new();
    finish(&mut runs, &event(2, Success, 1, 5.0));

    start(&mut runs, &event(1, Start, 1, 0.0), HOUR);

    let run = only(&runs);
    assert_eq!(
        (run.status, run.started_at, run.duration),
        (RunStatus::Success, Some(at(0.0)), Some(seconds(5)))
    );
}
