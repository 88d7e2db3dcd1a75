//! Explains a fault that nobody observed, but that monitors' verdicts name.

use chrono::{DateTime, TimeDelta, Utc};
use deadbeat_domain::incident::cause::Cause;
use deadbeat_domain::incident::{Fact, SubjectKind};
use deadbeat_domain::monitor::status::Status;
use deadbeat_store::celery::worker::Worker;
use deadbeat_store::monitor::Monitor;
use serde_json::Value;

use super::{Explanation, clock, fact, load, of_crash_loop, of_monitor, then, words};
use crate::incident::changed::Named;

/// Explains the fault by the evidence of the first monitor that named the subject.
#[must_use]
pub fn of_named(named: &Named<'_>, cause: Cause, now: DateTime<Utc>) -> Explanation {
    let Named {
        subject,
        monitor,
        background,
    } = named;
    let name = &subject.name;
    if cause == Cause::BeatCrashLoop
        && let Some(beat) = background.beat
    {
        let mut explained = of_crash_loop(beat, background.crashes);
        explained.summary.push_str(" It misses runs that are due.");
        explained.evidence.push(missed_first(monitor));
        return explained;
    }
    let of_first = of_monitor(monitor, background, None, cause, now);
    let mut evidence = Vec::new();
    let worker = background.workers.iter().find(|worker| worker.id.0 == subject.id);
    let summary = match (subject.kind, cause) {
        (SubjectKind::Broker, _) => {
            let error = background.beat.and_then(|beat| beat.send_failed.as_ref());
            let why = error.map_or(String::new(), |(_, error)| format!(": {error}"));
            format!("The broker of {name} does not accept the messages that Beat sends{why}.")
        }
        (SubjectKind::Beat, _) => format!("Celery Beat of {name} runs, but sends nothing."),
        (SubjectKind::Worker, Cause::GhostWorker) => {
            format!("Worker {name} has no connection to its broker, but others do: messages wait for it.")
        }
        (SubjectKind::Worker, Cause::HostOverloaded) => {
            let (summary, facts) = load::of_starving(worker, name, &of_first);
            evidence.extend(facts);
            summary
        }
        (SubjectKind::Worker, Cause::RateLimited) => {
            let limits = worker.and_then(|worker| worker.snapshot.get("rate_limits"));
            let first = limits.and_then(|limits| limits.get(0)?.get("task")?.as_str());
            let of = first.map_or(String::new(), |task| format!(" of {task}"));
            format!("Worker {name} holds messages{of} back: a rate limit lets too few of them start.")
        }
        (SubjectKind::Worker, _) => {
            let blocks = worker.and_then(|worker| longest(worker, &mut evidence, now));
            let by = blocks.map_or(String::new(), |task| format!(" by {task}"));
            format!("Worker {name} is blocked{by}: messages wait behind the tasks that it runs.")
        }
        // A sample or a report always shows the fault of the other kinds, so verdicts never name one of these alone.
        (SubjectKind::Queue | SubjectKind::Monitor | SubjectKind::ResultBackend | SubjectKind::Host, _) => {
            let up: Vec<&Worker> = background
                .workers
                .iter()
                .filter(|worker| worker.state.status == Status::Up && worker.queues.contains(name))
                .collect();
            let share = share(&up, &mut evidence, now);
            let most = share.map_or(String::new(), |(task, count, all)| {
                format!(", and {count} of the {all} tasks that run are {task}")
            });
            format!("Messages wait too long in queue {name}: its workers are busy{most}.")
        }
    };
    evidence.push(fact(format!(
        "{} is the first monitor that this delays.",
        monitor.name
    )));
    evidence.extend(of_first.evidence);
    Explanation {
        summary,
        evidence,
        repair: of_first.repair,
    }
}

/// Returns the fact about the first entry that Beat did not send.
fn missed_first(monitor: &Monitor) -> Fact {
    let due = monitor.state.postponed_from.or(monitor.state.next_due_at);
    let name = &monitor.name;
    let fact =
        format!("{name} was due, and has not been sent since: it is the first entry that Beat missed.");
    Fact { at: due, fact }
}

/// Returns the task that a worker has executed longest, and adds its facts.
fn longest(worker: &Worker, evidence: &mut Vec<Fact>, now: DateTime<Utc>) -> Option<String> {
    let longest = worker.snapshot.get("longest")?;
    let task = longest.get("task")?.as_str()?;
    let since: DateTime<Utc> = longest.get("started_at")?.as_str()?.parse().ok()?;
    evidence.push(then(
        since,
        format!(
            "{} has run {task} since then, for {}.",
            worker.name,
            words(TimeDelta::seconds((now - since).num_seconds()))
        ),
    ));
    evidence.push(then(
        worker.progress_at,
        format!(
            "It has begun and ended no task since, while all its processes were in use (seen at {}).",
            clock(now)
        ),
    ));
    Some(task.to_owned())
}

/// Returns the task that most of these workers' processes execute, how many execute it, and how many tasks run in
/// all. Adds the fact.
fn share(workers: &[&Worker], evidence: &mut Vec<Fact>, now: DateTime<Utc>) -> Option<(String, i64, i64)> {
    let mut counts: Vec<(String, i64)> = Vec::new();
    for worker in workers {
        let Some(running) = worker.snapshot.get("running_tasks").and_then(Value::as_object) else {
            continue;
        };
        for (task, count) in running {
            let count = count.as_i64().unwrap_or(0);
            match counts.iter_mut().find(|(known, _)| known == task) {
                Some((_, all)) => *all += count,
                None => counts.push((task.clone(), count)),
            }
        }
    }
    let all: i64 = counts.iter().map(|(_, count)| count).sum();
    let (task, count) = counts.into_iter().max_by_key(|(_, count)| *count)?;
    evidence.push(then(
        now,
        format!("{count} of the {all} tasks that its workers run are {task}."),
    ));
    Some((task, count, all))
}
