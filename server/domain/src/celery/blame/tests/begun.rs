//! Runs that began, and last too long or began more than once.

use super::*;
use crate::monitor::run::{Contest, Run};

#[test]
fn an_overrun_is_blamed_on_what_became_of_its_worker() {
    let runs_it = WorkerView {
        active: 1,
        reserved: 1,
        running: Some(vec![RUN]),
        ..worker(1)
    };
    let says_nothing = WorkerView {
        running: None,
        ..worker(1)
    };
    let silent = WorkerView {
        last_seen_at: Some(at(1.0)),
        ..worker(1)
    };
    for (what, workers, expected) in [
        ("it runs on", vec![runs_it.clone()], own(Cause::Overrun)),
        (
            "its worker does not list its runs",
            vec![says_nothing],
            own(Cause::Overrun),
        ),
        (
            "its worker no longer lists it",
            vec![worker(1)],
            own(Cause::WorkerKilled),
        ),
        (
            "its worker no longer lists it, and has clock skew",
            vec![in_trouble(1, Cause::ClockSkew)],
            own(Cause::WorkerKilled),
        ),
        ("its worker is unknown", vec![worker(2)], own(Cause::Overrun)),
        (
            "its worker is lost",
            vec![lost(1)],
            of_worker(1, Cause::WorkerLost),
        ),
        (
            "its worker is a ghost",
            vec![in_trouble(1, Cause::GhostWorker)],
            own(Cause::Overrun),
        ),
        (
            "its worker was restarted",
            vec![WorkerView {
                started_at: Some(at(10.0)),
                ..worker(1)
            }],
            own(Cause::WorkerLost),
        ),
        (
            "its worker has not reported since",
            vec![silent],
            Blame::Wait(at(130.0)),
        ),
        (
            "its worker listed it, and has missed reports",
            vec![WorkerView {
                last_seen_at: Some(at(89.0)),
                ..runs_it
            }],
            Blame::Wait(at(130.0)),
        ),
        (
            "its worker has stopped",
            vec![WorkerView {
                status: Status::Paused,
                deadline_at: None,
                ..worker(1)
            }],
            own(Cause::Overrun),
        ),
    ] {
        let evidence = Evidence { workers, ..scene() };
        assert_eq!(evidence.of_overrun(&run(), at(100.0)), expected, "{what}");
    }
    let by_a_person = Run {
        detail: RunDetail::default(),
        ..run()
    };
    assert_eq!(
        Evidence::default().of_overrun(&by_a_person, at(100.0)),
        own(Cause::Overrun)
    );
    let unnamed = Run {
        run_id: None,
        ..run()
    };
    assert_eq!(scene().of_overrun(&unnamed, at(100.0)), own(Cause::Overrun));
}

#[test]
fn a_retry_that_never_came_was_not_killed() {
    let between_two_tries = Run { attempts: 0, ..run() };

    assert_eq!(
        scene().of_overrun(&between_two_tries, at(100.0)),
        own(Cause::Overrun)
    );
}

#[test]
fn a_message_that_began_again_is_judged_by_how_many_of_it_are_alive() {
    let runs = |number, times: usize| WorkerView {
        running: Some(vec![RUN; times]),
        ..worker(number)
    };
    let again = |attempts| Run {
        contest: Some(Contest::Again),
        attempts,
        ..run()
    };
    let silent = |number| WorkerView {
        last_seen_at: Some(at(94.0)),
        ..worker(number)
    };
    for (what, run, workers, now, expected) in [
        (
            "two executions on one worker",
            again(2),
            vec![runs(1, 2)],
            100.0,
            Contested::Trouble(Cause::DuplicateRun),
        ),
        (
            "one execution on each of two workers",
            again(2),
            vec![runs(1, 1), runs(2, 1)],
            100.0,
            Contested::Trouble(Cause::DuplicateRun),
        ),
        (
            "one execution on each of two workers, one with clock skew",
            again(2),
            vec![
                runs(1, 1),
                WorkerView {
                    running: Some(vec![RUN]),
                    ..in_trouble(2, Cause::ClockSkew)
                },
            ],
            100.0,
            Contested::Trouble(Cause::DuplicateRun),
        ),
        (
            "the first execution is dead",
            again(2),
            vec![runs(1, 1), worker(2)],
            100.0,
            Contested::Settled,
        ),
        (
            "the first execution died with its worker",
            again(2),
            vec![
                runs(1, 1),
                WorkerView {
                    running: Some(vec![RUN]),
                    ..lost(2)
                },
            ],
            100.0,
            Contested::Settled,
        ),
        (
            "both executions are dead",
            again(2),
            vec![worker(1)],
            100.0,
            Contested::Settled,
        ),
        (
            "it begins for the third time, and the other executions are dead",
            again(3),
            vec![runs(1, 1)],
            100.0,
            Contested::Trouble(Cause::RedeliveryLoop),
        ),
        (
            "it begins for the third time, and two executions are alive",
            again(3),
            vec![runs(1, 2)],
            100.0,
            Contested::Trouble(Cause::DuplicateRun),
        ),
        (
            "a worker has not reported since",
            again(2),
            vec![runs(1, 1), silent(2)],
            100.0,
            Contested::Wait(at(102.0)),
        ),
        (
            "a worker has not reported for long",
            again(2),
            vec![runs(1, 1), silent(2)],
            120.0,
            Contested::Settled,
        ),
        (
            "no worker lists its runs",
            again(2),
            vec![WorkerView {
                running: None,
                ..silent(1)
            }],
            100.0,
            Contested::Settled,
        ),
        (
            "it had succeeded before",
            Run {
                contest: Some(Contest::Repeated),
                ..run()
            },
            vec![worker(1)],
            100.0,
            Contested::Trouble(Cause::DuplicateRun),
        ),
    ] {
        let evidence = Evidence { workers, ..scene() };
        assert_eq!(evidence.of_contested(&run, at(now)), expected, "{what}");
    }
    // The newest execution began 7 s before. A report from before that proves nothing.
    assert_eq!(run().deadline_at.unwrap() - CONTEST_PATIENCE + AFTER, at(95.0));
}
