//! Why several processes that report as one Beat do harm.

use deadbeat_domain::command::Command;
use deadbeat_domain::incarnation::Incarnation;
use deadbeat_domain::incident::{Fact, Repair};
use deadbeat_store::beat::Beat;

use super::{Explanation, clock, fact, then};

/// Processes in an incident; the rest is counted.
const NAMED: usize = 5;

/// Explains that several processes of a Beat run at once with one schedule, those that have run longest first.
#[must_use]
pub fn of_duplicates(beat: &Beat, processes: &[Incarnation]) -> Explanation {
    let count = processes.len().max(2);
    let mut evidence = each(processes);
    evidence.push(fact(
        "They list the same schedule and go on reporting side by side, for longer than a deployment takes. Celery allows one Beat an application: \
         each of them sends every entry.",
    ));
    let mut repair: Vec<Repair> = processes.iter().rev().take(NAMED).map(end).collect();
    repair.insert(
        0,
        Repair::advice("Leave one of these processes running, and end the others. Look for what started them: a second replica, a worker \
                        with -B, a service that was not stopped."),
    );
    Explanation {
        summary: format!(
            "{count} Celery Beats of {} run at once{}: each entry is sent {}.",
            beat.name,
            hosts(processes),
            if count == 2 {
                "twice".to_owned()
            } else {
                format!("{count} times")
            }
        ),
        evidence,
        repair,
    }
}

/// Where they run, for a summary.
fn hosts(processes: &[Incarnation]) -> String {
    let mut hosts: Vec<&str> = processes.iter().filter_map(|one| one.host.as_deref()).collect();
    hosts.dedup();
    match hosts[..] {
        [] => String::new(),
        [host] => format!(", all on {host}"),
        [..] => format!(", on {}", hosts[..hosts.len().min(NAMED)].join(" and ")),
    }
}

/// A process in words.
fn name(one: &Incarnation) -> String {
    let host = one.host.as_deref().unwrap_or("an unknown host");
    match one.pid {
        Some(pid) => format!("process {pid} on {host}"),
        None => format!("a process on {host}"),
    }
}

/// What is known of each process.
fn each(processes: &[Incarnation]) -> Vec<Fact> {
    let mut facts: Vec<Fact> = processes
        .iter()
        .take(NAMED)
        .map(|one| {
            let began = one.started_at.map_or_else(
                || format!("reports since {}", clock(one.since)),
                |at| format!("started at {}", clock(at)),
            );
            then(
                one.seen_at,
                format!("Beat {} last reported; it {began}.", name(one)),
            )
        })
        .collect();
    if processes.len() > NAMED {
        facts.push(fact(format!("There are {} in all.", processes.len())));
    }
    facts
}

/// How to end one.
fn end(one: &Incarnation) -> Repair {
    let host = one.host.as_deref().unwrap_or("its host");
    match one.pid {
        Some(1) => Repair::advice(format!(
            "On {host} it is the first process of a container: end that container."
        )),
        Some(pid) => Repair::command(
            format!("On {host}, end process {pid}, or scale its service down."),
            Command::new("kill -TERM").process(pid),
        ),
        None => Repair::advice(format!("On {host}, end one of its Beat processes.")),
    }
}
