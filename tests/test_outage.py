"""The database is away: the spool keeps pings, /readyz is 503, and all recovers without a restart."""

from __future__ import annotations

import json
import time
import uuid
from pathlib import Path

import parts
from load import Load
from postgres import Postgres


def test_an_outage_of_the_database_is_said_and_recovered_from(database: Postgres, tmp_path: Path) -> None:
    server = parts.Server(tmp_path, env={"DEADBEAT_DATABASE_URL": database.url, "DEADBEAT_SPOOL_MB": "0"})
    try:
        server.ready()
        monitor = server.api(
            "POST", "/monitors", {"name": "job", "schedule": {"kind": "interval", "seconds": 3600}}
        )
        assert parts.call("GET", monitor["ping_url"])[0] == 200

        database.kill()
        # Without a spool.
        status, headers, body = parts.call("GET", monitor["ping_url"])
        assert (status, body) == (503, b"database away, try again")
        assert int(headers["retry-after"]) > 0
        status, headers, body = parts.call("GET", f"{server.url}/api/v1/monitors", server.keys["API key"])
        assert status == 503
        assert json.loads(body)["code"] == "database_away"
        assert int(headers["retry-after"]) > 0
        assert parts.call("GET", f"{server.url}/healthz")[0] == 200
        status, _, body = parts.call("GET", f"{server.url}/readyz")
        assert status == 503
        assert json.loads(body)["database"] is False

        database.start()
        parts.wait_for("readiness", lambda: parts.call("GET", f"{server.url}/readyz")[0] == 200, 30)
        assert parts.wait_for("a ping", lambda: parts.call("GET", monitor["ping_url"])[0] == 200)
        assert server.api("GET", f"/monitors/{monitor['id']}")["ping_count"] == 2
        assert server.part.process.poll() is None
    finally:
        server.stop()


def test_pings_of_an_outage_are_kept_and_nobody_is_blamed_for_it(database: Postgres, tmp_path: Path) -> None:
    server = parts.Server(tmp_path, env={"DEADBEAT_DATABASE_URL": database.url})
    try:
        server.ready()
        monitors = [
            server.api(
                "POST",
                "/monitors",
                {"name": name, "schedule": {"kind": "interval", "seconds": 1}, "grace_seconds": 3},
            )
            for name in ("alive", "dead")
        ]
        alive, dead = monitors
        load = Load([alive["ping_url"]], 1)
        load.wait_for_more()
        assert parts.call("GET", dead["ping_url"])[0] == 200

        database.kill()
        killed = time.monotonic()
        load.wait_for_more()
        # An outage becomes a blind spell after two and a half seconds.
        parts.wait_for("a long outage", lambda: time.monotonic() - killed > 3)
        assert parts.call("GET", f"{server.url}/ping/{uuid.uuid4()}")[0] in (200, 404), (
            "nobody's, or on trust"
        )
        # The file outlives the process; the next one replays it.
        server.part.kill_only()
        database.start()
        server.again()
        load.wait_for_more()
        parts.wait_for(
            "the dead one's incident", lambda: server.api("GET", "/incidents?state=open")["incidents"], 20
        )
        load.end()
        server.drained()

        incidents = server.api("GET", "/incidents")["incidents"]
        assert [one["subject"]["id"] for one in incidents] == [dead["id"]]
        load.check(database.url, only={alive["id"]})
        spells = server.api("GET", "/blind-spells")["blind_spells"]
        assert spells, "the outage is told"
    finally:
        server.stop()


def test_a_server_that_starts_before_its_database_waits_for_it(database: Postgres, tmp_path: Path) -> None:
    database.kill()
    server = parts.Server(tmp_path, env={"DEADBEAT_DATABASE_URL": database.url})
    try:
        parts.wait_for("its word that it waits", lambda: "the database is away" in server.part.text())
        database.start()
        server.ready()
    finally:
        server.stop()
