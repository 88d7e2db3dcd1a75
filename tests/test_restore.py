"""A backup is restored by the commands of docs/operations.md, and yesterday's causes no storm of alerts."""

from __future__ import annotations

import json
import os
import re
import subprocess
from pathlib import Path

import parts
from postgres import Postgres, programs, rows
from test_command_line import deadbeat

BLOCK = re.compile(r"<!-- tested: (?P<what>dump|restore) -->\n```sh\n(?P<script>.*?)```", re.DOTALL)
WRITTEN = "postgres://deadbeat@localhost/deadbeat?host=/var/lib/deadbeat/postgres"
DAY = 86_400


def run(what: str, url: str, folder: Path) -> None:
    """The commands of the page, with another address."""
    text = (parts.ROOT / "docs" / "operations.md").read_text()
    [script] = [found["script"] for found in BLOCK.finditer(text) if found["what"] == what]
    assert WRITTEN in script
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", script.replace(WRITTEN, url)],
        cwd=folder,
        env={**os.environ, "PATH": f"{programs()}:{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, f"{script}\n{done.stdout}\n{done.stderr}"


def contents(url: str) -> dict[str, list[list[str]]]:
    """The content of the tables that a restore must bring back."""
    tables = ("account", "project", "api_key", "monitor", "ping", "channel", "_sqlx_migrations")
    return {table: rows(url, f"SELECT * FROM {table} ORDER BY 1, 2") for table in tables}


def test_a_backup_is_restored_over_a_database_as_often_as_wanted(database: Postgres, tmp_path: Path) -> None:
    server = parts.Server(tmp_path, env={"DEADBEAT_DATABASE_URL": database.url})
    try:
        server.ready()
        monitor = server.api(
            "POST", "/monitors", {"name": "job", "schedule": {"kind": "interval", "seconds": 3600}}
        )
        assert parts.call("POST", monitor["ping_url"], body={"a": 1})[0] == 200
    finally:
        server.stop()
    before = contents(database.url)
    assert before["ping"]

    # A restored database can be backed up and restored again.
    for _ in range(2):
        run("dump", database.url, tmp_path)
        rows(database.url, "DELETE FROM monitor")
        run("restore", database.url, tmp_path)

        assert contents(database.url) == before
    try:
        server.again()
        assert parts.call("GET", monitor["ping_url"])[0] == 200
        assert server.api("GET", f"/monitors/{monitor['id']}")["ping_count"] == 2
    finally:
        server.stop()


def test_a_backup_of_yesterday_makes_no_storm(database: Postgres, sink: parts.Sink, tmp_path: Path) -> None:
    clock = parts.Clock(tmp_path, -DAY - 60)
    env = {"DEADBEAT_DATABASE_URL": database.url}
    server = parts.Server(tmp_path, env={**env, **clock.env})
    try:
        server.ready()
        made = deadbeat("project", "create", "--name", "other", "--json", env={**env, **clock.env})
        server.api("POST", "/channels", {"name": "hook", "kind": "webhook", "settings": {"url": sink.url}})
        names = []
        for seconds in (300, 3_600, 86_400):
            for number in range(5):
                schedule = {"kind": "interval", "seconds": seconds}
                names.append(f"{seconds} {number}")
                monitor = server.api(
                    "POST", "/monitors", {"name": names[-1], "schedule": schedule, "grace_seconds": 2}
                )
                assert parts.call("GET", monitor["ping_url"])[0] == 200
        # A delivery waits in the outbox, because its channel cannot be reached.
        gone = server.api(
            "POST",
            "/channels",
            {
                "name": "gone",
                "kind": "webhook",
                "settings": {"url": f"http://127.0.0.1:{parts.free_port()}/"},
            },
        )
        server.api("POST", f"/channels/{gone['id']}/test", {})
        waits = "SELECT count(*) FROM delivery WHERE status = 'pending' AND attempt_count > 0"
        parts.wait_for("a delivery that waits", lambda: rows(database.url, waits) == [["1"]])
    finally:
        server.stop()
    assert made.returncode == 0, made.stderr
    run("dump", database.url, tmp_path)
    run("restore", database.url, tmp_path)

    keys = server.keys
    server = parts.Server(tmp_path, env=env, data=server.data, port=server.port)
    try:
        server.ready()
        server.keys = keys
        # A new monitor is judged as usual: when its silence is found, the others' grace has long passed.
        key = json.loads(made.stdout)["api_key"]
        status, _, body = parts.call(
            "POST",
            f"{server.url}/api/v1/monitors",
            key,
            {"name": "dead", "schedule": {"kind": "interval", "seconds": 4}, "grace_seconds": 4},
        )
        assert status == 201, body
        assert parts.call("GET", json.loads(body)["ping_url"])[0] == 200
        [notice] = parts.wait_for("the notice", lambda: sink.alerts("blind_spell.notice"))
        incidents = "SELECT subject_name FROM incident ORDER BY 1"
        parts.wait_for("the incident of the dead one", lambda: rows(database.url, incidents))

        assert rows(database.url, incidents) == [["dead"]]
        # The daily monitors were due in the spell as well, which is a minute longer.
        assert notice["json"]["monitors"] == len(names)
        assert "could not be judged" in notice["json"]["summary"]
        assert len(sink.received) == 1, [one["json"]["type"] for one in sink.received]
        cancelled = "SELECT count(*) FROM delivery WHERE status = 'cancelled'"
        parts.wait_for("the end of what waited", lambda: rows(database.url, cancelled) == [["1"]])
        for name, monitor in {one["name"]: one for one in server.api("GET", "/monitors")["monitors"]}.items():
            assert monitor["status"] != "down", name
    finally:
        server.stop()
