"""A run is lost although later runs of its entry come: they satisfy its slot, so its monitor stays up."""

from __future__ import annotations

import time
from typing import Any

import parts
from silent_failures.stage import CANARY, GRACE, SAMPLE_PERIOD, Open

# A run is judged 20 s after it was sent, every 5 s, by the last sample of the broker.
LOST_RUN_DEADLINE = 20.0 + 5.0 + SAMPLE_PERIOD


def test_a_lost_run_is_found_although_later_ones_ran(open_stage: Open, redis: parts.Redis, rows: Any) -> None:
    page = rows("F43", "one waiting message of an entry that asks for every run is deleted; later runs come")
    finding = rows("F43", "the same of an entry that does not ask: the run ends as lost, without a page")
    every = {"task": "shop.job", "schedule": 3.0, "options": {"queue": "late"}}
    stage = open_stage(
        redis.url,
        {"counted": every, "kept": every},
        env={"DEADBEAT_GRACE_SECONDS": "60", "DEADBEAT_EVERY_RUN": "count*"},
    )
    stage.worker("one", queues="celery,late")
    stage.beat()
    stage.healthy(CANARY, "counted", "kept", runs=5)

    stage.control.cancel_consumer("late")
    parts.wait_for("two messages that wait", lambda: int(redis.ask("LLEN", "late")) >= 2, 20)
    redis.ask("DEL", "late")
    lost_at = time.time()
    stage.control.add_consumer("late")

    alerted = ("monitor", "counted", "LOST_IN_BROKER")
    incident = stage.noticed(page, lost_at, alerted, LOST_RUN_DEADLINE)
    assert "Later runs began" in incident["cause"]["summary"]
    stage.resolved(page, incident, repair="not run: settings of Redis")
    parts.wait_for("both runs", lambda: {"counted", "kept"} <= lost_entries(stage), 20)
    stage.stays(GRACE, alerted)
    finding.silent()


def lost_entries(stage: Any) -> set[str]:
    """The entries with a run whose state is `lost`."""
    return {run["entry"] for run in stage.project.api("GET", "/runs?state=lost")["runs"]}
