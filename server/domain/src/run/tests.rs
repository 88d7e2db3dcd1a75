//! Pairing starts with ends.

use super::*;
use crate::ping::PingKind::{Fail, Start, Success};
use crate::transition::tests::{at, seconds, signal, signal_of};

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
fn an_end_of_an_unknown_id_is_a_run_of_which_only_the_end_was_heard() {
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
        "a plain end with nothing open is just a ping"
    );
}

#[test]
fn a_repeated_start_begins_anew_and_a_retry_goes_on() {
    let mut runs = Vec::new();
    start(&mut runs, &signal_of(1, Start, at(0.0)), HOUR);
    let mut retry = signal_of(1, Start, at(100.0));
    retry.detail.retries = 1;

    let retried = start(&mut runs, &retry, HOUR).unwrap().clone();
    let repeated = start(&mut runs, &signal_of(1, Start, at(200.0)), HOUR)
        .unwrap()
        .clone();

    assert_eq!(
        (retried.started_at, retried.deadline_at),
        (Some(at(0.0)), Some(at(0.0) + HOUR))
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
        "a known one may start again"
    );
    finish(&mut runs, &signal_of(0, Success, at(2.0)));
    assert!(start(&mut runs, &signal_of(9_999, Start, at(3.0)), HOUR).is_some());
}
