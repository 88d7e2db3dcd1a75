//! Which workers succeed a silent worker.

use super::*;
use crate::incident::cause::Cause;
use crate::monitor::transition::tests::at;

fn queues(names: &[&str]) -> Vec<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

fn other(queues: &[String]) -> Other<'_> {
    Other {
        status: Status::Up,
        queues,
        last_seen_at: Some(at(60.0)),
        started_at: at(50.0),
    }
}

#[test]
fn each_queue_needs_somebody_who_has_reported_since() {
    let since = Successors::ReportedSince(at(40.0));
    let both = queues(&["a", "b"]);
    let (a, b) = (queues(&["a"]), queues(&["b", "c"]));

    assert!(is_succeeded(&both, since, &[other(&a), other(&b)]));
    assert!(!is_succeeded(&both, since, &[other(&a)]), "no worker consumes b");
    for unfit in [
        Other {
            status: Status::Down,
            ..other(&both)
        },
        Other {
            status: Status::Paused,
            ..other(&both)
        },
        Other {
            last_seen_at: Some(at(40.0)),
            ..other(&both)
        },
        Other {
            last_seen_at: None,
            ..other(&both)
        },
    ] {
        assert!(!is_succeeded(&both, since, &[unfit]), "{unfit:?}");
    }
    assert!(!is_succeeded(&[], since, &[other(&both)]), "it consumed nothing");
}

#[test]
fn the_successor_of_one_that_failed_is_younger() {
    let a = queues(&["a"]);
    let colleague = Other {
        started_at: at(-100.0),
        ..other(&a)
    };

    assert!(!is_succeeded(
        &a,
        Successors::StartedSince(at(40.0)),
        &[colleague]
    ));
    assert!(is_succeeded(
        &a,
        Successors::StartedSince(at(40.0)),
        &[colleague, other(&a)]
    ));
}

#[test]
fn a_lost_worker_may_be_succeeded_by_whoever_started_since_its_last_report() {
    let lost = Switch {
        status: Status::Down,
        period_seconds: 5.0,
        grace_seconds: 25.0,
        last_seen_at: Some(at(40.0)),
        deadline_at: None,
        trouble: None,
        since: None,
    };

    assert_eq!(of_lost(&lost), Some(Successors::StartedSince(at(40.0))));
    for (what, other) in [
        (
            "it reports, and is a ghost",
            Switch {
                trouble: Some(Cause::GhostWorker),
                ..lost.clone()
            },
        ),
        (
            "it works",
            Switch {
                status: Status::Up,
                ..lost.clone()
            },
        ),
        (
            "it has signed off",
            Switch {
                status: Status::Paused,
                ..lost.clone()
            },
        ),
    ] {
        assert_eq!(of_lost(&other), None, "{what}");
    }
}
