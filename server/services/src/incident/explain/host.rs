//! Why a host is lost.

use deadbeat_domain::incident::command::Command;
use deadbeat_domain::incident::{Fact, Repair, SubjectKind};
use deadbeat_store::celery::host::Resident;

use super::{Explanation, clock, fact, then};
use crate::celery::host::lost::Host;

/// The most parts that an incident names. It counts the others.
const NAMED: usize = 10;

/// Explains that nothing of a host reports any more.
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
                    "{} was last heard from{}, without a word of stopping.",
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
            format!("{} has been heard from again{}.", called(one), on(one)),
        )
    }));
    evidence.push(fact(if host.back.is_empty() {
        "All that reported from there fell silent at one time. Whether the host is down, stands still, or is cut off from this server is not known."
    } else {
        "All that reported from there had fallen silent at one time. What is not listed as heard again has not been heard since."
    }));
    if host.works {
        evidence.push(fact(
            "Runs that its Beat sent since then have begun on other hosts: it works, and does not reach this server.",
        ));
    }
    let since = since.map_or(String::new(), |at| format!(" since {}", clock(at)));
    // If only one part is silent, the others have signed off meanwhile.
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
        "See whether the host answers; if it does, see there whether it reaches this server.",
        Command::new("ping -c 3").arg(
            host.silent
                .iter()
                .find_map(|one| one.host.as_deref())
                .unwrap_or(&host.name),
        ),
    )];
    repair.push(Repair::advice(
        "Start the host again, or let its work move to another one. Beat and workers come back with it where a service manager starts them.",
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
