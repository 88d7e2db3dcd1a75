//! Explains why a run counts as dead: its owner has ended, or does not execute it any more.

use deadbeat_domain::celery::worker::incarnation::End;
use deadbeat_domain::incident::Fact;
use deadbeat_domain::monitor::run::Run;
use deadbeat_domain::monitor::run::orphan::Orphaned;
use deadbeat_store::celery::worker::Worker;

use super::{clock, fact, then};

/// Returns the evidence and the summary for a run of monitor `name` that is an orphan. `worker`: the worker with the
/// name of its owner. None: the run is no orphan.
pub(super) fn of_orphan(name: &str, run: &Run, worker: Option<&Worker>) -> Option<(Vec<Fact>, String)> {
    let orphan = run.orphan?;
    let owner = run.detail.worker.as_deref().unwrap_or("a worker");
    let mut evidence: Vec<Fact> = run
        .started_at
        .map(|at| then(at, format!("A run began on {owner}.")))
        .into_iter()
        .collect();
    if orphan.how == Orphaned::Unlisted {
        evidence.push(then(
            orphan.since,
            format!("{owner} reports, and does not list it among the runs that it executes."),
        ));
        let summary =
            format!("{name} was killed in the middle of a run on {owner}: nothing has reported its end.");
        return Some((evidence, summary));
    }
    let incarnation = worker.and_then(|worker| {
        let mut all = worker.incarnations.iter();
        all.find(|one| Some(one.id) == run.detail.incarnation)
    });
    let seen = incarnation.map(|one| one.last_seen_at);
    evidence.extend(seen.map(|at| then(at, "The process that owned it last reported.".to_owned())));
    let end = incarnation.and_then(|one| one.ended).map(|(_, end)| end);
    let why = match end {
        Some(End::Stopped) => {
            evidence.push(then(
                orphan.since,
                format!("{owner} had stopped, and nobody reported the end of the run."),
            ));
            format!("{owner}, which ran it, stopped without reporting its end")
        }
        Some(End::Replaced) => {
            evidence.push(then(
                orphan.since,
                format!("Another process reports as {owner} from the same host."),
            ));
            format!("the process of {owner} that ran it has been replaced")
        }
        _ => match seen {
            Some(at) => format!("the process of {owner} that ran it is silent since {}", clock(at)),
            None => format!("the process of {owner} that ran it does not report any more"),
        },
    };
    if run.detail.acks_late {
        evidence.push(fact(
            "Its message is acknowledged late: Deadbeat waited for a redelivery, but the run has not begun again.",
        ));
    }
    Some((
        evidence,
        format!("{name} was lost in the middle of a run: {why}."),
    ))
}
