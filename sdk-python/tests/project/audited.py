"""The application under audit in these tests: without faults, except for those that a test orders."""

from __future__ import annotations

import os
import time
from typing import Any

from celery import Celery, signals
from celery.worker.control import control_command

import deadbeat

# Applications print such lines, which must not get into a JSON document.
print("a line on standard output")
os.write(1, b"another one, past Python\n")

app = Celery("audited", broker=os.environ["CELERY_BROKER_URL"])
app.conf.task_time_limit = 1800
app.conf.beat_schedule = {
    "nightly": {
        "task": "audited.ok",
        "schedule": 3600.0,
        "options": {"queue": os.environ.get("NIGHTLY_QUEUE", "celery"), "expires": 600},
    },
}
deadbeat.init(app)

if os.environ.get("UNHOOKED"):
    # An application or one of its libraries may do this by mistake.
    signals.task_prerun.disconnect(dispatch_uid="deadbeat.task_prerun")


@app.task
def ok(value: int = 0) -> int:
    return value


@app.task
def waits(seconds: float = 60) -> None:
    time.sleep(seconds)


@control_command(args=[], signature="")
def ghost(state: Any) -> None:
    """Receive nothing more from the queues, and go on answering, as after some reconnects to Redis."""
    state.consumer.task_consumer.channel.qos.can_consume = lambda: False
