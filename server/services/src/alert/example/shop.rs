//! The rows of the made-up project: a shop with one Beat, two workers, and a monitor that is down.

use chrono::{DateTime, TimeDelta, Utc};
use deadbeat_domain::celery::beat::incarnation::{EndReport, Incarnation};
use deadbeat_domain::celery::condition::Condition;
use deadbeat_domain::celery::host::Part;
use deadbeat_domain::celery::queue::flow::Flow;
use deadbeat_domain::celery::reach::Reach;
use deadbeat_domain::celery::switch::Switch;
use deadbeat_domain::celery::worker::stranger::Stranger;
use deadbeat_domain::ids::{BeatId, BrokerId, MonitorId, PingId, ProjectId, QueueId, RunKey, WorkerId};
use deadbeat_domain::incident::SubjectKind;
use deadbeat_domain::monitor::baseline::Baseline;
use deadbeat_domain::monitor::ping::{PingKind, Signal, SignalDetail, Source};
use deadbeat_domain::monitor::run::{Contest, Outcome, Run, RunDetail, RunStatus};
use deadbeat_domain::monitor::status::Status;
use deadbeat_domain::monitor::{Expectation, MonitorState};
use deadbeat_domain::schedule::Schedule;
use deadbeat_domain::text::Text;
use deadbeat_store::celery::beat::Beat;
use deadbeat_store::celery::broker::Broker;
use deadbeat_store::celery::host::Resident;
use deadbeat_store::celery::queue::Queue;
use deadbeat_store::celery::trace::stage::RunProgress;
use deadbeat_store::celery::worker::Worker;
use deadbeat_store::incident::member::Affected;
use deadbeat_store::monitor::Monitor;
use serde_json::json;
use uuid::Uuid;

use crate::celery::host::lost::Host;
use crate::celery::result_backend::report::{Backend, Report};

/// The time at which the incident opens: 2026-01-02 02:15 UTC.
pub(super) const NOW: DateTime<Utc> = match DateTime::from_timestamp(1_767_320_100, 0) {
    Some(at) => at,
    None => DateTime::UNIX_EPOCH,
};
pub(super) const PROJECT: &str = "Shop";
const APP: &str = "shop";
const TASK: &str = "shop.tasks.nightly_report";
const TASK_ID: &str = "6f1a3c1e-2f0c-4a57-9a53-0d5c7a1b2c3d";
const QUEUE: &str = "reports";
const HOST: &str = "web-1";

pub(super) fn id(number: u128) -> Uuid {
    Uuid::from_u128(0x0198_c0de_0000_7000_8000_0000_0000_0000 + number)
}

pub(super) fn project() -> ProjectId {
    ProjectId(id(1))
}

/// Returns the time this number of seconds before the incident opens.
fn before(seconds: i64) -> DateTime<Utc> {
    NOW - TimeDelta::seconds(seconds)
}

/// A process whose last report came `silent` seconds ago.
fn switch(status: Status, silent: i64) -> Switch {
    Switch {
        status,
        period_seconds: 15.0,
        grace_seconds: 60.0,
        last_seen_at: Some(before(silent)),
        deadline_at: None,
        trouble: None,
        since: Some(before(silent + 600)),
    }
}

pub(super) fn beat() -> Beat {
    Beat {
        id: BeatId(id(4)),
        project_id: project(),
        name: APP.to_owned(),
        host: Some(HOST.to_owned()),
        project_word: None,
        created_at: before(900_000),
        hung_at: Some(before(5)),
        sent_at: Some(before(915)),
        send_failed: None,
        lost_events: None,
        state: switch(Status::Up, 75),
    }
}

/// A process of Beat that ended by an error.
pub(super) fn incarnation(number: u128, ago: i64) -> Incarnation {
    Incarnation {
        boot: id(20 + number),
        host: Some(HOST.to_owned()),
        pid: Some(4_240 + i64::try_from(number).unwrap_or_default()),
        started_at: Some(before(ago)),
        schedule: None,
        lineage: Some(u8::try_from(number).unwrap_or_default()),
        shares: true,
        sync: None,
        since: before(ago),
        seen_at: before(ago - 30),
        period_seconds: 15.0,
        grace_seconds: 60.0,
        says_goodbye: true,
        goodbye: Some(EndReport::Failed(Some("FileNotFoundError".to_owned()))),
    }
}

pub(super) fn worker(number: u128) -> Worker {
    Worker {
        id: WorkerId(id(30 + number)),
        project_id: project(),
        app: APP.to_owned(),
        name: format!("celery@web-{number}"),
        snapshot: json!({
            "project": "shop", "host": format!("web-{number}"), "pid": 4_711, "processes": 4, "active": 4, "reserved": 16,
            "longest": {"task": "shop.tasks.import_orders", "started_at": deadbeat_domain::json::instant(before(2_700))},
            "running_tasks": {"shop.tasks.import_orders": 4},
            "rate_limits": [{"task": TASK, "rate": "1/h", "held": 12}],
            "load_per_cpu": 6.5, "cpu_wait_ratio": 0.72, "cpu_used_ratio": 0.03,
        }),
        queues: vec![QUEUE.to_owned(), "celery".to_owned()],
        progress_at: before(2_700),
        created_at: before(900_000),
        incarnations: Vec::new(),
        state: switch(Status::Up, 4),
    }
}

/// A worker that stopped reporting.
pub(super) fn silent_worker() -> Worker {
    Worker {
        state: switch(Status::Down, 80),
        ..worker(1)
    }
}

pub(super) fn queue() -> Queue {
    Queue {
        id: QueueId(id(5)),
        project_id: project(),
        app: APP.to_owned(),
        name: QUEUE.to_owned(),
        depth: 128,
        oldest_seconds: Some(905.0),
        oldest_is_a_guess: false,
        oldest_task: Some(TASK.to_owned()),
        unacked: None,
        consumers: None,
        waiting_since: Some(before(905)),
        taken: None,
        flow: Flow {
            head: None,
            head_since: Some(before(905)),
            attended_at: None,
            others_at: None,
        },
        seen_at: before(3),
        created_at: before(900_000),
        state: Condition::FRESH,
    }
}

pub(super) fn stranger() -> Stranger {
    Stranger {
        worker: "celery@legacy-7".to_owned(),
        queues: vec![QUEUE.to_owned()],
        since: before(1_800),
        seen_at: before(5),
    }
}

pub(super) fn broker() -> Broker {
    Broker {
        id: BrokerId(id(6)),
        project_id: project(),
        app: APP.to_owned(),
        sampler: None,
        sampler_until: None,
        sample: Some(json!({
            "transport": "redis", "worker": "celery@web-1", "visibility_timeout_seconds": 3600.0,
            "error": "ConnectionError: Error 111 connecting to redis:6379. Connection refused",
        })),
        sampled_at: Some(before(5)),
        reach: Reach::default(),
        state: Condition {
            status: Status::Down,
            trouble: None,
            since: Some(before(45)),
        },
    }
}

pub(super) fn backend() -> Backend {
    let report = Report {
        address: Text::cleaned("redis://redis:6379/1", 255),
        answered_at: Some(before(70)),
        operation: Some(Text::cleaned("store_result", 255)),
        since: Some(before(60)),
        last_at: Some(before(5)),
        hanging: 0,
        failing: 4,
        error: Some(Text::cleaned("ConnectionError", 255)),
    };
    Backend {
        id: BrokerId(id(6)),
        project_id: project(),
        address: "redis://redis:6379/1".to_owned(),
        troubled: vec![("celery@web-1".to_owned(), report)],
        answered: None,
    }
}

pub(super) fn host() -> Host {
    let part = |kind, number: u128, name: &str, queues: &[&str]| Resident {
        kind,
        project_id: project(),
        app: APP.to_owned(),
        name: name.to_owned(),
        typed: APP.to_owned(),
        host: Some(HOST.to_owned()),
        machine: "b2c4".to_owned(),
        queues: queues.iter().map(|queue| (*queue).to_owned()).collect(),
        status: Status::Down,
        part: Part {
            id: id(number),
            heard_at: before(78),
            period: TimeDelta::seconds(15),
            grace: TimeDelta::seconds(60),
            gap: None,
        },
    };
    Host {
        id: id(7),
        project_id: project(),
        name: HOST.to_owned(),
        silent: vec![
            part(SubjectKind::Beat, 4, APP, &[]),
            part(SubjectKind::Worker, 31, "celery@web-1", &[QUEUE, "celery"]),
        ],
        back: Vec::new(),
        works: false,
        affected: affected(),
    }
}

/// Monitors that an incident about another subject affects: more than a message names.
pub(super) fn affected() -> Affected {
    let named = (0..deadbeat_domain::limits::ALERT_MEMBERS).map(|number| {
        (
            MonitorId(id(100 + u128::from(number.unsigned_abs()))),
            format!("task-{number:02}"),
        )
    });
    Affected {
        first: named.collect(),
        count: 73,
    }
}

fn run() -> Run {
    Run {
        key: RunKey(id(40)),
        run_id: None,
        status: RunStatus::Overrun,
        started_at: Some(before(2_700)),
        finished_at: None,
        deadline_at: None,
        duration: None,
        exit_code: None,
        detail: detail(None),
        attempts: 3,
        contest: Some(Contest::Again),
        events: Vec::new(),
        orphan: None,
        ended_at: None,
    }
}

fn detail(outcome: Option<Outcome>) -> RunDetail {
    RunDetail {
        task: Some(TASK.to_owned()),
        task_id: Some(TASK_ID.to_owned()),
        worker: Some("celery@web-1".to_owned()),
        retries: if outcome == Some(Outcome::RetriesExhausted) {
            3
        } else {
            0
        },
        error: match outcome {
            None | Some(Outcome::RetriesExhausted) => Some("ConnectionError".to_owned()),
            Some(Outcome::Lost) => Some("WorkerLostError".to_owned()),
            Some(Outcome::TimeLimit) => Some("TimeLimitExceeded".to_owned()),
            Some(_) => None,
        },
        outcome,
        attempt: Some(id(41)),
        ..RunDetail::default()
    }
}

/// A report about a run that ended badly.
pub(super) fn signal(outcome: Option<Outcome>) -> Signal {
    Signal {
        kind: PingKind::Fail,
        received_at: NOW,
        occurred_at: NOW,
        run_id: None,
        exit_code: None,
        duration: Some(TimeDelta::seconds(2)),
        source: Source::Event,
        detail: SignalDetail {
            run: detail(outcome),
            ..SignalDetail::default()
        },
        is_replayed: false,
    }
}

/// The progress of the missing run: Beat sent its message, and no worker received it.
pub(super) fn stage() -> RunProgress {
    RunProgress {
        monitor_id: monitor().id,
        run_id: id(42),
        task_id: Some(TASK_ID.to_owned()),
        queue: Some(QUEUE.to_owned()),
        published_at: Some(before(900)),
        received_at: None,
        started_at: None,
        finished_at: None,
        attempts: 0,
        worker: Some("celery@web-1".to_owned()),
        heard_at: before(899),
        is_expired: false,
    }
}

/// A monitor that is down.
pub(super) fn monitor() -> Monitor {
    let schedule = json!({"kind": "cron", "expression": "0 3 * * *", "timezone": "Europe/Berlin"});
    let schedule = Schedule::from_json(&schedule).expect("a crontab that is a constant can be read");
    let expectation = Expectation {
        schedule,
        delay_seconds: 0.0,
        grace_seconds: 900.0,
        longest_run_seconds: Some(1_800.0),
    };
    let mut state = MonitorState::fresh(expectation, false, before(900_000));
    state.status = Status::Down;
    state.last_ping_at = Some(before(86_700));
    state.last_success_at = Some(before(86_700));
    state.next_due_at = Some(before(900));
    state.postponed_from = Some(before(173_700));
    state.baseline = Some(Baseline {
        bounds: false,
        runs: 40,
        usual: 312.0,
        shortest: 250.0,
        longest: 420.0,
        odd: 3,
    });
    state.runs.push(run());
    Monitor {
        id: MonitorId(id(2)),
        project_id: project(),
        ping_id: PingId(id(9)),
        slug: "nightly-report".to_owned(),
        name: "nightly-report".to_owned(),
        tags: vec!["prod".to_owned(), "reports".to_owned()],
        all_channels: true,
        severity: None,
        beat_id: Some(BeatId(id(4))),
        entry: Some("nightly-report".to_owned()),
        registered: Some(json!({"task": TASK})),
        retired_at: None,
        created_at: before(900_000),
        updated_at: before(900_000),
        open_runs: 1,
        state,
    }
}

/// The same monitor outside Celery: a job that pings.
pub(super) fn job() -> Monitor {
    let mut job = monitor();
    job.state.runs.clear();
    Monitor {
        beat_id: None,
        entry: None,
        registered: None,
        open_runs: 0,
        ..job
    }
}
