"""A worker of another application on the same broker, with the SDK or without it.

It knows the shop's task by name, and receives its messages from the same queue.
"""

from __future__ import annotations

import os
import time
from typing import Any

from celery import Celery

app = Celery("foreign", broker=os.environ["CELERY_BROKER_URL"])
app.conf.worker_prefetch_multiplier = 1
if os.environ.get("FOREIGN_WITH_SDK") == "1":
    import deadbeat

    deadbeat.init(app)


@app.task(name="shop.job", ignore_result=True)
def job(name: str, seconds: float = 0.0, **_: Any) -> None:
    """Takes as long as its sender says."""
    time.sleep(seconds)
