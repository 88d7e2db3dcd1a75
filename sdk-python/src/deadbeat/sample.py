"""How deep the broker's queues are and how long their oldest messages wait, read by one process of many.

The server asks for it, in its answer to a worker's or Beat's report, and goes on asking as long as it
wants it. Reading is done in a thread and over a connection of its own, both made only then: a broker that
does not answer must hold up neither the worker nor the sender. Nothing is taken out of a queue, and of
the oldest message only its headers are looked at.
"""

from __future__ import annotations

import contextlib
import json
import threading
import time
from collections.abc import Iterable
from typing import Any, Callable

from deadbeat.guard import guarded, tell_once
from deadbeat.run import RunReporter, new_id
from deadbeat.transport import utc_text
from deadbeat.wake import Wake

PERIOD_SECONDS = 10.0
# A broker that does not answer is tried sooner again.
AWAY_PERIOD_SECONDS = 4.0
# The server repeats its wish with each answer; without one it is over, be the server gone or another chosen.
WISH_SECONDS = 60.0
ANSWER_SECONDS = 2.0
QUEUE_LIMIT = 200
# Longer lists are not searched, and larger messages not remembered.
MARKED_DEPTH = 20_000
MARKED_BYTES = 65_536

Marks = dict[str, tuple[bytes, float]]

_TIMEOUTS: dict[str, dict[str, Any]] = {
    "redis": {"socket_timeout": ANSWER_SECONDS, "socket_connect_timeout": ANSWER_SECONDS},
    "amqp": {"read_timeout": ANSWER_SECONDS, "write_timeout": ANSWER_SECONDS},
}


class Sampler:
    """Samples the broker while it is asked to."""

    def __init__(self, runs: RunReporter, consumed_queues: Callable[[], Iterable[str]]) -> None:
        self._runs = runs
        self._consumed_queues = consumed_queues
        self._until = 0.0
        self._stop = Wake()
        self._thread: threading.Thread | None = None
        self._connection: Any = None
        # It failed, and is not let go of yet.
        self._is_broken = False
        # What other workers of the application consume, as the server knows.
        self._elsewhere: tuple[str, ...] = ()
        # List → what was its newest message, and when: while that waits, the oldest has waited for as long.
        self._marks: Marks = {}

    @guarded
    def ask(self, wanted: bool, queues: Iterable[str] = ()) -> None:
        """What the server wishes now, and which queues it knows of; called by the sender's thread."""
        self._elsewhere = tuple(queues)
        if not wanted:
            self._until = 0.0
            self._stop.set()
            return
        self._until = time.monotonic() + WISH_SECONDS
        # One that hangs in a broker is not joined by another.
        if self._thread is None or not self._thread.is_alive():
            self._stop = Wake()
            self._thread = threading.Thread(target=self._run, name="deadbeat-sample", daemon=True)
            self._thread.start()

    def _run(self) -> None:
        try:
            while time.monotonic() < self._until:
                began = time.monotonic()
                event = self.sample()
                self._runs.transport.put(event, latest="broker_sample")
                period = PERIOD_SECONDS
                if not event["reachable"]:
                    # Letting go of a connection that hangs takes its time, too.
                    self._disconnect()
                    period = AWAY_PERIOD_SECONDS
                self._stop.wait(max(0.1, began + period - time.monotonic()))
        except Exception:
            tell_once("the sampling of queues")
        finally:
            self._disconnect()

    def sample(self) -> dict[str, Any]:
        """Look once; a broker that cannot be read makes a sample, too."""
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
            "maxmemory_policy": None,
            "visibility_timeout_seconds": None,
            "unacked": None,
            "oldest_unacked_seconds": None,
            "longest_wait_seconds": self._runs.settings.queue_wait,
            "queues": [],
        }
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
                _look_into_redis(connection, names, event, self._marks)
            elif kind == "amqp":
                event["queues"] = [_rabbit_queue(connection, name) for name in names]
            else:
                event["queues"] = [_queue(name) for name in names]
        except Exception as fault:
            if not isinstance(fault, (OSError, TimeoutError, *self._connection_errors())):
                # It answered, and is not read well: nothing is known, and that is not the broker's fault.
                raise
            event.update(reachable=False, error=type(fault).__name__, queues=[])
            self._is_broken = True
        return event

    def _connection_errors(self) -> tuple[type[BaseException], ...]:
        errors = getattr(self._connection, "connection_errors", ())
        return tuple(error for error in errors if isinstance(error, type) and error is not Exception)

    def _unconnected(self) -> Any:
        connection = self._runs.app.connection_for_read(connect_timeout=ANSWER_SECONDS)
        timeouts = _TIMEOUTS.get(str(connection.transport.driver_type), {})
        connection.transport_options = {**(connection.transport_options or {}), **timeouts}
        return connection

    def _disconnect(self) -> None:
        connection, self._connection = self._connection, None
        self._is_broken = False
        if connection is not None:
            # It is of no use any more either way.
            with contextlib.suppress(Exception):
                connection.release()

    def _queue_names(self) -> list[str]:
        """Every queue that somebody here consumes, names in the configuration, or has sent something to."""
        app = self._runs.app
        names = dict.fromkeys(self._consumed_queues())
        names.update(dict.fromkeys(str(name) for name in list(app.amqp.queues)))
        for entry in list((app.conf.beat_schedule or {}).values()):
            queue = (entry.get("options") or {}).get("queue") if isinstance(entry, dict) else None
            if queue is not None:
                names[str(getattr(queue, "name", queue))] = None
        names.update(dict.fromkeys(list(self._runs.seen_queues)))
        names.update(dict.fromkeys(self._elsewhere))
        return list(names)[:QUEUE_LIMIT]


def _queue(name: str, **figures: Any) -> dict[str, Any]:
    nothing = dict.fromkeys(("depth", "oldest_seconds", "oldest_task", "consumers", "unacked"))
    return {"name": name, **nothing, **figures}


def _look_into_redis(connection: Any, names: list[str], event: dict[str, Any], marks: Marks) -> None:
    channel = connection.channel()
    try:
        client, now = channel.client, time.time()
        event["visibility_timeout_seconds"] = channel.visibility_timeout
        # Some of it may be forbidden to this user, or hidden by whoever runs this Redis.
        refusals = connection.channel_errors
        with contextlib.suppress(*refusals):
            event["maxmemory_policy"] = client.info("memory").get("maxmemory_policy")
        with contextlib.suppress(*refusals):
            event["unacked"] = client.hlen(channel.unacked_key)
            index = _prefixed(client, "ZRANGE", channel.unacked_index_key)
            for _, delivered_at in client.zrange(index, 0, 0, withscores=True):
                event["oldest_unacked_seconds"] = round(max(0.0, now - float(delivered_at)), 3)
        event["queues"] = [_redis_queue(channel, client, name, now, marks) for name in names]
    finally:
        channel.close()


def _redis_queue(
    channel: Any, client: Any, name: str, now: float, marks: Marks | None = None
) -> dict[str, Any]:
    """A queue is a list for each priority; what waits longest is at the right end."""
    depth = 0
    published: float | None = None
    task = None
    for key in dict.fromkeys(channel._q_for_pri(name, step) for step in channel.priority_steps):
        length = client.llen(key)
        depth += length
        oldest = client.lindex(_prefixed(client, "LINDEX", key), -1) if length else None
        if oldest is None:
            continue
        headers = _headers(oldest)
        at = headers.get("deadbeat_at")
        if at is None and marks is not None:
            waited = _marked_age(client, key, length, marks)
            at = None if waited is None else now - waited
        if isinstance(at, (int, float)) and (published is None or at < published):
            published, task = float(at), headers.get("task")
        elif task is None:
            task = headers.get("task")
    age = None if published is None else round(max(0.0, now - published), 3)
    return _queue(name, depth=depth, oldest_seconds=age, oldest_task=task)


def _marked_age(client: Any, key: Any, depth: int, marks: Marks) -> float | None:
    """For how long, at least, the oldest message of a list has waited, where nobody has stamped it.

    A list is a queue: while what was once its newest message is there, all before that have waited longer.
    """
    mark, now = marks.get(str(key)), time.monotonic()
    if mark is not None and depth <= MARKED_DEPTH:
        # Redis before 6.0.6 does not know it.
        with contextlib.suppress(Exception):
            if client.execute_command("LPOS", _prefixed(client, "LPOS", key), mark[0]) is not None:
                return now - mark[1]
    newest = client.lindex(_prefixed(client, "LINDEX", key), 0)
    if newest is None or len(newest) > MARKED_BYTES:
        marks.pop(str(key), None)
    else:
        marks[str(key)] = (newest, now)
    return None


def _headers(message: bytes) -> dict[str, Any]:
    try:
        headers = json.loads(message)["headers"]
    except (ValueError, KeyError, TypeError):
        # Somebody else's list; it has a depth all the same.
        return {}
    return headers if isinstance(headers, dict) else {}


def _prefixed(client: Any, command: str, key: Any) -> str:
    """The key as Redis knows it: with `global_keyprefix` kombu's client adds that for some commands only."""
    prefix = getattr(client, "global_keyprefix", "") or ""
    if prefix and command not in getattr(client, "PREFIXED_SIMPLE_COMMANDS", ()):
        return f"{prefix}{key}"
    return str(key)


def _rabbit_queue(connection: Any, name: str) -> dict[str, Any]:
    # A queue that does not exist costs the channel it is asked for on.
    channel = connection.channel()
    try:
        answer = channel.queue_declare(name, passive=True)
        return _queue(name, depth=answer.message_count, consumers=answer.consumer_count)
    except connection.channel_errors:
        return _queue(name)
    finally:
        # Closed already, by the answer; a connection that is gone shows at the next queue.
        with contextlib.suppress(Exception):
            channel.close()
