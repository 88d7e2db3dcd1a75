"""An application that calls `init` in a handler of the signal that WHERE names."""

from __future__ import annotations

import os
from typing import Any

from celery import Celery, signals

import deadbeat

app = Celery("late", broker=os.environ["CELERY_BROKER_URL"])
app.conf.worker_hijack_root_logger = False


def init(**_: Any) -> None:
    deadbeat.init(app)
    deadbeat.init(app)


getattr(signals, os.environ["WHERE"]).connect(init, weak=False)
