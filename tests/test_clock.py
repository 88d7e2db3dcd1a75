"""The clock is stepped by an hour, forward and back: no storm of alerts, and new silence is found."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest

import parts
from conftest import Size
from load import Load
from postgres import Postgres

HOUR = 3_600


@pytest.mark.proof("the clock is stepped by an hour, on and back")
def test_a_stepped_clock_makes_no_storm(database: Postgres, tmp_path: Path, size: Size) -> None:
    clock = parts.Clock(tmp_path)
    server = parts.Server(tmp_path, env={"DEADBEAT_DATABASE_URL": database.url, **clock.env})
    try:
        server.ready()
        monitors = {
            name: server.api(
                "POST",
                "/monitors",
                {"name": name, "schedule": {"kind": "interval", "seconds": 1}, "grace_seconds": 1},
            )
            for name in ["stops", "alive 1", "alive 2", "alive 3"]
        }
        with Load([m["ping_url"] for m in monitors.values()], 4, pause=0.05) as load:
            load.wait_for_more(20)
            # Forward, back to the right time, and further back.
            for step in [HOUR, 0, -HOUR]:
                clock.step(step)
                until = time.monotonic() + size.step_seconds
                # Longer than period and grace, so that every false alert would have come.
                parts.wait_for("a while", lambda until=until: time.monotonic() > until, size.step_seconds + 5)
                load.wait_for_more(20)
                swept = json.loads(parts.call("GET", f"{server.url}/readyz")[2])["last_sweep_at"]
                assert abs(parts.instant(swept) - time.time() - step) < 60, (
                    "the server lives by the stepped clock"
                )
            assert server.api("GET", "/incidents")["incidents"] == []
            load.end()

        with Load([m["ping_url"] for name, m in monitors.items() if name != "stops"], 3, pause=0.05) as load:
            parts.wait_for("its incident", lambda: server.api("GET", "/incidents")["incidents"], 30)
            load.wait_for_more(20)
            load.end()
        incidents = server.api("GET", "/incidents")["incidents"]
        assert [one["subject"]["name"] for one in incidents] == ["stops"]
        assert not load.refusals()
    finally:
        server.stop()
