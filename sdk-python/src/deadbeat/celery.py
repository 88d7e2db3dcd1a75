"""Celery's signals, turned into reports about runs; installed by `deadbeat.init`.

Only tasks that Beat sent are reported: they carry `deadbeat_entry` in their headers. The outcome is what
`task_postrun` says in the process that ran the task; what no task process can say any more (it was
killed, the task was revoked or expired) comes from the worker's main process. A retry keeps its run
open. Arguments, results and the text of exceptions stay here.

Handlers do no I/O and hold no lock: a soft time limit is an exception that can strike inside of them.
"""

from __future__ import annotations

import atexit
import os
import socket
import time
import uuid
from collections import OrderedDict
from typing import TYPE_CHECKING, Any
from weakref import WeakValueDictionary

from celery import signals
from celery.exceptions import Reject

from deadbeat.beat import CANARY, BeatReporter, on_before_task_publish
from deadbeat.guard import guarded
from deadbeat.transport import Transport, utc_text

if TYPE_CHECKING:
    from celery import Celery

    from deadbeat.config import Settings

EXIT_FLUSH_SECONDS = 2.0
CHILD_EXIT_FLUSH_SECONDS = 1.0
_REMEMBERED_RUNS = 10_000
_ERROR_TEXT_LIMIT = 500

# task_postrun's state → outcome. None: the process was told to exit in the middle of the task.
_OUTCOMES = {
    "SUCCESS": "success",
    "FAILURE": "failure",
    "IGNORED": "ignored",
    "REJECTED": "rejected",
    None: "aborted",
}

_reporter: RunReporter | None = None


class RunReporter:
    """What this process knows about runs: which are open here, and which were reported closed."""

    def __init__(self, app: Celery, settings: Settings, transport: Transport) -> None:
        self.app = app
        self.settings = settings
        self.transport = transport
        self.beat = settings.name or app.main or "celery"
        self.worker: str | None = None
        # (task id, retries) → [start, error]; only while the task runs in this process. Not by id alone:
        # a retry without countdown may start in another thread before this run has ended.
        self.open: dict[tuple[str, int], list[Any]] = {}
        # Requests the main process has taken in. Celery keeps them alive while they are of interest.
        self.received: WeakValueDictionary[str, Any] = WeakValueDictionary()
        # Some versions announce one end twice: (task id, retries, kind) already reported.
        self.closed: OrderedDict[tuple[str, int, str], None] = OrderedDict()

    def report(self, kind: str, task_id: str, request: Any, task_name: str, **fields: Any) -> None:
        """Queue one event about a run. Failures and canaries travel in the reserved lane."""
        entry = str(_header(request, "deadbeat_entry"))
        event = {
            "id": str(uuid.uuid4()),
            "type": kind,
            "at": utc_text(),
            "beat": str(_header(request, "deadbeat_beat") or self.beat),
            "entry": entry,
            "run_id": run_id_of(task_id),
            "task": task_name,
            "task_id": task_id,
            "worker": self.worker or _header(request, "hostname") or socket.gethostname(),
            "retries": _retries(request),
            **fields,
        }
        vital = entry == CANARY or fields.get("outcome", "success") != "success"
        self.transport.put(event, vital=vital)

    def finish(self, task_id: str, request: Any, task_name: str, outcome: str, **fields: Any) -> None:
        """Report the end of a run, once per outcome however often Celery announces it."""
        key = (task_id, _retries(request), outcome)
        if key in self.closed:
            return
        self.closed[key] = None
        if len(self.closed) > _REMEMBERED_RUNS:
            self.closed.popitem(last=False)
        fields.setdefault("duration_seconds", None)
        fields.setdefault("error", None)
        self.report("run_finished", task_id, request, task_name, outcome=outcome, **fields)

    def reopen(self, task_id: str, request: Any) -> None:
        """A message delivered again repeats id and retries; its end is a new one."""
        if self.closed:
            retries = _retries(request)
            for outcome in (*_OUTCOMES.values(), "revoked", "expired"):
                self.closed.pop((task_id, retries, outcome), None)

    def error_of(self, exception: Any) -> str:
        """The exception's class; with its text only when the user asked for that."""
        # Celery wraps what it could not pickle and keeps the true class name here.
        name = getattr(exception, "exc_cls_name", None) or type(exception).__name__
        if self.settings.send_error_text:
            return f"{name}: {exception}"[:_ERROR_TEXT_LIMIT]
        return str(name)


def install(app: Celery, settings: Settings) -> None:
    """Connect to Celery's signals and register the canary task; a second call changes nothing."""
    global _reporter
    if _reporter is not None:
        return
    transport = Transport(settings.url, settings.key, _process_label)
    _reporter = RunReporter(app, settings, transport)
    app.task(name=CANARY, ignore_result=True, shared=False)(_canary)
    for name, handler in (
        ("celeryd_after_setup", on_celeryd_after_setup),
        ("task_received", on_task_received),
        ("task_prerun", on_task_prerun),
        ("task_postrun", on_task_postrun),
        ("task_failure", on_task_failure),
        ("task_revoked", on_task_revoked),
        ("worker_process_shutdown", on_worker_process_shutdown),
        ("worker_shutdown", on_worker_shutdown),
        ("beat_init", on_beat_init),
    ):
        getattr(signals, name).connect(handler, weak=False, dispatch_uid=f"deadbeat.{name}")
    atexit.register(_on_exit)


def _canary() -> None:
    """Do nothing: that a worker ran it is the message."""


def run_id_of(task_id: str) -> str:
    """The task id, which a retry keeps; made into a UUID if the application chose another form."""
    try:
        return str(uuid.UUID(task_id))
    except ValueError:
        return str(uuid.uuid5(uuid.NAMESPACE_OID, task_id))


@guarded
def on_celeryd_after_setup(sender: Any = None, **_: Any) -> None:
    """Learn the node name before the pool is forked."""
    if _reporter is not None:
        _reporter.worker = str(sender)


@guarded
def on_task_received(request: Any = None, **_: Any) -> None:
    """Remember who is who: a failure announced in the main process names the task id only."""
    if _reporter is None or request is None:
        return
    if request.request_dict.get("deadbeat_entry") is not None:
        _reporter.received[request.id] = request
        _reporter.reopen(request.id, request.request_dict)


@guarded
def on_task_prerun(task_id: str = "", task: Any = None, **_: Any) -> None:
    """A run has started, here."""
    request = task.request
    if _reporter is None or not _is_beats(request):
        return
    _reporter.reopen(task_id, request)
    _reporter.open[task_id, _retries(request)] = [time.monotonic(), None]
    _reporter.report("run_started", task_id, request, task.name)


@guarded
def on_task_postrun(task_id: str = "", task: Any = None, state: Any = None, **_: Any) -> None:
    """The task function has returned, or its process was told to go: the state says which."""
    request = task.request
    if _reporter is None or not _is_beats(request):
        return
    started, error = _reporter.open.pop((task_id, _retries(request)), (None, None))
    if state == "RETRY":
        _reporter.report("run_retried", task_id, request, task.name)
        return
    _reporter.finish(
        task_id,
        request,
        task.name,
        # A state of the user's own making is an end like any other.
        _OUTCOMES.get(state, "ignored"),
        duration_seconds=None if started is None else round(time.monotonic() - started, 6),
        error=error,
    )


@guarded
def on_task_failure(sender: Any = None, task_id: str = "", exception: Any = None, **_: Any) -> None:
    """Note the exception for postrun; in the main process (child killed, time limit) report it."""
    if _reporter is None:
        return
    running = _reporter.open.get((task_id, _retries(sender.request)))
    if running is not None:
        running[1] = _reporter.error_of(exception)
        return
    request = _reporter.received.get(task_id)
    # 5.7 announces a rejected task once more as a failure, after postrun has said it all.
    if request is None or isinstance(exception, Reject):
        return
    _reporter.finish(
        task_id,
        request.request_dict,
        sender.name,
        "failure",
        error=_reporter.error_of(exception),
    )


@guarded
def on_task_revoked(sender: Any = None, request: Any = None, expired: bool = False, **_: Any) -> None:
    """The task will not run, or was stopped, because someone said so or it was too old."""
    if _reporter is None or not _is_beats(request):
        return
    if expired and _header(request, "deadbeat_entry") == CANARY:
        # The server has missed it already; after a long outage there may be thousands in the queue.
        return
    _reporter.finish(request.id, request, sender.name, "expired" if expired else "revoked")


@guarded
def on_worker_process_shutdown(**_: Any) -> None:
    """Pool children leave without running atexit hooks."""
    _flush(CHILD_EXIT_FLUSH_SECONDS)


@guarded
def on_worker_shutdown(**_: Any) -> None:
    """The main process of a worker ends in an orderly way."""
    _flush(EXIT_FLUSH_SECONDS)


@guarded
def _on_exit() -> None:
    _flush(EXIT_FLUSH_SECONDS)


def _flush(seconds: float) -> None:
    if _reporter is not None:
        _reporter.transport.flush_at_exit(seconds)


@guarded
def on_beat_init(sender: Any = None, **_: Any) -> None:
    """Beat starts: put ourselves around its scheduler."""
    if _reporter is None:
        return
    signals.before_task_publish.connect(
        on_before_task_publish, weak=False, dispatch_uid="deadbeat.before_task_publish"
    )
    if _reporter.worker is None:
        _reporter.worker = f"beat@{socket.gethostname()}"
    BeatReporter(
        sender.scheduler, _reporter.app, _reporter.settings, _reporter.transport, _reporter.beat
    ).wrap()


def _is_beats(request: Any) -> bool:
    """Whether Beat sent it. Called directly (`task()`, eager) it is the application's own business."""
    return not getattr(request, "is_eager", False) and bool(_header(request, "deadbeat_entry"))


def _header(request: Any, name: str) -> Any:
    # The main process has a plain dict of headers, a task process Celery's request object.
    return request.get(name) if isinstance(request, dict) else getattr(request, name, None)


def _retries(request: Any) -> int:
    return int(_header(request, "retries") or 0)


def _process_label() -> str:
    worker = _reporter.worker if _reporter is not None else None
    return f"{worker or socket.gethostname()}/{os.getpid()}"
