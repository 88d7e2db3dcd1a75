"""Two Beats of one name run at once: by mistake, for a moment, or because two applications share the name."""

from __future__ import annotations

import shlex
import subprocess
import time
from typing import Any

import pytest

import parts
from silent_failures.stage import BEAT_DEADLINE, BEAT_PERIOD, CANARY, GRACE, OVERLAP_PATIENCE, Open

BEAT_DUPLICATE = ("beat", "shop", "BEAT_DUPLICATE")
TICKS = {"report": {"task": "shop.job", "schedule": 2.0}, "invoice": {"task": "shop.job", "schedule": 4.0}}


@pytest.mark.long
def test_two_beats_of_one_schedule_are_one_incident(open_stage: Open, redis: parts.Redis, rows: Any) -> None:
    row = rows("F23", "a second Beat of the same schedule is started beside the first")
    stage = open_stage(redis.url, TICKS)
    stage.worker()
    stage.beat()
    stage.healthy("report", "invoice", CANARY)

    began_at = time.time()
    second = stage.beat("--schedule", "second")
    incident = stage.noticed(row, began_at, BEAT_DUPLICATE, OVERLAP_PATIENCE + BEAT_DEADLINE)
    evidence = " ".join(one["fact"] for one in incident["evidence"])
    pids = [part.process.pid for part in stage.running if part.name == "beat"]
    assert all(f"process {pid}" in evidence for pid in pids), (pids, evidence)
    stage.stays(GRACE, BEAT_DUPLICATE)

    # The incident names a command for each; the one that ends the second process is the right one here.
    commands = [shlex.split(step["command"] or "") for step in incident["repair"]]
    assert ["kill", "-TERM", str(second.process.pid)] in commands, commands
    subprocess.run(["kill", "-TERM", str(second.process.pid)], check=True)
    second.process.wait(30)
    stage.resolved(row, incident)
    stage.lively("report", "invoice", CANARY, runs=1)
    stage.stays(GRACE, BEAT_DUPLICATE)


@pytest.mark.core
def test_a_rolling_deployment_of_beat_is_no_incident(open_stage: Open, redis: parts.Redis, rows: Any) -> None:
    row = rows(
        "S1", "Beat is deployed by rolling: the new process starts before the old one ends, three times"
    )
    stage = open_stage(redis.url, TICKS)
    stage.worker()
    beat = stage.beat("--schedule", "beat-0")
    stage.healthy("report", "invoice", CANARY)

    for number in range(1, 4):
        following = stage.beat("--schedule", f"beat-{number}")
        # Both report for some periods.
        stage.lively("report", runs=4)
        assert beat.stop() is not None
        beat = following
        stage.lively("report", "invoice", CANARY, runs=1)
    stage.stays(BEAT_PERIOD + BEAT_DEADLINE + GRACE)
    row.silent()
