"""A worker is killed, a queue has no consumer: each is one incident, and the alert's command repairs it."""

from __future__ import annotations

import os
import shlex
import subprocess
from pathlib import Path
from typing import Any

import parts

APP = """
import os

import deadbeat
from celery import Celery

app = Celery("shop", broker=os.environ["CELERY_BROKER_URL"])
app.conf.beat_schedule = {
    "tick": {"task": "shop.tick", "schedule": 2.0},
    # Nobody consumes that queue.
    "report": {"task": "shop.report", "schedule": 5.0, "options": {"queue": "reports"}},
}
deadbeat.init(app)


@app.task(name="shop.tick", ignore_result=True)
def tick():
    pass


@app.task(name="shop.report", ignore_result=True)
def report():
    pass
"""


class Shop:
    """The application's processes."""

    def __init__(self, folder: Path, env: dict[str, str]) -> None:
        self.folder = folder
        self.env = env
        self.running: list[parts.Part] = []
        (folder / "shop.py").write_text(APP)

    def celery(self, name: str, *arguments: str) -> parts.Part:
        command = [parts.program("celery"), "-A", "shop", *arguments]
        part = parts.Part(name, command, self.folder, self.env)
        self.running.append(part)
        return part

    def worker(self, name: str) -> parts.Part:
        return self.celery(
            name, "worker", "-n", f"{name}@shop", "-Q", "celery", "--concurrency", "1", "--loglevel", "info"
        )

    def type_in(self, command: str) -> None:
        """Run the command of an alert."""
        words = shlex.split(command)
        assert words[0] == "celery", command
        words[0] = parts.program("celery")
        done = subprocess.run(
            words,
            cwd=self.folder,
            env={**os.environ, **self.env},
            check=False,
            capture_output=True,
            timeout=60,
        )
        assert done.returncode == 0, done


def by_cause(server: parts.Server) -> dict[str, dict[str, Any]]:
    incidents = server.api("GET", "/incidents")["incidents"]
    found = {incident["cause"]["code"]: incident for incident in incidents}
    assert len(found) == len(incidents), incidents
    return found


def test_a_lost_worker_and_an_unconsumed_queue_are_reported_and_the_repairs_work(
    server: parts.Server, sink: parts.Sink, tmp_path: Path
) -> None:
    server.api("POST", "/channels", {"kind": "webhook", "name": "sink", "settings": {"url": sink.url}})
    with parts.redis(tmp_path) as broker:
        shop = Shop(
            tmp_path,
            {
                "CELERY_BROKER_URL": broker,
                "DEADBEAT_URL": server.url,
                "DEADBEAT_KEY": server.keys["ping key"],
                # This test is not about the entries themselves.
                "DEADBEAT_GRACE_SECONDS": "600",
                "DEADBEAT_CANARY_GRACE_SECONDS": "600",
                "DEADBEAT_WORKER_PERIOD_SECONDS": "1",
            },
        )
        try:
            shop.worker("one")
            two = shop.worker("two")
            shop.celery("beat", "beat", "--schedule", str(tmp_path / "celerybeat-schedule"))

            def workers() -> dict[str, str]:
                return {w["name"]: w["status"] for w in server.api("GET", "/workers")["workers"]}

            both_up = {"one@shop": "up", "two@shop": "up"}
            parts.wait_for("two workers", lambda: workers() == both_up, 60)

            def waiting() -> bool:
                queues = server.api("GET", "/queues")["queues"]
                return any(queue["name"] == "reports" and queue["depth"] > 0 for queue in queues)

            parts.wait_for("messages in the queue that nobody consumes", waiting, 60)
            assert by_cause(server) == {}

            two.kill()
            causes = {"WORKER_LOST", "QUEUE_UNCONSUMED"}
            parts.wait_for("both incidents", lambda: set(by_cause(server)) == causes, 60)
            lost, unconsumed = (by_cause(server)[cause] for cause in ("WORKER_LOST", "QUEUE_UNCONSUMED"))
            assert (lost["subject"]["kind"], lost["subject"]["name"]) == ("worker", "two@shop")
            assert (unconsumed["subject"]["kind"], unconsumed["subject"]["name"]) == ("queue", "reports")
            parts.wait_for("both alerts", lambda: len(sink.alerts("incident.opened")) == 2, 10)

            shop.type_in(unconsumed["repair"][0]["command"])
            shop.worker("two")
            parts.wait_for("the end of both", lambda: len(sink.alerts("incident.resolved")) == 2, 60)
            assert set(by_cause(server)) == causes, "nothing else was opened"

            # A deployment: a worker that reports its stop opens no incident.
            for part in shop.running:
                if part.name in ("one", "two") and part.process.poll() is None:
                    part.process.terminate()
            parts.wait_for("goodbyes", lambda: set(workers().values()) == {"paused"}, 60)
            assert set(by_cause(server)) == causes
        except AssertionError:
            for path in ("/workers", "/queues", "/brokers", "/incidents"):
                print(path, server.api("GET", path))
            for part in [*shop.running, server.part]:
                print(f"---- {part.name}\n{part.text()[-4000:]}")
            raise
        finally:
            for part in reversed(shop.running):
                part.stop()
