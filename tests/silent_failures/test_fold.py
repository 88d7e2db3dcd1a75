"""One fault is one incident about the right subject, also when no sample shows that subject."""

from __future__ import annotations

import time
from typing import Any

import pytest

import parts
from proxy import Proxy
from silent_failures.stage import BROKER_DEADLINE, CANARY, GRACE, SAMPLE_PERIOD, Open, ended

BROKER = ("broker", "shop", "BROKER_DOWN")
WAITING = {f"entry {n}": {"task": "shop.job", "schedule": 3.0} for n in range(6)}


@pytest.mark.parametrize("how", ["full", "replica"])
def test_a_redis_that_refuses_what_is_sent_is_one_incident(
    open_stage: Open, redis: parts.Redis, rows: Any, how: str
) -> None:
    words = {
        "full": ("F32", "Redis is full (`maxmemory`, `noeviction`): it refuses what is sent"),
        "replica": ("F33", "Redis has become a replica that is only read (a failover behind a stale name)"),
    }
    row = rows(*words[how])
    stage = open_stage(redis.url, WAITING)
    worker = stage.worker()
    stage.beat()
    stage.healthy(*WAITING, CANARY)

    refused_at = time.time()
    if how == "full":
        redis.ask("CONFIG", "SET", "maxmemory", "1mb")
    else:
        redis.ask("REPLICAOF", "127.0.0.1", str(parts.free_port()))
    incident = stage.noticed(row, refused_at, BROKER, BROKER_DEADLINE)
    reason = "maxmemory" if how == "full" else "read only replica"
    assert "refuses" in incident["cause"]["summary"], incident
    assert any(reason in fact["fact"] for fact in incident["evidence"]), incident["evidence"]
    stage.stays(3 * GRACE, BROKER)

    if how == "full":
        redis.ask("CONFIG", "SET", "maxmemory", "0")
    else:
        redis.ask("REPLICAOF", "NO", "ONE")
        # Celery's worker mostly ends where its Redis becomes a replica (exit status 1).
        if worker.process.poll() is not None:
            stage.worker()
    stage.resolved(row, incident, repair="not run: settings of Redis")
    stage.recovered()
    stage.stays(GRACE, BROKER)


def test_an_alarm_of_rabbitmq_is_one_incident_of_the_broker(
    open_stage: Open, rows: Any, tmp_path: Any
) -> None:
    row = rows("F38", "RabbitMQ raises its memory alarm: it blocks publishers, and keeps what it holds")
    rabbit = parts.RabbitMQ(tmp_path)
    with ended(rabbit):
        rabbit.start()
        stage = open_stage(rabbit.url, WAITING)
        stage.worker()
        stage.beat()
        stage.healthy(*WAITING, CANARY)

        alarmed_at = time.time()
        rabbit.control("set_vm_memory_high_watermark", "absolute", "1MB")
        incident = stage.noticed(row, alarmed_at, BROKER, BROKER_DEADLINE)
        assert "blocks publishers" in incident["cause"]["summary"], incident
        stage.stays(3 * GRACE, BROKER)

        rabbit.control("set_vm_memory_high_watermark", "0.6")
        stage.resolved(row, incident, repair="not run: settings of RabbitMQ")
        stage.recovered()
        stage.stays(GRACE, BROKER)


@pytest.mark.parametrize("how", ["refused", "stalled"])
def test_a_worker_that_does_not_reach_the_broker_is_reported_for_that_worker(
    open_stage: Open, redis: parts.Redis, rows: Any, how: str
) -> None:
    words = {
        "refused": ("F36", "the only worker's line to the broker is refused; Beat's is not"),
        "stalled": ("F37", "the line of one of two workers to the broker stalls"),
    }
    row = rows(*words[how])
    line = Proxy(redis.port)
    with ended(line):
        stage = open_stage(redis.url, WAITING, env={"DEADBEAT_GRACE_SECONDS": "20"})
        cuttable = redis.url.replace(str(redis.port), str(line.port))
        # It asks first, so it samples the broker.
        one = stage.worker("one", env={"CELERY_BROKER_URL": cuttable})
        parts.wait_for("the first worker", lambda: "one@shop" in stage.workers(), 30)
        others = ("two",) if how == "stalled" else ()
        for name in others:
            stage.worker(name)
        stage.beat()
        stage.healthy(*WAITING, CANARY, workers=("one@shop", *(f"{name}@shop" for name in others)))

        cut_at = time.time()
        if how == "refused":
            line.refuse()
        else:
            line.hang()
        alerted = ("worker", "one@shop", "GHOST_WORKER")
        incident = stage.noticed(row, cut_at, alerted, 20.0 + 2 * SAMPLE_PERIOD)
        stage.stays(3 * GRACE, alerted)

        line.heal()
        if how == "stalled":
            one.kill()
            stage.worker("one")
        stage.resolved(row, incident, repair="not run: a firewall")
        stage.recovered()
        stage.stays(GRACE, alerted)


@pytest.mark.core
def test_a_blocked_pool_is_one_incident_of_its_worker(
    open_stage: Open, redis: parts.Redis, rows: Any
) -> None:
    row = rows("F34", "all processes of a worker are blocked; six entries wait behind")
    locks = {f"lock {n}": {"task": "shop.job", "schedule": 3.0} for n in range(2)}
    stage = open_stage(redis.url, {**WAITING, **locks})
    stage.worker(processes=2)
    stage.beat()
    stage.healthy(*WAITING, *locks, CANARY)

    for name in locks:
        stage.order(name, "hold")
    for name in locks:
        stage.at_work(name)
    blocked_at = time.time()
    alerted = ("worker", "one@shop", "QUEUE_SLA_BREACH")
    incident = stage.noticed(row, blocked_at, alerted, 3.0 + GRACE + 3)
    assert "blocked by shop.job" in incident["cause"]["summary"], incident
    # The next runs of the blocked entries wait, too, and so does the canary, which joins the open incident.
    stage.members(alerted, {*WAITING, *locks, CANARY})
    stage.stays(3 * GRACE, alerted)

    for name in locks:
        stage.recall(name)
    stage.resolved(row, incident, repair="nothing to type")
    stage.recovered()
    stage.stays(GRACE, alerted)


def test_a_slow_type_of_task_that_fills_a_queue_is_one_incident_of_that_queue(
    open_stage: Open, redis: parts.Redis, rows: Any
) -> None:
    row = rows("F35", "one slow type of task fills the common queue; six entries wait behind it")
    stage = open_stage(redis.url, WAITING)
    stage.worker(processes=2)
    stage.beat()
    stage.healthy(*WAITING, CANARY)

    stage.order("slow", "sleep 2")
    flooded_at = time.time()
    for _ in range(60):
        stage.control.app.send_task("shop.slow", args=["slow"])
    alerted = ("queue", "celery", "QUEUE_SLA_BREACH")
    incident = stage.noticed(row, flooded_at, alerted, 3.0 + GRACE + SAMPLE_PERIOD)
    assert "tasks that run are shop.slow" in incident["cause"]["summary"], incident
    stage.stays(3 * GRACE, alerted)

    stage.recall("slow")
    stage.resolved(row, incident, repair="nothing to type")
    stage.recovered()
    stage.stays(GRACE, alerted)


def test_an_entry_whose_queue_is_not_declared_is_reported_for_it(
    open_stage: Open, redis: parts.Redis, rows: Any
) -> None:
    row = rows("F39", "an entry names a queue that is not declared (`task_create_missing_queues` is off)")
    schedule = {"tick": {"task": "shop.job", "schedule": 2.0}, "lost": {"task": "shop.job", "schedule": 2.0}}
    stage = open_stage(redis.url, schedule)
    stage.worker()
    beat = stage.beat()
    stage.healthy(*schedule, CANARY)

    stage.schedule["lost"]["options"] = {"queue": "nowhere"}
    stage.settings["task_create_missing_queues"] = False
    stage.deploy()
    beat.stop()
    deployed_at = time.time()
    stage.beat()
    alerted = ("monitor", "lost", "FAILED")
    incident = stage.noticed(row, deployed_at, alerted, 2.0 + GRACE)
    assert "QueueNotFound" in incident["cause"]["summary"], incident
    stage.stays(2 * GRACE, alerted)
    row.repair = "not run: a deployment"


def test_a_solo_worker_with_one_long_task_is_well(open_stage: Open, redis: parts.Redis, rows: Any) -> None:
    row = rows("S13", "a solo worker runs one task of 40 s; the others wait within their grace")
    schedule = {"tick": {"task": "shop.job", "schedule": 5.0}}
    stage = open_stage(redis.url, schedule, env={"DEADBEAT_GRACE_SECONDS": "60"})
    stage.worker("one", "--pool", "solo", processes=1)
    stage.beat()
    stage.healthy("tick", CANARY)

    stage.order("long", "sleep 40")
    stage.control.app.send_task("shop.job", args=["long"])
    stage.at_work("long")
    stage.stays(45)
    stage.recall("long")
    stage.lively("tick")
    stage.stays(GRACE)
    row.silent()


def test_scale_in_of_workers_that_hold_messages_is_well(
    open_stage: Open, redis: parts.Redis, rows: Any
) -> None:
    row = rows("S14", "workers leave while they hold prefetched messages (scale-in)")
    schedule = {f"entry {n}": {"task": "shop.job", "schedule": 4.0} for n in range(3)}
    stage = open_stage(redis.url, schedule, env={"DEADBEAT_GRACE_SECONDS": "40"})
    stage.worker("one")
    stage.beat()
    stage.healthy(*schedule, CANARY)

    more = [stage.worker(name, processes=1) for name in ("two", "three", "four")]
    stage.healthy(*schedule, CANARY, workers=tuple(f"{n}@shop" for n in ("one", "two", "three", "four")))
    stage.order("busy", "sleep 8")
    for _ in range(24):
        stage.control.app.send_task("shop.job", args=["busy"])
    stage.stays(6)
    for worker in more[:2]:
        worker.process.terminate()
    stage.stays(20)
    stage.recall("busy")
    stage.lively(*schedule, CANARY)
    stage.stays(GRACE)
    row.silent()
