//! Explains why a result backend is down.

use chrono::{DateTime, Utc};
use deadbeat_domain::incident::command::Command;
use deadbeat_domain::incident::{Fact, Repair};

use super::{Explanation, clock, fact, then};
use crate::celery::result_backend::report::{Backend, Report, since};

/// Most workers and Beats that an incident names. It counts the others.
const NAMED: usize = 5;

/// Explains that a result backend does not answer, or refuses results.
#[must_use]
pub fn of_result_backend(backend: &Backend, now: DateTime<Utc>) -> Explanation {
    let address = &backend.address;
    let hanging: i64 = backend
        .troubled
        .iter()
        .map(|(_, report)| report.hanging.max(0))
        .sum();
    let failing: i64 = backend
        .troubled
        .iter()
        .map(|(_, report)| report.failing.max(0))
        .sum();
    let mut evidence: Vec<Fact> = backend.troubled.iter().take(NAMED).flat_map(of_process).collect();
    if backend.troubled.len() > NAMED {
        evidence.push(fact(format!(
            "{} workers and Beats report this in all.",
            backend.troubled.len()
        )));
    }
    evidence.push(match &backend.answered {
        Some((name, at)) => then(
            *at,
            format!("The result backend answered {name}: other processes can reach it."),
        ),
        None => fact("No other process of the application has reported an answer since then."),
    });
    let since = clock(since(backend).unwrap_or(now));
    let refusal = backend
        .troubled
        .iter()
        .find_map(|(_, report)| report.error.as_deref().filter(|error| error.contains(": ")));
    let summary = match refusal {
        Some(why) if hanging == 0 => {
            format!(
                "The result backend {address} refuses results since {since}: {}.",
                why.trim_end_matches('.')
            )
        }
        _ if hanging > 0 => format!(
            "The result backend {address} does not answer since {since}: {hanging} {} for it.",
            if hanging == 1 {
                "process waits"
            } else {
                "processes wait"
            }
        ),
        _ => format!(
            "The result backend {address} cannot be reached since {since}: calls of {failing} {} failed.",
            if failing == 1 { "process" } else { "processes" }
        ),
    };
    let see = "See on its host whether it runs and answers; its memory and its disk may be full.";
    Explanation {
        summary,
        evidence,
        repair: vec![
            if address.starts_with("redis://") {
                Repair::command(see, Command::new("redis-cli -u").arg(address).words("ping"))
            } else {
                Repair::advice(see)
            },
            Repair::advice(
                "Tasks whose result nobody reads do not need it: ignore_result=True for the task, or task_ignore_result for all of them.",
            ),
        ],
    }
}

/// Returns the facts that one worker or Beat reports.
fn of_process((name, report): &(String, Report)) -> Vec<Fact> {
    let operation = report.operation.as_deref().unwrap_or("a call");
    let mut facts = Vec::new();
    if let Some(since) = report.since {
        let count = |count: i64| if count == 1 { "process" } else { "processes" };
        let how = match (report.hanging, report.failing) {
            (0, failing) => format!(
                "in {failing} {} {operation} has failed since then",
                count(failing)
            ),
            (hanging, _) => format!("{hanging} {} in {operation} since then", {
                if hanging == 1 {
                    "process waits"
                } else {
                    "processes wait"
                }
            }),
        };
        facts.push(then(since, format!("{name} reports: {how}.")));
    }
    if let (Some(error), Some(at)) = (&report.error, report.last_at) {
        let error = error.trim_end_matches('.');
        facts.push(then(at, format!("{name} last got the error: {error}.")));
    }
    facts
}
