"""Real web servers whose workers report: no request hangs, every report arrives, the server ends cleanly."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from conftest import PROJECT, default_signals, free_port, reporting_to
from sink import Sink

# For each answer. A frozen worker never answers; a slow machine takes some seconds for the first answer.
LIMIT_SECONDS = 30
REQUESTS = 12

SERVERS = {
    "sync": ["gunicorn", "--worker-class", "sync"],
    "sync, preloaded": ["gunicorn", "--worker-class", "sync", "--preload"],
    "gthread": ["gunicorn", "--worker-class", "gthread", "--threads", "4"],
    "gthread, preloaded": ["gunicorn", "--worker-class", "gthread", "--threads", "4", "--preload"],
    "gevent": ["gunicorn", "--worker-class", "gevent"],
    "gevent, preloaded": ["gunicorn", "--worker-class", "gevent", "--preload"],
    "uwsgi": ["uwsgi"],
    "uwsgi with threads": ["uwsgi", "--enable-threads", "--threads", "4"],
    "uwsgi, lazy": ["uwsgi", "--enable-threads", "--lazy-apps"],
}


class WebServer:
    """A web server with two workers, in its own session."""

    def __init__(self, command: list[str], folder: Path, environment: dict[str, str]) -> None:
        self.port = free_port()
        self.log = folder / "web.log"
        address = f"127.0.0.1:{self.port}"
        if command[0] == "gunicorn":
            whole = [sys.executable, "-m", *command, "--workers", "2", "--bind", address]
            whole += ["--timeout", str(2 * LIMIT_SECONDS), "--graceful-timeout", "10", "web:application"]
        else:
            program = str(Path(sys.executable).parent / command[0])
            whole = [program, *command[1:], "--http-socket", address, "--module", "web:application"]
            whole += ["--master", "--processes", "2", "--die-on-term", "--need-app"]
        clean = {name: value for name, value in os.environ.items() if not name.startswith("DEADBEAT_")}
        with open(self.log, "wb") as log:
            self.process = subprocess.Popen(
                whole,
                cwd=PROJECT,
                env={**clean, "PYTHONUNBUFFERED": "1", **environment},
                stdout=log,
                stderr=log,
                start_new_session=True,
                preexec_fn=default_signals,
            )

    def get(self) -> str:
        """The answer to one request; waits for a server that does not listen yet."""
        deadline = time.monotonic() + LIMIT_SECONDS
        while True:
            try:
                with urllib.request.urlopen(
                    f"http://127.0.0.1:{self.port}/", timeout=LIMIT_SECONDS
                ) as answer:
                    return str(answer.read().decode())
            except (ConnectionError, urllib.error.URLError) as fault:
                refused = isinstance(getattr(fault, "reason", fault), ConnectionError)
                if not refused or time.monotonic() > deadline or self.process.poll() is not None:
                    raise AssertionError(f"no answer ({fault}):\n{self.log.read_text()}") from fault
                time.sleep(0.05)

    def kill(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait(10)


@pytest.fixture(params=[pytest.param(command, id=name) for name, command in SERVERS.items()])
def command(request: pytest.FixtureRequest) -> list[str]:
    return list(request.param)


@pytest.fixture
def serve(tmp_path: Path, broker: str) -> Iterator[object]:
    """Starts a web server; ends it with the test."""
    started: list[WebServer] = []

    def start(command: list[str], **environment: str) -> WebServer:
        server = WebServer(command, tmp_path, {"CELERY_BROKER_URL": broker, **environment})
        started.append(server)
        return server

    yield start
    for server in started:
        server.kill()


@pytest.mark.parametrize("first_report", ["by a worker", "at import"])
def test_no_request_hangs_and_every_report_arrives(
    command: list[str], first_report: str, sink: Sink, serve: object
) -> None:
    at_import = {"SEND_AT_IMPORT": "1"} if first_report == "at import" else {}
    server = serve(command, **at_import, **reporting_to(sink.url))  # type: ignore[operator]

    sent = [server.get() for _ in range(REQUESTS)]

    sink.wait_for(lambda: set(sent) <= {event["task_id"] for event in sink.of("run_published")})
    server.process.terminate()
    assert server.process.wait(LIMIT_SECONDS) == 0, server.log.read_text()
    assert sink.of("client_loss") == []


def test_a_server_that_is_gone_holds_up_no_request(command: list[str], dead_url: str, serve: object) -> None:
    server = serve(command, **reporting_to(dead_url))  # type: ignore[operator]

    sent = [server.get() for _ in range(REQUESTS)]

    assert len(set(sent)) == REQUESTS
    server.process.terminate()
    assert server.process.wait(LIMIT_SECONDS) == 0, server.log.read_text()
