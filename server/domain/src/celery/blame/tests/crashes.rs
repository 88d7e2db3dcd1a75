//! Beat is restarted again and again: the verdicts on its entries.

use super::*;

const LOOP: Blame = Blame::Named(PartOf::Beat, Cause::BeatCrashLoop);

const STEADY: Course = Course {
    crashes: 0,
    doubt_until: None,
};

fn crashed(crashes: usize, until: f64) -> Course {
    Course {
        crashes,
        doubt_until: Some(at(until)),
    }
}

#[test]
fn an_entry_that_is_put_off_by_crashes_is_reported_for_beat_and_by_deployments_of_itself() {
    for (course, expected) in [
        (STEADY, own(Cause::ScheduleReset)),
        (crashed(1, 130.0), Blame::Wait(at(102.0))),
        (crashed(1, 100.0), own(Cause::ScheduleReset)),
        (crashed(2, 100.0), LOOP),
    ] {
        let evidence = Evidence { course, ..scene() };
        assert_eq!(evidence.of_put_off(at(100.0)), expected, "{course:?}");
    }
}

#[test]
fn what_beat_did_not_send_is_reported_for_its_loop_and_what_it_sent_is_not() {
    for (course, expected) in [
        (STEADY, own(Cause::Unknown)),
        (crashed(1, 130.0), own(Cause::Unknown)),
        (crashed(2, 130.0), Blame::Wait(at(102.0))),
        (crashed(2, 100.0), own(Cause::Unknown)),
        (crashed(3, 100.0), LOOP),
    ] {
        assert_eq!(missed(&Evidence { course, ..scene() }), expected, "{course:?}");
    }
    let refused = BeatView {
        send_failed_at: Some(at(61.0)),
        ..beat()
    };
    let looping = Evidence {
        course: crashed(3, 100.0),
        ..scene()
    };
    assert_eq!(
        missed(&Evidence {
            beat: Some(refused),
            ..looping.clone()
        }),
        named(Cause::BrokerDown),
        "it may crash because the broker refuses its messages"
    );
    let lost = Evidence {
        stage: Some(sent()),
        ..looping.clone()
    };
    assert_eq!(missed(&lost), own(Cause::LostInBroker));
    let silent = BeatView {
        status: Status::Down,
        deadline_at: None,
        last_seen_at: Some(at(59.0)),
        ..beat()
    };
    assert_eq!(
        missed(&Evidence {
            beat: Some(silent),
            ..looping
        }),
        Blame::Part(PartOf::Beat, Cause::BeatCrashLoop)
    );
}
