"""Whether the result backend answers, as the application's own calls into it show.

A worker waits in `store_result` after a task's body has ended. Beat waits in `on_task_call` while it sends,
or in `remove_pending_result` when it lets go of what it got for that. These methods of the running backend
instance are timed; no class is patched. Pool children write what they see into memory that they share with
the worker's main process, whose snapshot reports it. A process that is neither a worker nor Beat times
nothing.

Not timed: a backend on the broker's own server, and those that use the broker (`rpc://`). Their trouble is
the broker's, which `sample` reports.
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
# A call that is under way for less is a slow answer, and no trouble.
HANGS_SECONDS = 2.0
# Processes of one worker that are told apart. Two of one place overwrite each other's record.
PLACES = 256
_ERROR_BYTES = 160
# Set on what a timed call raises because of the backend.
_MARK = "_deadbeat_result_backend"

# Process, start of the oldest call under way, start of the first and end of the last call that failed since
# the last answer, last answer. Times are seconds of the monotonic clock, which processes share; 0: none.
_RECORD = struct.Struct("=qdddd")
_RECORD_BYTES = _RECORD.size + _ERROR_BYTES


class Record(NamedTuple):
    """What one process has seen of one operation."""

    pid: int
    under_way: float
    first_failed: float
    last_failed: float
    answered: float


class _Operation:
    """One method of the backend, as this process sees it."""

    __slots__ = ("answered", "first_failed", "last_failed", "place", "under_way")

    def __init__(self, place: int) -> None:
        self.place = place
        # Thread or greenlet → start of its call, the oldest first. A leftover of a call that a signal broke
        # off is overwritten by the next one.
        self.under_way: dict[int, float] = {}
        self.first_failed = self.last_failed = self.answered = 0.0


class ResultBackend:
    """The calls of one app into its result backend, of this process and of those forked from it."""

    def __init__(self, app: Celery) -> None:
        self._app: Any = app
        self._board: mmap.mmap | None = None
        self._pid = os.getpid()
        self._operations = [_Operation(place) for place in range(len(OPERATIONS))]
        self._probe: Probe | None = None
        self._address: str | None = None
        # By operation: it was in trouble, as last reported here.
        self._was_troubled = [False] * len(OPERATIONS)

    @guarded
    def watch(self) -> None:
        """Time the calls of this process and of those that it will fork; a second call changes nothing."""
        if self._board is not None:
            return
        backend = self._app.backend
        if not is_elsewhere(self._app, backend):
            return
        # Most applications have none that is watched, and web processes never come here.
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
        """What these processes see of the backend; None where it is not watched. Called by the sender."""
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
                # Where the call before has failed, by a short timeout perhaps, the next one waits as well.
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
            # Sending says little of storing: it counts for who had its trouble there.
            if place == 0 or self._was_troubled[place]:
                answers.append(answered)
            self._was_troubled[place] |= is_troubled
        answered = max(answers)
        said["answered_at"] = _instant(answered, now) if answered else None
        return said

    def ask(self, said: dict[str, Any] | None) -> None:
        """Look for ourselves while there is trouble: the application may not call the backend for hours."""
        if said is not None and said["operation"] is not None and self._probe is not None:
            self._probe.want()

    @staticmethod
    def is_at_fault(fault: BaseException) -> bool:
        """Whether this came out of a call that is timed: the broker's client may raise the same classes."""
        one: BaseException | None = fault
        for _ in range(6):
            if one is None:
                return False
            if getattr(one, _MARK, False):
                return True
            one = one.__cause__ or one.__context__
        return False

    def _timed(self, backend: Any) -> Any:
        """Put ourselves around these methods of an instance."""
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
            # Nothing here swallows an exception: a soft time limit may strike anywhere.
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
            # The host's own exception is on its way.
            log_once("the timing of the result backend")

    def _write(self, operation: _Operation) -> None:
        try:
            under_way = next(iter(operation.under_way.values()), 0.0)
        except RuntimeError:
            # Another thread has come or gone meanwhile: it writes.
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
        # The parent's calls go on in the parent. The dicts stay: what is timed has them at hand.
        self._pid = os.getpid()
        for operation in self._operations:
            operation.under_way.clear()
            operation.first_failed = operation.last_failed = operation.answered = 0.0


def _instant(moment: float, now: float) -> str:
    """A moment of the monotonic clock as UTC."""
    return utc_text(time.time() - (now - moment))
