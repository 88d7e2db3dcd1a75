"""Carries events from the host's process to the server, in the background.

Promises: `put` takes microseconds, never blocks and never raises; memory is bounded and what is dropped
is counted and told to the server; one daemon thread per process, started at the first event and again
after a fork or a late patch by gevent; a dead, slow or refusing server costs the host nothing but at most
the flush at exit.
Delivery is at least once (events carry ids); it is not guaranteed: what a killed process had not sent is
lost, and the server's own deadlines are what notices that.
"""

from __future__ import annotations

import http.client
import json
import logging
import os
import random
import threading
import time
import uuid
import weakref
from datetime import datetime, timezone
from typing import Any, Callable

from deadbeat._transport import timeouts
from deadbeat._transport.guard import tell_once
from deadbeat._transport.lanes import Event, Lanes, Merge, Waiting
from deadbeat._transport.post import Connection, Reply
from deadbeat._transport.wake import Wake
from deadbeat.version import __version__

logger = logging.getLogger("deadbeat")

BATCH_LIMIT = 500
# Of the server's own words in a log line.
DETAIL_LIMIT = 500

_REJECTED = "rejected "

_encode = json.JSONEncoder(default=str, separators=(",", ":")).encode

# The second written last, with its text: each task needs several times of the same one.
_second: tuple[int, str] = (0, "1970-01-01T00:00:00")

_transports: weakref.WeakSet[Transport] = weakref.WeakSet()

# Of native threads, unless the threading module was patched before this module was imported.
_own_threads = threading.local()
_own_threads_kind: Any = threading.Lock


def enter_own_thread() -> None:
    """Note that this thread is the SDK's own."""
    # A greenlet after a late patch would mark the native thread that it shares with the application.
    if threading.Lock is _own_threads_kind:
        _own_threads.is_own = True


def is_own_thread() -> bool:
    """Whether this is a thread of the SDK, started before any late patch."""
    return getattr(_own_threads, "is_own", False)


class Duty:
    """Something that the sender's thread does every so often, between sending."""

    __slots__ = ("act", "due", "period")

    def __init__(self, period: float, act: Callable[[], None]) -> None:
        self.period = period
        self.act = act
        # On the monotonic clock.
        self.due = 0.0


def answer_seconds(body_bytes: int, to_exit: float | None) -> float:
    """How long the answer to a batch is waited for; `to_exit`: seconds until the process must have ended."""
    patience = min(
        timeouts.ANSWER_SECONDS + body_bytes / timeouts.ANSWER_BYTES_PER_SECOND,
        timeouts.LONGEST_ANSWER_SECONDS,
    )
    return patience if to_exit is None else min(patience, timeouts.ANSWER_SECONDS, max(0.1, to_exit))


def utc_text(timestamp: float | None = None) -> str:
    """An instant (seconds since 1970, None for now) as RFC 3339 in UTC with microseconds."""
    global _second
    if timestamp is None:
        timestamp = time.time()
    second = int(timestamp // 1)
    microseconds = round((timestamp - second) * 1e6)
    if microseconds == 1_000_000:
        second, microseconds = second + 1, 0
    known, text = _second
    if known != second:
        text = datetime.fromtimestamp(second, timezone.utc).strftime("%Y-%m-%dT%H:%M:%S")
        _second = second, text
    return f"{text}.{microseconds:06d}Z"


class _Process:
    """All that must not be shared with a forked child: made at the first report of a process, never repaired.

    A thread does not survive a fork and a lock may be held for ever in the child, so nothing of the
    parent's is reused; its waiting events stay the parent's to send. Nor do locks survive gevent's patching:
    a greenlet that waits for a lock made before stops every greenlet of its thread.
    """

    def __init__(self, url: str, key: str) -> None:
        self.pid = os.getpid()
        self.lock_kind = threading.Lock
        self.lanes = Lanes()
        self.connection = Connection(url, key)
        self.thread: threading.Thread | None = None
        self.starting = threading.Lock()
        self.wake = Wake()
        self.urgent = Wake()
        self.exiting = threading.Event()
        self.exit_deadline: float | None = None
        self.sending = False
        self.batch: list[Waiting] = []
        self.second_tries: list[tuple[float, Waiting]] = []
        self.duties: list[Duty] = []
        self.losses_told = 0
        self.history_losses_told = 0
        self.failures = 0
        self.server_errors = 0
        self.not_before = 0.0
        self.told: set[str] = set()

    def succeed(self, former: _Process) -> None:
        """Take over what waits, after gevent or eventlet has patched the threading module."""
        self.lanes, self.duties = former.lanes, former.duties
        self.losses_told, self.history_losses_told = former.losses_told, former.history_losses_told

    def has_work(self) -> bool:
        return bool(
            self.sending
            or self.batch
            or self.second_tries
            or len(self.lanes)
            or self.lanes.dropped > self.losses_told
        )

    def seconds_to_exit(self) -> float | None:
        """What an exit hook still grants, None when none is waiting."""
        if self.exit_deadline is None:
            return None
        left = self.exit_deadline - time.monotonic()
        return left if left > 0 else None


class Transport:
    """The way to one server for this process and every process forked from it.

    `process_label` names the process in loss reports; it is asked when one is made. `app` is the Celery
    application's name there. `on_sample_queues` is called in the sender's thread with what the server says
    about sampling the broker's queues, `on_attended_queues` with the queues that workers consume (None: the
    server does not say) after each `beat_alive`.
    """

    def __init__(self, url: str, key: str, process_label: Callable[[], str]) -> None:
        self._url = url
        self._key = key
        self._process_label = process_label
        self.app: str | None = None
        self.on_sample_queues: Callable[[bool, list[str]], None] | None = None
        self.on_attended_queues: Callable[[list[str] | None], None] | None = None
        # None before the first report: web servers patch and fork after the application called `init`.
        self._process: _Process | None = None
        # By process id and kind of lock.
        self._made: dict[tuple[int, Any], _Process] = {}
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
        """Queue one event. Vital and latest ones are sent at once, others within a second."""
        try:
            process = self._current()
            process.lanes.put(event, vital=vital, history=history, latest=latest, merge=merge)
            if vital or latest is not None:
                process.urgent.set()
            process.wake.set()
            if process.thread is None:
                self._start(process)
        except Exception:
            tell_once("Transport.put")

    def every(self, period: float, act: Callable[[], None]) -> Duty:
        """Call `act` now and then every so many seconds, in the sender's thread of this process.

        While the server does not answer it is called less often: what it would put could not be sent.
        """
        process = self._current()
        duty = Duty(period, act)
        process.duties.append(duty)
        process.wake.set()
        self._start(process)
        return duty

    def cease(self, duty: Duty) -> None:
        """Do it no more."""
        process = self._current()
        process.duties = [other for other in process.duties if other is not duty]

    def hurry(self, duty: Duty) -> None:
        """Have a duty done at once; may be called from a signal handler."""
        duty.due = 0.0
        process = self._current()
        process.urgent.set()
        process.wake.set()

    @property
    def dropped(self) -> int:
        """How many events this process has lost so far."""
        return 0 if self._process is None else self._process.lanes.dropped

    def flush_at_exit(self, seconds: float) -> bool:
        """Send what waits, for at most `seconds`; returns whether nothing is left.

        Several exit hooks may call this in one process: they share the first one's deadline, so that
        together they never hold up the exit for longer.
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
                # The interpreter no longer starts threads: send from here, within the deadline.
                self._send_once(process)
                if process.has_work():
                    time.sleep(0.05)
        # A worker stopped inside a living process (tests do that) goes on with its usual patience.
        process.exiting.clear()
        return not process.has_work()

    def reset_after_fork(self) -> None:
        """Start empty in a forked child."""
        self._process = None
        self._made = {}

    def _current(self) -> _Process:
        process = self._process
        pid, lock_kind = os.getpid(), threading.Lock
        # The fork hook does not run when C code forks.
        here = process if process is not None and process.pid == pid else None
        # A thread of ours from before the patch cannot start a greenlet that ever gets a turn.
        if here is not None and (here.lock_kind is lock_kind or is_own_thread()):
            return here
        fresh = _Process(self._url, self._key)
        if here is not None:
            fresh.succeed(here)
        # In one step: two threads may come here at the same time, and must go on with the same one.
        self._process = chosen = self._made.setdefault((pid, lock_kind), fresh)
        if here is not None:
            # Its thread, a native one, comes to rest.
            here.urgent.set()
            here.wake.set()
            self._start(chosen)
        return chosen

    def _start(self, process: _Process) -> None:
        # Not waiting for the lock: whoever holds it starts the thread that serves both.
        if not process.starting.acquire(blocking=False):
            return
        try:
            if process.thread is None:
                thread = threading.Thread(target=self._run, args=(process,), name="deadbeat", daemon=True)
                thread.start()
                process.thread = thread
        finally:
            process.starting.release()

    def _run(self, process: _Process) -> None:
        enter_own_thread()
        while True:
            try:
                self._wait(process)
                if process.pid != os.getpid():
                    return
                if process is not self._process:
                    self._hand_back(process)
                    self._rest(process)
                self._send_once(process)
            except Exception:
                tell_once("Transport._run")
                time.sleep(timeouts.FIRST_RETRY_SECONDS)

    @staticmethod
    def _hand_back(process: _Process) -> None:
        """Return what could not be sent to the lanes, which the successor's thread empties.

        That thread is not woken: its locks are greenlets', and this is another native thread.
        """
        for waiting in [*process.batch, *(waiting for _, waiting in process.second_tries)]:
            process.lanes.put_back(waiting)
        process.batch, process.second_tries = [], []

    @staticmethod
    def _rest(process: _Process) -> None:
        """Wait for the end of the process: the patched threading module fails when a native thread ends."""
        while True:
            process.wake.wait()

    def _wait(self, process: _Process) -> None:
        """Return when there is something to send and it may be sent now."""
        while not self._is_due(process):
            if process is not self._process:
                return
            if self._do_duties(process):
                continue
            process.wake.wait(self._pause(process))
        if not (process.batch or len(process.lanes) >= BATCH_LIMIT or process.exiting.is_set()):
            process.urgent.wait(timeouts.LINGER_SECONDS)
        process.urgent.clear()
        pause = process.not_before - time.monotonic()
        if pause <= 0:
            return
        if process.exiting.is_set() or process.exiting.wait(pause):
            # At exit there is no time for patience, but a refusing server is not to be hammered.
            time.sleep(min(pause, timeouts.EXIT_RETRY_SECONDS))

    def _is_due(self, process: _Process) -> bool:
        if process.batch or len(process.lanes) or self._second_try_due(process):
            return True
        # An exit waits for nothing. Without work the sender must not spin: that stops all other greenlets.
        return process.exiting.is_set() and process.has_work()

    @staticmethod
    def _pause(process: _Process) -> float | None:
        """How long there is nothing to do unless something comes; None, for ever."""
        dues = [duty.due for duty in process.duties]
        if process.second_tries:
            dues.append(process.second_tries[0][0])
        return max(0.01, min(dues) - time.monotonic()) if dues else None

    @staticmethod
    def _do_duties(process: _Process) -> bool:
        """Do what is due; returns whether anything was."""
        now = time.monotonic()
        due = [duty for duty in process.duties if duty.due <= now]
        for duty in due:
            # Those missed are not made up for.
            duty.due = duty.due + duty.period if duty.due > now - duty.period else now + duty.period
            try:
                duty.act()
            except Exception:
                tell_once("a duty of the sender")
        return bool(due)

    @staticmethod
    def _second_try_due(process: _Process) -> bool:
        return bool(process.second_tries) and process.second_tries[0][0] <= time.monotonic()

    def _next_batch(self, process: _Process) -> list[Waiting]:
        """What to send now: an unanswered batch again, without what became stale, and what has come since."""
        lanes = process.lanes
        while process.second_tries and (process.exiting.is_set() or self._second_try_due(process)):
            lanes.put_back(process.second_tries.pop(0)[1])
        batch = [waiting for waiting in process.batch if not lanes.is_superseded(waiting)]
        batch = lanes.merged(batch + lanes.take(BATCH_LIMIT - len(batch)))
        lost = lanes.dropped - process.losses_told
        # One beyond the limit, so that it is told although nothing may come after a full batch.
        if lost > 0 and not any(waiting.event["type"] == "client_loss" for waiting in batch):
            process.losses_told += lost
            history = lanes.dropped_history - process.history_losses_told
            process.history_losses_told += history
            batch.append(Waiting(-1, self._loss_event(lost, lost > history), None))
        return batch

    def _loss_event(self, lost: int, is_missed: bool) -> Event:
        return {
            "id": str(uuid.uuid4()),
            "type": "client_loss",
            "at": utc_text(),
            "dropped": lost,
            # What is lost of mere history leaves no gap in what the server judges.
            "app": self.app if is_missed else None,
            "process": self._process_label(),
        }

    def _send_once(self, process: _Process) -> None:
        """Try to deliver one batch; on failure it is kept, and `not_before` says when to try again."""
        # Set before events leave the lanes, so that `has_work` never overlooks those in between.
        process.sending = True
        try:
            # After a pause, so that what it says of a worker is not as old as the pause.
            self._do_duties(process)
            self._deliver(process)
        finally:
            process.sending = False

    def _deliver(self, process: _Process) -> None:
        process.batch = batch = self._next_batch(process)
        if not batch:
            return
        # One by one: encoding them all in one step would keep the tasks' threads waiting for milliseconds.
        events = ",".join([_encode(waiting.event) for waiting in batch])
        about = _encode({"sdk": {"name": "deadbeat-python", "version": __version__}, "sent_at": utc_text()})
        body = f'{about[:-1]},"events":[{events}]}}'.encode()
        patience = answer_seconds(len(body), process.seconds_to_exit())
        try:
            reply = process.connection.post(body, patience)
        except (OSError, http.client.HTTPException) as fault:
            self._tell(process, "unreachable", "cannot reach %s (%s)", self._url, _name(fault))
            self._retry_later(process, None)
            return
        self._settle(process, batch, reply)

    def _settle(self, process: _Process, batch: list[Waiting], reply: Reply) -> None:
        status = reply.status
        if 200 <= status < 300:
            if process.failures:
                logger.info("Deadbeat: reports are delivered again")
            process.failures = process.server_errors = 0
            process.not_before = 0.0
            # A rejection comes with an answer that is well otherwise: that must not let it be told again.
            process.told = {fault for fault in process.told if fault.startswith(_REJECTED)}
            process.batch = []
            self._read_verdicts(process, batch, reply.body)
        elif status in (401, 403):
            self._tell(process, "key", "%s refuses the key (%d)", self._url, status)
            self._retry_later(process, None)
            process.not_before = time.monotonic() + timeouts.REFUSED_KEY_SECONDS
        elif status >= 500 or status in (408, 425, 429):
            process.server_errors += status == 500
            self._tell(process, "unwell", "%s answers %d", self._url, status)
            if process.server_errors >= timeouts.SERVER_ERROR_TRIES:
                process.server_errors = 0
                self._drop(process, batch)
            self._retry_later(process, reply.retry_after)
        else:
            self._tell(process, "refused", "%s answers %d; a batch is dropped", self._url, status)
            self._drop(process, batch)
            self._retry_later(process, reply.retry_after)

    @staticmethod
    def _drop(process: _Process, batch: list[Waiting]) -> None:
        process.batch = []
        for waiting in batch:
            if waiting.event["type"] == "client_loss":
                # Told to nobody: the next report counts the same events again.
                process.losses_told -= waiting.event["dropped"]
            else:
                process.lanes.count_dropped()

    @staticmethod
    def _retry_later(process: _Process, asked_seconds: float | None) -> None:
        process.failures += 1
        pause = min(
            timeouts.LONGEST_RETRY_SECONDS,
            timeouts.FIRST_RETRY_SECONDS * 2.0 ** min(process.failures - 1, 10),
        )
        # Jitter spreads the workers that were cut off together.
        pause *= random.uniform(0.75, 1.0)
        if asked_seconds is not None:
            # Honoured up to our own longest pause: silence for longer would look like a death.
            pause = min(timeouts.LONGEST_RETRY_SECONDS, max(asked_seconds, timeouts.FIRST_RETRY_SECONDS))
            pause *= random.uniform(1.0, 1.1)
        process.not_before = time.monotonic() + pause

    def _read_verdicts(self, process: _Process, batch: list[Waiting], answer: bytes) -> None:
        try:
            results = json.loads(answer)["results"]
            rejected = {r["id"]: r for r in results if r.get("status") == "rejected"}
            wishes = [r for r in results if "sample_queues" in r]
        except (ValueError, KeyError, TypeError, AttributeError):
            # Accepted is accepted, whatever else the answer says.
            return
        if wishes and self.on_sample_queues is not None:
            names = _names(wishes[-1].get("queues")) or []
            self.on_sample_queues(wishes[-1]["sample_queues"] is True, names)
        if self.on_attended_queues is not None:
            # A Beat whose loop hangs is not told.
            ticked = [
                w.event for w in batch if w.event["type"] == "beat_alive" and w.event.get("ticking", True)
            ]
            alive = {event["id"] for event in ticked}
            heard = [r for r in results if r["id"] in alive and r.get("status") == "accepted"]
            if heard:
                self.on_attended_queues(_names(heard[-1].get("attended_queues")))
        if not rejected:
            return
        for waiting in batch:
            refusal = rejected.get(waiting.event["id"])
            if refusal is None:
                continue
            code, kind = refusal.get("code"), waiting.event["type"]
            if code == "unknown_entry" and kind.startswith("run_"):
                # Beat's first schedule may still be on its way.
                if not waiting.second_try:
                    waiting.second_try = True
                    process.second_tries.append((time.monotonic() + timeouts.SECOND_TRY_SECONDS, waiting))
            else:
                why = f"{code}: {str(refusal.get('detail') or 'no detail')[:DETAIL_LIMIT]}"
                self._tell(process, f"{_REJECTED}{code} {kind}", "a report (%s) was rejected: %s", kind, why)

    @staticmethod
    def _tell(process: _Process, fault: str, text: str, *details: Any) -> None:
        """Warn once per fault and process; of what kept reports from being delivered, once each time."""
        if fault not in process.told:
            process.told.add(fault)
            logger.warning("Deadbeat: " + text + "; the application is not affected", *details)


def _names(value: Any) -> list[str] | None:
    return [name for name in value if isinstance(name, str)] if isinstance(value, list) else None


def _name(fault: BaseException) -> str:
    return f"{type(fault).__name__}: {fault}" if str(fault) else type(fault).__name__


def _reset_all_after_fork() -> None:
    for transport in list(_transports):
        transport.reset_after_fork()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_reset_all_after_fork)
