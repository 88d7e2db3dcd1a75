"""One sampled queue of a broker."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass
class QueueSample:
    """One queue; fields are None where the broker and its messages do not show them."""

    name: str
    # Waiting messages, without those that workers have received.
    depth: int | None = None
    oldest_seconds: float | None = None
    # The message has no time stamp: its age is the known minimum.
    oldest_is_a_guess: bool = False
    oldest_task: str | None = None
    # Counted by the broker (AMQP only).
    consumers: int | None = None
    # A digest of the next message. While it changes somebody consumes the queue.
    head: str | None = None
    # How long ago a worker took the newest of its unacknowledged messages.
    taken_seconds: float | None = None
