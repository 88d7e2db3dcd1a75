"""A healthy application with all features of Celery, through deployments and failovers: no alert comes."""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import parts
from proxy import Proxy
from silent_failures.stage import CANARY, Open, Project, alerted_of, ended

MINUTES = float(os.environ.get("SILENT_FAILURES_MINUTES", "10"))
# A failover of RabbitMQ takes some ten seconds, a deployment five, and both may come at once.
PATIENCE = "45"
QUEUES = "celery,reports"
SCHEDULE: dict[str, dict[str, Any]] = {
    "tick": {"task": "shop.job", "schedule": 1.0},
    "slow": {"task": "shop.job", "schedule": 5.0},
    "flaky": {"task": "shop.job", "schedule": 2.0},
    "elsewhere": {"task": "shop.job", "schedule": 3.0, "options": {"queue": "reports"}},
    "spread": {"task": "shop.job", "schedule": 7.0, "options": {"countdown": 9}},
    "perishable": {"task": "shop.job", "schedule": 4.0, "options": {"expires": 60}},
    "limited": {"task": "shop.limited", "schedule": 3.0},
    "chain": {"task": "shop.flow", "schedule": 6.0},
    "chord": {"task": "shop.flow", "schedule": 7.0},
    "group": {"task": "shop.flow", "schedule": 8.0},
    "later": {"task": "shop.flow", "schedule": 9.0},
    "thumbs": {"task": "shop.flow", "schedule": 5.0},
    "each minute": {"task": "shop.job", "schedule": "* * * * *"},
}


def fail_over(broker: parts.Redis | parts.RabbitMQ, door: Proxy | None) -> None:
    """End all connections; the messages stay. A broker that is away for 20 s would open an incident."""
    if isinstance(broker, parts.RabbitMQ):
        # Its start takes half a minute on a busy machine.
        broker.control("close_all_connections", "failover")
    elif door is not None:
        # A load balancer refuses connections until the new primary is ready.
        at_rest(broker)
        door.refuse()
        broker.kill()
        broker.start()
        door.heal()


def at_rest(broker: parts.Redis) -> None:
    """Wait for a moment in which no message is on its way.

    A message whose acknowledgement is lost with the connection is executed twice, and Deadbeat reports that.
    """

    def counts() -> tuple[str, ...]:
        queues = (*QUEUES.split(","), "thumbs")
        return (broker.ask("HLEN", "unacked"), *(broker.ask("LLEN", queue) for queue in queues))

    def is_at_rest() -> bool:
        before = counts()
        end = time.monotonic() + 0.2
        while time.monotonic() < end:
            if counts() != before or set(before[1:]) != {"0"}:
                return False
        return True

    parts.wait_for("a moment of rest", is_at_rest, 60)


class Pod:
    """A worker that its host restarts a second after it ended by an error, as systemd does.

    Celery 5.7 needs that: a worker that holds messages when its connection to Redis breaks ends by an
    AttributeError of kombu, "Unrecoverable error", with exit status 1.
    """

    def __init__(self, start: Callable[[], parts.Part]) -> None:
        self.start = start
        self.part = start()
        self.stopping = threading.Event()
        self.keeper = threading.Thread(target=self._keep, daemon=True)
        self.keeper.start()

    def _keep(self) -> None:
        while not self.stopping.wait(1):
            if self.part.process.poll() is not None:
                self.part = self.start()

    def stop(self) -> None:
        self.stopping.set()
        self.keeper.join()
        self.part.stop()


@pytest.mark.long
@pytest.mark.parametrize("kind", ["redis", "rabbitmq"])
def test_a_healthy_life_with_deployments_and_failovers_is_no_incident(
    open_stage: Open, redis: parts.Redis, rows: Any, tmp_path: Path, kind: str
) -> None:
    where = {"redis": "Redis", "rabbitmq": "RabbitMQ"}[kind]
    row = rows("quiet", f"{MINUTES:g} minutes of all that Celery offers, deployments and failovers ({where})")
    (tmp_path / "broker").mkdir()
    broker: parts.Redis | parts.RabbitMQ
    if kind == "redis":
        broker = parts.Redis(tmp_path / "broker", "--appendonly", "yes", "--appendfsync", "always")
    else:
        broker = parts.RabbitMQ(tmp_path / "broker")
    server = parts.Server(tmp_path)
    with contextlib.ExitStack() as stack:
        stack.enter_context(ended(server, broker))
        broker.start()
        server.ready()
        url, door = broker.url, None
        if isinstance(broker, parts.Redis):
            door = Proxy(broker.port)
            stack.callback(door.stop)
            url = f"redis://127.0.0.1:{door.port}/0"
        stage = open_stage(
            url,
            SCHEDULE,
            project=Project(server.url, server.keys["API key"], server.keys["ping key"]),
            # Redis redelivers the messages that a worker held during a failover after the visibility timeout.
            settings={
                "result_backend": redis.url,
                "broker_transport_options": {"visibility_timeout": 15} if kind == "redis" else {},
                "broker_connection_retry_on_startup": True,
            },
            env=dict.fromkeys(
                ("DEADBEAT_GRACE_SECONDS", "DEADBEAT_BEAT_GRACE_SECONDS", "DEADBEAT_CANARY_GRACE_SECONDS"),
                PATIENCE,
            ),
        )
        stage.order("slow", "sleep 4")
        stage.order("flaky", "once the shop is away")
        pods = 0

        def pod() -> Pod:
            """Start a worker with a new node name, and wait until it is up."""
            nonlocal pods
            pods += 1
            name = f"pod{pods}"
            options = ("--autoscale", "4,1", "--max-tasks-per-child", "20")
            one = Pod(lambda: stage.worker(name, *options, queues=QUEUES))
            stack.callback(one.stop)
            parts.wait_for(
                f"worker {name}",
                lambda: stage.workers().get(f"{name}@shop", {}).get("status") == "up",
                60,
            )
            return one

        # It consumes a queue to which only runs send, and reports nothing.
        foreign = {"DEADBEAT_ENABLED": "0"}
        stack.callback(Pod(lambda: stage.worker("foreign", queues="thumbs", env=foreign)).stop)
        workers = [pod(), pod()]
        beat = stage.beat()
        watched = (*(set(SCHEDULE) - {"each minute"}), CANARY)
        stage.healthy(*watched, workers=("pod1@shop", "pod2@shop"))

        def quiet(seconds: float) -> None:
            """Check for this time that no incident opens, except about runs that Redis delivered twice."""
            until = time.monotonic() + seconds
            while time.monotonic() < until:
                assert [alerted_of(one) for one in stage.incidents() if not stage.was_repeated(one)] == []
                time.sleep(0.2)

        end = time.monotonic() + MINUTES * 60
        rounds = 0
        while time.monotonic() < end:
            quiet(25)
            # A deployment: pods of other names replace the old ones, one by one; then Beat is restarted.
            for index, old in enumerate(workers):
                workers[index] = pod()
                old.stop()
            beat.stop()
            beat = stage.beat()
            stage.lively(*watched, runs=1)
            quiet(15)
            if rounds % 2 == 0:
                fail_over(broker, door)
            else:
                server.part.kill_only()
                server.again()
            stage.lively(*watched, runs=1)
            rounds += 1
        assert rounds >= MINUTES / 4
        quiet(60)
        row.silent()
