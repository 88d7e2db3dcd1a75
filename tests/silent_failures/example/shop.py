"""The example application. Files hold its schedule, its settings, and what each task does when it runs.

A test changes the files between two starts, as a deployment does, or while everything runs, as faults do.
"""

from __future__ import annotations

import json
import os
import signal
import time
from pathlib import Path
from typing import Any

from celery import Celery, chain, chord, group
from celery.beat import PersistentScheduler
from celery.exceptions import Reject
from celery.schedules import crontab
from celery.worker.control import control_command

import deadbeat

FOLDER = Path(os.environ["SHOP_FOLDER"])


def read(name: str) -> Any:
    return json.loads((FOLDER / name).read_text())


app = Celery("shop", broker=os.environ["CELERY_BROKER_URL"])
app.conf.update(read("settings.json"))
app.conf.beat_schedule = {
    name: {
        **entry,
        # A number of seconds, or the five fields of a crontab.
        "schedule": crontab.from_string(entry["schedule"])
        if isinstance(entry["schedule"], str)
        else entry["schedule"],
        "args": [name],
    }
    for name, entry in read("schedule.json").items()
}
deadbeat.init(app)


class Unreachable(Exception):
    """Something that the task needs is away: a retry may help."""


@app.task(bind=True, name="shop.job", ignore_result=True, max_retries=2)
def job(self: Any, name: str) -> None:
    """Carry out the current order; a healthy task has none."""
    order = FOLDER / "orders" / name
    try:
        verb, _, rest = order.read_text().partition(" ")
    except FileNotFoundError:
        return
    begun = FOLDER / "pids" / name
    if verb == "first" and not begun.exists():
        # The task has nothing to do this time.
        begun.write_text(f"{os.getpid()} {self.request.id}")
        return
    if verb in ("alone", "poison") and begun.exists() and begun.read_text().split()[1] != self.request.id:
        # For one run, however often its message is delivered.
        return
    begun.write_text(f"{os.getpid()} {self.request.id}")
    if verb in ("sleep", "first"):
        time.sleep(float(rest))
    elif verb == "compute":
        end = time.monotonic() + float(rest)
        while time.monotonic() < end:
            pass
    elif verb == "burn":
        end = time.process_time() + float(rest)
        while time.process_time() < end:
            pass
    elif verb in ("hold", "alone"):
        end = time.monotonic() + float(rest or "inf")
        while order.exists() and time.monotonic() < end:
            time.sleep(0.1)
    elif verb == "fail":
        raise ValueError(rest)
    elif verb == "retry":
        raise self.retry(exc=Unreachable(rest), countdown=0.2)
    elif verb == "once":
        if self.request.retries == 0:
            raise self.retry(exc=Unreachable(rest), countdown=0.2)
    elif verb == "reject":
        raise Reject(rest, requeue=False)
    elif verb in ("kill", "poison"):
        # Celery's child has reported by then that it began. If it dies earlier, the report is lost with it.
        time.sleep(float(rest))
        os.kill(os.getpid(), signal.SIGKILL)


@app.task(name="shop.limited", ignore_result=True, rate_limit="2/s")
def limited(name: str) -> None:
    """A task of which a worker begins at most two a second."""


@app.task(name="shop.step")
def step(value: int = 0) -> int:
    """A part of a workflow."""
    return value


@app.task(name="shop.total")
def total(values: list[int]) -> int:
    """The last part of a workflow."""
    return sum(values)


@app.task(name="shop.flow", ignore_result=True)
def flow(name: str) -> None:
    """Start the workflow of that name."""
    flows = {
        "chain": lambda: chain(step.si(1), step.si(2), step.si(3)).delay(),
        "chord": lambda: chord([step.si(1), step.si(2)], total.s()).delay(),
        "group": lambda: group(step.si(1), step.si(2)).delay(),
        "later": lambda: step.apply_async((1,), countdown=5),
        "thumbs": lambda: [step.apply_async((1,), queue="thumbs") for _ in range(20)],
    }
    flows[name]()


@app.task(bind=True, name="shop.slow", ignore_result=True)
def slow(self: Any, name: str) -> None:
    """The same task, under another name."""
    job.run.__func__(self, name)


class Hanging(PersistentScheduler):
    """A scheduler whose tick may block: a lock, a slow disk, a database that does not answer."""

    def tick(self, *args: Any, **kwargs: Any) -> Any:
        while (FOLDER / "orders" / "beat").exists():
            time.sleep(0.1)
        return super().tick(*args, **kwargs)


class Unmade(PersistentScheduler):
    """A scheduler that cannot be made while its database does not answer."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        if (FOLDER / "orders" / "beat").exists():
            raise Unreachable("its database")
        super().__init__(*args, **kwargs)


@control_command(args=[], signature="")  # type: ignore[untyped-decorator]
def ghost(state: Any) -> None:
    """Become a ghost, as workers did after a reconnect: alive, connected, and receiving nothing."""
    hub = state.consumer.hub
    hub.on_tick.clear()
    for descriptor in list(hub.readers):
        if any(word in repr(hub.readers[descriptor][0]) for word in ("Transport", "cycle")):
            hub.remove_reader(descriptor)
