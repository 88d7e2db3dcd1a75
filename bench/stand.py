"""The parts of every measurement: a PostgreSQL that syncs, the release server, the load, CPU times."""

from __future__ import annotations

import contextlib
import glob
import json
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
import urllib.request
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
RELEASE = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")) / "release"
TICKS = os.sysconf("SC_CLK_TCK")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def say(text: str) -> None:
    print(f"bench: {text}", flush=True)


def build() -> None:
    """Release builds of the server and of the load generator."""
    say("building")
    subprocess.run(
        ["cargo", "build", "--quiet", "--release", "-p", "deadbeat-app", "-p", "deadbeat-bench"],
        cwd=ROOT,
        check=True,
    )


def cpu_seconds(pid: int) -> float:
    """CPU time of a process and of its ended children."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except FileNotFoundError:
        return 0.0
    return sum(int(value) for value in fields[11:15]) / TICKS


def children(pid: int) -> list[int]:
    found = []
    for task in glob.glob(f"/proc/{pid}/task/*/children"):
        with contextlib.suppress(FileNotFoundError):
            found += [int(child) for child in Path(task).read_text().split()]
    return found


def family_cpu(pid: int) -> float:
    """CPU time of a process and everything that it started."""
    return cpu_seconds(pid) + sum(family_cpu(child) for child in children(pid))


def rss_megabytes(pid: int) -> float:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.rsplit(" ", 1)[1]) / 1024
    return 0.0


class Postgres:
    """A fresh cluster with PostgreSQL's own defaults for durability; only memory is raised."""

    def __init__(self, folder: Path, *options: str):
        self.folder = folder
        self.options = options
        candidates = sorted(glob.glob("/usr/lib/postgresql/*/bin")) + sorted(
            glob.glob(str(ROOT / ".tools/usr/lib/postgresql/*/bin"))
        )
        self.bin = Path(candidates[-1])
        self.as_owner: list[str] = []
        if os.getuid() == 0:
            shutil.chown(folder, "postgres")
            gid = subprocess.check_output(["id", "-g", "postgres"], text=True).strip()
            self.as_owner = ["setpriv", "--reuid=postgres", f"--regid={gid}", "--clear-groups"]
        self.run(
            "initdb", "--pgdata", folder / "data", "--username=postgres", "--auth=trust", "--encoding=UTF8"
        )
        self.start()

    def start(self) -> None:
        self.process = subprocess.Popen(
            [
                *self.as_owner,
                str(self.bin / "postgres"),
                *("-D", str(self.folder / "data"), "-k", str(self.folder)),
                *("-c", "listen_addresses=", "-c", "shared_buffers=512MB", "-c", "max_wal_size=4GB"),
                *("-c", "max_connections=100"),
                *(word for option in self.options for word in ("-c", option)),
            ],
            stdout=(self.folder.parent / "postgres.log").open("ab"),
            stderr=subprocess.STDOUT,
        )
        self.url = f"postgres://postgres@localhost/postgres?host={self.folder}"
        for _ in range(600):
            lines = []
            with contextlib.suppress(FileNotFoundError):
                lines = (self.folder / "data/postmaster.pid").read_text().splitlines()
            if len(lines) > 7 and lines[7].strip() == "ready":
                return
            time.sleep(0.05)
        raise RuntimeError("PostgreSQL did not start; see its log")

    def run(self, program: str, *arguments: Any) -> None:
        command = [*self.as_owner, str(self.bin / program), *map(str, arguments)]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, cwd=self.folder)

    def sql(self, text: str) -> str:
        command = ["psql", "-qAtX", "--set=ON_ERROR_STOP=1", self.url]
        return subprocess.run(
            command, input=text, text=True, check=True, stdout=subprocess.PIPE
        ).stdout.strip()

    def cpu(self) -> float:
        return family_cpu(self.process.pid)

    def stop(self) -> None:
        self.process.send_signal(signal.SIGINT)
        self.process.wait(60)


class Server:
    """`deadbeat serve`, release build, on this database."""

    def __init__(
        self,
        postgres: Postgres,
        folder: Path,
        env: dict[str, str] | None = None,
        *arguments: str,
        ready: str = "/readyz",
        binary: Path | None = None,
    ):
        self.port = free_port()
        self.log = folder / f"server-{self.port}.log"
        command = [
            str(binary or RELEASE / "deadbeat"),
            "serve",
            "--listen",
            f"127.0.0.1:{self.port}",
            *arguments,
        ]
        given = {
            "DEADBEAT_DATABASE_URL": postgres.url,
            "DEADBEAT_LOG": "warn",
            # Lift the rate limit of a ping URL.
            "DEADBEAT_PINGS_PER_SECOND": "1000000",
            "DEADBEAT_ALLOW_PRIVATE_NETWORKS": "1",
            **(env or {}),
        }
        self.process = subprocess.Popen(
            command,
            env={**os.environ, **given},
            cwd=folder,
            stdout=self.log.open("wb"),
            stderr=subprocess.STDOUT,
        )
        self.target = f"127.0.0.1:{self.port}"
        for _ in range(1200):
            if self.process.poll() is not None:
                raise RuntimeError(f"the server ended:\n{self.log.read_text()}")
            with contextlib.suppress(OSError):
                if urllib.request.urlopen(f"http://{self.target}{ready}", timeout=5).status == 200:
                    return
            time.sleep(0.05)
        raise RuntimeError(f"the server is not ready:\n{self.log.read_text()}")

    def cpu(self) -> float:
        return family_cpu(self.process.pid)

    def metrics(self) -> dict[str, float]:
        """The figures of `/metrics`."""
        text = urllib.request.urlopen(f"http://{self.target}/metrics", timeout=30).read().decode()
        lines = [line.rsplit(" ", 1) for line in text.splitlines() if not line.startswith("#")]
        return {name: float(value) for name, value in lines}

    def stop(self) -> None:
        self.process.terminate()
        self.process.wait(60)


class Receiver:
    """The receiver of webhooks."""

    def __init__(self) -> None:
        self.target = f"127.0.0.1:{free_port()}"
        self.process = subprocess.Popen([str(RELEASE / "receiver"), "--listen", self.target])
        for _ in range(200):
            with contextlib.suppress(OSError):
                self.figures()
                return
            time.sleep(0.05)
        raise RuntimeError("the receiver does not answer")

    def figures(self) -> dict[str, Any]:
        """The figures since the last call."""
        answer = urllib.request.urlopen(f"http://{self.target}/figures", timeout=30)
        figures: dict[str, Any] = json.load(answer)
        return figures

    def cpu(self) -> float:
        return family_cpu(self.process.pid)

    def stop(self) -> None:
        self.process.terminate()
        self.process.wait(20)


@contextlib.contextmanager
def hello() -> Iterator[tuple[str, subprocess.Popen[bytes]]]:
    """The baseline: a server that answers a constant."""
    target = f"127.0.0.1:{free_port()}"
    process = subprocess.Popen([str(RELEASE / "hello"), "--listen", target])
    time.sleep(0.5)
    try:
        yield target, process
    finally:
        process.terminate()
        process.wait(20)


def load(target: str, paths: Path, seconds: float, connections: int, *more: str) -> dict[str, Any]:
    command = [str(RELEASE / "load"), "--target", target, "--paths", str(paths)]
    command += ["--seconds", str(seconds), "--connections", str(connections), *more]
    done: dict[str, Any] = json.loads(subprocess.check_output(command))
    return done


def seed_monitors(postgres: Postgres, count: int, schedules: str = "mixed") -> None:
    """Monitors of one project, written straight into the table: 80 % intervals, 20 % crontabs."""
    project = postgres.sql("SELECT id FROM project ORDER BY created_at LIMIT 1")
    schedule = {
        "mixed": """CASE WHEN i % 5 = 0 THEN
            jsonb_build_object(
                'kind', 'cron', 'expression', (i % 60) || ' * * * *', 'timezone', 'Europe/Berlin')
            ELSE jsonb_build_object('kind', 'interval', 'seconds', 60 * (1 + i % 60)) END""",
        "hourly": "jsonb_build_object('kind', 'interval', 'seconds', 3600)",
    }[schedules]
    postgres.sql(f"""
        INSERT INTO monitor (id, project_id, ping_id, slug, name, tags, schedule, grace_seconds,
            all_channels, status, created_at, updated_at, next_due_at, deadline_at, check_after)
        SELECT gen_random_uuid(), '{project}', md5('bench ' || i)::uuid, 'bench-' || i, 'bench ' || i, '{{}}',
            {schedule}, 300, true, 'up', now(), now(), now() + interval '2 hours',
            now() + interval '2 hours 5 minutes', now() + interval '2 hours 5 minutes'
        FROM generate_series(1, {count}) AS i;
        ANALYZE monitor;
    """)


def ping_paths(file: Path, postgres: Postgres, limit: int = 100_000) -> Path:
    ids = postgres.sql(f"SELECT ping_id FROM monitor LIMIT {limit}").split()
    file.write_text("".join(f"/ping/{uuid.UUID(one)}\n" for one in ids))
    return file


def seed_projects(postgres: Postgres, count: int, monitors: int, url: str) -> None:
    """Projects with two webhook channels each, and monitors that are far from due."""
    postgres.sql(f"""
        INSERT INTO project (id, name, created_at)
        SELECT md5('project ' || i)::uuid, 'Project ' || i, now() FROM generate_series(1, {count}) AS i;
        INSERT INTO channel (id, project_id, kind, name, settings, signing_secret, created_at, updated_at)
        SELECT gen_random_uuid(), md5('project ' || i)::uuid, 'webhook', 'Hook ' || n,
            jsonb_build_object('url', '{url}/' || n),
            'whsec_' || encode(decode(md5(i || ' ' || n), 'hex'), 'base64'), now(), now()
        FROM generate_series(1, {count}) AS i, generate_series(1, 2) AS n;
        INSERT INTO monitor (id, project_id, ping_id, slug, name, tags, schedule, grace_seconds,
            all_channels, status, created_at, updated_at, last_ping_at, last_success_at, ping_count,
            next_due_at, deadline_at, check_after)
        SELECT gen_random_uuid(), md5('project ' || (1 + i % {count}))::uuid, md5('bench ' || i)::uuid,
            'bench-' || i, 'Nightly job ' || i, '{{}}',
            jsonb_build_object('kind', 'interval', 'seconds', 86400), 300, true, 'up', now(), now(), now(),
            now(), 1, soon, soon + interval '5 minutes', soon + interval '5 minutes'
        FROM generate_series(1, {monitors}) AS i,
            LATERAL (SELECT now() + interval '20 hours' + i * interval '10 milliseconds' AS soon) AS at;
        VACUUM ANALYZE monitor;
        CHECKPOINT;
    """)


def make_due(postgres: Postgres, first: int, last: int, deadline: str) -> None:
    """Move the deadlines of these monitors; `deadline` is SQL, which may use their number `i`."""
    postgres.sql(f"""
        UPDATE monitor SET next_due_at = at - interval '5 minutes', deadline_at = at, check_after = at
        FROM (SELECT md5('bench ' || i)::uuid AS one, {deadline} AS at
            FROM generate_series({first}, {last}) AS i) AS new
        WHERE ping_id = new.one;
    """)


def settle(postgres: Postgres) -> None:
    """Clean up after `make_due`, which keeps the disk busy: a blind spell would excuse every deadline."""
    postgres.sql("VACUUM ANALYZE monitor")
    time.sleep(1)
    postgres.sql("DELETE FROM blind_spell")


def syncs_per_second(folder: Path, seconds: float = 1.0) -> float:
    """How often the disk makes 8 kB durable."""
    count, began = 0, time.monotonic()
    with (folder / "sync").open("wb") as file:
        while time.monotonic() - began < seconds:
            os.pwrite(file.fileno(), b"x" * 8192, 0)
            os.fdatasync(file.fileno())
            count += 1
    return count / seconds


@contextlib.contextmanager
def stand(*options: str) -> Iterator[tuple[Path, Postgres]]:
    """A temporary folder and a database with these settings."""
    with tempfile.TemporaryDirectory(prefix="deadbeat-bench.") as name:
        folder = Path(name)
        os.chmod(folder, 0o755)
        (folder / "pg").mkdir()
        postgres = Postgres(folder / "pg", *options)
        try:
            yield folder, postgres
        finally:
            postgres.stop()
