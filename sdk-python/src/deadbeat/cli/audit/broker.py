"""Samples a broker once: its queues, also those that nobody named, and its settings. Takes no message."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Any

from deadbeat.integrations.celery.broker.queue import QueueSample
from deadbeat.integrations.celery.broker.rabbit import rabbit_queue
from deadbeat.integrations.celery.broker.redis import RedisReader, reading

QUEUE_LIMIT = 500


@dataclass
class BrokerSample:
    """The broker's figures, or why it could not be asked."""

    url: str
    transport: str | None = None
    # True, False (refused or silent), or None: could not be tried.
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
    queues: dict[str, QueueSample] = field(default_factory=dict)
    # Lists of messages in this database that nobody named.
    found: list[str] = field(default_factory=list)
    scan_complete: bool | None = None
    # It announced that it accepts no messages (AMQP: an alarm of its memory or its disk).
    blocked: bool = False


def sample_into(connection: Any, names: list[str], sample: BrokerSample) -> None:
    """Add the figures of a connected broker and of these queues. Raises what its client raises."""
    sample.transport = kind = str(connection.transport.driver_type)
    if kind == "redis":
        _sample_redis(connection, names, sample)
    elif kind == "amqp":
        for name in names[:QUEUE_LIMIT]:
            sample.queues[name] = rabbit_queue(connection, name)
    else:
        sample.queues = {name: QueueSample(name) for name in names[:QUEUE_LIMIT]}


def _sample_redis(connection: Any, names: list[str], sample: BrokerSample) -> None:
    with reading(connection) as redis:
        now = time.time()
        sample.visibility_timeout_seconds = redis.visibility_timeout
        # Some hosts forbid these commands: the queues can be read all the same.
        memory, stats, disk = (_info(redis, part) for part in ("memory", "stats", "persistence"))
        sample.maxmemory_policy = memory.get("maxmemory_policy")
        sample.maxmemory = memory.get("maxmemory")
        sample.used_memory = memory.get("used_memory")
        sample.evicted_keys = stats.get("evicted_keys")
        sample.persistent = redis.is_persistent(disk)
        sample.unacked, sample.oldest_unacked_seconds = redis.unacknowledged(now)
        sample.found, sample.scan_complete = redis.find_queues(QUEUE_LIMIT)
        for name in list(dict.fromkeys([*names, *sample.found]))[:QUEUE_LIMIT]:
            sample.queues[name] = redis.queue(name, now)


def _info(redis: RedisReader, part: str) -> dict[str, Any]:
    try:
        return redis.info(part)
    except Exception:
        return {}
