"""Clocks: the night of a clock change, a wrong clock, and Beat's flood in the repeated hour."""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

import parts
from silent_failures.stage import CANARY, GRACE, Open, Project, Stage

REPORT = {"report": {"task": "shop.job", "schedule": 2.0}}
# A clock must be off for this long: one slow answer of the network proves nothing.
SKEW_PATIENCE = 20.0 + 1.0


@pytest.fixture
def elsewhen(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[Project, dict[str, str]]]:
    """A server at another time, its project, and the environment that puts other processes at that time."""
    clock = parts.Clock(tmp_path, seconds_to(request.param))
    started = parts.Server(tmp_path, env=clock.env)
    try:
        started.ready()
        yield Project(started.url, started.keys["API key"], started.keys["ping key"]), clock.env
    finally:
        started.stop()


def leaves(stage: Stage, beat: parts.Part) -> None:
    """Beat ends on its machine; the next machine has no schedule file."""
    beat.stop()
    for file in stage.folder.glob("celerybeat-schedule*"):
        file.unlink()


def seconds_to(text: str) -> float:
    return (datetime.fromisoformat(text).replace(tzinfo=UTC) - datetime.now(UTC)).total_seconds()


@pytest.mark.parametrize(
    ("elsewhen", "night"),
    [("2026-10-25T00:58:50", "an hour comes twice"), ("2027-03-28T00:58:50", "an hour is left out")],
    indirect=["elsewhen"],
    ids=["autumn", "spring"],
)
def test_a_change_of_the_clocks_is_no_incident(
    open_stage: Open, redis: parts.Redis, rows: Any, elsewhen: tuple[Project, dict[str, str]], night: str
) -> None:
    row = rows("F14", f"the night on which {night}, by local time")
    project, env = elsewhen
    schedule = {
        "each minute": {"task": "shop.job", "schedule": "* * * * *"},
        "at two": {"task": "shop.job", "schedule": "0 2 * * *"},
        "at half past two": {"task": "shop.job", "schedule": "30 2 * * *"},
        "at three": {"task": "shop.job", "schedule": "0 3 * * *"},
        "hourly": {"task": "shop.job", "schedule": "0 * * * *"},
    }
    stage = open_stage(redis.url, schedule, project=project, settings={"timezone": "Europe/Berlin"}, env=env)
    stage.worker()
    stage.beat()
    stage.healthy("each minute", CANARY, runs=1)
    before = stage.monitors()["each minute"]["ping_count"]

    # The change comes within two minutes; the two minutes after it show which entries are due.
    stage.stays(240)
    monitors = stage.monitors()
    runs = (monitors["each minute"]["ping_count"] - before) // 2
    if "twice" in night:
        # Celery skips the second showing of the hour.
        assert runs <= 2
        assert monitors["at three"]["ping_count"] == 0
    else:
        assert runs >= 3
        assert monitors["at three"]["ping_count"] == 2
    row.silent()


def test_a_worker_whose_clock_is_off_is_reported(
    open_stage: Open, redis: parts.Redis, rows: Any, tmp_path: Path
) -> None:
    row = rows("F15", "a worker's clock is stepped by five minutes")
    clock = parts.Clock(tmp_path)
    stage = open_stage(redis.url, REPORT)
    stage.worker("one")
    stage.worker("two", env=clock.env)
    stage.beat()
    stage.healthy("report", CANARY, workers=("one@shop", "two@shop"))

    stepped_at = time.time()
    clock.step(300)
    alerted = ("worker", "two@shop", "CLOCK_SKEW")
    incident = stage.noticed(row, stepped_at, alerted, SKEW_PATIENCE)
    stage.stays(GRACE, alerted)

    clock.step(0)
    stage.resolved(row, incident, repair="not run: the machine's clock")
    stage.stays(GRACE, alerted)


def test_what_expires_by_a_wrong_clock_is_part_of_that_clocks_incident(
    open_stage: Open, redis: parts.Redis, rows: Any, tmp_path: Path
) -> None:
    row = rows("F45", "the only worker's clock is stepped by ten minutes, and messages expire by it")
    clock = parts.Clock(tmp_path)
    names = ("e1", "e2", "e3", "e4")
    every = {"task": "shop.job", "schedule": 3.0, "options": {"expires": 60.0}}
    stage = open_stage(redis.url, dict.fromkeys(names, every))
    stage.worker("one", env=clock.env)
    stage.beat()
    stage.healthy(*names, CANARY)

    stepped_at = time.time()
    clock.step(600)
    alerted = ("worker", "one@shop", "CLOCK_SKEW")
    incident = stage.noticed(row, stepped_at, alerted, SKEW_PATIENCE)
    # The canary expires, too.
    stage.members(alerted, {*names, CANARY})
    stage.stays(GRACE, alerted)

    clock.step(0)
    stage.resolved(row, incident, repair="not run: the machine's clock")
    stage.recovered()
    stage.stays(GRACE, alerted)


@pytest.mark.parametrize("seconds", [300, -300], ids=["fast", "slow"])
def test_a_beat_whose_clock_is_off_is_reported(
    open_stage: Open, redis: parts.Redis, rows: Any, tmp_path: Path, seconds: int
) -> None:
    row = rows("F15", f"Beat moves to a machine whose clock is off by {seconds:+d} s")
    stage = open_stage(redis.url, REPORT)
    stage.worker("one")
    beat = stage.beat()
    stage.healthy("report", CANARY)

    leaves(stage, beat)
    moved_at = time.time()
    beat = stage.beat(env=parts.Clock(tmp_path, seconds).env)
    alerted = ("beat", "shop", "CLOCK_SKEW")
    incident = stage.noticed(row, moved_at, alerted, SKEW_PATIENCE)
    stage.stays(GRACE, alerted)

    leaves(stage, beat)
    stage.beat()
    stage.resolved(row, incident, repair="not run: the machine's clock")
    stage.stays(GRACE, alerted)


def test_what_expires_by_beats_wrong_clock_is_part_of_that_clocks_incident(
    open_stage: Open, redis: parts.Redis, rows: Any, tmp_path: Path
) -> None:
    row = rows(
        "F55", "Beat moves to a machine whose clock is ten minutes behind, and its messages expire at once"
    )
    names = ("e1", "e2", "e3", "e4")
    every = {"task": "shop.job", "schedule": 3.0, "options": {"expires": 60.0}}
    stage = open_stage(redis.url, dict.fromkeys(names, every))
    stage.worker()
    beat = stage.beat()
    stage.healthy(*names, CANARY)

    leaves(stage, beat)
    moved_at = time.time()
    beat = stage.beat(env=parts.Clock(tmp_path, -600).env)
    alerted = ("beat", "shop", "CLOCK_SKEW")
    incident = stage.noticed(row, moved_at, alerted, SKEW_PATIENCE)
    # The canary expires, too.
    stage.members(alerted, {*names, CANARY})
    stage.stays(GRACE, alerted)

    leaves(stage, beat)
    stage.beat()
    stage.resolved(row, incident, repair="not run: the machine's clock")
    stage.recovered()
    stage.stays(GRACE, alerted)


@pytest.mark.parametrize("elsewhen", ["2026-11-01T06:18:00"], indirect=True, ids=["autumn"])
def test_a_beat_that_floods_is_reported(
    open_stage: Open, redis: parts.Redis, rows: Any, elsewhen: tuple[Project, dict[str, str]]
) -> None:
    row = rows("F20", "Beat is started in the hour that comes twice, and sends an entry without end")
    project, env = elsewhen
    schedule: dict[str, Any] = {"tick": {"task": "shop.job", "schedule": 2.0}}
    stage = open_stage(
        redis.url, schedule, project=project, settings={"timezone": "America/New_York"}, env=env
    )
    stage.worker("one", processes=1)
    beat = stage.beat()
    stage.healthy("tick", CANARY)

    schedule["quarterly"] = {"task": "shop.job", "schedule": "*/15 * * * *"}
    stage.deploy()
    leaves(stage, beat)
    started_at = time.time()
    beat = stage.beat()
    alerted = ("beat", "shop", "BEAT_STORM")
    # Its start takes seconds, too.
    incident = stage.noticed(row, started_at, alerted, 10)
    stage.stays(2, alerted)

    # Stop Beat, purge its messages, and start it again without that entry.
    beat.kill()
    stage.type_in(incident, "purge")
    del schedule["quarterly"]
    stage.deploy()
    stage.beat()
    stage.resolved(row, incident)
    stage.stays(GRACE, alerted)
