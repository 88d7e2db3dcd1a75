use uuid::Uuid;

use super::*;
use crate::celery::blame::view::{BrokerView, QueueView};
use crate::celery::host::load::HostLoad;
use crate::ids::{BrokerId, QueueId, WorkerId};
use crate::monitor::transition::tests::at;

const QUEUE: PartOf = PartOf::Queue(QueueId(Uuid::from_u128(200)));
const BROKER: PartOf = PartOf::Broker(BrokerId(Uuid::from_u128(300)));

fn one(number: u128) -> PartOf {
    PartOf::Worker(WorkerId(Uuid::from_u128(number)))
}

/// Both its processes are busy, and it made progress last at 80 s.
fn worker(number: u128) -> WorkerView {
    WorkerView {
        id: WorkerId(Uuid::from_u128(number)),
        name: format!("celery@{number}"),
        is_foreign: false,
        status: Status::Up,
        trouble: None,
        last_seen_at: Some(at(98.0)),
        period: TimeDelta::seconds(5),
        deadline_at: None,
        started_at: None,
        progress_at: at(80.0),
        queues: vec!["celery".to_owned()],
        connected: true,
        active: 2,
        processes: 2,
        reserved: 6,
        unacked: 4,
        held: 0,
        limited: Vec::new(),
        skewed_since: None,
        running: None,
        incarnation: None,
        live: Vec::new(),
        gap: None,
        load: HostLoad::default(),
    }
}

/// A run was sent at 60 s, and waits.
fn waiting(workers: Vec<WorkerView>) -> Evidence {
    Evidence {
        broker: Some(BrokerView {
            id: BrokerId(Uuid::from_u128(300)),
            status: Status::Up,
            down_since: None,
            doubt_until: None,
            back_at: None,
            unacked: None,
            seen_at: None,
            visibility_timeout: None,
        }),
        stage: Some(StageView {
            published_at: Some(at(60.0)),
            received_at: None,
            heard_at: at(60.0),
            queue: Some("celery".to_owned()),
            worker: None,
            task: None,
            is_expired: false,
        }),
        queues: vec![QueueView {
            id: QueueId(Uuid::from_u128(200)),
            name: "celery".to_owned(),
            status: Status::Up,
            trouble: None,
            since: None,
            depth: 9,
            oldest_at: None,
            has_others: false,
            seen_at: at(95.0),
        }],
        workers,
        ..Evidence::default()
    }
}

fn folded(evidence: &Evidence, cause: Cause) -> Blame {
    evidence.fold(Blame::Own(cause), Some(at(60.0)), at(100.0))
}

#[test]
fn what_waits_names_its_blocked_worker_or_else_its_queue() {
    let slow = WorkerView {
        progress_at: at(81.0),
        ..worker(1)
    };
    let idle = WorkerView {
        active: 1,
        ..worker(1)
    };
    for (what, workers, subject) in [
        ("its only worker is blocked", vec![worker(1)], one(1)),
        ("its only worker is slow", vec![slow], QUEUE),
        ("a process is free", vec![idle], QUEUE),
        ("both are blocked", vec![worker(1), worker(2)], QUEUE),
    ] {
        let evidence = waiting(workers);
        let expected = Blame::Named(subject, Cause::QueueSlaBreach);
        assert_eq!(folded(&evidence, Cause::QueueSlaBreach), expected, "{what}");
    }
}

#[test]
fn what_is_reported_for_either_is_joined_whichever_fits_better() {
    for alerted in [one(1), QUEUE] {
        let evidence = Evidence {
            open: vec![alerted],
            ..waiting(vec![worker(1)])
        };
        let expected = Blame::Named(alerted, Cause::QueueSlaBreach);
        assert_eq!(folded(&evidence, Cause::QueueSlaBreach), expected);
    }
    let elsewhere = Evidence {
        open: vec![one(7), BROKER],
        ..waiting(vec![worker(1)])
    };
    let expected = Blame::Named(one(1), Cause::QueueSlaBreach);
    assert_eq!(folded(&elsewhere, Cause::QueueSlaBreach), expected);
}

#[test]
fn a_rate_limit_names_the_worker_that_holds_messages_of_the_task_back() {
    let limiting = WorkerView {
        limited: vec!["shop.job".to_owned()],
        ..worker(2)
    };
    let mut evidence = waiting(vec![worker(1), limiting]);
    evidence.stage = evidence.stage.map(|stage| StageView {
        task: Some("shop.job".to_owned()),
        ..stage
    });

    assert_eq!(
        folded(&evidence, Cause::RateLimited),
        Blame::Named(one(2), Cause::RateLimited)
    );
}

#[test]
fn other_causes_name_the_broker_or_nobody() {
    let evidence = waiting(vec![worker(1)]);
    assert_eq!(
        folded(&evidence, Cause::BrokerDown),
        Blame::Named(BROKER, Cause::BrokerDown)
    );
    for cause in [Cause::LostInBroker, Cause::Unknown, Cause::PrefetchStarvation] {
        assert_eq!(folded(&evidence, cause), Blame::Own(cause));
    }
    assert_eq!(
        Evidence::default().fold(Blame::Own(Cause::BrokerDown), None, at(100.0)),
        Blame::Own(Cause::BrokerDown),
        "no broker is known"
    );
}

#[test]
fn the_canary_waits_behind_others_as_long_as_any_message_may() {
    let canary = Evidence {
        is_canary: true,
        longest_wait: Some(TimeDelta::seconds(90)),
        ..waiting(vec![worker(1)])
    };
    for cause in [Cause::QueueSlaBreach, Cause::PrefetchStarvation] {
        assert_eq!(folded(&canary, cause), Blame::Wait(at(120.0)));
    }
    let late = canary.fold(Blame::Own(Cause::QueueSlaBreach), Some(at(60.0)), at(150.0));
    assert_eq!(late, Blame::Named(one(1), Cause::QueueSlaBreach));
    assert_eq!(
        folded(&canary, Cause::Unknown),
        Blame::Wait(at(120.0)),
        "it makes progress"
    );
    for (what, worker) in [
        (
            "it makes no progress",
            WorkerView {
                progress_at: at(59.0),
                ..worker(1)
            },
        ),
        (
            "a process is free",
            WorkerView {
                active: 1,
                ..worker(1)
            },
        ),
        (
            "it belongs to another queue",
            WorkerView {
                queues: vec!["other".to_owned()],
                ..worker(1)
            },
        ),
    ] {
        let dead = Evidence {
            workers: vec![worker],
            ..canary.clone()
        };
        assert_eq!(
            folded(&dead, Cause::Unknown),
            Blame::Own(Cause::Unknown),
            "{what}"
        );
    }
}

#[test]
fn the_canary_has_no_verdict_beside_what_explains_it() {
    for (alerted, cause) in [
        (BROKER, Cause::Unknown),
        (PartOf::Beat, Cause::Unknown),
        (QUEUE, Cause::LostInBroker),
        (one(1), Cause::PrefetchStarvation),
    ] {
        let canary = Evidence {
            is_canary: true,
            open: vec![alerted],
            ..waiting(vec![worker(1)])
        };
        assert_eq!(folded(&canary, cause), Blame::Part(alerted, cause));
    }
    let elsewhere = Evidence {
        is_canary: true,
        open: vec![one(7)],
        ..waiting(Vec::new())
    };
    assert_eq!(folded(&elsewhere, Cause::Unknown), Blame::Own(Cause::Unknown));
}

/// Other processes use the CPUs of its machine.
fn starving(number: u128) -> WorkerView {
    WorkerView {
        load: HostLoad {
            machine: Some("m1".to_owned()),
            per_cpu: Some(4.0),
            waits: Some(0.9),
            takes: Some(0.1),
        },
        ..worker(number)
    }
}

#[test]
fn what_waits_for_a_starving_worker_names_it_and_what_waits_for_others_on_its_machine_joins() {
    let held_by = |number: u128, open: Vec<PartOf>| {
        let mut evidence = waiting(vec![starving(1), starving(2)]);
        evidence.open = open;
        evidence.stage = evidence.stage.map(|stage| StageView {
            received_at: Some(at(61.0)),
            worker: Some(format!("celery@{number}")),
            ..stage
        });
        folded(&evidence, Cause::QueueSlaBreach)
    };
    let of_host = |number| Blame::Named(one(number), Cause::HostOverloaded);
    assert_eq!(held_by(1, Vec::new()), of_host(1));
    assert_eq!(held_by(2, Vec::new()), of_host(2));
    assert_eq!(held_by(2, vec![one(1)]), of_host(1), "one machine is one fault");

    let waiting_for = |workers| folded(&waiting(workers), Cause::QueueSlaBreach);
    assert_eq!(waiting_for(vec![starving(1), starving(2)]), of_host(1));
    let mixed = waiting_for(vec![starving(1), worker(2)]);
    assert_eq!(
        mixed,
        Blame::Named(QUEUE, Cause::QueueSlaBreach),
        "the other worker could receive it"
    );
}

#[test]
fn a_worker_whose_own_tasks_take_the_cpus_is_blocked_and_does_not_starve() {
    let mut busy = starving(1);
    busy.load.takes = Some(0.8);
    let evidence = waiting(vec![busy]);
    let blocked = Blame::Named(one(1), Cause::QueueSlaBreach);
    assert_eq!(folded(&evidence, Cause::QueueSlaBreach), blocked);
}

#[test]
fn once_it_is_reported_a_moment_in_which_it_gets_its_turn_is_no_other_fault() {
    let mut better = starving(1);
    better.load.waits = Some(0.2);
    let alerted = Evidence {
        open: vec![one(1)],
        ..waiting(vec![better.clone()])
    };
    let of_host = Blame::Named(one(1), Cause::HostOverloaded);
    assert_eq!(folded(&alerted, Cause::Unknown), of_host);
    assert_eq!(
        folded(&waiting(vec![better]), Cause::Unknown),
        Blame::Own(Cause::Unknown)
    );
}

#[test]
fn behind_a_starving_worker_the_canary_waits_as_long_as_any_message() {
    let canary = Evidence {
        is_canary: true,
        ..waiting(vec![starving(1)])
    };
    assert!(matches!(folded(&canary, Cause::QueueSlaBreach), Blame::Wait(_)));
    let open = Evidence {
        open: vec![one(1)],
        ..canary
    };
    let joins = Blame::Named(one(1), Cause::HostOverloaded);
    assert_eq!(folded(&open, Cause::QueueSlaBreach), joins);
}

#[test]
fn a_run_that_goes_on_for_too_long_in_a_starving_worker_names_it() {
    let evidence = waiting(vec![starving(1)]);
    let of_host = Blame::Named(one(1), Cause::HostOverloaded);
    let overrun = Blame::Own(Cause::Overrun);
    assert_eq!(evidence.fold_overrun(overrun, Some(&starving(1))), of_host);
    let killed = Blame::Own(Cause::WorkerKilled);
    assert_eq!(evidence.fold_overrun(killed, Some(&starving(1))), killed);
}

#[test]
fn a_run_that_goes_on_for_too_long_is_part_of_its_blocked_workers_incident() {
    let evidence = Evidence {
        open: vec![one(1)],
        ..waiting(vec![worker(1)])
    };
    let overrun = Blame::Own(Cause::Overrun);
    let named = Blame::Named(one(1), Cause::Overrun);
    assert_eq!(evidence.fold_overrun(overrun, Some(&worker(1))), named);
    let other = evidence.fold_overrun(overrun, Some(&worker(2)));
    assert_eq!(other, overrun);
    let idle = WorkerView {
        active: 1,
        ..worker(1)
    };
    assert_eq!(evidence.fold_overrun(overrun, Some(&idle)), overrun);
    let lost = Blame::Own(Cause::WorkerKilled);
    assert_eq!(evidence.fold_overrun(lost, Some(&worker(1))), lost);
}
