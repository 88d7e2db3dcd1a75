//! Explains why a worker is down, or does nothing.

use deadbeat_domain::incident::cause::Cause;
use deadbeat_domain::incident::command::Command;
use deadbeat_domain::incident::{Fact, Repair};
use deadbeat_store::celery::worker::Worker;
use serde_json::Value;

use super::{Explanation, clock, fact, then, words};
use crate::celery::worker::failure;

/// Explains why a worker is down.
#[must_use]
pub fn of_worker(worker: &Worker, cause: Cause) -> Explanation {
    match cause {
        Cause::GhostWorker => return ghost(worker),
        Cause::ClockSkew => return skew(worker),
        _ => {}
    }
    let state = &worker.state;
    let name = &worker.name;
    let said = |field: &str| worker.snapshot.get(field);
    let count = |field: &str| said(field).and_then(Value::as_i64);
    let host = said("host").and_then(Value::as_str).unwrap_or("its host");
    let mut evidence = Vec::new();
    let failed = failure::has_failed(worker);
    let error = said("exit_error")
        .and_then(Value::as_str)
        .unwrap_or("not known which");
    if let Some(seen) = state.last_seen_at {
        evidence.push(Fact {
            at: Some(seen),
            fact: if failed {
                format!(
                    "It reported, on {host}, that it ends because of {error}, with exit status {}.",
                    count("exit_code").unwrap_or(1)
                )
            } else {
                format!("It last reported, on {host}, and did not report that it stops.")
            },
        });
        if let Some(reserved) = count("reserved").filter(|reserved| *reserved > 0) {
            evidence.push(Fact {
                at: Some(seen),
                fact: format!(
                    "It held {reserved} messages, {} of them running. {}; the others come back: on RabbitMQ at once, on Redis when its \
                     visibility timeout has passed.",
                    count("active").unwrap_or(0),
                    match count("unacked") {
                        Some(unacked) => {
                            let gone = reserved.saturating_sub(unacked).max(0);
                            format!("{gone} of them were acknowledged early, and are gone")
                        }
                        None => "Those that were acknowledged early are gone".to_owned(),
                    }
                ),
            });
        }
        if let Some(task) = said("longest").and_then(|longest| longest.get("task")?.as_str()) {
            evidence.push(Fact {
                at: Some(seen),
                fact: format!("The task that had been running longest was {task}."),
            });
        }
    }
    evidence.extend(super::load::facts(worker));
    if !worker.queues.is_empty() {
        evidence.push(Fact {
            at: None,
            fact: format!("It consumed {}.", worker.queues.join(", ")),
        });
    }
    evidence.push(Fact {
        at: None,
        fact: format!(
            "It sends a snapshot every {}; {} of silence beyond that are tolerated.",
            words(deadbeat_domain::time::span(state.period_seconds)),
            words(deadbeat_domain::time::span(state.grace_seconds))
        ),
    });
    let first = if failed {
        Repair::advice(format!(
            "Read the end of its log on {host}: Celery wrote the error there, as `Unrecoverable error`."
        ))
    } else {
        Repair::command(
            format!("See on {host} whether the kernel killed it."),
            Command::new("journalctl -k --grep 'Killed process' --since -1h"),
        )
    };
    Explanation {
        summary: match state.last_seen_at {
            Some(seen) if failed => format!(
                "Worker {name} ended by an error ({error}) at {}, and no new worker consumes its queues.",
                clock(seen)
            ),
            Some(seen) => format!(
                "Worker {name} is silent since {}: it did not report that it stops.",
                clock(seen)
            ),
            None => format!("Worker {name} does not report."),
        },
        evidence,
        repair: vec![
            first,
            Repair::command(
                "Start it again (or restart its service or container).",
                start(worker),
            ),
        ],
    }
}

/// Returns the command that starts a worker as before: with its name, for its queues.
fn start(worker: &Worker) -> Command {
    let command = Command::new("celery -A")
        .arg(worker.typed())
        .words("worker -n")
        .arg(&worker.name);
    match worker.queues.as_slice() {
        [] => command,
        queues => command.words("-Q").list(queues),
    }
}

fn ghost(worker: &Worker) -> Explanation {
    let name = &worker.name;
    let count = |field: &str| worker.snapshot.get(field).and_then(Value::as_i64);
    let (active, reserved, processes) = (
        count("active").unwrap_or(0),
        count("reserved").unwrap_or(0),
        count("processes").unwrap_or(1),
    );
    let lag = worker.snapshot.get("loop_lag_seconds").and_then(Value::as_f64);
    let mut evidence = Vec::new();
    evidence.push(then(
        worker.progress_at,
        "It last began or ended a task, or had nothing to do.",
    ));
    evidence.extend(worker.state.last_seen_at.map(|at| {
        then(
            at,
            format!("It reports {active} of {processes} processes busy, and {reserved} messages received."),
        )
    }));
    let is_cut_off = worker.snapshot.get("cut_off").and_then(Value::as_bool) == Some(true);
    if is_cut_off {
        evidence.push(fact(
            "It cannot reach the broker, but another process of its application can.",
        ));
    }
    if let Some(lag) = lag.filter(|lag| *lag >= 10.0) {
        evidence.push(fact(format!("Its loop has not turned for {lag:.0} s.")));
    }
    if !worker.queues.is_empty() {
        evidence.push(fact(format!("It consumes {}.", worker.queues.join(", "))));
    }
    let pid = count("pid");
    let host = worker
        .snapshot
        .get("host")
        .and_then(Value::as_str)
        .unwrap_or("its host");
    let mut repair = vec![match pid {
        Some(pid) => Repair::command(
            format!("End it on {host}, by force if it does not stop; its service starts it again."),
            Command::new("kill -TERM")
                .process(pid)
                .then("sleep 10")
                .then("kill -KILL")
                .process(pid),
        ),
        None => Repair::advice(format!(
            "Restart its service on {host}: it may not react to remote control."
        )),
    }];
    repair.push(Repair::command("Or start it again by hand.", start(worker)));
    Explanation {
        summary: if is_cut_off {
            format!("Worker {name} cannot reach its broker, but others can: it gets nothing done.")
        } else {
            format!(
                "Worker {name} is a ghost: it reports, and gets nothing done although messages wait for it."
            )
        },
        evidence,
        repair,
    }
}

fn skew(worker: &Worker) -> Explanation {
    let host = worker
        .snapshot
        .get("host")
        .and_then(Value::as_str)
        .unwrap_or("its host");
    let mut evidence: Vec<Fact> = worker
        .state
        .since
        .map(|at| {
            then(
                at,
                "Since then its clock has differed from this server's by ten seconds or more.",
            )
        })
        .into_iter()
        .collect();
    evidence.push(fact(
        "Tasks with an ETA or a countdown begin too early or too late by the same time.",
    ));
    Explanation {
        summary: format!("The clock of {host}, where worker {} runs, is off.", worker.name),
        evidence,
        repair: set_the_clock(host),
    }
}

/// Returns the repairs that correct a clock.
pub(super) fn set_the_clock(host: &str) -> Vec<Repair> {
    vec![
        Repair::command(
            format!("See on {host} how far the clock is off, and whether it is synchronised."),
            Command::new("timedatectl status"),
        ),
        Repair::command(
            "Synchronise it with network time (NTP).",
            Command::new("timedatectl set-ntp true"),
        ),
        Repair::command("Or set it at once.", Command::new("chronyc makestep")),
    ]
}
