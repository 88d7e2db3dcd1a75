"""A real Prometheus Alertmanager: one incident is one alert there, until Deadbeat says that it is over."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

import parts

# Alertmanager resolves an alert without an end after a second, and notifies at once.
CONFIG = """
global: {resolve_timeout: 1s}
route: {receiver: sink, group_by: [id], group_wait: 0s, group_interval: 1s}
receivers:
  - name: sink
    webhook_configs: [{url: %s, send_resolved: true}]
"""


class Hooks(parts.Sink):
    """The notifications that Alertmanager sends to its receiver."""

    def alerted(self, name: str, status: str) -> list[dict[str, Any]]:
        alerts = [alert for one in list(self.received) for alert in one["json"]["alerts"]]
        return [one for one in alerts if one["labels"]["alertname"] == name and one["status"] == status]


class Alertmanager:
    """An Alertmanager of the test, alone in its cluster."""

    def __init__(self, folder: Path, hook: str) -> None:
        self.url = f"http://127.0.0.1:{parts.free_port()}"
        config = folder / "alertmanager.yml"
        config.write_text(CONFIG % hook)
        command = [
            parts.program("prometheus-alertmanager"),
            f"--config.file={config}",
            f"--storage.path={folder / 'alertmanager'}",
            f"--web.listen-address={self.url.removeprefix('http://')}",
            "--cluster.listen-address=",
        ]
        self.part = parts.Part("alertmanager", command, folder)
        parts.wait_for("Alertmanager", self._answers)

    def _answers(self) -> bool:
        if self.part.process.poll() is not None:
            text = self.part.text()
            if "/usr/share/prometheus/alertmanager/default.tmpl" in text:
                pytest.skip(
                    "Debian's Alertmanager runs only where it is installed: its templates have a fixed path"
                )
            raise AssertionError(f"Alertmanager ended:\n{text}")
        return parts.call("GET", f"{self.url}/-/ready")[0] == 200

    def active(self, name: str) -> list[dict[str, Any]]:
        status, _, answer = parts.call("GET", f"{self.url}/api/v2/alerts?active=true")
        assert status == 200, answer
        alerts: list[dict[str, Any]] = json.loads(answer)
        return [alert for alert in alerts if alert["labels"]["alertname"] == name]


@pytest.fixture
def hooks() -> Iterator[Hooks]:
    started = Hooks()
    yield started
    started.stop()


@pytest.fixture
def alertmanager(tmp_path: Path, hooks: Hooks) -> Iterator[Alertmanager]:
    started = Alertmanager(tmp_path, hooks.url)
    yield started
    started.part.stop()


def test_an_incident_is_one_alert_until_it_is_resolved(
    server: parts.Server, alertmanager: Alertmanager, hooks: Hooks
) -> None:
    settings = {"url": alertmanager.url}
    channel = server.api("POST", "/channels", {"kind": "alertmanager", "name": "am", "settings": settings})
    ping = f"{server.url}/ping/{server.keys['ping key']}/nightly"
    assert parts.call("GET", f"{ping}?create=1&period=3600")[0] == 201

    parts.call("POST", f"{ping}/fail")
    [alert] = parts.wait_for("the alert", lambda: alertmanager.active("DeadbeatIncident"))
    [incident] = server.every("/incidents", "incidents")
    assert alert["labels"] == {
        "alertname": "DeadbeatIncident",
        "source": "deadbeat",
        "severity": "critical",
        "id": incident["id"],
        "cause": incident["cause"]["code"],
        "subject_kind": "monitor",
        "subject": "nightly",
        "project": alert["labels"]["project"],
    }
    assert alert["generatorURL"].startswith(server.url)
    # No second request keeps the alert open: its end time does.
    assert datetime.fromisoformat(alert["endsAt"]) > datetime.now(UTC) + timedelta(days=300)
    parts.wait_for("the notification", lambda: hooks.alerted("DeadbeatIncident", "firing"))

    # The name is a label. Alertmanager must find the alert by its labels all the same.
    monitor = incident["subject"]["id"]
    server.api("PATCH", f"/monitors/{monitor}", {"name": "renamed"})
    parts.call("POST", ping)
    [resolved] = parts.wait_for("the end", lambda: hooks.alerted("DeadbeatIncident", "resolved"))
    assert resolved["labels"] == alert["labels"]
    assert alertmanager.active("DeadbeatIncident") == []

    server.api("POST", f"/channels/{channel['id']}/test", {})
    [test] = parts.wait_for("the test", lambda: hooks.alerted("DeadbeatTest", "firing"))
    assert test["labels"]["severity"] == "info"
    deliveries = server.every("/deliveries", "deliveries")
    assert {one["status"] for one in deliveries} == {"sent"}


def test_the_alert_that_always_fires_is_a_heartbeat(server: parts.Server, tmp_path: Path) -> None:
    schedule = {"kind": "interval", "seconds": 60}
    monitor = server.api("POST", "/monitors", {"name": "Prometheus", "schedule": schedule})
    token = monitor["ping_url"].rsplit("/", 1)[1]
    started = Alertmanager(tmp_path, f"{server.url}/push/{token}")
    try:
        watchdog = {"labels": {"alertname": "Watchdog", "id": "w"}}
        body = [{**watchdog, "endsAt": (datetime.now(UTC) + timedelta(hours=1)).isoformat()}]
        assert parts.call("POST", f"{started.url}/api/v2/alerts", body=body)[0] == 200
        path = f"/monitors/{monitor['id']}"
        parts.wait_for("the sign of life", lambda: server.api("GET", path)["status"] == "up")

        # Prometheus says that the rule no longer fires.
        body = [{**watchdog, "endsAt": datetime.now(UTC).isoformat()}]
        assert parts.call("POST", f"{started.url}/api/v2/alerts", body=body)[0] == 200
        parts.wait_for("the end", lambda: server.api("GET", path)["status"] == "down")
    finally:
        started.part.stop()
