"""What is said of a message when it is published, to the worker (in its headers) and to the server.

Every message gets the time of its publishing: brokers keep none, and how long the oldest one waits is
told by it. One that Beat sends also carries the entry it is for and the slot; Celery keeps these headers
on a retry, and hands them on to no other task.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from deadbeat.guard import guarded
from deadbeat.run import RunReporter

_sending = threading.local()
_reporter: RunReporter | None = None


def report_to(reporter: RunReporter) -> None:
    """Whom the handlers below tell of what is published in this process."""
    global _reporter
    _reporter = reporter


@contextmanager
def sending_entry(beat: str, entry: str | None, task: str | None, slot: str | None) -> Iterator[None]:
    """Say, for this task's publishing done inside by this thread, which entry and slot it is for."""
    before = getattr(_sending, "entry", None)
    _sending.entry = None if entry is None else (beat, str(entry), task, slot)
    try:
        yield
    finally:
        _sending.entry = before


@guarded
def on_before_task_publish(sender: Any = None, headers: dict[str, Any] | None = None, **_: Any) -> None:
    """Stamp the message; name the entry when Beat is sending one."""
    if headers is None:
        return
    now = headers["deadbeat_at"] = time.time()
    sending = getattr(_sending, "entry", None)
    if sending is None:
        return
    beat, entry, task, slot = sending
    if sender != task:
        # A task that publishes another one while it is being published: not the entry's own.
        return
    headers["deadbeat_beat"], headers["deadbeat_entry"] = beat, entry
    if slot is not None:
        headers["deadbeat_slot"] = slot
    headers.setdefault("deadbeat_first", now)


@guarded
def on_after_task_publish(
    sender: Any = None,
    headers: dict[str, Any] | None = None,
    exchange: Any = None,
    routing_key: Any = None,
    **_: Any,
) -> None:
    """The broker has taken a message."""
    if _reporter is None or not headers or "id" not in headers:
        return
    if headers.get("deadbeat_entry") or sender in _reporter.tracked:
        _reporter.published(str(sender), headers, exchange, routing_key)
