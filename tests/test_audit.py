"""The command `audit` beside a real server, and all commands on RabbitMQ."""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from celery import Celery
from kombu import Exchange, Queue

import parts

APP = """
import os

import deadbeat
from celery import Celery

app = Celery("shop", broker=os.environ["CELERY_BROKER_URL"])
deadbeat.init(app)
"""


def audit(folder: Path, env: dict[str, str], *options: str) -> tuple[int, dict[str, Any]]:
    return deadbeat(folder, env, "audit", "--no-config", *options)


def deadbeat(folder: Path, env: dict[str, str], command: str, *options: str) -> tuple[int, dict[str, Any]]:
    done = subprocess.run(
        [sys.executable, "-m", "deadbeat", command, "-A", "shop", "--json", *options],
        cwd=folder,
        env={**os.environ, **env},
        check=False,
        capture_output=True,
        timeout=60,
    )
    assert done.stdout, done.stderr.decode()
    return done.returncode, json.loads(done.stdout)


def test_killed_worker_is_named_by_the_audit_although_the_broker_knows_nothing_of_it(
    server: parts.Server, tmp_path: Path
) -> None:
    (tmp_path / "shop.py").write_text(APP)
    with parts.redis(tmp_path) as broker:
        env = {
            "CELERY_BROKER_URL": broker,
            "DEADBEAT_URL": server.url,
            "DEADBEAT_KEY": server.keys["ping key"],
            "DEADBEAT_READ_KEY": server.keys["read key"],
            "DEADBEAT_WORKER_PERIOD_SECONDS": "1",
        }

        def worker(name: str, **more: str) -> parts.Part:
            options = ["-n", f"{name}@shop", "--pool", "threads", "--concurrency", "1"]
            command = [parts.program("celery"), "-A", "shop", "worker", *options]
            return parts.Part(name, command, tmp_path, {**env, **more})

        one, two = worker("one"), worker("two")
        try:
            known = ["one@shop", "two@shop"]

            def up() -> bool:
                rows = server.api("GET", "/workers")["workers"]
                return sorted(row["name"] for row in rows if row["status"] == "up") == known

            parts.wait_for("two workers", up, 60)
            status, report = audit(tmp_path, env)
            assert [row["name"] for row in report["workers"]] == known
            assert (status, report["findings"], report["unknown"]) == (0, [], [])
            assert report["server"] == {"url": server.url, "reachable": True}

            # A worker with the SDK but without its key answers like any other, and reports nothing.
            dumb = worker("dumb", DEADBEAT_KEY="")

            def found() -> list[tuple[str, str]]:
                findings = audit(tmp_path, env)[1]["findings"]
                return [(one["code"], one["subject"]["name"]) for one in findings]

            try:
                parts.wait_for("the finding", lambda: found() == [("WORKER_WITHOUT_SDK", "dumb@shop")], 90)
                assert audit(tmp_path, env)[0] == 1
            finally:
                dumb.stop()

            two.kill()
            parts.wait_for("the incident", lambda: server.api("GET", "/incidents")["incidents"], 60)
            status, report = audit(tmp_path, env)
            (lost,) = report["findings"]
            assert (status, lost["code"], lost["severity"]) == (2, "WORKER_LOST", "critical")
            assert lost["subject"] == {"kind": "worker", "name": "two@shop"}
            assert any(
                step["command"] == "celery -A shop worker -n two@shop -Q celery" for step in lost["repair"]
            )

            # A ping key may not read: the audit says so, and examines the broker all the same.
            status, report = audit(tmp_path, {**env, "DEADBEAT_READ_KEY": "dbr_0000000000000000000000000000"})
            assert (status, report["findings"]) == (0, [])
            assert "does not know the key" in report["unknown"][0]["why"]
        finally:
            one.stop()
            two.kill()


# -- RabbitMQ

ON_RABBITMQ = (
    APP
    + """
from kombu import Queue

quorum = {"x-queue-type": "quorum"}
app.conf.task_queues = [Queue("celery"), Queue("absent"), Queue("strong", queue_arguments=quorum)]
app.conf.beat_schedule = {"nightly": {"task": "shop.ok", "schedule": 3600.0, "options": {"queue": "reports"}}}


@app.task
def ok():
    pass
"""
)
# RabbitMQ shows these to no client.
UNACKED = "messages that workers hold unacknowledged"
AGE = "how long the oldest message waits"


@pytest.fixture(scope="module")
def rabbit(tmp_path_factory: pytest.TempPathFactory) -> Iterator[parts.RabbitMQ]:
    """One RabbitMQ for all of these tests: it takes seconds to start."""
    started = parts.RabbitMQ(tmp_path_factory.mktemp("broker"))
    try:
        yield started.start()
    finally:
        started.stop()


class Shop:
    """The application on RabbitMQ, in its own virtual host."""

    def __init__(self, rabbit: parts.RabbitMQ, folder: Path) -> None:
        (folder / "shop.py").write_text(ON_RABBITMQ)
        host = folder.name
        rabbit.control("add_vhost", host)
        rabbit.control("set_permissions", "-p", host, "guest", ".*", ".*", ".*")
        self.rabbit, self.folder, self.host = rabbit, folder, host
        self.url = rabbit.url.removesuffix("/") + host
        # The SDK is off here: the commands must work without it.
        self.env = {
            "CELERY_BROKER_URL": self.url,
            "DEADBEAT_URL": "http://127.0.0.1:9",
            "DEADBEAT_KEY": "dbp_x",
        }
        self.running: list[parts.Part] = []
        self.app = Celery("sender", broker=self.url, set_as_current=False)

    def worker(self, name: str = "one") -> parts.Part:
        options = ["-n", f"{name}@shop", "--pool", "threads", "--concurrency", "1", "-Q", "celery"]
        command = [parts.program("celery"), "-A", "shop", "worker", "--loglevel", "info", *options]
        part = parts.Part(name, command, self.folder, self.env)
        self.running.append(part)
        parts.wait_for("a worker", lambda: "ready." in part.text())
        return part

    def audit(self, **env: str) -> tuple[int, dict[str, Any]]:
        return audit(self.folder, {**self.env, **env}, "--no-server")

    def type_in(self, command: str) -> None:
        words = shlex.split(command)
        subprocess.run(
            [parts.program(words[0]), *words[1:]],
            cwd=self.folder,
            env={**os.environ, **self.env},
            check=True,
            capture_output=True,
            timeout=60,
        )

    def depth(self, queue: str) -> int:
        with self.app.connection_for_read() as connection:
            return int(connection.default_channel.queue_declare(queue, passive=True).message_count)

    def made(self) -> list[str]:
        """Its queues and exchanges, with their arguments."""
        queues = self.rabbit.control("list_queues", "-p", self.host, "name", "type", "durable", "arguments")
        exchanges = self.rabbit.control("list_exchanges", "-p", self.host, "name", "type", "arguments")
        return sorted([*queues.splitlines(), *exchanges.splitlines()])

    def end(self) -> None:
        self.app.close()
        for part in self.running:
            part.kill()
            part.out.close()


@pytest.fixture
def shop(rabbit: parts.RabbitMQ, tmp_path: Path) -> Iterator[Shop]:
    opened = Shop(rabbit, tmp_path)
    try:
        yield opened
    finally:
        opened.end()


def unknown(report: dict[str, Any]) -> dict[str, str]:
    return {one["what"]: one["why"] for one in report["unknown"]}


def only_finding(report: dict[str, Any]) -> dict[str, Any]:
    (found,) = report["findings"]
    return found


def test_healthy_system_on_rabbitmq_has_no_finding(shop: Shop) -> None:
    shop.worker("one")
    shop.worker("two")

    status, report = shop.audit()

    assert (status, report["findings"], list(unknown(report))) == (0, [], [UNACKED])
    assert (report["broker"]["transport"], report["broker"]["reachable"]) == ("amqp", True)
    assert (report["broker"]["unacked"], report["workers_connected"]) == (None, None)
    assert [(row["name"], row["queues"]) for row in report["workers"]] == [
        ("one@shop", ["celery"]),
        ("two@shop", ["celery"]),
    ]
    queues = {row["name"]: (row["depth"], row["consumers"]) for row in report["queues"]}
    # Three named queues do not exist yet: nothing waits in them.
    assert queues == {"celery": (0, 2), "absent": (0, 0), "strong": (0, 0), "reports": (0, 0)}


def test_queue_that_nobody_consumes_on_rabbitmq_is_found_and_its_repair_works(shop: Shop) -> None:
    shop.worker()
    for _ in range(3):
        shop.app.send_task("shop.ok", queue="reports")
    parts.wait_for("the messages", lambda: shop.depth("reports") == 3)

    status, report = shop.audit()

    found = only_finding(report)
    assert (status, found["code"], found["subject"]["name"]) == (2, "QUEUE_UNCONSUMED", "reports")
    assert found["summary"] == "Nobody consumes queue reports: 3 messages wait forever."
    assert list(unknown(report)) == [UNACKED, AGE]
    assert "reports" in unknown(report)[AGE]

    shop.type_in(found["repair"][0]["command"])
    parts.wait_for("consumption", lambda: shop.depth("reports") == 0)
    assert shop.audit()[0] == 0


def test_sampling_queues_of_rabbitmq_changes_nothing(shop: Shop) -> None:
    shop.worker()
    names = {"strong": {"x-queue-type": "quorum"}, "reports": {"x-max-priority": 5}}
    with shop.app.connection_for_write() as connection:
        for name, arguments in names.items():
            queue = Queue(name, Exchange(name), name, queue_arguments=arguments)(connection.default_channel)
            queue.declare()
            shop.app.send_task("shop.ok", queue=queue, connection=connection)
    for name in names:
        parts.wait_for("the message", lambda name=name: shop.depth(name) == 1)
    before = shop.made()
    assert not any(line.startswith("absent") for line in before)

    for _ in range(2):
        _, report = shop.audit()
        rows = {row["name"]: row for row in report["queues"]}
        assert [(rows[name]["depth"], rows[name]["consumers"]) for name in names] == [(1, 0), (1, 0)]
        assert (rows["absent"]["depth"], rows["absent"]["consumers"]) == (0, 0)
    # Its worker is the app's own, with every report of the SDK.
    status, diagnosis = deadbeat(shop.folder, shop.env, "doctor")
    results = {check["name"]: check["result"] for check in diagnosis["checks"]}
    assert {name for name, result in results.items() if result != "good"} == {"server", "key"}, diagnosis
    assert status == 2
    assert any(
        one["claim"] == "how long the oldest message of a queue waits" for one in diagnosis["blocked_claims"]
    )

    assert shop.made() == before
    with shop.app.connection_for_read() as connection:
        for name in names:
            message = connection.default_channel.basic_get(name, no_ack=True)
            assert message.delivery_info["redelivered"] is False, "nobody had it before"


def test_worker_on_rabbitmq_that_does_not_answer_is_not_known_and_a_killed_one_is_gone(shop: Shop) -> None:
    worker = shop.worker()
    os.killpg(worker.process.pid, signal.SIGSTOP)

    status, report = shop.audit()

    assert (status, report["findings"], report["workers"]) == (0, [], [])
    assert unknown(report)["the workers"].startswith("1 consumer of celery did not answer in time")

    worker.kill()
    parts.wait_for("its end", lambda: shop.audit()[1]["queues"][1]["consumers"] == 0)
    status, report = shop.audit()
    assert (status, only_finding(report)["code"]) == (2, "NO_WORKERS")


def test_rabbitmq_that_is_frozen_is_down_and_one_that_refuses_the_password_was_not_examined(
    shop: Shop, rabbit: parts.RabbitMQ
) -> None:
    assert rabbit.part is not None
    os.killpg(rabbit.part.process.pid, signal.SIGSTOP)
    try:
        status, report = shop.audit()
    finally:
        os.killpg(rabbit.part.process.pid, signal.SIGCONT)

    frozen = only_finding(report)
    assert (status, frozen["code"], report["broker"]["reachable"]) == (2, "BROKER_DOWN", False)
    assert (report["workers"], report["queues"], report["unknown"]) == ([], [], [])
    assert frozen["repair"][0]["command"] == "rabbitmq-diagnostics check_running"

    status, report = shop.audit(CELERY_BROKER_URL=shop.url.replace("guest:guest", "guest:wrong-word"))
    assert (status, report["findings"], report["broker"]["reachable"]) == (3, [], None)
    assert list(unknown(report)) == ["the broker"]
    assert "wrong-word" not in json.dumps(report)

    refused = f"amqp://guest:guest@127.0.0.1:{parts.free_port()}//"
    status, report = shop.audit(CELERY_BROKER_URL=refused)
    assert (status, only_finding(report)["code"]) == (2, "BROKER_DOWN")


def test_rabbitmq_that_takes_in_no_messages_is_found(shop: Shop, rabbit: parts.RabbitMQ) -> None:
    shop.worker()
    rabbit.control("set_vm_memory_high_watermark", "0.000001")
    try:
        status, report = shop.audit()
    finally:
        rabbit.control("set_vm_memory_high_watermark", "0.4")

    assert (status, only_finding(report)["code"]) == (2, "BROKER_BLOCKED")
    assert "the workers" in unknown(report), "they could not be asked, and are neither there nor gone"
