"""A flag that one thread waits for and any code may set, also a signal handler.

`threading.Event.set` takes a lock. A signal handler that interrupts the holder of that lock would wait for
ever, and Celery announces a shutdown from inside a signal handler.
"""

from __future__ import annotations

import contextlib
import threading


class Wake:
    """Set or not; `wait` resets it. Setting never blocks."""

    __slots__ = ("_closed",)

    def __init__(self) -> None:
        self._closed = threading.Lock()
        self._closed.acquire()

    def is_set(self) -> bool:
        """Whether the next `wait` returns at once."""
        return not self._closed.locked()

    def set(self) -> None:
        """Wake the waiting thread, now or when it starts to wait."""
        if self._closed.locked():
            # Another thread may have set it just now.
            with contextlib.suppress(RuntimeError):
                self._closed.release()

    def wait(self, seconds: float | None = None) -> bool:
        """Wait until it is set, reset it and return true; false after the timeout."""
        return self._closed.acquire(timeout=-1 if seconds is None else max(0.0, seconds))

    def clear(self) -> None:
        """Reset it without waiting."""
        self._closed.acquire(blocking=False)
