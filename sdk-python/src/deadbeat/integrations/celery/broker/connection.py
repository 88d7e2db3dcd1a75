"""Connections to a broker with timeouts."""

from __future__ import annotations

import time
from typing import Any, Callable

# Kind of broker → kombu's options for the timeout of an answer.
_OPTIONS: dict[str, tuple[str, ...]] = {
    "redis": ("socket_timeout", "socket_connect_timeout"),
    "amqp": ("read_timeout", "write_timeout"),
}


def options_for(kind: str, seconds: float) -> dict[str, float]:
    """The options that set this timeout for each answer, for the client of this kind of broker."""
    return dict.fromkeys(_OPTIONS.get(kind, ()), seconds)


def impatient(connect: Callable[..., Any], seconds: float) -> Any:
    """A connection, not opened yet, with this timeout for each answer.

    `connect` is the app's method for one, such as `app.connection_for_read`.
    """
    connection = connect(connect_timeout=seconds)
    options = options_for(str(connection.transport.driver_type), seconds)
    connection.transport_options = {**(connection.transport_options or {}), **options}
    return connection


def connected(connect: Callable[..., Any], deadline: float) -> Any:
    """An open connection of the SDK's own, with each answer due before `deadline` (monotonic clock).

    Raises what the client raises.
    """
    connection = impatient(connect, max(0.1, deadline - time.monotonic()))
    # Each address once; by default kombu would begin again two seconds later.
    tries = max(1, len(connection.alt or ()))
    connection.ensure_connection(max_retries=tries - 1, interval_start=0, interval_step=0)
    return connection


def note_blocking(connection: Any, note: Callable[[], None]) -> None:
    """Have `note` called when RabbitMQ informs a publisher that an alarm is on and it accepts nothing.

    RabbitMQ then reads nothing more from this connection; the notice arrives where its events are drained.
    """
    if type(connection.transport).__module__ == "kombu.transport.pyamqp":
        connection.connection.on_blocked = lambda _: note()
