"""Celery's signals, handed to what reports about runs, workers and Beat; installed by `deadbeat.init`.

Handlers do no I/O and hold no lock: a soft time limit is an exception that can strike inside of them, and
Celery announces a shutdown from inside a signal handler. What is not tracked leaves them at once.
"""

from __future__ import annotations

import atexit
import os
import socket
from typing import TYPE_CHECKING, Any

from celery import signals
from celery.exceptions import Reject

from deadbeat import publish
from deadbeat.beat import BeatReporter
from deadbeat.follow import stage_of
from deadbeat.guard import guarded
from deadbeat.run import CANARY, End, RunReporter, error_name
from deadbeat.sample import Sampler
from deadbeat.transport import Transport
from deadbeat.worker import Tick, WorkerReporter

if TYPE_CHECKING:
    from celery import Celery

    from deadbeat.config import Settings

# For the last reports of all processes of a worker together. Its children end first, side by side, and then
# its main process does.
EXIT_FLUSH_SECONDS = 2.0
CHILD_EXIT_FLUSH_SECONDS = 1.0

_reporter: RunReporter | None = None
_worker: WorkerReporter | None = None


def install(app: Celery, settings: Settings) -> None:
    """Connect to Celery's signals and register the canary task; a second call changes nothing."""
    global _reporter
    if _reporter is not None:
        return
    transport = Transport(settings.url, settings.key, _process_label)
    _reporter = RunReporter(app, settings, transport)
    transport.on_sample_queues = Sampler(_reporter, _consumed_queues).ask
    publish.report_to(_reporter)
    app.task(name=CANARY, ignore_result=True, shared=False)(_canary)
    app.steps["consumer"].add(Tick)
    for name, handler in (
        ("before_task_publish", publish.on_before_task_publish),
        ("after_task_publish", publish.on_after_task_publish),
        ("celeryd_after_setup", on_celeryd_after_setup),
        ("task_received", on_task_received),
        ("task_prerun", on_task_prerun),
        ("task_postrun", on_task_postrun),
        ("task_failure", on_task_failure),
        ("task_retry", on_task_retry),
        ("task_revoked", on_task_revoked),
        ("worker_process_shutdown", on_worker_process_shutdown),
        ("worker_shutting_down", on_worker_shutting_down),
        ("worker_shutdown", on_worker_shutdown),
        ("beat_init", on_beat_init),
    ):
        getattr(signals, name).connect(handler, weak=False, dispatch_uid=f"deadbeat.{name}")
    atexit.register(_on_exit)


def installed() -> RunReporter | None:
    """What reports in this process; None when `install` was not called."""
    return _reporter


def _canary() -> None:
    """Do nothing: that a worker ran it is the message."""


@guarded
def on_celeryd_after_setup(sender: Any = None, **_: Any) -> None:
    """Learn the node name before the pool is forked."""
    global _worker
    if _reporter is not None:
        _reporter.worker = str(sender)
        _worker = Tick.reporter = WorkerReporter(_reporter)


@guarded
def on_task_received(request: Any = None, **_: Any) -> None:
    """A message has come, in the worker's main process."""
    if _reporter is None or request is None:
        return
    if request.request_dict.get("deadbeat_entry") or request.task.name in _reporter.tracked:
        _reporter.receive(request)


@guarded
def on_task_prerun(task_id: str = "", task: Any = None, **_: Any) -> None:
    """A run has started, here."""
    request = task.request
    if _reporter is not None and _reporter.is_tracked(request, task.name):
        _reporter.start(task_id, request, task.name)


@guarded
def on_task_postrun(task_id: str = "", task: Any = None, state: Any = None, **_: Any) -> None:
    """The task function has returned, or its process was told to go."""
    request = task.request
    if _reporter is not None and _reporter.is_tracked(request, task.name):
        _reporter.end_attempt(task_id, request, task, state)


@guarded
def on_task_failure(sender: Any = None, task_id: str = "", exception: Any = None, **_: Any) -> None:
    """Note the exception for postrun; in the main process (child killed, time limit) report it."""
    if _reporter is None:
        return
    attempt = _reporter.open.get((task_id, stage_of(sender.request)))
    if attempt is not None:
        attempt.error, attempt.error_name = _reporter.error_of(exception), error_name(exception)
    # 5.7 announces a rejected task once more as a failure, after postrun has said it all.
    elif not isinstance(exception, Reject):
        _reporter.end_from_outside(task_id, sender.name, exception)


@guarded
def on_task_retry(sender: Any = None, request: Any = None, reason: Any = None, **_: Any) -> None:
    """Note for postrun why it is retried; without a reason it is a cold shutdown that says so."""
    cause = getattr(reason, "exc", None)
    if _reporter is None or cause is None:
        return
    attempt = _reporter.open.get((request.id, stage_of(request)))
    if attempt is not None:
        attempt.error = _reporter.error_of(cause)


@guarded
def on_task_revoked(sender: Any = None, request: Any = None, expired: bool = False, **_: Any) -> None:
    """The task will not run, or was stopped, because someone said so or it was too old."""
    if _reporter is None or not _reporter.is_tracked(request, sender.name):
        return
    if expired and request.get("deadbeat_entry") == CANARY:
        # The server has missed it already; after a long outage there may be thousands in the queue.
        return
    _reporter.finish(request.id, request, sender.name, End("expired" if expired else "revoked"))


@guarded
def on_worker_process_shutdown(**_: Any) -> None:
    """Pool children leave without running atexit hooks."""
    _flush(CHILD_EXIT_FLUSH_SECONDS)


@guarded
def on_worker_shutting_down(**_: Any) -> None:
    """A worker was told to end: its silence, later, is no death. Called inside a signal handler."""
    if _worker is not None:
        _worker.announce_end()


@guarded
def on_worker_shutdown(**_: Any) -> None:
    """The main process of a worker ends in an orderly way."""
    _end()


@guarded
def _on_exit() -> None:
    # A cold shutdown sends no worker_shutdown.
    _end()


def _end() -> None:
    seconds = EXIT_FLUSH_SECONDS
    if _worker is not None:
        _worker.say_stopped()
        if _worker.has_children():
            seconds -= CHILD_EXIT_FLUSH_SECONDS
    _flush(seconds)


def _flush(seconds: float) -> None:
    if _reporter is not None:
        _reporter.transport.flush_at_exit(seconds)


@guarded
def on_beat_init(sender: Any = None, **_: Any) -> None:
    """Beat starts: put ourselves around its scheduler."""
    if _reporter is None:
        return
    if _reporter.worker is None:
        _reporter.worker = f"beat@{socket.gethostname()}"
    BeatReporter(sender.scheduler, _reporter).wrap()


def _consumed_queues() -> list[str]:
    return [] if _worker is None else _worker.queues()


def _process_label() -> str:
    worker = _reporter.worker if _reporter is not None else None
    return f"{worker or socket.gethostname()}/{os.getpid()}"
