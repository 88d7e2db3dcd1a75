"""Reads a RabbitMQ without taking a message, and finds out whether it takes in any.

RabbitMQ takes in nothing while one of its alarms is on, and says so to connections that publish only: one
message goes into a queue of our own, which holds one at most and is gone with its connection.
"""

from __future__ import annotations

import contextlib
import socket
from typing import Any, Callable

from deadbeat._transport import timeouts
from deadbeat.integrations.celery.broker.identity import identity_word
from deadbeat.integrations.celery.broker.queue import QueueSample

PUBLISH = "basic.publish"
# What RabbitMQ answers to a question about a queue that it does not have.
NOT_FOUND = 404


def rabbit_queue(connection: Any, name: str) -> QueueSample:
    """What RabbitMQ counts itself. A passive declaration only asks: it makes no queue, and alters none."""
    # A queue that does not exist costs the channel it is asked for on.
    channel = connection.channel()
    try:
        answer = channel.queue_declare(name, passive=True)
        return QueueSample(name, depth=answer.message_count, consumers=answer.consumer_count)
    except connection.channel_errors as refusal:
        # One that is not there holds nothing, as on Redis. Of one that may not be looked at nothing is known.
        is_missing = getattr(refusal, "reply_code", None) == NOT_FOUND
        return QueueSample(name, depth=0, consumers=0) if is_missing else QueueSample(name)
    finally:
        # Closed already, by the answer; a connection that is gone shows at the next queue.
        with contextlib.suppress(Exception):
            channel.close()


def identity_of_rabbit(connection: Any) -> str | None:
    """What stands for this cluster of RabbitMQ and its virtual host; None where it does not tell."""
    properties = getattr(connection.connection, "server_properties", None) or {}
    return identity_word(properties.get("cluster_name"), connection.virtual_host)


class RabbitProbe:
    """A connection of its own on which one message is published at each look."""

    def __init__(self) -> None:
        self._connection: Any = None
        self._producer: Any = None
        self._queue: str | None = None
        self._blocked: str | None = None

    def refusal(self, connect: Callable[[], Any]) -> str | None:
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
