"""A run belongs to one incarnation of a worker: when that ends, the run is decided."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

from redis import Redis as Client

import parts
from proxy import Proxy
from silent_failures.stage import (
    CANARY,
    GRACE,
    WORKER_DEADLINE,
    WORKER_PERIOD,
    Host,
    Open,
    Project,
    Stage,
)

# The run that dies belongs to an entry whose next runs succeed: only its owner shows that it is dead.
NIGHTLY = {"nightly": {"task": "shop.job", "schedule": 5.0}}
# Long enough that no slot is missed while a worker starts.
PATIENT = {"DEADBEAT_GRACE_SECONDS": "30", "DEADBEAT_CANARY_GRACE_SECONDS": "30"}
KILLED = ("monitor", "nightly", "WORKER_KILLED")
# A new incarnation reports, and the former one has missed two reports, four seconds at least.
REPLACED_DEADLINE = 4.0 + WORKER_PERIOD


def begin_run(stage: Stage) -> int:
    """Let one run of `nightly` go on until it is killed; the next runs are quick. Returns its process."""
    stage.order("nightly", "alone")
    pid, _ = stage.at_work("nightly")
    parts.wait_for("an open run", lambda: stage.monitors()["nightly"]["running"], 10)
    return pid


def test_a_worker_that_is_killed_in_a_run_and_started_again_is_reported_for_its_run(
    open_stage: Open, redis: parts.Redis, rows: Any
) -> None:
    row = rows("F26", "a worker is killed in the middle of a run, and restarted at once under its name")
    stage = open_stage(redis.url, NIGHTLY, env=PATIENT)
    one = stage.worker()
    stage.beat()
    stage.healthy("nightly", CANARY)
    begin_run(stage)

    one.kill()
    stage.worker()
    restarted_at = time.time()
    # Celery takes some seconds to start.
    incident = stage.noticed(row, restarted_at, KILLED, REPLACED_DEADLINE + 10)
    assert "one@shop" in incident["cause"]["summary"], incident["cause"]["summary"]
    stage.recall("nightly")
    stage.resolved(row, incident, repair="nothing to type")
    stage.stays(GRACE, KILLED)


def test_a_worker_that_is_killed_at_the_end_of_its_warm_shutdown_is_reported_for_its_run(
    open_stage: Open, redis: parts.Redis, rows: Any
) -> None:
    row = rows("F27", "SIGTERM, then SIGKILL while a run goes on; another worker takes over")
    stage = open_stage(redis.url, NIGHTLY, env=PATIENT)
    one = stage.worker("one")
    stage.beat()
    stage.healthy("nightly", CANARY)
    begin_run(stage)

    stage.worker("two")
    one.process.terminate()
    parts.wait_for("its goodbye", lambda: stage.workers()["one@shop"]["status"] == "paused", 20)
    until = time.monotonic() + 5
    parts.wait_for("the end of its time", lambda: time.monotonic() > until, 20)
    killed_at = time.time()
    one.kill()
    incident = stage.noticed(row, killed_at, KILLED, WORKER_DEADLINE)
    stage.recall("nightly")
    stage.resolved(row, incident, repair="nothing to type")
    stage.stays(GRACE, KILLED)


def test_one_of_two_workers_of_one_name_is_killed_in_a_run(
    open_stage: Open, redis: parts.Redis, rows: Any
) -> None:
    row = rows("F28", "two workers have one node name; one of them is killed in the middle of a run")
    stage = open_stage(redis.url, NIGHTLY, env=PATIENT)
    pods = [stage.worker("web"), stage.worker("web")]
    stage.beat()
    stage.healthy("nightly", CANARY, workers=("web@shop",))
    pid = begin_run(stage)
    owner = next(pod for pod in pods if os.getpgid(pid) == pod.process.pid)
    # Both report alternately, for longer than the server waits for a replaced incarnation.
    stage.stays(3 * REPLACED_DEADLINE)

    killed_at = time.time()
    owner.kill()
    incident = stage.noticed(row, killed_at, KILLED, WORKER_DEADLINE)
    stage.recall("nightly")
    stage.resolved(row, incident, repair="nothing to type")
    stage.stays(GRACE, KILLED)


def test_one_of_two_pods_of_one_name_is_killed_in_a_run_and_restarted(
    open_stage: Open, redis: parts.Redis, rows: Any
) -> None:
    row = rows(
        "F64", "two pods have one node name; one is killed in the middle of a run, and restarted at once"
    )
    stage = open_stage(redis.url, NIGHTLY, env=PATIENT)
    hosts = [Host("web-a"), Host("web-b")]
    pods = [stage.worker("web", host=host) for host in hosts]
    stage.beat()
    stage.healthy("nightly", CANARY, workers=("web@shop",))
    pid = begin_run(stage)
    killed = next(n for n, pod in enumerate(pods) if os.getpgid(pid) == pod.process.pid)
    # Each reports under the name of both.
    stage.stays(3 * REPLACED_DEADLINE)

    pods[killed].kill()
    stage.worker("web", host=hosts[killed])
    restarted_at = time.time()
    # Celery takes some seconds to start.
    incident = stage.noticed(row, restarted_at, KILLED, REPLACED_DEADLINE + 10)
    stage.stays(WORKER_DEADLINE, KILLED)
    stage.recall("nightly")
    stage.resolved(row, incident, repair="nothing to type")
    stage.stays(GRACE, KILLED)


def test_a_killed_run_that_is_delivered_again_is_reported_for_its_worker_alone(
    open_stage: Open, redis: parts.Redis, rows: Any
) -> None:
    row = rows("F29", "acks_late: one of two workers is killed in a run, which another one runs again")
    schedule = {name: {"task": "shop.job", "schedule": 2.0} for name in ("nightly", "tick")}
    stage = open_stage(
        redis.url,
        schedule,
        settings={
            "task_acks_late": True,
            "broker_transport_options": {"visibility_timeout": 20},
        },
    )
    workers = {"one@shop": stage.worker("one"), "two@shop": stage.worker("two")}
    stage.beat()
    stage.healthy("nightly", "tick", CANARY, workers=tuple(workers))
    stage.order("nightly", "alone 15")
    pid, _ = stage.at_work("nightly")
    parts.wait_for("an open run", lambda: stage.monitors()["nightly"]["running"], 10)
    name, owner = next(one for one in workers.items() if os.getpgid(pid) == one[1].process.pid)

    killed_at = time.time()
    owner.kill()
    alerted = ("worker", name, "WORKER_LOST")
    incident = stage.noticed(row, killed_at, alerted, WORKER_DEADLINE)
    stage.stays(40, alerted)
    stage.type_in(incident, "worker")
    stage.resolved(row, incident)
    stage.stays(GRACE, alerted)


def test_a_worker_that_ends_by_an_error_is_lost(open_stage: Open, redis: parts.Redis, rows: Any) -> None:
    row = rows("F30", "one of two workers ends by an unrecoverable error: Redis says UNBLOCKED")
    stage = open_stage(redis.url, NIGHTLY, env=PATIENT)
    one = stage.worker("one")
    stage.worker("two")
    stage.beat()
    stage.healthy("nightly", CANARY, workers=("one@shop", "two@shop"))

    ended_at = end_by_error(redis, one)
    alerted = ("worker", "one@shop", "WORKER_LOST")
    incident = stage.noticed(row, ended_at, alerted, WORKER_DEADLINE)
    assert "ended by an error" in incident["cause"]["summary"], incident["cause"]["summary"]
    assert "UnblockedError" in str(incident) or "ResponseError" in str(incident), incident
    stage.type_in(incident, "worker")
    stage.resolved(row, incident)
    stage.stays(GRACE, alerted)


def test_a_later_successor_ends_the_incident_of_a_worker_that_ended_by_an_error(
    open_stage: Open, redis: parts.Redis, rows: Any
) -> None:
    row = rows("F30", "the same; a worker of another node name takes its queue after the alert")
    stage = open_stage(redis.url, NIGHTLY, env=PATIENT)
    one = stage.worker("one")
    stage.worker("two")
    stage.beat()
    stage.healthy("nightly", CANARY, workers=("one@shop", "two@shop"))

    ended_at = end_by_error(redis, one)
    alerted = ("worker", "one@shop", "WORKER_LOST")
    incident = stage.noticed(row, ended_at, alerted, WORKER_DEADLINE)
    # A new worker of another queue replaces nobody.
    stage.worker("three", queues="elsewhere")
    parts.wait_for("another worker", lambda: "three@shop" in stage.workers(), 30)
    stage.stays(15, alerted)
    assert stage.workers()["one@shop"]["status"] == "down"

    stage.worker("four")
    stage.resolved(row, incident, repair="nothing to type")
    stage.stays(GRACE, alerted)


def end_by_error(redis: parts.Redis, worker: parts.Part) -> float:
    """Redis ends the worker's wait for messages with an error, as in a failover; returns when that was."""
    mine = ports_of(worker.process.pid)

    with Client.from_url(redis.url) as client:

        def unblock() -> bool:
            for said in client.client_list():
                if said["cmd"] == "brpop" and port_of(said["addr"]) in mine:
                    client.client_unblock(said["id"], error=True)
            return worker.process.poll() is not None

        parts.wait_for("its end", unblock, 30)
    assert worker.process.returncode == 1, worker.text()[-2000:]
    return time.time()


def port_of(address: str) -> int:
    return int(address.rpartition(":")[2])


def ports_of(pid: int) -> set[int]:
    """The local ports of a process's TCP connections."""
    inodes = set()
    for descriptor in Path(f"/proc/{pid}/fd").iterdir():
        try:
            target = os.readlink(descriptor)
        except OSError:
            continue
        if target.startswith("socket:["):
            inodes.add(target[8:-1])
    ports = set()
    for line in Path(f"/proc/{pid}/net/tcp").read_text().splitlines()[1:]:
        words = line.split()
        if words[9] in inodes:
            ports.add(int(words[1].rpartition(":")[2], 16))
    return ports


def test_a_gevent_worker_that_is_killed_while_it_computes_is_reported(
    open_stage: Open, redis: parts.Redis, rows: Any
) -> None:
    row = rows("F31", "a gevent worker is killed while it computes")
    stage = open_stage(redis.url, NIGHTLY, env=PATIENT)
    one = stage.worker("one", "--pool", "gevent")
    stage.beat()
    stage.healthy("nightly", CANARY)

    stage.order("nightly", "compute 40")
    stage.at_work("nightly")
    stage.recall("nightly")
    computed = time.monotonic() + 8
    parts.wait_for("a busy loop", lambda: time.monotonic() > computed, 30)
    killed_at = time.time()
    one.kill()
    alerted = ("worker", "one@shop", "WORKER_LOST")
    incident = stage.noticed(row, killed_at, alerted, WORKER_DEADLINE)
    stage.type_in(incident, "worker")
    stage.resolved(row, incident)
    stage.stays(GRACE, alerted)


def test_a_worker_that_ends_by_an_error_and_has_a_successor_is_silent(
    open_stage: Open, redis: parts.Redis, rows: Any
) -> None:
    row = rows("S4", "a worker ends by an error, and a new one of another name takes its place")
    stage = open_stage(redis.url, NIGHTLY, env=PATIENT)
    one = stage.worker("one")
    stage.worker("two")
    stage.beat()
    stage.healthy("nightly", CANARY, workers=("one@shop", "two@shop"))

    end_by_error(redis, one)
    stage.worker("three")
    stage.stays(WORKER_DEADLINE + 2 * GRACE)
    assert stage.workers()["one@shop"]["status"] == "paused"
    row.silent()


def test_a_worker_that_is_replaced_while_we_are_away_is_silent(
    open_stage: Open, redis: parts.Redis, rows: Any, tmp_path: Path
) -> None:
    row = rows("S5", "Deadbeat is away for 15 s; a worker is replaced by SIGTERM meanwhile")
    server = parts.Server(tmp_path).ready()
    try:
        project = Project(server.url, server.keys["API key"], server.keys["ping key"])
        stage = open_stage(redis.url, NIGHTLY, project=project, env=PATIENT)
        one = stage.worker("one")
        stage.beat()
        stage.healthy("nightly", CANARY)

        server.part.kill_only()
        back_at = time.monotonic() + 15
        one.stop()
        stage.worker("two")
        parts.wait_for("15 s", lambda: time.monotonic() > back_at, 60)
        server.again()
        stage.stays(WORKER_DEADLINE + 15 + 2 * GRACE)
        assert stage.workers()["one@shop"]["status"] == "paused"
        row.silent()
    finally:
        server.stop()


def test_a_host_that_is_cut_off_from_us_is_not_judged(
    open_stage: Open, redis: parts.Redis, rows: Any
) -> None:
    row = rows("S6", "the workers' host is cut off from Deadbeat for 20 s, and all tasks run")
    schedule = {f"e{n}": {"task": "shop.job", "schedule": 4.0} for n in range(8)}
    stage = open_stage(redis.url, schedule)
    way = Proxy(int(stage.project.url.rpartition(":")[2]))
    stage.worker(env={"DEADBEAT_URL": f"http://127.0.0.1:{way.port}"})
    stage.beat()
    stage.healthy(*schedule, CANARY)
    try:
        for cut in (way.refuse, way.hang):
            cut()
            back_at = time.monotonic() + 20
            parts.wait_for("20 s", lambda at=back_at: time.monotonic() > at, 60)
            assert stage.alerted() == []
            way.heal()
            stage.stays(30)
        row.silent()
    finally:
        way.stop()


def test_a_gevent_worker_that_computes_is_silent(open_stage: Open, redis: parts.Redis, rows: Any) -> None:
    row = rows("S7", "a gevent worker computes for 35 s, and goes on")
    patient = {"DEADBEAT_GRACE_SECONDS": "60", "DEADBEAT_CANARY_GRACE_SECONDS": "60"}
    stage = open_stage(redis.url, NIGHTLY, env=patient)
    stage.worker("one", "--pool", "gevent")
    stage.beat()
    stage.healthy("nightly", CANARY)

    stage.order("nightly", "compute 35")
    stage.at_work("nightly")
    stage.recall("nightly")
    stage.stays(35 + 10)
    stage.lively("nightly", CANARY, runs=1)
    row.silent()


def test_a_solo_worker_with_a_long_task_is_silent(open_stage: Open, redis: parts.Redis, rows: Any) -> None:
    row = rows("S8", "a solo worker runs one task of 40 s, and goes on")
    stage = open_stage(redis.url, NIGHTLY, env={"DEADBEAT_GRACE_SECONDS": "60"})
    stage.worker("one", "--pool", "solo")
    stage.beat()
    stage.healthy("nightly", CANARY)

    stage.order("nightly", "alone 40")
    stage.at_work("nightly")
    stage.stays(40 + 10)
    stage.lively("nightly", CANARY, runs=1)
    row.silent()
