"""Reports messages that a worker refuses before any task begins: unknown task or content type.

Celery drops them with a line in the worker's log. Their headers name the entry, so the run ends as
rejected, with the worker's reason, instead of missing.
"""

from __future__ import annotations

from typing import Any

from deadbeat._transport.guard import guarded
from deadbeat.integrations.celery import apps
from deadbeat.integrations.celery.runs.reporter import End, error_name

_REASON_LIMIT = 200


@guarded
def on_task_rejected(sender: Any = None, message: Any = None, exc: Any = None, **_: Any) -> None:
    """The worker does not accept the content type of a message, or finds no valid task in it."""
    _refuse(sender, message, exc, f"content type {message.content_type}")


@guarded
def on_task_unknown(sender: Any = None, message: Any = None, name: Any = None, **_: Any) -> None:
    """No module that the worker imports defines this task."""
    _refuse(sender, message, None, f"unknown task {name}")


@guarded
def on_decode_error(consumer: Any, message: Any, exc: Any) -> None:
    """The worker cannot read a message's body; Celery acknowledges it and announces nothing."""
    _refuse(consumer, message, exc, f"content type {message.content_type}")


def _refuse(consumer: Any, message: Any, exc: Any, what: str) -> None:
    reporter, headers = apps.reporter_of(consumer.app), message.headers
    # Another program's message has no headers of Celery, and belongs to no run.
    if reporter is None or not headers or not headers.get("id"):
        return
    request = {**headers, "delivery_info": message.delivery_info}
    task_name = str(headers.get("task"))
    if not reporter.is_tracked(request, task_name):
        return
    task_id = str(headers["id"])
    # The same message may have been sent again after a refusal.
    reporter.reopen(task_id, request)
    # Both are names from the headers, never a part of the body, which an exception may quote.
    reason = what if exc is None else f"{error_name(exc)}: {what}"
    reporter.finish(task_id, request, task_name, End("rejected", reason[:_REASON_LIMIT]))
