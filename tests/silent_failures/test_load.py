"""The host of a worker is overloaded: its late runs get the right cause."""

from __future__ import annotations

import contextlib
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import parts
from silent_failures.stage import CANARY, GRACE, WORKER_DEADLINE, Open, Stage, children

# With this many processes for each CPU, the host's load passes two a CPU within half a minute: the load is an
# average of a minute.
BURNERS_A_CPU = 5
# They run at a lower priority than all else on this machine, and the worker at a lower one than they.
BURNERS_NICE, WORKER_NICE = 10, 19
# Longer than the host's load needs to rise.
PATIENCE = 45.0
SCHEDULE = {f"entry {n}": {"task": "shop.job", "schedule": 3.0} for n in range(6)}
PATIENT = ("DEADBEAT_GRACE_SECONDS", "DEADBEAT_CANARY_GRACE_SECONDS")


def give_way(pid: int, nice: int) -> None:
    """All threads of a process, and its session where Linux shares CPUs between sessions."""
    for thread in os.listdir(f"/proc/{pid}/task"):
        with contextlib.suppress(ProcessLookupError):
            os.setpriority(os.PRIO_PROCESS, int(thread), nice)
    group = Path(f"/proc/{pid}/autogroup")

    def is_written() -> bool:
        # Without root this works ten times a second.
        with contextlib.suppress(BlockingIOError):
            group.write_text(str(nice))
            return True
        return False

    if group.exists():
        parts.wait_for("the session's share", is_written, 5)


@contextlib.contextmanager
def burners(stage: Stage) -> Iterator[list[parts.Part]]:
    """Processes that use all CPUs."""
    burning = []
    try:
        for number in range(BURNERS_A_CPU * (os.cpu_count() or 1)):
            part = parts.Part(f"burner-{number}", [sys.executable, "-c", "while True: pass"], stage.folder)
            burning.append(part)
            give_way(part.process.pid, BURNERS_NICE)
        yield burning
    finally:
        for part in burning:
            part.kill()


@pytest.mark.long
def test_a_worker_that_starves_is_one_incident_with_the_load_of_its_host(
    open_stage: Open, redis: parts.Redis, rows: Any
) -> None:
    row = rows("F54", "the CPUs of a worker's host are taken by others; its six entries run late")
    stage = open_stage(redis.url, SCHEDULE, env=dict.fromkeys(PATIENT, f"{PATIENCE:g}"))
    worker = stage.worker()
    stage.beat()
    stage.healthy(*SCHEDULE, CANARY)

    # All of them need less than half a CPU.
    for name in SCHEDULE:
        stage.order(name, "burn 0.2")
    stage.lively(*SCHEDULE, runs=1)
    taken_at = time.time()
    for pid in (worker.process.pid, *children(worker)):
        give_way(pid, WORKER_NICE)
    with burners(stage):
        alerted = ("worker", "one@shop", "HOST_OVERLOADED")
        # A run that is sent in the first seconds still begins in time. If its worker reports irregularly, the
        # server waits as long as the worker may be silent, and 20 s.
        limit = PATIENCE + WORKER_DEADLINE + 20.0 + 3.0
        incident = stage.noticed(row, taken_at, alerted, limit, patience=60)
        evidence = " ".join(fact["fact"] for fact in incident["evidence"])
        assert "is overloaded" in evidence, evidence
        assert "waited for a CPU" in evidence, evidence
        assert incident["repair"][0]["command"].startswith("ps "), incident["repair"]
        stage.stays(2 * GRACE, alerted)
    for name in SCHEDULE:
        stage.recall(name)
    stage.resolved(row, incident, limit=120, repair="not run: what takes the CPUs")
    stage.recovered()
    stage.stays(GRACE, alerted)


@pytest.mark.long
def test_a_loaded_host_whose_runs_come_in_time_is_well(
    open_stage: Open, redis: parts.Redis, rows: Any
) -> None:
    row = rows(
        "S19", "a worker's host is loaded with four processes a CPU for a minute, and its runs come in time"
    )
    stage = open_stage(redis.url, SCHEDULE, env=dict.fromkeys(PATIENT, f"{PATIENCE:g}"))
    stage.worker()
    stage.beat()
    stage.healthy(*SCHEDULE, CANARY)

    with burners(stage):
        parts.wait_for("the load", lambda: os.getloadavg()[0] >= 2 * (os.cpu_count() or 1), 120)
        stage.stays(30)
        stage.lively(*SCHEDULE, runs=2)
    stage.stays(GRACE)
    row.silent()
