"""Samples the depth of the broker's queues and the age of their oldest messages, in one process of many.

The server asks for samples in its answer to a report of a worker or Beat, and repeats that as long as it
wants them. The sampler uses a thread and a connection of its own, both made only then: a broker that does not
answer must delay neither the worker nor the sender. The sampler takes no message, and reads only the headers
of the oldest one.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterable
from dataclasses import asdict
from typing import Any, Callable

from deadbeat._transport import timeouts
from deadbeat._transport.clock import utc_text
from deadbeat._transport.guard import guarded, log_once
from deadbeat._transport.process import enter_own_thread
from deadbeat._transport.wake import Wake
from deadbeat.integrations.celery.broker.connection import impatient
from deadbeat.integrations.celery.broker.consumers import ConsumerCheck
from deadbeat.integrations.celery.broker.queue import QueueSample
from deadbeat.integrations.celery.broker.rabbit import PUBLISH, RabbitProbe, identity_of_rabbit, rabbit_queue
from deadbeat.integrations.celery.broker.redis import WRITE, Marks, reading
from deadbeat.integrations.celery.runs.reporter import RunReporter, new_id

PERIOD_SECONDS = 10.0
# Sample an unreachable broker sooner again.
AWAY_PERIOD_SECONDS = 4.0
# The server repeats its request with each answer. Without one for this long, sampling ends.
WISH_SECONDS = 60.0
QUEUE_LIMIT = 200
# Length of a broker's refusal text in a sample.
REFUSAL_LIMIT = 300


class Sampler:
    """Samples the broker while the server asks for it."""

    def __init__(self, runs: RunReporter, consumed_queues: Callable[[], Iterable[str]]) -> None:
        self._runs = runs
        self._consumed_queues = consumed_queues
        self._until = 0.0
        self._stop = Wake()
        self._thread: threading.Thread | None = None
        self._connection: Any = None
        # A connection that failed, and is not closed yet.
        self._is_broken = False
        # Queues that other workers of the application consume, from the server.
        self._elsewhere: tuple[str, ...] = ()
        # List → its newest message and when: while that waits, the oldest has waited at least as long.
        self._marks: Marks = {}
        # Queue → its head in the last sample.
        self._heads: dict[str, str] = {}
        # Finds out whether RabbitMQ accepts messages.
        self._probe = RabbitProbe()
        self._consumers = ConsumerCheck(runs.app)

    @guarded
    def ask(self, wanted: bool, queues: Iterable[str] = ()) -> None:
        """Take the server's request and the queues that it knows; the sender's thread calls this."""
        self._elsewhere = tuple(queues)
        if not wanted:
            self._until = 0.0
            self._stop.set()
            return
        self._until = time.monotonic() + WISH_SECONDS
        # Do not start a second thread beside one that hangs in a broker.
        if self._thread is None or not self._thread.is_alive():
            self._stop = Wake()
            self._thread = threading.Thread(target=self._run, name="deadbeat-sample", daemon=True)
            self._thread.start()

    def _run(self) -> None:
        enter_own_thread()
        try:
            while time.monotonic() < self._until:
                began = time.monotonic()
                event = self.sample()
                self._runs.transport.put(event, latest="broker_sample")
                period = PERIOD_SECONDS
                if not event["reachable"]:
                    # Closing a hanging connection takes its time, too.
                    self._disconnect()
                    period = AWAY_PERIOD_SECONDS
                self._stop.wait(max(0.1, began + period - time.monotonic()))
        except Exception:
            log_once("the sampling of queues")
        finally:
            self._disconnect()

    def sample(self) -> dict[str, Any]:
        """Sample once; an unreachable broker makes a sample, too."""
        event: dict[str, Any] = {
            "id": new_id(),
            "type": "broker_sample",
            "at": utc_text(),
            "app": self._runs.beat,
            "worker": self._runs.worker,
            "period_seconds": PERIOD_SECONDS,
            "transport": None,
            "reachable": True,
            "error": None,
            "identity": None,
            "refused_command": None,
            "refused_why": None,
            "maxmemory_policy": None,
            "visibility_timeout_seconds": None,
            "unacked": None,
            "oldest_unacked_seconds": None,
            "longest_wait_seconds": self._runs.settings.queue_wait,
            "answering": None,
            "queues": [],
        }
        signs: Any = None
        try:
            if self._is_broken:
                self._disconnect()
            if self._connection is None:
                self._connection = self._unconnected()
            connection = self._connection
            event["transport"] = kind = str(connection.transport.driver_type)
            connection.connect()
            names = self._queue_names()
            if kind == "redis":
                signs = self._sample_redis(connection, names, event)
            elif kind == "amqp":
                event["identity"] = identity_of_rabbit(connection)
                _note_refusal(event, PUBLISH, self._probe.refusal(self._unconnected_for_write))
                event["queues"] = [_said(rabbit_queue(connection, name)) for name in names]
                signs = [queue["consumers"] for queue in event["queues"]]
            else:
                event["queues"] = [_said(QueueSample(name)) for name in names]
        except Exception as fault:
            if not isinstance(fault, (OSError, TimeoutError, *self._connection_errors())):
                # The broker answered, but the SDK could not read it: that is not the fault of the broker.
                raise
            event.update(reachable=False, error=type(fault).__name__, queues=[])
            self._is_broken = True
        else:
            event["answering"] = self._consumers.ask(signs)
        return event

    def _connection_errors(self) -> tuple[type[BaseException], ...]:
        errors = getattr(self._connection, "connection_errors", ())
        return tuple(error for error in errors if isinstance(error, type) and error is not Exception)

    def _unconnected(self) -> Any:
        return impatient(self._runs.app.connection_for_read, timeouts.BROKER_ANSWER_SECONDS)

    def _unconnected_for_write(self) -> Any:
        return impatient(self._runs.app.connection_for_write, timeouts.BROKER_ANSWER_SECONDS)

    def _disconnect(self) -> None:
        self._probe.close()
        connection, self._connection = self._connection, None
        self._is_broken = False
        if connection is not None:
            # The connection is useless either way.
            with contextlib.suppress(Exception):
                connection.release()

    def _queue_names(self) -> list[str]:
        """Every queue that somebody here consumes, names in the configuration, or has sent a message to."""
        app = self._runs.app
        # The server's queues first: it names those with a fault first.
        names = dict.fromkeys(self._elsewhere)
        names.update(dict.fromkeys(self._consumed_queues()))
        names.update(dict.fromkeys(str(name) for name in list(app.amqp.queues)))
        for entry in list((app.conf.beat_schedule or {}).values()):
            queue = (entry.get("options") or {}).get("queue") if isinstance(entry, dict) else None
            if queue is not None:
                names[str(getattr(queue, "name", queue))] = None
        names.update(dict.fromkeys(list(self._runs.seen_queues)))
        return list(names)[:QUEUE_LIMIT]

    def _sample_redis(self, connection: Any, names: list[str], event: dict[str, Any]) -> Any:
        """Add Redis' figures to the event; returns signs of workers that came or left."""
        with reading(connection) as redis:
            now = time.time()
            event["visibility_timeout_seconds"] = redis.visibility_timeout
            # This user may lack a right, or the operator of this Redis may hide a command.
            refusals = connection.channel_errors
            _note_refusal(event, WRITE, redis.refusal())
            with contextlib.suppress(*refusals):
                event["identity"] = redis.identity()
            with contextlib.suppress(*refusals):
                event["maxmemory_policy"] = redis.info("memory").get("maxmemory_policy")
            with contextlib.suppress(*refusals):
                event["unacked"], event["oldest_unacked_seconds"] = redis.unacknowledged(now)
            before, self._heads = self._heads, {}
            samples = [redis.queue(name, now, self._marks, before.get(name)) for name in names]
            self._heads = {sample.name: sample.head for sample in samples if sample.head is not None}
            # Nothing has left these queues since the last sample: is a message of theirs unacknowledged?
            still = {
                sample.name: sample
                for sample in samples
                if sample.head and sample.head == before.get(sample.name)
            }
            if still and event["unacked"]:
                with contextlib.suppress(*refusals):
                    for name, at in redis.taken_lately(self._runs.queue_of).items():
                        if name in still:
                            still[name].taken_seconds = round(max(0.0, now - at), 3)
            event["queues"] = [_said(sample) for sample in samples]
            with contextlib.suppress(*refusals):
                return redis.bound_workers(self._runs.app)
            return None


def _note_refusal(event: dict[str, Any], command: str, why: str | None) -> None:
    if why is not None:
        event["refused_command"], event["refused_why"] = command, why[:REFUSAL_LIMIT]


def _said(sample: QueueSample) -> dict[str, Any]:
    # No broker shows its clients the unacknowledged messages of a single queue.
    return {**asdict(sample), "unacked": None}
