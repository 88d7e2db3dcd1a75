//! Who is to blame, as tables; and that a verdict is always found in the end.

use proptest::prelude::*;

use super::*;
use crate::run::{CONTEST_PATIENCE, RunDetail, RunStatus};
use crate::transition::tests::at;

const QUEUE: &str = "orders";
/// Beat may send a little before its slot.
const EARLY: TimeDelta = TimeDelta::seconds(5);
const RUN: Uuid = Uuid::from_u128(7);

fn beat() -> BeatView {
    BeatView {
        status: Status::Up,
        last_seen_at: Some(at(95.0)),
        deadline_at: Some(at(170.0)),
        hung_at: None,
        sent_at: Some(at(60.0)),
        send_failed_at: None,
        lost_at: None,
    }
}

fn broker() -> BrokerView {
    BrokerView {
        id: BrokerId(Uuid::from_u128(100)),
        status: Status::Up,
        away_since: None,
        seen_at: Some(at(95.0)),
        unacked: Some(0),
    }
}

fn queue() -> QueueView {
    QueueView {
        id: QueueId(Uuid::from_u128(200)),
        name: QUEUE.to_owned(),
        status: Status::Up,
        trouble: None,
        since: None,
        depth: 0,
        seen_at: at(95.0),
    }
}

/// Idle, and heard from a moment ago.
fn worker(number: u128) -> WorkerView {
    WorkerView {
        id: WorkerId(Uuid::from_u128(number)),
        name: format!("celery@{number}"),
        status: Status::Up,
        trouble: None,
        last_seen_at: Some(at(98.0)),
        period: TimeDelta::seconds(5),
        deadline_at: Some(at(128.0)),
        started_at: Some(at(-3_600.0)),
        progress_at: at(98.0),
        queues: vec![QUEUE.to_owned()],
        connected: true,
        active: 0,
        processes: 2,
        reserved: 0,
        unacked: 0,
        held: 0,
        running: Some(Vec::new()),
    }
}

fn lost(number: u128) -> WorkerView {
    WorkerView {
        status: Status::Down,
        last_seen_at: Some(at(50.0)),
        deadline_at: Some(at(3_680.0)),
        ..worker(number)
    }
}

fn in_trouble(number: u128, trouble: Cause) -> WorkerView {
    WorkerView {
        status: Status::Down,
        trouble: Some(trouble),
        ..worker(number)
    }
}

fn busy(number: u128) -> WorkerView {
    WorkerView {
        active: 2,
        reserved: 4,
        unacked: 4,
        ..worker(number)
    }
}

fn sent() -> StageView {
    StageView {
        published_at: Some(at(60.0)),
        received_at: None,
        heard_at: at(60.0),
        queue: Some(QUEUE.to_owned()),
        worker: None,
    }
}

fn received(by: u128) -> StageView {
    StageView {
        received_at: Some(at(61.0)),
        worker: Some(format!("celery@{by}")),
        ..sent()
    }
}

/// All is well, and nothing is known of the run.
fn scene() -> Evidence {
    Evidence {
        beat: Some(beat()),
        broker: Some(broker()),
        stage: None,
        queues: vec![queue()],
        workers: vec![worker(1)],
    }
}

/// The slot was due at 60, and its grace has passed at 100.
fn missed(evidence: &Evidence) -> Blame {
    evidence.of_missed(Some(at(60.0)), EARLY, at(100.0))
}

fn run() -> Run {
    Run {
        key: crate::ids::RunKey(Uuid::from_u128(1)),
        run_id: Some(RUN),
        status: RunStatus::Open,
        started_at: Some(at(0.0)),
        finished_at: None,
        deadline_at: Some(at(100.0)),
        duration: None,
        exit_code: None,
        detail: RunDetail {
            worker: Some("celery@1".to_owned()),
            ..RunDetail::default()
        },
        attempts: 1,
        contest: None,
        events: Vec::new(),
    }
}

const fn own(cause: Cause) -> Blame {
    Blame::Own(cause)
}

fn of_worker(number: u128, cause: Cause) -> Blame {
    Blame::Part(PartOf::Worker(WorkerId(Uuid::from_u128(number))), cause)
}

#[test]
fn what_no_beat_sends_is_missed_and_no_more_is_said() {
    let everything_is_broken = Evidence {
        beat: None,
        broker: Some(BrokerView {
            status: Status::Down,
            away_since: Some(at(0.0)),
            ..broker()
        }),
        stage: Some(sent()),
        queues: vec![QueueView {
            status: Status::Down,
            trouble: Some(Cause::QueueUnconsumed),
            ..queue()
        }],
        workers: vec![lost(1)],
    };

    assert_eq!(missed(&everything_is_broken), own(Cause::Missed));
    assert_eq!(missed(&Evidence::default()), own(Cause::Missed));
    assert_eq!(scene().of_missed(None, EARLY, at(100.0)), own(Cause::Missed));
}

#[test]
fn a_run_that_beat_never_sent_is_blamed_on_beat_as_far_as_is_known() {
    let silent = BeatView {
        last_seen_at: Some(at(59.0)),
        ..beat()
    };
    let part_of_beat = |cause| Blame::Part(PartOf::Beat, cause);
    for (what, beat, expected) in [
        ("silent, not overdue", silent, Blame::Wait(at(172.0))),
        (
            "dead",
            BeatView {
                status: Status::Down,
                deadline_at: None,
                ..silent
            },
            part_of_beat(Cause::BeatDown),
        ),
        (
            "hanging",
            BeatView {
                status: Status::Down,
                deadline_at: None,
                hung_at: Some(at(98.0)),
                ..silent
            },
            part_of_beat(Cause::BeatStalled),
        ),
        (
            "dead; it hung once, and went on then",
            BeatView {
                status: Status::Down,
                deadline_at: None,
                hung_at: Some(at(40.0)),
                ..silent
            },
            part_of_beat(Cause::BeatDown),
        ),
        (
            "alive, with a clock that is off, which is told: it is not down for this",
            BeatView {
                status: Status::Down,
                ..silent
            },
            Blame::Wait(at(172.0)),
        ),
        ("alive, and it sends others", beat(), own(Cause::Unknown)),
        (
            "alive, and it never says what it sends",
            BeatView {
                sent_at: None,
                ..beat()
            },
            own(Cause::Unknown),
        ),
        (
            "alive, and it has sent nothing since",
            BeatView {
                sent_at: Some(at(54.0)),
                ..beat()
            },
            own(Cause::BeatStalled),
        ),
        (
            "alive, and the broker took nothing from it",
            BeatView {
                sent_at: Some(at(54.0)),
                send_failed_at: Some(at(60.5)),
                ..beat()
            },
            own(Cause::BrokerDown),
        ),
        (
            "alive; the broker took nothing a while before",
            BeatView {
                send_failed_at: Some(at(54.0)),
                ..beat()
            },
            own(Cause::Unknown),
        ),
    ] {
        let evidence = Evidence {
            beat: Some(beat),
            ..scene()
        };
        assert_eq!(missed(&evidence), expected, "{what}");
    }
}

#[test]
fn a_stage_of_the_run_before_says_nothing_of_this_one() {
    let before = StageView {
        published_at: Some(at(54.0)),
        received_at: Some(at(54.5)),
        ..received(1)
    };
    let early = StageView {
        published_at: Some(at(55.0)),
        ..sent()
    };

    assert_eq!(
        missed(&Evidence {
            stage: Some(before),
            ..scene()
        }),
        own(Cause::Unknown)
    );
    assert_eq!(
        missed(&Evidence {
            stage: Some(early),
            ..scene()
        }),
        own(Cause::LostInBroker),
        "Beat may send a little early"
    );
}

#[test]
fn a_broker_that_is_away_is_to_blame_before_all_others() {
    let away = |status| BrokerView {
        status,
        away_since: Some(at(90.0)),
        ..broker()
    };
    for (broker, now, expected) in [
        (
            away(Status::Down),
            100.0,
            Blame::Part(PartOf::Broker(broker().id), Cause::BrokerDown),
        ),
        (away(Status::Up), 100.0, Blame::Wait(at(130.0))),
        // Nobody looks at it any more: it is not known to be away.
        (away(Status::Up), 130.0, own(Cause::LostInBroker)),
    ] {
        let mut evidence = Evidence {
            broker: Some(broker),
            stage: Some(sent()),
            ..scene()
        };
        evidence.workers[0].last_seen_at = Some(at(129.0));
        assert_eq!(
            evidence.of_missed(Some(at(60.0)), EARLY, at(now)),
            expected,
            "{broker:?} at {now}"
        );
    }
}

#[test]
fn a_message_that_no_worker_took_is_looked_for() {
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
    let not_heard_since = WorkerView {
        last_seen_at: Some(at(59.0)),
        deadline_at: Some(at(105.0)),
        ..worker(1)
    };
    let missed_a_word = WorkerView {
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
            "gone, and the broker does not say what is held",
            vec![queue()],
            vec![worker(1)],
            None,
            own(Cause::LostInBroker),
        ),
        (
            "held by somebody",
            vec![queue()],
            vec![busy(1)],
            Some(4),
            own(Cause::LostInBroker),
        ),
        (
            "held by nobody that is known",
            vec![queue()],
            vec![busy(1)],
            Some(5),
            own(Cause::Unknown),
        ),
        (
            "held by nobody that is known: what runs was acknowledged when it was taken",
            vec![queue()],
            vec![WorkerView {
                unacked: 2,
                ..busy(1)
            }],
            Some(3),
            own(Cause::Unknown),
        ),
        (
            "held by one that is dead",
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
            own(Cause::Unknown),
        ),
        (
            "gone, and nobody is known to take messages there",
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
            "its trouble is told",
            vec![unconsumed(Status::Down)],
            vec![elsewhere.clone()],
            Some(0),
            part_of_queue(Cause::QueueUnconsumed),
        ),
        (
            "its slowness is told",
            vec![slow],
            vec![busy(1)],
            Some(0),
            part_of_queue(Cause::QueueSlaBreach),
        ),
        (
            "its trouble is not told yet",
            vec![unconsumed(Status::Up)],
            vec![elsewhere.clone()],
            Some(0),
            Blame::Wait(at(130.0)),
        ),
        (
            "its trouble is not told yet, and no worker is up",
            vec![unconsumed(Status::Up)],
            vec![],
            Some(0),
            Blame::Wait(at(400.0)),
        ),
        (
            "its trouble is not told yet, and who took messages has just left",
            vec![unconsumed(Status::Up)],
            vec![left(78.0), elsewhere.clone()],
            Some(0),
            Blame::Wait(at(218.0)),
        ),
        (
            "its trouble is not told yet, and who took messages left a while ago",
            vec![unconsumed(Status::Up)],
            vec![left(-50.0), elsewhere.clone()],
            Some(0),
            Blame::Wait(at(130.0)),
        ),
        (
            "it waits behind others",
            vec![deep.clone()],
            vec![busy(1)],
            Some(0),
            own(Cause::QueueSlaBreach),
        ),
        (
            "it waits, and who takes it has missed a word: it may be dead",
            vec![deep.clone()],
            vec![missed_a_word],
            Some(0),
            Blame::Wait(at(121.0)),
        ),
        (
            "it waits behind others, and who takes it is late with a word",
            vec![deep.clone()],
            vec![late_with_one],
            Some(0),
            own(Cause::QueueSlaBreach),
        ),
        (
            "it waits, and nobody is there",
            vec![deep.clone()],
            vec![elsewhere],
            Some(0),
            own(Cause::Unknown),
        ),
        (
            "it waits, and who took it is lost",
            vec![deep.clone()],
            vec![lost(1)],
            Some(0),
            of_worker(1, Cause::WorkerLost),
        ),
        (
            "it waits, and who took it is a ghost",
            vec![deep],
            vec![in_trouble(1, Cause::GhostWorker)],
            Some(0),
            of_worker(1, Cause::GhostWorker),
        ),
        (
            "one is lost, another one works",
            vec![queue()],
            vec![lost(1), worker(2)],
            Some(0),
            own(Cause::LostInBroker),
        ),
        (
            "a worker is silent since",
            vec![queue()],
            vec![not_heard_since],
            Some(0),
            Blame::Wait(at(107.0)),
        ),
        (
            "a clock that is off keeps nobody from working",
            vec![queue()],
            vec![in_trouble(1, Cause::ClockSkew)],
            Some(0),
            own(Cause::LostInBroker),
        ),
        (
            "nobody has looked at the queue",
            vec![],
            vec![worker(1)],
            Some(0),
            own(Cause::Unknown),
        ),
        (
            "nobody has looked at it since",
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
fn what_nobody_said_proves_nothing_when_reports_were_lost() {
    let lost_at = |seconds| BeatView {
        lost_at: Some(at(seconds)),
        ..beat()
    };
    let silent = |beat| Evidence {
        beat: Some(BeatView {
            sent_at: Some(at(54.0)),
            ..beat
        }),
        ..scene()
    };
    let gone = |beat| Evidence {
        beat: Some(beat),
        stage: Some(sent()),
        ..scene()
    };
    let before = lost_at(50.0);
    let since = lost_at(80.0);

    assert_eq!(missed(&silent(before)), own(Cause::BeatStalled));
    assert_eq!(missed(&silent(since)), own(Cause::Unknown));
    assert_eq!(missed(&gone(before)), own(Cause::LostInBroker));
    assert_eq!(missed(&gone(since)), own(Cause::Unknown));
    let overrun = |beat| {
        let run = Run {
            started_at: Some(at(60.0)),
            ..run()
        };
        gone(beat).of_overrun(&run, at(100.0))
    };
    assert_eq!(overrun(before), own(Cause::WorkerKilled));
    assert_eq!(
        overrun(since),
        own(Cause::Overrun),
        "it may have ended and could not say so"
    );
}

#[test]
fn a_look_at_the_queue_that_is_under_way_is_waited_for() {
    let evidence = Evidence {
        beat: Some(BeatView {
            sent_at: Some(at(95.0)),
            ..beat()
        }),
        stage: Some(StageView {
            published_at: Some(at(95.0)),
            ..sent()
        }),
        ..scene()
    };

    assert_eq!(missed(&evidence), Blame::Wait(at(102.0)));
    let looked_at = Evidence {
        broker: Some(BrokerView {
            seen_at: Some(at(105.0)),
            ..broker()
        }),
        queues: vec![QueueView {
            seen_at: at(105.0),
            ..queue()
        }],
        ..evidence.clone()
    };
    assert_eq!(
        looked_at.of_missed(Some(at(60.0)), EARLY, at(106.0)),
        own(Cause::LostInBroker)
    );
    let mut evidence = evidence;
    evidence.workers[0].last_seen_at = Some(at(114.0));
    assert_eq!(
        evidence.of_missed(Some(at(60.0)), EARLY, at(115.0)),
        own(Cause::Unknown),
        "nobody looked"
    );
}

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
            "it was started anew",
            vec![WorkerView {
                started_at: Some(at(70.0)),
                ..worker(1)
            }],
            own(Cause::WorkerLost),
        ),
        (
            "it is silent since",
            vec![WorkerView {
                last_seen_at: Some(at(60.0)),
                deadline_at: Some(at(110.0)),
                ..worker(1)
            }],
            Blame::Wait(at(112.0)),
        ),
        (
            "it was busy, and has missed a word: it may be dead",
            vec![WorkerView {
                last_seen_at: Some(at(89.0)),
                deadline_at: Some(at(119.0)),
                ..busy(1)
            }],
            Blame::Wait(at(121.0)),
        ),
        ("it hangs, perhaps", vec![holds.clone()], Blame::Wait(at(141.0))),
        (
            "it holds it back for its time",
            vec![WorkerView {
                held: 1,
                ..holds.clone()
            }],
            own(Cause::Unknown),
        ),
        (
            "it could, and holds nothing",
            vec![worker(1)],
            own(Cause::Unknown),
        ),
        (
            "it is busy, another one is not",
            vec![busy(1), worker(2)],
            own(Cause::PrefetchStarvation),
        ),
        ("all are busy", vec![busy(1), busy(2)], own(Cause::QueueSlaBreach)),
        (
            "it is busy, and the idle one is of another queue",
            vec![busy(1), idle_elsewhere],
            own(Cause::QueueSlaBreach),
        ),
        (
            "it is busy, and the idle one is a ghost",
            vec![busy(1), in_trouble(2, Cause::GhostWorker)],
            own(Cause::QueueSlaBreach),
        ),
        (
            "it is busy, and the idle one's clock is off",
            vec![busy(1), in_trouble(2, Cause::ClockSkew)],
            own(Cause::PrefetchStarvation),
        ),
        (
            "it is busy, and its clock is off",
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
            "it has stopped, and another one works",
            vec![stopped.clone(), worker(2)],
            own(Cause::LostInBroker),
        ),
        (
            "it has stopped, and nobody works",
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
            "its worker does not say what it runs",
            vec![says_nothing],
            own(Cause::Overrun),
        ),
        (
            "its worker runs it no more",
            vec![worker(1)],
            own(Cause::WorkerKilled),
        ),
        (
            "its worker runs it no more, and its clock is off",
            vec![in_trouble(1, Cause::ClockSkew)],
            own(Cause::WorkerKilled),
        ),
        (
            "nothing is known of its worker",
            vec![worker(2)],
            own(Cause::Overrun),
        ),
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
            "its worker was started anew",
            vec![WorkerView {
                started_at: Some(at(10.0)),
                ..worker(1)
            }],
            own(Cause::WorkerLost),
        ),
        (
            "its worker has not said anything since",
            vec![silent],
            Blame::Wait(at(130.0)),
        ),
        (
            "its worker ran it, and has missed a word",
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
            "two on one worker",
            again(2),
            vec![runs(1, 2)],
            100.0,
            Contested::Trouble(Cause::DuplicateRun),
        ),
        (
            "one on each of two",
            again(2),
            vec![runs(1, 1), runs(2, 1)],
            100.0,
            Contested::Trouble(Cause::DuplicateRun),
        ),
        (
            "one on each of two, of which one's clock is off",
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
            "the first is dead",
            again(2),
            vec![runs(1, 1), worker(2)],
            100.0,
            Contested::Settled,
        ),
        (
            "the first died with its worker",
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
            "both are dead",
            again(2),
            vec![worker(1)],
            100.0,
            Contested::Settled,
        ),
        (
            "it begins for the third time, the others are dead",
            again(3),
            vec![runs(1, 1)],
            100.0,
            Contested::Trouble(Cause::RedeliveryLoop),
        ),
        (
            "for the third time, and two are alive",
            again(3),
            vec![runs(1, 2)],
            100.0,
            Contested::Trouble(Cause::DuplicateRun),
        ),
        (
            "a worker has not spoken since",
            again(2),
            vec![runs(1, 1), silent(2)],
            100.0,
            Contested::Wait(at(102.0)),
        ),
        (
            "a worker has not spoken for long",
            again(2),
            vec![runs(1, 1), silent(2)],
            120.0,
            Contested::Settled,
        ),
        (
            "none says what it runs",
            again(2),
            vec![WorkerView {
                running: None,
                ..silent(1)
            }],
            100.0,
            Contested::Settled,
        ),
        (
            "it had ended well before",
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
    // The newest execution began 7 s before: a word of before then is of no use.
    assert_eq!(run().deadline_at.unwrap() - CONTEST_PATIENCE + AFTER, at(95.0));
}

fn maybe_at() -> impl Strategy<Value = Option<DateTime<Utc>>> {
    prop::option::of((-200_i32..200).prop_map(|seconds| at(f64::from(seconds))))
}

fn any_at() -> impl Strategy<Value = DateTime<Utc>> {
    (-200_i32..200).prop_map(|seconds| at(f64::from(seconds)))
}

fn any_status() -> impl Strategy<Value = Status> {
    prop::sample::select(vec![Status::New, Status::Up, Status::Down, Status::Paused])
}

fn any_trouble() -> impl Strategy<Value = Option<Cause>> {
    prop::option::of(prop::sample::select(Cause::ALL.to_vec()))
}

prop_compose! {
    fn any_beat()(status in any_status(), last_seen_at in maybe_at(), deadline_at in maybe_at(), hung_at in maybe_at(), sent_at in maybe_at(),
                  send_failed_at in maybe_at(), lost_at in maybe_at()) -> BeatView {
        BeatView { status, last_seen_at, deadline_at, hung_at, sent_at, send_failed_at, lost_at }
    }
}

prop_compose! {
    fn any_broker()(status in any_status(), away_since in maybe_at(), unacked in prop::option::of(0_i64..5)) -> BrokerView {
        BrokerView { status, away_since, unacked, ..broker() }
    }
}

prop_compose! {
    fn any_queue()(status in any_status(), trouble in any_trouble(), since in maybe_at(), depth in 0_i64..3, seen_at in any_at()) -> QueueView {
        QueueView { status, trouble, since, depth, seen_at, ..queue() }
    }
}

prop_compose! {
    fn any_worker()(number in 1_u128..4, status in any_status(), trouble in any_trouble(), last_seen_at in maybe_at(), deadline_at in maybe_at(),
                    started_at in maybe_at(), progress_at in any_at(), active in 0_i64..3, reserved in 0_i64..4, held in 0_i64..2,
                    consumes in any::<bool>(), running in prop::option::of(prop::collection::vec(Just(RUN), 0..3))) -> WorkerView {
        let queues = if consumes { vec![QUEUE.to_owned()] } else { Vec::new() };
        WorkerView { status, trouble, last_seen_at, deadline_at, started_at, progress_at, active, reserved, held, queues, running, ..worker(number) }
    }
}

prop_compose! {
    fn any_stage()(published_at in maybe_at(), received_at in maybe_at(), queue in prop::option::of(Just(QUEUE.to_owned())),
                   worker in prop::option::of(prop::sample::select(vec!["celery@1".to_owned(), "celery@9".to_owned()]))) -> StageView {
        StageView { published_at, received_at, heard_at: at(0.0), queue, worker }
    }
}

prop_compose! {
    fn any_evidence()(beat in prop::option::of(any_beat()), broker in prop::option::of(any_broker()), stage in prop::option::of(any_stage()),
                      queues in prop::collection::vec(any_queue(), 0..2), workers in prop::collection::vec(any_worker(), 0..4)) -> Evidence {
        Evidence { beat, broker, stage, queues, workers }
    }
}

prop_compose! {
    fn any_run()(started_at in maybe_at(), deadline_at in maybe_at(), attempts in 0_i32..5, named in any::<bool>(),
                 contest in prop::option::of(prop::sample::select(vec![Contest::Again, Contest::Repeated, Contest::Told]))) -> Run {
        Run { started_at, deadline_at, attempts, contest, run_id: named.then_some(RUN), ..run() }
    }
}

/// Longer than every patience together; nothing new is heard meanwhile.
const LONG: f64 = 3_600.0;

proptest! {
    #[test]
    fn a_monitor_without_a_beat_has_only_causes_of_its_own(evidence in any_evidence(), due in maybe_at(), now in any_at()) {
        let alone = Evidence { beat: None, ..evidence };
        prop_assert_eq!(alone.of_missed(due, EARLY, now), own(Cause::Missed));
    }

    #[test]
    fn without_evidence_an_overrun_is_just_that(run in any_run(), now in any_at()) {
        prop_assert_eq!(Evidence::default().of_overrun(&run, now), own(Cause::Overrun));
    }

    #[test]
    fn what_is_waited_for_is_to_come_and_comes(evidence in any_evidence(), run in any_run(), due in maybe_at(), now in any_at()) {
        for now in [now, at(LONG)] {
            for blame in [evidence.of_missed(due, EARLY, now), evidence.of_overrun(&run, now)] {
                if let Blame::Wait(until) = blame {
                    prop_assert!(until > now, "{until} at {now}");
                    prop_assert!(now < at(LONG), "for ever");
                }
            }
            if let Contested::Wait(until) = evidence.of_contested(&run, now) {
                prop_assert!(until > now && now < at(LONG));
            }
        }
    }

    /// As the evaluator does it: looked at again each time the wait is over, while nothing new is heard.
    #[test]
    fn no_scene_waits_for_ever(evidence in any_evidence(), run in any_run(), due in maybe_at(), now in any_at()) {
        let mut looks = (0, now);
        while let Blame::Wait(until) = evidence.of_missed(due, EARLY, looks.1) {
            looks = (looks.0 + 1, until);
            prop_assert!(looks.0 < 300, "{until}");
        }
        let mut looks = (0, now);
        while let Blame::Wait(until) = evidence.of_overrun(&run, looks.1) {
            looks = (looks.0 + 1, until);
            prop_assert!(looks.0 < 300, "{until}");
        }
    }

    #[test]
    fn who_is_part_of_something_is_part_of_what_is_down(evidence in any_evidence(), run in any_run(), due in maybe_at(), now in any_at()) {
        for blame in [evidence.of_missed(due, EARLY, now), evidence.of_overrun(&run, now)] {
            let Blame::Part(part_of, _) = blame else { continue };
            let is_down = match part_of {
                PartOf::Beat => evidence.beat.is_some_and(|beat| beat.status == Status::Down),
                PartOf::Broker(_) => evidence.broker.is_some_and(|broker| broker.status == Status::Down),
                PartOf::Queue(id) => evidence.queues.iter().any(|queue| queue.id == id && queue.status == Status::Down),
                PartOf::Worker(id) => evidence.workers.iter().any(|worker| worker.id == id && worker.status == Status::Down),
            };
            prop_assert!(is_down, "{part_of:?}");
        }
    }
}
