//! Why something went wrong, in words: the summary, the evidence and the repair of an incident.

use chrono::{DateTime, TimeDelta, Utc};
use deadbeat_domain::cause::Cause;
use deadbeat_domain::incident::{Fact, Repair};
use deadbeat_domain::ping::Signal;
use deadbeat_domain::run::RunStatus;
use deadbeat_domain::status::Status;
use deadbeat_store::beat::Beat;
use deadbeat_store::broker::Broker;
use deadbeat_store::monitor::Monitor;
use deadbeat_store::queue::Queue;
use deadbeat_store::stage::Stage;
use deadbeat_store::worker::Worker;
use serde_json::Value;

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
    stage: Option<&Stage>,
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
        Cause::Missed
        | Cause::BeatDown
        | Cause::WorkerLost
        | Cause::QueueUnconsumed
        | Cause::QueueSlaBreach
        | Cause::BrokerDown => {
            if let Some(due) = state.next_due_at {
                evidence.push(Fact {
                    at: Some(due),
                    fact: format!(
                        "A report was due, and {} of grace passed.",
                        words(state.expectation.grace())
                    ),
                });
                evidence.extend(stage.into_iter().flat_map(|stage| how_far(stage, due)));
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
        (
            Some(app),
            Cause::Missed
            | Cause::BeatDown
            | Cause::WorkerLost
            | Cause::QueueUnconsumed
            | Cause::QueueSlaBreach
            | Cause::BrokerDown,
        ) => vec![
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
        (
            None,
            Cause::Missed
            | Cause::BeatDown
            | Cause::WorkerLost
            | Cause::QueueUnconsumed
            | Cause::QueueSlaBreach
            | Cause::BrokerDown,
        ) => vec![Repair {
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

/// How far the run got that was due then.
fn how_far(stage: &Stage, due: DateTime<Utc>) -> Vec<Fact> {
    // Beat may send a little early, and clocks differ.
    let since_due = |at: DateTime<Utc>| at >= due - TimeDelta::seconds(5);
    let Some(sent) = stage.published_at.filter(|at| since_due(*at)) else {
        return vec![Fact {
            at: stage.published_at,
            fact: "Beat sent its last run before that, and none since.".to_owned(),
        }];
    };
    let queue = match &stage.queue {
        Some(queue) => format!(" to queue {queue}"),
        None => String::new(),
    };
    let taken = match (stage.received_at, &stage.worker) {
        (Some(at), Some(worker)) => Fact {
            at: Some(at),
            fact: format!("{worker} took it from the queue, and has not begun it."),
        },
        (Some(at), None) => Fact {
            at: Some(at),
            fact: "A worker took it from the queue, and has not begun it.".to_owned(),
        },
        (None, _) => Fact {
            at: None,
            fact: "No worker has taken it, as far as is known.".to_owned(),
        },
    };
    vec![
        Fact {
            at: Some(sent),
            fact: format!("It was sent{queue}."),
        },
        taken,
    ]
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

/// Explains why a worker is down.
#[must_use]
pub fn of_worker(worker: &Worker) -> Explanation {
    let state = &worker.state;
    let (name, app) = (&worker.name, &worker.app);
    let said = |field: &str| worker.snapshot.get(field);
    let count = |field: &str| said(field).and_then(Value::as_i64);
    let host = said("host").and_then(Value::as_str).unwrap_or("its host");
    let mut evidence = Vec::new();
    if let Some(seen) = state.last_seen_at {
        evidence.push(Fact {
            at: Some(seen),
            fact: format!("It was last heard from, on {host}, without a word of stopping."),
        });
        if let Some(reserved) = count("reserved").filter(|reserved| *reserved > 0) {
            evidence.push(Fact {
                at: Some(seen),
                fact: format!(
                    "It held {reserved} messages, {} of them running. Those that were acknowledged early are gone; the others come back \
                     when the broker's visibility timeout has passed.",
                    count("active").unwrap_or(0)
                ),
            });
        }
        if let Some(task) = said("longest").and_then(|longest| longest.get("task")?.as_str()) {
            evidence.push(Fact {
                at: Some(seen),
                fact: format!("The task that had been running longest was {task}."),
            });
        }
    }
    if !worker.queues.is_empty() {
        evidence.push(Fact {
            at: None,
            fact: format!("It consumed {}.", worker.queues.join(", ")),
        });
    }
    evidence.push(Fact {
        at: None,
        fact: format!(
            "It says every {} how it is; {} of silence are tolerated beyond that.",
            words(deadbeat_domain::time::span(state.period_seconds)),
            words(deadbeat_domain::time::span(state.grace_seconds))
        ),
    });
    let node = shell_word(name);
    let queues = match worker.queues.as_slice() {
        [] => String::new(),
        queues => format!(" -Q {}", shell_word(&queues.join(","))),
    };
    Explanation {
        summary: match state.last_seen_at {
            Some(seen) => format!("Worker {name} is gone since {}: it said no goodbye.", clock(seen)),
            None => format!("Worker {name} is gone: it said no goodbye."),
        },
        evidence,
        repair: vec![
            Repair {
                text: format!("See on {host} whether the kernel killed it."),
                command: Some("journalctl -k --grep 'Killed process' --since -1h".to_owned()),
            },
            Repair {
                text: "Start it again (or restart its service or container).".to_owned(),
                command: Some(format!("celery -A {} worker -n {node}{queues}", shell_word(app))),
            },
        ],
    }
}

/// Explains what is wrong with a queue.
#[must_use]
pub fn of_queue(queue: &Queue, workers: &[Worker], cause: Cause) -> Explanation {
    let (name, app) = (&queue.name, shell_word(&queue.app));
    let up: Vec<&Worker> = workers
        .iter()
        .filter(|worker| worker.state.status == Status::Up)
        .collect();
    let mut evidence = vec![Fact {
        at: Some(queue.seen_at),
        fact: match queue.oldest_seconds {
            Some(seconds) => format!(
                "{} messages wait in {name}; the oldest has waited {}.",
                queue.depth,
                words(TimeDelta::seconds(seconds as i64))
            ),
            None => format!("{} messages wait in {name}.", queue.depth),
        },
    }];
    if let Some(task) = &queue.oldest_task {
        evidence.push(Fact {
            at: Some(queue.seen_at),
            fact: format!("The oldest is for the task {task}."),
        });
    }
    for worker in up.iter().take(10) {
        evidence.push(Fact {
            at: worker.state.last_seen_at,
            fact: match worker.queues.as_slice() {
                [] => format!("{} is up and consumes no queue.", worker.name),
                queues => format!("{} is up and consumes {}.", worker.name, queues.join(", ")),
            },
        });
    }
    if up.is_empty() {
        evidence.push(Fact {
            at: Some(queue.seen_at),
            fact: "No worker of this application is up.".to_owned(),
        });
    }
    let queue_word = shell_word(name);
    let start = Repair {
        text: "Or start a worker for it.".to_owned(),
        command: Some(format!("celery -A {app} worker -Q {queue_word}")),
    };
    let (summary, repair) = if cause == Cause::QueueSlaBreach {
        (
            format!("Messages wait too long in queue {name}: it is consumed, but not fast enough."),
            vec![
                Repair {
                    text: "See what its workers are busy with.".to_owned(),
                    command: Some(format!("celery -A {app} inspect active")),
                },
                Repair {
                    text: "Give them more processes, where the machine bears it.".to_owned(),
                    command: Some(format!("celery -A {app} control pool_grow 2")),
                },
                start,
            ],
        )
    } else {
        let mut repair: Vec<Repair> = up
            .first()
            .map(|worker| Repair {
                text: format!("Have {} consume it, until it is restarted.", worker.name),
                command: Some(format!(
                    "celery -A {app} control add_consumer {queue_word} -d {}",
                    shell_word(&worker.name)
                )),
            })
            .into_iter()
            .collect();
        repair.push(start);
        repair.push(Repair {
            text: "If no task should go there, correct task_routes or the queue of its Beat entry."
                .to_owned(),
            command: None,
        });
        (
            format!(
                "Nobody consumes queue {name}: {} messages wait for ever.",
                queue.depth
            ),
            repair,
        )
    };
    Explanation {
        summary,
        evidence,
        repair,
    }
}

/// Explains that a broker is away.
#[must_use]
pub fn of_broker(broker: &Broker, now: DateTime<Utc>) -> Explanation {
    let said = |field: &str| broker.sample.as_ref()?.get(field)?.as_str().map(str::to_owned);
    let transport = said("transport").unwrap_or_else(|| "broker".to_owned());
    let mut evidence = vec![Fact {
        at: broker.state.since,
        fact: format!(
            "{} could not reach it{}.",
            said("worker").unwrap_or_else(|| "A worker".to_owned()),
            said("error")
                .map(|error| format!(": {error}"))
                .unwrap_or_default()
        ),
    }];
    if let Some(at) = broker.sampled_at {
        evidence.push(Fact {
            at: Some(at),
            fact: "The last try failed, too.".to_owned(),
        });
    }
    let command = match transport.as_str() {
        "redis" | "rediss" => Some("redis-cli ping".to_owned()),
        "amqp" | "amqps" | "py-amqp" => Some("rabbitmq-diagnostics check_running".to_owned()),
        _ => None,
    };
    Explanation {
        summary: format!(
            "The broker of {} is away since {}: nothing is sent, and nothing is taken.",
            broker.app,
            clock(broker.state.since.unwrap_or(now))
        ),
        evidence,
        repair: vec![Repair {
            text: "See on its host whether it runs and answers; its memory and its disk may be full."
                .to_owned(),
            command,
        }],
    }
}

/// A word as a shell reads it: quoted where it must be. Names come from clients, and repairs are pasted.
fn shell_word(text: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "@%_-+=:,./".contains(c);
    if !text.is_empty() && text.chars().all(plain) {
        text.to_owned()
    } else {
        format!("'{}'", text.replace('\'', r"'\''"))
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
