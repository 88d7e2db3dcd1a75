//! Why a Beat that is started again and again misses what is due.

use chrono::TimeDelta;
use deadbeat_domain::celery::beat::incarnation::{Goodbye, Incarnation};
use deadbeat_domain::incident::command::Command;
use deadbeat_domain::incident::{Fact, Repair};
use deadbeat_store::celery::beat::Beat;

use super::{Explanation, clock, fact, then, words};

/// The most ends of processes that an incident names, the last ones. It counts the others.
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
            "None of them was heard from for longer than {} after its start. Where Beat's schedule file is lost with it, an interval that is longer than its life never comes to be due.",
            words(TimeDelta::seconds(longest.num_seconds().max(1)))
        ))
    }));
    Explanation {
        summary: format!(
            "Celery Beat of {name} crashes again and again: {} of its processes ended{since}, and none of them reported that it was told to.{by}",
            crashes.len()
        ),
        evidence,
        repair: vec![
            Repair::command(
                format!("Read on {host} how it ended the last time: the end of its log."),
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
                "Keep its schedule file where it survives a crash (--schedule, on a volume): then what came to be due is sent at the next start.",
            ),
        ],
    }
}

/// How one process ended.
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
            (Some(Goodbye::Failed(None)), None) => {
                format!("Beat {process} reported that it ends because of an error; it started at {began}.")
            }
            _ => format!(
                "Beat {process} was last heard from, and did not report that it ends; it started at {began}."
            ),
        },
    )
}

fn error_of(one: &Incarnation) -> Option<&str> {
    match &one.goodbye {
        Some(Goodbye::Failed(error)) => error.as_deref(),
        Some(Goodbye::Stopped) | None => None,
    }
}
