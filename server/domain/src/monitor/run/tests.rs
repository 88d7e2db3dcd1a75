//! Pairing starts with ends.

mod copies;

use super::*;
use crate::limits;
use crate::monitor::ping::PingKind::{Fail, Start, Success};
use crate::monitor::ping::{PingKind, Signal, Source};
use crate::monitor::run::pairing::{close_overdue, finish, is_known, retried, start};
use crate::monitor::transition::tests::{at, seconds, signal, signal_of};

const HOUR: TimeDelta = TimeDelta::hours(1);

#[test]
fn an_end_closes_the_run_of_its_id_and_no_other() {
    let mut runs = Vec::new();
    let first = start(&mut runs, &signal_of(1, Start, at(0.0)), HOUR).unwrap().key;
    let second = start(&mut runs, &signal_of(2, Start, at(10.0)), HOUR)
        .unwrap()
        .key;

    let ended = finish(&mut runs, &signal_of(2, Fail, at(15.0))).unwrap();

    assert_eq!(
        (ended.key, ended.status, ended.duration),
        (second, RunStatus::Fail, Some(seconds(5)))
    );
    assert!(runs.iter().any(|run| run.key == first && run.is_open()));
}

#[test]
fn a_plain_end_closes_the_only_open_run_and_claims_no_length_for_a_named_one() {
    for (id, duration) in [(None, Some(seconds(5))), (Some(Uuid::from_u128(1)), None)] {
        let mut runs = Vec::new();
        start(
            &mut runs,
            &Signal {
                run_id: id,
                ..signal(Start, at(0.0))
            },
            HOUR,
        );

        let ended = finish(&mut runs, &signal(Success, at(5.0))).unwrap();

        assert_eq!(
            (ended.status, ended.duration),
            (RunStatus::Success, duration),
            "{id:?}"
        );
    }
}

#[test]
fn a_plain_end_among_several_named_runs_closes_none() {
    let mut runs = Vec::new();
    start(&mut runs, &signal_of(1, Start, at(0.0)), HOUR);
    start(&mut runs, &signal_of(2, Start, at(1.0)), HOUR);

    assert!(finish(&mut runs, &signal(Success, at(5.0))).is_none());

    assert!(runs.iter().all(Run::is_open));
}

#[test]
fn an_end_of_an_unknown_id_is_a_run_of_which_only_the_end_was_received() {
    let mut runs = Vec::new();

    let silent = finish(&mut runs, &signal_of(1, Success, at(9.0)))
        .unwrap()
        .clone();
    let measured = finish(
        &mut runs,
        &Signal {
            duration: Some(seconds(4)),
            ..signal_of(2, Success, at(9.0))
        },
    )
    .unwrap();

    assert_eq!((silent.started_at, silent.duration), (None, None));
    assert_eq!(
        (measured.started_at, measured.duration),
        (Some(at(5.0)), Some(seconds(4)))
    );
    assert!(
        finish(&mut runs, &signal(Success, at(10.0))).is_none(),
        "an end without an id and without an open run is only a ping"
    );
}

#[test]
fn a_repeated_start_begins_anew_and_a_retry_goes_on() {
    let mut runs = Vec::new();
    start(&mut runs, &signal_of(1, Start, at(0.0)), HOUR);
    let mut retry = signal_of(1, Start, at(100.0));
    retry.detail.run.retries = 1;

    let retried = start(&mut runs, &retry, HOUR).unwrap().clone();
    let repeated = start(&mut runs, &signal_of(1, Start, at(200.0)), HOUR)
        .unwrap()
        .clone();

    assert_eq!(
        (retried.started_at, retried.deadline_at),
        (Some(at(0.0)), Some(at(100.0) + HOUR)),
        "each attempt has its own time"
    );
    assert_eq!(
        (repeated.started_at, repeated.deadline_at),
        (Some(at(200.0)), Some(at(200.0) + HOUR))
    );
    assert_eq!(runs.len(), 1);
}

#[test]
fn an_id_that_is_used_again_is_a_new_run() {
    let mut runs = Vec::new();
    let first = start(&mut runs, &signal_of(1, Start, at(0.0)), HOUR).unwrap().key;
    finish(&mut runs, &signal_of(1, Success, at(1.0)));

    let second = start(&mut runs, &signal_of(1, Start, at(2.0)), HOUR).unwrap().key;

    assert_ne!(first, second);
    assert_eq!(runs.iter().filter(|run| run.is_open()).count(), 1);
}

#[test]
fn an_end_before_its_start_by_a_clock_that_is_off_takes_no_time() {
    let mut runs = Vec::new();
    start(&mut runs, &signal_of(1, Start, at(10.0)), HOUR);

    let ended = finish(&mut runs, &signal_of(1, Success, at(9.0))).unwrap();

    assert_eq!(
        (ended.finished_at, ended.duration),
        (Some(at(10.0)), Some(seconds(0)))
    );
}

#[test]
fn starts_beyond_the_limit_open_nothing_and_ends_make_room() {
    let mut runs = Vec::new();
    for id in 0..limits::OPEN_RUNS as u128 {
        assert!(start(&mut runs, &signal_of(id, Start, at(0.0)), HOUR).is_some());
    }

    assert!(start(&mut runs, &signal_of(9_999, Start, at(1.0)), HOUR).is_none());
    assert!(
        start(&mut runs, &signal_of(0, Start, at(1.0)), HOUR).is_some(),
        "a known run may start again"
    );
    finish(&mut runs, &signal_of(0, Success, at(2.0)));
    assert!(start(&mut runs, &signal_of(9_999, Start, at(3.0)), HOUR).is_some());
}

/// An event of run 1 from the SDK: the event's number, and the attempt that it is about. Attempt 0: the main process
/// sends it.
fn event(number: u128, kind: PingKind, attempt: u128, seconds: f64) -> Signal {
    let mut event = Signal {
        source: Source::Event,
        ..signal_of(1, kind, at(seconds))
    };
    event.detail.event = Some(Uuid::from_u128(number));
    event.detail.run.attempt = (attempt > 0).then(|| Uuid::from_u128(1_000 + attempt));
    event
}

fn ended(number: u128, outcome: Outcome, attempt: u128, seconds: f64) -> Signal {
    let mut event = event(number, Fail, attempt, seconds);
    event.detail.run.outcome = Some(outcome);
    event
}

fn try_of(mut signal: Signal, retries: i32) -> Signal {
    signal.detail.run.retries = retries;
    signal
}

fn only(runs: &[Run]) -> &Run {
    assert_eq!(runs.len(), 1, "{runs:?}");
    &runs[0]
}

#[test]
fn a_try_that_ends_leaves_its_run_open_until_the_next_one() {
    let mut runs = Vec::new();
    start(&mut runs, &event(1, Start, 1, 0.0), HOUR);

    retried(&mut runs, &event(2, PingKind::Log, 1, 10.0));
    assert_eq!((only(&runs).is_open(), only(&runs).attempts), (true, 0));
    assert_eq!(only(&runs).deadline_at, Some(at(10.0) + TimeDelta::days(1)));
    start(&mut runs, &try_of(event(3, Start, 2, 7_200.0), 1), HOUR);
    assert_eq!(
        (only(&runs).attempts, only(&runs).deadline_at),
        (1, Some(at(7_200.0) + HOUR))
    );
    finish(&mut runs, &try_of(event(4, Success, 2, 7_201.0), 1));

    assert_eq!(
        (only(&runs).status, only(&runs).duration),
        (RunStatus::Success, Some(seconds(7_201)))
    );
    assert!(
        retried(&mut runs, &event(5, PingKind::Log, 1, 7_202.0)).is_none(),
        "it is over"
    );
}

#[test]
fn a_report_of_a_try_that_comes_after_the_next_one_has_begun_changes_nothing() {
    // A retry without a countdown begins before its worker has reported the end of the first attempt.
    let mut runs = Vec::new();
    start(&mut runs, &event(1, Start, 1, 0.0), HOUR);
    start(&mut runs, &try_of(event(3, Start, 2, 10.0), 1), HOUR);
    let before = only(&runs).clone();

    let late = event(2, PingKind::Log, 1, 10.1);
    retried(&mut runs, &late);

    assert_eq!(
        (only(&runs).deadline_at, only(&runs).attempts),
        (before.deadline_at, before.attempts)
    );
    assert!(is_known(&runs, &late));
}

#[test]
fn a_retry_drops_what_was_to_be_judged_and_keeps_what_was_reported() {
    for (before, after) in [(Contest::Again, None), (Contest::Alerted, Some(Contest::Alerted))] {
        let mut runs = Vec::new();
        start(&mut runs, &event(1, Start, 1, 0.0), HOUR);
        runs[0].contest = Some(before);

        retried(&mut runs, &event(2, PingKind::Log, 1, 10.0));

        assert_eq!(only(&runs).contest, after, "{before:?}");
    }
}

#[test]
fn what_was_aborted_waits_for_the_main_process_and_takes_its_report() {
    for outcome in [Outcome::Lost, Outcome::TimeLimit, Outcome::Revoked] {
        let mut runs = Vec::new();
        start(&mut runs, &event(1, Start, 1, 0.0), HOUR);

        let aborted = finish(&mut runs, &ended(2, Outcome::Aborted, 1, 10.0)).unwrap();
        assert_eq!(
            (aborted.is_open(), aborted.deadline_at),
            (true, Some(at(10.0) + ABORTED_PATIENCE))
        );
        let finished = finish(&mut runs, &ended(3, outcome, 0, 12.0)).unwrap();

        assert_eq!(
            (finished.status, finished.detail.outcome),
            (RunStatus::Fail, Some(outcome))
        );
        assert_eq!(
            finished.detail.attempt,
            Some(Uuid::from_u128(1_001)),
            "the main process knows of no attempt"
        );
        assert_eq!(runs.len(), 1);
    }
}

#[test]
fn what_the_main_process_said_first_stands_when_the_abort_is_received() {
    let mut runs = Vec::new();
    start(&mut runs, &event(1, Start, 1, 0.0), HOUR);
    finish(&mut runs, &ended(3, Outcome::TimeLimit, 0, 10.0));
    let before = only(&runs).clone();

    let after = finish(&mut runs, &ended(2, Outcome::Aborted, 1, 10.5)).unwrap();

    assert_eq!(
        (after.status, after.detail.outcome),
        (RunStatus::Fail, Some(Outcome::TimeLimit))
    );
    assert_eq!(
        (after.finished_at, after.duration),
        (before.finished_at, before.duration)
    );
}

#[test]
fn an_abort_of_the_execution_before_says_nothing_of_the_one_that_goes_on() {
    let mut runs = Vec::new();
    start(&mut runs, &event(1, Start, 1, 0.0), HOUR);
    start(&mut runs, &event(2, Start, 2, 100.0), HOUR);
    runs[0].contest = None;
    runs[0].deadline_at = Some(at(0.0) + HOUR);

    let run = finish(&mut runs, &ended(3, Outcome::Aborted, 1, 101.0)).unwrap();

    assert_eq!(
        (run.is_open(), run.detail.outcome, run.deadline_at),
        (true, None, Some(at(0.0) + HOUR))
    );
}

#[test]
fn an_abort_of_an_overrun_is_its_end() {
    let mut runs = Vec::new();
    start(&mut runs, &event(1, Start, 1, 0.0), seconds(5));
    close_overdue(&mut runs, at(5.0));

    let run = finish(&mut runs, &ended(2, Outcome::Aborted, 1, 9.0)).unwrap();

    assert_eq!((run.status, run.duration), (RunStatus::Overrun, Some(seconds(9))));
}
