"""A full disk, the spool's or PostgreSQL's: "try again" or the spool, no crash, nothing lost."""

from __future__ import annotations

import contextlib
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import parts
from conftest import Size
from load import Load
from postgres import Postgres


class Disk:
    """A small disk for the test."""

    def __init__(self, folder: Path, megabytes: int) -> None:
        self.folder = folder
        self.ballast = folder / "ballast"
        folder.mkdir()
        mounted = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", f"size={megabytes}m,mode=0711", "deadbeat-test", str(folder)],
            capture_output=True,
            text=True,
            check=False,
        )
        if mounted.returncode != 0:
            folder.rmdir()
            pytest.skip(f"a small disk needs the right to mount: {mounted.stderr.strip()}")

    def fill(self) -> None:
        """Fill the disk to the last byte, as another program might."""
        for chunk in (1 << 20, 1 << 12):
            with contextlib.suppress(OSError), self.ballast.open("ab", buffering=0) as file:
                while file.write(b"\0" * chunk) == chunk:
                    pass

    def free(self) -> None:
        self.ballast.unlink()

    def unmount(self) -> None:
        subprocess.run(["umount", "--lazy", str(self.folder)], check=True)


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Callable[[int], Disk]]:
    made: list[Disk] = []

    def make(megabytes: int) -> Disk:
        made.append(Disk(tmp_path / f"disk-{len(made)}", megabytes))
        return made[-1]

    yield make
    for one in made:
        one.unmount()


def assert_polite(load: Load) -> None:
    """Each refused client got "try again"."""
    assert set(load.refusals()) <= {(503, "database away, try again")}


@pytest.mark.proof("the spool's disk is full, and first comes back the")
@pytest.mark.parametrize("first", ["space", "database"])
def test_a_full_disk_of_the_spool_is_said_and_recovered_from(
    database: Postgres, disk: Callable[[int], Disk], tmp_path: Path, first: str, size: Size
) -> None:
    small = disk(8)
    env = {"DEADBEAT_DATABASE_URL": database.url}
    server = parts.Server(tmp_path, env=env, data=small.folder / "data")
    try:
        server.ready()
        schedule = {"kind": "interval", "seconds": 3600}
        monitors = [
            server.api("POST", "/monitors", {"name": f"job {n}", "schedule": schedule}) for n in range(3)
        ]
        with Load([m["ping_url"] for m in monitors], size.connections, body=20_000, pause=0.01) as load:
            load.wait_for_more(2)
            database.kill()
            load.wait_for_more(3)
            small.fill()
            # The free pages inside the spool's file are used up first.
            parts.wait_for("refusals", lambda: sum(load.refusals().values()) > 20, 60)
            assert parts.call("GET", f"{server.url}/healthz")[0] == 200
            assert "No space left on device" in server.part.text()
            assert_polite(load)
            if first == "space":
                small.free()
                load.wait_for_more(5)
                database.start()
            else:
                database.start()
                # The disk is still full.
                server.drained()
                load.wait_for_more(5)
                small.free()
            load.wait_for_more(5)
            load.end()
        server.drained()
        assert server.part.process.poll() is None
        assert_polite(load)
        load.check(database.url)
    finally:
        server.stop()


@pytest.mark.proof("PostgreSQL's disk is full")
def test_a_full_disk_of_postgres_loses_nothing(
    disk: Callable[[int], Disk], tmp_path: Path, size: Size
) -> None:
    small = disk(96)
    database = Postgres(tmp_path, cluster=small.folder / "cluster")
    server = None
    try:
        database.start()
        server = parts.Server(tmp_path, env={"DEADBEAT_DATABASE_URL": database.url}).ready()
        schedule = {"kind": "interval", "seconds": 3600}
        monitors = [
            server.api("POST", "/monitors", {"name": f"job {n}", "schedule": schedule}) for n in range(3)
        ]
        with Load([m["ping_url"] for m in monitors], size.connections, body=20_000, pause=0.01) as load:
            load.wait_for_more(5)
            small.fill()
            parts.wait_for("spooled pings", lambda: server.metric("deadbeat_spool_pings"), 60)
            load.wait_for_more(20)
            assert parts.call("GET", f"{server.url}/healthz")[0] == 200
            assert database.part is not None
            assert "No space left on device" in database.part.text()

            small.free()
            # PostgreSQL stops for good when it cannot write its log; its operator must start it again.
            parts.wait_for(
                "the database", lambda: database.has_ended() or server.metric("deadbeat_database_up")
            )
            if database.has_ended():
                database.start()
            load.wait_for_more(5)
            load.end()
        server.drained()
        assert server.part.process.poll() is None
        assert_polite(load)
        load.check(database.url)
    finally:
        if server is not None:
            server.stop()
        database.kill()
