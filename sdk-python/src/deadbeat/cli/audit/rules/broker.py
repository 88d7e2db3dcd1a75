"""What is wrong with the broker and its queues."""

from __future__ import annotations

from collections.abc import Iterator
from urllib.parse import urlsplit

from deadbeat.cli.audit.finding import (
    CRITICAL,
    NOTICE,
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
from deadbeat.cli.audit.observations import Observations, age
from deadbeat.integrations.celery.broker.queue import QueueSample

# As the server's own rule: server/domain/src/celery/queue.rs.
SLA_SECONDS = 600.0
# The server gets a sample every ten seconds; an older one says nothing about now.
SAMPLE_SECONDS = 20.0
# Shares of maxmemory.
MEMORY_WARNING, MEMORY_CRITICAL = 0.80, 0.95


def findings(observed: Observations) -> Iterator[Finding]:
    """The faults of a broker that answers."""
    yield from _redis(observed)
    yield from _rabbitmq(observed)
    yield from _queues(observed)


def unreachable(observed: Observations) -> Iterator[Finding]:
    """The fault of a broker that does not answer: it is away, or only out of this machine's reach."""
    broker = observed.last.broker
    known = observed.knowledge.broker if observed.knowledge is not None else None
    if broker.reachable is None:
        observed.unknown.append(Unknown("the broker", f"{broker.url}: {broker.error}"))
        return
    if known is not None and known["reachable"] and age(observed, known["sampled_at"]) <= SAMPLE_SECONDS:
        why = (
            f"this machine cannot reach {broker.url} ({broker.error}), but {known['sampler'] or 'a worker'}"
            f" reached it {span(age(observed, known['sampled_at']))} ago"
        )
        observed.unknown.append(Unknown("the broker", why))
        return
    yield Finding(
        "BROKER_DOWN",
        CRITICAL,
        Subject("broker", broker.url),
        "The broker does not answer: nothing is sent, and nothing is received.",
        [Fact(f"From this machine: {broker.error}.")],
        [
            Repair(
                "Check on its host whether it runs and answers; its memory or its disk may be full.",
                _ping_command(broker.url),
            )
        ],
    )


def _ping_command(url: str) -> str | None:
    if url.startswith("redis"):
        return f"{_redis_cli(url)} ping"
    return "rabbitmq-diagnostics check_running" if url.startswith(("amqp", "pyamqp")) else None


def _redis_cli(url: str) -> str:
    parts = urlsplit(url)
    words = ["redis-cli", "-h", parts.hostname or "localhost", "-p", str(parts.port or 6379)]
    return command(*words, *(["--tls"] if parts.scheme == "rediss" else []))


def _redis(observed: Observations) -> Iterator[Finding]:
    broker = observed.last.broker
    if broker.transport != "redis":
        return
    subject, policy, most = Subject("broker", broker.url), broker.maxmemory_policy, broker.maxmemory
    if policy is None:
        why = "Redis forbids INFO, so its maxmemory_policy is unknown"
        observed.unknown.append(Unknown("whether the broker may evict messages", why))
    elif policy.startswith("allkeys") and most:
        evicted = broker.evicted_keys or 0
        yield Finding(
            "CONFIG_EVICTION",
            CRITICAL if evicted else WARNING,
            subject,
            "When its memory is full, Redis silently deletes queued messages.",
            [
                Fact(f"maxmemory_policy is {policy}, maxmemory {most:,} bytes."),
                Fact(f"{counted(evicted, 'key')} evicted since its start."),
            ],
            [
                Repair(
                    "Refuse new messages instead, and set the same in redis.conf.",
                    f"{_redis_cli(broker.url)} config set maxmemory-policy noeviction",
                )
            ],
        )
    elif policy != "noeviction":
        yield Finding(
            "CONFIG_EVICTION",
            NOTICE,
            subject,
            "Results may be evicted before they expire."
            if policy.startswith("volatile")
            else "With a maxmemory, Redis would delete queued messages.",
            [Fact(f"maxmemory_policy is {policy}, maxmemory {most or 'not set'}.")],
            [
                Repair(
                    "Set the same in redis.conf.",
                    f"{_redis_cli(broker.url)} config set maxmemory-policy noeviction",
                )
            ],
        )
    share = (broker.used_memory or 0) / most if most else 0.0
    if most and share >= MEMORY_WARNING and policy == "noeviction":
        yield Finding(
            "BROKER_MEMORY",
            CRITICAL if share >= MEMORY_CRITICAL else WARNING,
            subject,
            "When its memory is full, Redis refuses every new message.",
            [Fact(f"{broker.used_memory:,} of {most:,} bytes are used ({share:.0%}).")],
            [
                Repair("Find out what fills it.", f"{_redis_cli(broker.url)} --memkeys"),
                Repair(
                    "Give it more memory, and set the same in redis.conf.",
                    f"{_redis_cli(broker.url)} config set maxmemory {most * 2}",
                ),
            ],
        )
    if broker.persistent is False:
        yield Finding(
            "CONFIG_PERSISTENCE",
            NOTICE,
            subject,
            "A restart of Redis loses every queued message: it writes nothing to disk.",
            [Fact("appendonly is off and save is empty.")],
            [
                Repair(
                    "If messages must survive a restart, run this and set the same in redis.conf.",
                    f"{_redis_cli(broker.url)} config set appendonly yes",
                )
            ],
        )


def _rabbitmq(observed: Observations) -> Iterator[Finding]:
    broker = observed.last.broker
    if broker.transport != "amqp":
        return
    if observed.first.broker.blocked or broker.blocked:
        yield Finding(
            "BROKER_BLOCKED",
            CRITICAL,
            Subject("broker", broker.url),
            "RabbitMQ accepts no messages: every sender waits.",
            [Fact("It blocked the audit's broadcast to the workers: its memory or its disk is nearly full.")],
            [
                Repair("Find out which of the two, on its host.", "rabbitmq-diagnostics alarms"),
                Repair("Find out what fills its memory.", "rabbitmq-diagnostics memory_breakdown"),
                Repair(
                    "Free memory or disk there, or start workers: they still receive the queued messages."
                ),
            ],
        )
    why = "only RabbitMQ's own tools show them: rabbitmqctl list_queues name messages_unacknowledged"
    observed.unknown.append(Unknown("messages that workers hold unacknowledged", why))


# -- the queues


def _queues(observed: Observations) -> Iterator[Finding]:
    broker, unreported, undecided = observed.last.broker, [], []
    longest_wait = observed.application.queue_wait or SLA_SECONDS
    unread = [name for name, queue in sorted(broker.queues.items()) if queue.depth is None]
    if unread:
        why = (
            f"RabbitMQ refuses to answer about {listed(unread)}"
            if broker.transport == "amqp"
            else f"the transport {broker.transport} does not show it"
        )
        observed.unknown.append(Unknown("how deep the queues are", why))
    if broker.scan_complete is False:
        why = "the database has too many keys to search; the audit sampled the known queues"
        observed.unknown.append(Unknown("queues that nobody named", why))
    for name, queue in sorted(broker.queues.items()):
        consumed = _is_consumed(observed, queue)
        if queue.depth == 0 and consumed is False and observed.first.workers:
            yield from _unconsumed_route(observed, name)
        if not queue.depth:
            continue
        if queue.oldest_seconds is None:
            unreported.append(name)
        if consumed is None:
            undecided.append(name)
        elif not consumed:
            yield _unconsumed(observed, queue)
        elif queue.oldest_seconds is not None and queue.oldest_seconds >= longest_wait:
            yield _too_slow(observed, queue)
    if unreported:
        why = (
            f"the senders to {listed(unreported)} do not call deadbeat.init, and Redis keeps no time"
            if broker.transport == "redis"
            else f"in {listed(unreported)}: {broker.transport} shows a message only to who takes it"
        )
        observed.unknown.append(Unknown("how long the oldest message waits", why))
    if undecided:
        why = f"{listed(undecided)}: no worker that answered consumes them, and not every worker answered"
        observed.unknown.append(Unknown("whether messages wait in a queue that nobody consumes", why))


def _is_consumed(observed: Observations, queue: QueueSample) -> bool | None:
    if queue.consumers is not None:
        return queue.consumers > 0
    if observed.consumers(queue.name):
        return True
    if not observed.knows_every_worker() or not observed.application.app.conf.worker_enable_remote_control:
        return None
    before = observed.first.broker.queues.get(queue.name)
    if before is not None and before.depth and queue.depth is not None and queue.depth < before.depth:
        # A consumer that does not answer broadcasts receives from it.
        return None
    return False


def _unconsumed(observed: Observations, queue: QueueSample) -> Finding:
    name, project = queue.name, observed.project
    source = observed.application.queues.get(name)
    by_server = observed.knowledge is not None and any(
        row["name"] == name for row in observed.knowledge.queues
    )
    ours = source is not None or by_server or queue.oldest_task in observed.application.app.tasks
    depth = queue.depth or 0
    facts = [Fact(f"{counted(depth, 'message')} in {name}.")]
    if queue.oldest_task:
        facts.append(Fact(f"The oldest is for the task {queue.oldest_task}."))
    if queue.oldest_seconds is not None:
        facts.append(Fact(f"It has waited {span(queue.oldest_seconds)}."))
    if source is not None:
        facts.append(Fact(f"The queue is named by {source}."))
    workers = sorted(observed.first.workers)
    for worker in workers[:10]:
        queues = observed.first.workers[worker].queues
        if queues is not None:
            facts.append(Fact(f"{worker} consumes {listed(queues) or 'no queue'}."))
    if not workers:
        facts.append(Fact("No worker is connected."))
    if not ours:
        facts.append(Fact("Nothing in this app names the queue: it may be another application's."))
    # A worker declares a queue before it consumes it. If the queue exists with other arguments, RabbitMQ
    # refuses that, and the worker ends.
    is_foreign = source is None and observed.last.broker.transport == "amqp"
    repair = [
        Repair(
            f"Let {worker} consume it, until its restart.",
            command("celery", "-A", project, "control", "add_consumer", name, "-d", worker),
        )
        for worker in workers[:1]
        if not is_foreign
    ]
    if is_foreign:
        repair.append(
            Repair(
                "If it is this app's, name it in task_queues with its present arguments.",
                "rabbitmqctl list_queues name durable auto_delete arguments",
            )
        )
    repair += [
        Repair(
            "Or start a worker for it." if workers and not is_foreign else "Start a worker for it.",
            command("celery", "-A", project, "worker", "-Q", name),
        ),
        Repair("If no task should go there, correct task_routes or the queue of its Beat entry."),
    ]
    return Finding(
        "QUEUE_UNCONSUMED",
        CRITICAL if ours else WARNING,
        Subject("queue", name),
        f"Nobody consumes queue {name}: {_waiting(depth)} forever.",
        facts,
        repair,
    )


def _waiting(depth: int) -> str:
    return f"{counted(depth, 'message')} {'waits' if depth == 1 else 'wait'}"


def _unconsumed_route(observed: Observations, name: str) -> Iterator[Finding]:
    source = observed.application.queues.get(name)
    if source is None or source == "the app's configuration":
        return
    yield Finding(
        "CONFIG_QUEUE_UNCONSUMED",
        WARNING,
        Subject("queue", name),
        f"Nobody consumes queue {name}, which is empty now: messages of {source} will wait there forever.",
        [
            Fact(f"The queue is named by {source}."),
            Fact(f"Workers that answered: {listed(sorted(observed.first.workers))}."),
        ],
        [
            Repair("Start a worker for it.", command("celery", "-A", observed.project, "worker", "-Q", name)),
            Repair("If no task should go there, correct it."),
        ],
    )


def _too_slow(observed: Observations, queue: QueueSample) -> Finding:
    consumers = observed.consumers(queue.name)
    return Finding(
        "QUEUE_SLA_BREACH",
        CRITICAL,
        Subject("queue", queue.name),
        f"Messages wait too long in queue {queue.name}: its workers are too slow.",
        [
            Fact(
                f"{counted(queue.depth or 0, 'message')} in {queue.name}; the oldest has waited "
                f"{span(queue.oldest_seconds or 0)}."
            ),
            *([Fact(f"The oldest is for the task {queue.oldest_task}.")] if queue.oldest_task else []),
            Fact(f"Consumed by {listed(consumers) or 'workers that did not answer'}."),
        ],
        [
            Repair(
                "Find out what its workers run.",
                command("celery", "-A", observed.project, "inspect", "active"),
            ),
            Repair(
                "Give them more processes, if the machine has room.",
                command(
                    "celery",
                    "-A",
                    observed.project,
                    "control",
                    "pool_grow",
                    "2",
                    *(["-d", ",".join(consumers)] if consumers else []),
                ),
            ),
            Repair(
                "Or start another worker for it.",
                command("celery", "-A", observed.project, "worker", "-Q", queue.name),
            ),
        ],
    )
