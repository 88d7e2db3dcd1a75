"""The result backend is away: one incident about it, whoever waits for it; none if nobody uses it."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import parts
from silent_failures.stage import CANARY, GRACE, SAMPLE_PERIOD, Open

# Tasks with results, and one without.
SCHEDULE = {
    **{f"entry {n}": {"task": "shop.step", "schedule": 2.0} for n in range(4)},
    "plain": {"task": "shop.job", "schedule": 2.0},
}
# The fault must last for 20 s; a call of 2 s is only slow; a sample must show that the broker answers.
DEADLINE = 20.0 + 2.0 + SAMPLE_PERIOD


@pytest.fixture
def results(tmp_path: Path) -> Iterator[parts.Redis]:
    """A second Redis, which keeps results."""
    folder = tmp_path / "results"
    folder.mkdir()
    started = parts.Redis(folder)
    try:
        yield started.start()
    finally:
        started.stop()


def alerted_of(results: parts.Redis) -> tuple[str, str, str]:
    return ("result_backend", results.url, "RESULT_BACKEND_DOWN")


@pytest.mark.parametrize("how", ["killed", "frozen", "impatient", "full"])
def test_a_result_backend_that_does_not_answer_is_one_incident(
    open_stage: Open, redis: parts.Redis, results: parts.Redis, rows: Any, how: str
) -> None:
    words = {
        "killed": ("F50", "the result backend is killed: Beat hangs in it, and results are lost"),
        "frozen": ("F51", "the result backend answers nothing (SIGSTOP): workers hang in it"),
        "impatient": ("F51", "the same, and workers give up after 4 s each time (`redis_socket_timeout`)"),
        "full": ("F52", "the result backend is full (`maxmemory`, `noeviction`): it refuses results"),
    }
    row = rows(*words[how])
    settings: dict[str, Any] = {"result_backend": results.url}
    if how == "impatient":
        settings["redis_socket_timeout"] = 4.0
    stage = open_stage(redis.url, SCHEDULE, settings=settings)
    stage.worker()
    stage.beat()
    stage.healthy(*SCHEDULE, CANARY)
    assert results.part is not None

    down_at = time.time()
    if how == "killed":
        results.kill()
    elif how in ("frozen", "impatient"):
        os.kill(results.part.process.pid, signal.SIGSTOP)
    else:
        results.ask("CONFIG", "SET", "maxmemory", "1")
    alerted = alerted_of(results)
    incident = stage.noticed(row, down_at, alerted, DEADLINE)
    facts = " ".join(fact["fact"] for fact in incident["evidence"])
    if how == "full":
        assert "maxmemory" in incident["cause"]["summary"], incident
    assert "store_result" in facts, incident
    # Beat also drops a result that nobody will read; that call hangs as the sending does.
    assert ("remove_pending_result" in facts or "on_task_call" in facts) == (how == "killed"), incident
    stage.stays(3 * GRACE, alerted)

    if how == "killed":
        results.start()
    elif how in ("frozen", "impatient"):
        os.kill(results.part.process.pid, signal.SIGCONT)
    else:
        results.ask("CONFIG", "SET", "maxmemory", "0")
    stage.resolved(row, incident, repair="not run: another server")
    stage.recovered()
    stage.lively(*SCHEDULE)
    stage.stays(2 * GRACE, alerted)


def test_runs_that_cannot_store_that_they_began_are_part_of_it(
    open_stage: Open, redis: parts.Redis, results: parts.Redis, rows: Any
) -> None:
    row = rows(
        "F53", "the result backend refuses that runs have begun (`task_track_started`): none of them begins"
    )
    settings = {"result_backend": results.url, "task_track_started": True}
    stage = open_stage(redis.url, SCHEDULE, settings=settings)
    stage.worker()
    stage.beat()
    stage.healthy(*SCHEDULE, CANARY)

    down_at = time.time()
    results.ask("CONFIG", "SET", "maxmemory", "1")
    alerted = alerted_of(results)
    incident = stage.noticed(row, down_at, alerted, DEADLINE)
    stage.members(alerted, {name for name in SCHEDULE if name != "plain"})
    stage.stays(2 * GRACE, alerted)

    results.ask("CONFIG", "SET", "maxmemory", "0")
    stage.resolved(row, incident, repair="not run: another server")
    stage.recovered()
    stage.stays(2 * GRACE, alerted)


def test_a_dead_result_backend_that_nobody_uses_is_not_reported(
    open_stage: Open, redis: parts.Redis, results: parts.Redis, rows: Any
) -> None:
    row = rows("S20", "the result backend is dead, and no task has a result")
    results.kill()
    schedule = {f"entry {n}": {"task": "shop.job", "schedule": 2.0} for n in range(3)}
    stage = open_stage(redis.url, schedule, settings={"result_backend": results.url})
    stage.worker()
    stage.beat()
    stage.healthy(*schedule, CANARY)

    stage.stays(DEADLINE + 3 * GRACE)
    stage.lively(*schedule)
    row.silent()


def test_a_slow_result_backend_is_not_reported(
    open_stage: Open, redis: parts.Redis, results: parts.Redis, rows: Any
) -> None:
    row = rows("S21", "the result backend takes 2 s for each answer")
    schedule = {f"entry {n}": {"task": "shop.step", "schedule": 8.0} for n in range(2)}
    env = {"DEADBEAT_GRACE_SECONDS": "20"}
    stage = open_stage(redis.url, schedule, settings={"result_backend": results.url}, env=env)
    stage.worker(processes=4)
    stage.beat()
    stage.healthy(*schedule, CANARY)

    over = threading.Event()

    def slow() -> None:
        # Every command waits meanwhile, and so does the pause itself.
        while not over.wait(0.2):
            results.ask("CLIENT", "PAUSE", "2000")

    thread = threading.Thread(target=slow)
    thread.start()
    try:
        stage.stays(DEADLINE + 3 * GRACE)
    finally:
        over.set()
        thread.join()
    stage.lively(*schedule)
    stage.stays(GRACE)
    row.silent()
