//! Verdicts on runs whose owner has ended.

use super::*;
use crate::celery::blame::view::{BrokerView, WorkerView};
use crate::celery::host::load::HostLoad;
use crate::ids::{BrokerId, RunKey, WorkerId};
use crate::monitor::run::RunDetail;
use crate::monitor::transition::tests::at;
use uuid::Uuid;

const RUN: Uuid = Uuid::from_u128(7);
const OWNER: Uuid = Uuid::from_u128(11);
const SUCCESSOR: Uuid = Uuid::from_u128(12);

fn worker() -> WorkerView {
    WorkerView {
        id: WorkerId(Uuid::from_u128(1)),
        name: "celery@1".to_owned(),
        is_foreign: false,
        status: Status::Up,
        trouble: None,
        last_seen_at: Some(at(100.0)),
        period: TimeDelta::seconds(5),
        deadline_at: Some(at(130.0)),
        started_at: Some(at(95.0)),
        progress_at: at(100.0),
        queues: Vec::new(),
        connected: true,
        active: 0,
        processes: 2,
        reserved: 0,
        unacked: 0,
        held: 0,
        limited: Vec::new(),
        skewed_since: None,
        running: Some(Vec::new()),
        incarnation: Some(SUCCESSOR),
        live: vec![SUCCESSOR],
        gap: None,
        load: HostLoad::default(),
    }
}

fn with(worker: WorkerView) -> Evidence {
    Evidence {
        workers: vec![worker],
        ..Evidence::default()
    }
}

fn redis(evidence: Evidence) -> Evidence {
    Evidence {
        broker: Some(BrokerView {
            id: BrokerId(Uuid::from_u128(100)),
            status: Status::Up,
            down_since: None,
            doubt_until: None,
            back_at: None,
            unacked: None,
            seen_at: None,
            visibility_timeout: Some(TimeDelta::seconds(600)),
        }),
        ..evidence
    }
}

fn run(how: Orphaned, acks_late: bool) -> Run {
    Run {
        key: RunKey(Uuid::from_u128(1)),
        run_id: Some(RUN),
        status: RunStatus::Open,
        started_at: Some(at(0.0)),
        finished_at: None,
        deadline_at: Some(at(100.0)),
        duration: None,
        exit_code: None,
        detail: RunDetail {
            worker: Some("celery@1".to_owned()),
            incarnation: Some(OWNER),
            acks_late,
            ..RunDetail::default()
        },
        attempts: 1,
        contest: None,
        events: Vec::new(),
        orphan: Some(Orphan {
            since: at(100.0),
            how,
        }),
        ended_at: None,
    }
}

fn fate(run: &Run, evidence: &Evidence, now: f64) -> Fate {
    evidence.of_orphan(run, run.orphan.unwrap(), at(now))
}

const KILLED: Fate = Fate::Dead(Blame::Own(Cause::WorkerKilled));

#[test]
fn a_run_of_an_incarnation_that_ended_is_dead_at_once() {
    let early = run(Orphaned::Ended, false);

    assert_eq!(fate(&early, &with(worker()), 100.0), KILLED);
    assert_eq!(fate(&early, &Evidence::default(), 100.0), KILLED);
    let lost = WorkerView {
        status: Status::Down,
        ..worker()
    };
    let part = Blame::Part(PartOf::Worker(lost.id), Cause::WorkerLost);
    assert_eq!(fate(&early, &with(lost), 100.0), Fate::Dead(part));
    let back = WorkerView {
        live: vec![SUCCESSOR, OWNER],
        ..worker()
    };
    assert_eq!(fate(&early, &with(back), 100.0), Fate::Lives);
}

#[test]
fn a_late_acknowledged_run_waits_for_its_redelivery_and_not_for_ever() {
    let late = run(Orphaned::Ended, true);
    let evidence = redis(with(worker()));

    assert_eq!(fate(&late, &evidence, 100.0), Fate::Wait(at(760.0)));
    assert_eq!(fate(&late, &evidence, 760.0), KILLED);
    assert_eq!(
        fate(&late, &with(worker()), 100.0),
        Fate::Wait(at(160.0)),
        "RabbitMQ"
    );
    assert_eq!(fate(&late, &with(worker()), 160.0), KILLED);
}

#[test]
fn a_run_that_ended_where_we_could_not_listen_is_unknown() {
    assert_eq!(
        fate(&run(Orphaned::Unheard, false), &with(worker()), 100.0),
        Fate::Unknown
    );
}

#[test]
fn a_run_that_its_own_incarnation_does_not_list_is_dead() {
    let unlisted = run(Orphaned::Unlisted, false);
    let own = WorkerView {
        incarnation: Some(OWNER),
        live: vec![OWNER],
        ..worker()
    };
    for (what, worker, now, expected) in [
        ("it does not list it", own.clone(), 115.0, KILLED),
        (
            "it lists it again",
            WorkerView {
                running: Some(vec![RUN]),
                ..own.clone()
            },
            115.0,
            Fate::Lives,
        ),
        (
            "it executes too many runs to list",
            WorkerView {
                running: None,
                ..own.clone()
            },
            115.0,
            Fate::Unproved,
        ),
        (
            "its loop does not turn",
            WorkerView {
                connected: false,
                ..own
            },
            115.0,
            Fate::Wait(at(117.0)),
        ),
        (
            "another incarnation of its name reported last",
            worker(),
            115.0,
            Fate::Wait(at(117.0)),
        ),
        ("another one always speaks last", worker(), 160.0, Fate::Unproved),
    ] {
        assert_eq!(fate(&unlisted, &with(worker), now), expected, "{what}");
    }
    assert_eq!(fate(&unlisted, &Evidence::default(), 115.0), Fate::Unproved);
}

#[test]
fn settling_closes_what_is_dead_and_moves_what_waits() {
    let whole = at(1_000.0);
    let mut dead = run(Orphaned::Ended, false);
    assert_eq!(
        settle(&mut dead, &with(worker()), whole, at(100.0)),
        Settled::Dead(Blame::Own(Cause::WorkerKilled))
    );
    assert_eq!(
        (dead.status, dead.detail.outcome),
        (RunStatus::Overrun, Some(Outcome::Lost))
    );

    let mut waits = run(Orphaned::Ended, true);
    assert_eq!(
        settle(&mut waits, &with(worker()), whole, at(100.0)),
        Settled::Later
    );
    assert_eq!(
        (waits.status, waits.deadline_at),
        (RunStatus::Open, Some(at(160.0)))
    );

    let mut lives = run(Orphaned::Ended, false);
    let back = with(WorkerView {
        live: vec![OWNER],
        ..worker()
    });
    assert_eq!(settle(&mut lives, &back, whole, at(100.0)), Settled::Later);
    assert_eq!((lives.orphan, lives.deadline_at), (None, Some(whole)));

    let mut over = run(Orphaned::Ended, false);
    assert_eq!(
        settle(&mut over, &back, at(100.0), at(100.0)),
        Settled::None,
        "its longest run is over"
    );

    let mut unknown = run(Orphaned::Unheard, false);
    assert_eq!(
        settle(&mut unknown, &with(worker()), whole, at(100.0)),
        Settled::Later
    );
    assert_eq!((unknown.status, unknown.deadline_at), (RunStatus::Overrun, None));
}

#[test]
fn reports_that_a_gap_held_up_are_awaited() {
    let gap = Some((at(60.0), at(90.0)));
    let returned = with(WorkerView {
        gap,
        incarnation: Some(OWNER),
        live: vec![OWNER],
        started_at: Some(at(-10.0)),
        ..worker()
    });
    let open = Run {
        orphan: None,
        ..run(Orphaned::Ended, false)
    };

    assert_eq!(returned.of_overrun(&open, at(100.0)), Blame::Wait(at(107.0)));
    assert_eq!(
        returned.of_overrun(&open, at(107.0)),
        Blame::Own(Cause::WorkerKilled),
        "nothing came"
    );
    let later = Run {
        started_at: Some(at(91.0)),
        ..open
    };
    assert_ne!(
        returned.of_overrun(&later, at(100.0)),
        Blame::Wait(at(107.0)),
        "it began after the gap"
    );
}
