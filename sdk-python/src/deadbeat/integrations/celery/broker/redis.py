"""Reads a Redis that is a broker, without changing it. Only this file knows how kombu keeps messages there.

It takes no message, not even to put it back: that would change its place and count as a delivery. It reads
only the headers of the oldest message, and only the address of an unacknowledged one.

Redis does not show who consumes a list. kombu keeps unacknowledged messages in a hash, with the queue that
they came from. So a queue with recently taken messages has a consumer, whatever program that is.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import time
from collections.abc import Iterator
from typing import Any, Callable

from deadbeat._transport import timeouts
from deadbeat.integrations.celery.broker.identity import identity_digest
from deadbeat.integrations.celery.broker.queue import QueueSample

# Do not search longer lists, nor remember larger messages.
MARKED_DEPTH = 20_000
MARKED_BYTES = 65_536
# List → its newest message and when: while that message waits, the oldest has waited at least as long.
Marks = dict[str, tuple[bytes, float]]
# Read at most this many of the newest unacknowledged messages, and none that is larger.
HELD_LIMIT = 100
HELD_BYTES = 65_536
# Redis refuses commands that write when its memory is full, when it is a replica, and when it cannot save.
# The probe tries a command that would write but cannot, because its list does not exist: nobody creates it.
NO_LIST = "deadbeat.no.such.list"
WRITE = "LPUSHX"
# How Redis' message begins when a user lacks a right: that is no fault of the broker.
_NOT_ALLOWED = ("NOPERM", "NoPermission", "no permissions", "unknown command")
# The search for queues ends after this many keys.
SCAN_KEYS = 100_000
# Lists of messages that are no task queues.
_NOT_A_QUEUE = (".pidbox", "celeryev.")


@contextlib.contextmanager
def reading(connection: Any) -> Iterator[RedisReader]:
    """A reader over a channel of its own on this connection of kombu's."""
    channel = connection.channel()
    try:
        yield RedisReader(channel)
    finally:
        channel.close()


def refused_by_redis(client: Any) -> str | None:
    """Redis' refusal of a writing command; None: Redis would accept it, or this user may not try."""
    from redis.exceptions import ConnectionError, ResponseError, TimeoutError

    try:
        client.execute_command(WRITE, _prefixed(client, WRITE, NO_LIST), "")
    except (ConnectionError, TimeoutError):
        raise
    except ResponseError as refusal:
        said = f"{type(refusal).__name__}: {refusal}"
        return None if any(word in said for word in _NOT_ALLOWED) else said
    return None


class RedisReader:
    """Reads the database that a kombu channel uses. Each method raises what the client raises."""

    def __init__(self, channel: Any) -> None:
        self._channel = channel
        self._client = channel.client

    @property
    def visibility_timeout(self) -> Any:
        """After how many seconds an unacknowledged message is redelivered."""
        return self._channel.visibility_timeout

    def refusal(self) -> str | None:
        """Redis' refusal of a writing command; None: Redis would accept it, or this user may not try."""
        return refused_by_redis(self._client)

    def info(self, part: str) -> dict[str, Any]:
        """One section of Redis' INFO."""
        answer = self._client.info(part)
        return answer if isinstance(answer, dict) else {}

    def identity(self) -> str | None:
        """An id of this Redis and of the part in use; None where it hides its id.

        From Redis' own id: one server may have several addresses.
        """
        itself = self._client.info("server").get("run_id")
        database = self._client.connection_pool.connection_kwargs.get("db", 0)
        return identity_digest(itself, database, getattr(self._client, "global_keyprefix", ""))

    def queue(
        self, name: str, now: float, marks: Marks | None = None, before: str | None = None
    ) -> QueueSample:
        """Sample one queue, which is a list for each priority; the oldest message is at the right end.

        `before` is the head of the sample before: while it waits in one of the lists, it stays the head.
        """
        heads: dict[str, float] = {}
        depth = 0
        published: float | None = None
        is_a_guess = False
        task = None
        for key in dict.fromkeys(
            self._channel._q_for_pri(name, step) for step in self._channel.priority_steps
        ):
            length = self._client.llen(key)
            depth += length
            oldest = self._client.lindex(_prefixed(self._client, "LINDEX", key), -1) if length else None
            if oldest is None:
                continue
            headers = _headers(oldest)
            stamp = headers.get("deadbeat_at")
            heads[_digest(oldest)] = stamp if isinstance(stamp, (int, float)) else now
            at = headers.get("deadbeat_at")
            if at is None and marks is not None:
                waited = _marked_age(self._client, key, length, marks)
                at = None if waited is None else now - waited
            # Behind a message without a time stamp, others may be older than they seem.
            is_a_guess |= headers.get("deadbeat_at") is None
            if isinstance(at, (int, float)) and (published is None or at < published):
                published, task = float(at), headers.get("task")
            elif task is None:
                task = headers.get("task")
        age = None if published is None else round(max(0.0, now - published), 3)
        head = before if before in heads else min(heads, key=heads.__getitem__, default=None)
        return QueueSample(
            name, depth=depth, oldest_seconds=age, oldest_is_a_guess=is_a_guess, oldest_task=task, head=head
        )

    def unacknowledged(self, now: float) -> tuple[int, float | None]:
        """Unacknowledged messages of all queues, and for how long the oldest has been unacknowledged."""
        unacknowledged = int(self._client.hlen(self._channel.unacked_key))
        index = _prefixed(self._client, "ZRANGE", self._channel.unacked_index_key)
        for _, delivered_at in self._client.zrange(index, 0, 0, withscores=True):
            return unacknowledged, round(max(0.0, now - float(delivered_at)), 3)
        return unacknowledged, None

    def taken_lately(self, queue_of: Callable[[Any, Any], str | None]) -> dict[str, float]:
        """Queue → when the newest unacknowledged message was taken from it (by the worker's clock)."""
        unacknowledged, index = self._channel.unacked_key, self._channel.unacked_index_key
        newest = self._client.zrevrange(
            _prefixed(self._client, "ZREVRANGE", index), 0, HELD_LIMIT - 1, withscores=True
        )
        taken: dict[str, float] = {}
        key = _prefixed(self._client, "HSTRLEN", unacknowledged)
        for tag, at in newest:
            if self._client.execute_command("HSTRLEN", key, tag) > HELD_BYTES:
                continue
            queue = _queue_of(
                self._client.hget(_prefixed(self._client, "HGET", unacknowledged), tag), queue_of
            )
            if queue is not None:
                taken[queue] = max(taken.get(queue, 0.0), float(at))
        return taken

    def bound_workers(self, app: Any) -> Any:
        """The mailboxes of workers that are bound at the moment."""
        exchange = app.control.mailbox.exchange.name
        return frozenset(self._client.smembers(self._channel.keyprefix_queue % (exchange,)))

    def is_persistent(self, disk: dict[str, Any]) -> bool | None:
        """Whether Redis writes messages to disk, `disk` being `info("persistence")`; None: unknown."""
        if disk.get("aof_enabled"):
            return True
        try:
            return bool(self._client.config_get("save").get("save"))
        except Exception:
            return None

    def find_queues(self, most: int) -> tuple[list[str], bool]:
        """Lists of this database that hold Celery's messages, and whether the search saw every key."""
        channel, client = self._channel, self._client
        prefix = getattr(client, "global_keyprefix", "") or ""
        steps = {str(channel._q_for_pri("", step)) for step in channel.priority_steps} - {""}
        found: dict[str, None] = {}
        cursor, seen, until = 0, 0, time.monotonic() + timeouts.SCAN_SECONDS
        while True:
            cursor, keys = client.scan(cursor, match=f"{_escaped(prefix)}*", count=1000, _type="list")
            seen += 1000
            for raw in keys:
                key = raw.decode("utf-8", "replace") if isinstance(raw, bytes) else str(raw)
                name = key[len(prefix) :]
                for step in steps:
                    name = name[: -len(step)] if name.endswith(step) else name
                if name in found or any(mark in name for mark in _NOT_A_QUEUE):
                    continue
                if _is_message(client.lindex(_prefixed(client, "LINDEX", key[len(prefix) :]), -1)):
                    found[name] = None
            if not cursor:
                return list(found), True
            if seen >= SCAN_KEYS or time.monotonic() > until or len(found) >= most:
                return list(found), False


def _digest(message: bytes) -> str:
    """A message may hold secrets, and be long: its digest identifies it."""
    return hashlib.sha256(message).hexdigest()[:16]


def _prefixed(client: Any, command: str, key: Any) -> str:
    """The key as Redis knows it: kombu's client adds `global_keyprefix` for some commands only."""
    prefix = getattr(client, "global_keyprefix", "") or ""
    if prefix and command not in getattr(client, "PREFIXED_SIMPLE_COMMANDS", ()):
        return f"{prefix}{key}"
    return str(key)


def _marked_age(client: Any, key: Any, depth: int, marks: Marks) -> float | None:
    """The minimum age of a list's oldest message, where no SDK has stamped it.

    A list is a queue: while its former newest message is there, all messages before that have waited longer.
    """
    mark, now = marks.get(str(key)), time.monotonic()
    if mark is not None and depth <= MARKED_DEPTH:
        # Redis before 6.0.6 does not know this command.
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
        # Another program's list; it has a depth all the same.
        return {}
    return headers if isinstance(headers, dict) else {}


def _queue_of(entry: bytes | None, queue_of: Callable[[Any, Any], str | None]) -> str | None:
    """The queue of an unacknowledged message: kombu keeps it with exchange and routing key."""
    try:
        _, exchange, routing_key = json.loads(entry or b"")
    except (ValueError, TypeError):
        # It was acknowledged meanwhile, or is not kombu's.
        return None
    return queue_of(exchange, routing_key)


def _escaped(text: str) -> str:
    return "".join(f"\\{c}" if c in "*?[]\\" else c for c in text)


def _is_message(raw: Any) -> bool:
    """Whether this is a task message of kombu: with an address, and with headers that name a task."""
    try:
        message = json.loads(raw)
        return "delivery_info" in message["properties"] and "task" in message["headers"]
    except (ValueError, KeyError, TypeError):
        return False
