"""Finds out from the application's own calls whether the result backend answers.

A worker waits in `store_result` after a task's body has ended. Beat waits in `on_task_call` while it sends,
or in `remove_pending_result` when it gives up that result. The SDK times these methods of the running backend
instance and patches no class. Pool children write their figures into memory that they share with the worker's
main process, whose snapshot reports them. A process that is neither a worker nor Beat times nothing.

Not timed: a backend on the broker's own server, and those that use the broker (`rpc://`). Their faults are
the broker's, which `broker_sample` reports.
"""

from __future__ import annotations

import contextlib
import functools
import mmap
import os
import struct
import threading
import time
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Callable, NamedTuple

from deadbeat._transport.clock import utc_text
from deadbeat._transport.guard import guarded, log_once
from deadbeat.integrations.celery.result_backend.fault import address_of, fault_of, is_elsewhere, words_of

if TYPE_CHECKING:
    from celery import Celery

    from deadbeat.integrations.celery.result_backend.probe import Probe

OPERATIONS = ("store_result", "on_task_call", "remove_pending_result")
# A call that takes less is slow, but no fault.
HANGS_SECONDS = 2.0
# The maximum of processes of one worker. Two with the same place overwrite each other's record.
PLACES = 256
_ERROR_BYTES = 160
# Set on an exception that a timed call raises because of the backend.
_MARK = "_deadbeat_result_backend"

# Process, start of the oldest call under way, start of the first and end of the last call that failed since
# the last answer, last answer. Times are seconds of the monotonic clock, which processes share; 0: none.
_RECORD = struct.Struct("=qdddd")
_RECORD_BYTES = _RECORD.size + _ERROR_BYTES


class Record(NamedTuple):
    """One process's figures of one operation."""

    pid: int
    under_way: float
    first_failed: float
    last_failed: float
    answered: float


class _Operation:
    """One method of the backend, in this process."""

    __slots__ = ("answered", "first_failed", "last_failed", "place", "under_way")

    def __init__(self, place: int) -> None:
        self.place = place
        # Thread or greenlet → start of its call, the oldest first. If a signal interrupts a call, its
        # leftover stays until the next call overwrites it.
        self.under_way: dict[int, float] = {}
        self.first_failed = self.last_failed = self.answered = 0.0


class ResultBackend:
    """One app's calls into its result backend, in this process and those forked from it."""

    def __init__(self, app: Celery) -> None:
        self._app: Any = app
        self._board: mmap.mmap | None = None
        self._pid = os.getpid()
        self._operations = [_Operation(place) for place in range(len(OPERATIONS))]
        self._probe: Probe | None = None
        self._address: str | None = None
        # By operation: whether the last report had a fault.
        self._was_troubled = [False] * len(OPERATIONS)

    @guarded
    def watch(self) -> None:
        """Time the calls of this process and of its future children; a second call changes nothing."""
        if self._board is not None:
            return
        backend = self._app.backend
        if not is_elsewhere(self._app, backend):
            return
        # Most applications have no timed backend, and web processes never come here.
        from deadbeat.integrations.celery.result_backend.probe import Probe

        self._address = address_of(backend)
        self._probe = Probe(self._app)
        self._board = mmap.mmap(-1, PLACES * len(OPERATIONS) * _RECORD_BYTES)
        os.register_at_fork(after_in_child=self._after_fork)
        # Celery makes one backend for each thread.
        make = self._app._get_backend

        @functools.wraps(make)
        def make_timed(*args: Any, **kwargs: Any) -> Any:
            return self._timed(make(*args, **kwargs))

        self._app._get_backend = make_timed
        self._timed(backend)

    def report(self, pids: Iterable[int]) -> dict[str, Any] | None:
        """The state of the backend as these processes see it; None where it is not timed.

        The sender's thread calls this.
        """
        if self._board is None or self._probe is None:
            return None
        now, pids = time.monotonic(), set(pids)
        said: dict[str, Any] = {
            "address": self._address,
            "answered_at": None,
            "operation": None,
            "since": None,
            "last_at": None,
            "hanging": 0,
            "failing": 0,
            "error": None,
        }
        answers = []
        for place, name in enumerate(OPERATIONS):
            records = [record for pid in pids if (record := self._read(place, pid)) is not None]
            answered = max([self._probe.answered_at, *(record.answered for record in records)])
            hanging = [
                since
                for record in records
                if record.under_way
                # If the call before failed, perhaps by a short timeout, the next one counts as waiting.
                and (
                    now - (since := max(record.under_way, answered)) >= HANGS_SECONDS
                    or record.last_failed > answered
                )
            ]
            failing = [record for record in records if record.last_failed > answered]
            is_troubled = bool(hanging or failing)
            if is_troubled and said["operation"] is None:
                first = min([*hanging, *(max(record.first_failed, answered) for record in failing)])
                last = now if hanging else max(record.last_failed for record in failing)
                worst = max(failing, key=lambda record: record.last_failed, default=None)
                said.update(
                    operation=name,
                    since=_instant(first, now),
                    last_at=_instant(max(last, self._probe.failed_at), now),
                    hanging=len(hanging),
                    failing=len(failing),
                    error=self._error_of(place, worst) if worst is not None else self._probe.error,
                )
            # An answer to sending says little about storing: it counts for processes with a fault there.
            if place == 0 or self._was_troubled[place]:
                answers.append(answered)
            self._was_troubled[place] |= is_troubled
        answered = max(answers)
        said["answered_at"] = _instant(answered, now) if answered else None
        return said

    def ask(self, said: dict[str, Any] | None) -> None:
        """Probe the backend while there is a fault: the application may not call it for hours."""
        if said is not None and said["operation"] is not None and self._probe is not None:
            self._probe.want()

    @staticmethod
    def is_at_fault(fault: BaseException) -> bool:
        """Whether a timed call raised this: the broker's client may raise the same classes."""
        one: BaseException | None = fault
        for _ in range(6):
            if one is None:
                return False
            if getattr(one, _MARK, False):
                return True
            one = one.__cause__ or one.__context__
        return False

    def _timed(self, backend: Any) -> Any:
        """Wrap these methods of an instance."""
        for operation, name in zip(self._operations, OPERATIONS):
            method = getattr(backend, name, None)
            if method is not None and not hasattr(method, "deadbeat_times"):
                with contextlib.suppress(AttributeError):
                    setattr(backend, name, self._around(backend, operation, method))
        return backend

    def _around(self, backend: Any, operation: _Operation, method: Callable[..., Any]) -> Callable[..., Any]:
        under_way, monotonic, caller = operation.under_way, time.monotonic, threading.get_ident

        @functools.wraps(method)
        def timed(*args: Any, **kwargs: Any) -> Any:
            # Swallow no exception here: a soft time limit may strike anywhere.
            started = under_way[caller()] = monotonic()
            self._write(operation)
            try:
                answer = method(*args, **kwargs)
            except BaseException as fault:
                under_way.pop(caller(), None)
                self._note_failure(backend, operation, started, fault)
                self._write(operation)
                raise
            under_way.pop(caller(), None)
            operation.answered, operation.first_failed = monotonic(), 0.0
            self._write(operation)
            return answer

        timed.deadbeat_times = True  # type: ignore[attr-defined]
        return timed

    def _note_failure(
        self, backend: Any, operation: _Operation, started: float, fault: BaseException
    ) -> None:
        try:
            of_backend = fault_of(backend, fault)
            if of_backend is None or self._board is None:
                return
            operation.first_failed = operation.first_failed or started
            operation.last_failed = time.monotonic()
            words = words_of(of_backend).encode("utf-8", "replace")[:_ERROR_BYTES].ljust(_ERROR_BYTES, b"\0")
            start = self._offset(operation.place, self._pid) + _RECORD.size
            self._board[start : start + _ERROR_BYTES] = words
            setattr(fault, _MARK, True)
        except Exception:
            # The host's own exception is being raised.
            log_once("the timing of the result backend")

    def _write(self, operation: _Operation) -> None:
        try:
            under_way = next(iter(operation.under_way.values()), 0.0)
        except RuntimeError:
            # Another thread came or went meanwhile: it writes.
            return
        _RECORD.pack_into(
            self._board,  # type: ignore[arg-type]  # made before anything is timed
            self._offset(operation.place, self._pid),
            self._pid,
            under_way,
            operation.first_failed,
            operation.last_failed if operation.first_failed else 0.0,
            operation.answered,
        )

    def _read(self, place: int, pid: int) -> Record | None:
        record = Record(*_RECORD.unpack_from(self._board, self._offset(place, pid)))  # type: ignore[arg-type]
        return record if record.pid == pid else None

    def _error_of(self, place: int, record: Record) -> str | None:
        if self._board is None:
            return None
        start = self._offset(place, record.pid) + _RECORD.size
        words = self._board[start : start + _ERROR_BYTES].rstrip(b"\0").decode("utf-8", "ignore")
        return words or None

    @staticmethod
    def _offset(place: int, pid: int) -> int:
        return (pid % PLACES * len(OPERATIONS) + place) * _RECORD_BYTES

    def _after_fork(self) -> None:
        # The parent's calls continue in the parent. Keep the dicts: timed methods refer to them.
        self._pid = os.getpid()
        for operation in self._operations:
            operation.under_way.clear()
            operation.first_failed = operation.last_failed = operation.answered = 0.0


def _instant(moment: float, now: float) -> str:
    """An instant of the monotonic clock as UTC."""
    return utc_text(time.time() - (now - moment))
