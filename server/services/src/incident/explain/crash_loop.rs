//! Explains why a Beat in a crash loop misses runs that are due.

use chrono::TimeDelta;
use deadbeat_domain::celery::beat::incarnation::{EndReport, Incarnation};
use deadbeat_domain::incident::command::Command;
use deadbeat_domain::incident::{Fact, Repair};
use deadbeat_store::celery::beat::Beat;

use super::{Explanation, clock, fact, then, words};

/// Most crashed processes that an incident names: the last ones. It counts the others.
const NAMED: usize = 5;

/// Explains a crash loop by the processes that crashed in a row.
#[must_use]
pub fn of_crash_loop(beat: &Beat, crashes: &[Incarnation]) -> Explanation {
    let name = &beat.name;
    let host = beat.host.as_deref().unwrap_or("its host");
    let last = crashes.last();
    let since = crashes.first().map_or(String::new(), |first| {
        format!(" since {}", clock(first.began_at()))
    });
    let error = last.and_then(error_of);
    let by = error.map_or(String::new(), |error| format!(" The last one ended by {error}."));
    let mut evidence: Vec<Fact> = crashes.iter().rev().take(NAMED).rev().map(end).collect();
    if crashes.len() > NAMED {
        evidence.insert(
            0,
            fact(format!("These are the last {NAMED} of {}.", crashes.len())),
        );
    }
    let longest = crashes.iter().map(Incarnation::life).max();
    evidence.extend(longest.map(|longest| {
        fact(format!(
            "None of them reported for longer than {} after its start. If Beat's schedule file is lost at each crash, an interval that is longer than this never becomes due.",
            words(TimeDelta::seconds(longest.num_seconds().max(1)))
        ))
    }));
    Explanation {
        summary: format!(
            "Celery Beat of {name} crashes again and again: {} of its processes ended{since}, and none of them reported an orderly stop.{by}",
            crashes.len()
        ),
        evidence,
        repair: vec![
            Repair::command(
                format!("Read the end of its log on {host}: it shows how the last process ended."),
                Command::new("journalctl -u celery-beat -n 100 --no-pager"),
            ),
            Repair::advice(
                "In a container: kubectl logs --previous with its pod, and kubectl describe pod for its last state (OOMKilled, exit code); or docker logs.",
            ),
            Repair::command(
                format!("See on {host} whether the kernel killed it."),
                Command::new("journalctl -k --grep 'Killed process' --since -1h"),
            ),
            Repair::command(
                "Start it by hand, to see the error; stop its service before.",
                Command::new("celery -A").arg(beat.typed()).words("beat -l INFO"),
            ),
            Repair::advice(
                "Keep its schedule file on storage that survives a crash (--schedule, on a volume): then Beat sends overdue entries at the next start.",
            ),
        ],
    }
}

/// Returns the fact about the end of one process.
fn end(one: &Incarnation) -> Fact {
    let host = one.host.as_deref().unwrap_or("an unknown host");
    let process = match one.pid {
        Some(pid) => format!("process {pid} on {host}"),
        None => format!("a process on {host}"),
    };
    let began = clock(one.began_at());
    then(
        one.seen_at,
        match (&one.goodbye, error_of(one)) {
            (_, Some(error)) => {
                format!("Beat {process} reported that it ends because of {error}; it started at {began}.")
            }
            (Some(EndReport::Failed(None)), None) => {
                format!("Beat {process} reported that it ends because of an error; it started at {began}.")
            }
            _ => format!(
                "Beat {process} last reported, and did not report that it ends; it started at {began}."
            ),
        },
    )
}

fn error_of(one: &Incarnation) -> Option<&str> {
    match &one.goodbye {
        Some(EndReport::Failed(error)) => error.as_deref(),
        Some(EndReport::Stopped) | None => None,
    }
}
