//! Explains the harm of several processes that report as one Beat.

use std::fmt;

use deadbeat_domain::celery::beat::incarnation::Incarnation;
use deadbeat_domain::celery::beat::lineage::{Bits, bit};
use deadbeat_domain::incident::cause::Cause;
use deadbeat_domain::incident::command::Command;
use deadbeat_domain::incident::{Fact, Repair};
use deadbeat_store::celery::beat::Beat;
use deadbeat_store::celery::beat::lineage::Listed;

use crate::celery::beat::at_once::AtOnce;

use super::{Explanation, clock, fact, then};

/// The most processes that an incident names. It counts the others.
const NAMED: usize = 5;

/// Explains the fault of a Beat as which several processes report.
#[must_use]
pub fn of_several(beat: &Beat, cause: Cause, at_once: &AtOnce) -> Explanation {
    match cause {
        Cause::AppNameShared => of_shared(beat, at_once),
        Cause::BeatDown => of_lost(beat, at_once),
        _ => of_duplicates(beat, at_once),
    }
}

/// Several processes run at once with one schedule, or with two releases of it.
fn of_duplicates(beat: &Beat, at_once: &AtOnce) -> Explanation {
    let processes = &at_once.processes;
    let count = processes.len().max(2);
    let mut schedules: Vec<&str> = processes
        .iter()
        .filter_map(|one| one.schedule.as_deref())
        .collect();
    schedules.sort_unstable();
    schedules.dedup();
    let is_one = schedules.len() < 2;
    let mut evidence = each(processes);
    evidence.push(fact(format!(
        "They list {} and keep reporting at the same time, for longer than a deployment takes. Celery allows one Beat for each application: each of them \
         sends the entries that it lists.",
        if is_one { "the same schedule" } else { "mostly the same entries" }
    )));
    let mut repair = vec![Repair::advice(
        "Leave one of these processes running, and end the others. Look for what started them: a second replica, a worker with -B, a service that \
         was not stopped.",
    )];
    repair.extend(processes.iter().rev().take(NAMED).map(end));
    Explanation {
        summary: format!(
            "{count} Celery Beats of {} run at once{}: {} entry is sent {}.",
            beat.name,
            hosts(processes),
            if is_one { "each" } else { "nearly each" },
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

/// Several applications have the same name.
fn of_shared(beat: &Beat, at_once: &AtOnce) -> Explanation {
    let processes = &at_once.processes;
    let name = &beat.name;
    let mut evidence = each(processes);
    evidence.extend(processes.iter().take(NAMED).filter_map(|one| lists(one, at_once)));
    evidence.push(fact(
        "They keep reporting at the same time, for longer than a deployment takes. Deadbeat watches all their entries. It treats the workers, queues and \
         brokers of both as those of one application.",
    ));
    let all = lineages(at_once);
    let common = common(at_once, |by| (by & all).count_ones() > 1);
    if let Some(common) = &common {
        evidence.push(fact(format!(
            "Several of these applications list {common}. Deadbeat watches each name once: while one application's runs come, Deadbeat does not notice \
             that another one's do not."
        )));
    }
    Explanation {
        summary: format!(
            "{} applications report under the name {name}{}: Deadbeat treats them as one{}.",
            processes.len().max(2),
            hosts(processes),
            match &common {
                Some(common) => format!(", and cannot distinguish {}", common.count()),
                None => String::new(),
            }
        ),
        evidence,
        repair: vec![
            Repair::advice(
                "Give each application a name of its own where it calls deadbeat: deadbeat.init(app, name=\"…\"), or DEADBEAT_NAME in the environment \
                 of its Beat and of its workers.",
            ),
            Repair::advice(
                "Then deploy that application. Its entries become monitors under the new name, and the old ones are retired by themselves.",
            ),
            Repair::advice("If both are the same application, end the Beat that is not meant to run."),
        ],
    }
}

/// One of several applications with the same name no longer has a Beat.
fn of_lost(beat: &Beat, at_once: &AtOnce) -> Explanation {
    let name = &beat.name;
    let lost = at_once.processes.first();
    let host = lost.and_then(|one| one.host.as_deref()).unwrap_or("its host");
    let mut evidence = each(&at_once.processes);
    evidence.extend(
        at_once
            .processes
            .iter()
            .take(NAMED)
            .filter_map(|one| lists(one, at_once)),
    );
    evidence.push(fact(format!(
        "Another Beat of the name {name} still reports, and lists other entries."
    )));
    let lost_ones = lineages(at_once);
    if let Some(common) = common(at_once, |by| by & lost_ones != 0 && by & !lost_ones != 0) {
        evidence.push(fact(format!(
            "Several applications of this name list {common}. Deadbeat watches each name once: while another Beat sends such an entry, it \
             stays up, although the silent Beat does not send it."
        )));
    }
    let since = lost.map_or(String::new(), |one| format!(" since {}", clock(one.seen_at)));
    Explanation {
        summary: format!(
            "One of the Celery Beats that report as {name} is silent{since}: its entries are not being scheduled."
        ),
        evidence,
        repair: vec![
            Repair::command(
                format!("See on {host} whether it runs."),
                Command::new("pgrep -af 'celery.* beat'"),
            ),
            Repair::command(
                "Start it again where its application is (or restart its service or container).",
                Command::new("celery -A").arg(beat.typed()).words("beat"),
            ),
            Repair::advice(
                "If it is gone for good, acknowledge this incident: that ends it, and retires the monitors of its entries.",
            ),
            Repair::advice("Give each application a name of its own: deadbeat.init(app, name=\"…\")."),
        ],
    }
}

/// Returns the fact about the entries that only the application of this process lists.
fn lists(one: &Incarnation, at_once: &AtOnce) -> Option<Fact> {
    let own: Bits = bit(one.lineage?);
    let listed = at_once.listed.iter().find(|listed| listed.by == own)?;
    let more = if listed.count > listed.names.len() as i64 {
        ", …"
    } else {
        ""
    };
    let entries = if listed.count == 1 { "entry" } else { "entries" };
    Some(fact(format!(
        "Only Beat {} lists {} {entries}: {}{more}.",
        name(one),
        listed.count,
        listed.names.join(", ")
    )))
}

/// Entries that several applications with the same name list: each entry is one monitor.
struct Common {
    count: i64,
    names: Vec<String>,
}

impl Common {
    fn count(&self) -> String {
        match self.count {
            1 => "one entry that they have in common".to_owned(),
            count => format!("{count} entries that they have in common"),
        }
    }
}

impl fmt::Display for Common {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let entries = if self.count == 1 { "entry" } else { "entries" };
        let more = if self.count > self.names.len() as i64 {
            ", …"
        } else {
            ""
        };
        write!(
            f,
            "{} {entries} of one name: {}{more}",
            self.count,
            self.names.join(", ")
        )
    }
}

/// Returns the lineages of all these processes.
fn lineages(at_once: &AtOnce) -> Bits {
    let all = at_once.processes.iter().filter_map(|one| one.lineage);
    all.map(bit).fold(0, |all, one| all | one)
}

/// Returns the entries that several applications list, for the sets of lineages for which `is_common` is true. None:
/// there are no such entries.
fn common(at_once: &AtOnce, is_common: impl Fn(Bits) -> bool) -> Option<Common> {
    let shared: Vec<&Listed> = at_once
        .listed
        .iter()
        .filter(|listed| is_common(listed.by))
        .collect();
    let count = shared.iter().map(|listed| listed.count).sum();
    let mut names: Vec<String> = shared
        .iter()
        .flat_map(|listed| listed.names.iter().cloned())
        .collect();
    names.sort_unstable();
    names.truncate(NAMED);
    (count > 0).then_some(Common { count, names })
}

/// Returns the hosts on which they run, for a summary.
fn hosts(processes: &[Incarnation]) -> String {
    let mut hosts: Vec<&str> = processes.iter().filter_map(|one| one.host.as_deref()).collect();
    hosts.dedup();
    match hosts[..] {
        [] => String::new(),
        [host] => format!(", all on {host}"),
        [..] => format!(", on {}", hosts[..hosts.len().min(NAMED)].join(" and ")),
    }
}

/// Describes a process.
fn name(one: &Incarnation) -> String {
    let host = one.host.as_deref().unwrap_or("an unknown host");
    match one.pid {
        Some(pid) => format!("process {pid} on {host}"),
        None => format!("a process on {host}"),
    }
}

/// Returns the facts about each process.
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

/// Returns the repair that ends one process.
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
