"""The application under watch in these tests."""

from __future__ import annotations

import os
import signal
import sys
import time
from datetime import datetime

from celery import Celery, Task
from celery.exceptions import Ignore, Reject
from celery.schedules import crontab, schedule, solar
from celery.signals import worker_process_init
from kombu import Queue

import deadbeat

BROKER = os.environ["CELERY_BROKER_URL"]

app = Celery("watched", broker=BROKER, backend=os.environ.get("RESULT_BACKEND", BROKER))
app.conf.timezone = "Europe/Berlin"
app.conf.worker_hijack_root_logger = False
app.conf.redbeat_redis_url = BROKER
app.conf.beat_schedule = {
    "often": {"task": "watched.ok", "schedule": float(os.environ.get("OFTEN_SECONDS", "3600"))},
    "nightly": {
        "task": "watched.ok",
        "schedule": crontab(minute="*/20", hour="4,1-2", day_of_week="mon-fri"),
        "options": {"queue": "night"},
    },
    "yearly": {"task": "watched.limited", "schedule": crontab(0, 0, day_of_month=1, month_of_year=1)},
    "hourly": {"task": "watched.ok", "schedule": schedule(3600.5, relative=True)},
}
if "redbeat" not in " ".join(sys.argv):  # RedBeat cannot store this kind
    app.conf.beat_schedule["dusk"] = {"task": "watched.ok", "schedule": solar("sunset", 52.5, 13.4)}
if "RULE_START" in os.environ:
    from redbeat.schedules import rrule

    start = datetime.fromisoformat(os.environ["RULE_START"])
    rule = rrule("SECONDLY", dtstart=start, interval=2, count=int(os.environ["RULE_COUNT"]))
    app.conf.beat_schedule["rule"] = {"task": "watched.ok", "schedule": rule}
for number in range(int(os.environ.get("MORE_ENTRIES", "0"))):
    app.conf.beat_schedule[f"many-{number:05}"] = {"task": "watched.ok", "schedule": 86_400.0}
if "ONLY_QUEUES" in os.environ:
    app.conf.task_queues = [Queue(name) for name in os.environ["ONLY_QUEUES"].split(",")]
    app.conf.task_create_missing_queues = False
LISTED = set(app.conf.beat_schedule)

deadbeat.init(app)
deadbeat.init(app)

if "CUT_OFF_PORT" in os.environ:
    # The processes that run tasks cannot reach the result backend, but their main process can.
    app.conf.result_backend_transport_options = {"retry_policy": {"max_retries": 0}}

    @worker_process_init.connect(weak=False)
    def cut_off(**_: object) -> None:
        app.backend.connparams["port"] = int(os.environ["CUT_OFF_PORT"])


if "FLUSHES" in os.environ:
    # Writes to a file how long each process waits for its last reports.
    from deadbeat._transport.transport import Transport

    flush_at_exit = Transport.flush_at_exit

    def noting_flush(transport: Transport, seconds: float) -> bool:
        with open(os.environ["FLUSHES"], "a") as notes:
            print(os.getpid(), seconds, file=notes)
        return flush_at_exit(transport, seconds)

    Transport.flush_at_exit = noting_flush

if os.environ.get("SABOTAGE"):
    # Break every way from a signal to the queue: users must never notice that.
    from deadbeat._transport import transport
    from deadbeat.integrations.celery import beat, handlers

    def broken(*args: object, **kwargs: object) -> None:
        raise RuntimeError("sabotage")

    transport.Transport.put = broken
    transport.Transport.flush_at_exit = broken
    handlers.run_id_of = broken
    beat.list_entries = broken


@app.task
def ok(value: int = 0) -> int:
    return value


@app.task
def bad() -> None:
    raise ValueError("a secret")


@app.task(bind=True, max_retries=2)
def flaky(self: Task) -> str:
    """Fails once, is retried, then succeeds."""
    if self.request.retries == 0:
        raise self.retry(exc=ValueError("again"), countdown=0.1)
    return "done"


@app.task(bind=True, max_retries=1)
def hopeless(self: Task) -> None:
    raise self.retry(exc=ValueError("never"), countdown=0)


@app.task
def ignored() -> None:
    raise Ignore()


@app.task
def rejected() -> None:
    raise Reject("no", requeue=False)


@app.task
def killed() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


@app.task
def exits() -> None:
    raise SystemExit(3)


@app.task(time_limit=1)
def limited() -> None:
    time.sleep(30)


@app.task
def waits(seconds: float = 30) -> None:
    time.sleep(seconds)


@app.task
def computes(seconds: float) -> None:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        pass


@app.task(acks_late=True)
def waits_late(seconds: float = 30) -> None:
    time.sleep(seconds)


@app.task(soft_time_limit=1)
def hurried() -> None:
    time.sleep(30)


@app.task(bind=True, acks_late=True, reject_on_worker_lost=True)
def killed_once(self: Task, order: str) -> None:
    """Is killed when the file appears; the redelivered message then ends well."""
    if not self.request.delivery_info["redelivered"]:
        while not os.path.exists(order):
            time.sleep(0.02)
        os.kill(os.getpid(), signal.SIGKILL)


@app.task
def publishes(task: str, queue: str) -> str:
    """Sends another task, as applications do, and records its id."""
    return app.send_task(task, queue=queue).id


@app.task
def entries_of_conf() -> list[str]:
    """The entries of beat_schedule that this module did not add."""
    return sorted(set(app.conf.beat_schedule) - LISTED)
