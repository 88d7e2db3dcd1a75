//! Explains why a Beat is down, or does harm.

use deadbeat_domain::celery::beat::STORM_COUNT;
use deadbeat_domain::incident::cause::Cause;
use deadbeat_domain::incident::command::Command;
use deadbeat_domain::incident::{Fact, Repair};
use deadbeat_store::celery::beat::Beat;

use crate::celery::beat::emptied::Emptied;
use crate::celery::beat::flood::Flood;

use super::{Explanation, clock, fact, then, words};

/// Explains why a Beat is down.
#[must_use]
pub fn of_beat(beat: &Beat, cause: Cause) -> Explanation {
    match cause {
        Cause::BeatStorm => return storm(beat, None),
        Cause::ClockSkew => return skew(beat),
        Cause::BeatStalled => return stalled(beat),
        _ => {}
    }
    let state = &beat.state;
    let name = &beat.name;
    let host = beat.host.as_deref().unwrap_or("its host");
    let since = state.last_seen_at.map(clock);
    let mut evidence = Vec::new();
    if let Some(seen) = state.last_seen_at {
        evidence.push(Fact {
            at: Some(seen),
            fact: format!("Beat of {name} on {host} last reported."),
        });
    }
    evidence.push(Fact {
        at: None,
        fact: format!(
            "It sends a heartbeat every {}; {} of silence beyond that are tolerated.",
            words(deadbeat_domain::time::span(state.period_seconds)),
            words(deadbeat_domain::time::span(state.grace_seconds))
        ),
    });
    Explanation {
        summary: match since {
            Some(since) => {
                format!("Celery Beat of {name} is silent since {since}: nothing is being scheduled.")
            }
            None => format!("Celery Beat of {name} is silent: nothing is being scheduled."),
        },
        evidence,
        repair: vec![
            Repair::command(
                format!("See on {host} whether Beat runs."),
                Command::new("pgrep -af 'celery.* beat'"),
            ),
            Repair::command(
                "Start it again (or restart its service or container).",
                start(beat),
            ),
        ],
    }
}

fn start(beat: &Beat) -> Command {
    Command::new("celery -A").arg(beat.typed()).words("beat")
}

fn stalled(beat: &Beat) -> Explanation {
    let name = &beat.name;
    let host = beat.host.as_deref().unwrap_or("its host");
    let mut evidence = Vec::new();
    evidence.extend(
        beat.state
            .last_seen_at
            .map(|at| then(at, format!("Its loop last turned, on {host}."))),
    );
    evidence.extend(beat.hung_at.map(|at| {
        then(
            at,
            "Its process runs: one of its threads reports that the loop hangs.",
        )
    }));
    evidence.extend(beat.sent_at.map(|at| then(at, "It last sent a task.")));
    if let Some((at, error)) = &beat.send_failed {
        evidence.push(then(*at, format!("It could not send a task: {error}.")));
    }
    Explanation {
        summary: format!("Celery Beat of {name} hangs: its process runs, but sends nothing."),
        evidence,
        repair: vec![
            Repair::command(
                format!("See on {host} where it hangs (pip install py-spy)."),
                Command::new("py-spy dump --pid $(pgrep -of 'celery.* beat')"),
            ),
            Repair::command(
                "End it; then start it again, or let its service do that.",
                Command::new("pkill -KILL -f 'celery.* beat'"),
            ),
            Repair::command("Start it again.", start(beat)),
        ],
    }
}

/// Explains that a Beat floods a queue.
#[must_use]
pub fn of_flood(beat: &Beat, flood: &Flood) -> Explanation {
    storm(beat, Some(flood))
}

/// Explains that a Beat's whole schedule vanished.
#[must_use]
pub fn of_emptied(beat: &Beat, emptied: &Emptied) -> Explanation {
    let Emptied { at, names, count } = emptied;
    let more = if *count > names.len() as i64 { ", …" } else { "" };
    Explanation {
        summary: format!(
            "The whole schedule of Celery Beat of {} vanished: it lists no enabled entry any more, and Deadbeat retired {count} monitors.",
            beat.name
        ),
        evidence: vec![
            then(*at, "Its list had no enabled entry."),
            fact(format!("Before that it listed {}{more}.", names.join(", "))),
            fact("Anyone with a ping key of the project can send such a list."),
        ],
        repair: vec![
            Repair::command(
                "See which beat_schedule its settings have; with django-celery-beat, see which periodic tasks are enabled.",
                Command::new("celery -A").arg(beat.typed()).words("report"),
            ),
            Repair::command(
                "Start Beat again with its schedule: it sends its list, and the monitors of listed entries come back.",
                start(beat),
            ),
            Repair::advice("If the schedule is meant to be empty, acknowledge this incident: that ends it."),
            Repair::advice("If none of your own processes sent that list, revoke the project's ping keys."),
        ],
    }
}

fn storm(beat: &Beat, flood: Option<&Flood>) -> Explanation {
    let queue = flood.and_then(|flood| flood.queue.as_ref());
    let entry = flood.map_or("one entry".to_owned(), |flood| format!("entry {}", flood.entry));
    let count = flood.map_or(STORM_COUNT, |flood| flood.count);
    let mut evidence = Vec::new();
    evidence.extend(beat.sent_at.map(|at| {
        then(
            at,
            format!("It has sent {entry} {count} times within a minute, more than ten times its schedule."),
        )
    }));
    evidence.extend(queue.map(|queue| fact(format!("It sends it to queue {queue}."))));
    evidence.push(fact(
        "Celery 5.5 to 5.7 does so when it is started, or an entry is added, in the hour that an autumn night repeats, in a zone with daylight \
         saving time.",
    ));
    Explanation {
        summary: format!(
            "Celery Beat of {} floods {}: it sends {entry} over and over.",
            beat.name,
            queue.map_or("a queue".to_owned(), |queue| format!("queue {queue}"))
        ),
        evidence,
        repair: vec![
            Repair::command(
                "Stop it until the repeated hour is over.",
                Command::new("pkill -TERM -f 'celery.* beat'"),
            ),
            Repair::command(
                "Discard the messages that it sent. This discards all messages that wait in that queue, whoever sent them.",
                Command::new("celery -A")
                    .arg(beat.typed())
                    .words("purge -f -Q")
                    .item(queue.map_or("celery", String::as_str)),
            ),
            Repair::advice("Give the schedule a zone without daylight saving time, such as UTC."),
        ],
    }
}

fn skew(beat: &Beat) -> Explanation {
    let host = beat.host.as_deref().unwrap_or("its host");
    Explanation {
        summary: format!(
            "The clock of {host}, where Celery Beat of {} runs, is off.",
            beat.name
        ),
        evidence: beat
            .state
            .since
            .map(|at| {
                then(
                    at,
                    "Since then its clock has differed from this server's by ten seconds or more.",
                )
            })
            .into_iter()
            .collect(),
        repair: super::worker::set_the_clock(host),
    }
}
