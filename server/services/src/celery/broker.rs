//! Samples of the broker. One process takes them for its whole application: the queues, their consumers, and whether the broker answers.

pub(crate) mod queue_wait;
mod queues;

use std::collections::{HashMap, HashSet};

use chrono::{DateTime, TimeDelta, Utc};
use deadbeat_domain::celery::blame::BROKER_DOWN_PATIENCE;
use deadbeat_domain::celery::condition::{UNSAMPLED_FOR, on_sampled, on_unsampled};
use deadbeat_domain::celery::queue::LONGEST_WAIT;
use deadbeat_domain::celery::worker::stranger::VANISHED_FOR;
use deadbeat_domain::ids::{ApiKeyId, ProjectId};
use deadbeat_domain::incident::cause::Cause;
use deadbeat_domain::incident::{SubjectKey, SubjectKind};
use deadbeat_domain::judge::blind_spell::{BlindSpell, fair_deadline, is_to_come};
use deadbeat_domain::limits;
use deadbeat_domain::monitor::status::Status;
use deadbeat_domain::monitor::{FieldError, check_name};
use deadbeat_domain::text::Text;
use deadbeat_domain::time::span;
use deadbeat_store::celery::broker::Broker;
use deadbeat_store::celery::queue::Queue;
use deadbeat_store::{StoreResult, Tx};
use serde::{Deserialize, Serialize};

use self::queues::{SilentWorkers, strangers, take_sample};
use crate::celery::event::Verdict;
use crate::incident::changed::{Changed, Occurrence, OccurrenceKind};
use crate::{ServiceError, Services, Site, incident};

/// A sample of a broker.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Sample {
    /// The Celery application's name.
    pub app: String,
    /// The process that took the sample.
    #[serde(default)]
    pub worker: Option<Text>,
    /// redis, amqp, …
    #[serde(default)]
    pub transport: Option<Text>,
    /// True if the broker answered.
    pub reachable: bool,
    /// The exception's class if the broker did not answer.
    #[serde(default)]
    pub error: Option<Text>,
    /// A digest of the broker and of the part of it that is used, such as a virtual host. Two applications with the same digest share their queues.
    #[serde(default)]
    pub identity: Option<Text>,
    /// The command that the broker refuses although it answers. This command puts messages into the broker.
    #[serde(default)]
    pub refused_command: Option<Text>,
    /// The broker's error for that command.
    #[serde(default)]
    pub refused_why: Option<Text>,
    /// Redis: its policy for full memory. With `allkeys-…` it deletes waiting messages.
    #[serde(default)]
    pub maxmemory_policy: Option<Text>,
    /// Redis: how long after a delivery it redelivers an unacknowledged message.
    #[serde(default)]
    pub visibility_timeout_seconds: Option<f64>,
    /// The number of messages that workers hold, over all queues.
    #[serde(default)]
    pub unacked: Option<i64>,
    /// For how long a worker has held the oldest of those messages.
    #[serde(default)]
    pub oldest_unacked_seconds: Option<f64>,
    /// How long a queue's oldest message may wait, or `None` for the default.
    #[serde(default)]
    pub longest_wait_seconds: Option<f64>,
    /// Every worker that answered Celery's inspect, including workers of other applications and workers without the SDK. `None`: the sampler did not
    /// ask.
    #[serde(default, skip_serializing)]
    pub answering: Option<Vec<Answering>>,
    /// The queues.
    #[serde(default, skip_serializing)]
    pub queues: Vec<QueueSample>,
}

/// A worker that answered.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Answering {
    /// Celery's node name.
    pub worker: Text,
    /// The queues that it consumes.
    #[serde(default)]
    pub queues: Vec<Text>,
}

/// The most workers in one sample.
pub(crate) const ANSWERING: usize = 1_000;

/// A queue in a sample.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct QueueSample {
    /// Its name.
    pub name: String,
    /// The number of waiting messages of all priorities, or 0 if the queue does not exist. `None`: the broker refuses to say.
    #[serde(default)]
    pub depth: Option<i64>,
    /// How long the oldest message has waited.
    #[serde(default)]
    pub oldest_seconds: Option<f64>,
    /// True if that is only a lower bound, because the message has no time.
    #[serde(default)]
    pub oldest_is_a_guess: bool,
    /// The task of the oldest message.
    #[serde(default)]
    pub oldest_task: Option<Text>,
    /// The number of consumers, if the broker counts them.
    #[serde(default)]
    pub consumers: Option<i64>,
    /// The number of unacknowledged messages, if the broker counts them for each queue.
    #[serde(default)]
    pub unacked: Option<i64>,
    /// A digest of the head, if the broker shows the head.
    #[serde(default)]
    pub head: Option<Text>,
    /// How long ago the newest held message was received from the queue. `None`: not sampled, or no message is held.
    #[serde(default)]
    pub taken_seconds: Option<f64>,
}

/// A sampler that is silent for this long is replaced.
const LEASE: TimeDelta = TimeDelta::seconds(30);

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
    let answering = sample.answering.as_deref().unwrap_or_default();
    let consumed = answering.iter().map(|one| one.queues.len()).max().unwrap_or(0);
    if answering.len() > ANSWERING || consumed > limits::WORKER_QUEUES {
        let message = format!(
            "holds {} workers, of which one consumes {consumed} queues; at most {ANSWERING} and {} are allowed",
            answering.len(),
            limits::WORKER_QUEUES
        );
        faults.push(FieldError::new("/answering", message));
    }
    let mut names = HashSet::new();
    for (index, queue) in sample.queues.iter().enumerate() {
        check_name(&format!("/queues/{index}/name"), &queue.name, 255, &mut faults);
        if !names.insert(&queue.name) {
            faults.push(FieldError::new(
                format!("/queues/{index}/name"),
                "is named twice; each queue is allowed once",
            ));
        }
    }
    if faults.is_empty() {
        Ok(())
    } else {
        Err(ServiceError::Invalid(faults))
    }
}

/// Decides whether `who`, which has just reported, must sample the broker for its application. If so, also returns the queues that the application's
/// workers consume, but only those that were reported with the same key: a ping key may not read. The first process that reports becomes the sampler.
/// `known` is the broker's row, which the caller has just read.
pub(crate) async fn samples_wanted(
    tx: &mut Tx,
    project: ProjectId,
    app: &str,
    who: &str,
    known: Option<&Broker>,
    key: Option<ApiKeyId>,
    now: DateTime<Utc>,
) -> Result<(bool, Vec<String>), ServiceError> {
    let until = now + LEASE;
    // A lease from before the clock was set back does not count.
    let looker = known.and_then(|broker| {
        let until = broker.sampler_until.filter(|at| *at > now && *at <= until)?;
        Some((broker.sampler.as_deref()?, until))
    });
    // A process that cannot reach the broker while others can continues to sample: only that process can report that it reaches the broker again.
    let is_asked_again = known.is_some_and(|broker| broker.reach.is_asked_again(who, now));
    let is_asked = match looker {
        _ if is_asked_again => true,
        // A thousand workers may report. Most of them must not touch the broker's row, which a sample locks.
        Some((name, _)) if name != who => false,
        Some((_, at)) if at - now > LEASE / 2 => true,
        Some(_) | None => {
            if known.is_none()
                && deadbeat_store::celery::broker::count(tx, project).await? >= limits::PROJECT_APPS
            {
                false
            } else {
                deadbeat_store::celery::broker::elect(tx, project, app, who, now, until).await?
            }
        }
    };
    if !is_asked {
        return Ok((false, Vec::new()));
    }
    let mut queues = deadbeat_store::celery::worker::queues::consumed_queues(tx, project, app, key).await?;
    queues.truncate(limits::WORKER_QUEUES);
    Ok((true, queues))
}

/// Handles a sample of the broker. `seen_at` is when it was taken, by the server's clock.
pub(crate) async fn seen(
    services: &Services,
    project: ProjectId,
    mut sample: Sample,
    seen_at: DateTime<Utc>,
    key: Option<ApiKeyId>,
) -> Result<Verdict, ServiceError> {
    check(&sample)?;
    let now = services.now();
    let mut tx = services.store.begin().await?;
    if deadbeat_store::celery::broker::of_app(&mut tx, project, &sample.app)
        .await?
        .is_none()
        && deadbeat_store::celery::broker::count(&mut tx, project).await? >= limits::PROJECT_APPS
    {
        return Err(ServiceError::Limit {
            what: "applications of a project",
            limit: limits::PROJECT_APPS,
        });
    }
    let mut broker =
        deadbeat_store::celery::broker::lock_or_create(&mut tx, project, &sample.app, now).await?;
    if broker
        .sampled_at
        .is_some_and(|at| at > seen_at && !is_to_come(at, now))
    {
        // The sample was delayed, and a newer one is known.
        return Ok(Verdict::Accepted);
    }
    let who = sample.worker.as_deref().unwrap_or("somebody");
    let is_unreached = broker.reach.take_sample(who, sample.reachable, now);
    if !sample.reachable {
        deadbeat_store::celery::broker::dismiss_any(&mut tx, broker.project_id, broker.id).await?;
        if !is_unreached {
            // The fault concerns only that process, and has its own incident. The samples of other processes stay valid.
            deadbeat_store::celery::broker::update(&mut tx, &broker).await?;
            tx.commit().await?;
            return Ok(Verdict::Accepted);
        }
    }
    if let Some(since) = broker.reach.failed_since.filter(|_| !sample.reachable) {
        // Until now another process might still have reached the broker.
        broker.state.began(Cause::BrokerDown, since.min(now));
    }
    let is_away = !sample.reachable || sample.refused_why.is_some();
    let away = is_away.then_some((Cause::BrokerDown, BROKER_DOWN_PATIENCE));
    let broker_changed = on_sampled(&mut broker.state, away, now);
    broker.sample = Some(serde_json::to_value(&sample).unwrap_or_default());
    broker.sampled_at = Some(seen_at);
    deadbeat_store::celery::broker::update(&mut tx, &broker).await?;

    let mut workers = deadbeat_store::celery::worker::of_app(&mut tx, project, &sample.app).await?;
    if let Some(identity) = sample.identity.as_deref() {
        // Applications with the same broker may consume the same queues.
        workers
            .extend(deadbeat_store::celery::worker::beside(&mut tx, project, &sample.app, identity).await?);
    }
    let strangers = strangers(&mut tx, &broker, sample.answering.take(), now).await?;
    let vanished = if strangers.is_empty() {
        HashMap::new()
    } else {
        deadbeat_store::celery::worker::stranger::vanished(&mut tx, project, &sample.app).await?
    };
    let longest_wait = sample
        .longest_wait_seconds
        .filter(|seconds| (1.0..=limits::SPAN_SECONDS).contains(seconds))
        .map_or(LONGEST_WAIT, span);
    let mut queues: Vec<Queue> = Vec::new();
    let mut changed = Vec::new();
    // The content of a broker that does not answer is unknown, so its queues stay as they were.
    if sample.reachable {
        let known = deadbeat_store::celery::queue::of_app(&mut tx, project, &sample.app).await?;
        let known: HashMap<String, Queue> = known
            .into_iter()
            .map(|queue| (queue.name.clone(), queue))
            .collect();
        // A queue whose depth the broker refuses to report stays as it was.
        let reported: Vec<(&QueueSample, i64)> = sample
            .queues
            .iter()
            .filter_map(|seen| Some((seen, seen.depth?)))
            .collect();
        let is_new = |seen: &QueueSample| !known.contains_key(&seen.name);
        let mut room = if reported.iter().any(|(seen, _)| is_new(seen)) {
            limits::PROJECT_QUEUES - deadbeat_store::celery::queue::count(&mut tx, project).await?
        } else {
            0
        };
        for (seen, depth) in &reported {
            if is_new(seen) {
                room -= 1;
                if room < 0 {
                    continue;
                }
            }
            let known = known.get(&seen.name);
            // Once the fault has an incident, it lasts while such a worker consumes the queue.
            let swallow = known.is_some_and(|queue| {
                let is_alerted = queue.state.trouble == Some(Cause::WorkerWithoutSdk);
                let at = vanished.get(&queue.id);
                (is_alerted || at.is_some_and(|at| now - *at < VANISHED_FOR))
                    && strangers.iter().any(|one| one.takes_from(&queue.name, now))
            });
            let silent = SilentWorkers {
                consume: strangers.iter().any(|one| one.may_take_from(&seen.name, now)),
                swallow,
            };
            let (queue, transition) =
                take_sample(known, &broker, seen, *depth, &workers, silent, longest_wait, now);
            if let Some(transition) = transition {
                changed.push((queues.len(), transition));
            }
            queues.push(queue);
        }
        // Queues that are no longer sampled are no longer used, and no report could end their fault.
        let named: HashSet<&str> = reported.iter().map(|(seen, _)| seen.name.as_str()).collect();
        let unseen = known.values().filter(|queue| {
            queue.state.trouble.is_some()
                && !named.contains(queue.name.as_str())
                && now - queue.seen_at >= UNSAMPLED_FOR
        });
        for queue in unseen {
            let mut queue = queue.clone();
            if let Some(transition) = on_unsampled(&mut queue.state, now) {
                changed.push((queues.len(), transition));
            }
            queues.push(queue);
        }
        deadbeat_store::celery::queue::write(&mut tx, &queues).await?;
        let named: Vec<String> = reported.iter().map(|(seen, _)| seen.name.clone()).collect();
        deadbeat_store::celery::queue::note_key(&mut tx, project, &sample.app, &named, key).await?;
    }
    let mut are_well: Vec<SubjectKey> = changed
        .iter()
        .filter(|(_, transition)| transition.from == Status::Down)
        .map(|(place, _)| (project, SubjectKind::Queue, queues[*place].id.0))
        .collect();
    if broker_changed.is_some_and(|transition| transition.from == Status::Down) {
        are_well.push((project, SubjectKind::Broker, broker.id.0));
    }
    incident::rearm_members(&mut tx, &services.site, &are_well, now).await?;
    let mut occurrences: Vec<Occurrence<'_>> = changed
        .iter()
        .map(|(place, transition)| Occurrence {
            changed: Changed::Queue(&queues[*place], &workers, &strangers),
            what: OccurrenceKind::Transition(*transition),
        })
        .collect();
    occurrences.extend(broker_changed.map(|transition| Occurrence {
        changed: Changed::Broker(&broker),
        what: OccurrenceKind::Transition(transition),
    }));
    let any = !occurrences.is_empty();
    incident::record(&mut tx, &services.site, &occurrences).await?;
    tx.commit().await?;
    if any {
        services.outbox_bell.notify_one();
    }
    Ok(Verdict::Accepted)
}

/// Ends the incidents of brokers and queues that no process samples any more, because their state is unknown. Returns how many ended.
pub(crate) async fn give_up_unsampled(
    tx: &mut Tx,
    site: &Site,
    now: DateTime<Utc>,
    spells: &[BlindSpell],
    limit: i64,
) -> StoreResult<usize> {
    let mut brokers = deadbeat_store::celery::broker::claim_unsampled(tx, now - UNSAMPLED_FOR, limit).await?;
    // Samples may have been lost while no process listened.
    brokers.retain(|broker| {
        broker
            .sampled_at
            .is_some_and(|at| fair_deadline(at + UNSAMPLED_FOR, at, UNSAMPLED_FOR, spells) <= now)
    });
    // Lock all of these first, then all monitors, then all incidents, because other transactions lock them in that order.
    let mut over = Vec::new();
    for mut broker in brokers {
        let mut queues = Vec::new();
        for mut queue in deadbeat_store::celery::queue::of_app(tx, broker.project_id, &broker.app).await? {
            if let Some(transition) = on_unsampled(&mut queue.state, now) {
                queues.push((queue, transition));
            }
        }
        let of_broker = on_unsampled(&mut broker.state, now);
        deadbeat_store::celery::broker::update(tx, &broker).await?;
        let changed: Vec<Queue> = queues.iter().map(|(queue, _)| queue.clone()).collect();
        deadbeat_store::celery::queue::write(tx, &changed).await?;
        over.push((broker, of_broker, queues));
    }
    let mut occurrences: Vec<Occurrence<'_>> = Vec::new();
    for (broker, of_broker, queues) in &over {
        occurrences.extend(of_broker.map(|transition| Occurrence {
            changed: Changed::Broker(broker),
            what: OccurrenceKind::Transition(transition),
        }));
        occurrences.extend(queues.iter().map(|(queue, transition)| Occurrence {
            changed: Changed::Queue(queue, &[], &[]),
            what: OccurrenceKind::Transition(*transition),
        }));
    }
    let subjects: Vec<SubjectKey> = occurrences.iter().map(|one| one.changed.key()).collect();
    incident::rearm_members(tx, site, &subjects, now).await?;
    incident::record(tx, site, &occurrences).await?;
    Ok(occurrences.len())
}
