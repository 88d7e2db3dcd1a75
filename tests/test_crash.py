"""kill -9 at any moment loses no acknowledged ping and no alert."""

from __future__ import annotations

import os
import signal
import threading
from pathlib import Path

import pytest

import parts


class Pinger(threading.Thread):
    """Pings one monitor over and over, and counts what was acknowledged."""

    def __init__(self, url: str) -> None:
        super().__init__(daemon=True)
        self.url = url
        self.acknowledged = 0
        self.sent = 0
        self.ending = threading.Event()

    def run(self) -> None:
        while not self.ending.is_set():
            self.sent += 1
            status, _, _ = parts.call("GET", self.url, limit=10)
            if status == 200:
                self.acknowledged += 1
            else:
                self.ending.wait(0.02)


def wait_for_pings(pingers: list[Pinger]) -> None:
    """Wait until each has had thirty more pings acknowledged."""
    wanted = [pinger.acknowledged + 30 for pinger in pingers]
    parts.wait_for(
        "pings", lambda: all(p.acknowledged >= w for p, w in zip(pingers, wanted, strict=True)), 60
    )


@pytest.mark.parametrize("victim", ["server", "postgres"])
def test_no_acknowledged_ping_is_lost_by_kill_9(server: parts.Server, victim: str) -> None:
    monitors = [
        server.api(
            "POST", "/monitors", {"name": f"job {n}", "schedule": {"kind": "interval", "seconds": 3600}}
        )
        for n in range(4)
    ]
    pingers = [Pinger(monitor["ping_url"]) for monitor in monitors]
    for pinger in pingers:
        pinger.start()

    for _ in range(3):
        wait_for_pings(pingers)
        if victim == "server":
            server.part.kill_only()
            server.again()
        else:
            # It is taken up again by the server; what comes meanwhile goes to the spool.
            server.drained()
            os.kill(server.postgres_pid(), signal.SIGKILL)
    wait_for_pings(pingers)
    for pinger in pingers:
        pinger.ending.set()
    for pinger in pingers:
        pinger.join(30)
    server.drained()

    for monitor, pinger in zip(monitors, pingers, strict=True):
        numbers = [ping["n"] for ping in server.every(f"/monitors/{monitor['id']}/pings", "pings")]
        # Every acknowledged one is there; one more may be for each time the answer was cut off.
        assert pinger.acknowledged <= len(numbers) <= pinger.sent
        assert numbers == list(range(len(numbers), 0, -1))


def test_no_alert_is_lost_by_kill_9(server: parts.Server, sink: parts.Sink, tmp_path: Path) -> None:
    # The sink refuses while the server is killed again and again: what is told must survive all of it.
    sink.status = 500
    server.api("POST", "/channels", {"kind": "webhook", "name": "sink", "settings": {"url": sink.url}})
    for n in range(5):
        monitor = server.api(
            "POST",
            "/monitors",
            {"name": f"job {n}", "schedule": {"kind": "interval", "seconds": 1}, "grace_seconds": 1},
        )
        assert parts.call("GET", monitor["ping_url"])[0] == 200

    parts.wait_for("a refused attempt", lambda: len(sink.received) >= 1)
    server.part.kill_only()
    server.again()
    parts.wait_for("five incidents", lambda: len(server.api("GET", "/incidents")["incidents"]) == 5)
    server.part.kill_only()
    sink.status = 200
    server.again()

    def told() -> bool:
        deliveries = server.api("GET", "/deliveries")["deliveries"]
        return len(deliveries) == 5 and all(delivery["status"] == "sent" for delivery in deliveries)

    # A claim of the killed process runs out after its lease.
    parts.wait_for("five deliveries", told, 120)
    opened = {one["json"]["incident"]["id"] for one in sink.alerts("incident.opened")}
    assert len(opened) == 5
    by_id: dict[str, set[bytes]] = {}
    for one in sink.received:
        by_id.setdefault(one["headers"]["webhook-id"], set()).add(one["body"])
    assert len(by_id) == 5, "each alert keeps its delivery id however often it is tried"
    assert all(len(bodies) == 1 for bodies in by_id.values())
    attempts = [
        server.api("GET", f"/deliveries/{delivery['id']}")["attempts"]
        for delivery in server.api("GET", "/deliveries")["deliveries"]
    ]
    assert all(tries[-1]["outcome"] == "sent" for tries in attempts)
