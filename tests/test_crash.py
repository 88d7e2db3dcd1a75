"""kill -9 at any moment loses no acknowledged ping and no alert."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

import parts
import postgres
from conftest import Size
from load import Load


@pytest.mark.proof("kill -9 under load, of the")
@pytest.mark.parametrize("victim", ["server", "postgres"])
def test_no_acknowledged_ping_is_lost_by_kill_9(tmp_path: Path, victim: str, size: Size) -> None:
    server = parts.Server(
        tmp_path, env={"DEADBEAT_PINGS_PER_MONITOR": "1000000", "DEADBEAT_PINGS_PER_SECOND": "1000000"}
    )
    try:
        server.ready()
        schedule = {"kind": "interval", "seconds": 3600}
        monitors = [
            server.api("POST", "/monitors", {"name": f"job {n}", "schedule": schedule}) for n in range(5)
        ]
        with Load([monitor["ping_url"] for monitor in monitors], size.connections) as load:
            for _ in range(size.kills):
                load.wait_for_more()
                if victim == "server":
                    server.part.kill_only()
                    server.again()
                else:
                    # The server restarts PostgreSQL; pings meanwhile go to the spool.
                    server.drained()
                    os.kill(server.postgres_pid(), signal.SIGKILL)
            load.wait_for_more()
            load.end()
        server.drained()

        load.check(postgres.embedded(server.data))
        assert load.acknowledged() > size.kills * 30 * size.connections
        if victim == "postgres":
            assert not load.refusals(), "while PostgreSQL is away, the spool takes everything"
    finally:
        server.stop()


def test_no_alert_is_lost_by_kill_9(server: parts.Server, sink: parts.Sink, tmp_path: Path) -> None:
    # The sink refuses while the server is killed several times: every alert must survive that.
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

    def alerted() -> bool:
        deliveries = server.api("GET", "/deliveries")["deliveries"]
        return len(deliveries) == 5 and all(delivery["status"] == "sent" for delivery in deliveries)

    # A claim of the killed process expires with its lease.
    parts.wait_for("five deliveries", alerted, 120)
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
