"""The process that owns a run, the way in which a worker ended, and reports while greenlets compute."""

from __future__ import annotations

import os
import signal
import time
from importlib.util import find_spec
from typing import Any, Callable
from uuid import UUID

import pytest
from redis import Redis

from conftest import RedisServer, StartCelery, reporting_to
from sink import Sink

Send = Callable[..., Any]

POOLS = [
    "prefork",
    "threads",
    "solo",
    pytest.param(
        "gevent", marks=pytest.mark.skipif(find_spec("gevent") is None, reason="gevent is not installed")
    ),
]


def snapshots(sink: Sink, **fields: Any) -> list[dict[str, Any]]:
    return sink.of("worker_snapshot", **fields)


@pytest.mark.parametrize("pool", POOLS)
def test_runs_name_the_process_that_owns_them(
    pool: str, sink: Sink, start_celery: StartCelery, send: Send
) -> None:
    worker = start_celery("worker", "--pool", pool, "-n", "w1@here", **reporting_to(sink.url))
    early, late = send("ok"), send("waits_late", 0)
    sink.wait_for(lambda: len(sink.of("run_started")) == 2)
    first = {event["incarnation"] for event in snapshots(sink)}

    assert len(first) == 1
    assert str(UUID(next(iter(first)))) in first
    assert {event["incarnation"] for event in sink.of("run_started")} == first
    assert [event["acks_late"] for event in sink.of("run_started", task_id=early.id)] == [False]
    assert [event["acks_late"] for event in sink.of("run_started", task_id=late.id)] == [True]
    with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as boot_id:
        assert {event["boot_id"] for event in snapshots(sink)} == {boot_id.read().strip()}

    worker.kill()
    start_celery("worker", "--pool", pool, "-n", "w1@here", **reporting_to(sink.url))
    sink.wait_for(lambda: {event["incarnation"] for event in snapshots(sink)} > first)


def test_a_worker_that_ends_by_an_error_says_which(
    sink: Sink, start_celery: StartCelery, own_redis: RedisServer
) -> None:
    own = f"redis://127.0.0.1:{own_redis.port}/0"
    worker = start_celery("worker", CELERY_BROKER_URL=own, **reporting_to(sink.url))
    sink.wait_for(lambda: snapshots(sink))

    with Redis.from_url(own) as client:

        def unblock() -> bool:
            for one in client.client_list():
                if one["cmd"] == "brpop":
                    client.client_unblock(one["id"], error=True)
            return worker.process.poll() is not None

        sink.wait_for(unblock)

    assert worker.process.returncode == 1
    stopped = snapshots(sink, state="stopped")
    assert [(event["exit_code"], event["exit_error"]) for event in stopped] == [(1, "ResponseError")]
    assert snapshots(sink)[-1] == stopped[-1], "the last word"


@pytest.mark.parametrize("ending", [signal.SIGTERM, signal.SIGINT, signal.SIGQUIT])
def test_a_worker_that_was_ordered_to_end_says_no_error(
    ending: signal.Signals, sink: Sink, start_celery: StartCelery
) -> None:
    worker = start_celery("worker", **reporting_to(sink.url))
    sink.wait_for(lambda: snapshots(sink))

    os.kill(worker.process.pid, ending)
    worker.process.wait(30)

    stopped = snapshots(sink, state="stopped")
    assert [(event["exit_code"], event["exit_error"]) for event in stopped] == [(None, None)]


def test_a_worker_that_is_shut_down_by_remote_control_says_no_error(
    sink: Sink, start_celery: StartCelery, broker: str
) -> None:
    from celery import Celery

    worker = start_celery("worker", **reporting_to(sink.url))
    sink.wait_for(lambda: snapshots(sink))

    with Celery("remote", broker=broker) as remote:
        # It reports before it listens to remote control.
        deadline = time.monotonic() + 30
        while not remote.control.ping(timeout=1.0):
            assert time.monotonic() < deadline, "the worker answers no ping"
        remote.control.shutdown()
        worker.process.wait(30)

    stopped = snapshots(sink, state="stopped")
    assert [(event["exit_code"], event["exit_error"]) for event in stopped] == [(None, None)]


@pytest.mark.skipif(find_spec("gevent") is None, reason="gevent is not installed")
def test_a_gevent_worker_that_computes_goes_on_reporting(
    sink: Sink, start_celery: StartCelery, send: Send
) -> None:
    worker = start_celery("worker", "--pool", "gevent", **reporting_to(sink.url))
    sink.wait_for(lambda: snapshots(sink))
    result = send("computes", 15)

    busy = sink.wait_for(lambda: [e for e in snapshots(sink) if e["loop_lag_seconds"] > 6])[0]
    assert not result.ready()
    assert (busy["state"], busy["active"], busy["pid"]) == ("running", 1, worker.process.pid)
    assert busy["incarnation"] == snapshots(sink)[0]["incarnation"]

    # A dead process has no thread that reports for it.
    worker.kill()
    reported = len(snapshots(sink))
    again = start_celery("worker", "--pool", "gevent", "-n", "again@here", **reporting_to(sink.url))
    sink.wait_for(lambda: len(snapshots(sink, worker="again@here")) >= 5)
    assert len(snapshots(sink)) - len(snapshots(sink, worker="again@here")) == reported
    again.stop()
