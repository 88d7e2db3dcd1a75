"""Sentry's own SDK, unchanged, in a real Beat, worker and script: only its DSN names Deadbeat."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import parts

APP = """
import datetime
import os

import sentry_sdk
from celery import Celery
from celery.schedules import crontab
from sentry_sdk.integrations.celery import CeleryIntegration

# Every entry was last sent long ago, so Beat sends it at once.
LONG_AGO = datetime.datetime(2020, 1, 1, tzinfo=datetime.timezone.utc)

app = Celery("shop", broker=os.environ["CELERY_BROKER_URL"])
app.conf.timezone = "Europe/Paris"
app.conf.beat_schedule = {
    "good": {"task": "shop.good", "schedule": crontab(minute=[0, 30], hour=4), "last_run_at": LONG_AGO},
    "every.ten minutes": {"task": "shop.good", "schedule": 600.0, "last_run_at": LONG_AGO},
    "bad": {"task": "shop.bad", "schedule": 3600.0, "last_run_at": LONG_AGO},
    "flaky": {"task": "shop.flaky", "schedule": 86400.0, "last_run_at": LONG_AGO},
    # Sentry's SDK sends nothing for an interval under a minute.
    "fast": {"task": "shop.good", "schedule": 5.0, "last_run_at": LONG_AGO},
}


def init(**options):
    sentry_sdk.init(
        environment=os.environ.get("SHOP_ENVIRONMENT"),
        release="shop@1.2.3",
        integrations=[CeleryIntegration(monitor_beat_tasks=True)],
        # Also errors and traces go to the DSN.
        traces_sample_rate=1.0,
        _experiments={"transport_compression_algo": os.environ.get("SHOP_COMPRESSION", "gzip")},
        **options,
    )


init()


@app.task(name="shop.good", ignore_result=True)
def good():
    pass


@app.task(name="shop.bad", ignore_result=True)
def bad():
    raise ValueError("bad")


@app.task(name="shop.flaky", bind=True, ignore_result=True)
def flaky(self):
    if self.request.retries == 0:
        raise self.retry(countdown=0)
"""

SCRIPT = """
import asyncio

import sentry_sdk

import shop

CONFIG = {
    "schedule": {"type": "interval", "value": 2, "unit": "hour"},
    "timezone": "UTC",
    "checkin_margin": 5,
    "max_runtime": 10,
    "failure_issue_threshold": 2,
    "recovery_threshold": 1,
}


@sentry_sdk.monitor(monitor_slug="decorated", monitor_config=CONFIG)
def decorated():
    return 7


@sentry_sdk.monitor(monitor_slug="decorated-async", monitor_config=CONFIG)
async def decorated_async():
    await asyncio.sleep(0)
    return 8


@sentry_sdk.monitor(monitor_slug="broken", monitor_config=CONFIG)
def broken():
    raise ValueError("broken")


assert decorated() == 7
assert asyncio.run(decorated_async()) == 8
try:
    broken()
except ValueError as error:
    sentry_sdk.capture_exception(error)
sentry_sdk.flush(10)
print("done")
"""


@pytest.fixture
def env(server: parts.Server, tmp_path: Path) -> Iterator[dict[str, str]]:
    issued = server.api("POST", "/api-keys", {"name": "sentry", "scope": "ping"})
    (tmp_path / "shop.py").write_text(APP)
    with parts.redis(tmp_path) as broker:
        yield {"CELERY_BROKER_URL": broker, "SENTRY_DSN": issued["sentry_dsn"]}


def monitors(server: parts.Server) -> dict[str, dict[str, Any]]:
    return {one["name"]: one for one in server.every("/monitors", "monitors")}


def test_beats_entries_and_their_runs_come_from_the_dsn_alone(
    server: parts.Server, env: dict[str, str], tmp_path: Path
) -> None:
    celery = [parts.program("celery"), "-A", "shop"]
    options = ["--concurrency", "1", "--loglevel", "info"]
    beat_options = ["--schedule", str(tmp_path / "celerybeat-schedule"), "--loglevel", "debug"]
    running = [parts.Part("worker", [*celery, "worker", *options], tmp_path, env)]
    try:
        running.append(parts.Part("beat", [*celery, "beat", *beat_options], tmp_path, env))

        def statuses() -> dict[str, str]:
            return {name: one["status"] for name, one in monitors(server).items() if not one["running"]}

        wanted = {"good": "up", "every.ten minutes": "up", "bad": "down", "flaky": "up"}
        try:
            parts.wait_for("the end of each run", lambda: statuses() == wanted, 60)
        except AssertionError as error:
            raise AssertionError("\n".join([str(error), *(part.text() for part in running)])) from error
    finally:
        for part in running:
            part.stop()

    found = monitors(server)
    # Celery's crontab needs both a matching day of the month and a matching weekday. Cron needs one of them.
    good = found["good"]["schedule"]
    assert (good["kind"], good["minute"], good["hour"]) == ("celery", "0,30", "4"), good
    assert good["timezone"] == "Europe/Paris"
    assert found["every.ten minutes"]["schedule"] == {"kind": "interval", "seconds": 600}
    assert found["bad"]["schedule"] == {"kind": "interval", "seconds": 3600}
    assert all(one["tags"] == ["sentry"] for one in found.values())
    # Sent by Beat, and begun and ended by the worker: one run with an id of its own.
    [run] = server.every(f"/monitors/{found['good']['id']}/runs", "runs")
    assert (run["status"], run["run_id"] is not None) == ("success", True)
    # The retry counts: its error was no end.
    flaky = server.every(f"/monitors/{found['flaky']['id']}/runs", "runs")
    assert {one["run_id"] for one in flaky} == {flaky[0]["run_id"]}
    assert flaky[0]["status"] == "success"
    open_incidents = [one for one in server.every("/incidents", "incidents") if one["resolved_at"] is None]
    assert [one["subject"]["name"] for one in open_incidents] == ["bad"]


@pytest.mark.parametrize("compression", ["gzip", "br"])
def test_the_decorator_reports_sync_and_async_functions_and_failures(
    server: parts.Server, env: dict[str, str], tmp_path: Path, compression: str
) -> None:
    if compression == "br":
        pytest.importorskip("brotli")
    (tmp_path / "script.py").write_text(SCRIPT)
    done = subprocess.run(
        [sys.executable, "script.py"],
        cwd=tmp_path,
        env={**os.environ, **env, "SHOP_COMPRESSION": compression, "SHOP_ENVIRONMENT": "staging"},
        check=False,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.stdout == "done\n", done.stderr

    found = monitors(server)
    assert {name: one["status"] for name, one in found.items()} == {
        "decorated (staging)": "up",
        "decorated-async (staging)": "up",
        "broken (staging)": "down",
    }
    for one in found.values():
        assert one["tags"] == ["sentry", "staging"]
        assert one["schedule"] == {"kind": "interval", "seconds": 7200}
        assert (one["grace_seconds"], one["longest_run_seconds"]) == (300, 600)
        assert (one["failure_threshold"], one["recovery_threshold"]) == (2, 1)
        assert one["last_duration_seconds"] is not None
