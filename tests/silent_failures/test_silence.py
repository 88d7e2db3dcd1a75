"""Events that must cause no alert: deployments, Deadbeat's own outages, and ten minutes without a fault."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from pathlib import Path
from typing import Any

import pytest

import parts
from silent_failures.stage import BEAT_DEADLINE, CANARY, GRACE, Open, Project


@pytest.mark.core
def test_an_entry_that_a_deployment_removes_is_retired(
    open_stage: Open, redis: parts.Redis, rows: Any
) -> None:
    row = rows("F17", "a deployment removes an entry")
    schedule = {name: {"task": "shop.job", "schedule": 2.0} for name in ("stays", "goes")}
    stage = open_stage(redis.url, schedule, env={"DEADBEAT_BEAT_GRACE_SECONDS": "15"})
    stage.worker()
    beat = stage.beat()
    stage.healthy(*schedule, CANARY)

    del schedule["goes"]
    stage.deploy()
    beat.stop()
    stage.beat()
    parts.wait_for("its retirement", lambda: stage.monitors()["goes"]["retired_at"] is not None, 30)
    stage.stays(2 + GRACE + 2)
    monitors = stage.monitors()
    assert monitors["goes"]["status"] == "paused"
    assert monitors["stays"]["status"] in ("up", "late")
    row.silent()


@pytest.mark.core
def test_an_entry_whose_runs_begin_later(open_stage: Open, redis: parts.Redis, rows: Any) -> None:
    row = rows(
        "S16", "Beat sends an entry with a countdown that is longer than its grace, and than its interval"
    )
    countdown = 2 * GRACE
    schedule = {"spread": {"task": "shop.job", "schedule": 6.0, "options": {"countdown": countdown}}}
    stage = open_stage(redis.url, schedule)
    stage.worker()
    stage.beat()
    stage.healthy("spread", CANARY)

    assert stage.monitors()["spread"]["delay_seconds"] == countdown
    stage.stays(2 * countdown + GRACE)
    row.silent()


def own_server(tmp_path: Path) -> parts.Server:
    return parts.Server(tmp_path).ready()


def successor(server: parts.Server, pid: int) -> bool:
    """True if another PostgreSQL process than that one runs. During its start the pid may be missing."""
    with contextlib.suppress(OSError, IndexError, ValueError):
        return server.postgres_pid() != pid
    return False


@pytest.mark.parametrize("victim", ["server", "postgres"])
def test_our_own_outage_is_no_incident(
    open_stage: Open, redis: parts.Redis, rows: Any, tmp_path: Path, victim: str
) -> None:
    what = (
        "Deadbeat is away for longer than every deadline"
        if victim == "server"
        else "Deadbeat's database is killed, three times"
    )
    row = rows("F19", what)
    server = own_server(tmp_path)
    try:
        project = Project(server.url, server.keys["API key"], server.keys["ping key"])
        schedule = {f"entry {n}": {"task": "shop.job", "schedule": 1.0} for n in range(5)}
        stage = open_stage(redis.url, schedule, project=project)
        stage.worker()
        stage.beat()
        stage.healthy(*schedule, CANARY)
        if victim == "server":
            server.part.kill_only()
            until = time.monotonic() + 2 * (GRACE + BEAT_DEADLINE)
            parts.wait_for("a while", lambda: time.monotonic() > until, 60)
            server.again()
        else:
            for _ in range(3):
                pid = server.drained().postgres_pid()
                os.kill(pid, signal.SIGKILL)
                parts.wait_for("its successor", lambda pid=pid: successor(server, pid), 60)
                server.drained()
                stage.lively(*schedule, CANARY)
        server.drained()
        stage.lively(*schedule, CANARY)
        stage.stays(GRACE + BEAT_DEADLINE)
        row.silent()
    finally:
        server.stop()


@pytest.mark.long
def test_ten_minutes_of_a_healthy_life_are_no_incident(
    open_stage: Open, redis: parts.Redis, rows: Any
) -> None:
    minutes = float(os.environ.get("SILENT_FAILURES_MINUTES", "10"))
    row = rows("quiet", f"{minutes:g} minutes of load, deployments, retries and slow tasks")
    schedule = {
        "tick": {"task": "shop.job", "schedule": 1.0},
        "slow": {"task": "shop.job", "schedule": 5.0},
        "flaky": {"task": "shop.job", "schedule": 2.0},
        "elsewhere": {"task": "shop.job", "schedule": 3.0, "options": {"queue": "reports"}},
        "each minute": {"task": "shop.job", "schedule": "* * * * *"},
    }
    # Long enough for a deployment; in production this is a minute.
    stage = open_stage(
        redis.url, schedule, env={"DEADBEAT_GRACE_SECONDS": "15", "DEADBEAT_BEAT_GRACE_SECONDS": "15"}
    )
    stage.order("slow", "sleep 4")
    stage.order("flaky", "once the shop is away")
    workers = {name: stage.worker(name, queues="celery,reports") for name in ("one", "two")}
    beat = stage.beat()
    stage.healthy("tick", "slow", "flaky", "elsewhere", CANARY, workers=("one@shop", "two@shop"))

    end = time.monotonic() + minutes * 60
    deployments = 0
    while time.monotonic() < end:
        stage.stays(20)
        for name in workers:
            # Restart one after the other, each in order.
            workers[name].stop()
            workers[name] = stage.worker(name, queues="celery,reports")
            parts.wait_for(
                "the worker's return",
                lambda name=name: stage.workers()[f"{name}@shop"]["status"] == "up",
                30,
            )
        beat.stop()
        beat = stage.beat()
        deployments += 1
        stage.lively("tick", "slow", "flaky", "elsewhere", CANARY, runs=1)
    assert deployments >= minutes
    stage.stays(20)
    row.silent()
