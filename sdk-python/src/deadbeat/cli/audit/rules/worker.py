"""What is wrong with the workers and what they run."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Any

from deadbeat.cli.audit.finding import (
    CRITICAL,
    WARNING,
    Fact,
    Finding,
    Repair,
    Subject,
    Unknown,
    command,
    counted,
    listed,
    span,
)
from deadbeat.cli.audit.inspection import Sample
from deadbeat.cli.audit.observations import Observations, age, instant, running_seconds
from deadbeat.cli.audit.rules.configuration import CONSUMER_TIMEOUT_SECONDS
from deadbeat.integrations.celery.broker.queue import QueueSample
from deadbeat.integrations.celery.broker.workers import WorkerAnswer

# An idle worker beside a message that has waited for this long is no coincidence.
GHOST_SECONDS = 60.0
# Ending a task takes a moment, and clocks of two machines differ.
LIMIT_SLACK_SECONDS = 60.0


def findings(observed: Observations) -> Iterator[Finding]:
    """Faults of the workers behind a broker that answers."""
    for rule in (
        _workers,
        _ghosts,
        _prefetch_starvation,
        _duplicate_runs,
        _running_too_long,
        _redelivery,
        _consumer_timeout,
    ):
        yield from rule(observed)


def _workers(observed: Observations) -> Iterator[Finding]:
    sample, conf = observed.first, observed.application.app.conf
    silent = observed.silent_workers()
    known = listed([f"{row['name']} ({row['pool'] or 'unknown'} pool)" for row in silent])
    if sample.listeners is not None and sample.listeners > len(sample.workers):
        missing = sample.listeners - sum(max(w.answers.values(), default=0) for w in sample.workers.values())
        if missing > 0:
            why = f"{missing} of {sample.listeners} workers that are connected did not answer in time"
            why += f"; up according to the server: {known}" if silent else ""
            why += ". A solo worker answers when its task has ended; others are frozen or overloaded"
            observed.unknown.append(Unknown("some workers", why))
    elif silent:
        why = f"they report to the server, but the broadcast did not reach them: {known}"
        observed.unknown.append(Unknown("some workers", why))
    can_answer, unanswered = bool(conf.worker_enable_remote_control), observed.unanswered()
    if sample.complete is None and can_answer:
        _note_unanswered(observed, unanswered)
    if not (sample.workers or sample.listeners or silent or sample.unknown or sample.broker.blocked):
        if not can_answer:
            observed.unknown.append(Unknown("the workers", "worker_enable_remote_control is off"))
        elif sample.listeners == 0 or unanswered == {}:
            yield Finding(
                "NO_WORKERS",
                CRITICAL,
                Subject("broker", observed.last.broker.url),
                "No worker is connected: nothing runs.",
                [Fact("The broadcast reached nobody.")]
                if sample.listeners == 0
                else [Fact("Nobody answered, and no queue has a consumer.")],
                [Repair("Start one.", command("celery", "-A", observed.project, "worker"))],
            )
    for worker in sample.workers.values():
        if max(worker.answers.values(), default=0) > 1:
            yield Finding(
                "DUPLICATE_NODE_NAME",
                WARNING,
                Subject("worker", worker.name),
                "Two workers have one name: commands and figures for one reach the other.",
                [Fact(f"{max(worker.answers.values())} answers came under this name.")],
                [
                    Repair(
                        "Give each a name of its own.",
                        command("celery", "-A", observed.project, "worker", "-n", "w1@%h"),
                    )
                ],
            )


def _note_unanswered(observed: Observations, unanswered: dict[str, int] | None) -> None:
    """Where the broker does not say how many workers a broadcast reaches, compare its consumers."""
    sample = observed.first
    if sample.unknown:
        # They could not be asked, and `unknown` says so.
        return
    if sample.broker.blocked:
        why = "RabbitMQ accepts no messages, so the audit could not ask them"
        observed.unknown.append(Unknown("the workers", why))
    elif unanswered is None:
        transport = observed.last.broker.transport
        if sample.workers:
            why = f"{transport} does not show how many workers are connected"
            observed.unknown.append(Unknown("whether every worker answered", why))
        elif not observed.silent_workers():
            why = f"none answered, and {transport} does not show whether there are any"
            observed.unknown.append(Unknown("the workers", why))
    elif unanswered:
        more = listed([f"{counted(number, 'consumer')} of {queue}" for queue, number in unanswered.items()])
        why = f"{more} did not answer in time, or not as a Celery worker does"
        why += ". A solo worker answers when its task has ended; others are frozen or overloaded"
        observed.unknown.append(Unknown("some workers" if sample.workers else "the workers", why))


def _ghosts(observed: Observations) -> Iterator[Finding]:
    first, second = observed.first, observed.second
    if second is None:
        return
    for name, after in second.workers.items():
        before = first.workers.get(name)
        if before is None or before.stats is None or after.stats is None or before.pid != after.pid:
            continue
        # Idle in both samples, and it started nothing in between.
        if before.active != [] or after.active != [] or before.accepted != after.accepted:
            continue
        if before.reserved is None or after.reserved is None:
            continue
        held = _unlimited_ids(observed, before) & _unlimited_ids(observed, after)
        waiting = [queue for queue in _unmoved(observed) if queue.name in (before.queues or ())]
        idle = not before.reserved and not after.reserved
        if held:
            what = f"It has {counted(len(held), 'message')}, the same in both samples, and begins none."
        elif waiting and idle:
            what = f"Messages wait in {listed([q.name for q in waiting])}, and it receives none."
        else:
            continue
        oldest = max((queue.oldest_seconds or 0.0 for queue in waiting), default=0.0)
        standing = _standing_seconds(observed, name)
        certain = oldest >= GHOST_SECONDS or standing >= GHOST_SECONDS
        facts = [
            Fact(what),
            Fact(
                f"{after.processes or 'Its'} processes are free; {counted(after.accepted or 0, 'task')} begun"
                f" since its start, none in the {second.at - first.at:.1f} s between two samples."
            ),
        ]
        if oldest:
            facts.append(Fact(f"The oldest message has waited {span(oldest)}."))
        if standing >= GHOST_SECONDS:
            facts.append(Fact(f"According to the server it has made no progress for {span(standing)}."))
        if not certain:
            facts.append(Fact("Only a suspicion: two samples cover a short time. Audit again in a minute."))
        queues = ",".join(before.queues or ())
        yield Finding(
            "GHOST_WORKER",
            CRITICAL if certain else WARNING,
            Subject("worker", name),
            f"Worker {name} is connected and answers, but starts nothing although there is work.",
            facts,
            [
                Repair(
                    "End it; its messages go back to the queue. (It ends instead of replying.)",
                    command("celery", "-A", observed.project, "control", "shutdown", "-d", name),
                ),
                Repair(
                    "If it does not end, run this on its host.",
                    f"kill -9 {after.pid}" if after.pid else None,
                ),
                Repair(
                    "Start it again, or restart its service or container.",
                    command(
                        "celery",
                        "-A",
                        observed.project,
                        "worker",
                        "-n",
                        name,
                        *(["-Q", queues] if queues else []),
                    ),
                ),
            ],
        )


def _unlimited_ids(observed: Observations, worker: WorkerAnswer) -> set[str]:
    """Messages that it holds and could begin: a task with a rate limit may have to wait."""
    tasks, default = observed.application.app.tasks, observed.application.app.conf.task_default_rate_limit
    return {
        str(request.get("id"))
        for request in worker.reserved or ()
        if not (getattr(tasks.get(str(request.get("name"))), "rate_limit", None) or default)
    }


def _unmoved(observed: Observations) -> list[QueueSample]:
    """Queues in which messages waited in both samples, not fewer in the second."""
    found = []
    if observed.second is not None:
        for name, after in observed.second.broker.queues.items():
            before = observed.first.broker.queues.get(name)
            if before is not None and before.depth and after.depth and after.depth >= before.depth:
                found.append(after)
    return found


def _standing_seconds(observed: Observations, worker: str) -> float:
    """For how long the server has seen the worker make no progress although it has work."""
    for row in observed.knowledge.workers if observed.knowledge is not None else ():
        if row["name"] == worker and row["status"] == "up" and (row["reserved"] or 0) > 0:
            return age(observed, row["progress_at"])
    return 0.0


def _prefetch_starvation(observed: Observations) -> Iterator[Finding]:
    first, second = observed.first, observed.second
    if second is None:
        return
    names = [name for name in second.workers if name in first.workers]
    idle = [
        name
        for name in names
        if all(
            sample.workers[name].active == [] and sample.workers[name].reserved == []
            for sample in (first, second)
        )
    ]
    for name in names:
        before, after = first.workers[name], second.workers[name]
        held = _unlimited_ids(observed, before) & _unlimited_ids(observed, after)
        if not held or after.processes is None or len(after.active or ()) < after.processes:
            continue
        shared = [
            other
            for other in idle
            if set(first.workers[other].queues or ())
            & {_queue_of(r) for r in after.reserved or () if r.get("id") in held}
        ]
        if not shared:
            continue
        longest = _longest(observed, after)
        yield Finding(
            "PREFETCH_STARVATION",
            WARNING,
            Subject("worker", name),
            f"Worker {name} is busy and holds back {counted(len(held), 'message')} that others could run.",
            [
                Fact(
                    f"{len(after.active or ())} of {after.processes} processes are busy; it may prefetch "
                    f"{after.prefetch}."
                ),
                Fact(f"Idle, and consuming the same queue: {listed(shared)}."),
                *([Fact(f"{longest[0]} has been running for {span(longest[1])}.")] if longest else []),
            ],
            [
                Repair(
                    "Let it take one message for each process (needs a restart): "
                    "app.conf.worker_prefetch_multiplier = 1, or on the command line.",
                    command(
                        "celery", "-A", observed.project, "worker", "-n", name, "--prefetch-multiplier", "1"
                    ),
                ),
                Repair(
                    "For now, give it more processes, if the machine has room.",
                    command(
                        "celery", "-A", observed.project, "control", "pool_grow", str(len(held)), "-d", name
                    ),
                )
                if after.pool == "prefork"
                else Repair("Send long tasks to a queue of their own."),
            ],
        )


def _queue_of(request: dict[str, Any]) -> str:
    return str((request.get("delivery_info") or {}).get("routing_key"))


def _duplicate_runs(observed: Observations) -> Iterator[Finding]:
    samples = [sample for sample in (observed.first, observed.second) if sample is not None]
    # In both samples: within one, an end in one worker and a retry in another may coincide.
    if len(samples) < 2:
        return
    earlier, later = (_runs(sample) for sample in samples)
    for task_id, places in later.items():
        workers = sorted({worker for worker, _ in places})
        if len(places) < 2 or set(places) != set(earlier.get(task_id, ())):
            continue
        name = next(
            str(request.get("name"))
            for worker in samples[1].workers.values()
            for request in worker.active or ()
            if request.get("id") == task_id
        )
        timeout = observed.last.broker.visibility_timeout_seconds
        facts = [Fact(f"{name} {task_id} runs {len(places)} times at once, on {listed(workers)}.")]
        if timeout is not None:
            longest = max(running_seconds(observed, started) for _, started in places)
            facts.append(
                Fact(f"The first began {span(longest)} ago; the visibility timeout is {span(timeout)}.")
            )
        yield Finding(
            "DUPLICATE_RUN",
            CRITICAL,
            Subject("task", name),
            f"Several processes run one message of {name} at once.",
            facts,
            [
                Repair(
                    "See both.", command("celery", "-A", observed.project, "inspect", "query_task", task_id)
                ),
                Repair("Raise the visibility timeout (broker_transport_options) above the longest run.")
                if observed.last.broker.transport != "amqp"
                else Repair(
                    "RabbitMQ redelivers the messages of a lost connection or a closed channel: see its log."
                ),
            ],
        )


def _runs(sample: Sample) -> dict[str, list[tuple[str, float]]]:
    runs: dict[str, list[tuple[str, float]]] = {}
    for worker in sample.workers.values():
        for request in worker.active or ():
            if request.get("id") and request.get("time_start"):
                runs.setdefault(str(request["id"]), []).append((worker.name, float(request["time_start"])))
    return runs


def _running_too_long(observed: Observations) -> Iterator[Finding]:
    for worker in observed.last.workers.values():
        for request in worker.active or ():
            name, started = str(request.get("name")), request.get("time_start")
            limit = observed.application.hard_limit(observed.application.app.tasks.get(name))
            if limit is None or not isinstance(started, (int, float)):
                continue
            seconds = running_seconds(observed, started)
            if seconds <= limit + LIMIT_SLACK_SECONDS:
                continue
            yield Finding(
                "OVERRUN",
                CRITICAL,
                Subject("task", name),
                f"A run of {name} exceeds its hard time limit: nothing ends it.",
                [
                    Fact(
                        f"{request.get('id')} runs on {worker.name} for {span(seconds)}; "
                        f"its limit is {span(limit)}."
                    ),
                    Fact(f"The pool is {worker.pool}."),
                ],
                [
                    Repair(
                        "Restart that worker; in this pool no task can be ended alone."
                        if worker.pool != "prefork"
                        else "End it.",
                        command("celery", "-A", observed.project, "control", "shutdown", "-d", worker.name)
                        if worker.pool != "prefork"
                        else command(
                            "celery",
                            "-A",
                            observed.project,
                            "control",
                            "terminate",
                            "KILL",
                            str(request.get("id")),
                        ),
                    )
                ],
            )


def _redelivery(observed: Observations) -> Iterator[Finding]:
    broker, tasks = observed.last.broker, observed.application.app.tasks
    timeout = broker.visibility_timeout_seconds
    if timeout is None:
        return
    for worker in observed.last.workers.values():
        for request in worker.active or ():
            name, started = str(request.get("name")), request.get("time_start")
            if request.get("acknowledged") or not getattr(tasks.get(name), "acks_late", False):
                continue
            if isinstance(started, (int, float)) and running_seconds(observed, started) > timeout:
                yield Finding(
                    "CONFIG_VISIBILITY_TIMEOUT",
                    CRITICAL,
                    Subject("task", name),
                    f"A run of {name} exceeds the visibility timeout: Redis redelivers its message.",
                    [
                        Fact(
                            f"{request.get('id')} runs on {worker.name} for "
                            f"{span(running_seconds(observed, started))}; the visibility timeout is "
                            f"{span(timeout)}."
                        )
                    ],
                    [
                        Repair(
                            "Raise the visibility timeout (broker_transport_options) above the longest run."
                        )
                    ],
                )
    far = _held_beyond(observed, timeout)
    if far:
        eta, name, holder = max(far)
        yield Finding(
            "CONFIG_VISIBILITY_TIMEOUT",
            WARNING,
            Subject("task", name),
            "Tasks have an ETA beyond the visibility timeout: each is redelivered before it is due, "
            "and may run several times.",
            [
                Fact(f"{counted(len(far), 'task')} with an ETA over {span(timeout)} from now."),
                Fact(f"The last is {name}, for {eta:%Y-%m-%d %H:%M:%S} UTC, held by {holder}."),
            ],
            [
                Repair("Raise the visibility timeout (broker_transport_options) above the longest delay."),
                Repair("Or let Beat send such tasks when they are due."),
            ],
        )


def _consumer_timeout(observed: Observations) -> Iterator[Finding]:
    far = _held_beyond(observed, CONSUMER_TIMEOUT_SECONDS)
    if observed.last.broker.transport != "amqp" or not far:
        return
    eta, name, holder = max(far)
    yield Finding(
        "CONFIG_CONSUMER_TIMEOUT",
        WARNING,
        Subject("task", name),
        "Tasks have an ETA beyond RabbitMQ's consumer_timeout: it then closes the worker's channel, "
        "which ends the worker, and redelivers all its messages.",
        [
            Fact(f"{counted(len(far), 'task')} with an ETA over {span(CONSUMER_TIMEOUT_SECONDS)} from now."),
            Fact(f"The last is {name}, for {eta:%Y-%m-%d %H:%M:%S} UTC, held by {holder}."),
            Fact(f"{span(CONSUMER_TIMEOUT_SECONDS)} is RabbitMQ's default; it does not show its setting."),
        ],
        [
            Repair(
                "Find out its setting.", "rabbitmqctl eval 'application:get_env(rabbit, consumer_timeout).'"
            ),
            Repair("Raise it above the longest delay (consumer_timeout in rabbitmq.conf, in milliseconds)."),
            Repair("Or let Beat send such tasks when they are due."),
        ],
    )


def _held_beyond(observed: Observations, seconds: float) -> list[tuple[datetime, str, str]]:
    """Messages that workers hold for an ETA further away than that: when, which task, which worker."""
    far = []
    for worker in observed.first.workers.values():
        for item in worker.scheduled or ():
            eta = instant(item.get("eta"))
            if eta is not None and eta - observed.now > timedelta(seconds=seconds):
                far.append((eta, str((item.get("request") or {}).get("name")), worker.name))
    return far


def _longest(observed: Observations, worker: WorkerAnswer) -> tuple[str, float] | None:
    running = [
        (float(request["time_start"]), str(request.get("name")))
        for request in worker.active or ()
        if isinstance(request.get("time_start"), (int, float))
    ]
    if not running:
        return None
    started, name = min(running)
    return name, running_seconds(observed, started)
