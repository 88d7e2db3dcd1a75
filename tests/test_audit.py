"""`deadbeat audit` beside a real server: what only the server can know stands in the report of a terminal."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import parts

APP = """
import os

import deadbeat
from celery import Celery

app = Celery("shop", broker=os.environ["CELERY_BROKER_URL"])
deadbeat.init(app)
"""


def audit(folder: Path, env: dict[str, str]) -> tuple[int, dict[str, Any]]:
    done = subprocess.run(
        [sys.executable, "-m", "deadbeat", "audit", "-A", "shop", "--json", "--no-config"],
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

        def worker(name: str) -> parts.Part:
            options = ["-n", f"{name}@shop", "--pool", "threads", "--concurrency", "1"]
            command = [parts.program("celery"), "-A", "shop", "worker", *options]
            return parts.Part(name, command, tmp_path, env)

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

            two.kill()
            parts.wait_for("the incident", lambda: server.api("GET", "/incidents")["incidents"], 60)
            status, report = audit(tmp_path, env)
            (lost,) = report["findings"]
            assert (status, lost["code"], lost["severity"]) == (2, "WORKER_LOST", "critical")
            assert lost["subject"] == {"kind": "worker", "name": "two@shop"}
            assert any(
                step["command"] == "celery -A shop worker -n two@shop -Q celery" for step in lost["repair"]
            )

            # A key that only signals may not ask: that is said, and the broker is looked at all the same.
            status, report = audit(tmp_path, {**env, "DEADBEAT_READ_KEY": "dbr_0000000000000000000000000000"})
            assert (status, report["findings"]) == (0, [])
            assert "does not know the key" in report["unknown"][0]["why"]
        finally:
            one.stop()
            two.kill()
