"""The connection to the database is cut under load: no ping is lost, no alert is false or missing."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

import parts
from conftest import Size
from load import Load
from postgres import Postgres
from proxy import Proxy


@pytest.mark.proof("the database is cut off, its line")
@pytest.mark.parametrize("how", ["refuses", "hangs"])
def test_a_cut_line_loses_no_ping_and_blames_nobody(
    database: Postgres, tmp_path: Path, how: str, size: Size
) -> None:
    proxy = Proxy(database.port)
    env = {
        "DEADBEAT_DATABASE_URL": f"postgres://postgres@127.0.0.1:{proxy.port}/postgres",
        "DEADBEAT_PINGS_PER_MONITOR": "1000000",
        "DEADBEAT_PINGS_PER_SECOND": "1000000",
    }
    server = parts.Server(tmp_path, env=env)
    try:
        server.ready()
        schedule = {"kind": "interval", "seconds": 1}
        monitors = {
            name: server.api("POST", "/monitors", {"name": name, "schedule": schedule, "grace_seconds": 2})
            for name in ["before", "within", "alive 1", "alive 2", "alive 3", "alive 4"]
        }
        alive = [monitor for name, monitor in monitors.items() if name.startswith("alive")]
        with Load([monitor["ping_url"] for monitor in alive], size.connections, pause=0.005) as load:
            load.wait_for_more(20)
            assert parts.call("POST", monitors["within"]["ping_url"])[0] == 200
            assert parts.call("POST", monitors["before"]["ping_url"])[0] == 200
            cut_at = time.monotonic()
            proxy.refuse() if how == "refuses" else proxy.hang()
            # The spool takes its last report.
            assert parts.call("POST", monitors["within"]["ping_url"], limit=30)[0] == 200
            load.wait_for_more(20)
            parts.wait_for(
                "the end of the cut",
                lambda: time.monotonic() - cut_at > size.cut_seconds,
                size.cut_seconds + 5,
            )
            assert parts.call("GET", f"{server.url}/healthz")[0] == 200
            assert server.metric("deadbeat_spool_pings")
            proxy.heal()

            def found() -> bool:
                if parts.call("GET", f"{server.url}/readyz")[0] != 200:
                    return False
                incidents = server.api("GET", "/incidents?state=open")["incidents"]
                return {one["subject"]["name"] for one in incidents} >= {"before", "within"}

            parts.wait_for("the incidents of the two that are dead", found, 60)
            load.wait_for_more(20)
            load.end()
        server.drained()

        incidents = server.api("GET", "/incidents")["incidents"]
        assert sorted(one["subject"]["name"] for one in incidents) == ["before", "within"]
        assert not load.refusals()
        load.check(database.url, only={monitor["id"] for monitor in alive})
        assert server.api("GET", f"/monitors/{monitors['within']['id']}")["ping_count"] == 2
        assert server.api("GET", "/blind-spells")["blind_spells"], "the cut is told"
    finally:
        server.stop()
        proxy.stop()
