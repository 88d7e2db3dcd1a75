"""Runs end badly, or take far longer or shorter than ever."""

from __future__ import annotations

import os
import signal
import time
from typing import Any

import pytest

import parts
from silent_failures.stage import CANARY, GRACE, Open


@pytest.mark.core
def test_each_bad_end_is_reported_by_its_own_cause(open_stage: Open, redis: parts.Redis, rows: Any) -> None:
    every = {"task": "shop.job", "schedule": 3.0}
    schedule = {
        "raises": every,
        "retries": every,
        "is rejected": every,
        "is revoked": every,
        "expires": {**every, "options": {"queue": "late", "expires": 1.0}},
    }
    stage = open_stage(redis.url, schedule, env={"DEADBEAT_GRACE_SECONDS": "20"})
    stage.worker("one", processes=3, queues="celery,late")
    stage.beat()
    stage.healthy(*schedule, CANARY)

    opened = {
        name: (rows("F11", fault), ("monitor", name, cause))
        for name, fault, cause in (
            ("raises", "the task raises", "FAILED"),
            ("retries", "the task retries until it may not any more", "RETRIES_EXHAUSTED"),
            ("is rejected", "the task rejects its message", "REJECTED"),
            ("is revoked", "a run is revoked and terminated", "REVOKED"),
            ("expires", "the message is too old when a worker takes it", "EXPIRED"),
        )
    }
    begun: dict[str, float] = {}
    for name, order in (
        ("raises", "fail the stock is negative"),
        ("retries", "retry the shop is away"),
        ("is rejected", "reject"),
        ("is revoked", "hold"),
    ):
        stage.order(name, order)
        _, task_id = stage.at_work(name)
        begun[name] = time.time()
    stage.control.revoke(task_id, terminate=True, signal=signal.SIGTERM)
    begun["is revoked"] = time.time()
    stage.recall("is revoked")
    stage.control.cancel_consumer("late")
    parts.wait_for("a message that waits", lambda: redis.ask("LLEN", "late") != "0", 20)
    too_old_at = time.monotonic() + 1.5
    parts.wait_for("its end", lambda: time.monotonic() > too_old_at)
    stage.control.add_consumer("late")
    begun["expires"] = time.time()

    faults = []
    for name, (row, alerted) in opened.items():
        try:
            # Retries take a moment each.
            incident = stage.noticed(row, begun[name], alerted, 2)
            stage.recall(name)
            stage.resolved(row, incident, repair="nothing to type")
            row.held = True
        except AssertionError as fault:
            faults.append(f"{name}: {fault}")
            stage.recall(name)
    assert not faults, "\n".join(faults)
    stage.stays(2, *(alerted for _, alerted in opened.values()))


@pytest.mark.core
def test_a_message_that_its_worker_refuses_is_reported_with_the_workers_reason(
    open_stage: Open, redis: parts.Redis, rows: Any
) -> None:
    stage = open_stage(redis.url, {"report": {"task": "shop.job", "schedule": 1.0}})
    stage.worker()
    beat = stage.beat()
    stage.healthy("report", CANARY)

    refused = {
        "pickled": (
            rows("F41", "Beat sends a content type that the worker refuses"),
            {"task": "shop.job", "schedule": 2.0, "options": {"serializer": "pickle"}},
            "ContentDisallowed: content type application/x-python-serialize",
        ),
        "gone": (
            rows("F41", "Beat sends a task that the worker does not know"),
            {"task": "shop.gone", "schedule": 2.0},
            "unknown task shop.gone",
        ),
    }
    beat.stop()
    stage.schedule |= {name: entry for name, (_, entry, _) in refused.items()}
    stage.deploy()
    stage.beat()
    sent_at = time.time()

    for name, (row, _, reason) in refused.items():
        # Beat starts, and counts an interval from then.
        incident = stage.noticed(row, sent_at, ("monitor", name, "REJECTED"), 2 + 4)
        assert reason in incident["cause"]["summary"], incident
        row.repair = "not run: settings" if name == "pickled" else "not run: a deployment"
    stage.stays(GRACE, *(("monitor", name, "REJECTED") for name in refused))


@pytest.mark.core
def test_a_time_limit_is_reported_as_such_soft_or_hard(
    open_stage: Open, redis: parts.Redis, rows: Any
) -> None:
    schedule = {
        "soft": {"task": "shop.job", "schedule": 3.0, "options": {"soft_time_limit": 2, "time_limit": 30}},
        "hard": {"task": "shop.job", "schedule": 3.0, "options": {"time_limit": 2}},
    }
    stage = open_stage(redis.url, schedule, env={"DEADBEAT_GRACE_SECONDS": "20"})
    stage.worker("one", processes=3)
    stage.beat()
    stage.healthy(*schedule, CANARY)

    opened = {name: rows("F12", f"a run reaches its {name} time limit") for name in schedule}
    faults = []
    for name, row in opened.items():
        stage.order(name, "hold")
        stage.at_work(name)
        began_at = time.time()
        try:
            alerted = ("monitor", name, "TIME_LIMIT")
            parts.wait_for("an incident", lambda name=name: name in {one[1] for one in stage.alerted()}, 10)
            # Runs that begin from now on are healthy.
            stage.recall(name)
            incident = stage.noticed(row, began_at, alerted, 2 + 2)
            stage.resolved(row, incident, repair="nothing to type")
            row.held = True
        except AssertionError as fault:
            stage.recall(name)
            faults.append(f"{name}: {fault}")
    assert not faults, "\n".join(faults)
    stage.stays(2, *(("monitor", name, "TIME_LIMIT") for name in schedule))


def test_a_run_far_longer_than_ever_is_reported(open_stage: Open, redis: parts.Redis, rows: Any) -> None:
    row = rows("F13", "a run takes far longer than it ever did")
    stage = open_stage(redis.url, {"report": {"task": "shop.job", "schedule": 1.0}})
    stage.worker("one", processes=4)
    stage.beat()
    # The server must learn the usual length first.
    stage.healthy("report", CANARY, runs=25)

    stage.order("report", "sleep 80")
    stage.at_work("report")
    began_at = time.time()
    stage.recall("report")
    alerted = ("monitor", "report", "OVERRUN")
    incident = stage.noticed(row, began_at, alerted, 61)

    parts.wait_for("its end", lambda: any(one["longest"] is None for one in stage.workers().values()), 130)
    stage.resolved(row, incident, repair="not run: inspect it")
    stage.stays(GRACE, alerted)


def test_runs_far_shorter_than_ever_are_reported_and_a_single_one_is_not(
    open_stage: Open, redis: parts.Redis, rows: Any
) -> None:
    once = rows("S17", "a batch job has nothing to do for once, and ends at once")
    row = rows("F13", "three runs one after the other take far less time than any did")
    stage = open_stage(redis.url, {"report": {"task": "shop.job", "schedule": 2.0}})
    stage.order("report", "sleep 1.5")
    stage.worker("one", processes=4)
    stage.beat()
    stage.healthy("report", CANARY, runs=25)

    # The next run has nothing to do; those after it have.
    stage.order("report", "first 1.5")
    parts.wait_for("a run with nothing to do", lambda: (stage.folder / "pids" / "report").exists(), 20)
    stage.lively("report", runs=4)
    stage.stays(GRACE)
    once.silent()

    stage.recall("report")
    short_at = time.time()
    alerted = ("monitor", "report", "TOO_FAST")
    incident = stage.noticed(row, short_at, alerted, 3 * 2 + 2)

    stage.order("report", "sleep 1.5")
    stage.resolved(row, incident, repair="nothing to type")
    stage.stays(GRACE, alerted)


def test_what_retries_and_succeeds_is_no_incident(open_stage: Open, redis: parts.Redis, rows: Any) -> None:
    row = rows("quiet", "each run is retried once, and each pool process is replaced after five")
    stage = open_stage(
        redis.url,
        {"report": {"task": "shop.job", "schedule": 1.0}},
        settings={"worker_max_tasks_per_child": 5},
    )
    stage.order("report", "once the shop is away")
    one = stage.worker()
    stage.beat()
    stage.healthy("report", CANARY, runs=10)
    assert os.path.exists(f"/proc/{one.process.pid}")
    stage.stays(10)
    row.silent()
