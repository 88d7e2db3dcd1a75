"""Beat dies, hangs, or never gets round to an entry."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest

import parts
from proxy import Proxy
from silent_failures.stage import (
    BEAT_DEADLINE,
    BEAT_GRACE,
    BEAT_PERIOD,
    CANARY,
    EMPTIED_PATIENCE,
    GRACE,
    Open,
    Stage,
    ended,
)

BEAT_DOWN = ("beat", "shop", "BEAT_DOWN")
BEAT_STALLED = ("beat", "shop", "BEAT_STALLED")


@pytest.mark.core
def test_a_killed_beat_is_one_incident_however_many_entries_it_has(
    open_stage: Open, redis: parts.Redis, rows: Any
) -> None:
    row = rows("F1", "Beat is killed; it had 50 entries")
    schedule = {f"entry {n}": {"task": "shop.job", "schedule": 4.0} for n in range(50)}
    stage = open_stage(redis.url, schedule)
    stage.worker()
    beat = stage.beat()
    stage.healthy(*schedule, CANARY, runs=1)

    killed_at = time.time()
    beat.kill()
    incident = stage.noticed(row, killed_at, BEAT_DOWN, BEAT_DEADLINE)
    stage.members(BEAT_DOWN, {*schedule, CANARY})
    stage.stays(2, BEAT_DOWN)

    stage.type_in(incident, "beat")
    stage.resolved(row, incident)
    stage.recovered()
    stage.stays(1, BEAT_DOWN)


def test_a_beat_whose_scheduler_blocks_is_stalled(open_stage: Open, redis: parts.Redis, rows: Any) -> None:
    row = rows("F2", "Beat's scheduler blocks; its process lives")
    stage = open_stage(redis.url, {"report": {"task": "shop.job", "schedule": 2.0}})
    stage.worker()
    beat = stage.beat("--scheduler", "shop:Hanging")
    stage.healthy("report", CANARY)

    hung_at = time.time()
    stage.order("beat", "hang")
    incident = stage.noticed(row, hung_at, BEAT_STALLED, BEAT_DEADLINE)
    stage.members(BEAT_STALLED, {"report", CANARY})
    stage.stays(GRACE, BEAT_STALLED)

    # As a service manager does: end the process first, then run the incident's command.
    beat.kill()
    stage.recall("beat")
    stage.type_in(incident, "beat")
    stage.resolved(row, incident)
    stage.stays(GRACE, BEAT_STALLED)


def test_a_beat_whose_broker_line_hangs_is_stalled(open_stage: Open, redis: parts.Redis, rows: Any) -> None:
    row = rows("F2", "Beat's line to the broker hangs; workers have theirs")
    line = Proxy(redis.port)
    with ended(line):
        stage = open_stage(redis.url, {"report": {"task": "shop.job", "schedule": 2.0}})
        stage.worker()
        beat = stage.beat(env={"CELERY_BROKER_URL": redis.url.replace(str(redis.port), str(line.port))})
        stage.healthy("report", CANARY)

        hung_at = time.time()
        line.hang()
        # Beat hangs from the next entry that it sends.
        incident = stage.noticed(row, hung_at, BEAT_STALLED, 2 + BEAT_DEADLINE)
        stage.stays(GRACE, BEAT_STALLED)

        beat.kill()
        stage.type_in(incident, "beat")
        stage.resolved(row, incident)
        stage.stays(GRACE, BEAT_STALLED)


def test_an_entry_whose_schedule_is_forgotten_at_each_deployment_is_reported(
    open_stage: Open, redis: parts.Redis, rows: Any
) -> None:
    row = rows("F21", "Beat is deployed anew, without its schedule file, sooner than the entry is due")
    schedule = {
        "tick": {"task": "shop.job", "schedule": 1.0},
        "rare": {"task": "shop.job", "schedule": 12.0},
    }
    # Each deployment is an orderly stop and start, and takes seconds.
    stage = open_stage(redis.url, schedule, env={"DEADBEAT_BEAT_GRACE_SECONDS": "20"})
    stage.worker()
    beat = stage.beat()
    stage.healthy("tick", "rare", CANARY, runs=1)
    due = stage.monitors()["rare"]["next_due_at"]

    alerted = ("monitor", "rare", "SCHEDULE_RESET")
    end = time.monotonic() + 90
    while alerted not in stage.alerted() and time.monotonic() < end:
        beat.stop()
        for file in stage.folder.glob("celerybeat-schedule*"):
            file.unlink()
        before = stage.monitors()["tick"]["ping_count"]
        beat = stage.beat()
        # Beat ticks, and the next deployment comes soon.
        parts.wait_for(
            "its first runs", lambda before=before: stage.monitors()["tick"]["ping_count"] > before, 30
        )
    incident = stage.noticed(row, parts.instant(due), alerted, 2 * 12 + GRACE)
    # Without further deployments, Beat sends the entry.
    stage.resolved(row, incident, repair="not run: a volume for the file")
    stage.stays(GRACE, alerted)


def lives(stage: Stage, seconds: float, keeps_its_file: bool) -> None:
    """Beat is started, lives for this long after its first tick, and is killed."""
    if not keeps_its_file:
        for file in stage.folder.glob("celerybeat-schedule*"):
            file.unlink()
    since = time.time()
    beat = stage.beat("--pidfile", "")

    def ticks() -> bool:
        seen = stage.project.api("GET", "/beats")["beats"][0]["last_seen_at"]
        return float(parts.instant(seen)) > since

    parts.wait_for("its first word", ticks, 30)
    until = time.monotonic() + seconds
    parts.wait_for("its end", lambda: time.monotonic() > until, seconds + 30)
    beat.kill()


def test_a_beat_that_crashes_in_a_loop_is_one_incident(
    open_stage: Open, redis: parts.Redis, rows: Any
) -> None:
    row = rows(
        "F56", "Beat is killed every 7 s, without its schedule file; three entries of 10 s are never sent"
    )
    schedule = {
        "tick": {"task": "shop.job", "schedule": 1.0},
        **{f"rare {n}": {"task": "shop.job", "schedule": 10.0} for n in range(3)},
    }
    # A start takes some seconds on a slow machine.
    stage = open_stage(redis.url, schedule, env={"DEADBEAT_BEAT_GRACE_SECONDS": "20"})
    stage.worker()
    beat = stage.beat()
    stage.healthy(*schedule, CANARY, runs=1)

    beat.kill()
    last_sent = max(instant(stage, f"rare {n}") for n in range(3))
    alerted = ("beat", "shop", "BEAT_CRASH_LOOP")
    end = time.monotonic() + 120
    while alerted not in stage.alerted() and time.monotonic() < end:
        lives(stage, 7.0, keeps_its_file=False)
    # Twice its interval, and a third crash.
    incident = stage.noticed(row, last_sent, alerted, 10.0 + GRACE + 60.0)
    assert "none of them reported an orderly stop" in incident["cause"]["summary"], incident
    lives(stage, 7.0, keeps_its_file=False)
    lives(stage, 7.0, keeps_its_file=False)
    stage.members(alerted, {f"rare {n}" for n in range(3)})
    stage.stays(1, alerted)

    stage.beat()
    stage.resolved(row, incident, limit=120, repair="not run: its log")
    stage.recovered()
    stage.stays(GRACE, alerted)


def test_a_beat_that_an_error_ends_at_each_start_is_one_incident(
    open_stage: Open, redis: parts.Redis, rows: Any
) -> None:
    row = rows("F57", "Beat ends by an error at each start, and is started again 3 s later")
    stage = open_stage(
        redis.url,
        {f"entry {n}": {"task": "shop.job", "schedule": 4.0} for n in range(5)},
        env={"DEADBEAT_BEAT_GRACE_SECONDS": "40"},
    )
    stage.worker()
    beat = stage.beat("--scheduler", "shop:Unmade")
    stage.healthy(*stage.schedule, CANARY, runs=1)

    crashed_at = time.time()
    stage.order("beat", "fail")
    beat.kill()
    alerted = ("beat", "shop", "BEAT_CRASH_LOOP")
    end = time.monotonic() + 120
    while alerted not in stage.alerted() and time.monotonic() < end:
        fails(stage)
    incident = stage.noticed(row, crashed_at, alerted, 1 + 40)
    assert "by Unreachable" in incident["cause"]["summary"], incident
    fails(stage)
    stage.members(alerted, {*stage.schedule, CANARY})
    stage.stays(1, alerted)

    stage.recall("beat")
    stage.beat("--scheduler", "shop:Unmade")
    stage.resolved(row, incident, limit=120, repair="not run: its database")
    stage.recovered()
    stage.stays(GRACE, alerted)


def fails(stage: Stage) -> None:
    """Beat is started, ends by its error, and a supervisor waits."""
    beat = stage.beat("--scheduler", "shop:Unmade", "--pidfile", "")
    assert beat.process.wait(60) == 1, beat.text()
    time.sleep(3)


def instant(stage: Stage, name: str) -> float:
    return float(parts.instant(stage.monitors()[name]["next_due_at"]))


def test_a_crash_loop_in_which_all_is_sent_in_time_is_silent(
    open_stage: Open, redis: parts.Redis, rows: Any
) -> None:
    row = rows("S22", "Beat is killed every 7 s, and keeps its schedule file: all is sent in time")
    schedule = {
        "tick": {"task": "shop.job", "schedule": 1.0},
        "rare": {"task": "shop.job", "schedule": 10.0},
    }
    env = {
        "DEADBEAT_BEAT_GRACE_SECONDS": "20",
        "DEADBEAT_GRACE_SECONDS": "20",
        "DEADBEAT_CANARY_GRACE_SECONDS": "20",
    }
    stage = open_stage(redis.url, schedule, env=env)
    stage.worker()
    beat = stage.beat()
    stage.healthy(*schedule, CANARY, runs=1)

    beat.kill()
    before = stage.monitors()["rare"]["ping_count"]
    for _ in range(8):
        lives(stage, 7.0, keeps_its_file=True)
        assert stage.alerted() == []
    assert stage.monitors()["rare"]["ping_count"] >= before + 7, "Beat sends it at each start"
    stage.beat()
    stage.stays(20)
    row.silent()


def test_deployments_of_beat_one_after_the_other_are_silent(
    open_stage: Open, redis: parts.Redis, rows: Any
) -> None:
    row = rows("S23", "Beat is deployed three times within a minute, without its schedule file")
    schedule = {
        "tick": {"task": "shop.job", "schedule": 1.0},
        "rare": {"task": "shop.job", "schedule": 40.0},
    }
    stage = open_stage(redis.url, schedule, env={"DEADBEAT_BEAT_GRACE_SECONDS": "20"})
    stage.worker()
    beat = stage.beat()
    stage.healthy("tick", CANARY, runs=1)

    for _ in range(3):
        beat.stop()
        for file in stage.folder.glob("celerybeat-schedule*"):
            file.unlink()
        before = stage.monitors()["tick"]["ping_count"]
        beat = stage.beat()
        parts.wait_for("its runs", lambda before=before: stage.monitors()["tick"]["ping_count"] > before, 30)
        stage.stays(6)
    stage.lively("rare", runs=1)
    stage.stays(GRACE)
    row.silent()


def test_a_beat_that_is_ordered_to_end_and_returns_is_no_incident(
    open_stage: Open, redis: parts.Redis, rows: Any
) -> None:
    row = rows("quiet", "Beat is restarted by a deployment, and takes its time")
    stage = open_stage(
        redis.url,
        {"report": {"task": "shop.job", "schedule": 2.0}},
        env={"DEADBEAT_BEAT_GRACE_SECONDS": f"{3 * BEAT_GRACE:g}"},
    )
    stage.worker()
    beat = stage.beat()
    stage.healthy("report", CANARY)

    assert beat.stop() is not None
    stage.stays(1.5 * BEAT_GRACE)
    stage.beat()
    count = stage.monitors()["report"]["ping_count"]
    parts.wait_for("runs again", lambda: stage.monitors()["report"]["ping_count"] >= count + 4, 30)
    stage.stays(GRACE)
    row.silent()


def test_a_deployment_whose_schedule_is_empty_is_reported(
    open_stage: Open, redis: parts.Redis, rows: Any
) -> None:
    row = rows("F65", "a deployment starts Beat with an empty schedule; it had five entries")
    schedule = {f"entry {n}": {"task": "shop.job", "schedule": 2.0} for n in range(5)}
    # The deployment stops Beat in order; a start takes some seconds on a slow machine.
    stage = open_stage(redis.url, schedule, env={"DEADBEAT_BEAT_GRACE_SECONDS": "30"})
    stage.worker()
    beat = stage.beat()
    stage.healthy(*schedule, CANARY)

    stage.schedule = {}
    stage.deploy()
    beat.stop()
    beat = stage.beat()
    parts.wait_for(
        "the empty list", lambda: all(stage.monitors()[name]["retired_at"] for name in schedule), 60
    )
    alerted = ("beat", "shop", "SCHEDULE_EMPTIED")
    incident = stage.noticed(row, time.time(), alerted, EMPTIED_PATIENCE + BEAT_PERIOD)
    words = json.dumps(incident["evidence"])
    assert all(json.dumps(name)[1:-1] in words for name in schedule), words
    stage.stays(2 + GRACE, alerted)

    stage.schedule = schedule
    stage.deploy()
    beat.stop()
    stage.type_in(incident, " beat")
    stage.resolved(row, incident)
    stage.recovered()
    assert not any(one["retired_at"] for one in stage.monitors().values())
    stage.lively(*schedule)
    stage.stays(GRACE, alerted)
