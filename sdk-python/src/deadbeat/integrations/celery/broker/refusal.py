"""Whether the broker takes what is sent to it, and if not, what it says: it may answer well and refuse that.

Redis refuses commands that write when its memory is full, when it is a replica, and when it cannot save. It
is asked with one that would write and cannot, as its list does not exist. RabbitMQ takes in nothing while
one of its alarms is on, and says so to connections that publish only: one message goes into a queue of our
own, which holds one at most and is gone with its connection.
"""

from __future__ import annotations

import contextlib
import socket
from typing import Any, Callable

from deadbeat._transport import timeouts
from deadbeat.integrations.celery.broker.queue import prefixed

# A list that nobody makes.
NO_LIST = "deadbeat.no.such.list"
WRITE = "LPUSHX"
PUBLISH = "basic.publish"
# How Redis begins what it says when a user may not do something: that is no fault of the broker.
_NOT_ALLOWED = ("NOPERM", "NoPermission", "no permissions", "unknown command")


def refused_by_redis(client: Any) -> str | None:
    """What Redis says to a command that writes; None: it would take it, or this user may not try."""
    from redis.exceptions import ConnectionError, ResponseError, TimeoutError

    try:
        client.execute_command(WRITE, prefixed(client, WRITE, NO_LIST), "")
    except (ConnectionError, TimeoutError):
        raise
    except ResponseError as refusal:
        said = f"{type(refusal).__name__}: {refusal}"
        return None if any(word in said for word in _NOT_ALLOWED) else said
    return None


class RabbitProbe:
    """A connection of its own on which one message is published at each look."""

    def __init__(self) -> None:
        self._connection: Any = None
        self._producer: Any = None
        self._queue: str | None = None
        self._blocked: str | None = None

    def look(self, connect: Callable[[], Any]) -> str | None:
        """What RabbitMQ says to who publishes; None: it takes it, or it could not be tried."""
        try:
            if self._connection is None:
                self._open(connect())
            self._publish()
        except Exception:
            # That it is away is seen by who reads; that this user may not publish is nobody's fault.
            self.close()
        return self._blocked

    def close(self) -> None:
        """Let go of the connection; its queue goes with it."""
        connection, self._connection, self._blocked = self._connection, None, None
        if connection is not None:
            with contextlib.suppress(Exception):
                connection.release()

    def _open(self, connection: Any) -> None:
        self._connection = connection
        connection.connect()
        under = connection.connection
        under.on_blocked = self._note_blocked
        under.on_unblocked = self._note_unblocked
        channel = connection.default_channel
        limits = {"x-max-length": 1}
        self._queue = channel.queue_declare("", exclusive=True, auto_delete=True, arguments=limits).queue

    def _publish(self) -> None:
        from kombu import Producer

        if self._blocked is None:
            # It reads nothing from a connection that it has blocked.
            producer = Producer(self._connection.default_channel, auto_declare=False)
            producer.publish("", routing_key=self._queue, serializer=None, content_type="text/plain")
        with contextlib.suppress(socket.timeout, TimeoutError):
            while True:
                self._connection.drain_events(timeout=timeouts.ALARM_SECONDS)

    def _note_blocked(self, reason: Any = None) -> None:
        self._blocked = str(reason or "blocked")[:200]

    def _note_unblocked(self, *_: Any) -> None:
        self._blocked = None
