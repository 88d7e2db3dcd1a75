"""Real parts to test against: a recording server, a Redis of the tests, Celery workers and Beats."""

from __future__ import annotations

import contextlib
import itertools
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Callable

import pytest
from celery import Celery
from redis import Redis

from sink import Sink

PROJECT = Path(__file__).parent / "project"


@pytest.fixture
def sink() -> Iterator[Sink]:
    """A server that accepts everything until a test scripts another answer."""
    server = Sink()
    yield server
    server.close()


def free_port() -> int:
    """A port on which no process listens now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture
def dead_url() -> str:
    """An address that refuses connections."""
    return f"http://127.0.0.1:{free_port()}"


class RedisServer:
    """A redis-server of the tests, on a free port that it keeps over a restart."""

    def __init__(self, folder: Path) -> None:
        self.port = free_port()
        self.folder = folder
        self.start()

    def start(self) -> None:
        binary = shutil.which("redis-server")
        if binary is None:
            pytest.fail(
                "redis-server is not installed; these tests need it (Debian: apt-get install redis-server)"
            )
        command = [
            binary,
            "--port",
            str(self.port),
            "--bind",
            "127.0.0.1",
            "--save",
            "",
            "--appendonly",
            "no",
        ]
        with open(self.folder / "log", "ab") as log:
            self.process = subprocess.Popen(
                [*command, "--databases", "64", "--dir", str(self.folder)], stdout=log, stderr=log
            )
        client = Redis(port=self.port)
        deadline = time.monotonic() + 10
        while True:
            try:
                client.ping()
                break
            except Exception:
                if self.process.poll() is not None or time.monotonic() > deadline:
                    pytest.fail(f"redis-server did not start:\n{(self.folder / 'log').read_text()}")
                time.sleep(0.02)
        client.close()

    def stop(self) -> None:
        self.process.terminate()
        self.process.wait(10)


@pytest.fixture(scope="session")
def redis_port(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """A redis-server of this test run; never the machine's own."""
    server = RedisServer(tmp_path_factory.mktemp("redis"))
    yield server.port
    server.stop()


@pytest.fixture
def own_redis(tmp_path: Path) -> Iterator[RedisServer]:
    """A redis-server of this test alone, which may stop and start it."""
    server = RedisServer(tmp_path)
    yield server
    server.stop()


_databases = itertools.count()


@pytest.fixture
def broker(redis_port: int) -> str:
    """The address of an empty Redis database, another one for each test."""
    number = next(_databases) % 64
    client = Redis(port=redis_port, db=number)
    client.flushdb()
    client.close()
    return f"redis://127.0.0.1:{redis_port}/{number}"


def default_signals() -> None:
    """Let a child process receive the signals that a test sends: a background job of a shell ignores some."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT):
        signal.signal(number, signal.SIG_DFL)


class CeleryProcess:
    """A `celery` command running a project of tests/project; its output is kept in a file."""

    def __init__(
        self, arguments: list[str], environment: dict[str, str], folder: Path, project: str = "watched"
    ) -> None:
        self.log = folder / f"{arguments[0]}-{next(_databases)}.log"
        clean = {name: value for name, value in os.environ.items() if not name.startswith("DEADBEAT_")}
        with open(self.log, "wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "celery", "-A", project, *arguments],
                cwd=PROJECT,
                env={**clean, "PYTHONUNBUFFERED": "1", **environment},
                stdout=log,
                stderr=log,
                start_new_session=True,
                preexec_fn=default_signals,
            )

    def output(self) -> str:
        return self.log.read_text(errors="replace")

    def wait_for_output(self, text: str, limit: float = 30.0) -> None:
        deadline = time.monotonic() + limit
        while text not in self.output():
            if self.process.poll() is not None or time.monotonic() > deadline:
                raise AssertionError(f"{text!r} did not appear:\n{self.output()}")
            time.sleep(0.02)

    def stop(self, limit: float = 20.0) -> float:
        """Ask it to end and return the seconds that took."""
        asked = time.monotonic()
        self.process.terminate()
        self.process.wait(limit)
        return time.monotonic() - asked

    def kill(self) -> None:
        # The test made this session: this ends the command and its pool children, nothing else.
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait(10)


StartCelery = Callable[..., CeleryProcess]


@pytest.fixture
def start_celery(broker: str, tmp_path: Path) -> Iterator[StartCelery]:
    """Starts workers (and waits until they are ready, by default) and Beats; ends them with the test."""
    started: list[CeleryProcess] = []

    def start(
        command: str, *options: str, project: str = "watched", ready: bool = True, **environment: str
    ) -> CeleryProcess:
        arguments = [command, "--loglevel", "INFO", *options]
        # A Beat of another app beside the project's own.
        suffix = f"-{project.partition(':')[2]}" if ":" in project else ""
        if command == "worker" and "--concurrency" not in options:
            arguments += ["--concurrency", "2"]
        if command == "beat":
            arguments += ["--schedule", str(tmp_path / f"schedule{suffix}"), "--pidfile", ""]
        process = CeleryProcess(arguments, {"CELERY_BROKER_URL": broker, **environment}, tmp_path, project)
        started.append(process)
        if command == "worker" and ready:
            process.wait_for_output("ready.")
        return process

    yield start
    for process in started:
        process.kill()


@pytest.fixture
def send(broker: str) -> Iterator[Callable[..., Any]]:
    """Sends a task of the project the way Beat does: with an entry's name in its headers."""
    app = Celery("sender", broker=broker, backend=broker)
    # At the end, unread results would connect, one after the other, to a Redis that has ended.
    app.conf.result_backend_transport_options = {"retry_policy": {"max_retries": 0}}

    def send_as_beat(
        task: str,
        *args: Any,
        entry: str | None = "nightly",
        headers: dict[str, Any] | None = None,
        **options: Any,
    ) -> Any:
        headers = dict(headers or {})
        if entry is not None:
            headers.update(deadbeat_beat="watched", deadbeat_entry=entry)
        return app.send_task(f"watched.{task}", args=args, headers=headers, **options)

    yield send_as_beat
    app.close()


def reporting_to(url: str, **more: str) -> dict[str, str]:
    """The environment that makes the project report to this address, with quick periods."""
    return {
        "DEADBEAT_URL": url,
        "DEADBEAT_KEY": "test-key",
        "DEADBEAT_BEAT_PERIOD_SECONDS": "1",
        "DEADBEAT_CANARY_SECONDS": "1",
        "DEADBEAT_WORKER_PERIOD_SECONDS": "1",
        **more,
    }
