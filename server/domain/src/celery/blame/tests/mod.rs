//! Verdicts, as tables. Every case gets a verdict in the end.

mod always;
mod begun;
mod crashes;
mod held_up;
mod missed;
mod received;
mod sent;
mod starving;
mod strangers;
mod unbegun;

use super::*;
use crate::celery::host::load::HostLoad;
use crate::monitor::run::{CONTEST_PATIENCE, RunDetail, RunStatus};
use crate::monitor::transition::tests::at;
use uuid::Uuid;

use crate::monitor::run::Run;

const QUEUE: &str = "orders";
/// Beat may send slightly before its slot.
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
        skewed_since: None,
        back_at: None,
    }
}

fn broker() -> BrokerView {
    BrokerView {
        id: BrokerId(Uuid::from_u128(100)),
        status: Status::Up,
        down_since: None,
        doubt_until: None,
        back_at: None,
        seen_at: Some(at(95.0)),
        unacked: Some(0),
        visibility_timeout: None,
    }
}

/// It has had trouble for a minute, and has an incident. No process waits for it.
fn backend() -> BackendView {
    BackendView {
        id: broker().id,
        since: at(40.0),
        is_alerted: true,
        holds_up_beat: false,
        holds_up: Vec::new(),
        troubled: Vec::new(),
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
        oldest_at: None,
        has_others: false,
        seen_at: at(95.0),
    }
}

/// Idle. Its last report came a moment ago.
fn worker(number: u128) -> WorkerView {
    WorkerView {
        id: WorkerId(Uuid::from_u128(number)),
        name: format!("celery@{number}"),
        is_foreign: false,
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
        skewed_since: None,
        limited: Vec::new(),
        running: Some(Vec::new()),
        incarnation: None,
        live: Vec::new(),
        gap: None,
        load: HostLoad::default(),
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
        task: Some("shop.job".to_owned()),
        is_expired: false,
    }
}

fn received(by: u128) -> StageView {
    StageView {
        received_at: Some(at(61.0)),
        worker: Some(format!("celery@{by}")),
        ..sent()
    }
}

/// The verdict that names another subject.
fn named(cause: Cause) -> Blame {
    let subject = match cause {
        Cause::BrokerDown => PartOf::Broker(broker().id),
        Cause::BeatStalled => PartOf::Beat,
        _ => PartOf::Queue(queue().id),
    };
    Blame::Named(subject, cause)
}

/// No fault, and no facts about the run.
fn scene() -> Evidence {
    Evidence {
        beat: Some(beat()),
        broker: Some(broker()),
        stage: None,
        queues: vec![queue()],
        workers: vec![worker(1)],
        ..Evidence::default()
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
        orphan: None,
        ended_at: None,
    }
}

const fn own(cause: Cause) -> Blame {
    Blame::Own(cause)
}

fn of_worker(number: u128, cause: Cause) -> Blame {
    Blame::Part(PartOf::Worker(WorkerId(Uuid::from_u128(number))), cause)
}
