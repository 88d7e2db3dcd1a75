"""An application with another vendor's instrumentation beside Deadbeat.

`BESIDE` names the vendor, `FIRST` which of the two is set up first.
"""

from __future__ import annotations

import os

from celery import Celery, Task, chain

import deadbeat

BROKER = os.environ["CELERY_BROKER_URL"]
# No process listens there, and nothing leaves this machine.
NOWHERE = "127.0.0.1:1"

app = Celery("beside", broker=BROKER, backend=BROKER)
app.conf.worker_hijack_root_logger = False
app.conf.beat_schedule = {
    name: {"task": f"beside.{name}", "schedule": 2.0}
    for name in (
        "good",
        "flaky",
        "hopeless",
        "auto",
        "replaced",
        "replaced_badly",
        "chained",
        "chained_badly",
    )
}


def sentry() -> None:
    import sentry_sdk
    from sentry_sdk.integrations.celery import CeleryIntegration

    sentry_sdk.init(f"http://key@{NOWHERE}/1", integrations=[CeleryIntegration()], traces_sample_rate=1.0)


def sentry_crons() -> None:
    import sentry_sdk
    from sentry_sdk.integrations.celery import CeleryIntegration

    sentry_sdk.init(f"http://key@{NOWHERE}/1", integrations=[CeleryIntegration(monitor_beat_tasks=True)])


def ddtrace() -> None:
    import ddtrace

    ddtrace.config.celery["distributed_tracing"] = True
    ddtrace.patch(celery=True)


def opentelemetry() -> None:
    from opentelemetry import trace
    from opentelemetry.instrumentation.celery import CeleryInstrumentor
    from opentelemetry.sdk.trace import TracerProvider

    trace.set_tracer_provider(TracerProvider())
    CeleryInstrumentor().instrument()


def everybody() -> None:
    sentry()
    ddtrace()
    opentelemetry()


def nobody() -> None:
    pass


other = globals()[os.environ["BESIDE"]]
if os.environ["FIRST"] == "deadbeat":
    deadbeat.init(app)
    other()
else:
    other()
    deadbeat.init(app)


@app.task
def good() -> str:
    return "done"


@app.task(bind=True, max_retries=2)
def flaky(self: Task) -> str:
    """Fails once, is retried, then succeeds."""
    if self.request.retries == 0:
        raise self.retry(exc=ValueError("again"), countdown=0)
    return "done"


@app.task(bind=True, max_retries=1)
def hopeless(self: Task) -> None:
    raise self.retry(exc=ValueError("never"), countdown=0)


@app.task(autoretry_for=(ValueError,), max_retries=1, default_retry_delay=0)
def auto() -> None:
    raise ValueError("never")


@app.task
def bad() -> None:
    raise KeyError("a secret")


@app.task(bind=True)
def replaced(self: Task) -> None:
    raise self.replace(good.si())


@app.task(bind=True)
def replaced_badly(self: Task) -> None:
    raise self.replace(bad.si())


@app.task
def chained() -> None:
    chain(good.si(), flaky.si(), good.si()).apply_async()


@app.task
def chained_badly() -> None:
    chain(good.si(), bad.si(), good.si()).apply_async()
