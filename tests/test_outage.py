"""The database is away: pings are kept and acknowledged, readiness is red, all recovers without a restart."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

import parts
from test_crash import Pinger, wait_for_pings


class Postgres:
    """A PostgreSQL on a loopback port that can be stopped and started."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "cluster"
        self.port = parts.free_port()
        self.bin = self._bin()
        self.as_owner: list[str] = []
        self.folder.mkdir()
        if os.geteuid() == 0:
            # PostgreSQL refuses to run as root, and its owner must be able to get here.
            shutil.chown(self.folder, "postgres")
            self.as_owner = ["setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups"]
            for parent in [folder, *folder.parents]:
                if parent == Path("/tmp"):
                    break
                parent.chmod(0o711)
        self._run("initdb", "-D", str(self.folder), "-U", "postgres", "--auth=trust", "--no-sync")
        self.part: parts.Part | None = None
        self.start()

    @staticmethod
    def _bin() -> Path:
        for root in (parts.ROOT / ".tools", Path("/")):
            for found in sorted(root.glob("usr/lib/postgresql/*/bin"), reverse=True):
                return found
        raise AssertionError("no PostgreSQL programs: scripts/install test brings them")

    def _run(self, name: str, *arguments: str) -> None:
        done = subprocess.run(
            [*self.as_owner, str(self.bin / name), *arguments], cwd="/", capture_output=True, check=False
        )
        assert done.returncode == 0, done.stderr.decode()

    def start(self) -> None:
        command = [
            *self.as_owner, str(self.bin / "postgres"), "-D", str(self.folder), "-p", str(self.port),
            "-h", "127.0.0.1", "-c", "unix_socket_directories=", "-c", "fsync=off",
        ]  # fmt: skip
        self.part = parts.Part("postgres", command, self.folder.parent, cwd=Path("/"))
        pid = self.folder / "postmaster.pid"
        parts.wait_for(
            "PostgreSQL", lambda: pid.exists() and pid.read_text().splitlines()[7:8] == ["ready   "], 60
        )

    def kill(self) -> None:
        assert self.part is not None
        self.part.kill()

    @property
    def url(self) -> str:
        return f"postgres://postgres@127.0.0.1:{self.port}/postgres"


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Postgres]:
    started = Postgres(tmp_path)
    yield started
    started.kill()


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
        pinger = Pinger(alive["ping_url"])
        pinger.start()
        wait_for_pings([pinger])
        assert parts.call("GET", dead["ping_url"])[0] == 200

        database.kill()
        killed = time.monotonic()
        wait_for_pings([pinger])
        # An outage is one after two and a half seconds.
        parts.wait_for("a long outage", lambda: time.monotonic() - killed > 3)
        assert parts.call("GET", f"{server.url}/ping/{uuid.uuid4()}")[0] in (200, 404), (
            "nobody's, or on trust"
        )
        # The file outlives the process; it is replayed by the next one.
        server.part.kill_only()
        database.start()
        server.again()
        wait_for_pings([pinger])
        parts.wait_for(
            "the dead one's incident", lambda: server.api("GET", "/incidents?state=open")["incidents"], 20
        )
        pinger.ending.set()
        pinger.join(30)
        server.drained()

        incidents = server.api("GET", "/incidents")["incidents"]
        assert [one["subject"]["id"] for one in incidents] == [dead["id"]]
        pings = server.every(f"/monitors/{alive['id']}/pings", "pings")
        numbers = [ping["n"] for ping in pings]
        assert pinger.acknowledged <= len(numbers) <= pinger.sent
        assert numbers == list(range(len(numbers), 0, -1))
        arrivals = [ping["received_at"] for ping in pings]
        assert arrivals == sorted(arrivals, reverse=True), "each keeps its place and its time"
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
