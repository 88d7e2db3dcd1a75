"""Beat dies, hangs, or never gets round to an entry."""

from __future__ import annotations

import time
from typing import Any

import pytest

import parts
from proxy import Proxy
from silent_failures.stage import BEAT_DEADLINE, BEAT_GRACE, CANARY, GRACE, Open, ended

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

    # As a service manager restarts it: the process first, then what the incident says.
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
        # It is stuck from the next entry that it sends.
        incident = stage.noticed(row, hung_at, BEAT_STALLED, 2 + BEAT_DEADLINE)
        stage.stays(GRACE, BEAT_STALLED)

        beat.kill()
        stage.type_in(incident, "beat")
        stage.resolved(row, incident)
        stage.stays(GRACE, BEAT_STALLED)


def test_an_entry_whose_schedule_is_forgotten_at_each_deployment_is_told(
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

    told = ("monitor", "rare", "SCHEDULE_RESET")
    end = time.monotonic() + 90
    while told not in stage.told() and time.monotonic() < end:
        beat.stop()
        for file in stage.folder.glob("celerybeat-schedule*"):
            file.unlink()
        before = stage.monitors()["tick"]["ping_count"]
        beat = stage.beat()
        # It ticks, and the rest of a deployment's life is short.
        parts.wait_for(
            "its first runs", lambda before=before: stage.monitors()["tick"]["ping_count"] > before, 30
        )
    incident = stage.noticed(row, parts.instant(due), told, 2 * 12 + GRACE)
    # Left alone, it comes round to it.
    stage.resolved(row, incident, repair="not run: a volume for the file")
    stage.stays(GRACE, told)


def test_a_beat_that_is_told_to_end_and_returns_is_no_incident(
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
