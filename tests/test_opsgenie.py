"""Opsgenie's own SDK for Python, unchanged: only its host names Deadbeat."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import parts

SCRIPT = """
import json
import os

import opsgenie_sdk
from opsgenie_sdk.exceptions import AuthenticationException


def api(key):
    configuration = opsgenie_sdk.configuration.Configuration()
    configuration.host = os.environ["DEADBEAT_URL"]
    # A new dictionary: copies of a configuration share theirs.
    configuration.api_key = {"Authorization": key}
    return opsgenie_sdk.HeartbeatApi(opsgenie_sdk.ApiClient(configuration=configuration))


managing, pinging, wrong = (api(key) for key in json.loads(os.environ["KEYS"]))
told = {}
payload = opsgenie_sdk.CreateHeartbeatPayload(
    name="Nightly Backup", interval=2, interval_unit="hours", enabled=True
)
made = managing.create_heartbeat(payload).data
told["made"] = [made.name, made.interval, made.interval_unit, made.enabled, made.expired]
told["pong"] = pinging.ping("Nightly Backup").result
told["pinged_at"] = managing.get_heartbeat("Nightly Backup").data.last_ping_time.isoformat()
payload = opsgenie_sdk.UpdateHeartbeatPayload(interval=90, interval_unit="minutes")
managing.update_heartbeat("Nightly Backup", update_heartbeat_payload=payload)
changed = managing.get_heartbeat("Nightly Backup").data
told["changed"] = [changed.interval, changed.interval_unit]
told["disabled"] = managing.disable_heartbeat("Nightly Backup").data.enabled
told["enabled"] = managing.enable_heartbeat("Nightly Backup").data.enabled
told["listed"] = [one.name for one in managing.list_heart_beats().data.heartbeats]
try:
    wrong.ping("Nightly Backup")
except AuthenticationException as refused:
    told["wrong"] = refused.status
told["deleted"] = managing.delete_heartbeat("Nightly Backup").result
print(json.dumps(told))
"""


def test_opsgenies_sdk_makes_pings_changes_and_deletes_a_heartbeat(
    server: parts.Server, tmp_path: Path
) -> None:
    pytest.importorskip("opsgenie_sdk")
    keys = [server.keys["API key"], server.keys["ping key"], server.keys["ping key"] + "x"]
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT],
        cwd=tmp_path,
        env={**os.environ, "DEADBEAT_URL": server.url, "KEYS": json.dumps(keys)},
        check=False,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    alerted = json.loads(done.stdout)

    assert alerted.pop("pinged_at")
    assert alerted == {
        "made": ["Nightly Backup", 2, "hours", True, False],
        "pong": "PONG - Heartbeat received",
        "changed": [90, "minutes"],
        "disabled": False,
        "enabled": True,
        "listed": ["Nightly Backup"],
        "wrong": 401,
        "deleted": "Deleted",
    }
    assert server.every("/monitors", "monitors") == []
