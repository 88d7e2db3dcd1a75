"""What a broker shows of who else uses it: which broker it is, and who holds messages of its queues.

Redis does not tell who consumes a list. The messages that somebody has taken and not acknowledged are kept in
a hash, and name the queue that they came from. A queue of which some were taken lately has a consumer,
whatever program that is. Nothing is changed, and of each message only its address is kept.
"""

from __future__ import annotations

import hashlib
import json
from typing import Any, Callable

from deadbeat.integrations.celery.broker.queue import prefixed

# The newest so many are looked at, and none that is larger.
HELD_LIMIT = 100
HELD_BYTES = 65_536


def identity_of_redis(client: Any) -> str | None:
    """What stands for the Redis and the part of it that is used; None where it does not tell.

    By what it calls itself: one and the same goes by several addresses.
    """
    itself = client.info("server").get("run_id")
    database = client.connection_pool.connection_kwargs.get("db", 0)
    return _word_for(itself, database, getattr(client, "global_keyprefix", ""))


def identity_of_rabbit(connection: Any) -> str | None:
    """The same for RabbitMQ: its cluster and the virtual host."""
    properties = getattr(connection.connection, "server_properties", None) or {}
    return _word_for(properties.get("cluster_name"), connection.virtual_host)


def _word_for(itself: Any, *parts: Any) -> str | None:
    if not itself:
        return None
    return hashlib.sha256(json.dumps([str(itself), *map(str, parts)]).encode()).hexdigest()[:16]


def taken_lately(channel: Any, client: Any, queue_of: Callable[[Any, Any], str | None]) -> dict[str, float]:
    """Queue → when the newest message that is not acknowledged was taken from it (by its holder's clock)."""
    held, index = channel.unacked_key, channel.unacked_index_key
    newest = client.zrevrange(prefixed(client, "ZREVRANGE", index), 0, HELD_LIMIT - 1, withscores=True)
    taken: dict[str, float] = {}
    key = prefixed(client, "HSTRLEN", held)
    for tag, at in newest:
        if client.execute_command("HSTRLEN", key, tag) > HELD_BYTES:
            continue
        queue = _queue_of(client.hget(prefixed(client, "HGET", held), tag), queue_of)
        if queue is not None:
            taken[queue] = max(taken.get(queue, 0.0), float(at))
    return taken


def _queue_of(entry: bytes | None, queue_of: Callable[[Any, Any], str | None]) -> str | None:
    """The queue that a held message came from: kombu keeps it with exchange and routing key."""
    try:
        _, exchange, routing_key = json.loads(entry or b"")
    except (ValueError, TypeError):
        # Acknowledged meanwhile, or not kombu's.
        return None
    return queue_of(exchange, routing_key)
