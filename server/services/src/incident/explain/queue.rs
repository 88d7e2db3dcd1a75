//! Explains why messages wait in a queue.

use chrono::TimeDelta;
use deadbeat_domain::incident::cause::Cause;
use deadbeat_domain::incident::command::Command;
use deadbeat_domain::incident::{Fact, Repair};
use deadbeat_domain::monitor::status::Status;
use deadbeat_store::celery::queue::Queue;
use deadbeat_store::celery::worker::Worker;

use super::{Explanation, fact, then, words};

/// Explains the fault of a queue.
#[must_use]
pub fn of_queue(queue: &Queue, workers: &[Worker], cause: Cause) -> Explanation {
    let name = &queue.name;
    let app = workers.first().map_or(queue.app.as_str(), Worker::typed);
    let celery = || Command::new("celery -A").arg(app);
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
    evidence.push(if let Some(count) = queue.consumers {
        then(
            queue.seen_at,
            format!("The broker names {count} consumers of {name}."),
        )
    } else if let Some(since) = queue.flow.head_since.filter(|_| cause == Cause::QueueUnconsumed) {
        then(
            since,
            format!("Since then the same message is the next one of {name}: nobody receives messages."),
        )
    } else {
        fact("This broker does not report the consumers of a queue.")
    });
    if up.is_empty() {
        evidence.push(Fact {
            at: Some(queue.seen_at),
            fact: "No worker of this application is up.".to_owned(),
        });
    }
    let start = Repair::command(
        "Or start a worker for it.",
        celery().words("worker -Q").item(name),
    );
    let (summary, repair) = if cause == Cause::QueueSlaBreach {
        (
            format!("Messages wait too long in queue {name}: it is consumed, but not fast enough."),
            vec![
                Repair::command(
                    "See which tasks its workers execute.",
                    celery().words("inspect active"),
                ),
                give_processes(up.iter().find(|worker| worker.queues.contains(name)), celery()),
                start,
            ],
        )
    } else {
        let mut repair: Vec<Repair> = up
            .iter()
            .find(|worker| worker.app == queue.app)
            .map(|worker| {
                Repair::command(
                    format!("Have {} consume it, until it is restarted.", worker.name),
                    celery()
                        .words("control add_consumer")
                        .arg(name)
                        .words("-d")
                        .item(&worker.name),
                )
            })
            .into_iter()
            .collect();
        repair.push(start);
        repair.push(Repair::advice(
            "If no task should go there, correct task_routes or the queue of its Beat entry.",
        ));
        (
            // RabbitMQ counts consumers. Of other brokers, Deadbeat only knows that no message leaves the queue.
            match queue.consumers {
                Some(0) => format!("Nobody consumes queue {name}: {} messages wait.", queue.depth),
                _ => format!(
                    "Nobody seems to consume queue {name}: {} messages wait.",
                    queue.depth
                ),
            },
            repair,
        )
    };
    Explanation {
        summary,
        evidence,
        repair,
    }
}

/// Gives an existing worker more processes.
fn give_processes(worker: Option<&&Worker>, celery: Command) -> Repair {
    let text = "Give a worker more processes (prefork and gevent), if its host has room for them.";
    match worker {
        Some(worker) => Repair::command(text, celery.words("control pool_grow 2 -d").item(&worker.name)),
        None => Repair::advice(text),
    }
}
