//! Explains why a run did not begin, failed, or did not end.

mod facts;
mod repairs;

use chrono::{DateTime, Utc};
use deadbeat_domain::incident::Fact;
use deadbeat_domain::incident::cause::Cause;
use deadbeat_domain::monitor::flapping::CALM;
use deadbeat_domain::monitor::ping::Signal;
use deadbeat_domain::monitor::run::{Outcome, Run, RunStatus};
use deadbeat_domain::monitor::slot::early;
use deadbeat_domain::monitor::{Expectation, MonitorState};
use deadbeat_store::celery::trace::stage::RunProgress;
use deadbeat_store::monitor::Monitor;

use self::facts::{how_far, lost_reports, surroundings};
use self::repairs::repair;
use super::{Explanation, clock, fact, then, words};
use crate::incident::changed::Background;

/// Explains why a monitor is down: because of silence, or of a signal that reported it.
#[must_use]
pub fn of_monitor(
    monitor: &Monitor,
    background: &Background<'_>,
    signal: Option<&Signal>,
    cause: Cause,
    now: DateTime<Utc>,
) -> Explanation {
    let state = &monitor.state;
    let mut evidence = vec![fact(format!(
        "It is expected {}.",
        state.expectation.schedule.summary()
    ))];
    let mut summary = match signal {
        Some(signal) => of_signal(monitor, signal, cause, &mut evidence),
        None => of_silence(monitor, background, cause, now, &mut evidence),
    };
    if let Some(flapping) = state.flaps.flapping {
        for at in state.flaps.openings.iter().filter(|at| **at != flapping.since) {
            evidence.push(then(*at, "An incident of it opened."));
        }
        summary.push_str(" It flaps: this is its third incident within an hour.");
        evidence.push(then(
            flapping.since,
            format!(
                "This incident stays open until the status has not changed for {} minutes.",
                CALM.num_minutes()
            ),
        ));
    }
    if let Some(streak) = state.raised_after {
        let runs = streak.runs;
        evidence.push(then(
            streak.since,
            format!("The first of {runs} bad runs in a row was known."),
        ));
    }
    evidence.push(match state.last_success_at {
        Some(at) => then(at, "The last success was reported."),
        None => fact("No success was ever reported."),
    });
    Explanation {
        summary,
        evidence,
        repair: repair(monitor, background, signal, cause),
    }
}

/// Returns the summary for a signal, and adds its facts.
fn of_signal(monitor: &Monitor, signal: &Signal, cause: Cause, evidence: &mut Vec<Fact>) -> String {
    let name = &monitor.name;
    let detail = &signal.detail.run;
    let at = signal.occurred_at;
    let ran_on = detail
        .worker
        .as_ref()
        .map_or(String::new(), |worker| format!(" on {worker}"));
    if let (Some(task), Some(id)) = (&detail.task, &detail.task_id) {
        evidence.push(fact(format!("It is the run {id} of {task}{ran_on}.")));
    }
    if detail.retries > 0 {
        evidence.push(fact(format!("It was retried {} times.", detail.retries)));
    }
    let error = detail.error.as_ref().filter(|error| {
        detail
            .outcome
            .is_none_or(|outcome| outcome.as_str() != error.as_str())
    });
    let with = match (signal.exit_code, error) {
        (Some(code), _) => format!(" with exit code {code}"),
        (None, Some(error)) => format!(" with {error}"),
        (None, None) => String::new(),
    };
    let (facts_and_repair, summary) = match cause {
        Cause::RetriesExhausted => (
            format!("Its last attempt failed{with}."),
            format!("{name} failed{with}, after all its retries."),
        ),
        Cause::Revoked => (
            "Somebody revoked it.".to_owned(),
            format!("{name} was revoked: it did not run, or Celery ended it."),
        ),
        // If the task itself rejects its message, it has begun, and its report names the attempt.
        Cause::Rejected if detail.attempt.is_none() && error.is_some() => (
            format!("The worker refused the message{with}: no run began."),
            format!("{name} did not run: a worker refused and dropped its message{ran_on}{with}."),
        ),
        Cause::Rejected => (
            format!("The task rejected its message{with}."),
            format!("{name} rejected its message, which is not delivered again."),
        ),
        Cause::Expired => (
            "Its message had expired before a worker could begin it.".to_owned(),
            format!("{name} did not run: its message expired while it waited."),
        ),
        Cause::TimeLimit => (
            format!("A time limit ended it{with}."),
            format!("{name} was ended by its time limit."),
        ),
        Cause::WorkerKilled => (
            format!("The process that ran it was killed{with}."),
            format!("{name} was killed in the middle of a run{ran_on}."),
        ),
        Cause::Failed if detail.outcome == Some(Outcome::Aborted) => (
            "The process that ran it was stopped, or could not store the outcome.".to_owned(),
            format!("{name} was aborted in the middle of a run{ran_on}."),
        ),
        Cause::TooFast => {
            let took = signal
                .duration
                .or(monitor.state.last_duration)
                .map_or("no time".to_owned(), words);
            let usual = monitor.state.baseline.map(|baseline| {
                format!(
                    "Its runs took {:.1} s at least, and usually {:.1} s.",
                    baseline.shortest, baseline.usual
                )
            });
            evidence.extend(usual.map(fact));
            let odd = monitor.state.baseline.map(|baseline| baseline.odd);
            evidence.extend(
                odd.map(|odd| fact(format!("The {} runs before it were as short.", (odd - 1).max(1)))),
            );
            (
                format!("It ended well after {took}, less than a tenth of that."),
                format!(
                    "{name} ended far too soon, after {took}, as did the runs before it: they probably did not do their work."
                ),
            )
        }
        _ => (
            format!("A failure{with} was reported."),
            format!("{name} failed{with}."),
        ),
    };
    evidence.push(then(at, facts_and_repair));
    summary
}

/// Returns the summary for a report that did not come, and adds its facts.
fn of_silence(
    monitor: &Monitor,
    background: &Background<'_>,
    cause: Cause,
    now: DateTime<Utc>,
    evidence: &mut Vec<Fact>,
) -> String {
    let state = &monitor.state;
    let name = &monitor.name;
    match cause {
        Cause::Overrun => overrun(state, name, background, evidence),
        Cause::HostOverloaded if over(state).next().is_some() => overrun(state, name, background, evidence),
        Cause::WorkerKilled if let Some((facts, summary)) = orphaned(state, name, background) => {
            evidence.extend(facts);
            summary
        }
        Cause::WorkerKilled => {
            let started = over(state).filter_map(|run| run.started_at).min();
            evidence.extend(started.map(|at| then(at, "A run began.")));
            evidence.extend(worker_of(state, background).and_then(|worker| {
                let at = worker.state.last_seen_at?;
                Some(then(
                    at,
                    format!("{} reports, and does not execute it any more.", worker.name),
                ))
            }));
            format!("{name} was killed in the middle of a run: nothing has reported its end.")
        }
        Cause::DuplicateRun | Cause::RedeliveryLoop => again(state, background, name, cause, evidence),
        Cause::Failed => {
            evidence.push(then(
                now,
                "The process that ran it was stopped, or could not store the outcome; no report says why.",
            ));
            format!("{name} was ended in the middle of a run.")
        }
        Cause::ScheduleReset => {
            evidence.extend(
                state
                    .postponed_from
                    .map(|at| then(at, "It was first due; each start of Beat has put it off since.")),
            );
            evidence.extend(
                state
                    .next_due_at
                    .map(|at| then(at, "Beat reports that it is due next.")),
            );
            format!(
                "{name} never becomes due: Beat forgets at each start when it last sent it, and starts more often than it is due."
            )
        }
        Cause::LostInBroker if is_overtaken(state, background) => overtaken(name, background, evidence),
        _ => {
            let Some(due) = state.next_due_at else {
                return format!("{name} did not report.");
            };
            evidence.push(then(due, waited(&state.expectation)));
            let from = due - early(state);
            let was_taken = background
                .stage
                .is_some_and(|stage| stage.received_at.is_some_and(|at| at >= from));
            evidence.extend(
                background
                    .stage
                    .into_iter()
                    .flat_map(|stage| how_far(stage, from)),
            );
            evidence.extend(lost_reports(background, from));
            evidence.extend(surroundings(background, cause, from));
            missed(name, cause, due, background.stage, was_taken)
        }
    }
}

/// Says how long Deadbeat waited for the report.
fn waited(expectation: &Expectation) -> String {
    let grace = words(expectation.grace());
    if expectation.delay().is_zero() {
        return format!("A report was due, and {grace} of grace passed.");
    }
    let delay = words(expectation.delay());
    format!(
        "A run was due, with a countdown of {delay}. Its report did not come within that and {grace} of grace."
    )
}

fn missed(
    name: &str,
    cause: Cause,
    due: DateTime<Utc>,
    stage: Option<&RunProgress>,
    was_taken: bool,
) -> String {
    let queue = stage
        .and_then(|stage| stage.queue.as_deref())
        .unwrap_or("its queue");
    let worker = stage
        .and_then(|stage| stage.worker.as_deref())
        .unwrap_or("a worker");
    let due = clock(due);
    match cause {
        Cause::BeatStalled => format!("{name} was not sent at {due}: Beat runs, but sends nothing."),
        Cause::BrokerDown => format!("{name} was not sent at {due}: Beat could not reach the broker."),
        Cause::LostInBroker => {
            format!(
                "{name} was sent at {due}, and its message is lost: it is not in queue {queue}, and no worker has it."
            )
        }
        Cause::QueueSlaBreach if was_taken => {
            format!("{name} waits in {worker}; all workers of queue {queue} are busy. It was due at {due}.")
        }
        Cause::QueueSlaBreach => format!("{name} waits in queue {queue} behind others; it was due at {due}."),
        Cause::RateLimited => {
            format!("{name} waits for a rate limit of its task; it was due at {due}.")
        }
        Cause::HostOverloaded => {
            format!("{name} waits for {worker}, whose host has no CPU time for it; it was due at {due}.")
        }
        Cause::PrefetchStarvation => {
            format!(
                "{name} waits inside {worker}, which is busy, while another worker is idle; it was due at {due}."
            )
        }
        Cause::Expired => {
            format!("{name} did not run: its message expired while it waited; it was due at {due}.")
        }
        Cause::WorkerLost => {
            format!(
                "{name} was lost with {worker}, which received it and restarted before it began; it was due at {due}."
            )
        }
        _ => format!("{name} did not report: it was due at {due}."),
    }
}

/// True if Beat sent the run before the unsatisfied slot. Later runs have satisfied the slot of this run.
fn is_overtaken(state: &MonitorState, background: &Background<'_>) -> bool {
    let sent_at = background.stage.and_then(|stage| stage.published_at);
    sent_at
        .zip(state.next_due_at)
        .is_some_and(|(sent_at, due)| sent_at < due - early(state))
}

fn overtaken(name: &str, background: &Background<'_>, evidence: &mut Vec<Fact>) -> String {
    let stage = background.stage;
    let sent_at = stage.and_then(|stage| stage.published_at);
    if let Some(id) = stage.and_then(|stage| stage.task_id.as_ref()) {
        evidence.push(fact(format!("It is the run {id}.")));
    }
    evidence.extend(sent_at.map(|at| then(at, "It was sent.")));
    evidence.push(fact(
        "No worker has reported that it received it, and later runs of its entry began.",
    ));
    evidence.extend(sent_at.map_or_else(Vec::new, |at| surroundings(background, Cause::LostInBroker, at)));
    let queue = stage
        .and_then(|stage| stage.queue.as_deref())
        .unwrap_or("its queue");
    let sent = sent_at.map_or(String::new(), |at| format!(", sent at {},", clock(at)));
    format!(
        "One run of {name}{sent} is lost: its message is not in queue {queue}, and no worker has it. Later runs began."
    )
}

fn over(state: &MonitorState) -> impl Iterator<Item = &Run> {
    state.runs.iter().filter(|run| run.status == RunStatus::Overrun)
}

fn overrun(
    state: &MonitorState,
    name: &str,
    background: &Background<'_>,
    evidence: &mut Vec<Fact>,
) -> String {
    let started = over(state).filter_map(|run| run.started_at).min();
    evidence.extend(started.and_then(|at| lost_reports(background, at)));
    evidence.push(Fact {
        at: started,
        fact: format!(
            "A run started and has not ended; {} are allowed.",
            words(state.longest_run())
        ),
    });
    if let Some(baseline) = state.baseline.filter(|baseline| baseline.longest_run().is_some()) {
        evidence.push(fact(format!(
            "Deadbeat learned this limit: its runs usually took {:.1} s, and {:.1} s at most.",
            baseline.usual, baseline.longest
        )));
    }
    match started {
        Some(started) => format!(
            "{name} has been running since {}, longer than allowed.",
            clock(started)
        ),
        None => format!("{name} has been running longer than allowed."),
    }
}

fn again(
    state: &MonitorState,
    background: &Background<'_>,
    name: &str,
    cause: Cause,
    evidence: &mut Vec<Fact>,
) -> String {
    let run = contested(state);
    if let Some(run) = run {
        let id = run.detail.task_id.as_deref().unwrap_or("one message");
        evidence.extend(run.started_at.map(|at| {
            then(
                at,
                format!(
                    "{id} began, and began again since: {} times in all.",
                    run.attempts.max(2)
                ),
            )
        }));
        evidence.extend(
            run.detail
                .worker
                .as_ref()
                .map(|worker| fact(format!("It last began on {worker}."))),
        );
    }
    evidence.extend(visibility(background).map(|seconds| {
        fact(format!(
            "The broker delivers a message again that is not acknowledged within {seconds:.0} s."
        ))
    }));
    if cause == Cause::DuplicateRun {
        format!("{name} is executed twice: its message was delivered again while, or after, it ran.")
    } else {
        format!("{name} is delivered again and again: the process that runs it dies each time.")
    }
}

/// The run whose message began most often.
fn contested(state: &MonitorState) -> Option<&Run> {
    let contested = state.runs.iter().filter(|run| run.contest.is_some());
    contested.max_by_key(|run| run.attempts)
}

fn visibility(background: &Background<'_>) -> Option<f64> {
    let sample = background.broker?.sample.as_ref()?;
    sample.get("visibility_timeout_seconds")?.as_f64()
}

fn worker_of<'a>(
    state: &MonitorState,
    background: &Background<'a>,
) -> Option<&'a deadbeat_store::celery::worker::Worker> {
    let run = over(state).next()?;
    let name = run.detail.worker.as_ref()?;
    background.workers.iter().find(|worker| worker.name == *name)
}

fn orphaned(state: &MonitorState, name: &str, background: &Background<'_>) -> Option<(Vec<Fact>, String)> {
    let run = over(state).find(|run| run.orphan.is_some())?;
    let mut workers = background.workers.iter();
    let worker = workers.find(|worker| Some(&worker.name) == run.detail.worker.as_ref());
    super::orphan::of_orphan(name, run, worker)
}
