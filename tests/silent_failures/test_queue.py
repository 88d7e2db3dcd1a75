"""Messages vanish, wait in a queue without a consumer, or wait too long."""

from __future__ import annotations

import time
from typing import Any

import pytest

import parts
from proxy import Proxy
from silent_failures.stage import (
    CANARY,
    CONTEST_PATIENCE,
    GRACE,
    REPLACED_WITHIN,
    SAMPLE_PERIOD,
    TOLERANCE,
    UNCONSUMED_DEADLINE,
    Open,
    ended,
)

# A sample must show the empty queue: the second next one at the latest.
SAMPLE = 20.0
LATE = {"task_acks_late": True, "worker_prefetch_multiplier": 1}


@pytest.mark.parametrize("how", ["evicted", "deleted", "flushed"])
def test_a_message_that_vanishes_from_redis_is_reported(
    open_stage: Open, rows: Any, tmp_path: Any, how: str
) -> None:
    words = {
        "evicted": "Redis evicts the queue: its memory is full (`allkeys-lru`)",
        "deleted": "somebody deletes the queue (`DEL`)",
        "flushed": "somebody flushes the broker (`FLUSHDB`)",
    }
    row = rows("F6", words[how])
    options = ["--maxmemory", "16mb", "--maxmemory-policy", "allkeys-lru", "--maxmemory-samples", "64"]
    redis = parts.Redis(tmp_path, *(options if how == "evicted" else []))
    with ended(redis):
        redis.start()
        schedule = {"report": {"task": "shop.job", "schedule": 30.0, "options": {"queue": "reports"}}}
        stage = open_stage(redis.url, schedule, settings=LATE)
        stage.worker("one")
        stage.worker("two", processes=1, queues="reports")
        stage.beat()
        stage.healthy("report", CANARY, workers=("one@shop", "two@shop"), runs=1)

        # Its worker is busy with something else.
        stage.order("long", "hold")
        stage.control.app.send_task("shop.job", args=["long"], queue="reports")
        stage.at_work("long")
        parts.wait_for("a waiting message", lambda: redis.ask("LLEN", "reports") == "1", 40)
        due = parts.instant(stage.monitors()["report"]["next_due_at"])
        if how == "evicted":
            fill(redis)
        else:
            redis.ask(*(["DEL", "reports"] if how == "deleted" else ["FLUSHDB"]))
        assert redis.ask("EXISTS", "reports") == "0"
        alerted = ("monitor", "report", "LOST_IN_BROKER")
        incident = stage.noticed(row, due, alerted, SAMPLE)

        stage.recall("long")
        stage.resolved(row, incident, repair="not run: settings of Redis")
        stage.stays(GRACE, alerted)


def test_a_queue_that_is_purged_is_reported(open_stage: Open, rows: Any, tmp_path: Any) -> None:
    row = rows("F6", "somebody purges the queue (RabbitMQ)")
    rabbit = parts.RabbitMQ(tmp_path)
    with ended(rabbit):
        rabbit.start()
        schedule = {"report": {"task": "shop.job", "schedule": 30.0, "options": {"queue": "reports"}}}
        stage = open_stage(rabbit.url, schedule, settings=LATE)
        stage.worker("one")
        stage.worker("two", processes=1, queues="reports")
        stage.beat()
        stage.healthy("report", CANARY, workers=("one@shop", "two@shop"), runs=1)

        # Its worker is busy with something else.
        stage.order("long", "hold")
        stage.control.app.send_task("shop.job", args=["long"], queue="reports")
        stage.at_work("long")
        parts.wait_for("a waiting message", lambda: stage.depth("reports") == 1, 40)
        due = parts.instant(stage.monitors()["report"]["next_due_at"])
        assert stage.celery("purge", "purge", "-f", "-Q", "reports").process.wait(30) == 0
        assert stage.depth("reports") == 0
        alerted = ("monitor", "report", "LOST_IN_BROKER")
        incident = stage.noticed(row, due, alerted, SAMPLE)

        stage.recall("long")
        stage.resolved(row, incident, repair="not run: settings of RabbitMQ")
        stage.stays(GRACE, alerted)


def test_messages_that_vanish_one_after_the_other_are_reported(
    open_stage: Open, redis: parts.Redis, rows: Any
) -> None:
    row = rows("F6", "each message vanishes, of an entry that is due every 5 s")
    schedule = {"report": {"task": "shop.job", "schedule": 5.0, "options": {"queue": "reports"}}}
    stage = open_stage(redis.url, schedule, settings=LATE)
    stage.worker("one")
    stage.worker("two", processes=1, queues="reports")
    stage.beat()
    stage.healthy("report", CANARY, workers=("one@shop", "two@shop"), runs=1)

    stage.order("long", "hold")
    stage.control.app.send_task("shop.job", args=["long"], queue="reports")
    stage.at_work("long")
    due = parts.instant(stage.monitors()["report"]["next_due_at"])
    alerted = ("monitor", "report", "LOST_IN_BROKER")
    lost = 0

    def vanish() -> bool:
        nonlocal lost
        lost += int(redis.ask("DEL", "reports"))
        return alerted in stage.alerted() or time.time() > due + SAMPLE + TOLERANCE + 5

    parts.wait_for("the verdict", vanish, 60)
    assert lost >= 3
    incident = stage.noticed(row, due, alerted, SAMPLE)

    stage.recall("long")
    stage.resolved(row, incident, repair="not run: settings of Redis")
    stage.stays(GRACE, alerted)


def fill(redis: parts.Redis) -> None:
    """Other data takes the memory until the queue is gone."""
    for n in range(4_000):
        redis.ask("SET", f"page {n}", "x" * 16_384)
        if redis.ask("EXISTS", "reports") == "0":
            return
    raise AssertionError("Redis evicted everything but the queue")


def test_a_queue_that_lost_its_only_consumer_is_reported(
    open_stage: Open, broker: parts.Redis | parts.RabbitMQ, rows: Any
) -> None:
    name = type(broker).__name__
    row = rows("F7", f"a queue is consumed by nobody any more ({name})")
    schedule = {
        "report": {"task": "shop.job", "schedule": 2.0, "options": {"queue": "reports"}},
        "tick": {"task": "shop.job", "schedule": 2.0},
    }
    stage = open_stage(broker.url, schedule)
    stage.worker("one")
    two = stage.worker("two", queues="reports")
    stage.beat()
    stage.healthy("report", "tick", CANARY, workers=("one@shop", "two@shop"))

    # The worker stops in order, and nobody else consumes its queue.
    left_at = time.time()
    two.process.terminate()
    alerted = ("queue", "reports", "QUEUE_UNCONSUMED")
    # For a while it may be a deployment.
    incident = stage.noticed(row, left_at, alerted, REPLACED_WITHIN + SAMPLE_PERIOD + 4)
    stage.members(alerted, {"report"})
    stage.stays(GRACE, alerted)

    stage.type_in(incident, "add_consumer")
    stage.resolved(row, incident)
    stage.stays(GRACE, alerted)


def test_an_entry_of_a_queue_that_nobody_ever_consumed_is_reported(
    open_stage: Open, redis: parts.Redis, rows: Any
) -> None:
    row = rows("F7", "a deployment routes an entry to a queue that nobody consumes")
    stage = open_stage(redis.url, {"report": {"task": "shop.job", "schedule": 2.0}})
    stage.worker("one")
    beat = stage.beat()
    stage.healthy("report", CANARY)

    stage.schedule["report"]["options"] = {"queue": "reprots"}
    stage.deploy()
    beat.stop()
    deployed_at = time.time()
    stage.beat()
    alerted = ("queue", "reprots", "QUEUE_UNCONSUMED")
    incident = stage.noticed(row, deployed_at, alerted, UNCONSUMED_DEADLINE + 4)
    stage.members(alerted, {"report"})
    stage.stays(GRACE, alerted)

    stage.type_in(incident, "add_consumer")
    stage.resolved(row, incident)
    stage.stays(GRACE, alerted)


def test_a_backlog_is_reported_for_its_queue(
    open_stage: Open, broker: parts.Redis | parts.RabbitMQ, rows: Any
) -> None:
    where = " (RabbitMQ)" if isinstance(broker, parts.RabbitMQ) else ""
    row = rows("F9", f"a queue is consumed, and slower than it fills{where}")
    allowed = 20.0
    stage = open_stage(
        broker.url,
        {
            "tick": {"task": "shop.job", "schedule": 2.0},
            "report": {"task": "shop.job", "schedule": 1.0, "options": {"queue": "reports"}},
        },
        settings=LATE,
        env={"DEADBEAT_QUEUE_WAIT_SECONDS": f"{allowed:g}"},
    )
    stage.worker("one")
    stage.worker("two", processes=1, queues="reports")
    stage.beat()
    stage.healthy("tick", "report", CANARY, workers=("one@shop", "two@shop"))

    # One message comes each second, one ends every three: the oldest one's age grows by two seconds in three.
    stage.order("report", "sleep 3")
    slowed_at = time.time()
    alerted = ("queue", "reports", "QUEUE_SLA_BREACH")
    incident = stage.noticed(row, slowed_at, alerted, allowed * 3 / 2 + 3 + SAMPLE_PERIOD)
    stage.stays(GRACE, alerted)

    stage.recall("report")
    stage.type_in(incident, "worker")
    stage.resolved(row, incident)
    stage.stays(GRACE, alerted)


def test_a_backlog_of_others_messages_is_reported_for_its_queue(
    open_stage: Open, redis: parts.Redis, rows: Any
) -> None:
    row = rows("F9", "the same, of messages that no process with the SDK has sent")
    allowed = 20.0
    stage = open_stage(
        redis.url,
        {"tick": {"task": "shop.job", "schedule": 2.0}},
        settings=LATE,
        env={"DEADBEAT_QUEUE_WAIT_SECONDS": f"{allowed:g}"},
    )
    stage.worker("one")
    stage.worker("two", processes=1, queues="reports")
    stage.beat()
    stage.healthy("tick", CANARY, workers=("one@shop", "two@shop"))

    stage.order("slow", "sleep 6")
    flooded_at = time.time()
    for _ in range(20):
        stage.control.app.send_task("shop.job", args=["slow"], queue="reports")
    alerted = ("queue", "reports", "QUEUE_SLA_BREACH")
    incident = stage.noticed(row, flooded_at, alerted, allowed + 2 * SAMPLE_PERIOD)

    stage.recall("slow")
    stage.type_in(incident, "worker")
    stage.resolved(row, incident)
    stage.stays(GRACE, alerted)


@pytest.mark.parametrize("copy", ["as long", "at once"])
def test_a_run_that_outlives_the_visibility_timeout_is_reported(
    open_stage: Open, redis: parts.Redis, rows: Any, copy: str
) -> None:
    ends = {"as long": "both take long", "at once": "the second one ends at once"}
    row = rows("F5", f"a run outlives Redis's visibility timeout, and runs twice; {ends[copy]}")
    stage = open_stage(
        redis.url,
        {"report": {"task": "shop.job", "schedule": 5.0}},
        settings={
            "task_acks_late": True,
            # The sweep comes each second: with kombu's own figures, after 100.
            "broker_transport_options": {
                "visibility_timeout": 9,
                "unacked_restore_interval": 1,
                "unacked_restore_throttle": 1,
            },
        },
    )
    stage.worker("one", processes=4)
    stage.beat()
    stage.healthy("report", CANARY)

    stage.order("report", "alone" if copy == "as long" else "sleep 14")
    stage.at_work("report")
    began_at = time.time()
    if copy == "at once":
        stage.recall("report")
    alerted = ("monitor", "report", "DUPLICATE_RUN")
    incident = stage.noticed(row, began_at, alerted, 9 + 1 + CONTEST_PATIENCE)

    stage.recall("report")
    stage.resolved(row, incident, repair="not run: settings")
    stage.stays(GRACE, alerted)


def test_a_run_whose_connection_is_cut_is_reported_when_it_runs_twice(
    open_stage: Open, rows: Any, tmp_path: Any
) -> None:
    row = rows("F5", "RabbitMQ delivers a run again whose worker's connection was cut")
    rabbit = parts.RabbitMQ(tmp_path)
    with ended(rabbit):
        rabbit.start()
        line = Proxy(rabbit.port)
        with ended(line):
            stage = open_stage(
                rabbit.url,
                {"report": {"task": "shop.job", "schedule": 5.0}},
                settings={"task_acks_late": True},
            )
            cuttable = rabbit.url.replace(str(rabbit.port), str(line.port))
            stage.worker("one", processes=4, env={"CELERY_BROKER_URL": cuttable})
            stage.beat()
            stage.healthy("report", CANARY)

            stage.order("report", "alone")
            stage.at_work("report")
            parts.wait_for("an open run", lambda: stage.monitors()["report"]["running"], 10)
            cut_at = time.time()
            line.refuse()
            line.heal()
            alerted = ("monitor", "report", "DUPLICATE_RUN")
            # The worker is back within its first pauses.
            incident = stage.noticed(row, cut_at, alerted, 2 + CONTEST_PATIENCE)

            stage.recall("report")
            stage.resolved(row, incident, repair="not run: settings")
            stage.stays(GRACE, alerted)
