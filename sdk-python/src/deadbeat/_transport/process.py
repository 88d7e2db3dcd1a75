"""The reporting state of one process. A forked child neither inherits nor repairs it."""

from __future__ import annotations

import os
import threading
import time
from typing import Any, Callable

from deadbeat._transport.buffer import EventBuffer, QueuedEvent
from deadbeat._transport.post import Connection
from deadbeat._transport.wake import Wake

# Of native threads, unless threading was patched before this import.
_own_threads = threading.local()
_own_threads_kind: Any = threading.Lock


def enter_own_thread() -> None:
    """Mark this thread as the SDK's own."""
    # After a late patch a greenlet would mark the native thread that it shares with the application.
    if threading.Lock is _own_threads_kind:
        _own_threads.is_own = True


def is_own_thread() -> bool:
    """Whether this is a thread of the SDK, started before any late patch."""
    return getattr(_own_threads, "is_own", False)


class Duty:
    """Something that the sender's thread does periodically, between sending."""

    __slots__ = ("act", "due", "period")

    def __init__(self, period: float, act: Callable[[], None]) -> None:
        self.period = period
        self.act = act
        # On the monotonic clock.
        self.due = 0.0


class Process:
    """Everything that a forked child must not share: made at the first report of a process, never repaired.

    A thread does not survive a fork, and a lock may stay held in the child. So the child reuses nothing of
    its parent, and the parent sends its own queued events. Locks do not survive gevent's patching either: a
    greenlet that waits for a lock made before stops every greenlet of its thread.
    """

    def __init__(self, url: str, key: str) -> None:
        self.pid = os.getpid()
        self.lock_kind = threading.Lock
        self.buffer = EventBuffer()
        self.connection = Connection(url, key)
        self.thread: threading.Thread | None = None
        self.starting = threading.Lock()
        self.wake = Wake()
        self.urgent = Wake()
        self.exiting = threading.Event()
        self.exit_deadline: float | None = None
        self.sending = False
        self.batch: list[QueuedEvent] = []
        self.second_tries: list[tuple[float, QueuedEvent]] = []
        self.duties: list[Duty] = []
        self.losses_reported = 0
        self.history_losses_reported = 0
        self.failures = 0
        self.server_errors = 0
        self.not_before = 0.0
        self.warned: set[str] = set()

    def succeed(self, former: Process) -> None:
        """Take over the queued events, after gevent or eventlet has patched the threading module."""
        self.buffer, self.duties = former.buffer, former.duties
        self.losses_reported, self.history_losses_reported = (
            former.losses_reported,
            former.history_losses_reported,
        )

    def has_work(self) -> bool:
        return bool(
            self.sending
            or self.batch
            or self.second_tries
            or len(self.buffer)
            or self.buffer.dropped > self.losses_reported
        )

    def seconds_to_exit(self) -> float | None:
        """The seconds that an exit hook still grants, None without such a hook."""
        if self.exit_deadline is None:
            return None
        left = self.exit_deadline - time.monotonic()
        return left if left > 0 else None
