"""One queue of a broker, as it was read."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass
class QueueSample:
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
