"""A web application that sends a tracked task for each request; run by real web servers."""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import Any, Callable

from celery import Celery

import deadbeat

app = Celery("web", broker=os.environ["CELERY_BROKER_URL"])
deadbeat.init(app, track=["web.*"])


@app.task
def work() -> None:
    """No worker runs it."""


if os.environ.get("SEND_AT_IMPORT"):
    # The first report comes before the web server forks, and before it patches anything.
    work.delay()


def application(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
    """Send a task and answer its id."""
    task_id = work.delay().id.encode()
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", str(len(task_id)))])
    return [task_id]
