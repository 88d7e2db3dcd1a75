"""Carries events from the host's process to the server, in the background.

Promises: `put` takes microseconds, never blocks and never raises. Memory is bounded; the SDK counts dropped
events and reports the count. One daemon thread per process starts at the first event, and again after a
fork or a late patch by gevent. A dead, slow or refusing server costs the host at most the flush at exit.

Delivery is at least once (events carry ids), but not guaranteed: a killed process loses its unsent events,
and the server's own deadlines notice that.
"""

from __future__ import annotations

import os
import threading
import time
import weakref
from typing import Any, Callable

from deadbeat._transport import timeouts
from deadbeat._transport.buffer import Event, Merge
from deadbeat._transport.guard import log_once
from deadbeat._transport.process import Duty, Process, is_own_thread
from deadbeat._transport.sender import Sender

_transports: weakref.WeakSet[Transport] = weakref.WeakSet()


class Transport(Sender):
    """The connection to one server, for this process and every process forked from it."""

    def __init__(self, url: str, key: str, process_label: Callable[[], str]) -> None:
        super().__init__(url, process_label)
        self._key = key
        # By process id and kind of lock.
        self._made: dict[tuple[int, Any], Process] = {}
        _transports.add(self)

    def put(
        self,
        event: Event,
        *,
        vital: bool = False,
        history: bool = False,
        latest: str | None = None,
        merge: Merge | None = None,
    ) -> None:
        """Queue one event. Vital and latest ones go out at once, others within a second."""
        try:
            process = self._current()
            process.buffer.put(event, vital=vital, history=history, latest=latest, merge=merge)
            if vital or latest is not None:
                process.urgent.set()
            process.wake.set()
            if process.thread is None:
                self._start(process)
        except Exception:
            log_once("Transport.put")

    def every(self, period: float, act: Callable[[], None]) -> Duty:
        """Call `act` now and then every `period` seconds, in the sender's thread of this process.

        While the server does not answer the calls are rarer: their events could not be sent.
        """
        process = self._current()
        duty = Duty(period, act)
        process.duties.append(duty)
        process.wake.set()
        self._start(process)
        return duty

    def cease(self, duty: Duty) -> None:
        """Stop the duty."""
        process = self._current()
        process.duties = [other for other in process.duties if other is not duty]

    def hurry(self, duty: Duty) -> None:
        """Run a duty at once; a signal handler may call this."""
        duty.due = 0.0
        process = self._current()
        process.urgent.set()
        process.wake.set()

    @property
    def dropped(self) -> int:
        """How many events this process has lost so far."""
        return 0 if self._process is None else self._process.buffer.dropped

    def flush_at_exit(self, seconds: float) -> bool:
        """Send the queued events, for at most `seconds`; returns whether none is left.

        Several exit hooks may call this in one process. They share the deadline of the first one, so that
        together they do not delay the exit for longer.
        """
        if self._process is None:
            return True
        process = self._current()
        if not process.has_work():
            return True
        now = time.monotonic()
        if process.exit_deadline is None or now > process.exit_deadline + timeouts.EXIT_MEMORY_SECONDS:
            process.exit_deadline = now + seconds
        process.exiting.set()
        process.urgent.set()
        process.wake.set()
        while process.has_work() and time.monotonic() < process.exit_deadline:
            if process.thread is not None and process.thread.is_alive():
                time.sleep(0.005)
            else:
                # The interpreter starts no more threads: send from here, within the deadline.
                self._send_once(process)
                if process.has_work():
                    time.sleep(0.05)
        # A worker that stops inside a living process (as in tests) goes on with its usual timeouts.
        process.exiting.clear()
        return not process.has_work()

    def reset_after_fork(self) -> None:
        """Start empty in a forked child."""
        self._process = None
        self._made = {}

    def _current(self) -> Process:
        process = self._process
        pid, lock_kind = os.getpid(), threading.Lock
        # C code may fork without running the fork hook.
        here = process if process is not None and process.pid == pid else None
        # A thread of the SDK from before the patch cannot start a greenlet that ever runs.
        if here is not None and (here.lock_kind is lock_kind or is_own_thread()):
            return here
        fresh = Process(self._url, self._key)
        if here is not None:
            fresh.succeed(here)
        # In one step: two threads may come here at the same time, and must use the same object.
        self._process = chosen = self._made.setdefault((pid, lock_kind), fresh)
        if here is not None:
            # Its native thread goes to rest.
            here.urgent.set()
            here.wake.set()
            self._start(chosen)
        return chosen

    def _start(self, process: Process) -> None:
        # Do not wait for the lock: its holder starts the thread that serves both.
        if not process.starting.acquire(blocking=False):
            return
        try:
            if process.thread is None:
                thread = threading.Thread(target=self._run, args=(process,), name="deadbeat", daemon=True)
                thread.start()
                process.thread = thread
        finally:
            process.starting.release()


def _reset_all_after_fork() -> None:
    for transport in list(_transports):
        transport.reset_after_fork()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_reset_all_after_fork)
