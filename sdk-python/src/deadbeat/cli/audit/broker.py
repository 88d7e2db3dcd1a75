"""Reads a broker once: its queues, also those nobody told of, and how it is set. Takes no message."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass, field
from typing import Any

from deadbeat._transport import timeouts
from deadbeat.integrations.celery.broker.queue import (
    QueueLook,
    held_in_redis,
    prefixed,
    rabbit_queue,
    redis_queue,
)

QUEUE_LIMIT = 500
SCAN_KEYS = 100_000
# Of the lists that messages are kept in: none of them is a task queue.
_NOT_A_QUEUE = (".pidbox", "celeryev.")


@dataclass
class BrokerLook:
    """What the broker said, or why it could not be asked."""

    url: str
    transport: str | None = None
    # True, False (refused, silent), or None: it could not be tried.
    reachable: bool | None = None
    error: str | None = None
    maxmemory_policy: str | None = None
    maxmemory: int | None = None
    used_memory: int | None = None
    evicted_keys: int | None = None
    persistent: bool | None = None
    visibility_timeout_seconds: float | None = None
    unacked: int | None = None
    oldest_unacked_seconds: float | None = None
    queues: dict[str, QueueLook] = field(default_factory=dict)
    # Names that no one told: lists in this database that hold messages.
    found: list[str] = field(default_factory=list)
    scan_complete: bool | None = None
    # It says that it takes in no messages (AMQP: an alarm, of its memory or its disk).
    blocked: bool = False


def look_into(connection: Any, names: list[str], look: BrokerLook) -> None:
    """Fill in what a connected broker tells of itself and of these queues. Raises what its client raises."""
    look.transport = kind = str(connection.transport.driver_type)
    if kind == "redis":
        _look_into_redis(connection, names, look)
    elif kind == "amqp":
        for name in names[:QUEUE_LIMIT]:
            look.queues[name] = rabbit_queue(connection, name)
    else:
        look.queues = {name: QueueLook(name) for name in names[:QUEUE_LIMIT]}


def _look_into_redis(connection: Any, names: list[str], look: BrokerLook) -> None:
    channel = connection.channel()
    try:
        client, now = channel.client, time.time()
        look.visibility_timeout_seconds = channel.visibility_timeout
        # Some hosts forbid these: the queues can be read all the same.
        memory, stats, disk = (_info(client, part) for part in ("memory", "stats", "persistence"))
        look.maxmemory_policy = memory.get("maxmemory_policy")
        look.maxmemory = memory.get("maxmemory")
        look.used_memory = memory.get("used_memory")
        look.evicted_keys = stats.get("evicted_keys")
        look.persistent = _is_persistent(client, disk)
        look.unacked, look.oldest_unacked_seconds = held_in_redis(channel, client, now)
        look.found, look.scan_complete = _find_queues(channel, client)
        for name in list(dict.fromkeys([*names, *look.found]))[:QUEUE_LIMIT]:
            look.queues[name] = redis_queue(channel, client, name, now)
    finally:
        channel.close()


def _info(client: Any, part: str) -> dict[str, Any]:
    try:
        answer = client.info(part)
    except Exception:
        return {}
    return answer if isinstance(answer, dict) else {}


def _is_persistent(client: Any, disk: dict[str, Any]) -> bool | None:
    """Whether Redis writes its messages to disk; None where it does not tell."""
    if disk.get("aof_enabled"):
        return True
    try:
        return bool(client.config_get("save").get("save"))
    except Exception:
        return None


def _find_queues(channel: Any, client: Any) -> tuple[list[str], bool]:
    """Lists of this database that hold Celery's messages, and whether the search saw every key."""
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
            if _is_message(client.lindex(prefixed(client, "LINDEX", key[len(prefix) :]), -1)):
                found[name] = None
        if not cursor:
            return list(found), True
        if seen >= SCAN_KEYS or time.monotonic() > until or len(found) >= QUEUE_LIMIT:
            return list(found), False


def _escaped(text: str) -> str:
    return "".join(f"\\{c}" if c in "*?[]\\" else c for c in text)


def _is_message(raw: Any) -> bool:
    """Whether this is a task's message as kombu keeps it: sent somewhere, with headers that name a task."""
    try:
        message = json.loads(raw)
        return "delivery_info" in message["properties"] and "task" in message["headers"]
    except (ValueError, KeyError, TypeError):
        return False
