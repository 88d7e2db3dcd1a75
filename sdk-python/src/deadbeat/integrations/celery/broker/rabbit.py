"""Reads a RabbitMQ without taking a message, and finds out whether it accepts any.

RabbitMQ accepts nothing while one of its alarms is on, and informs publishing connections only. So the probe
publishes one message into a queue of its own, which holds one at most and goes with its connection.
"""

from __future__ import annotations

import contextlib
import socket
from typing import Any, Callable

from deadbeat._transport import timeouts
from deadbeat.integrations.celery.broker.identity import identity_digest
from deadbeat.integrations.celery.broker.queue import QueueSample

PUBLISH = "basic.publish"
# RabbitMQ's reply code about a queue that does not exist.
NOT_FOUND = 404


def rabbit_queue(connection: Any, name: str) -> QueueSample:
    """RabbitMQ's own count. A passive declaration only asks: it creates no queue, and changes none."""
    # A missing queue closes the channel that asked.
    channel = connection.channel()
    try:
        answer = channel.queue_declare(name, passive=True)
        return QueueSample(name, depth=answer.message_count, consumers=answer.consumer_count)
    except connection.channel_errors as refusal:
        # A missing queue is empty, as on Redis. About a queue that this user may not read nothing is known.
        is_missing = getattr(refusal, "reply_code", None) == NOT_FOUND
        return QueueSample(name, depth=0, consumers=0) if is_missing else QueueSample(name)
    finally:
        # The answer closed it already; a dead connection shows at the next queue.
        with contextlib.suppress(Exception):
            channel.close()


def identity_of_rabbit(connection: Any) -> str | None:
    """An id of this RabbitMQ cluster and its virtual host; None where it hides its id."""
    properties = getattr(connection.connection, "server_properties", None) or {}
    return identity_digest(properties.get("cluster_name"), connection.virtual_host)


class RabbitProbe:
    """A separate connection that publishes one message a sample."""

    def __init__(self) -> None:
        self._connection: Any = None
        self._producer: Any = None
        self._queue: str | None = None
        self._blocked: str | None = None

    def refusal(self, connect: Callable[[], Any]) -> str | None:
        """RabbitMQ's refusal of a publisher; None: it accepts messages, or the probe could not try."""
        try:
            if self._connection is None:
                self._open(connect())
            self._publish()
        except Exception:
            # The reading side reports an outage; a user without the right to publish is no fault.
            self.close()
        return self._blocked

    def close(self) -> None:
        """Close the connection; its queue goes with it."""
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
            # RabbitMQ reads nothing from a connection that it has blocked.
            producer = Producer(self._connection.default_channel, auto_declare=False)
            producer.publish("", routing_key=self._queue, serializer=None, content_type="text/plain")
        with contextlib.suppress(socket.timeout, TimeoutError):
            while True:
                self._connection.drain_events(timeout=timeouts.ALARM_SECONDS)

    def _note_blocked(self, reason: Any = None) -> None:
        self._blocked = str(reason or "blocked")[:200]

    def _note_unblocked(self, *_: Any) -> None:
        self._blocked = None
