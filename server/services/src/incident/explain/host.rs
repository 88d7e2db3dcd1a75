//! Explains why a host counts as lost.

use deadbeat_domain::incident::command::Command;
use deadbeat_domain::incident::{Fact, Repair, SubjectKind};
use deadbeat_store::celery::host::Resident;

use super::{Explanation, clock, fact, then};
use crate::celery::host::lost::Host;

/// Most Beats and workers that an incident names. It counts the others.
const NAMED: usize = 10;

/// Explains that no Beat or worker of a host reports any more.
#[must_use]
pub fn of_host(host: &Host) -> Explanation {
    let silent = &host.silent;
    let since = silent.iter().map(|one| one.part.heard_at).max();
    let mut evidence: Vec<Fact> = silent
        .iter()
        .take(NAMED)
        .map(|one| {
            then(
                one.part.heard_at,
                format!(
                    "{} last reported{}, and did not report that it stops.",
                    called(one),
                    on(one)
                ),
            )
        })
        .collect();
    if silent.len() > NAMED {
        evidence.push(fact(format!("{} are silent in all.", count(silent.len()))));
    }
    evidence.extend(host.back.iter().take(NAMED).map(|one| {
        then(
            one.part.heard_at,
            format!("{} has reported again{}.", called(one), on(one)),
        )
    }));
    evidence.push(fact(if host.back.is_empty() {
        "All Beats and workers on this host fell silent at one time. Deadbeat cannot know whether the host is down, is frozen, or is cut off from this server."
    } else {
        "All Beats and workers on this host had fallen silent at one time. Those that are not listed as reporting again are still silent."
    }));
    if host.works {
        evidence.push(fact(
            "Runs that its Beat sent since then have begun on other hosts: the host works, but cannot reach this server.",
        ));
    }
    let since = since.map_or(String::new(), |at| format!(" since {}", clock(at)));
    // If only one Beat or worker is silent, the others have signed off meanwhile.
    let summary = if host.back.is_empty() && silent.len() > 1 {
        format!(
            "Nothing on host {} reports{since}: {} fell silent together.",
            host.name,
            list(silent)
        )
    } else {
        let verb = if silent.len() == 1 { "is" } else { "are" };
        format!(
            "Of what fell silent on host {}, {} {verb} still silent{since}.",
            host.name,
            list(silent)
        )
    };
    Explanation {
        summary,
        evidence,
        repair: repair(host),
    }
}

fn repair(host: &Host) -> Vec<Repair> {
    let mut repair = vec![Repair::command(
        "See whether the host answers; if it does, check on it whether it can reach this server.",
        Command::new("ping -c 3").arg(
            host.silent
                .iter()
                .find_map(|one| one.host.as_deref())
                .unwrap_or(&host.name),
        ),
    )];
    repair.push(Repair::advice(
        "Start the host again, or move its work to another host. Beat and workers come back with the host if a service manager starts them.",
    ));
    repair.extend(host.silent.iter().take(NAMED).map(|one| {
        let command = Command::new("celery -A").arg(&one.typed);
        let command = match one.kind {
            SubjectKind::Beat => command.words("beat"),
            _ => {
                let command = command.words("worker -n").arg(&one.name);
                match one.queues.as_slice() {
                    [] => command,
                    queues => command.words("-Q").list(queues),
                }
            }
        };
        Repair::command(
            format!("Start {} again, here or elsewhere.", called(one)),
            command,
        )
    }));
    repair
}

fn called(one: &Resident) -> String {
    match one.kind {
        SubjectKind::Beat => format!("Celery Beat of {}", one.name),
        _ => format!("worker {}", one.name),
    }
}

fn on(one: &Resident) -> String {
    one.host
        .as_ref()
        .map_or(String::new(), |host| format!(", on {host}"))
}

fn count(parts: usize) -> String {
    format!("{parts} Beats and workers")
}

/// `Celery Beat of shop and workers one@shop, two@shop`.
fn list(parts: &[Resident]) -> String {
    let names = |kind: SubjectKind| -> Vec<&str> {
        let of = parts.iter().filter(|one| one.kind == kind);
        of.map(|one| one.name.as_str()).collect()
    };
    let of = |kind, one: &str, several: &str| {
        let names = names(kind);
        let more = match names.len() {
            0 => return None,
            1 => return Some(format!("{one} {}", names[0])),
            all if all > NAMED => format!(" and {} more", all - NAMED),
            _ => String::new(),
        };
        Some(format!(
            "{several} {}{more}",
            names[..names.len().min(NAMED)].join(", ")
        ))
    };
    [
        of(SubjectKind::Beat, "Celery Beat of", "Celery Beats of"),
        of(SubjectKind::Worker, "worker", "workers"),
    ]
    .into_iter()
    .flatten()
    .collect::<Vec<_>>()
    .join(" and ")
}
