"""Looks at one queue of a broker without changing it: how much waits in it, and for how long.

No message is taken, not even to be put back: that would change its place and count as a delivery. Of the
oldest message only its headers are looked at, and only where the broker shows them (Redis).
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import time
from dataclasses import dataclass
from typing import Any

# Longer lists are not searched, and larger messages not remembered.
MARKED_DEPTH = 20_000
MARKED_BYTES = 65_536

# What RabbitMQ answers to a question about a queue that it does not have.
NOT_FOUND = 404

# List → what was its newest message, and when: while that waits, the oldest has waited for as long.
Marks = dict[str, tuple[bytes, float]]


@dataclass
class QueueLook:
    """One queue: None where the broker or its messages do not tell."""

    name: str
    # Messages that wait; those that workers hold are not among them.
    depth: int | None = None
    oldest_seconds: float | None = None
    # That is what it has waited at least: it bears no time.
    oldest_is_a_guess: bool = False
    oldest_task: str | None = None
    # Counted by the broker (AMQP).
    consumers: int | None = None
    # Stands for the message that is taken next. While it changes somebody consumes the queue.
    head: str | None = None
    # How long ago the newest message was taken that somebody holds.
    taken_seconds: float | None = None


def redis_queue(
    channel: Any, client: Any, name: str, now: float, marks: Marks | None = None, before: str | None = None
) -> QueueLook:
    """A queue is a list for each priority; what waits longest is at the right end.

    `before` is the head of the look before: while it waits in one of the lists, it stays the head.
    """
    heads: dict[str, float] = {}
    depth = 0
    published: float | None = None
    is_a_guess = False
    task = None
    for key in dict.fromkeys(channel._q_for_pri(name, step) for step in channel.priority_steps):
        length = client.llen(key)
        depth += length
        oldest = client.lindex(prefixed(client, "LINDEX", key), -1) if length else None
        if oldest is None:
            continue
        headers = _headers(oldest)
        stamp = headers.get("deadbeat_at")
        heads[_word_for(oldest)] = stamp if isinstance(stamp, (int, float)) else now
        at = headers.get("deadbeat_at")
        if at is None and marks is not None:
            waited = _marked_age(client, key, length, marks)
            at = None if waited is None else now - waited
        # Behind one that bears no time others may be older than they look.
        is_a_guess |= headers.get("deadbeat_at") is None
        if isinstance(at, (int, float)) and (published is None or at < published):
            published, task = float(at), headers.get("task")
        elif task is None:
            task = headers.get("task")
    age = None if published is None else round(max(0.0, now - published), 3)
    head = before if before in heads else min(heads, key=heads.__getitem__, default=None)
    return QueueLook(
        name, depth=depth, oldest_seconds=age, oldest_is_a_guess=is_a_guess, oldest_task=task, head=head
    )


def _word_for(message: bytes) -> str:
    """A message may hold secrets, and be long: its digest tells it from others."""
    return hashlib.sha256(message).hexdigest()[:16]


def held_in_redis(channel: Any, client: Any, now: float) -> tuple[int, float | None]:
    """Messages that workers hold unacknowledged, of all queues; for how long the oldest has been held."""
    held = int(client.hlen(channel.unacked_key))
    index = prefixed(client, "ZRANGE", channel.unacked_index_key)
    for _, delivered_at in client.zrange(index, 0, 0, withscores=True):
        return held, round(max(0.0, now - float(delivered_at)), 3)
    return held, None


def prefixed(client: Any, command: str, key: Any) -> str:
    """The key as Redis knows it: with `global_keyprefix` kombu's client adds that for some commands only."""
    prefix = getattr(client, "global_keyprefix", "") or ""
    if prefix and command not in getattr(client, "PREFIXED_SIMPLE_COMMANDS", ()):
        return f"{prefix}{key}"
    return str(key)


def rabbit_queue(connection: Any, name: str) -> QueueLook:
    """What RabbitMQ counts itself. A passive declaration only asks: it makes no queue, and alters none."""
    # A queue that does not exist costs the channel it is asked for on.
    channel = connection.channel()
    try:
        answer = channel.queue_declare(name, passive=True)
        return QueueLook(name, depth=answer.message_count, consumers=answer.consumer_count)
    except connection.channel_errors as refusal:
        # One that is not there holds nothing, as on Redis. Of one that may not be looked at nothing is known.
        is_missing = getattr(refusal, "reply_code", None) == NOT_FOUND
        return QueueLook(name, depth=0, consumers=0) if is_missing else QueueLook(name)
    finally:
        # Closed already, by the answer; a connection that is gone shows at the next queue.
        with contextlib.suppress(Exception):
            channel.close()


def _marked_age(client: Any, key: Any, depth: int, marks: Marks) -> float | None:
    """For how long, at least, the oldest message of a list has waited, where nobody has stamped it.

    A list is a queue: while what was once its newest message is there, all before that have waited longer.
    """
    mark, now = marks.get(str(key)), time.monotonic()
    if mark is not None and depth <= MARKED_DEPTH:
        # Redis before 6.0.6 does not know it.
        with contextlib.suppress(Exception):
            if client.execute_command("LPOS", prefixed(client, "LPOS", key), mark[0]) is not None:
                return now - mark[1]
    newest = client.lindex(prefixed(client, "LINDEX", key), 0)
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
