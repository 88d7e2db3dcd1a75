"""Two Beats of one name run at once: by mistake, for a moment, or because two applications share the name."""

from __future__ import annotations

import json
import shlex
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

import parts
from silent_failures.stage import BEAT_DEADLINE, BEAT_PERIOD, CANARY, GRACE, OVERLAP_PATIENCE, Open

BEAT_DUPLICATE = ("beat", "shop", "BEAT_DUPLICATE")
APP_NAME_SHARED = ("beat", "shop", "APP_NAME_SHARED")
BEAT_DOWN = ("beat", "shop", "BEAT_DOWN")
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

    # The incident has a command for each Beat; here the command for the second process is right.
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


def schedule_of(folder: Path, schedule: dict[str, Any]) -> dict[str, str]:
    """The arguments of a Beat with its own schedule."""
    folder.mkdir()
    (folder / "schedule.json").write_text(json.dumps(schedule))
    (folder / "settings.json").write_text("{}")
    return {"SHOP_FOLDER": str(folder)}


@pytest.mark.long
def test_two_applications_of_one_name_are_distinguished(
    open_stage: Open, redis: parts.Redis, rows: Any
) -> None:
    shared = rows("F24", "two applications have one name, and a schedule each")
    lost = rows("F24", "two applications have one name; the Beat of one is killed, the other's lives on")
    stage = open_stage(redis.url, TICKS)
    other = schedule_of(stage.folder / "billing", {"bill": TICKS["report"], "dun": TICKS["invoice"]})
    names = ("report", "invoice", "bill", "dun")
    stage.worker()
    stage.beat()
    stage.healthy("report", "invoice", CANARY)

    began_at = time.time()
    second = stage.beat("--schedule", "billing.db", env=other)
    parts.wait_for("its entries", lambda: set(names) <= set(stage.monitors()), 30)
    stage.lively(*names, CANARY, runs=2)
    monitors = stage.monitors()
    assert all(one["retired_at"] is None for one in monitors.values()), "neither retired the other's"
    assert all(monitors[name]["status"] in ("up", "late") for name in names)
    incident = stage.noticed(shared, began_at, APP_NAME_SHARED, OVERLAP_PATIENCE + BEAT_DEADLINE)
    assert any("deadbeat.init(app, name=" in step["text"] for step in incident["repair"])
    stage.stays(GRACE, APP_NAME_SHARED)

    killed_at = time.time()
    second.kill()
    down = stage.noticed(lost, killed_at, BEAT_DOWN, BEAT_DEADLINE + BEAT_PERIOD)
    stage.members(BEAT_DOWN, {"bill", "dun"})
    stage.lively("report", "invoice", CANARY, runs=1)
    stage.stays(GRACE, APP_NAME_SHARED, BEAT_DOWN)
    # The applications do not share the name any more.
    stage.resolved(shared, incident, repair="not run: a line of code")

    stage.beat("--schedule", "billing.db", env=other)
    stage.resolved(lost, down)
    stage.lively(*names, CANARY, runs=2)
    stage.stays(GRACE, APP_NAME_SHARED, BEAT_DOWN)


@pytest.mark.core
def test_a_rolling_deployment_with_another_schedule_is_no_incident(
    open_stage: Open, redis: parts.Redis, rows: Any
) -> None:
    row = rows(
        "S2", "Beat is deployed by rolling with another schedule: an entry is removed, another one is added"
    )
    stage = open_stage(redis.url, TICKS)
    stage.worker()
    beat = stage.beat("--schedule", "old")
    stage.healthy("report", "invoice", CANARY)

    changed = schedule_of(stage.folder / "changed", {"report": TICKS["report"], "new": TICKS["invoice"]})
    stage.beat("--schedule", "changed.db", env=changed)
    parts.wait_for("the new entry", lambda: "new" in stage.monitors(), 30)
    stage.lively("report", "invoice", "new", runs=1)
    assert beat.stop() is not None
    # The removed entry is due, and misses its deadline, while the old process may only be late.
    parts.wait_for("its end", lambda: stage.monitors()["invoice"]["status"] == "paused", 30)
    stage.lively("report", "new", CANARY, runs=2)
    stage.stays(BEAT_DEADLINE + GRACE)
    row.silent()
