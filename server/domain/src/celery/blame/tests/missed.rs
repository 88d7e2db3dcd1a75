//! Nothing is known about the run: the fault is Beat's, the broker's, or unknown.

use super::*;
use crate::monitor::run::Run;

#[test]
fn a_beat_that_is_back_sends_what_came_due_meanwhile_in_a_moment() {
    let judged = |back: f64, now: f64| {
        let mut evidence = scene();
        evidence.beat = Some(BeatView {
            last_seen_at: Some(at(now)),
            deadline_at: Some(at(now + 16.0)),
            sent_at: Some(at(now)),
            back_at: Some(at(back)),
            ..beat()
        });
        evidence.of_missed(Some(at(60.0)), EARLY, at(now))
    };
    assert_eq!(judged(78.0, 80.0), Blame::Wait(at(82.0)));
    assert!(matches!(judged(78.0, 97.9), Blame::Wait(_)));
    assert_eq!(judged(78.0, 98.0), own(Cause::Unknown), "nothing came");
    assert_eq!(judged(59.0, 80.0), own(Cause::Unknown), "it was back before");
    // A Beat that restarts again and again is no reason to wait forever.
    assert_eq!(judged(96.0, 97.0), own(Cause::Unknown));
}

#[test]
fn what_expired_by_a_wrong_clock_is_part_of_that_clock_and_else_expired() {
    let at_clock = |skewed: Option<f64>, status: Status, now: f64| {
        let mut evidence = scene();
        evidence.stage = Some(StageView {
            is_expired: true,
            ..sent()
        });
        evidence.beat = Some(BeatView {
            status,
            skewed_since: skewed.map(at),
            last_seen_at: Some(at(now)),
            ..beat()
        });
        evidence.of_missed(Some(at(60.0)), EARLY, at(now))
    };
    let part = Blame::Part(PartOf::Beat, Cause::ClockSkew);
    assert_eq!(at_clock(Some(70.0), Status::Down, 100.0), part);
    // Its incident opens 20 s after the skew began, with the next report.
    assert_eq!(at_clock(Some(70.0), Status::Up, 80.0), Blame::Wait(at(92.0)));
    assert_eq!(at_clock(Some(70.0), Status::Up, 95.0), Blame::Wait(at(97.0)));
    assert_eq!(at_clock(Some(70.0), Status::Up, 110.0), own(Cause::Expired));
    assert_eq!(at_clock(None, Status::Up, 100.0), own(Cause::Expired));
}

#[test]
fn what_was_not_sent_by_a_wrong_clock_is_part_of_that_clock() {
    let mut evidence = scene();
    evidence.beat = Some(BeatView {
        status: Status::Down,
        skewed_since: Some(at(70.0)),
        ..beat()
    });
    assert_eq!(missed(&evidence), Blame::Part(PartOf::Beat, Cause::ClockSkew));
}

#[test]
fn a_monitor_waits_while_it_is_in_doubt_whether_the_broker_is_away() {
    let mut evidence = scene();
    evidence.beat = Some(BeatView {
        last_seen_at: Some(at(100.0)),
        sent_at: Some(at(100.0)),
        ..beat()
    });
    let judged = |doubt: Option<f64>, now: f64| {
        let mut evidence = evidence.clone();
        evidence.broker = Some(BrokerView {
            doubt_until: doubt.map(at),
            ..broker()
        });
        evidence.of_missed(Some(at(60.0)), EARLY, at(now))
    };
    assert_eq!(judged(Some(106.0), 100.0), Blame::Wait(at(102.0)));
    assert_eq!(judged(Some(106.0), 106.0), own(Cause::Unknown));
    assert_eq!(judged(None, 100.0), own(Cause::Unknown));
}

#[test]
fn what_no_beat_sends_is_missed_and_no_more_is_said() {
    let everything_is_broken = Evidence {
        beat: None,
        broker: Some(BrokerView {
            status: Status::Down,
            down_since: Some(at(0.0)),
            ..broker()
        }),
        stage: Some(sent()),
        queues: vec![QueueView {
            status: Status::Down,
            trouble: Some(Cause::QueueUnconsumed),
            ..queue()
        }],
        workers: vec![lost(1)],
        strangers: vec![(queue().id, None)],
        ..Evidence::default()
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
            "dead; it hung once, and then continued",
            BeatView {
                status: Status::Down,
                deadline_at: None,
                hung_at: Some(at(40.0)),
                ..silent
            },
            part_of_beat(Cause::BeatDown),
        ),
        (
            "alive, and its clock skew has an incident: it is not down for this",
            BeatView {
                status: Status::Down,
                ..silent
            },
            Blame::Wait(at(172.0)),
        ),
        ("alive, and it sends others", beat(), own(Cause::Unknown)),
        (
            "alive, and it never reports its sendings",
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
            named(Cause::BeatStalled),
        ),
        (
            "alive, and the broker refused its messages",
            BeatView {
                sent_at: Some(at(54.0)),
                send_failed_at: Some(at(60.5)),
                ..beat()
            },
            named(Cause::BrokerDown),
        ),
        (
            "alive; the broker refused its messages some time before",
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
        "Beat may send slightly early"
    );
}

#[test]
fn a_broker_that_is_away_is_to_blame_before_all_others() {
    let away = |status| BrokerView {
        status,
        down_since: Some(at(90.0)),
        ..broker()
    };
    for (broker, now, expected) in [
        (
            away(Status::Down),
            100.0,
            Blame::Part(PartOf::Broker(broker().id), Cause::BrokerDown),
        ),
        (away(Status::Up), 100.0, Blame::Wait(at(130.0))),
        // No process samples it any more, so it is not known to be away.
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
fn what_came_due_while_the_broker_was_away_has_a_moment_once_it_is_back() {
    let unsent = BeatView {
        sent_at: Some(at(54.0)),
        send_failed_at: Some(at(60.5)),
        ..beat()
    };
    for (beat, back_at, due, expected) in [
        (unsent, Some(90.0), 60.0, Blame::Wait(at(102.0))),
        (beat(), Some(90.0), 92.0, Blame::Wait(at(102.0))),
        // Its time to send the overdue entries is over.
        (beat(), Some(80.0), 60.0, own(Cause::Unknown)),
        (unsent, Some(80.0), 60.0, named(Cause::BrokerDown)),
        // The server's clock has stepped back since.
        (beat(), Some(101.0), 60.0, own(Cause::Unknown)),
    ] {
        let evidence = Evidence {
            beat: Some(beat),
            broker: Some(BrokerView {
                back_at: back_at.map(at),
                ..broker()
            }),
            ..scene()
        };
        assert_eq!(
            evidence.of_missed(Some(at(due)), EARLY, at(100.0)),
            expected,
            "back at {back_at:?}, due at {due}"
        );
    }
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

    let to_come = lost_at(103.0);

    assert_eq!(
        missed(&gone(to_come)),
        own(Cause::LostInBroker),
        "the clock stepped back"
    );
    let refused = BeatView {
        send_failed_at: Some(at(61.0)),
        ..since
    };
    assert_eq!(
        missed(&silent(refused)),
        named(Cause::BrokerDown),
        "it reported that it could not send"
    );
    assert_eq!(missed(&silent(before)), named(Cause::BeatStalled));
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
        "it may have ended, and could not report that"
    );
}

#[test]
fn a_sample_of_the_queue_that_is_under_way_is_waited_for() {
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
    let sampled = Evidence {
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
        sampled.of_missed(Some(at(60.0)), EARLY, at(106.0)),
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
