//! The state of each queue in a sample, and of workers that do not report.

use chrono::{DateTime, TimeDelta, Utc};
use deadbeat_domain::celery::condition::{Condition, on_sampled};
use deadbeat_domain::celery::queue::flow::{Flow, Glimpse};
use deadbeat_domain::celery::queue::{Consumers, REPLACED_WITHIN, oldest, trouble};
use deadbeat_domain::celery::worker::stranger::{Stranger, on_sample};
use deadbeat_domain::change::Transition;
use deadbeat_domain::ids::QueueId;
use deadbeat_domain::incident::cause::Cause;
use deadbeat_domain::limits;
use deadbeat_domain::monitor::status::Status;
use deadbeat_domain::text::Text;
use deadbeat_domain::time::span;
use deadbeat_store::celery::broker::Broker;
use deadbeat_store::celery::queue::Queue;
use deadbeat_store::celery::worker::Worker;
use deadbeat_store::{StoreResult, Tx};

use super::{Answering, QueueSample};
use crate::celery::result_backend::report;

/// Returns the workers that answer and do not report, according to this sample.
pub(super) async fn strangers(
    tx: &mut Tx,
    broker: &Broker,
    answering: Option<Vec<Answering>>,
    now: DateTime<Utc>,
) -> StoreResult<Vec<Stranger>> {
    let before =
        deadbeat_store::celery::worker::stranger::of_broker(tx, broker.project_id, broker.id).await?;
    if answering.is_none() && before.is_empty() {
        return Ok(before);
    }
    let answering: Option<Vec<(String, Vec<String>)>> = answering.map(|all| {
        let queues = |one: Vec<Text>| one.into_iter().map(String::from).collect();
        all.into_iter()
            .map(|one| (one.worker.into(), queues(one.queues)))
            .collect()
    });
    let names: Vec<String> = answering
        .iter()
        .flatten()
        .map(|(name, _)| name.clone())
        .chain(before.iter().map(|one| one.worker.clone()))
        .collect();
    let reporting =
        deadbeat_store::celery::worker::stranger::reporting(tx, broker.project_id, &names).await?;
    let mut known = before.clone();
    on_sample(&mut known, answering, |name| reporting.contains(name), now);
    if known != before {
        deadbeat_store::celery::worker::stranger::note(tx, broker.project_id, broker.id, &known).await?;
    }
    Ok(known)
}

/// How workers that do not report relate to a queue.
#[derive(Debug, Clone, Copy)]
pub(super) struct SilentWorkers {
    /// True if one of them answered that it consumes the queue.
    pub(super) consume: bool,
    /// True if runs of Beat vanish into one of them.
    pub(super) swallow: bool,
}

#[expect(
    clippy::too_many_arguments,
    reason = "the sample, and the facts with which it is compared"
)]
pub(super) fn take_sample(
    known: Option<&Queue>,
    broker: &Broker,
    seen: &QueueSample,
    depth: i64,
    workers: &[Worker],
    silent: SilentWorkers,
    longest_wait: TimeDelta,
    now: DateTime<Utc>,
) -> (Queue, Option<Transition>) {
    let waiting_since = (depth > 0).then(|| known.and_then(|queue| queue.waiting_since).unwrap_or(now));
    let shown = seen
        .oldest_seconds
        .filter(|seconds| (0.0..=limits::SPAN_SECONDS).contains(seconds))
        .map(span);
    let taken = known.and_then(|queue| queue.taken);
    let oldest = oldest(shown, taken, waiting_since, now);
    let mut queue = Queue {
        id: known.map_or_else(QueueId::generate, |queue| queue.id),
        project_id: broker.project_id,
        app: broker.app.clone(),
        name: seen.name.clone(),
        depth: depth.max(0),
        oldest_is_a_guess: shown.is_none() || seen.oldest_is_a_guess,
        oldest_seconds: oldest.map(|oldest| oldest.num_milliseconds() as f64 / 1_000.0),
        oldest_task: seen.oldest_task.clone().map(String::from),
        unacked: seen.unacked,
        consumers: seen.consumers,
        waiting_since,
        taken,
        seen_at: now,
        created_at: known.map_or(now, |queue| queue.created_at),
        flow: known.map_or_else(Flow::default, |queue| queue.flow.clone()),
        state: known.map_or(Condition::FRESH, |queue| queue.state),
    };
    queue
        .flow
        .take_sample(&glimpse(known, seen, depth, workers, now), now);
    let has_others = silent.consume || queue.flow.has_others(longest_wait, now);
    let consumers = consumers(&queue, workers, has_others, now);
    // A worker that waits for the result backend receives no messages; the backend's incident reports that.
    let is_held_up = || {
        workers
            .iter()
            .any(|worker| worker.queues.contains(&seen.name) && report::hangs(&worker.snapshot))
    };
    let trouble = if silent.swallow {
        Some((Cause::WorkerWithoutSdk, TimeDelta::zero()))
    } else {
        trouble(queue.depth, oldest, longest_wait, consumers)
            .filter(|(cause, _)| *cause != Cause::QueueSlaBreach || !is_held_up())
    };
    let transition = on_sampled(&mut queue.state, trouble, now);
    (queue, transition)
}

/// Returns what this sample shows about the queue's consumers.
fn glimpse<'a>(
    known: Option<&Queue>,
    seen: &'a QueueSample,
    depth: i64,
    workers: &[Worker],
    now: DateTime<Utc>,
) -> Glimpse<'a> {
    let held_at = seen
        .taken_seconds
        .filter(|seconds| (0.0..=limits::SPAN_SECONDS).contains(seconds))
        .map(|seconds| now - span(seconds));
    // Covers a worker of an application that is not known to share this broker.
    let reported_at = known.and_then(|queue| queue.taken).map(|taken| taken.at);
    let attending = workers.iter().filter(|worker| worker.queues.contains(&seen.name));
    Glimpse {
        depth,
        head: seen.head.as_deref(),
        taken_at: held_at.max(reported_at),
        before: known.map(|queue| queue.seen_at),
        attended_at: attending.filter_map(|worker| worker.state.last_seen_at).max(),
    }
}

fn just_left(worker: &Worker, now: DateTime<Utc>) -> bool {
    worker
        .state
        .last_seen_at
        .is_some_and(|at| now - at < REPLACED_WITHIN)
}

/// Returns who consumes a queue, by the broker's count or by the workers' own reports. `has_others` is true if a worker consumes it without
/// reporting.
pub(super) fn consumers(
    queue: &Queue,
    workers: &[Worker],
    has_others: bool,
    now: DateTime<Utc>,
) -> Consumers {
    let of = |status: Status| workers.iter().filter(move |worker| worker.state.status == status);
    let is_own = |worker: &Worker| worker.app == queue.app;
    // A worker whose only fault is clock skew still receives messages.
    let works = |worker: &&Worker| {
        worker.state.status == Status::Up
            || (worker.state.status == Status::Down && worker.state.trouble == Some(Cause::ClockSkew))
    };
    let consumes = |worker: &Worker| worker.queues.contains(&queue.name);
    let ghosts =
        of(Status::Down).any(|worker| consumes(worker) && worker.state.trouble == Some(Cause::GhostWorker));
    if workers.iter().filter(works).any(consumes)
        || (!ghosts && queue.consumers.is_some_and(|count| count > 0))
    {
        Consumers::Some
    } else if of(Status::Down).any(consumes) {
        Consumers::Lost
    } else if queue.consumers.is_none() && has_others {
        Consumers::Some
    } else if !of(Status::Up).any(is_own)
        || of(Status::Paused).any(|worker| consumes(worker) && just_left(worker, now))
    {
        // A deployment may end one worker before it starts the next, and may wait for tasks to end.
        Consumers::NoWorker
    } else {
        Consumers::None
    }
}
