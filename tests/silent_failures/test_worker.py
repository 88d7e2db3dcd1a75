"""Workers, and the processes of their pools, die, freeze, or become ghosts."""

from __future__ import annotations

import os
import signal
import time
from typing import Any

import pytest

import parts
from silent_failures.stage import (
    CANARY,
    CONTEST_PATIENCE,
    GHOST_DEADLINE,
    GRACE,
    SAMPLE_PERIOD,
    UNCONSUMED_DEADLINE,
    WORKER_DEADLINE,
    Open,
    children,
)

REPORT = {"report": {"task": "shop.job", "schedule": 2.0}}
LOST = ("worker", "one@shop", "WORKER_LOST")
GHOST = ("worker", "one@shop", "GHOST_WORKER")
# The interval at which Celery checks the processes of its pool.
POOL_CHECK = 5.0


@pytest.mark.core
def test_a_killed_pool_process_is_reported_for_its_entry(
    open_stage: Open, redis: parts.Redis, rows: Any
) -> None:
    row = rows("F3", "a pool process is killed in the middle of a run")
    stage = open_stage(redis.url, REPORT)
    stage.worker()
    stage.beat()
    stage.healthy("report", CANARY)

    stage.order("report", "alone")
    pid, _ = stage.at_work("report")
    # The SDK reports its start within a second.
    parts.wait_for("an open run", lambda: stage.monitors()["report"]["running"], 10)
    killed_at = time.time()
    os.kill(pid, signal.SIGKILL)
    stage.recall("report")
    alerted = ("monitor", "report", "WORKER_KILLED")
    incident = stage.noticed(row, killed_at, alerted, POOL_CHECK)
    # The next run resolves the incident.
    stage.resolved(row, incident, repair="nothing to type")
    stage.stays(GRACE, alerted)


def test_a_killed_worker_and_the_runs_that_it_held_are_one_incident(
    open_stage: Open, broker: parts.Redis | parts.RabbitMQ, rows: Any
) -> None:
    where = " (RabbitMQ)" if isinstance(broker, parts.RabbitMQ) else ""
    row = rows("F4", f"a worker is killed while it holds prefetched messages{where}")
    schedule = {name: {"task": "shop.job", "schedule": 3.0} for name in ("long", "waits a", "waits b")}
    # Long enough that no entry is late before the worker is killed.
    patience = {"DEADBEAT_GRACE_SECONDS": "10", "DEADBEAT_CANARY_GRACE_SECONDS": "10"}
    stage = open_stage(broker.url, schedule, env=patience)
    one = stage.worker("one", processes=1)
    stage.beat()
    stage.healthy(*schedule, CANARY)

    stage.order("long", "hold")
    stage.at_work("long")
    parts.wait_for("prefetched messages", lambda: (stage.workers()["one@shop"]["reserved"] or 0) >= 4, 20)
    killed_at = time.time()
    one.kill()
    stage.recall("long")
    incident = stage.noticed(row, killed_at, LOST, WORKER_DEADLINE)
    stage.members(LOST, {*schedule, CANARY})
    stage.stays(GRACE, LOST)

    stage.type_in(incident, "worker")
    stage.resolved(row, incident)
    stage.recovered()
    stage.stays(GRACE, LOST)


def test_a_killed_worker_among_others_is_reported(open_stage: Open, redis: parts.Redis, rows: Any) -> None:
    row = rows("F4", "one of two workers is killed in the middle of a run; the other goes on")
    stage = open_stage(redis.url, REPORT)
    workers = {"one@shop": stage.worker("one"), "two@shop": stage.worker("two")}
    stage.beat()
    stage.healthy("report", CANARY, workers=tuple(workers))

    stage.order("report", "alone")
    stage.at_work("report")

    def busy() -> str | None:
        return next((name for name, worker in stage.workers().items() if worker["longest"]), None)

    name = parts.wait_for("a long run", busy, 10)
    killed_at = time.time()
    workers[name].kill()
    stage.recall("report")
    alerted = ("worker", name, "WORKER_LOST")
    incident = stage.noticed(row, killed_at, alerted, WORKER_DEADLINE)

    stage.type_in(incident, "worker")
    stage.resolved(row, incident)
    stage.stays(GRACE, alerted)


@pytest.mark.parametrize("pool", ["threads", "solo", "gevent"])
def test_a_killed_worker_of_another_pool_is_reported(
    open_stage: Open, redis: parts.Redis, rows: Any, pool: str
) -> None:
    row = rows("F4", f"a worker is killed; its pool is {pool}")
    stage = open_stage(redis.url, REPORT)
    one = stage.worker("one", "--pool", pool)
    stage.beat()
    stage.healthy("report", CANARY)
    assert stage.workers()["one@shop"]["pool"] == pool

    killed_at = time.time()
    one.kill()
    incident = stage.noticed(row, killed_at, LOST, WORKER_DEADLINE)
    stage.members(LOST, {"report", CANARY})

    stage.type_in(incident, "worker")
    stage.resolved(row, incident)
    stage.stays(GRACE, LOST)


def test_a_ghost_is_reported(open_stage: Open, redis: parts.Redis, rows: Any) -> None:
    row = rows("F8", "a worker lives, is connected, and takes nothing in any more")
    stage = open_stage(redis.url, REPORT)
    one = stage.worker()
    stage.beat()
    stage.healthy("report", CANARY)

    haunted_at = time.time()
    stage.control.broadcast("ghost")
    # The next sample shows that messages wait for it.
    incident = stage.noticed(row, haunted_at, GHOST, GHOST_DEADLINE + SAMPLE_PERIOD)
    stage.members(GHOST, {"report", CANARY})
    stage.stays(GRACE, GHOST)

    one.kill()
    stage.type_in(incident, "worker")
    stage.resolved(row, incident)
    stage.stays(GRACE, GHOST)


def test_a_worker_whose_pool_is_frozen_is_reported(open_stage: Open, redis: parts.Redis, rows: Any) -> None:
    row = rows("F8", "the processes of a worker's pool are stopped (SIGSTOP)")
    stage = open_stage(redis.url, REPORT)
    one = stage.worker()
    stage.beat()
    stage.healthy("report", CANARY)

    frozen = children(one)
    assert len(frozen) == 2
    frozen_at = time.time()
    for pid in frozen:
        os.kill(pid, signal.SIGSTOP)
    incident = stage.noticed(row, frozen_at, GHOST, GHOST_DEADLINE)
    stage.members(GHOST, {"report", CANARY})
    stage.stays(GRACE, GHOST)

    one.kill()
    stage.type_in(incident, "worker")
    stage.resolved(row, incident)
    stage.stays(GRACE, GHOST)


def test_a_worker_that_was_ordered_to_consume_nothing_is_reported_for_its_queue(
    open_stage: Open, redis: parts.Redis, rows: Any
) -> None:
    row = rows("F8", "a worker's consumer was cancelled (`cancel_consumer`)")
    stage = open_stage(redis.url, REPORT)
    stage.worker()
    stage.beat()
    stage.healthy("report", CANARY)

    cancelled_at = time.time()
    stage.control.cancel_consumer("celery")
    alerted = ("queue", "celery", "QUEUE_UNCONSUMED")
    incident = stage.noticed(row, cancelled_at, alerted, UNCONSUMED_DEADLINE + 2)
    # No canary is sent to a queue that no reporting worker consumes.
    stage.members(alerted, {"report"})
    stage.stays(GRACE, alerted)

    stage.type_in(incident, "add_consumer")
    stage.resolved(row, incident)
    stage.stays(GRACE, alerted)


def test_a_message_behind_a_long_run_while_another_worker_idles_is_reported(
    open_stage: Open, redis: parts.Redis, rows: Any
) -> None:
    row = rows("F10", "a message is prefetched by a busy worker while another one idles")
    schedule = {"report": {"task": "shop.job", "schedule": 20.0}}
    # The canary would sometimes be prefetched as well.
    stage = open_stage(redis.url, schedule, env={"DEADBEAT_CANARY": "0"})
    stage.worker("one", processes=1)
    stage.worker("two", processes=1)
    stage.beat()
    stage.healthy("report", workers=("one@shop", "two@shop"), runs=1)

    stage.control.cancel_consumer("celery", destination=["two@shop"])
    parts.wait_for("one consumer", lambda: stage.workers()["two@shop"]["queues"] == [], 10)
    stage.order("long", "hold")
    stage.control.app.send_task("shop.job", args=["long"])
    stage.at_work("long")
    parts.wait_for("a prefetched message", lambda: stage.workers()["one@shop"]["reserved"] == 2, 40)
    due = parts.instant(stage.monitors()["report"]["next_due_at"])
    stage.control.add_consumer("celery", destination=["two@shop"])
    alerted = ("monitor", "report", "PREFETCH_STARVATION")
    incident = stage.noticed(row, due, alerted, GRACE)

    stage.recall("long")
    stage.resolved(row, incident, repair="not run: settings")
    stage.stays(GRACE, alerted)


def test_a_task_that_kills_each_process_it_is_given_is_reported(
    open_stage: Open, redis: parts.Redis, rows: Any
) -> None:
    row = rows("F22", "a message is delivered anew forever: it kills each process that runs it")
    stage = open_stage(
        redis.url,
        {"report": {"task": "shop.job", "schedule": 4.0}},
        settings={"task_acks_late": True, "task_reject_on_worker_lost": True},
        env={"DEADBEAT_GRACE_SECONDS": "30"},
    )
    stage.worker("one", processes=4)
    stage.beat()
    stage.healthy("report", CANARY)

    began_at = time.time()
    stage.order("report", "kill 1.5")
    alerted = ("monitor", "report", "REDELIVERY_LOOP")
    # The third start: Celery notices each death at its next check of the pool.
    incident = stage.noticed(row, began_at, alerted, 4 + 2 * (1.5 + POOL_CHECK) + CONTEST_PATIENCE)

    stage.recall("report")
    stage.resolved(row, incident, repair="nothing to type")
    stage.stays(GRACE, alerted)


def test_a_poisonous_message_among_healthy_runs_is_reported_until_it_is_gone(
    open_stage: Open, redis: parts.Redis, rows: Any
) -> None:
    row = rows("F22", "one message kills each process that runs it; the runs beside it are well")
    stage = open_stage(
        redis.url,
        {"report": {"task": "shop.job", "schedule": 4.0}},
        settings={"task_acks_late": True, "task_reject_on_worker_lost": True},
    )
    stage.worker("one", processes=4)
    stage.beat()
    stage.healthy("report", CANARY)

    began_at = time.time()
    stage.order("report", "poison 1.5")
    alerted = ("monitor", "report", "REDELIVERY_LOOP")
    incident = stage.noticed(row, began_at, alerted, 4 + 2 * (1.5 + POOL_CHECK) + CONTEST_PATIENCE)
    # The healthy runs do not resolve the incident.
    stage.stays(12, alerted)
    assert stage.sink.alerts("incident.resolved") == []

    stage.type_in(incident, "revoke")
    stage.resolved(row, incident)
    stage.stays(2 * GRACE, alerted)


def test_a_rate_limit_that_is_set_at_run_time_is_named(
    open_stage: Open, redis: parts.Redis, rows: Any
) -> None:
    row = rows("F46", "an operator sets a rate limit of one a minute on the task")
    # Two entries of one task: the limit is one fault of the worker.
    schedule = {name: {"task": "shop.job", "schedule": 2.0} for name in ("report", "export")}
    stage = open_stage(redis.url, schedule)
    stage.worker("one")
    stage.beat()
    stage.healthy(*schedule, CANARY)

    limited_at = time.time()
    stage.control.rate_limit("shop.job", "1/m")
    alerted = ("worker", "one@shop", "RATE_LIMITED")
    # The limit lets one run begin.
    incident = stage.noticed(row, limited_at, alerted, 2 * 2 + GRACE)
    assert any("rate limit 1/m of shop.job" in fact["fact"] for fact in incident["evidence"])
    stage.members(alerted, set(schedule))
    stage.stays(GRACE, alerted)

    stage.type_in(incident, "rate_limit")
    stage.resolved(row, incident)
    stage.stays(GRACE, alerted)
