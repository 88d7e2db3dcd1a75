"""The commands `audit` and `watch` as a shell runs them, against a real Redis and real workers."""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Any, Callable

import pytest
from celery import Celery
from redis import Redis

from conftest import PROJECT, CeleryProcess, RedisServer, StartCelery, default_signals, free_port

Audit = Callable[..., "tuple[int, dict[str, Any]]"]


def run(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    clean = {name: value for name, value in os.environ.items() if not name.startswith("DEADBEAT_")}
    return subprocess.run(
        [sys.executable, "-m", "deadbeat", *arguments],
        cwd=PROJECT,
        env={**clean, **environment},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.fixture
def audit(broker: str) -> Audit:
    """Runs an audit of the project against this test's broker, or another: exit status and document."""

    def audited(*options: str, **environment: str) -> tuple[int, dict[str, Any]]:
        words = ("audit", "-A", "audited", "--json", "--no-server", *options)
        done = run(*words, **{"CELERY_BROKER_URL": broker, **environment})
        assert done.stdout, done.stderr
        document = json.loads(done.stdout)
        assert done.returncode == document["exit_code"], done.stderr
        return done.returncode, document

    return audited


@pytest.fixture
def app(broker: str) -> Iterator[Celery]:
    """A sender of tasks."""
    app = Celery("sender", broker=broker, set_as_current=False)
    yield app
    app.close()


def worker(start_celery: StartCelery, name: str, *options: str, **environment: str) -> CeleryProcess:
    pool = () if "--pool" in options else ("--pool", "threads")
    return start_celery("worker", "-n", name, *pool, *options, project="audited", **environment)


def codes(document: dict[str, Any]) -> set[tuple[str, str, str]]:
    return {(one["severity"], one["code"], one["subject"]["name"]) for one in document["findings"]}


def finding(document: dict[str, Any], code: str) -> dict[str, Any]:
    (found,) = [one for one in document["findings"] if one["code"] == code]
    return found


def type_in(command: str, broker: str, status: int = 0) -> None:
    """Run the command of a finding."""
    words = [sys.executable, "-m", *shlex.split(command)]
    done = subprocess.run(
        words,
        cwd=PROJECT,
        env={**os.environ, "CELERY_BROKER_URL": broker},
        capture_output=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == status, done


def wait_until(what: str, poll: Callable[[], Any], limit: float = 30.0) -> None:
    deadline = time.monotonic() + limit
    while not poll():
        assert time.monotonic() < deadline, f"{what} did not come"
        time.sleep(0.05)


def test_healthy_system_has_no_finding_and_nothing_is_changed_by_sampling(
    audit: Audit, start_celery: StartCelery, app: Celery, broker: str
) -> None:
    worker(start_celery, "w1@here")
    app.send_task("audited.ok")
    client = Redis.from_url(broker)
    inspect = app.control.inspect(timeout=2)
    wait_until("a task that was taken", lambda: any(w["total"] for w in (inspect.stats() or {}).values()))
    wait_until("its end", lambda: not client.exists("celery", "unacked"))
    before = sorted(client.keys())

    status, document = audit()

    # Threads cannot end a task: the project's limit has no effect there.
    assert codes(document) == {
        ("warning", "CONFIG_TIME_LIMIT_POOL", "worker_pool"),
        ("notice", "CONFIG_PERSISTENCE", document["broker"]["url"]),
    }
    assert (status, document["unknown"]) == (1, [])
    assert audit("--no-config")[0] == 0
    assert (document["broker"]["reachable"], document["broker"]["transport"]) == (True, "redis")
    (row,) = document["workers"]
    assert (row["name"], row["pool"], row["processes"], row["queues"]) == (
        "w1@here",
        "threads",
        2,
        ["celery"],
    )
    assert (row["active"], row["reserved"], document["workers_connected"]) == (0, 0, 1)
    assert sorted(client.keys()) == before


def test_queue_that_nobody_consumes_is_found_and_its_repair_works(
    audit: Audit, start_celery: StartCelery, app: Celery, broker: str
) -> None:
    worker(start_celery, "w1@here")
    # A Beat entry names one queue. Nothing names the other one, whose name a shell must not interpret.
    for queue in ("night", "in voices;$(x)"):
        for _ in range(3):
            app.send_task("audited.ok", queue=queue, priority=0)
    app.send_task("audited.ok", queue="night", priority=9)

    status, document = audit(NIGHTLY_QUEUE="night")

    assert status == 2
    night, other = [one for one in document["findings"] if one["code"] == "QUEUE_UNCONSUMED"][::-1]
    assert (night["subject"]["name"], night["severity"]) == ("night", "critical")
    assert night["summary"] == "Nobody consumes queue night: 4 messages wait forever."
    assert {"fact": "The queue is named by the Beat entry nightly.", "at": None} in night["evidence"]
    assert other["subject"]["name"] == "in voices;$(x)"
    # The waiting time is unknown: the sender has no SDK.
    assert [one["what"] for one in document["unknown"]] == ["how long the oldest message waits"]

    client = Redis.from_url(broker)
    for one in (night, other):
        type_in(one["repair"][0]["command"], broker)
        wait_until("consumption", lambda name=one["subject"]["name"]: client.llen(name) == 0)

    status, document = audit("--no-config", NIGHTLY_QUEUE="night")
    assert (status, document["findings"]) == (0, [])


def test_ten_workers_are_all_listed(audit: Audit, start_celery: StartCelery) -> None:
    names = [f"w{number}@here" for number in range(10)]
    pools = ["threads", "solo"] * 5
    started = [
        start_celery("worker", "-n", name, "--pool", pool, project="audited", ready=False)
        for name, pool in zip(names, pools)
    ]
    for one in started:
        one.wait_for_output("ready.", 60)

    _, document = audit("--no-config")

    assert [(row["name"], row["pool"]) for row in document["workers"]] == list(zip(names, pools))
    assert document["workers_connected"] == 10
    assert all(row["queues"] == ["celery"] and row["accepted"] == 0 for row in document["workers"])
    assert (document["findings"], document["unknown"]) == ([], [])


def test_ghost_is_a_suspicion_until_its_message_is_old(
    audit: Audit, start_celery: StartCelery, app: Celery, broker: str
) -> None:
    process = worker(start_celery, "w1@here")
    app.control.broadcast("ghost", reply=True, timeout=5, limit=1)
    # The worker still receives the first message: it was already waiting for it.
    for _ in range(2):
        app.send_task("audited.ok", headers={"deadbeat_at": time.time()})

    status, document = audit("--no-config")
    young = finding(document, "GHOST_WORKER")

    assert (status, young["severity"], young["subject"]["name"]) == (1, "warning", "w1@here")
    assert "Only a suspicion" in young["evidence"][-1]["fact"]

    # The same with a message that was sent long ago.
    Redis.from_url(broker).delete("celery")
    app.send_task("audited.ok", headers={"deadbeat_at": time.time() - 700})
    status, document = audit("--no-config")
    old = finding(document, "GHOST_WORKER")

    assert (status, old["severity"]) == (2, "critical")
    assert codes(document) == {
        ("critical", "GHOST_WORKER", "w1@here"),
        ("critical", "QUEUE_SLA_BREACH", "celery"),
    }
    assert old["repair"][0]["command"] == "celery -A audited control shutdown -d w1@here"
    # The worker ends instead of replying; `celery` counts that as a failure.
    type_in(old["repair"][0]["command"], broker, status=69)
    process.process.wait(20)


def test_messages_held_by_a_busy_worker_while_another_idles_are_found(
    audit: Audit, start_celery: StartCelery, app: Celery
) -> None:
    worker(start_celery, "busy@here", "--concurrency", "1")
    for _ in range(4):
        app.send_task("audited.waits")
    idle = worker(start_celery, "idle@here")

    _, document = audit("--no-config")

    starved = finding(document, "PREFETCH_STARVATION")
    assert starved["subject"]["name"] == "busy@here"
    assert "holds back 3 messages" in starved["summary"]
    assert any("idle@here" in fact["fact"] for fact in starved["evidence"])
    assert starved["repair"][0]["command"] == "celery -A audited worker -n busy@here --prefetch-multiplier 1"
    idle.kill()


def test_worker_that_does_not_answer_makes_things_unknown_and_not_good_or_bad(
    audit: Audit, start_celery: StartCelery, app: Celery
) -> None:
    frozen = worker(start_celery, "frozen@here", "-Q", "night")
    worker(start_celery, "w1@here")
    os.kill(frozen.process.pid, signal.SIGSTOP)
    # The first one goes to a socket of the frozen worker.
    for _ in range(2):
        app.send_task("audited.ok", queue="night")

    status, document = audit("--no-config")

    assert [row["name"] for row in document["workers"]] == ["w1@here"]
    assert (status, document["findings"], document["workers_connected"]) == (0, [], 2)
    what = {one["what"]: one["why"] for one in document["unknown"]}
    assert what["some workers"].startswith("1 of 2 workers that are connected did not answer")
    assert "night" in what["whether messages wait in a queue that nobody consumes"]


def test_no_worker_at_all_is_critical(audit: Audit) -> None:
    status, document = audit("--no-config")

    assert (status, codes(document)) == (2, {("critical", "NO_WORKERS", document["broker"]["url"])})


def test_broker_that_refuses_is_down_and_one_that_hangs_too(audit: Audit, own_redis: RedisServer) -> None:
    status, document = audit("--no-config", CELERY_BROKER_URL=f"redis://:secret@127.0.0.1:{free_port()}/0")

    refused = finding(document, "BROKER_DOWN")
    assert (status, document["broker"]["reachable"]) == (2, False)
    assert "refused" in refused["evidence"][0]["fact"]
    assert "secret" not in json.dumps(document)

    own_redis.process.send_signal(signal.SIGSTOP)
    try:
        url = f"redis://127.0.0.1:{own_redis.port}/0"
        status, document = audit("--no-config", "--timeout", "0.5", CELERY_BROKER_URL=url)
    finally:
        own_redis.process.send_signal(signal.SIGCONT)

    hung = finding(document, "BROKER_DOWN")
    assert status == 2
    assert hung["repair"][0]["command"] == f"redis-cli -h 127.0.0.1 -p {own_redis.port} ping"


def test_second_address_of_a_broker_is_tried(audit: Audit, broker: str) -> None:
    _, document = audit("--no-config", CELERY_BROKER_URL=f"redis://127.0.0.1:{free_port()}/0;{broker}")

    assert document["broker"]["reachable"] is True


def test_what_could_not_be_examined_is_neither_good_nor_bad(audit: Audit, own_redis: RedisServer) -> None:
    Redis(port=own_redis.port).config_set("requirepass", "secret")

    # A wrong password and a missing client say nothing about the broker.
    for url in (f"redis://:wrong-word@127.0.0.1:{own_redis.port}/0", "nonsense://here"):
        status, document = audit("--no-config", CELERY_BROKER_URL=url)
        assert (status, document["findings"], document["broker"]["reachable"]) == (3, [], None)
        assert document["unknown"][0]["what"] == "the broker"
        assert "wrong-word" not in json.dumps(document)

    done = run("audit", "-A", "no_such_module", "--json")
    assert (done.returncode, json.loads(done.stdout)["exit_code"]) == (3, 3)
    assert run("audit").returncode == 64


def test_redis_that_may_evict_messages_is_a_finding(audit: Audit, own_redis: RedisServer) -> None:
    client = Redis(port=own_redis.port)
    client.config_set("maxmemory", "100mb")
    client.config_set("maxmemory-policy", "allkeys-lru")
    url = f"redis://127.0.0.1:{own_redis.port}/0"

    _, document = audit(CELERY_BROKER_URL=url)

    eviction = finding(document, "CONFIG_EVICTION")
    assert eviction["severity"] == "warning"
    words = shlex.split(eviction["repair"][0]["command"])
    assert words[0] == "redis-cli"
    assert client.execute_command(*words[5:])
    assert "CONFIG_EVICTION" not in {code for _, code, _ in codes(audit(CELERY_BROKER_URL=url)[1])}


def test_screen_shows_tables_and_findings_and_obeys_no_name(
    start_celery: StartCelery, app: Celery, broker: str
) -> None:
    worker(start_celery, "w1@here")
    app.send_task("audited.ok", queue="\x1b[2Jred")

    done = run("audit", "-A", "audited", "--no-config", "--no-server", CELERY_BROKER_URL=broker)

    assert done.returncode == 2
    assert "a line on standard output" not in done.stdout
    assert "a line on standard output" in done.stderr
    lines = done.stdout.splitlines()
    assert any(line.split()[:3] == ["w1@here", "threads", "2"] for line in lines)
    assert any(line.startswith("critical  QUEUE_UNCONSUMED") for line in lines)
    assert "\x1b" not in done.stdout
    assert "1 critical" in lines[-1]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
def test_watch_ends_cleanly_when_it_is_ordered_to(number: signal.Signals, broker: str) -> None:
    watching = subprocess.Popen(
        [sys.executable, "-m", "deadbeat", "watch", "-A", "audited", "--no-config", "--interval", "0.2"],
        cwd=PROJECT,
        env={**os.environ, "CELERY_BROKER_URL": broker},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        preexec_fn=default_signals,
    )
    assert watching.stdout is not None
    try:
        assert watching.stdout.readline()

        watching.send_signal(number)

        _out, err = watching.communicate(timeout=20)
        assert watching.returncode == 0
        assert "Traceback" not in err
    finally:
        watching.kill()
        watching.wait(10)


def test_watch_reports_what_comes_and_goes_and_ends_with_ctrl_c(
    start_celery: StartCelery, app: Celery, broker: str
) -> None:
    worker(start_celery, "w1@here")
    watching = subprocess.Popen(
        [sys.executable, "-m", "deadbeat", "watch", "-A", "audited", "--no-config", "--interval", "0.2"],
        cwd=PROJECT,
        env={**os.environ, "CELERY_BROKER_URL": broker},
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        start_new_session=True,
        preexec_fn=default_signals,
    )
    assert watching.stdout is not None
    try:
        assert "nothing found" in watching.stdout.readline()
        assert "+ not examined" in watching.stdout.readline(), "no server is set"
        app.send_task("audited.ok", queue="red")
        line = watching.stdout.readline()
        while " + critical  QUEUE_UNCONSUMED  queue red" not in line:
            assert line
            line = watching.stdout.readline()
        Redis.from_url(broker).delete("red")
        while " - critical  QUEUE_UNCONSUMED  queue red" not in line:
            assert line
            line = watching.stdout.readline()
        watching.send_signal(signal.SIGINT)
        assert watching.wait(10) == 0
    finally:
        watching.kill()
        watching.wait(10)


def test_watch_does_not_say_that_something_went_when_nobody_could_sample(own_redis: RedisServer) -> None:
    options = ("--no-config", "--no-server", "--interval", "0.2", "--timeout", "0.5")
    watching = subprocess.Popen(
        [sys.executable, "-m", "deadbeat", "watch", "-A", "audited", *options],
        cwd=PROJECT,
        env={**os.environ, "CELERY_BROKER_URL": f"redis://127.0.0.1:{own_redis.port}/0"},
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        start_new_session=True,
    )
    assert watching.stdout is not None
    reported: list[str] = []

    def until(words: str) -> None:
        while not reported or words not in reported[-1]:
            line = watching.stdout.readline() if watching.stdout is not None else ""
            assert line, reported
            reported.append(line)

    try:
        until(" + critical  NO_WORKERS")
        own_redis.process.send_signal(signal.SIGSTOP)
        until(" + critical  BROKER_DOWN")
        own_redis.process.send_signal(signal.SIGCONT)
        until(" - critical  BROKER_DOWN")
    finally:
        own_redis.process.send_signal(signal.SIGCONT)
        watching.kill()
        watching.wait(10)
    assert [line for line in reported if "NO_WORKERS" in line] == reported[1:2]


def test_server_that_cannot_be_asked_is_unknown(broker: str) -> None:
    options = ("audit", "-A", "audited", "--json", "--no-config")
    server = {"CELERY_BROKER_URL": broker, "DEADBEAT_URL": f"http://127.0.0.1:{free_port()}"}

    for key, why in (("dbp_only-signals", "no read key"), ("dbr_reads", "refused")):
        done = run(*options, **server, DEADBEAT_KEY="dbp_only-signals", DEADBEAT_READ_KEY=key)
        document = json.loads(done.stdout)
        assert {code for _, code, _ in codes(document)} == {"NO_WORKERS"}
        (unknown,) = document["unknown"]
        assert why in unknown["why"]
        assert key not in done.stdout
