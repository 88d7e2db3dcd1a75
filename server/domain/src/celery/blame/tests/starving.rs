//! A worker that reports now and then. Each report moves its deadline on, but no run may wait forever.

use super::*;
use crate::celery::host::load::HostLoad;
use uuid::Uuid;

/// A worker whose last report came `ago` seconds before `now`, and that may be silent for 30 s.
fn spoke(ago: f64, now: f64) -> WorkerView {
    WorkerView {
        last_seen_at: Some(at(now - ago)),
        deadline_at: Some(at(now - ago + 30.0)),
        progress_at: at(now - ago),
        ..worker(1)
    }
}

fn judged(stage: &StageView, now: f64) -> Blame {
    judged_with(stage, spoke(12.0, now), now)
}

fn judged_with(stage: &StageView, worker: WorkerView, now: f64) -> Blame {
    let mut evidence = scene();
    evidence.beat = Some(BeatView {
        last_seen_at: Some(at(now)),
        deadline_at: Some(at(now + 75.0)),
        ..beat()
    });
    evidence.broker = Some(BrokerView {
        seen_at: Some(at(now - 3.0)),
        ..broker()
    });
    evidence.stage = Some(stage.clone());
    evidence.queues[0].seen_at = at(now - 3.0);
    evidence.workers = vec![worker];
    evidence.of_missed(Some(at(60.0)), EARLY, at(now))
}

#[test]
fn a_run_in_a_starving_worker_is_reported_when_it_was_waited_for_as_long_as_any_silence() {
    for stage in [sent(), received(1)] {
        let since = stage.received_at.or(stage.published_at).unwrap();
        // 30 s of silence, and one more sweep.
        let alert_at = (since - at(0.0)).num_seconds() as f64 + 50.0;

        assert!(matches!(judged(&stage, alert_at - 1.0), Blame::Wait(_)));
        assert_eq!(judged(&stage, alert_at), own(Cause::Unknown));
        assert_eq!(judged(&stage, alert_at + 600.0), own(Cause::Unknown));
    }
}

#[test]
fn gaps_one_after_the_other_are_waited_for_as_long_as_one() {
    // It reports every 12 s, and each time a gap has ended.
    let between_gaps = |now: f64| WorkerView {
        gap: Some((at(now - 14.0), at(now - 2.0))),
        ..spoke(2.0, now)
    };
    let stage = received(1);
    // The run was due at 60. A gap may last 30 s, and the SDK needs 17 s to deliver kept reports.
    assert!(matches!(
        judged_with(&stage, between_gaps(106.9), 106.9),
        Blame::Wait(_)
    ));
    for now in [107.0, 200.0] {
        assert_eq!(judged_with(&stage, between_gaps(now), now), own(Cause::Unknown));
    }

    // A run that should have ended by 100.
    let begun = |now: f64| Evidence {
        workers: vec![WorkerView {
            running: Some(vec![RUN]),
            ..between_gaps(now)
        }],
        ..scene()
    };
    assert!(matches!(
        begun(146.9).of_overrun(&run(), at(146.9)),
        Blame::Wait(_)
    ));
    assert_eq!(begun(147.0).of_overrun(&run(), at(147.0)), own(Cause::Overrun));
}

/// Other processes use the CPUs of its host.
fn overloaded(waits: f64) -> HostLoad {
    HostLoad {
        machine: Some("m1".to_owned()),
        per_cpu: Some(4.5),
        waits: Some(waits),
        takes: Some(0.1),
    }
}

fn of_host(number: u128) -> Blame {
    Blame::Named(
        PartOf::Worker(WorkerId(Uuid::from_u128(number))),
        Cause::HostOverloaded,
    )
}

#[test]
fn a_run_that_waits_for_a_worker_on_an_overloaded_host_names_that_worker() {
    for stage in [sent(), received(1)] {
        let late = WorkerView {
            load: overloaded(0.1),
            ..spoke(12.0, 111.0)
        };
        assert_eq!(
            judged_with(&stage, late, 111.0),
            of_host(1),
            "its reports are late"
        );

        // It reports again, after a gap.
        let was_late = WorkerView {
            load: overloaded(0.1),
            gap: Some((at(66.0), at(78.0))),
            active: 2,
            ..spoke(2.0, 100.0)
        };
        assert_eq!(judged_with(&stage, was_late.clone(), 100.0), of_host(1));
        let long_ago = WorkerView {
            gap: Some((at(10.0), at(39.0))),
            ..was_late
        };
        assert_ne!(judged_with(&stage, long_ago, 100.0), of_host(1));

        // It reports in time, and one of its processes waits for a CPU most of the time.
        let starving = WorkerView {
            load: overloaded(0.9),
            reserved: 3,
            ..spoke(2.0, 100.0)
        };
        assert_eq!(judged_with(&stage, starving.clone(), 100.0), of_host(1));
        let busy = WorkerView {
            active: 2,
            ..starving.clone()
        };
        assert_eq!(judged_with(&stage, busy, 100.0), of_host(1));
        // Its loop turns seldom, which does not prove a lost connection.
        let slow = WorkerView {
            connected: false,
            ..starving
        };
        assert_eq!(judged_with(&stage, slow, 130.0 - 9.0), of_host(1));
    }
}

#[test]
fn a_high_load_alone_explains_nothing() {
    let gets_its_turn = |stage: &StageView| WorkerView {
        load: overloaded(0.1),
        active: 2,
        reserved: 3,
        last_seen_at: Some(at(98.0)),
        ..worker(u128::from(stage.received_at.is_some()).max(1))
    };
    let stage = received(1);
    assert_eq!(
        judged_with(&stage, gets_its_turn(&stage), 100.0),
        named(Cause::QueueSlaBreach)
    );
}

#[test]
fn a_message_that_a_starving_worker_may_have_taken_is_not_called_lost() {
    let starving = WorkerView {
        load: overloaded(0.9),
        ..worker(1)
    };
    let alone = Evidence {
        stage: Some(sent()),
        workers: vec![starving.clone()],
        ..scene()
    };
    assert_eq!(missed(&alone), of_host(1));
    let beside = Evidence {
        workers: vec![starving, worker(2)],
        ..alone
    };
    assert_eq!(missed(&beside), own(Cause::Unknown));
}

#[test]
fn a_worker_that_has_not_reported_since_is_judged_before_its_runs() {
    let silent = WorkerView {
        last_seen_at: Some(at(55.0)),
        deadline_at: Some(at(85.0)),
        ..worker(1)
    };

    assert_eq!(silent.awaited(at(60.0), at(80.0)), Some(Blame::Wait(at(87.0))));
    assert_eq!(silent.awaited(at(60.0), at(110.0)), None);
}
