"""Reports for a worker whose greenlets compute: a native thread says that the process lives.

Where gevent or eventlet has patched threads, the sender is a greenlet. A task that computes without waiting
stops it, and the server would take the silent worker for dead. The native thread reports while the sender is
late, and does nothing otherwise. A dead process has no such thread. A task that holds the interpreter's lock
stops this thread, too.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
import time
from typing import TYPE_CHECKING, Any, Callable

from deadbeat._transport import timeouts
from deadbeat._transport.clock import utc_text
from deadbeat._transport.post import Connection
from deadbeat.version import __version__

if TYPE_CHECKING:
    from deadbeat.config import Settings

POLL_SECONDS = 1.0
# The sender may pause for a moment: it is late when it misses half a period, and two seconds at least.
LATE_PERIODS = 1.5
LATE_SECONDS = 2.0

Start = Callable[[Callable[[], None], "tuple[()]"], Any]
Sleep = Callable[[float], None]


class Pulse:
    """Reports in place of a late sender; only where threads are greenlets."""

    def __init__(self, settings: Settings, snapshot: Callable[[], dict[str, Any]]) -> None:
        self._settings = settings
        self._snapshot = snapshot
        self._pid = os.getpid()
        self._reported_at = time.monotonic()
        self._is_over = False

    def start(self) -> None:
        """Start the native thread where it is needed."""
        native = native_threads()
        if native is not None:
            start, sleep = native
            start(lambda: self._run(sleep), ())

    def reported(self) -> None:
        """Note that the sender has reported."""
        self._reported_at = time.monotonic()

    def stop(self) -> None:
        """The worker ends: nothing may contradict its last snapshot."""
        self._is_over = True

    def _run(self, sleep: Sleep) -> None:
        # Use no lock and no logger: both belong to greenlets of another thread, and could stop them.
        connection: Connection | None = None
        posted_at = 0.0
        while not self._is_over and self._pid == os.getpid():
            sleep(POLL_SECONDS)
            with contextlib.suppress(Exception):
                now = time.monotonic()
                if not self._is_late(now):
                    if connection is not None:
                        connection.close()
                        connection = None
                elif now - posted_at >= self._settings.worker_period:
                    posted_at = now
                    connection = connection or Connection(self._settings.url, self._settings.key)
                    connection.post(self._body(), timeouts.ANSWER_SECONDS)

    def _is_late(self, now: float) -> bool:
        return now - self._reported_at >= max(LATE_SECONDS, LATE_PERIODS * self._settings.worker_period)

    def _body(self) -> bytes:
        batch = {
            "sdk": {"name": "deadbeat-python", "version": __version__},
            "sent_at": utc_text(),
            "events": [self._snapshot()],
        }
        return json.dumps(batch, default=str).encode()


def native_threads() -> tuple[Start, Sleep] | None:
    """Functions to start a native thread and to sleep in it; None where threads are native anyway."""
    gevent = sys.modules.get("gevent.monkey")
    if gevent is not None and gevent.is_module_patched("threading"):
        return gevent.get_original("_thread", "start_new_thread"), gevent.get_original("time", "sleep")
    eventlet = sys.modules.get("eventlet.patcher")
    if eventlet is not None and eventlet.is_monkey_patched("thread"):
        return eventlet.original("_thread").start_new_thread, eventlet.original("time").sleep
    return None
