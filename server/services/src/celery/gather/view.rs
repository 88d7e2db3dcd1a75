//! Converts rows about the parts of an application to the form of verdicts.

use chrono::{DateTime, TimeDelta, Utc};
use deadbeat_domain::celery::blame::view::{BrokerView, QueueView, WorkerView};
use deadbeat_domain::celery::host::load::HostLoad;
use deadbeat_domain::celery::queue::LONGEST_WAIT;
use deadbeat_domain::incident::cause::Cause;
use deadbeat_domain::limits;
use deadbeat_domain::monitor::status::Status;
use deadbeat_domain::time::span;
use deadbeat_store::celery::broker::Broker;
use deadbeat_store::celery::queue::Queue;
use deadbeat_store::celery::worker::Worker;
use serde_json::Value;
use uuid::Uuid;

/// The task of the SDK's canary.
pub(crate) const CANARY: &str = "deadbeat.canary";

/// A loop that has not turned for this long is blocked.
pub(crate) const STUCK_SECONDS: f64 = 5.0;

/// Verdicts take a stopped worker into account for this long.
pub(super) const LEFT_FOR: TimeDelta = TimeDelta::hours(1);

pub(super) fn broker_view(broker: &Broker, back_at: Option<DateTime<Utc>>, now: DateTime<Utc>) -> BrokerView {
    let is_away = broker.state.trouble == Some(Cause::BrokerDown);
    BrokerView {
        id: broker.id,
        status: broker.state.status,
        down_since: broker.state.since.filter(|_| is_away),
        doubt_until: broker.reach.doubt_until(now),
        back_at,
        seen_at: broker.sampled_at,
        unacked: broker
            .sample
            .as_ref()
            .and_then(|sample| sample.get("unacked"))
            .and_then(Value::as_i64),
        visibility_timeout: broker
            .sample
            .as_ref()
            .and_then(|sample| sample.get("visibility_timeout_seconds"))
            .and_then(Value::as_f64)
            .filter(|seconds| (0.0..=limits::SPAN_SECONDS).contains(seconds))
            .map(span),
    }
}

/// Returns how long a message may wait, according to the sampler of the broker.
pub(super) fn longest_wait(broker: Option<&Broker>) -> TimeDelta {
    broker
        .and_then(|broker| broker.sample.as_ref()?.get("longest_wait_seconds")?.as_f64())
        .filter(|seconds| (1.0..=limits::SPAN_SECONDS).contains(seconds))
        .map_or(LONGEST_WAIT, span)
}

pub(super) fn queue_view(queue: &Queue, has_others: bool) -> QueueView {
    QueueView {
        id: queue.id,
        name: queue.name.clone(),
        status: queue.state.status,
        trouble: queue.state.trouble,
        since: queue.state.since,
        depth: queue.depth,
        oldest_at: queue
            .oldest_seconds
            .filter(|_| !queue.oldest_is_a_guess)
            .map(|seconds| queue.seen_at - span(seconds)),
        has_others,
        seen_at: queue.seen_at,
    }
}

pub(super) fn worker_view(worker: &Worker) -> WorkerView {
    let said = |field: &str| worker.snapshot.get(field);
    let count = |field: &str| said(field).and_then(Value::as_i64).unwrap_or(0);
    let instant = |field: &str| {
        let text = said(field).and_then(Value::as_str)?;
        text.parse::<DateTime<Utc>>().ok()
    };
    let running = said("running").and_then(Value::as_array).map(|ids| {
        ids.iter()
            .filter_map(|id| Uuid::parse_str(id.as_str()?).ok())
            .collect()
    });
    let limited = said("rate_limits").and_then(Value::as_array).map(|limits| {
        limits
            .iter()
            .filter_map(|limit| Some(limit.get("task")?.as_str()?.to_owned()))
            .collect()
    });
    WorkerView {
        id: worker.id,
        name: worker.name.clone(),
        is_foreign: false,
        status: worker.state.status,
        trouble: worker.state.trouble.filter(|_| {
            worker.state.status == Status::Down || worker.state.trouble == Some(Cause::GhostWorker)
        }),
        skewed_since: worker
            .state
            .since
            .filter(|_| worker.state.trouble == Some(Cause::ClockSkew)),
        last_seen_at: worker.state.last_seen_at,
        period: span(worker.state.period_seconds),
        deadline_at: worker.state.deadline_at,
        started_at: instant("started_at"),
        progress_at: worker.progress_at,
        queues: worker.queues.clone(),
        // The loop of a worker that searches for its broker is blocked, and its report may still name the old connection.
        connected: said("connected").and_then(Value::as_bool) != Some(false)
            && (said("loop_lag_seconds").and_then(Value::as_f64).unwrap_or(0.0) < STUCK_SECONDS
                || count("active") >= count("processes").max(1)),
        active: count("active"),
        processes: count("processes").max(1),
        reserved: count("reserved"),
        unacked: said("unacked")
            .and_then(Value::as_i64)
            .unwrap_or(count("reserved")),
        held: count("scheduled") + count("limited"),
        limited: limited.unwrap_or_default(),
        running,
        incarnation: said("incarnation")
            .and_then(Value::as_str)
            .and_then(|id| Uuid::parse_str(id).ok()),
        live: worker
            .incarnations
            .iter()
            .filter(|one| one.is_live())
            .map(|one| one.id)
            .collect(),
        gap: worker
            .incarnations
            .iter()
            .filter_map(|one| one.gap)
            .max_by_key(|(_, to)| *to),
        load: host_load(worker),
    }
}

/// Returns the load of a worker's host, according to the worker's last report.
pub(crate) fn host_load(worker: &Worker) -> HostLoad {
    let said = |field: &str| worker.snapshot.get(field);
    let figure = |field: &str| said(field).and_then(Value::as_f64);
    let word = |field: &str| said(field).and_then(Value::as_str);
    HostLoad {
        machine: word("boot_id").or_else(|| word("host")).map(str::to_owned),
        per_cpu: figure("load_per_cpu"),
        waits: figure("cpu_wait_ratio"),
        takes: figure("cpu_used_ratio"),
    }
}
