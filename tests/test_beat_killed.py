"""The main promise, end to end, with real Redis, worker, Beat and Deadbeat: Beat is killed; one alert."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import parts

# Short, so that the test is; the product's defaults are 15 and 60 seconds.
PERIOD = 1.0
GRACE = 3.0


# The example's entries, and the canary. Celery may add its own entry, the nightly clean-up.
NAMES = {"send-greetings", "count-stock", "deadbeat.canary"}


def by_name(server: parts.Server) -> dict[str, dict[str, Any]]:
    return {monitor["name"]: monitor for monitor in server.api("GET", "/monitors")["monitors"]}


def celery(name: str, arguments: list[str], folder: Path, env: dict[str, str]) -> parts.Part:
    command = [parts.program("celery"), "-A", "proj", *arguments]
    return parts.Part(name, command, folder, env, cwd=parts.ROOT / "examples" / "celery")


def test_a_silent_beat_pages_once_and_its_return_resolves(
    server: parts.Server, sink: parts.Sink, tmp_path: Path
) -> None:
    server.api("POST", "/channels", {"kind": "webhook", "name": "sink", "settings": {"url": sink.url}})
    with parts.redis(tmp_path) as broker:
        env = {
            "CELERY_BROKER_URL": broker,
            "DEADBEAT_URL": server.url,
            "DEADBEAT_KEY": server.keys["ping key"],
            "DEMO_SECONDS": "2",
            "DEADBEAT_GRACE_SECONDS": "3",
            "DEADBEAT_CANARY_SECONDS": "2",
            "DEADBEAT_CANARY_GRACE_SECONDS": "3",
            "DEADBEAT_BEAT_PERIOD_SECONDS": str(PERIOD),
            "DEADBEAT_BEAT_GRACE_SECONDS": str(GRACE),
        }
        schedule = ["--schedule", str(tmp_path / "celerybeat-schedule")]
        running = [
            celery(
                "worker",
                ["worker", "--pool", "prefork", "--concurrency", "2", "--loglevel", "info"],
                tmp_path,
                env,
            )
        ]
        beat = celery("beat", ["beat", *schedule], tmp_path, env)
        running.append(beat)
        try:
            # Two tasks and the canary, each with runs that prefork children have reported.
            def all_report() -> bool:
                monitors = by_name(server)
                return set(monitors) >= NAMES and all(
                    monitors[name]["status"] in ("up", "late") and monitors[name]["ping_count"] >= 6
                    for name in NAMES
                )

            parts.wait_for("three monitors that report", all_report, 60)
            monitors = by_name(server)
            assert monitors["send-greetings"]["schedule"] == {"kind": "interval", "seconds": 2}
            assert [beat["status"] for beat in server.api("GET", "/beats")["beats"]] == ["up"]
            # count-stock retries in each run: a stage of it, no failure.
            runs = server.every(f"/monitors/{monitors['count-stock']['id']}/runs", "runs")
            assert {run["status"] for run in runs} <= {"open", "success"}, runs
            assert any(run["status"] == "success" and run["retries"] == 1 for run in runs), runs
            assert all(run["worker"].startswith("celery@") for run in runs)
            assert server.api("GET", "/incidents")["incidents"] == []
            assert sink.received == []

            killed_at = time.time()
            beat.kill()
            alert = parts.wait_for("the alert", lambda: sink.alerts("incident.opened"), PERIOD + GRACE + 10)[
                0
            ]
            # Beat sent its last heartbeat at most PERIOD before its death.
            assert alert["at"] - killed_at <= PERIOD + GRACE + 5
            incident = alert["json"]["incident"]
            assert incident["cause"]["code"] == "BEAT_DOWN"
            assert incident["subject"]["kind"] == "beat"
            assert incident["subject"]["name"] == "proj"
            assert any("celery -A proj beat" in (step["command"] or "") for step in incident["repair"])

            # The tasks that Beat no longer sends are members of that incident, and send no alert.
            def all_joined() -> bool:
                members = server.api("GET", "/incidents")["incidents"][0]["members"]
                return {member["name"] for member in members} == NAMES

            parts.wait_for("the members", all_joined, 30)
            assert len(server.api("GET", "/incidents")["incidents"]) == 1
            assert len(sink.received) == 1

            running.append(celery("beat", ["beat", *schedule], tmp_path, env))
            parts.wait_for("the end", lambda: sink.alerts("incident.resolved"), 30)
            parts.wait_for(
                "everything up",
                lambda: all(by_name(server)[name]["status"] == "up" for name in NAMES),
                30,
            )
            incidents = server.api("GET", "/incidents")["incidents"]
            assert len(incidents) == 1
            assert incidents[0]["resolved_at"] is not None
            assert [one["json"]["type"] for one in sink.received] == ["incident.opened", "incident.resolved"]
        except AssertionError:
            print(server.api("GET", "/monitors"), server.api("GET", "/incidents"))
            for part in [*running, server.part]:
                print(f"---- {part.name}\n{part.text()[-6000:]}")
            raise
        finally:
            for part in reversed(running):
                part.stop()
