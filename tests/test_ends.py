"""How runs end beside another vendor: real Beat, worker, ddtrace and server."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import parts

PROJECT = parts.ROOT / "sdk-python" / "tests" / "project"

# Entry of tests/project/beside.py → the status of its monitor after its runs.
STATUSES = {
    "good": "up",
    "flaky": "up",
    "hopeless": "down",
    "auto": "down",
    "replaced": "up",
    "replaced_badly": "down",
    "chained": "up",
    "chained_badly": "down",
}


def test_monitors_show_how_retries_replacements_and_chains_end(server: parts.Server, tmp_path: Path) -> None:
    with parts.redis(tmp_path) as broker:
        env = {
            "CELERY_BROKER_URL": broker,
            "DEADBEAT_URL": server.url,
            "DEADBEAT_KEY": server.keys["ping key"],
            "DEADBEAT_BEAT_PERIOD_SECONDS": "1",
            "BESIDE": "ddtrace",
            "FIRST": "other",
            "DD_TRACE_AGENT_URL": "http://127.0.0.1:1",
            "DD_INSTRUMENTATION_TELEMETRY_ENABLED": "false",
            "DD_REMOTE_CONFIGURATION_ENABLED": "false",
            "DD_CRASHTRACKING_ENABLED": "false",
        }

        def celery(name: str, *arguments: str) -> parts.Part:
            command = [parts.program("celery"), "-A", "beside", *arguments]
            return parts.Part(name, command, tmp_path, env, cwd=PROJECT)

        running = [
            celery("worker", "worker", "--concurrency", "2"),
            celery("beat", "beat", "--schedule", str(tmp_path / "schedule"), "--pidfile", ""),
        ]
        try:

            def statuses() -> dict[str, Any]:
                monitors = server.api("GET", "/monitors")["monitors"]
                return {m["name"]: m["status"] for m in monitors if m["name"] in STATUSES}

            parts.wait_for("monitors that show how runs end", lambda: statuses() == STATUSES, 60)
        finally:
            for part in running:
                part.stop()
