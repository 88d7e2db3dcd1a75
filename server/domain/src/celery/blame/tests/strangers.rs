//! A stranger consumes the queue: a worker that answers but does not report.

use super::*;

/// The run was sent at 60, a later sample shows the queue empty, and its runs have been missed since `since`.
fn swallowed(since: Option<f64>) -> Evidence {
    Evidence {
        stage: Some(sent()),
        strangers: vec![(queue().id, since.map(at))],
        ..scene()
    }
}

#[test]
fn a_run_that_vanished_waits_for_the_incident_of_its_queue_and_not_for_ever() {
    assert_eq!(missed(&swallowed(None)), Blame::Wait(at(102.0)));
    assert_eq!(missed(&swallowed(Some(40.1))), Blame::Wait(at(102.0)));
    assert_eq!(missed(&swallowed(Some(40.0))), own(Cause::WorkerWithoutSdk));
    let nobody = Evidence {
        strangers: Vec::new(),
        ..swallowed(None)
    };
    assert_eq!(missed(&nobody), own(Cause::LostInBroker));
    let mut alerted = swallowed(None);
    alerted.queues[0].status = Status::Down;
    alerted.queues[0].trouble = Some(Cause::WorkerWithoutSdk);
    let part = Blame::Part(PartOf::Queue(queue().id), Cause::WorkerWithoutSdk);
    assert_eq!(missed(&alerted), part);
}

#[test]
fn only_a_run_that_was_taken_and_that_nobody_received_has_vanished() {
    assert_eq!(swallowed(None).vanished_from(), Some(queue().id));
    let received = Evidence {
        stage: Some(received(1)),
        ..swallowed(None)
    };
    assert_eq!(received.vanished_from(), None);
    let mut waits = swallowed(None);
    waits.queues[0].depth = 3;
    waits.queues[0].oldest_at = Some(at(60.0));
    assert_eq!(waits.vanished_from(), None);
    let unsent = Evidence {
        stage: None,
        ..swallowed(None)
    };
    assert_eq!(unsent.vanished_from(), None);
}
