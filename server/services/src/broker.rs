//! What one worker sees of the broker for its whole application: the queues, who consumes them, and whether it answers at all.

use std::collections::{HashMap, HashSet};

use chrono::{DateTime, TimeDelta, Utc};
use deadbeat_domain::blind_spell::is_to_come;
use deadbeat_domain::cause::Cause;
use deadbeat_domain::condition::{Condition, on_seen};
use deadbeat_domain::evidence::AWAY_PATIENCE;
use deadbeat_domain::ids::{ProjectId, QueueId};
use deadbeat_domain::incident::SubjectKind;
use deadbeat_domain::limits;
use deadbeat_domain::monitor::{FieldError, check_name};
use deadbeat_domain::queue::{Consumers, LONGEST_WAIT, REPLACED_WITHIN, trouble};
use deadbeat_domain::status::Status;
use deadbeat_domain::time::span;
use deadbeat_store::queue::Queue;
use deadbeat_store::worker::Worker;
use serde::{Deserialize, Serialize};

use crate::event::Verdict;
use crate::incident::{self, Changed, News, What};
use crate::worker::strip_nul;
use crate::{ServiceError, Services};

/// What was seen of a broker.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Sample {
    /// The Celery application's name.
    pub app: String,
    /// Who looked.
    #[serde(default)]
    pub worker: Option<String>,
    /// redis, amqp, …
    #[serde(default)]
    pub transport: Option<String>,
    /// Whether it answered.
    pub reachable: bool,
    /// The exception's class, where it did not.
    #[serde(default)]
    pub error: Option<String>,
    /// Redis: what it does when its memory is full. Anything but `noeviction` loses messages.
    #[serde(default)]
    pub maxmemory_policy: Option<String>,
    /// Redis: after which time an unacknowledged message is delivered again.
    #[serde(default)]
    pub visibility_timeout_seconds: Option<f64>,
    /// Messages that workers hold, over all queues.
    #[serde(default)]
    pub unacked: Option<i64>,
    /// For how long the oldest of those has been held.
    #[serde(default)]
    pub oldest_unacked_seconds: Option<f64>,
    /// How long a queue's oldest message may wait; None: as long as is usual.
    #[serde(default)]
    pub longest_wait_seconds: Option<f64>,
    /// The queues.
    #[serde(default, skip_serializing)]
    pub queues: Vec<Seen>,
}

/// What was seen of a queue.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Seen {
    /// Its name.
    pub name: String,
    /// Messages that wait, over all priorities; None: there is no such queue (any more).
    #[serde(default)]
    pub depth: Option<i64>,
    /// For how long the oldest one has waited.
    #[serde(default)]
    pub oldest_seconds: Option<f64>,
    /// The oldest one's task.
    #[serde(default)]
    pub oldest_task: Option<String>,
    /// Consumers, where the broker counts them.
    #[serde(default)]
    pub consumers: Option<i64>,
    /// Messages that were taken in and are not acknowledged, where the broker says so for each queue.
    #[serde(default)]
    pub unacked: Option<i64>,
}

/// A queue in trouble that nobody looked at for this long is in trouble no more.
const UNSEEN_FOR: TimeDelta = TimeDelta::hours(1);

fn check(sample: &Sample) -> Result<(), ServiceError> {
    let mut faults = Vec::new();
    check_name("/app", &sample.app, 200, &mut faults);
    if sample.queues.len() > limits::WORKER_QUEUES {
        faults.push(FieldError::new(
            "/queues",
            format!(
                "holds {} queues; at most {} are allowed",
                sample.queues.len(),
                limits::WORKER_QUEUES
            ),
        ));
    }
    let mut names = HashSet::new();
    for (index, queue) in sample.queues.iter().enumerate() {
        check_name(&format!("/queues/{index}/name"), &queue.name, 255, &mut faults);
        if !names.insert(&queue.name) {
            faults.push(FieldError::new(
                format!("/queues/{index}/name"),
                "is named twice; each queue is told once",
            ));
        }
    }
    if faults.is_empty() {
        Ok(())
    } else {
        Err(ServiceError::Invalid(faults))
    }
}

/// Somebody looked at the broker, at `seen_at` by our clock.
pub(crate) async fn seen(
    services: &Services,
    project: ProjectId,
    sample: Sample,
    seen_at: DateTime<Utc>,
) -> Result<Verdict, ServiceError> {
    check(&sample)?;
    let now = services.now();
    let mut tx = services.store.begin().await?;
    let mut broker = deadbeat_store::broker::lock_or_create(&mut tx, project, &sample.app, now).await?;
    if broker
        .sampled_at
        .is_some_and(|at| at > seen_at && !is_to_come(at, now))
    {
        // It was held up on its way: a newer one is known.
        return Ok(Verdict::Accepted);
    }
    let away = (!sample.reachable).then_some((Cause::BrokerDown, AWAY_PATIENCE));
    let broker_changed = on_seen(&mut broker.state, away, now);
    broker.sample = Some(strip_nul(serde_json::to_value(&sample).unwrap_or_default()));
    broker.sampled_at = Some(seen_at);
    deadbeat_store::broker::update(&mut tx, &broker).await?;

    let workers = deadbeat_store::worker::of_app(&mut tx, project, &sample.app).await?;
    let longest_wait = sample
        .longest_wait_seconds
        .filter(|seconds| (1.0..=limits::SPAN_SECONDS).contains(seconds))
        .map_or(LONGEST_WAIT, span);
    let mut queues: Vec<Queue> = Vec::new();
    let mut changed = Vec::new();
    // What a broker that does not answer holds is not known: its queues stay as they were.
    if sample.reachable {
        let known = deadbeat_store::queue::of_app(&mut tx, project, &sample.app).await?;
        let known: HashMap<String, Queue> = known
            .into_iter()
            .map(|queue| (queue.name.clone(), queue))
            .collect();
        for seen in &sample.queues {
            // A queue that was never there is none of ours.
            let Some(depth) = seen.depth.or_else(|| known.contains_key(&seen.name).then_some(0)) else {
                continue;
            };
            let known = known.get(&seen.name);
            let (queue, transition) = look(known, &broker, seen, depth, &workers, longest_wait, now);
            if let Some(transition) = transition {
                changed.push((queues.len(), transition));
            }
            queues.push(queue);
        }
        // Nobody looks at it any more: it is used no longer, and nobody can tell of its trouble's end.
        let named: HashSet<&str> = sample.queues.iter().map(|seen| seen.name.as_str()).collect();
        let unseen = known.values().filter(|queue| {
            queue.state.trouble.is_some()
                && !named.contains(queue.name.as_str())
                && now - queue.seen_at >= UNSEEN_FOR
        });
        for queue in unseen {
            let mut queue = queue.clone();
            if let Some(transition) = on_seen(&mut queue.state, None, now) {
                changed.push((queues.len(), transition));
            }
            queues.push(queue);
        }
        deadbeat_store::queue::write(&mut tx, &queues).await?;
    }
    for (place, transition) in &changed {
        if transition.from == Status::Down {
            let id = queues[*place].id.0;
            incident::rearm_members(&mut tx, &services.site, SubjectKind::Queue, id, now).await?;
        }
    }
    if broker_changed.is_some_and(|transition| transition.from == Status::Down) {
        incident::rearm_members(&mut tx, &services.site, SubjectKind::Broker, broker.id.0, now).await?;
    }
    let mut news: Vec<News<'_>> = changed
        .iter()
        .map(|(place, transition)| News {
            changed: Changed::Queue(&queues[*place], &workers),
            what: What::Transition(*transition),
        })
        .collect();
    news.extend(broker_changed.map(|transition| News {
        changed: Changed::Broker(&broker),
        what: What::Transition(transition),
    }));
    let any = !news.is_empty();
    incident::record(&mut tx, &services.site, &news).await?;
    tx.commit().await?;
    if any {
        services.outbox_bell.notify_one();
    }
    Ok(Verdict::Accepted)
}

fn look(
    known: Option<&Queue>,
    broker: &deadbeat_store::broker::Broker,
    seen: &Seen,
    depth: i64,
    workers: &[Worker],
    longest_wait: TimeDelta,
    now: DateTime<Utc>,
) -> (Queue, Option<deadbeat_domain::transition::Transition>) {
    let mut queue = Queue {
        id: known.map_or_else(QueueId::generate, |queue| queue.id),
        project_id: broker.project_id,
        app: broker.app.clone(),
        name: seen.name.clone(),
        depth: depth.max(0),
        oldest_seconds: seen.oldest_seconds.filter(|seconds| *seconds >= 0.0),
        oldest_task: seen
            .oldest_task
            .as_ref()
            .map(|task| deadbeat_domain::monitor::clip(&task.replace('\0', ""))),
        unacked: seen.unacked,
        consumers: seen.consumers,
        waiting_since: (depth > 0).then(|| known.and_then(|queue| queue.waiting_since).unwrap_or(now)),
        seen_at: now,
        created_at: known.map_or(now, |queue| queue.created_at),
        state: known.map_or(Condition::FRESH, |queue| queue.state),
    };
    let oldest = queue
        .oldest_seconds
        .filter(|seconds| *seconds <= limits::SPAN_SECONDS)
        .map(span);
    let consumers = consumers(&queue, workers, now);
    let transition = on_seen(
        &mut queue.state,
        trouble(queue.depth, oldest, longest_wait, consumers),
        now,
    );
    (queue, transition)
}

fn just_left(worker: &Worker, now: DateTime<Utc>) -> bool {
    worker
        .state
        .last_seen_at
        .is_some_and(|at| now - at < REPLACED_WITHIN)
}

/// Who takes messages from a queue: what the broker counts, or what workers say of themselves.
fn consumers(queue: &Queue, workers: &[Worker], now: DateTime<Utc>) -> Consumers {
    let of = |status: Status| workers.iter().filter(move |worker| worker.state.status == status);
    // One whose clock is off takes messages all the same.
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
    } else if of(Status::Up).next().is_none()
        || of(Status::Paused).any(|worker| consumes(worker) && just_left(worker, now))
    {
        // A deployment ends one before it starts the next, and may let it end its tasks.
        Consumers::NoWorker
    } else {
        Consumers::None
    }
}
