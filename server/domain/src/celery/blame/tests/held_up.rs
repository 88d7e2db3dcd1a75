//! A result backend that holds up Beat or workers.

use super::*;
use crate::monitor::run::Run;

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
    let without_alert = BackendView {
        is_alerted: false,
        since: at(90.0),
        ..of_worker.clone()
    };
    let long_without_alert = BackendView {
        is_alerted: false,
        ..of_worker.clone()
    };
    for (what, backend, stage, workers, now, expected) in [
        (
            "Beat waits, and has not sent the run",
            &of_beat,
            None,
            vec![worker(1)],
            100.0,
            Some(part),
        ),
        (
            "Beat waits, and has sent the run",
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
            "the worker that should receive it waits",
            &of_worker,
            Some(sent()),
            vec![busy(1)],
            100.0,
            Some(part),
        ),
        (
            "a worker waits, and Beat has not sent the run",
            &of_worker,
            None,
            vec![busy(1)],
            100.0,
            None,
        ),
        (
            "the trouble has no incident yet",
            &without_alert,
            Some(received(1)),
            vec![busy(1)],
            100.0,
            Some(Blame::Wait(at(102.0))),
        ),
        (
            "the trouble never had an incident",
            &long_without_alert,
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
    let aborted = |by: &str, started: Option<f64>| Run {
        started_at: started.map(at),
        detail: RunDetail {
            worker: Some(by.to_owned()),
            ..RunDetail::default()
        },
        ..run()
    };
    let of_one = aborted(&name, Some(0.0));
    assert_eq!(fails.of_aborted(&of_one, at(100.0)), part);
    assert_eq!(
        fails.of_aborted(&aborted("celery@2", Some(0.0)), at(100.0)),
        own(Cause::Failed)
    );
    assert_eq!(scene().of_aborted(&of_one, at(100.0)), own(Cause::Failed));
}

#[test]
fn an_aborted_run_that_began_in_an_outage_is_part_of_it_whoever_is_answered_first() {
    let part = Blame::Part(PartOf::ResultBackend(broker().id), Cause::ResultBackendDown);
    // No worker reports trouble any more, or only another worker does. The run's own worker got an answer.
    let others = BackendView {
        holds_up_beat: true,
        ..backend()
    };
    for result_backend in [None, Some(others)] {
        let since = |over: Option<f64>| Evidence {
            backend_outage: Some((at(100.0), over.map(at))),
            result_backend: result_backend.clone(),
            ..scene()
        };
        for (what, started, over, expected) in [
            ("before it", Some(39.9), None, None),
            ("in it", Some(40.0), None, Some(Outage::Open)),
            (
                "begun in the outage, which is over",
                Some(40.0),
                Some(150.0),
                Some(Outage::Over),
            ),
            ("in its last moment", Some(150.0), Some(150.0), Some(Outage::Over)),
            ("after it", Some(150.1), Some(150.0), None),
            ("its start is not known", None, None, None),
        ] {
            let run = Run {
                started_at: started.map(at),
                ..run()
            };
            let evidence = since(over);
            assert_eq!(evidence.outage_of(&run), expected, "{what}");
            let blame = if expected == Some(Outage::Open) {
                part
            } else {
                own(Cause::Failed)
            };
            assert_eq!(evidence.of_aborted(&run, at(152.0)), blame, "{what}");
        }
    }
}
