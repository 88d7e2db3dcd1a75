"""A PostgreSQL of the tests, and a function that runs a statement on any."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import parts


def programs() -> Path:
    """The folder of PostgreSQL's programs."""
    for root in (parts.ROOT / ".tools", Path("/")):
        for found in sorted(root.glob("usr/lib/postgresql/*/bin"), reverse=True):
            return found
    raise AssertionError("no PostgreSQL programs: scripts/install test brings them")


def rows(url: str, statement: str) -> list[list[str]]:
    """The rows of a statement, each value as text."""
    done = subprocess.run(
        [
            parts.program("psql"),
            "--no-psqlrc",
            "-qAt",
            "-F",
            "\t",
            "-v",
            "ON_ERROR_STOP=1",
            "-d",
            url,
            "-c",
            statement,
        ],
        cwd="/",
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return [line.split("\t") for line in done.stdout.splitlines()]


def embedded(data: Path) -> str:
    """The address of a server's embedded database. Its socket is elsewhere when the folder's path is long."""
    folder = data / "postgres"
    socket = folder / (folder / "postmaster.pid").read_text().splitlines()[4]
    return f"postgres://deadbeat@localhost/deadbeat?host={socket}"


class Postgres:
    """A PostgreSQL on a loopback port that can be stopped and started."""

    def __init__(self, folder: Path, cluster: Path | None = None) -> None:
        self.logs = folder
        self.folder = cluster or folder / "cluster"
        self.port = parts.free_port()
        self.bin = programs()
        self.as_owner: list[str] = []
        self.part: parts.Part | None = None
        self.folder.mkdir(exist_ok=True)
        if os.geteuid() == 0:
            # PostgreSQL refuses to run as root, and its owner must be able to enter this folder.
            shutil.chown(self.folder, "postgres")
            self.as_owner = ["setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups"]
            for parent in self.folder.parents:
                if parent == Path("/tmp"):
                    break
                parent.chmod(0o711)
        self._run(
            "initdb", "-D", str(self.folder), "-U", "postgres", "--auth=trust", "--no-sync", "--wal-segsize=1"
        )

    def _run(self, name: str, *arguments: str) -> None:
        done = subprocess.run(
            [*self.as_owner, str(self.bin / name), *arguments], cwd="/", capture_output=True, check=False
        )
        assert done.returncode == 0, done.stderr.decode()

    def owns(self, *files: Path) -> None:
        """Make PostgreSQL the owner of files."""
        for file in files:
            if self.as_owner:
                shutil.chown(file, "postgres")
            file.chmod(0o600)

    def launch(self) -> None:
        """Start the process without waiting for it."""
        command = [
            *self.as_owner, str(self.bin / "postgres"), "-D", str(self.folder), "-p", str(self.port),
            "-h", "127.0.0.1", "-c", "unix_socket_directories=", "-c", "fsync=off", "-c", "max_wal_size=16MB",
            "-c", "min_wal_size=2MB",
        ]  # fmt: skip
        self.part = parts.Part("postgres", command, self.logs, cwd=Path("/"))

    def start(self) -> Postgres:
        self.launch()
        pid = self.folder / "postmaster.pid"
        parts.wait_for(
            "PostgreSQL", lambda: pid.exists() and pid.read_text().splitlines()[7:8] == ["ready   "], 60
        )
        return self

    def has_ended(self) -> bool:
        return self.part is None or self.part.process.poll() is not None

    def kill(self) -> None:
        if self.part is not None:
            self.part.kill()

    @property
    def url(self) -> str:
        return f"postgres://postgres@127.0.0.1:{self.port}/postgres"
