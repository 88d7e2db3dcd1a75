"""Reads a broker once: its queues, also those nobody told of, and how it is set. Takes no message."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Any

from deadbeat.integrations.celery.broker.queue import QueueLook
from deadbeat.integrations.celery.broker.rabbit import rabbit_queue
from deadbeat.integrations.celery.broker.redis import RedisReader, reading

QUEUE_LIMIT = 500


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
    with reading(connection) as redis:
        now = time.time()
        look.visibility_timeout_seconds = redis.visibility_timeout
        # Some hosts forbid these: the queues can be read all the same.
        memory, stats, disk = (_info(redis, part) for part in ("memory", "stats", "persistence"))
        look.maxmemory_policy = memory.get("maxmemory_policy")
        look.maxmemory = memory.get("maxmemory")
        look.used_memory = memory.get("used_memory")
        look.evicted_keys = stats.get("evicted_keys")
        look.persistent = redis.is_persistent(disk)
        look.unacked, look.oldest_unacked_seconds = redis.held(now)
        look.found, look.scan_complete = redis.find_queues(QUEUE_LIMIT)
        for name in list(dict.fromkeys([*names, *look.found]))[:QUEUE_LIMIT]:
            look.queues[name] = redis.queue(name, now)


def _info(redis: RedisReader, part: str) -> dict[str, Any]:
    try:
        return redis.info(part)
    except Exception:
        return {}
