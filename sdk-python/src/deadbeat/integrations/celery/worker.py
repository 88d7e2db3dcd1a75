"""A worker's snapshot, made inside its main process without asking the broker.

The sender's thread reads the figures: it goes on while the worker's loop stands still, which is what the
snapshot must report. A timer of the loop shows that the loop turns. A bootstep sets the timer up again after
each reconnect (Celery up to 5.5 forgets it then).
"""

from __future__ import annotations

import contextlib
import os
import socket
import time
from collections import Counter
from typing import Any, Callable, ClassVar, TypeVar

from celery import __version__ as celery_version
from celery import bootsteps
from celery.worker import state

from deadbeat._transport.clock import utc_text
from deadbeat._transport.guard import guarded
from deadbeat._transport.process import Duty
from deadbeat._transport.pulse import Pulse
from deadbeat.integrations.celery.cpu import CpuMeter
from deadbeat.integrations.celery.machine import boot_id
from deadbeat.integrations.celery.runs import refused
from deadbeat.integrations.celery.runs.reporter import RunReporter, new_id, run_id_of
from deadbeat.integrations.celery.runs.workflow import is_member

TICK_SECONDS = 1.0
# With more running runs than this, the snapshot does not list them.
MOST_RUNNING = 100
# How many names of running tasks the snapshot lists, each cut to the length below.
MOST_TASKS = 10
TASK_NAME_LIMIT = 200
# Of more rate limits than this, the snapshot lists those that delay most messages.
MOST_LIMITS = 20
# With more received messages than this, the snapshot does not count the unacknowledged ones.
MOST_HELD = 1_000
# The values of Celery's option --pool, where the module has another name.
_POOLS = {"thread": "threads"}
_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE") if hasattr(os, "sysconf") else 4096

_Figure = TypeVar("_Figure")


class WorkerReporter:
    """Reports one worker's state; made in its main process before the pool is forked."""

    def __init__(self, runs: RunReporter) -> None:
        self._runs = runs
        runs.incarnation = new_id()
        runs.result_backend.watch()
        self._pid = os.getpid()
        self._boot_id = boot_id()
        self._started_at = time.time()
        self._consumer: Any = None
        self._starts = 0
        self._ticked_at = time.monotonic()
        self._duty: Duty | None = None
        self._state = "running"
        # The last reported state: a change must not wait behind other reports.
        self._reported_state = "running"
        # Exit status and the reported text, if an error ended the worker.
        self._failure: tuple[int, str] | None = None
        self._pulse: Pulse | None = None
        self._cpu = CpuMeter()

    def consumer_started(self, consumer: Any) -> Any:
        """The worker consumes, for the first time or again; returns the timer to cancel at the next start."""
        self._consumer = consumer
        self._starts += 1
        self._tick()
        if self._duty is None:
            self._duty = self._runs.transport.every(self._runs.settings.worker_period, self._report)
            self._pulse = Pulse(self._runs.settings, self._snapshot)
            self._pulse.start()
        return consumer.timer.call_repeatedly(TICK_SECONDS, self._tick)

    def announce_end(self) -> None:
        """Report that the worker receives no more messages and ends after its tasks."""
        if self._duty is not None and self._state == "running":
            self._state = "stopping"
            self._runs.transport.hurry(self._duty)

    def note_error(self, error: BaseException | None, exit_code: Any) -> None:
        """Note the error that ends the worker; a request to stop is no error."""
        if self._state == "running" and isinstance(error, Exception) and type(exit_code) is int and exit_code:
            self._failure = exit_code, self._runs.error_of(error)

    def report_stopped(self) -> None:
        """Send the main process's last snapshot. Its pool children, which inherit this object, send none."""
        if self._duty is not None and self._pid == os.getpid() and self._state != "stopped":
            self._state = "stopped"
            if self._pulse is not None:
                self._pulse.stop()
            self._runs.transport.cease(self._duty)
            self._report()

    def has_children(self) -> bool:
        """Whether tasks run in child processes, which have their own last reports to send."""
        return self._pid == os.getpid() and _known(lambda: _pool_name(self._consumer.pool)) == "prefork"

    def queues(self) -> list[str]:
        """The queues consumed now; empty while the worker is not connected."""
        consumer = self._consumer and self._consumer.task_consumer
        return [str(queue.name) for queue in list(consumer.queues)] if consumer else []

    def _tick(self) -> None:
        self._ticked_at = time.monotonic()

    def _report(self) -> None:
        if self._pulse is not None:
            self._pulse.reported()
        event = self._snapshot()
        self._runs.result_backend.ask(event["result_backend"])
        if event["state"] == self._reported_state:
            self._runs.transport.put(event, latest="worker_snapshot")
        else:
            self._reported_state = event["state"]
            self._runs.transport.put(event, vital=True)

    def _snapshot(self) -> dict[str, Any]:
        consumer, runs = self._consumer, self._runs
        # In this order: a task accepted in between must not count as ended.
        accepted = _known(lambda: state.all_total_count[0])
        active = _known(lambda: len(state.active_requests))
        pids = _known(lambda: _pids(self._pid, consumer.pool)) or {self._pid}
        cpu = _known(lambda: self._cpu.measure(pids))
        return {
            "id": new_id(),
            "type": "worker_snapshot",
            "at": utc_text(),
            "app": runs.beat,
            "worker": runs.worker,
            "project": runs.project,
            "host": socket.gethostname(),
            "pid": self._pid,
            "incarnation": runs.incarnation,
            "boot_id": self._boot_id,
            "pool": _known(lambda: _pool_name(consumer.pool)),
            "processes": _known(lambda: _size(consumer.pool)),
            "celery": celery_version,
            "started_at": utc_text(self._started_at),
            "period_seconds": runs.settings.worker_period,
            "state": self._state,
            "active": active,
            "reserved": _known(lambda: len(state.reserved_requests)),
            "unacked": _known(_unacked),
            # Since 5.7.
            "scheduled": _known(lambda: len(getattr(state, "scheduled_requests"))),  # noqa: B009
            "accepted": accepted,
            "limited": _known(lambda: _limited(consumer)),
            "rate_limits": _known(lambda: _rate_limits(consumer)),
            "running": _known(_running),
            "running_tasks": _known(_running_tasks),
            "finished": None if accepted is None or active is None else max(0, accepted - active),
            "longest": _known(_longest),
            "queues": _known(self.queues) or [],
            "prefetch": _known(lambda: int(consumer.qos.value)),
            "connected": bool(_known(lambda: consumer.connection.connected)),
            "loop_lag_seconds": round(max(0.0, time.monotonic() - self._ticked_at - TICK_SECONDS), 3),
            "reconnects": self._starts - 1,
            "exit_code": None if self._failure is None else self._failure[0],
            "exit_error": None if self._failure is None else self._failure[1],
            "load_per_cpu": _known(_load_per_cpu),
            "result_backend": _known(lambda: runs.result_backend.report(pids)),
            "cpu_wait_ratio": None if cpu is None else cpu.waited,
            "cpu_used_ratio": None if cpu is None else cpu.used,
            "rss_bytes": _known(lambda: _resident_bytes(pids) or None),
        }


class Tick(bootsteps.StartStopStep):
    """Informs the reporter that the worker consumes, and keeps a timer running that shows its loop turns."""

    requires = ("celery.worker.consumer.tasks:Tasks",)
    # By the identity of their app.
    reporters: ClassVar[dict[int, WorkerReporter]] = {}

    def __init__(self, parent: Any, **options: Any) -> None:
        super().__init__(parent, **options)
        self._timer: Any = None

    @guarded
    def start(self, parent: Any) -> None:
        """The consumer has started, or started again after it lost its broker."""
        if self._timer is not None:
            # Its loop may be gone, and the timer with it.
            with contextlib.suppress(Exception):
                self._timer.cancel()
        reporter = Tick.reporters.get(id(parent.app))
        if reporter is not None:
            self._timer = reporter.consumer_started(parent)
            _watch_decoding(parent)

    def stop(self, parent: Any) -> None:
        """Stop nothing: while there is no broker, the loop's standstill must be reported."""


def _watch_decoding(consumer: Any) -> None:
    """Watch for unreadable bodies. Celery has no signal for them; it looks up its handler here."""
    known = consumer.on_decode_error
    if getattr(known, "is_deadbeat", False):
        return

    def on_decode_error(message: Any, exc: Exception) -> Any:
        refused.on_decode_error(consumer, message, exc)
        return known(message, exc)

    on_decode_error.is_deadbeat = True  # type: ignore[attr-defined]
    consumer.on_decode_error = on_decode_error


def _size(pool: Any) -> int:
    """How many tasks can run at once."""
    # Before Celery 5.5 gevent's pool counts the running tasks here.
    return int(pool.limit if pool.is_green else pool.num_processes)


def _known(read: Callable[[], _Figure]) -> _Figure | None:
    """A figure from inside the worker; None where this version, pool or moment does not have it."""
    try:
        return read()
    except Exception:
        return None


def _pool_name(pool: Any) -> str:
    name = type(pool).__module__.rpartition(".")[2]
    return _POOLS.get(name, name)


def _longest() -> dict[str, Any] | None:
    # Copy the values in one step: the main thread goes on adding and removing.
    running = [request for request in list(state.requests.values()) if request.time_start]
    if not running:
        return None
    oldest = min(running, key=lambda request: float(request.time_start))
    return {"task": oldest.name, "task_id": oldest.id, "started_at": utc_text(oldest.time_start)}


def _unacked() -> int | None:
    """Received messages that the broker still keeps; None when there are too many to count."""
    if len(state.reserved_requests) > MOST_HELD:
        return None
    # Ask the message: a request calls itself acknowledged once that is decided, but it happens when the
    # worker's loop turns again, which in the pool solo is after the task.
    return sum(not request.message.acknowledged for request in _reserved())


def _reserved() -> list[Any]:
    # The main thread goes on adding: then try again.
    for _ in range(3):
        with contextlib.suppress(RuntimeError):
            return list(state.reserved_requests)
    return list(state.reserved_requests)


def _limited(consumer: Any) -> int:
    """The number of messages that a rate limit delays."""
    buckets = [bucket for bucket in list(consumer.task_buckets.values()) if bucket is not None]
    return sum(len(bucket.contents) for bucket in buckets)


def _rate_limits(consumer: Any) -> list[dict[str, Any]]:
    """The rate limits that delay messages now, also those set at run time; of many, the fullest."""
    delayed = [
        (len(bucket.contents), str(name))
        for name, bucket in list(consumer.task_buckets.items())
        if bucket is not None and bucket.contents
    ]
    return [
        {"task": name, "rate": str(getattr(consumer.app.tasks[name], "rate_limit", None)), "held": count}
        for count, name in sorted(delayed, reverse=True)[:MOST_LIMITS]
    ]


def _running() -> list[str] | None:
    """The run ids that execute now, once per execution; None when there are too many to list."""
    if len(state.active_requests) > MOST_RUNNING:
        return None
    return [run_id_of(_run_of(request)) for request in list(state.active_requests)]


def _running_tasks() -> dict[str, int]:
    """The number of running tasks by name; the most frequent ones."""
    names = Counter(str(request.name)[:TASK_NAME_LIMIT] for request in list(state.active_requests))
    return dict(names.most_common(MOST_TASKS))


def _run_of(request: Any) -> str:
    """The task id that identifies the run; a member of a chord does not stand for its run."""
    message = request.request_dict
    run = None if is_member(message) else message.get("deadbeat_run")
    return run if isinstance(run, str) else str(request.id)


def _load_per_cpu() -> float:
    """The host's processes that run or want to, averaged over a minute, for each of its CPUs."""
    return round(os.getloadavg()[0] / (os.cpu_count() or 1), 2)


def _pids(pid: int, pool: Any) -> set[int]:
    """The process ids of the worker's main process and its pool."""
    processes = (_known(lambda: pool.info) or {}).get("processes") or []
    return {pid, *(child for child in processes if isinstance(child, int))}


def _resident_bytes(pids: set[int]) -> int:
    """The memory of these processes; shared pages count once in each."""
    return sum(_resident_pages(one) for one in pids) * _PAGE_BYTES


def _resident_pages(pid: int) -> int:
    try:
        with open(f"/proc/{pid}/statm", "rb") as statm:
            return int(statm.read().split()[1])
    except OSError:  # the child has just ended
        return 0
