//! A result backend that holds up Beat or workers.

use super::*;

#[test]
fn who_waits_for_the_result_backend_is_part_of_its_incident_and_nobody_else_is() {
    let part = Blame::Part(PartOf::ResultBackend(broker().id), Cause::ResultBackendDown);
    let of_beat = BackendView {
        holds_up_beat: true,
        ..backend()
    };
    let of_worker = BackendView {
        holds_up: vec![worker(1).id],
        ..backend()
    };
    let untold = BackendView {
        is_told: false,
        since: at(90.0),
        ..of_worker.clone()
    };
    let long_untold = BackendView {
        is_told: false,
        ..of_worker.clone()
    };
    for (what, backend, stage, workers, now, expected) in [
        (
            "Beat waits, nothing was sent",
            &of_beat,
            None,
            vec![worker(1)],
            100.0,
            Some(part),
        ),
        (
            "Beat waits, and has sent this one",
            &of_beat,
            Some(sent()),
            vec![worker(1)],
            100.0,
            None,
        ),
        (
            "its worker waits",
            &of_worker,
            Some(received(1)),
            vec![busy(1)],
            100.0,
            Some(part),
        ),
        (
            "another worker waits",
            &of_worker,
            Some(received(2)),
            vec![worker(1), busy(2)],
            100.0,
            None,
        ),
        (
            "who should take it waits",
            &of_worker,
            Some(sent()),
            vec![busy(1)],
            100.0,
            Some(part),
        ),
        (
            "a worker waits, and Beat sent nothing",
            &of_worker,
            None,
            vec![busy(1)],
            100.0,
            None,
        ),
        (
            "it is not told yet",
            &untold,
            Some(received(1)),
            vec![busy(1)],
            100.0,
            Some(Blame::Wait(at(102.0))),
        ),
        (
            "it was never told",
            &long_untold,
            Some(received(1)),
            vec![busy(1)],
            102.0,
            None,
        ),
    ] {
        let evidence = Evidence {
            result_backend: Some(backend.clone()),
            stage,
            workers,
            ..scene()
        };
        let blame = evidence.of_missed(Some(at(60.0)), EARLY, at(now));
        match expected {
            Some(expected) => assert_eq!(blame, expected, "{what}"),
            None => {
                let without = Evidence {
                    result_backend: None,
                    ..evidence
                };
                assert_eq!(blame, without.of_missed(Some(at(60.0)), EARLY, at(now)), "{what}");
            }
        }
    }
}

#[test]
fn a_run_in_a_worker_that_waits_for_the_result_backend_is_part_of_its_incident() {
    let part = Blame::Part(PartOf::ResultBackend(broker().id), Cause::ResultBackendDown);
    let evidence = |holds_up: Vec<WorkerId>, troubled: Vec<WorkerId>| Evidence {
        result_backend: Some(BackendView {
            holds_up,
            troubled,
            ..backend()
        }),
        workers: vec![busy(1)],
        ..scene()
    };
    let one = vec![worker(1).id];
    let name = worker(1).name;

    let waits = evidence(one.clone(), one.clone());
    assert_eq!(waits.of_overrun(&run(), at(100.0)), part);
    let fails = evidence(Vec::new(), one);
    assert_ne!(fails.of_overrun(&run(), at(100.0)), part);
    assert_eq!(fails.of_aborted(Some(&name), at(100.0)), part);
    assert_eq!(fails.of_aborted(Some("celery@2"), at(100.0)), own(Cause::Failed));
    let over = Evidence {
        backend_outage: Some((at(100.0), at(150.0))),
        ..scene()
    };
    for (started, expected) in [(39.9, false), (40.0, true), (150.0, true), (150.1, false)] {
        assert_eq!(over.is_of_outage(Some(at(started))), expected, "{started}");
    }
    assert!(!over.is_of_outage(None));
    assert_eq!(scene().of_aborted(Some(&name), at(100.0)), own(Cause::Failed));
}
