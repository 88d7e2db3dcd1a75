//! Repairs for a monitor, with the commands to type.

use chrono::TimeDelta;
use deadbeat_domain::incident::Repair;
use deadbeat_domain::incident::cause::Cause;
use deadbeat_domain::incident::command::Command;
use deadbeat_domain::monitor::ping::Signal;
use deadbeat_domain::monitor::status::Status;
use deadbeat_store::monitor::Monitor;

use super::contested;
use crate::incident::changed::Background;
use crate::incident::explain::load;

/// Returns the repairs for a monitor.
pub(super) fn repair(
    monitor: &Monitor,
    background: &Background<'_>,
    signal: Option<&Signal>,
    cause: Cause,
) -> Vec<Repair> {
    let Some(beat) = background.beat else {
        return of_a_job(monitor, cause);
    };
    let celery = |words: &'static str| Command::new("celery -A").arg(beat.typed()).words(words);
    let task_id = signal
        .and_then(|signal| signal.detail.run.task_id.as_ref())
        .or_else(|| {
            let newest = || monitor.state.runs.iter().max_by_key(|run| run.started_at);
            contested(&monitor.state).or_else(newest)?.detail.task_id.as_ref()
        });
    let task_id = task_id.or_else(|| background.stage.and_then(|stage| stage.task_id.as_ref()));
    let task = monitor
        .registered
        .as_ref()
        .and_then(|registered| registered.get("task")?.as_str());
    let send_again = task.map(|task| {
        Repair::command(
            "Send it again, if it cannot wait for its next slot (arguments: -a, -k; queue: --queue).",
            celery("call").arg(task),
        )
    });
    let worker = background.stage.and_then(|stage| stage.worker.as_deref());
    let mut repair = match cause {
        Cause::LostInBroker => vec![Repair::command(
            "Keep Redis from discarding messages (and give it enough memory).",
            Command::new("redis-cli config set maxmemory-policy noeviction"),
        )],
        Cause::BrokerDown => vec![Repair::command(
            "Check on Beat's host whether it can reach the broker.",
            celery("inspect ping"),
        )],
        Cause::BeatStalled | Cause::Unknown => vec![
            Repair::command(
                "See whether Beat still sends.",
                Command::new("journalctl -u celery-beat --since -15min"),
            ),
            Repair::command(
                "See which queues have workers; the task's own must be among them.",
                celery("inspect active_queues"),
            ),
        ],
        Cause::ScheduleReset => vec![
            Repair::command(
                "Start Beat with its schedule file on storage that survives a deployment.",
                celery("beat --schedule /var/lib/celery/celerybeat-schedule"),
            ),
            Repair::advice(
                "Or use a crontab schedule, which counts from the clock and not from Beat's start.",
            ),
        ],
        Cause::QueueSlaBreach => vec![
            Repair::command("See what the workers are busy with.", celery("inspect active")),
            match background
                .workers
                .iter()
                .find(|worker| worker.state.status == Status::Up)
            {
                Some(worker) => Repair::command(
                    "Give a worker more processes (prefork and gevent), if its host has room for them.",
                    celery("control pool_grow 2 -d").item(&worker.name),
                ),
                None => Repair::advice("Start another worker for its queue."),
            },
        ],
        Cause::RateLimited => {
            let mut repair = Vec::new();
            if let Some(task) = task {
                repair.push(Repair::command(
                    "Remove the limit in all workers, until they restart.",
                    celery("control rate_limit").arg(task).words("0"),
                ));
            }
            repair.push(Repair::advice(
                "If the limit is intended: let Beat send the task less often than the limit, or raise the limit (rate_limit of the task).",
            ));
            repair
        }
        Cause::HostOverloaded => load::repair(background),
        Cause::PrefetchStarvation => {
            let mut repair = vec![Repair::command(
                "See which tasks it executes.",
                match worker {
                    Some(worker) => celery("inspect active -d").item(worker),
                    None => celery("inspect active"),
                },
            )];
            repair.push(Repair::advice(
                "Let each worker take one message a process: worker_prefetch_multiplier = 1, and for long tasks task_acks_late = True.",
            ));
            repair
        }
        Cause::WorkerLost | Cause::WorkerKilled => vec![
            Repair::command(
                "See whether the kernel killed it.",
                Command::new("journalctl -k --grep 'Killed process' --since -1h"),
            ),
            Repair::advice(
                "If memory ran out: set worker_max_memory_per_child, use fewer processes, or add memory.",
            ),
        ],
        Cause::DuplicateRun => vec![
            Repair::advice(
                "Raise the visibility timeout above the longest run and the furthest ETA: broker_transport_options = {'visibility_timeout': …}.",
            ),
            Repair::command("See where it runs.", celery("inspect active")),
        ],
        Cause::RedeliveryLoop => {
            let mut repair = Vec::new();
            if let Some(id) = task_id {
                repair.push(Repair::command(
                    "Take the message out of the loop.",
                    celery("control revoke").arg(id),
                ));
            }
            repair.push(Repair::command(
                "See what kills it.",
                Command::new("journalctl -k --grep 'Killed process' --since -1h"),
            ));
            repair
        }
        Cause::TimeLimit => vec![
            Repair::advice("Make it faster or split it, or raise its time_limit and soft_time_limit."),
            Repair::command("See what else runs.", celery("inspect active")),
        ],
        Cause::Expired => vec![
            Repair::command("See why it had to wait.", celery("inspect active")),
            Repair::advice("Or give it more time: the expires option of its Beat entry."),
        ],
        Cause::Revoked => vec![Repair::command("See what is revoked.", celery("inspect revoked"))],
        Cause::Rejected if signal.is_some_and(|signal| signal.detail.run.attempt.is_none()) => vec![
            Repair::command("See which tasks the workers know.", celery("inspect registered")),
            Repair::advice(
                "Deploy workers and Beat from one release, and let accept_content include the format in which Beat sends (task_serializer).",
            ),
        ],
        Cause::Failed | Cause::RetriesExhausted | Cause::Rejected => {
            vec![Repair::advice(
                "Read the worker's log at that time for the traceback.",
            )]
        }
        Cause::Overrun => {
            let mut repair = vec![Repair::command(
                "See whether the run is still alive, and where.",
                celery("inspect active"),
            )];
            if let Some(id) = task_id {
                repair.push(Repair::command(
                    "End it, if it hangs.",
                    celery("control terminate KILL").arg(id),
                ));
            }
            repair
        }
        Cause::TooFast => vec![Repair::advice(
            "Check the result of the run: it may have found nothing to do, or given up early.",
        )],
        _ => vec![
            Repair::command(
                "See which queues have workers; the task's own must be among them.",
                celery("inspect active_queues"),
            ),
            Repair::command("See what the workers are busy with.", celery("inspect active")),
        ],
    };
    let ran = matches!(
        cause,
        Cause::DuplicateRun
            | Cause::RedeliveryLoop
            | Cause::Overrun
            | Cause::TooFast
            | Cause::QueueSlaBreach
            | Cause::RateLimited
            | Cause::HostOverloaded
            | Cause::PrefetchStarvation
    );
    if !ran {
        repair.extend(send_again);
    }
    repair
}

/// Returns the repairs for a job that no Beat sends.
fn of_a_job(monitor: &Monitor, cause: Cause) -> Vec<Repair> {
    let state = &monitor.state;
    match cause {
        Cause::Overrun => vec![Repair::advice(
            "See on its host whether the job hangs; if it is just slow, raise its longest run.",
        )],
        Cause::Failed if monitor.entry.is_some() => {
            vec![Repair::advice(
                "Read the worker's log at that time for the traceback.",
            )]
        }
        Cause::Failed => vec![Repair::advice(
            "Read the body of the last ping, and the job's own log.",
        )],
        _ => {
            let see = "See on its host whether the job was started, and whether it can reach this server.";
            vec![match state.next_due_at {
                Some(due) => {
                    let from = (due - TimeDelta::minutes(5)).format("%Y-%m-%d %H:%M:%S UTC");
                    Repair::command(
                        see,
                        Command::new("journalctl -u cron --since").arg(&from.to_string()),
                    )
                }
                None => Repair::advice(see),
            }]
        }
    }
}
