"""A host fails with all its processes, or only a part of them fails."""

from __future__ import annotations

import os
import signal
import time
from typing import Any

import parts
from proxy import Proxy
from silent_failures.stage import BEAT_DEADLINE, CANARY, GRACE, WORKER_DEADLINE, Host, Open, Stage

# One entry for each host's workers.
SCHEDULE = {
    "report": {"task": "shop.job", "schedule": 2.0},
    "elsewhere": {"task": "shop.job", "schedule": 2.0, "options": {"queue": "far"}},
}
LOST = ("host", "web-3", "HOST_LOST")
# How late a report may be.
SLACK = 2.0


def kill(*killed: parts.Part) -> float:
    """End all of them at one instant, as a loss of power does; returns that time."""
    at = time.time()
    for part in killed:
        os.killpg(part.process.pid, signal.SIGKILL)
    for part in killed:
        part.process.wait(30)
    return at


def populated(stage: Stage, host: Host, env: dict[str, str] | None = None) -> list[parts.Part]:
    """A host with Beat and two workers; the worker of another host consumes other queues."""
    on_it = [stage.worker(name, host=host, env=env) for name in ("one", "two")]
    on_it.append(stage.beat(host=host, env=env))
    stage.worker("far", queues="far", host=Host("web-4"))
    stage.healthy("report", "elsewhere", CANARY, workers=("one@shop", "two@shop", "far@shop"))
    return on_it


def test_a_host_that_is_lost_with_beat_and_two_workers_is_one_incident(
    open_stage: Open, redis: parts.Redis, rows: Any
) -> None:
    row = rows("F60", "a host is lost with Beat and two workers; another host's worker goes on")
    stage = open_stage(redis.url, SCHEDULE)
    on_it = populated(stage, Host("web-3"))

    killed_at = kill(*on_it)
    incident = stage.noticed(row, killed_at, LOST, BEAT_DEADLINE + SLACK)
    summary = incident["cause"]["summary"]
    for part in ("web-3", "Beat of shop", "one@shop", "two@shop"):
        assert part in summary
    assert "far@shop" not in summary
    stage.stays(WORKER_DEADLINE + 2 * GRACE, LOST)
    stage.members(LOST, {"report", "elsewhere", CANARY})

    # The machine is started again, with its processes.
    again = Host("web-3")
    stage.worker("one", host=again)
    stage.beat(host=again)
    stage.worker("two", host=again)
    stage.resolved(row, incident, repair="not run: the machine")
    stage.recovered()
    stage.stays(2 * GRACE, LOST)
    assert len(stage.sink.alerts("incident.resolved")) == 1


def test_a_host_of_two_workers_is_one_incident_while_beat_goes_on_elsewhere(
    open_stage: Open, redis: parts.Redis, rows: Any
) -> None:
    row = rows("F61", "a host is lost with two workers, one in the middle of a run; Beat goes on elsewhere")
    stage = open_stage(redis.url, SCHEDULE, env={"DEADBEAT_GRACE_SECONDS": "10"})
    host = Host("web-3")
    on_it = [stage.worker("one", host=host), stage.worker("two", host=host)]
    elsewhere = Host("web-4")
    stage.worker("far", queues="far", host=elsewhere)
    stage.beat(host=elsewhere)
    stage.healthy(*SCHEDULE, CANARY, workers=("one@shop", "two@shop", "far@shop"))
    stage.order("report", "alone")
    stage.at_work("report")
    parts.wait_for("an open run", lambda: stage.monitors()["report"]["running"], 10)

    killed_at = kill(*on_it)
    stage.recall("report")
    incident = stage.noticed(row, killed_at, LOST, WORKER_DEADLINE)
    stage.stays(4 * GRACE, LOST)
    assert "report" in {member["name"] for member in stage.incidents()[0]["members"]}

    # Workers with other names take over: a node was replaced.
    stage.type_in(incident, "one@shop")
    stage.worker("three", host=Host("web-5"))
    stage.resolved(row, incident, limit=90)
    stage.recovered()
    stage.stays(2 * GRACE, LOST)


def test_one_worker_of_a_host_that_goes_on_is_its_own_incident(
    open_stage: Open, redis: parts.Redis, rows: Any
) -> None:
    row = rows("F62", "one of two workers of a host is killed; Beat and the other one go on there")
    stage = open_stage(redis.url, SCHEDULE)
    one, *_ = populated(stage, Host("web-3"))
    alerted = ("worker", "one@shop", "WORKER_LOST")

    incident = stage.noticed(row, kill(one), alerted, WORKER_DEADLINE)
    stage.stays(2 * GRACE, alerted)
    stage.type_in(incident, "worker")
    stage.resolved(row, incident)
    stage.stays(GRACE, alerted)


def test_two_hosts_of_one_name_are_two(open_stage: Open, redis: parts.Redis, rows: Any) -> None:
    row = rows(
        "F63", "Beat's host and a worker's have one name; Beat is killed there, and its worker goes on"
    )
    stage = open_stage(redis.url, SCHEDULE)
    stage.worker("one", host=Host("web-3"))
    host = Host("web-3")
    stage.worker("far", queues="far", host=host)
    beat = stage.beat(host=host)
    stage.healthy(*SCHEDULE, CANARY, workers=("one@shop", "far@shop"))
    alerted = ("beat", "shop", "BEAT_DOWN")

    incident = stage.noticed(row, kill(beat), alerted, BEAT_DEADLINE)
    stage.stays(2 * GRACE, alerted)
    stage.type_in(incident, "beat")
    stage.resolved(row, incident)
    stage.stays(GRACE, alerted)


def test_all_that_moves_to_another_host_is_no_incident(
    open_stage: Open, redis: parts.Redis, rows: Any
) -> None:
    row = rows("S26", "a node is drained: Beat and two workers end by SIGTERM, and start on another one")
    # Long enough for a deployment; in production this is a minute.
    patience = {"DEADBEAT_GRACE_SECONDS": "15", "DEADBEAT_BEAT_GRACE_SECONDS": "15"}
    stage = open_stage(redis.url, SCHEDULE, env=patience)
    one, two, beat = populated(stage, Host("web-3"))

    for part in (one, two, beat):
        part.process.terminate()
    for part in (one, two, beat):
        part.stop()
    host = Host("web-5")
    stage.worker("three", host=host)
    stage.worker("four", host=host)
    stage.beat(host=host)
    stage.lively(*SCHEDULE, CANARY)
    stage.stays(WORKER_DEADLINE + 2 * GRACE)
    row.silent()


def test_a_host_that_is_restarted_in_time_is_no_incident(
    open_stage: Open, redis: parts.Redis, rows: Any
) -> None:
    row = rows("S27", "a host is reset, and all that ran there is back within its grace")
    patience = {
        "DEADBEAT_GRACE_SECONDS": "20",
        "DEADBEAT_BEAT_GRACE_SECONDS": "20",
        "DEADBEAT_CANARY_GRACE_SECONDS": "20",
    }
    stage = open_stage(redis.url, SCHEDULE, env=patience)
    kill(*populated(stage, Host("web-3")))

    until = time.monotonic() + 6
    parts.wait_for("its start", lambda: time.monotonic() > until, 20)
    again = Host("web-3")
    stage.worker("one", host=again)
    stage.worker("two", host=again)
    stage.beat(host=again)
    stage.lively(*SCHEDULE, CANARY)
    stage.stays(WORKER_DEADLINE + GRACE)
    row.silent()


def test_a_host_that_works_and_is_cut_off_is_no_incident(
    open_stage: Open, redis: parts.Redis, rows: Any
) -> None:
    row = rows(
        "S28",
        "a host is cut off from Deadbeat for 40 s; a worker elsewhere runs what its Beat sends",
    )
    # With 4 s of grace, Beat's incident would open before a worker can show that Beat still sends.
    stage = open_stage(redis.url, SCHEDULE, env={"DEADBEAT_BEAT_GRACE_SECONDS": "24"})
    way = Proxy(int(stage.project.url.rpartition(":")[2]))
    try:
        populated(stage, Host("web-3"), env={"DEADBEAT_URL": f"http://127.0.0.1:{way.port}"})
        way.hang()
        back_at = time.monotonic() + 40
        parts.wait_for("40 s", lambda: time.monotonic() > back_at, 90)
        assert stage.alerted() == []
        way.heal()
        stage.stays(30)
        stage.lively(*SCHEDULE, CANARY)
        row.silent()
    finally:
        way.stop()
