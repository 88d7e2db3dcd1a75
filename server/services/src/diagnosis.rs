//! Why something went wrong, in words: the summary, the evidence and the repair of an incident.

use chrono::{DateTime, TimeDelta, Utc};
use deadbeat_domain::cause::Cause;
use deadbeat_domain::incident::{Fact, Repair};
use deadbeat_domain::ping::Signal;
use deadbeat_domain::run::RunStatus;
use deadbeat_store::beat::Beat;
use deadbeat_store::monitor::Monitor;

/// What an incident says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Explanation {
    /// One sentence.
    pub summary: String,
    /// Facts with times.
    pub evidence: Vec<Fact>,
    /// What to do, most likely first.
    pub repair: Vec<Repair>,
}

/// Explains why a monitor is down: silence, or the signal that said so.
#[must_use]
pub fn of_monitor(
    monitor: &Monitor,
    beat: Option<&str>,
    signal: Option<&Signal>,
    cause: Cause,
    now: DateTime<Utc>,
) -> Explanation {
    let state = &monitor.state;
    let name = &monitor.name;
    let mut evidence = vec![Fact {
        at: None,
        fact: format!("It is expected {}.", state.expectation.schedule.summary()),
    }];
    let summary = match cause {
        Cause::Missed | Cause::BeatDown => {
            if let Some(due) = state.next_due_at {
                evidence.push(Fact {
                    at: Some(due),
                    fact: format!(
                        "A report was due, and {} of grace passed.",
                        words(state.expectation.grace())
                    ),
                });
                format!("{name} did not report: it was due at {}.", clock(due))
            } else {
                format!("{name} did not report.")
            }
        }
        Cause::Failed => {
            let how = match signal.map(|signal| (signal.exit_code, &signal.detail.error)) {
                Some((Some(code), _)) => format!(" with exit code {code}"),
                Some((None, Some(error))) => format!(" with {error}"),
                Some((None, None)) | None => String::new(),
            };
            let at = signal.map_or(now, |signal| signal.occurred_at);
            evidence.push(Fact {
                at: Some(at),
                fact: format!("A failure{how} was reported."),
            });
            format!("{name} failed{how}.")
        }
        Cause::Overrun => {
            let over = state.runs.iter().filter(|run| run.status == RunStatus::Overrun);
            let started = over.filter_map(|run| run.started_at).min();
            evidence.push(Fact {
                at: started,
                fact: format!(
                    "A run started and has not ended; {} are allowed.",
                    words(state.expectation.longest_run())
                ),
            });
            match started {
                Some(started) => format!(
                    "{name} has been running since {}, longer than allowed.",
                    clock(started)
                ),
                None => format!("{name} has been running longer than allowed."),
            }
        }
    };
    evidence.push(match state.last_success_at {
        Some(at) => Fact {
            at: Some(at),
            fact: "The last success was reported.".to_owned(),
        },
        None => Fact {
            at: None,
            fact: "No success was ever reported.".to_owned(),
        },
    });

    let command = |text: &str, command: String| Repair {
        text: text.to_owned(),
        command: Some(command),
    };
    let repair = match (beat, cause) {
        (Some(app), Cause::Missed | Cause::BeatDown) => vec![
            command(
                "See which queues have workers; the task's own must be among them.",
                format!("celery -A {app} inspect active_queues"),
            ),
            command(
                "See what the workers are busy with.",
                format!("celery -A {app} inspect active"),
            ),
        ],
        (Some(app), Cause::Overrun) => {
            vec![command(
                "See whether the run is still alive, and where.",
                format!("celery -A {app} inspect active"),
            )]
        }
        (_, Cause::Failed) if monitor.entry.is_some() => {
            vec![Repair {
                text: "Read the worker's log at that time for the traceback.".to_owned(),
                command: None,
            }]
        }
        (None, Cause::Missed | Cause::BeatDown) => vec![Repair {
            text: "See on its host whether the job was started, and whether it can reach this server."
                .to_owned(),
            command: state.next_due_at.map(|due| {
                format!(
                    "journalctl -u cron --since '{} UTC'",
                    (due - TimeDelta::minutes(5)).format("%Y-%m-%d %H:%M:%S")
                )
            }),
        }],
        (None, Cause::Overrun) => vec![Repair {
            text: "See on its host whether the job hangs; if it is just slow, raise its longest run."
                .to_owned(),
            command: None,
        }],
        (_, Cause::Failed) => vec![Repair {
            text: "Read the body of the last ping, and the job's own log.".to_owned(),
            command: None,
        }],
    };
    Explanation {
        summary,
        evidence,
        repair,
    }
}

/// Explains why a Beat is down.
#[must_use]
pub fn of_beat(beat: &Beat) -> Explanation {
    let state = &beat.state;
    let name = &beat.name;
    let host = beat.host.as_deref().unwrap_or("its host");
    let since = state.last_seen_at.map(clock);
    let mut evidence = Vec::new();
    if let Some(seen) = state.last_seen_at {
        evidence.push(Fact {
            at: Some(seen),
            fact: format!("Beat of {name} on {host} was last heard from."),
        });
    }
    evidence.push(Fact {
        at: None,
        fact: format!(
            "It says every {} that it ticks; {} of silence are tolerated beyond that.",
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
            Repair {
                text: format!("See on {host} whether Beat runs."),
                command: Some("pgrep -af 'celery.* beat'".to_owned()),
            },
            Repair {
                text: "Start it again (or restart its service or container).".to_owned(),
                command: Some(format!("celery -A {name} beat")),
            },
        ],
    }
}

fn clock(at: DateTime<Utc>) -> String {
    at.format("%Y-%m-%d %H:%M:%S UTC").to_string()
}

/// A duration in words: `90 s`, `5 min`, `2 h`, `3 d`.
fn words(span: TimeDelta) -> String {
    let seconds = span.num_milliseconds() as f64 / 1000.0;
    match seconds {
        s if s >= 172_800.0 && s % 86_400.0 == 0.0 => format!("{} d", s / 86_400.0),
        s if s >= 7_200.0 && s % 3_600.0 == 0.0 => format!("{} h", s / 3_600.0),
        s if s >= 120.0 && s % 60.0 == 0.0 => format!("{} min", s / 60.0),
        s => format!("{s} s"),
    }
}
