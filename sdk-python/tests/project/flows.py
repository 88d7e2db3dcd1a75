"""An application whose entries start further work that ends well or badly: replacements, chains, chords."""

from __future__ import annotations

import os
import signal
import time

from celery import Celery, Task, chain, chord, group

import deadbeat

BROKER = os.environ["CELERY_BROKER_URL"]

# Redis joins chords itself; with another backend Celery polls for them with a task of its own.
app = Celery("flows", broker=BROKER, backend=os.environ.get("RESULT_BACKEND") or BROKER)
app.conf.worker_hijack_root_logger = False
app.conf.result_chord_retry_interval = 0.1
deadbeat.init(app)


@app.task
def ok(value: int = 0) -> int:
    return value


@app.task
def bad() -> None:
    raise ValueError("a secret")


@app.task
def total(values: list[int]) -> int:
    return sum(values)


@app.task
def bad_total(values: list[int]) -> None:
    raise KeyError("a secret")


@app.task
def killed() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


@app.task
def waits_for(path: str) -> None:
    while not os.path.exists(path):
        time.sleep(0.02)


@app.task(bind=True, max_retries=1)
def flaky(self: Task) -> int:
    if self.request.retries == 0:
        raise self.retry(exc=OSError("again"), countdown=0)
    return 1


@app.task(bind=True)
def starts(self: Task, flow: str, path: str = "") -> None:
    """Start the workflow of that name; the two `replace…` workflows replace this task."""
    if flow == "replace":
        raise self.replace(ok.si())
    if flow == "replace badly":
        raise self.replace(bad.si())
    if flow == "replace twice":
        raise self.replace(starts.si("replace badly"))
    if flow == "replace by retried":
        raise self.replace(flaky.si())
    if flow == "replace by chord":
        raise self.replace(chord([ok.si(1), ok.si(2)], bad_total.s()))
    if flow == "replace by group":
        raise self.replace(group(ok.si(1), flaky.si()))
    if flow == "replace by chain":
        raise self.replace(chain(ok.si(), flaky.si(), bad.si()))
    if flow == "replace by waiting":
        raise self.replace(waits_for.si(path))
    flows = {
        "chord": lambda: chord([ok.si(1), ok.si(2)], total.s()),
        "chord, bad body": lambda: chord([ok.si(1), ok.si(2)], bad_total.s()),
        "chord, bad header": lambda: chord([ok.si(1), bad.si()], total.s()),
        "chord, killed header": lambda: chord([ok.si(1), killed.si()], total.s()),
        "chord, retried": lambda: chord([flaky.si(), flaky.si()], total.s()),
        "chord of chains": lambda: chord([chain(ok.si(1), flaky.si()), ok.si(2)], bad_total.s()),
        "chord with a chain": lambda: chord([ok.si(1), ok.si(2)], chain(total.s(), bad.si())),
        "chord in a chord": lambda: chord([chord([ok.si(1), ok.si(2)], total.s()), ok.si(3)], bad_total.s()),
        "chain": lambda: chain(ok.si(), flaky.si(), ok.si()),
        "chain, bad": lambda: chain(ok.si(), bad.si(), ok.si()),
        "chain with a chord": lambda: chain(ok.si(), chord([ok.si(1), ok.si(2)], bad_total.s())),
        "two workflows": lambda: None,
        "group": lambda: group(ok.si(), bad.si()),
        "others": lambda: bad.si(),
    }
    if flow == "two workflows":
        chain(ok.si(), ok.si()).delay()
        chain(ok.si(), bad.si()).delay()
        return
    flows[flow]().apply_async(headers={"mine": "kept"})
