"""A worker without the SDK takes Beat's runs."""

from __future__ import annotations

import time
from typing import Any

from celery import Celery
from redis import Redis

import parts
from silent_failures.stage import CANARY, GRACE, REPORTS_WITHIN, SAMPLE_PERIOD, Open

WORKER_WITHOUT_SDK = ("queue", "celery", "WORKER_WITHOUT_SDK")


def test_runs_that_vanish_into_a_worker_without_the_key_are_one_incident(
    open_stage: Open, broker: parts.Redis | parts.RabbitMQ, rows: Any
) -> None:
    kind = "" if isinstance(broker, parts.Redis) else " (RabbitMQ)"
    row = rows("F25", f"a worker that lacks the SDK's key takes the runs of five entries{kind}")
    schedule = {f"entry {n}": {"task": "shop.job", "schedule": 4.0} for n in range(5)}
    stage = open_stage(broker.url, schedule)
    reporting = stage.worker()
    stage.beat()
    stage.healthy(*schedule, CANARY, runs=1)

    # A deployment forgets the key: the new worker runs, and the old one stops in order.
    began_at = time.time()
    stage.worker("dumb", env={"DEADBEAT_KEY": ""})
    parts.wait_for("the new worker", lambda: stage.control.ping(["dumb@shop"], timeout=1.0), 40)
    assert reporting.stop() is not None
    alerted = WORKER_WITHOUT_SDK
    limit = REPORTS_WITHIN + 3 * SAMPLE_PERIOD
    incident = stage.noticed(row, began_at, alerted, limit, patience=30)
    assert "dumb@shop" in incident["cause"]["summary"], incident
    stage.members(alerted, {*schedule, CANARY})
    stage.stays(GRACE, alerted)

    stage.worker()
    # One of the incident's two commands: the other one stops the worker, which then replies to nobody.
    stage.type_in(incident, "control cancel_consumer celery -d dumb@shop")
    stage.resolved(row, incident, limit=120)
    stage.recovered()
    stage.stays(GRACE, alerted)


def test_a_worker_without_the_key_that_takes_nothing_of_beats_is_no_incident(
    open_stage: Open, redis: parts.Redis, rows: Any
) -> None:
    row = rows("S3", "a worker without the SDK consumes another queue of the same broker")
    schedule = {"report": {"task": "shop.job", "schedule": 2.0}}
    stage = open_stage(redis.url, schedule, env={"DEADBEAT_GRACE_SECONDS": "30"})
    stage.worker()
    stage.beat()
    stage.healthy("report", CANARY)

    stage.worker("mails", queues="mails", env={"DEADBEAT_KEY": ""})
    with Celery("shop", broker=redis.url) as sender:
        for number in range(20):
            sender.send_task("shop.job", [f"mail {number}"], queue="mails")
    parts.wait_for("its work", lambda: Redis.from_url(redis.url).llen("mails") == 0, 30)
    stage.lively("report", CANARY, runs=12)
    stage.stays(GRACE)
    row.silent()
