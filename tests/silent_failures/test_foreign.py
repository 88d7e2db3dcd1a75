"""Workers that do not report consume a queue, too: a missing report is no fault."""

from __future__ import annotations

import time
from typing import Any

import pytest

import parts
from silent_failures.stage import CANARY, GRACE, REPLACED_WITHIN, UNCONSUMED_DEADLINE, Open, Stage

TICK = {"tick": {"task": "shop.job", "schedule": 2.0}}


def foreign_worker(stage: Stage, queue: str, *, with_sdk: bool) -> parts.Part:
    """A worker of another application, with one process."""
    command = [parts.program("celery"), "-A", "foreign", "worker", "-n", f"{queue}@foreign", "-Q", queue]
    size = ["--concurrency", "1", "--loglevel", "info"]
    env = {**stage.env, "FOREIGN_WITH_SDK": "1" if with_sdk else "0"}
    part = parts.Part("foreign", [*command, *size], stage.folder, env)
    stage.running.append(part)
    return part


def send(stage: Stage, queue: str, count: int, seconds: float) -> None:
    for _ in range(count):
        stage.control.app.send_task("shop.job", args=["thumb", seconds], queue=queue)


@pytest.mark.parametrize("pace", [2.0, 45.0])
def test_a_queue_that_a_worker_without_the_sdk_consumes_is_well(
    open_stage: Open, redis: parts.Redis, rows: Any, pace: float
) -> None:
    row = rows(
        "S9", f"a worker without the SDK consumes a queue that is never empty, one message in {pace:g} s"
    )
    # This application sends there, too, so the SDK samples that queue.
    seldom = {"thumb": {"task": "shop.job", "schedule": 3600.0, "options": {"queue": "thumbs"}}}
    stage = open_stage(redis.url, {**TICK, **seldom})
    foreign_worker(stage, "thumbs", with_sdk=False)
    stage.worker()
    stage.beat()
    stage.healthy("tick", CANARY)

    send(stage, "thumbs", int(120 / pace) + 6, pace)
    parts.wait_for("a backlog", lambda: (stage.queues().get("thumbs") or {}).get("depth", 0) > 1, 30)
    stage.stays(2 * UNCONSUMED_DEADLINE)
    assert stage.depth("thumbs") > 0
    row.silent()


def test_a_queue_whose_only_worker_is_busy_and_lacks_the_sdk_is_well(
    open_stage: Open, redis: parts.Redis, rows: Any
) -> None:
    row = rows("S18", "a worker without the SDK takes a queue over, and is busy with one task for minutes")
    # This application sends there, too, so the SDK samples that queue.
    seldom = {"thumb": {"task": "shop.job", "schedule": 3600.0, "options": {"queue": "thumbs"}}}
    stage = open_stage(redis.url, {**TICK, **seldom})
    stage.worker()
    before = stage.worker("two", queues="thumbs")
    stage.beat()
    stage.healthy("tick", CANARY, workers=("one@shop", "two@shop"))

    # Messages that it receives at its start may still be attributed to the worker that stopped a moment ago.
    assert before.stop() is not None
    foreign_worker(stage, "thumbs", with_sdk=False)
    send(stage, "thumbs", 8, 400.0)
    parts.wait_for("a backlog", lambda: (stage.queues().get("thumbs") or {}).get("depth", 0) > 1, 30)
    stage.stays(REPLACED_WITHIN + UNCONSUMED_DEADLINE)
    assert stage.depth("thumbs") > 1
    row.silent()


def test_an_entry_that_another_service_serves_may_wait_within_its_grace(
    open_stage: Open, redis: parts.Redis, rows: Any
) -> None:
    row = rows("S10", "a worker of another service, busy for 80 s, serves an entry within its grace of 120 s")
    schedule = {
        **TICK,
        "export": {"task": "shop.job", "schedule": 10.0, "options": {"queue": "exports"}},
    }
    stage = open_stage(redis.url, schedule, env={"DEADBEAT_GRACE_SECONDS": "120"})
    foreign_worker(stage, "exports", with_sdk=True)
    stage.worker()
    stage.beat()
    stage.healthy("tick", "export", CANARY)

    send(stage, "exports", 1, 80.0)
    busy_at = time.time()
    parts.wait_for("a backlog", lambda: (stage.queues().get("exports") or {}).get("depth", 0) > 2, 60)
    stage.stays(max(0.0, busy_at + 80 - time.time()))
    stage.lively("export")
    stage.stays(GRACE)
    row.silent()


def test_two_projects_on_one_redis_are_apart_by_their_prefix(
    open_stage: Open, redis: parts.Redis, rows: Any, tmp_path: Any
) -> None:
    row = rows("S11", "two projects share one Redis and the name of a queue, apart by `global_keyprefix`")
    stages = []
    for name in ("a", "b"):
        folder = tmp_path / name
        folder.mkdir()
        settings = {"broker_transport_options": {"global_keyprefix": f"{name}:"}}
        stages.append(open_stage(redis.url, {**TICK}, settings=settings, folder=folder))
    for stage in stages:
        stage.worker()
        stage.beat()
    for stage in stages:
        stage.healthy("tick", CANARY)
    # One of them is down for a while, which must not affect the other one.
    stages[1].running[0].stop()
    stages[0].stays(UNCONSUMED_DEADLINE)
    stages[0].lively("tick", CANARY)
    row.silent()


def test_a_default_queue_that_nobody_uses_is_well(open_stage: Open, redis: parts.Redis, rows: Any) -> None:
    row = rows("S12", "all tasks are routed to named queues, and nobody serves the default queue")
    schedule = {"report": {"task": "shop.job", "schedule": 2.0}}
    settings = {"task_routes": {"shop.*": {"queue": "shop"}}}
    stage = open_stage(redis.url, schedule, settings=settings)
    stage.worker(queues="shop")
    stage.beat()
    stage.healthy("report", CANARY)

    stage.stays(UNCONSUMED_DEADLINE + GRACE)
    assert redis.ask("LLEN", "celery") == "0"
    row.silent()
