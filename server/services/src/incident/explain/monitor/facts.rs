//! Facts with times about the components that a monitor depends on.

use chrono::{DateTime, Utc};
use deadbeat_domain::incident::Fact;
use deadbeat_domain::incident::cause::Cause;
use deadbeat_domain::monitor::status::Status;
use deadbeat_store::celery::trace::stage::RunProgress;
use serde_json::Value;

use crate::incident::changed::Background;
use crate::incident::explain::{fact, load, then};

/// Returns the fact that reports were lost since then. None: no loss was reported.
pub(super) fn lost_reports(background: &Background<'_>, since: DateTime<Utc>) -> Option<Fact> {
    let (at, count) = background.beat?.lost_events.filter(|(at, _)| *at >= since)?;
    Some(then(
        at,
        format!(
            "A process of its application reported that it dropped {count} reports, so events may have happened that nobody reported."
        ),
    ))
}

/// Returns the facts about queue, workers and broker that matter for the cause.
pub(super) fn surroundings(background: &Background<'_>, cause: Cause, from: DateTime<Utc>) -> Vec<Fact> {
    let mut facts = Vec::new();
    if let Some(beat) = background.beat {
        match cause {
            Cause::BeatStalled | Cause::Unknown => {
                facts.extend(beat.sent_at.map(|at| then(at, "Beat last sent any task.")));
                facts.extend(beat.state.last_seen_at.map(|at| then(at, "Beat last reported.")));
            }
            _ => {}
        }
        if let Some((at, error)) = beat.send_failed.as_ref().filter(|(at, _)| *at >= from) {
            facts.push(then(*at, format!("Beat could not send a task: {error}.")));
        }
    }
    let queue = background.stage.and_then(|stage| stage.queue.as_ref());
    if let Some(queue) = background.queues.iter().find(|one| Some(&one.name) == queue) {
        facts.push(then(
            queue.seen_at,
            match queue.depth {
                0 => format!("Queue {} was empty.", queue.name),
                1 => format!("One message waited in queue {}.", queue.name),
                depth => format!("{depth} messages waited in queue {}.", queue.name),
            },
        ));
    }
    if cause == Cause::LostInBroker
        && let Some(policy) = background
            .broker
            .and_then(|broker| broker.sample.as_ref()?.get("maxmemory_policy")?.as_str())
    {
        facts.push(fact(if policy == "noeviction" {
            "The broker's maxmemory-policy is noeviction: the message was not evicted, but may have been flushed or purged.".to_owned()
        } else {
            format!("The broker's maxmemory-policy is {policy}: the broker discards messages when its memory is full.")
        }));
    }
    if cause == Cause::RateLimited {
        facts.extend(rate_limits(background));
    }
    for worker in background
        .workers
        .iter()
        .filter(|worker| worker.state.status == Status::Up)
        .take(5)
    {
        let count = |field: &str| worker.snapshot.get(field).and_then(Value::as_i64).unwrap_or(0);
        facts.extend(load::facts(worker));
        facts.push(Fact {
            at: worker.state.last_seen_at,
            fact: format!(
                "{} runs {} of {} tasks at once, and holds {} more messages.",
                worker.name,
                count("active"),
                count("processes").max(1),
                (count("reserved") - count("active")).max(0)
            ),
        });
    }
    facts
}

/// Returns the facts about rate limits that hold messages back in workers.
fn rate_limits(background: &Background<'_>) -> Vec<Fact> {
    let mut facts = Vec::new();
    for worker in background
        .workers
        .iter()
        .filter(|one| one.state.status == Status::Up)
    {
        let limits = worker.snapshot.get("rate_limits").and_then(Value::as_array);
        for limit in limits.into_iter().flatten().take(3) {
            let word = |field: &str| limit.get(field).and_then(Value::as_str).unwrap_or("?");
            facts.push(Fact {
                at: worker.state.last_seen_at,
                fact: format!(
                    "In {} the rate limit {} of {} holds back {} messages.",
                    worker.name,
                    word("rate"),
                    word("task"),
                    limit.get("held").and_then(Value::as_i64).unwrap_or(0)
                ),
            });
        }
    }
    facts.truncate(10);
    facts
}

/// Returns the facts about the last stage of the missed slot's run.
pub(super) fn how_far(stage: &RunProgress, from: DateTime<Utc>) -> Vec<Fact> {
    let since_due = |at: DateTime<Utc>| at >= from;
    let Some(sent) = stage.published_at.filter(|at| since_due(*at)) else {
        return vec![Fact {
            at: stage.published_at,
            fact: "Beat sent its last run before that, and has sent none since.".to_owned(),
        }];
    };
    let queue = match &stage.queue {
        Some(queue) => format!(" to queue {queue}"),
        None => String::new(),
    };
    let taken = match (stage.received_at, &stage.worker) {
        (Some(at), Some(worker)) => Fact {
            at: Some(at),
            fact: format!("{worker} received it from the queue, and has not begun it."),
        },
        (Some(at), None) => Fact {
            at: Some(at),
            fact: "A worker received it from the queue, and has not begun it.".to_owned(),
        },
        (None, _) if stage.is_expired => Fact {
            at: stage.finished_at,
            fact: "A worker discarded it because it had expired.".to_owned(),
        },
        (None, _) => Fact {
            at: None,
            fact: "No worker has reported that it received it.".to_owned(),
        },
    };
    vec![
        Fact {
            at: Some(sent),
            fact: format!("It was sent{queue}."),
        },
        taken,
    ]
}
