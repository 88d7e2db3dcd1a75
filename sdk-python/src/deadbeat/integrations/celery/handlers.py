"""Connects Celery's signals with the reporters of runs, workers and Beat; `deadbeat.init` installs them.

Handlers do no I/O and hold no lock: a soft time limit is an exception that can interrupt them, and
Celery announces a shutdown from inside a signal handler. They return at once for untracked tasks.
"""

from __future__ import annotations

import atexit
import logging
import os
import socket
import sys
import time
from typing import TYPE_CHECKING, Any

from celery import signals
from celery.exceptions import Reject

from deadbeat._transport import timeouts
from deadbeat._transport.guard import guarded
from deadbeat._transport.transport import Transport
from deadbeat.integrations.celery import apps
from deadbeat.integrations.celery.ends import failed_to_start
from deadbeat.integrations.celery.late import started_before
from deadbeat.integrations.celery.runs import headers as publish
from deadbeat.integrations.celery.runs import refused
from deadbeat.integrations.celery.runs.reporter import CANARY, End, RunReporter, error_name
from deadbeat.integrations.celery.runs.workflow import stage_of
from deadbeat.integrations.celery.worker import Tick, WorkerReporter

if TYPE_CHECKING:
    from celery import Celery

    from deadbeat.config import Settings
    from deadbeat.integrations.celery.beat import BeatReporter

logger = logging.getLogger("deadbeat")

# By the identity of their app.
_workers: dict[int, WorkerReporter] = {}
_beats: dict[int, BeatReporter] = {}


def install(app: Celery, settings: Settings) -> None:
    """Connect to Celery's signals and register the canary task; a second call for an app changes nothing."""
    app = apps.actual_app(app)
    if apps.reporter_of(app) is not None:
        return
    _warn_if_late(app)
    transport = Transport(settings.url, settings.key, lambda: _process_label(reporter))
    reporter = RunReporter(app, settings, transport)
    if any(other.beat == reporter.beat for other in apps.reporters()):
        logger.warning(
            "Deadbeat: two apps of this process have the name %s; set name= of one to distinguish them",
            reporter.beat,
        )
    app.task(name=CANARY, ignore_result=True, shared=False)(_canary)
    app.steps["consumer"].add(Tick)
    apps.add(reporter)
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
        ("task_rejected", refused.on_task_rejected),
        ("task_unknown", refused.on_task_unknown),
        ("worker_process_shutdown", on_worker_process_shutdown),
        ("worker_shutting_down", on_worker_shutting_down),
        ("worker_shutdown", on_worker_shutdown),
        ("beat_init", on_beat_init),
        ("beat_embedded_init", on_beat_embedded_init),
    ):
        getattr(signals, name).connect(handler, weak=False, dispatch_uid=f"deadbeat.{name}")
    atexit.register(_on_exit)


def _make_sampler(reporter: RunReporter) -> None:
    # A process may be a worker and a Beat.
    if reporter.transport.on_sample_queues is not None:
        return
    # The server asks workers and Beats only: other processes need not load the readers of brokers.
    from deadbeat.integrations.celery.broker.sampler import Sampler

    app = reporter.app
    reporter.transport.on_sample_queues = Sampler(reporter, lambda: _consumed_queues(app)).ask


def _make_beat(reporter: RunReporter) -> BeatReporter:
    # A worker need not load the readers of schedules.
    from deadbeat.integrations.celery.beat import BeatReporter

    return BeatReporter(reporter)


def _warn_if_late(app: Celery) -> None:
    running = started_before(app)
    if running is not None:
        logger.warning(
            "Deadbeat: init was called after %s had started, so it does not report; call deadbeat.init(app) "
            "where the app is made, not in a handler of beat_init, worker_ready or worker_process_init",
            running,
        )


def _canary() -> None:
    """Do nothing: the report of its run is the purpose."""


@guarded
def on_celeryd_after_setup(sender: Any = None, instance: Any = None, **_: Any) -> None:
    """Learn the node name before the pool is forked."""
    reporter = apps.reporter_of(instance.app)
    if reporter is not None:
        reporter.worker = str(sender)
        _make_sampler(reporter)
        _workers[id(reporter.app)] = Tick.reporters[id(reporter.app)] = WorkerReporter(reporter)


@guarded
def on_task_received(request: Any = None, **_: Any) -> None:
    """Report that the worker's main process has received a message."""
    reporter = None if request is None else apps.reporter_of(request.task.app)
    if reporter is None:
        return
    if request.request_dict.get("deadbeat_entry") or request.task.name in reporter.tracked:
        reporter.receive(request)


@guarded
def on_task_prerun(task_id: str = "", task: Any = None, **_: Any) -> None:
    """Report that a run has started in this process."""
    reporter, request = apps.reporter_of(task.app), task.request
    if reporter is not None and reporter.is_tracked(request, task.name):
        reporter.start(task_id, request, task)


@guarded
def on_task_postrun(task_id: str = "", task: Any = None, state: Any = None, **_: Any) -> None:
    """Report that the task function has returned, or that its process must exit."""
    reporter, request = apps.reporter_of(task.app), task.request
    if reporter is not None and reporter.is_tracked(request, task.name):
        reporter.end_attempt(task_id, request, task, state)


@guarded
def on_task_failure(sender: Any = None, task_id: str = "", exception: Any = None, **_: Any) -> None:
    """Note the exception for postrun; in the main process (child killed, time limit) report it."""
    reporter = apps.reporter_of(sender.app)
    if reporter is None:
        return
    attempt = reporter.open.get((task_id, stage_of(sender.request)))
    if attempt is not None:
        attempt.error, attempt.error_name = reporter.error_of(exception), error_name(exception)
    # Celery 5.7 announces a rejected task again as a failure, after postrun reported it. It does the same to
    # a run whose result could not be stored; postrun has reported how its body ended.
    elif not isinstance(exception, Reject) and not reporter.result_backend.is_at_fault(exception):
        reporter.end_from_outside(task_id, sender.name, exception)


@guarded
def on_task_retry(sender: Any = None, request: Any = None, reason: Any = None, **_: Any) -> None:
    """Keep the reason of a retry for postrun; without a reason a cold shutdown announces it."""
    cause = getattr(reason, "exc", None)
    reporter = None if cause is None else apps.reporter_of(sender.app)
    if reporter is None:
        return
    attempt = reporter.open.get((request.id, stage_of(request)))
    if attempt is not None:
        attempt.error = reporter.error_of(cause)


@guarded
def on_task_revoked(sender: Any = None, request: Any = None, expired: bool = False, **_: Any) -> None:
    """Report a task that will not run or was stopped, because somebody revoked it or it expired."""
    reporter = apps.reporter_of(sender.app)
    if reporter is None or not reporter.is_tracked(request, sender.name):
        return
    if expired and request.get("deadbeat_entry") == CANARY:
        # The server has missed it already, and after a long outage there may be thousands in the queue.
        return
    reporter.finish(request.id, request, sender.name, End("expired" if expired else "revoked"))


@guarded
def on_worker_process_shutdown(**_: Any) -> None:
    """Flush: pool children end without running atexit hooks."""
    _flush(timeouts.CHILD_EXIT_FLUSH_SECONDS)


@guarded
def on_worker_shutting_down(**_: Any) -> None:
    """Report that the worker stops, so that its silence is no loss. Called inside a signal handler."""
    for worker in list(_workers.values()):
        worker.announce_end()


@guarded
def on_worker_shutdown(sender: Any = None, **_: Any) -> None:
    """Report that a worker's main process ends, in order or by an error."""
    worker = _workers.get(id(getattr(sender, "app", None)))
    if worker is not None:
        # Celery stops a worker inside its handler for errors from which it cannot recover.
        worker.note_error(sys.exc_info()[1], getattr(sender, "exitcode", None))
    _end()


@guarded
def _on_exit() -> None:
    _note_failed_start()
    # A cold shutdown sends no worker_shutdown.
    _end()


@guarded
def _note_failed_start() -> None:
    app = failed_to_start()
    reporter = None if app is None else apps.reporter_of(app)
    if reporter is not None:
        _beats.setdefault(id(reporter.app), _make_beat(reporter))


def _end() -> None:
    seconds = timeouts.EXIT_FLUSH_SECONDS
    for beat in list(_beats.values()):
        beat.report_end()
    for worker in list(_workers.values()):
        worker.report_stopped()
        if worker.has_children():
            seconds = timeouts.EXIT_FLUSH_SECONDS - timeouts.CHILD_EXIT_FLUSH_SECONDS
    _flush(seconds)


def _flush(seconds: float) -> None:
    # All apps of the process share this time.
    deadline = time.monotonic() + seconds
    for reporter in apps.reporters():
        reporter.transport.flush_at_exit(max(0.0, deadline - time.monotonic()))


@guarded
def on_beat_init(sender: Any = None, **_: Any) -> None:
    """Beat starts: wrap its scheduler."""
    reporter = apps.reporter_of(sender.app)
    if reporter is None:
        return
    if reporter.worker is None:
        reporter.worker = f"beat@{socket.gethostname()}"
    _make_sampler(reporter)
    beat = _beats[id(reporter.app)] = _make_beat(reporter)
    beat.wrap(sender.scheduler)


@guarded
def on_beat_embedded_init(sender: Any = None, **_: Any) -> None:
    """Beat starts in a process that a worker has forked."""
    beat = _beats.get(id(getattr(sender, "app", None)))
    if beat is not None:
        beat.note_embedded()


def _consumed_queues(app: Any) -> list[str]:
    worker = _workers.get(id(app))
    return [] if worker is None else worker.queues()


def _process_label(reporter: RunReporter) -> str:
    return f"{reporter.worker or socket.gethostname()}/{os.getpid()}"
