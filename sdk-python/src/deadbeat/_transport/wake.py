"""A flag that one thread waits for and any code may set, also a signal handler.

`threading.Event` takes a lock to be set. A signal handler that strikes while its own thread holds that
lock would wait for ever, and Celery announces a shutdown from inside a signal handler.
"""

from __future__ import annotations

import contextlib
import threading


class Wake:
    """Set or not; `wait` takes the setting back. Setting never blocks."""

    __slots__ = ("_closed",)

    def __init__(self) -> None:
        self._closed = threading.Lock()
        self._closed.acquire()

    def is_set(self) -> bool:
        """Whether the next `wait` returns at once."""
        return not self._closed.locked()

    def set(self) -> None:
        """Let the one who waits go on, now or when it comes to wait."""
        if self._closed.locked():
            # It may be that another thread has just set it.
            with contextlib.suppress(RuntimeError):
                self._closed.release()

    def wait(self, seconds: float | None = None) -> bool:
        """Wait until it is set, take that back and return true; false after so many seconds."""
        return self._closed.acquire(timeout=-1 if seconds is None else max(0.0, seconds))

    def clear(self) -> None:
        """Take back a setting that nobody has waited for."""
        self._closed.acquire(blocking=False)
