"""Rules on an app's configuration. Each follows from Celery's code, not from taste.

docs/audit.md says when it is justified to break a rule. A rule leaves out what it cannot decide.
"""

from __future__ import annotations

import fnmatch
from collections.abc import Iterator
from typing import Any

from deadbeat.cli.application import Application, routes
from deadbeat.cli.audit.broker import BrokerSample
from deadbeat.cli.audit.finding import (
    CRITICAL,
    NOTICE,
    WARNING,
    Fact,
    Finding,
    Repair,
    Subject,
    Unknown,
    listed,
    span,
)
from deadbeat.integrations.celery.broker.workers import WorkerAnswer

_PICKLE = {"pickle", "application/x-python-serialize"}
_DEFAULT_PREFETCH = 4
# RabbitMQ's default since 3.8.17, in seconds: the limit for an unacknowledged message.
CONSUMER_TIMEOUT_SECONDS = 1800.0
# Pools that cannot end a task from outside.
_LIMITLESS_POOLS = {"threads", "solo", "eventlet"}


def configuration_findings(
    application: Application, broker: BrokerSample, workers: list[WorkerAnswer], everyone_answered: bool
) -> tuple[list[Finding], list[Unknown]]:
    """Dangers in the configuration; workers and broker show which of its values have an effect."""
    found = [
        *_pickle(application),
        *_eager(application),
        *_time_limits(application, workers),
        *_prefetch(application),
        *_late_acks(application),
        *_visibility_timeout(application, broker),
        *_consumer_timeout(application, broker),
        *_result_expiry(application),
        *_entries(application, workers, everyone_answered),
        *_routes(application),
    ]
    unknown = []
    scheduler = str(application.app.conf.beat_scheduler or "")
    if scheduler.rpartition(":")[2].rpartition(".")[2] not in ("", "PersistentScheduler", "Scheduler"):
        why = f"{scheduler} keeps them itself; the audit read only beat_schedule"
        unknown.append(Unknown("the rules on Beat's entries", why))
    return found, unknown


def _setting(name: str) -> Subject:
    return Subject("setting", name)


def _pickle(application: Application) -> Iterator[Finding]:
    conf = application.app.conf
    bad = [
        name
        for name in ("accept_content", "result_accept_content", "task_serializer", "result_serializer")
        if _PICKLE & set([value] if isinstance(value := conf[name], str) else value or ())
    ]
    if bad:
        yield Finding(
            "CONFIG_PICKLE",
            WARNING,
            _setting(bad[0]),
            "Everybody who can write to the broker or the result backend can run code in your processes.",
            [Fact(f"{name} is {conf[name]!r}.") for name in bad],
            [
                Repair(
                    'Send and accept JSON: app.conf.update(task_serializer="json", result_serializer="json", '
                    'accept_content=["json"]). Let the queued messages run out first.'
                )
            ],
        )


def _eager(application: Application) -> Iterator[Finding]:
    if application.app.conf.task_always_eager:
        yield Finding(
            "CONFIG_ALWAYS_EAGER",
            WARNING,
            _setting("task_always_eager"),
            "delay() and apply_async() run the task in the caller: nothing is sent to a worker.",
            [Fact("task_always_eager is on.")],
            [Repair("Set app.conf.task_always_eager = False outside of tests.")],
        )


def _time_limits(application: Application, workers: list[WorkerAnswer]) -> Iterator[Finding]:
    tasks = application.tasks
    unlimited = [name for name, task in tasks.items() if application.hard_limit(task) is None]
    limited = sorted(set(tasks) - set(unlimited))
    if unlimited:
        yield Finding(
            "CONFIG_TIME_LIMIT",
            WARNING,
            _setting("task_time_limit"),
            "Tasks without a hard time limit: a hanging one occupies its process forever.",
            [Fact(f"{len(unlimited)} of {len(tasks)} tasks have none: {listed(sorted(unlimited))}.")],
            [
                Repair(
                    "Set one far above the longest run, for all: app.conf.task_time_limit = 3600; or for "
                    "one: @app.task(time_limit=3600)."
                )
            ],
        )
    pools = sorted({worker.pool for worker in workers if worker.pool in _LIMITLESS_POOLS})
    if limited and pools:
        names = [worker.name for worker in workers if worker.pool in pools]
        yield Finding(
            "CONFIG_TIME_LIMIT_POOL",
            WARNING,
            _setting("worker_pool"),
            f"Hard time limits are set, but have no effect in the pool {listed([p for p in pools if p])}.",
            [
                Fact(f"{len(limited)} tasks have a hard time limit: {listed(limited)}."),
                Fact(f"These workers cannot end a task: {listed(names)}."),
            ],
            [Repair("Run tasks that may hang in a prefork worker, or give every wait in them a timeout.")],
        )
    for name, task in tasks.items():
        soft, hard = application.soft_limit(task), application.hard_limit(task)
        if soft is not None and hard is not None and soft >= hard:
            yield Finding(
                "CONFIG_TIME_LIMIT_ORDER",
                WARNING,
                Subject("task", name),
                "Its soft time limit never applies: the hard one kills it first.",
                [Fact(f"soft {span(soft)}, hard {span(hard)}.")],
                [Repair(f"Set soft_time_limit of {name} some seconds below {hard:g}.")],
            )


def _late(application: Application) -> list[str]:
    return sorted(name for name, task in application.tasks.items() if getattr(task, "acks_late", False))


def _prefetch(application: Application) -> Iterator[Finding]:
    multiplier, late = application.app.conf.worker_prefetch_multiplier, _late(application)
    if multiplier == 0:
        severity, summary = WARNING, "One worker prefetches every message; the others are idle."
    elif multiplier > 1 and late:
        severity, summary = (
            WARNING,
            "Late acknowledgement with prefetching: a worker keeps messages that others could run.",
        )
    elif multiplier > _DEFAULT_PREFETCH:
        severity, summary = NOTICE, "Many messages wait unseen inside busy workers."
    else:
        return
    facts = [Fact(f"worker_prefetch_multiplier is {multiplier}.")]
    if late:
        facts.append(Fact(f"{len(late)} tasks are acknowledged late: {listed(late)}."))
    yield Finding(
        "CONFIG_PREFETCH",
        severity,
        _setting("worker_prefetch_multiplier"),
        summary,
        facts,
        [Repair("Set app.conf.worker_prefetch_multiplier = 1.")],
    )


def _late_acks(application: Application) -> Iterator[Finding]:
    conf = application.app.conf
    dropped = [
        name
        for name in _late(application)
        if not (
            getattr(application.tasks[name], "reject_on_worker_lost", None) or conf.task_reject_on_worker_lost
        )
    ]
    if dropped:
        yield Finding(
            "CONFIG_LATE_ACK_LOST",
            NOTICE,
            _setting("task_reject_on_worker_lost"),
            "These tasks are acknowledged late, but lost when their process is killed.",
            [
                Fact(f"{len(dropped)} tasks: {listed(dropped)}."),
                Fact("task_reject_on_worker_lost is off for them."),
            ],
            [
                Repair(
                    "If they may run twice, set reject_on_worker_lost=True beside acks_late=True. One that "
                    "kills its process each time is then redelivered forever."
                )
            ],
        )


def _visibility_timeout(application: Application, broker: BrokerSample) -> Iterator[Finding]:
    timeout, late = broker.visibility_timeout_seconds, _late(application)
    if timeout is None or not late:
        return
    limits = {name: application.hard_limit(application.tasks[name]) for name in late}
    over = sorted(name for name, limit in limits.items() if limit is None or limit >= timeout)
    if not over:
        return
    words = [f"{name} ({'no limit' if limits[name] is None else span(limits[name] or 0)})" for name in over]
    longest = max((limit or 0) for limit in limits.values())
    yield Finding(
        "CONFIG_VISIBILITY_TIMEOUT",
        WARNING,
        _setting("broker_transport_options"),
        "A run with late acknowledgement that exceeds the visibility timeout is redelivered while it runs.",
        [
            Fact(f"The visibility timeout is {span(timeout)}."),
            Fact(f"May run for longer, by their hard time limit: {listed(words)}."),
        ],
        [
            Repair(
                "Raise it above the longest run: app.conf.broker_transport_options = "
                f'{{"visibility_timeout": {int(max(longest, timeout) * 2)}}}'
                f"; or give these tasks a time_limit below {timeout:g}."
            )
        ],
    )


def _consumer_timeout(application: Application, broker: BrokerSample) -> Iterator[Finding]:
    if broker.transport != "amqp":
        return
    limits = {name: application.hard_limit(application.tasks[name]) for name in _late(application)}
    over = [name for name, limit in limits.items() if limit is None or limit >= CONSUMER_TIMEOUT_SECONDS]
    if not over:
        return
    words = [f"{name} ({'no limit' if limits[name] is None else span(limits[name] or 0)})" for name in over]
    longest = max([CONSUMER_TIMEOUT_SECONDS, *(limit for limit in limits.values() if limit is not None)])
    yield Finding(
        "CONFIG_CONSUMER_TIMEOUT",
        WARNING,
        _setting("task_acks_late"),
        "A run acknowledged late beyond RabbitMQ's consumer_timeout ends its worker, and is redelivered.",
        [
            Fact(
                "RabbitMQ closes a channel with a message unacknowledged for longer than "
                f"{span(CONSUMER_TIMEOUT_SECONDS)}, by default; it does not show its setting."
            ),
            Fact(f"May run for longer, by their hard time limit: {listed(words)}."),
        ],
        [
            Repair(
                "Find out its setting.",
                "rabbitmqctl eval 'application:get_env(rabbit, consumer_timeout).'",
            ),
            Repair(
                f"Raise it above the longest run, in rabbitmq.conf: consumer_timeout = {int(longest * 2000)} "
                f"(milliseconds); or give these tasks a time_limit below {CONSUMER_TIMEOUT_SECONDS:g}."
            ),
        ],
    )


def _result_expiry(application: Application) -> Iterator[Finding]:
    conf = application.app.conf
    if conf.result_backend and not conf.result_expires:
        yield Finding(
            "CONFIG_RESULT_EXPIRES",
            WARNING,
            _setting("result_expires"),
            "Results never expire: the result backend grows until it is full.",
            [Fact(f"result_expires is {conf.result_expires!r}.")],
            [Repair("Set app.conf.result_expires = 86400, or ignore_result=True where nobody reads them.")],
        )


def _entries(
    application: Application, workers: list[WorkerAnswer], everyone_answered: bool
) -> Iterator[Finding]:
    known = set(application.app.tasks)
    registered: dict[str, list[str]] = {
        worker.name: worker.registered for worker in workers if worker.registered is not None
    }
    no_expiry = []
    for entry in application.entries:
        somewhere = [name for name, tasks in registered.items() if entry.task in tasks]
        if entry.task not in known and not somewhere:
            # Without workers to ask, another program may have the task.
            certain = bool(registered) and everyone_answered
            facts = [Fact(f"No task of {application.project} has the name {entry.task}.")]
            if registered:
                facts.append(Fact(f"Nor has any of these workers: {listed(sorted(registered))}."))
            near = [name for name in known if name.rpartition(".")[2] == entry.task.rpartition(".")[2]]
            yield Finding(
                "CONFIG_BEAT_ENTRY_UNKNOWN_TASK",
                CRITICAL if certain else WARNING,
                Subject("entry", entry.name),
                f"Beat sends {entry.task}, which no worker knows: they discard each message with an error.",
                facts,
                [
                    Repair(
                        f"Correct the entry's task{f' (did you mean {near[0]}?)' if near else ''}, or add "
                        f"the task's module to imports."
                    )
                ],
            )
        every = _every(entry.schedule)
        task = application.app.tasks.get(entry.task)
        # The limit of a task that only workers know is not known either.
        limit = None if task is None else entry.options.get("time_limit") or application.hard_limit(task)
        if every is not None and limit is not None and every <= limit:
            yield Finding(
                "CONFIG_BEAT_OVERLAP",
                NOTICE,
                Subject("entry", entry.name),
                "It may be sent again while its last run is still going.",
                [Fact(f"Every {span(every)}, with a hard time limit of {span(limit)}.")],
                [Repair(f"If they must not overlap: a time_limit below {every:g}, or a lock in the task.")],
            )
        if (
            "expires" not in entry.options
            and getattr(application.app.tasks.get(entry.task), "expires", None) is None
        ):
            no_expiry.append(entry.name)
    if no_expiry:
        yield Finding(
            "CONFIG_BEAT_EXPIRES",
            NOTICE,
            _setting("beat_schedule"),
            "After an outage of the workers they run every missed message of these entries, one by one.",
            [Fact(f"{len(no_expiry)} entries have no expires: {listed(sorted(no_expiry))}.")],
            [Repair('Where a late run is worthless, give the entry "options": {"expires": <its interval>}.')],
        )


def _every(schedule: Any) -> float | None:
    """The seconds of an interval; None for other schedules."""
    if isinstance(schedule, bool):
        return None
    if isinstance(schedule, (int, float)):
        return float(schedule)
    seconds = getattr(schedule, "total_seconds", None)
    if seconds is not None:
        return float(seconds())
    interval = getattr(schedule, "run_every", None)
    # A crontab has such an attribute, too, which is not its interval.
    if interval is None or hasattr(schedule, "minute"):
        return None
    return float(interval.total_seconds())


def _routes(application: Application) -> Iterator[Finding]:
    app, names = application.app, list(application.app.tasks)
    for pattern, queue in routes(app):
        # Only plain names and globs: a rule cannot judge a regular expression.
        if any(mark in pattern for mark in "\\^$+(|"):
            continue
        if not fnmatch.filter(names, pattern):
            yield Finding(
                "CONFIG_ROUTE_UNKNOWN_TASK",
                NOTICE,
                _setting("task_routes"),
                f"The route of {pattern} to {queue} matches no task: the tasks meant go elsewhere.",
                [Fact(f"No task of {application.project} matches {pattern}.")],
                [Repair("Correct the name, or delete the route.")],
            )
    if app.conf.task_create_missing_queues:
        return
    declared = set(app.amqp.queues)
    for name, source in application.queues.items():
        if name not in declared:
            yield Finding(
                "CONFIG_QUEUE_UNDECLARED",
                WARNING,
                Subject("queue", name),
                f"Sending to {name} fails: it is not in task_queues, and missing queues are not created.",
                [Fact(f"It is named by {source}."), Fact("task_create_missing_queues is off.")],
                [Repair(f'Add kombu.Queue("{name}") to app.conf.task_queues.')],
            )
