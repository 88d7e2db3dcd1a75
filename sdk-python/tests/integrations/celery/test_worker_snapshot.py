"""Snapshots of workers, in every installed pool, and of workers with a fault."""

from __future__ import annotations

import os
import signal
import socket
from datetime import datetime
from importlib.util import find_spec
from typing import Any, Callable

import celery
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
def test_worker_says_how_it_is_until_it_has_stopped(
    pool: str, sink: Sink, start_celery: StartCelery, send: Send
) -> None:
    worker = start_celery("worker", "--pool", pool, "-n", "w1@here", "-Q", "b,a", **reporting_to(sink.url))

    idle = sink.wait_for(lambda: snapshots(sink))[0]
    assert (idle["app"], idle["worker"], idle["host"]) == ("watched", "w1@here", socket.gethostname())
    assert (idle["pid"], idle["pool"], idle["celery"]) == (worker.process.pid, pool, celery.__version__)
    assert idle["processes"] == (1 if pool == "solo" else 2)
    assert (idle["period_seconds"], idle["state"], idle["connected"]) == (1, "running", True)
    assert sorted(idle["queues"]) == ["a", "b"]
    assert (idle["active"], idle["reserved"], idle["longest"]) == (0, 0, None)
    assert (idle["accepted"], idle["finished"], idle["reconnects"]) == (0, 0, 0)
    assert idle["prefetch"] == 8
    assert idle["loop_lag_seconds"] < 60
    assert idle["rss_bytes"] > 10_000_000
    assert idle["load_per_cpu"] >= 0
    assert idle["cpu_wait_ratio"] is None
    assert idle["started_at"] <= idle["at"]

    # Two tasks run, or one in solo; the others wait in the worker.
    sent = [send("waits", 3, queue="a") for _ in range(4)]
    running = idle["processes"]
    # gevent's consumer holds the next message and stands still while its pool is full.
    held = {"solo": 1, "gevent": 3}.get(pool, 4)
    busy = sink.wait_for(lambda: snapshots(sink, active=running, reserved=held))[0]
    assert busy["longest"]["task"] == "watched.waits"
    assert busy["longest"]["task_id"] in [task.id for task in sent]
    assert busy["longest"]["started_at"] <= busy["at"]
    assert busy["accepted"] - busy["finished"] == running
    assert 0 <= busy["cpu_wait_ratio"] <= 1
    assert 0 <= busy["cpu_used_ratio"] <= 1

    assert send("ok", 5, queue="b").get(timeout=60) == 5
    ended = sink.wait_for(lambda: snapshots(sink, finished=5))[0]
    assert (ended["accepted"], ended["active"], ended["longest"]) == (5, 0, None)

    worker.stop()
    states = [e["state"] for e in snapshots(sink)]
    assert states[-1] == "stopped"
    assert "stopping" in states or pool == "solo"
    assert states == sorted(states, key=["running", "stopping", "stopped"].index)
    assert {e["worker"] for e in snapshots(sink)} == {"w1@here"}


@pytest.mark.parametrize("pool", POOLS)
@pytest.mark.parametrize("late", [False, True], ids=["early", "late"])
def test_worker_says_what_the_broker_still_keeps_for_it(
    pool: str, late: bool, sink: Sink, start_celery: StartCelery, send: Send, broker: str
) -> None:
    start_celery("worker", "--pool", pool, **reporting_to(sink.url))
    assert sink.wait_for(lambda: snapshots(sink))[0]["unacked"] == 0

    for _ in range(4):
        send("waits_late" if late else "waits", 60)
    running = 1 if pool == "solo" else 2
    # As in the test above.
    held = {"solo": 1, "gevent": 3}.get(pool, 4)
    # Solo acknowledges when its loop turns again, after the task.
    kept = held if late or pool == "solo" else held - running
    sink.wait_for(lambda: snapshots(sink, active=running, reserved=held, unacked=kept))

    assert Redis.from_url(broker).hlen("unacked") == kept


def test_worker_that_ends_says_so_at_once_though_its_task_goes_on(
    sink: Sink, start_celery: StartCelery, send: Send
) -> None:
    worker = start_celery("worker", **reporting_to(sink.url, DEADBEAT_WORKER_PERIOD_SECONDS="60"))
    task = send("waits", 5)
    sink.wait_for(lambda: sink.of("run_started", task_id=task.id))

    os.kill(worker.process.pid, signal.SIGTERM)
    stopping = sink.wait_for(lambda: snapshots(sink, state="stopping"))[0]
    assert worker.process.poll() is None
    assert stopping["active"] == 1
    worker.process.wait(30)

    (stopped,) = snapshots(sink, state="stopped")
    assert (stopped["active"], stopped["finished"]) == (0, 1)
    assert sink.of("run_finished", task_id=task.id, outcome="success")


def test_cold_shutdown_says_so_too(sink: Sink, start_celery: StartCelery, send: Send) -> None:
    worker = start_celery("worker", **reporting_to(sink.url))
    task = send("waits", 30)
    sink.wait_for(lambda: sink.of("run_started", task_id=task.id))

    os.kill(worker.process.pid, signal.SIGQUIT)
    worker.process.wait(30)

    assert snapshots(sink, state="stopped")


def test_worker_without_its_broker_goes_on_talking(
    sink: Sink, start_celery: StartCelery, own_redis: RedisServer
) -> None:
    own = f"redis://127.0.0.1:{own_redis.port}/0"
    start_celery("worker", CELERY_BROKER_URL=own, **reporting_to(sink.url))
    sink.wait_for(lambda: snapshots(sink, connected=True))

    own_redis.stop()
    cut = sink.wait_for(lambda: snapshots(sink, connected=False))[0]
    # Its loop waits for the broker meanwhile, and turns again once the broker is back.
    sink.wait_for(lambda: [e for e in snapshots(sink) if e["loop_lag_seconds"] > 1])
    own_redis.start()
    back = sink.wait_for(lambda: snapshots(sink, connected=True, reconnects=1))[0]

    assert cut["state"] == "running"
    assert back["queues"] == ["celery"]
    sink.wait_for(lambda: snapshots(sink, reconnects=1, loop_lag_seconds=0.0))


def test_pool_that_stands_still_shows(sink: Sink, start_celery: StartCelery, send: Send) -> None:
    worker = start_celery("worker", **reporting_to(sink.url))
    sink.wait_for(lambda: snapshots(sink))
    children = [int(pid) for pid in worker_children(worker.process.pid)]

    for pid in children:
        os.kill(pid, signal.SIGSTOP)
    try:
        tasks = [send("ok") for _ in range(3)]
        frozen = sink.wait_for(lambda: snapshots(sink, reserved=3))[0]
        sink.wait_for(lambda: len(sink.of("run_received")) == 3)
        assert (frozen["active"], frozen["accepted"]) == (0, 0)
        assert sink.of("run_started") == []
    finally:
        for pid in children:
            os.kill(pid, signal.SIGCONT)

    for task in tasks:
        task.get(timeout=30)
    assert sink.wait_for(lambda: snapshots(sink, finished=3))


def worker_children(pid: int) -> list[str]:
    with open(f"/proc/{pid}/task/{pid}/children") as children:
        return children.read().split()


def test_killed_worker_leaves_a_running_one_behind(sink: Sink, start_celery: StartCelery, send: Send) -> None:
    worker = start_celery("worker", **reporting_to(sink.url))
    sink.wait_for(lambda: snapshots(sink))

    worker.kill()

    assert {e["state"] for e in snapshots(sink)} == {"running"}


def test_snapshots_do_not_pile_up_while_the_server_is_away(sink: Sink, start_celery: StartCelery) -> None:
    sink.answer = 503
    start_celery("worker", **reporting_to(sink.url))
    sink.wait_for(lambda: len(sink.batches) >= 4)

    assert {len(batch.body["events"]) for batch in sink.batches} == {1}
    made = [datetime.fromisoformat(e["at"].replace("Z", "+00:00")) for e in snapshots(sink)]
    assert made == sorted(made)
    assert len(set(made)) > 1, "a newer one took the place of the one that waited"


def test_a_rate_limit_that_holds_messages_back_is_named(
    sink: Sink, start_celery: StartCelery, send: Send, broker: str
) -> None:
    start_celery("worker", "-n", "w1@here", **reporting_to(sink.url))
    assert sink.wait_for(lambda: snapshots(sink))[0]["rate_limits"] == []

    with celery.Celery("operator", broker=broker) as operator:
        # It answers once the limit is set.
        answers = operator.control.rate_limit("watched.ok", "1/m", reply=True, timeout=20, limit=1)
    assert answers, "no worker has heard of the limit"
    for number in range(4):
        send("ok", number)

    held = {"task": "watched.ok", "rate": "1/m", "held": 3}
    sink.wait_for(lambda: [one for one in snapshots(sink) if one["rate_limits"] == [held]])
