//! Explains the load of a worker's host.

use deadbeat_domain::incident::command::Command;
use deadbeat_domain::incident::{Fact, Repair};
use deadbeat_domain::monitor::status::Status;
use deadbeat_domain::time::span;
use deadbeat_store::celery::worker::Worker;

use super::{Explanation, then, words};
use crate::celery::gather::view::host_load;
use crate::incident::changed::Background;

/// Returns the facts about an overloaded host. Empty: the host is not overloaded.
pub(super) fn facts(worker: &Worker) -> Vec<Fact> {
    let load = host_load(worker);
    let Some(per_cpu) = load.per_cpu.filter(|_| load.is_overload()) else {
        return Vec::new();
    };
    let at = worker.state.last_seen_at;
    let mut facts = vec![Fact {
        at,
        fact: format!(
            "The host {} of {} is overloaded: {per_cpu:.1} processes want each of its CPUs.",
            host(worker),
            worker.name
        ),
    }];
    if let (Some(waits), Some(takes)) = (load.waits, load.takes) {
        facts.push(Fact {
            at,
            fact: format!(
                "The processes of {} had {:.0} % of that host's CPUs, and one of them waited for a CPU for {:.0} % of the time.",
                worker.name,
                takes * 100.0,
                waits * 100.0
            ),
        });
    }
    facts
}

/// Explains that a worker starves. `of_first`: the facts of the first monitor that it keeps waiting.
pub(super) fn of_starving(
    worker: Option<&Worker>,
    name: &str,
    of_first: &Explanation,
) -> (String, Vec<Fact>) {
    let reports = worker.and_then(|worker| {
        let every = words(span(worker.state.period_seconds));
        let at = worker.state.last_seen_at?;
        Some(then(
            at,
            format!("{name} last reported; it should report every {every}."),
        ))
    });
    let known = worker.map(facts).unwrap_or_default();
    let facts = known
        .into_iter()
        .filter(|fact| !of_first.evidence.contains(fact))
        .chain(reports)
        .collect();
    let host = worker.map_or("its host", host);
    let summary =
        format!("Worker {name} gets too little CPU time: its host {host} is overloaded, and runs come late.");
    (summary, facts)
}

/// Returns the repairs for an overloaded host.
pub(super) fn repair(background: &Background<'_>) -> Vec<Repair> {
    let taken_by = background.stage.and_then(|stage| stage.worker.as_ref());
    let is_overloaded =
        |worker: &&Worker| worker.state.status == Status::Up && host_load(worker).is_overload();
    let mut overloaded = background.workers.iter().filter(is_overloaded);
    let worker = overloaded
        .clone()
        .find(|worker| Some(&worker.name) == taken_by)
        .or_else(|| overloaded.next());
    let host = worker.map_or("its host", host);
    vec![
        Repair::command(
            format!("See on {host} what takes its CPUs."),
            Command::new("ps -eo pid,ni,pcpu,etime,args --sort=-pcpu | head -n 15"),
        ),
        Repair::advice(
            "End a process that does not belong there, or lower its priority: renice -n 19 -p, and the number of the process.",
        ),
        Repair::advice(
            "If it belongs there, move it or the worker to another host, or start the worker with a larger share (nice, cpu.weight).",
        ),
    ]
}

fn host(worker: &Worker) -> &str {
    worker
        .snapshot
        .get("host")
        .and_then(|host| host.as_str())
        .unwrap_or("?")
}
