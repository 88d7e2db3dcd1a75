"""Reads a Redis that is a broker, without changing it. Only this file knows how kombu keeps messages there.

No message is taken, not even to be put back: that would change its place and count as a delivery. Of the
oldest message only its headers are looked at, of a held one only its address.

Redis does not tell who consumes a list. The messages that somebody has taken and not acknowledged are kept in
a hash, and name the queue that they came from. A queue of which some were taken lately has a consumer,
whatever program that is.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import time
from collections.abc import Iterator
from typing import Any, Callable

from deadbeat._transport import timeouts
from deadbeat.integrations.celery.broker.identity import identity_word
from deadbeat.integrations.celery.broker.queue import QueueSample

# Longer lists are not searched, and larger messages not remembered.
MARKED_DEPTH = 20_000
MARKED_BYTES = 65_536
# List → what was its newest message, and when: while that waits, the oldest has waited for as long.
Marks = dict[str, tuple[bytes, float]]
# The newest so many are looked at, and none that is larger.
HELD_LIMIT = 100
HELD_BYTES = 65_536
# Redis refuses commands that write when its memory is full, when it is a replica, and when it cannot save. It
# is asked with one that would write and cannot, as its list does not exist: nobody makes this one.
NO_LIST = "deadbeat.no.such.list"
WRITE = "LPUSHX"
# How Redis begins what it says when a user may not do something: that is no fault of the broker.
_NOT_ALLOWED = ("NOPERM", "NoPermission", "no permissions", "unknown command")
# The search for queues ends after so many keys.
SCAN_KEYS = 100_000
# Of the lists that messages are kept in: none of them is a task queue.
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
    """What Redis says to a command that writes; None: it would take it, or this user may not try."""
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
    """Reads the database that a channel of kombu's uses. Each method raises what the client raises."""

    def __init__(self, channel: Any) -> None:
        self._channel = channel
        self._client = channel.client

    @property
    def visibility_timeout(self) -> Any:
        """After how many seconds a message that is not acknowledged is delivered again."""
        return self._channel.visibility_timeout

    def refusal(self) -> str | None:
        """What Redis says to a command that writes; None: it would take it, or this user may not try."""
        return refused_by_redis(self._client)

    def info(self, part: str) -> dict[str, Any]:
        """One part of what Redis says of itself."""
        answer = self._client.info(part)
        return answer if isinstance(answer, dict) else {}

    def identity(self) -> str | None:
        """What stands for the Redis and the part of it that is used; None where it does not tell.

        By what it calls itself: one and the same goes by several addresses.
        """
        itself = self._client.info("server").get("run_id")
        database = self._client.connection_pool.connection_kwargs.get("db", 0)
        return identity_word(itself, database, getattr(self._client, "global_keyprefix", ""))

    def queue(
        self, name: str, now: float, marks: Marks | None = None, before: str | None = None
    ) -> QueueSample:
        """Look at one queue, which is a list for each priority; what waits longest is at the right end.

        `before` is the head of the look before: while it waits in one of the lists, it stays the head.
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
            # Behind one that bears no time others may be older than they look.
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

    def held(self, now: float) -> tuple[int, float | None]:
        """Messages that workers hold unacknowledged, of all queues; for how long the oldest has been held."""
        held = int(self._client.hlen(self._channel.unacked_key))
        index = _prefixed(self._client, "ZRANGE", self._channel.unacked_index_key)
        for _, delivered_at in self._client.zrange(index, 0, 0, withscores=True):
            return held, round(max(0.0, now - float(delivered_at)), 3)
        return held, None

    def taken_lately(self, queue_of: Callable[[Any, Any], str | None]) -> dict[str, float]:
        """Queue → when the newest unacknowledged message was taken from it (by its holder's clock)."""
        held, index = self._channel.unacked_key, self._channel.unacked_index_key
        newest = self._client.zrevrange(
            _prefixed(self._client, "ZREVRANGE", index), 0, HELD_LIMIT - 1, withscores=True
        )
        taken: dict[str, float] = {}
        key = _prefixed(self._client, "HSTRLEN", held)
        for tag, at in newest:
            if self._client.execute_command("HSTRLEN", key, tag) > HELD_BYTES:
                continue
            queue = _queue_of(self._client.hget(_prefixed(self._client, "HGET", held), tag), queue_of)
            if queue is not None:
                taken[queue] = max(taken.get(queue, 0.0), float(at))
        return taken

    def bound_workers(self, app: Any) -> Any:
        """The mailboxes of workers that are bound at the moment."""
        exchange = app.control.mailbox.exchange.name
        return frozenset(self._client.smembers(self._channel.keyprefix_queue % (exchange,)))

    def is_persistent(self, disk: dict[str, Any]) -> bool | None:
        """Whether messages are written to disk, `disk` being `info("persistence")`; None: not told."""
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
    """A message may hold secrets, and be long: its digest tells it from others."""
    return hashlib.sha256(message).hexdigest()[:16]


def _prefixed(client: Any, command: str, key: Any) -> str:
    """The key as Redis knows it: with `global_keyprefix` kombu's client adds that for some commands only."""
    prefix = getattr(client, "global_keyprefix", "") or ""
    if prefix and command not in getattr(client, "PREFIXED_SIMPLE_COMMANDS", ()):
        return f"{prefix}{key}"
    return str(key)


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


def _queue_of(entry: bytes | None, queue_of: Callable[[Any, Any], str | None]) -> str | None:
    """The queue that a held message came from: kombu keeps it with exchange and routing key."""
    try:
        _, exchange, routing_key = json.loads(entry or b"")
    except (ValueError, TypeError):
        # Acknowledged meanwhile, or not kombu's.
        return None
    return queue_of(exchange, routing_key)


def _escaped(text: str) -> str:
    return "".join(f"\\{c}" if c in "*?[]\\" else c for c in text)


def _is_message(raw: Any) -> bool:
    """Whether this is a task's message as kombu keeps it: sent somewhere, with headers that name a task."""
    try:
        message = json.loads(raw)
        return "delivery_info" in message["properties"] and "task" in message["headers"]
    except (ValueError, KeyError, TypeError):
        return False
