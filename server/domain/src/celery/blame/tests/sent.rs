//! Runs that were sent, and that no worker has received.

use super::*;

#[test]
fn a_message_that_no_worker_took_is_searched() {
    let unconsumed = |status| QueueView {
        status,
        trouble: Some(Cause::QueueUnconsumed),
        since: Some(at(80.0)),
        depth: 3,
        ..queue()
    };
    let slow = QueueView {
        status: Status::Down,
        trouble: Some(Cause::QueueSlaBreach),
        since: Some(at(80.0)),
        depth: 3,
        ..queue()
    };
    let part_of_queue = |cause| Blame::Part(PartOf::Queue(queue().id), cause);
    let elsewhere = WorkerView {
        queues: vec!["mail".to_owned()],
        ..worker(2)
    };
    let not_reported_since = WorkerView {
        last_seen_at: Some(at(59.0)),
        deadline_at: Some(at(105.0)),
        ..worker(1)
    };
    let skewed = |status, since| WorkerView {
        status,
        trouble: (status == Status::Down).then_some(Cause::ClockSkew),
        skewed_since: Some(at(since)),
        ..worker(1)
    };
    let missed_a_heartbeat = WorkerView {
        last_seen_at: Some(at(89.0)),
        deadline_at: Some(at(119.0)),
        ..busy(1)
    };
    let late_with_one = WorkerView {
        last_seen_at: Some(at(90.0)),
        deadline_at: Some(at(120.0)),
        ..busy(1)
    };
    let stopped = WorkerView {
        status: Status::Paused,
        deadline_at: None,
        ..worker(1)
    };
    let left = |seconds| WorkerView {
        last_seen_at: Some(at(seconds)),
        ..stopped.clone()
    };
    let deep = QueueView { depth: 3, ..queue() };
    for (what, queues, workers, unacked, expected) in [
        (
            "gone",
            vec![queue()],
            vec![worker(1)],
            Some(0),
            own(Cause::LostInBroker),
        ),
        (
            "gone, and the broker does not show held messages",
            vec![queue()],
            vec![worker(1)],
            None,
            own(Cause::LostInBroker),
        ),
        (
            "held by a worker",
            vec![queue()],
            vec![busy(1)],
            Some(4),
            own(Cause::LostInBroker),
        ),
        (
            "held by no known worker",
            vec![queue()],
            vec![busy(1)],
            Some(5),
            own(Cause::Unknown),
        ),
        (
            "held by no known worker: the running message was acknowledged on receipt",
            vec![queue()],
            vec![WorkerView {
                unacked: 2,
                ..busy(1)
            }],
            Some(3),
            own(Cause::Unknown),
        ),
        (
            "held by a dead worker",
            vec![queue()],
            vec![
                worker(1),
                WorkerView {
                    reserved: 4,
                    unacked: 4,
                    ..lost(2)
                },
            ],
            Some(4),
            of_worker(2, Cause::WorkerLost),
        ),
        (
            "gone, and no worker is known to consume its queue",
            vec![queue()],
            vec![elsewhere.clone()],
            Some(0),
            own(Cause::Unknown),
        ),
        (
            "gone, and the only worker has stopped",
            vec![queue()],
            vec![stopped.clone()],
            Some(0),
            own(Cause::Unknown),
        ),
        (
            "the queue's fault has an incident",
            vec![unconsumed(Status::Down)],
            vec![elsewhere.clone()],
            Some(0),
            part_of_queue(Cause::QueueUnconsumed),
        ),
        (
            "the queue's slowness has an incident",
            vec![slow],
            vec![busy(1)],
            Some(0),
            part_of_queue(Cause::QueueSlaBreach),
        ),
        (
            "the queue's fault has no incident yet",
            vec![unconsumed(Status::Up)],
            vec![elsewhere.clone()],
            Some(0),
            Blame::Wait(at(130.0)),
        ),
        (
            "the queue's fault has no incident yet, and no worker is up",
            vec![unconsumed(Status::Up)],
            vec![],
            Some(0),
            Blame::Wait(at(400.0)),
        ),
        (
            "the queue's fault has no incident yet, and its worker has just signed off",
            vec![unconsumed(Status::Up)],
            vec![left(78.0), elsewhere.clone()],
            Some(0),
            Blame::Wait(at(218.0)),
        ),
        (
            "the queue's fault has no incident yet, and its worker signed off some time ago",
            vec![unconsumed(Status::Up)],
            vec![left(-50.0), elsewhere.clone()],
            Some(0),
            Blame::Wait(at(130.0)),
        ),
        (
            "it waits behind other messages",
            vec![deep.clone()],
            vec![busy(1)],
            Some(0),
            named(Cause::QueueSlaBreach),
        ),
        (
            "it waits, and its worker has missed reports: it may be dead",
            vec![deep.clone()],
            vec![missed_a_heartbeat],
            Some(0),
            Blame::Wait(at(121.0)),
        ),
        (
            "it waits behind other messages, and its worker's report is late",
            vec![deep.clone()],
            vec![late_with_one],
            Some(0),
            named(Cause::QueueSlaBreach),
        ),
        (
            "all waiting messages were sent later: it is not among them",
            vec![QueueView {
                oldest_at: Some(at(62.1)),
                ..deep.clone()
            }],
            vec![busy(1)],
            Some(4),
            own(Cause::LostInBroker),
        ),
        (
            "the waiting messages were sent at the same time",
            vec![QueueView {
                oldest_at: Some(at(62.0)),
                ..deep.clone()
            }],
            vec![busy(1)],
            Some(4),
            named(Cause::QueueSlaBreach),
        ),
        (
            "gone, and a worker has clock skew: it may have been too old there",
            vec![queue()],
            vec![worker(2), skewed(Status::Up, 85.0)],
            Some(0),
            Blame::Wait(at(107.0)),
        ),
        (
            "gone, and a worker's clock skew has an incident",
            vec![queue()],
            vec![worker(2), skewed(Status::Down, 70.0)],
            Some(0),
            of_worker(1, Cause::ClockSkew),
        ),
        (
            "gone, and the clock skew lasted for a moment",
            vec![queue()],
            vec![worker(2), skewed(Status::Up, 60.0)],
            Some(0),
            own(Cause::LostInBroker),
        ),
        (
            "it waits, and there is no worker",
            vec![deep.clone()],
            vec![elsewhere],
            Some(0),
            own(Cause::Unknown),
        ),
        (
            "it waits, and its worker is lost",
            vec![deep.clone()],
            vec![lost(1)],
            Some(0),
            of_worker(1, Cause::WorkerLost),
        ),
        (
            "it waits, and its worker is a ghost",
            vec![deep],
            vec![in_trouble(1, Cause::GhostWorker)],
            Some(0),
            of_worker(1, Cause::GhostWorker),
        ),
        (
            "one worker is lost, and another one is up",
            vec![queue()],
            vec![lost(1), worker(2)],
            Some(0),
            own(Cause::LostInBroker),
        ),
        (
            "a worker has been silent since",
            vec![queue()],
            vec![not_reported_since],
            Some(0),
            Blame::Wait(at(107.0)),
        ),
        (
            "clock skew does not keep a worker from working",
            vec![queue()],
            vec![in_trouble(1, Cause::ClockSkew)],
            Some(0),
            own(Cause::LostInBroker),
        ),
        (
            "the queue was never sampled",
            vec![],
            vec![worker(1)],
            Some(0),
            own(Cause::Unknown),
        ),
        (
            "the queue was not sampled since",
            vec![QueueView {
                seen_at: at(61.0),
                ..queue()
            }],
            vec![worker(1)],
            Some(0),
            own(Cause::Unknown),
        ),
    ] {
        let evidence = Evidence {
            stage: Some(sent()),
            queues,
            workers,
            broker: Some(BrokerView { unacked, ..broker() }),
            ..scene()
        };
        assert_eq!(missed(&evidence), expected, "{what}");
    }
    let nowhere = StageView {
        queue: None,
        ..sent()
    };
    assert_eq!(
        missed(&Evidence {
            stage: Some(nowhere),
            ..scene()
        }),
        own(Cause::Unknown)
    );
}

#[test]
fn a_worker_that_speaks_each_second_is_not_believed_after_four_of_silence() {
    let judged = |silent: f64| {
        let evidence = Evidence {
            stage: Some(sent()),
            queues: vec![QueueView { depth: 3, ..queue() }],
            workers: vec![WorkerView {
                period: TimeDelta::seconds(1),
                last_seen_at: Some(at(100.0 - silent)),
                deadline_at: Some(at(126.0 - silent)),
                ..busy(1)
            }],
            ..scene()
        };
        missed(&evidence)
    };

    assert_eq!(judged(4.0), named(Cause::QueueSlaBreach));
    assert_eq!(judged(4.1), Blame::Wait(at(123.9)));
}

#[test]
fn a_message_that_is_in_no_queue_is_not_lost_while_others_wait_before_a_free_worker() {
    // The waiting messages were sent later. The worker may have received this one, and hang.
    let mut evidence = Evidence {
        stage: Some(sent()),
        queues: vec![QueueView {
            depth: 4,
            oldest_at: Some(at(70.0)),
            ..queue()
        }],
        ..scene()
    };
    assert_eq!(missed(&evidence), Blame::Wait(at(120.0)));
    let judged = |evidence: &Evidence| evidence.of_missed(Some(at(60.0)), EARLY, at(141.0));
    evidence.queues[0].seen_at = at(135.0);
    evidence.workers[0].last_seen_at = Some(at(140.0));
    assert_eq!(judged(&evidence), own(Cause::LostInBroker), "not forever");

    evidence.queues[0].depth = 0;
    assert_eq!(missed(&evidence), own(Cause::LostInBroker), "nothing waits");
}
