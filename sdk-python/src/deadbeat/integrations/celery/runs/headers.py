"""Stamps a message when it is published, for the worker (headers) and for the server (event).

Every message gets the time of its publishing: brokers keep none, and the age of the oldest message needs it.
A message of Beat also carries its entry and the slot. Parts of a run that the run itself publishes get its
headers: `follow` says which those are.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from celery._state import get_current_worker_task

from deadbeat._transport.guard import guarded
from deadbeat.integrations.celery.apps import reporter_of, reporters
from deadbeat.integrations.celery.runs.reporter import RunReporter
from deadbeat.integrations.celery.runs.workflow import RUN_HEADERS, carried, stage_of

# What this thread or greenlet is sending for Beat: the reporter, the entry, the entry's task and slot.
_sending: ContextVar[tuple[RunReporter, str, str | None, str | None] | None] = ContextVar(
    "deadbeat_sending", default=None
)


@contextmanager
def sending_entry(runs: RunReporter, entry: str | None, task: str | None, slot: str | None) -> Iterator[None]:
    """Mark this task's publishing by this thread, inside the context, as a sending of this entry and slot."""
    before = _sending.set(None if entry is None else (runs, str(entry), task, slot))
    try:
        yield
    finally:
        _sending.reset(before)


@guarded
def on_before_task_publish(
    sender: Any = None, headers: dict[str, Any] | None = None, body: Any = None, **_: Any
) -> None:
    """Stamp the message and name the run to which it belongs."""
    if headers is None:
        return
    now = time.time()
    ours: dict[str, Any] = {"deadbeat_at": now}
    sending = _sending.get()
    # Publishing the entry's task may publish another task: that one is not the entry's.
    if sending is not None and sending[2] == sender:
        runs, entry, _task, slot = sending
        ours.update(deadbeat_beat=runs.beat, deadbeat_entry=entry)
        if slot is not None:
            ours["deadbeat_slot"] = slot
        ours["deadbeat_first"] = headers.get("deadbeat_first", now)
    elif (task := get_current_worker_task()) is not None and task.request.id is not None:
        ours.update(_of_run(task, headers, body))
    _write(headers, ours)


def _of_run(task: Any, headers: dict[str, Any], body: Any) -> dict[str, Any]:
    """The run headers of a message that a running task publishes.

    Other vendors nest a dict in the headers, and a retry republishes only that: the running task's own
    request is the only reliable source. Another task's message belongs to another run, even if the
    application passes on all headers of its request.
    """
    request, reporter = task.request, reporter_of(task.app)
    attempt = None if reporter is None else reporter.open.get((request.id, stage_of(request)))
    ours = carried(request, attempt, headers, body)
    for name in RUN_HEADERS:
        headers.pop(name, None)
    return ours


def _write(headers: dict[str, Any], ours: dict[str, Any]) -> None:
    """Write into the message's headers, and into the dict that sentry-sdk and ddtrace nest in them.

    Celery takes a task's `request.headers` from the nested dict when there is one, and a retry republishes
    those (celery#4875). The nested dict may be the application's own: it is replaced, not changed.
    """
    headers.update(ours)
    nested = headers.get("headers")
    if isinstance(nested, dict):
        others = {name: value for name, value in nested.items() if name not in RUN_HEADERS}
        headers["headers"] = {**others, **ours}


@guarded
def on_after_task_publish(
    sender: Any = None,
    headers: dict[str, Any] | None = None,
    exchange: Any = None,
    routing_key: Any = None,
    **_: Any,
) -> None:
    """Report that the broker has accepted a message."""
    if not headers or "id" not in headers:
        return
    runs = _publisher(str(sender))
    if runs is not None and (headers.get("deadbeat_entry") or sender in runs.tracked):
        runs.published(str(sender), headers, exchange, routing_key)


def _publisher(task_name: str) -> RunReporter | None:
    """The reporter of the publishing app, which Celery does not name."""
    sending = _sending.get()
    if sending is not None:
        return sending[0]
    task = get_current_worker_task()
    if task is not None:
        return reporter_of(task.app)
    all_of_them = reporters()
    # With several apps in a web process: one that tracks and knows the task, else one that tracks it.
    tracking = [runs for runs in all_of_them if len(all_of_them) == 1 or task_name in runs.tracked]
    knowing = [runs for runs in tracking if len(tracking) == 1 or task_name in runs.app.tasks]
    return next(iter([*knowing, *tracking]), None)
