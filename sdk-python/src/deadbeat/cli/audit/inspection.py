"""Samples a broker and its workers once, for an audit: all at once, and everything with a deadline.

It reads the broker over a connection of its own. A call that hangs stays behind in a daemon thread.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Callable

from deadbeat.cli.audit.broker import BrokerSample, sample_into
from deadbeat.cli.audit.finding import Unknown, error_words
from deadbeat.integrations.celery.broker.connection import connected
from deadbeat.integrations.celery.broker.workers import Round, WorkerAnswer, ask_workers

if TYPE_CHECKING:
    from celery import Celery

COMMANDS = ("stats", "active", "reserved", "scheduled", "active_queues", "registered")
SECOND_COMMANDS = ("stats", "active", "reserved")
# Exceptions, by name, after which nothing is known of the broker: it answered, but refused this client.
_REFUSALS = {
    "AuthenticationError",
    "AuthorizationError",
    "NoPermissionError",
    "AccessRefused",
    "NotAllowed",
    "AuthenticationFailed",
}


@dataclass
class Sample:
    """Everything observed at one moment."""

    at: float
    broker: BrokerSample
    workers: dict[str, WorkerAnswer] = field(default_factory=dict)
    # How many workers the broadcast reached; None where the broker does not say.
    listeners: int | None = None
    # Whether all of them answered every command; None when that cannot be known.
    complete: bool | None = None
    unknown: list[Unknown] = field(default_factory=list)


class Inspection:
    """Samples the broker and the workers of an app."""

    def __init__(self, app: Celery) -> None:
        self._app = app
        self.url, self._transport = _described(app)

    def sample(
        self, names: Iterable[str], commands: tuple[str, ...], deadline: float, expected: int | None = None
    ) -> Sample:
        """Sample once these queues and others that are found; ends by `deadline` (monotonic clock).

        `expected` is the number of workers that will answer, if known.
        """
        began = time.monotonic()
        broker = BrokerSample(self.url, self._transport)
        round_ = Round()
        jobs = [
            _InBackground("broker", lambda: self._sample_broker(broker, list(names), deadline)),
            _InBackground("workers", lambda: ask_workers(self._app, round_, commands, deadline, expected)),
        ]
        for one in jobs:
            one.join(deadline)
        sample = Sample(began, broker, unknown=[])
        fault = jobs[0].fault
        if not jobs[0].done:
            broker.reachable, broker.error = False, f"no answer within {deadline - began:.1f} s"
        elif fault is not None:
            broker.reachable, broker.error = _judged(fault), error_words(fault)
        else:
            broker.reachable = True
        # Copies: a thread that stayed behind may still write.
        with round_.lock:
            sample.workers = {name: round_.workers[name] for name in sorted(round_.workers)}
            sample.listeners = round_.listeners
            broker.blocked = round_.blocked
        sample.complete = _completeness(sample, commands)
        if broker.reachable and jobs[1].fault is not None:
            sample.unknown.append(Unknown("the workers", error_words(jobs[1].fault)))
        return sample

    def _sample_broker(self, sample: BrokerSample, names: list[str], deadline: float) -> None:
        connection = connected(self._app.connection_for_read, deadline)
        try:
            sample_into(connection, names, sample)
        finally:
            with contextlib.suppress(Exception):
                connection.release()


class _InBackground:
    """A call in a daemon thread, which stays behind if it does not end in time."""

    def __init__(self, name: str, call: Callable[[], None]) -> None:
        self._call = call
        self.fault: BaseException | None = None
        self.done = False
        self._thread = threading.Thread(target=self._run, name=f"deadbeat-{name}", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            self._call()
        # Report a broken driver, or an answer of another version, instead of failing.
        except Exception as fault:
            self.fault = fault
        self.done = True

    def join(self, deadline: float) -> None:
        self._thread.join(max(0.0, deadline - time.monotonic()) + 0.05)


def _completeness(sample: Sample, commands: tuple[str, ...]) -> bool | None:
    if sample.listeners is None:
        return None
    return all(
        sum(worker.answers.get(command, 0) for worker in sample.workers.values()) >= sample.listeners
        for command in commands
    )


def _described(app: Celery) -> tuple[str, str | None]:
    """The broker's address without user and password, and kombu's name for its kind."""
    try:
        connection = app.connection_for_read()
        place = (
            f"{connection.hostname or ''}:{connection.port}" if connection.port else connection.hostname or ""
        )
        kind = str(connection.transport_cls)
        path = str(connection.virtual_host or "").lstrip("/")
        return f"{kind}://{place}/{path}", kind
    except Exception as fault:
        return f"(unreadable: {error_words(fault)})", None


def _judged(fault: BaseException) -> bool | None:
    """False: this machine cannot reach the broker. None: it could not try."""
    chain: list[BaseException] = []
    while fault is not None and len(chain) < 10:
        chain.append(fault)
        fault = fault.__cause__ or fault.__context__  # type: ignore[assignment]
    names = {cls.__name__ for one in chain for cls in type(one).__mro__}
    # An unresolvable name says more about this machine than about the broker.
    if names & (_REFUSALS | {"gaierror", "ImportError", "SSLError"}):
        return None
    return False if names & {"OSError", "ConnectionError", "TimeoutError"} else None
