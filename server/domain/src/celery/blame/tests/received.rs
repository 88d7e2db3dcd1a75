//! Runs that a worker received, and has not begun.

use super::*;

#[test]
fn a_message_that_a_worker_took_and_has_not_begun_is_blamed_on_what_keeps_it() {
    let idle_elsewhere = WorkerView {
        queues: vec!["mail".to_owned()],
        ..worker(2)
    };
    let holds = WorkerView {
        reserved: 1,
        progress_at: at(61.0),
        ..worker(1)
    };
    let stopped = WorkerView {
        status: Status::Paused,
        deadline_at: None,
        ..worker(1)
    };
    for (what, workers, expected) in [
        ("nothing is known of it", vec![worker(2)], own(Cause::Unknown)),
        ("it is lost", vec![lost(1)], of_worker(1, Cause::WorkerLost)),
        (
            "it is a ghost",
            vec![in_trouble(1, Cause::GhostWorker)],
            of_worker(1, Cause::GhostWorker),
        ),
        (
            "it was restarted",
            vec![WorkerView {
                started_at: Some(at(70.0)),
                ..worker(1)
            }],
            own(Cause::WorkerLost),
        ),
        (
            "it has been silent since",
            vec![WorkerView {
                last_seen_at: Some(at(60.0)),
                deadline_at: Some(at(110.0)),
                ..worker(1)
            }],
            Blame::Wait(at(112.0)),
        ),
        (
            "it was busy, and has missed reports: it may be dead",
            vec![WorkerView {
                last_seen_at: Some(at(89.0)),
                deadline_at: Some(at(119.0)),
                ..busy(1)
            }],
            Blame::Wait(at(121.0)),
        ),
        ("it hangs, perhaps", vec![holds.clone()], Blame::Wait(at(141.0))),
        (
            "it holds the message for its ETA",
            vec![WorkerView {
                held: 1,
                ..holds.clone()
            }],
            own(Cause::Unknown),
        ),
        (
            "it could begin, and holds nothing",
            vec![worker(1)],
            own(Cause::Unknown),
        ),
        (
            "it is busy, and another worker is idle",
            vec![busy(1), worker(2)],
            own(Cause::PrefetchStarvation),
        ),
        (
            "all workers are busy",
            vec![busy(1), busy(2)],
            named(Cause::QueueSlaBreach),
        ),
        (
            "it is busy, and the idle worker has another queue",
            vec![busy(1), idle_elsewhere],
            named(Cause::QueueSlaBreach),
        ),
        (
            "it is busy, and the idle worker is a ghost",
            vec![busy(1), in_trouble(2, Cause::GhostWorker)],
            named(Cause::QueueSlaBreach),
        ),
        (
            "it is busy, and the idle worker has clock skew",
            vec![busy(1), in_trouble(2, Cause::ClockSkew)],
            own(Cause::PrefetchStarvation),
        ),
        (
            "it is busy, and has clock skew",
            vec![
                WorkerView {
                    status: Status::Down,
                    trouble: Some(Cause::ClockSkew),
                    ..busy(1)
                },
                worker(2),
            ],
            own(Cause::PrefetchStarvation),
        ),
        (
            "it has stopped, and another worker is up",
            vec![stopped.clone(), worker(2)],
            own(Cause::LostInBroker),
        ),
        (
            "it has stopped, and no worker is up",
            vec![stopped],
            own(Cause::Unknown),
        ),
    ] {
        let evidence = Evidence {
            stage: Some(received(1)),
            workers,
            ..scene()
        };
        assert_eq!(missed(&evidence), expected, "{what}");
    }
}

#[test]
fn a_worker_that_has_just_taken_it_has_a_moment_to_say_that_it_began() {
    for (now, expected) in [
        (61.0, Blame::Wait(at(63.0))),
        (62.9, Blame::Wait(at(63.0))),
        (63.0, own(Cause::Unknown)),
        // The server's clock has stepped back since.
        (60.5, own(Cause::Unknown)),
    ] {
        let mut evidence = Evidence {
            stage: Some(received(1)),
            ..scene()
        };
        evidence.workers[0].last_seen_at = Some(at(62.0));
        assert_eq!(
            evidence.of_missed(Some(at(56.0)), EARLY, at(now)),
            expected,
            "at {now}"
        );
    }
}

#[test]
fn a_worker_that_goes_on_with_others_is_not_waited_for_as_a_ghost_for_ever() {
    let mut evidence = Evidence {
        stage: Some(received(1)),
        ..scene()
    };
    evidence.workers[0].reserved = 3;
    let judged = |evidence: &mut Evidence, now: f64| {
        evidence.workers[0].progress_at = at(now - 1.0);
        evidence.workers[0].last_seen_at = Some(at(now - 1.0));
        evidence.of_missed(Some(at(60.0)), EARLY, at(now))
    };

    assert!(matches!(judged(&mut evidence, 100.0), Blame::Wait(_)));
    assert_eq!(judged(&mut evidence, 201.0), own(Cause::Unknown));
}

#[test]
fn a_rate_limit_of_its_task_is_named_and_that_of_another_one_is_not() {
    let limiting = |task: &str| WorkerView {
        reserved: 4,
        unacked: 4,
        held: 4,
        limited: vec![task.to_owned()],
        ..worker(1)
    };
    let limited = PartOf::Worker(worker(1).id);
    for (task, expected) in [
        ("shop.job", Blame::Named(limited, Cause::RateLimited)),
        ("shop.other", own(Cause::Unknown)),
    ] {
        let evidence = Evidence {
            stage: Some(received(1)),
            workers: vec![limiting(task)],
            ..scene()
        };
        assert_eq!(missed(&evidence), expected, "{task}");
    }

    // It waits in front of a worker that is full of messages held by the limit. Another worker would receive it.
    let before = |workers: Vec<WorkerView>| Evidence {
        stage: Some(sent()),
        queues: vec![QueueView { depth: 3, ..queue() }],
        workers,
        ..scene()
    };
    assert_eq!(
        missed(&before(vec![limiting("shop.job")])),
        Blame::Named(limited, Cause::RateLimited)
    );
    assert_eq!(
        missed(&before(vec![limiting("shop.job"), busy(2)])),
        Blame::Wait(at(120.0)),
        "the worker with a free process may hang"
    );
}

#[test]
fn a_message_that_a_worker_dropped_before_it_began_is_part_of_the_clock_that_is_off() {
    let skewed = |number: u128, since: f64| WorkerView {
        skewed_since: Some(at(since)),
        ..worker(number)
    };
    let alerted = WorkerView {
        status: Status::Down,
        trouble: Some(Cause::ClockSkew),
        ..skewed(1, 70.0)
    };
    let all_begun = WorkerView {
        active: 2,
        reserved: 2,
        ..alerted.clone()
    };
    let holds_more = WorkerView {
        active: 2,
        reserved: 4,
        ..alerted.clone()
    };
    for (what, workers, expected) in [
        (
            "its skew will soon have an incident",
            vec![skewed(1, 85.0)],
            Blame::Wait(at(107.0)),
        ),
        ("it is told", vec![alerted], of_worker(1, Cause::ClockSkew)),
        (
            "its skew lasted for a moment",
            vec![skewed(1, 60.0)],
            own(Cause::Unknown),
        ),
        (
            "its skew has an incident, and the worker is busy with other tasks",
            vec![all_begun],
            of_worker(1, Cause::ClockSkew),
        ),
        (
            "its skew has an incident, and the message may wait in it",
            vec![holds_more],
            named(Cause::QueueSlaBreach),
        ),
        (
            "another worker has clock skew",
            vec![worker(1), skewed(2, 85.0)],
            own(Cause::Unknown),
        ),
    ] {
        let evidence = Evidence {
            stage: Some(received(1)),
            workers,
            ..scene()
        };
        assert_eq!(missed(&evidence), expected, "{what}");
    }

    let by_beat = Evidence {
        stage: Some(received(1)),
        beat: Some(BeatView {
            skewed_since: Some(at(85.0)),
            ..beat()
        }),
        ..scene()
    };
    assert_eq!(missed(&by_beat), Blame::Wait(at(107.0)));
}
