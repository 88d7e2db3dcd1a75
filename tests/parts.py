"""Real parts, each a process on a free loopback port, started and ended by the tests themselves."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from datetime import datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib import error, request

ROOT = Path(__file__).resolve().parent.parent
# A server to test instead of the last build: for work on the tests alone.
BINARY = Path(os.environ.get("DEADBEAT_TEST_BINARY") or ROOT / "target" / "debug" / "deadbeat")

# The key of servers that share a database but no data folder.
SECRET_KEY = "07" * 32


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_for(what: str, poll: Callable[[], Any], limit: float = 30.0) -> Any:
    """Poll until `look` returns something; fail after the limit with the name of what did not come."""
    end = time.monotonic() + limit
    while True:
        seen = poll()
        if seen:
            return seen
        if time.monotonic() > end:
            raise AssertionError(f"{what} did not come within {limit:g} s; last seen: {seen!r}")
        time.sleep(0.05)


def instant(text: str) -> float:
    """An instant of the API in seconds since the epoch."""
    return datetime.fromisoformat(text).timestamp()


def call(
    method: str, url: str, key: str | None = None, body: Any = None, limit: float = 10.0
) -> tuple[int, dict[str, str], bytes]:
    """One HTTP request: status, headers, body. A refused connection is status 0."""
    headers = {"Content-Type": "application/json"} if body is not None else {}
    if key is not None:
        headers["Authorization"] = f"Bearer {key}"
    data = None if body is None else json.dumps(body).encode()
    asked = request.Request(url, data=data, headers=headers, method=method)
    try:
        with request.urlopen(asked, timeout=limit) as answer:
            return answer.status, {k.lower(): v for k, v in answer.headers.items()}, answer.read()
    except error.HTTPError as refused:
        return refused.code, {k.lower(): v for k, v in refused.headers.items()}, refused.read()
    except (OSError, TimeoutError) as broken:
        return 0, {}, str(broken).encode()


class Part:
    """A process; its output is kept in case a test fails."""

    def __init__(
        self,
        name: str,
        command: list[str],
        folder: Path,
        env: dict[str, str] | None = None,
        cwd: Path | None = None,
    ):
        self.name = name
        self.log = folder / f"{name}-{time.monotonic_ns()}.log"
        self.out = self.log.open("wb")
        self.process = subprocess.Popen(
            command,
            cwd=cwd or folder,
            env={**os.environ, **(env or {})},
            stdout=self.out,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )

    def text(self) -> str:
        return self.log.read_text(errors="replace")

    def kill(self) -> None:
        """Send SIGKILL to the process and everything that it started in its session."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait(30)

    def kill_only(self) -> None:
        """Send SIGKILL to the process alone."""
        self.process.kill()
        self.process.wait(30)

    def stop(self) -> int:
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(30)
            except subprocess.TimeoutExpired:
                self.kill()
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.out.close()
        return self.process.returncode


class Server:
    """`deadbeat serve`, and the project that its first start created."""

    def __init__(
        self,
        folder: Path,
        port: int | None = None,
        env: dict[str, str] | None = None,
        data: Path | None = None,
    ):
        self.folder = folder
        self.port = port or free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.env = {"DEADBEAT_ALLOW_PRIVATE_NETWORKS": "1", **(env or {})}
        self.data = data or folder / "data"
        self.keys: dict[str, str] = {}
        self.part = self._launch()

    def _launch(self) -> Part:
        command = [str(BINARY), "serve", "--data-dir", str(self.data), "--listen", f"127.0.0.1:{self.port}"]
        return Part("deadbeat", command, self.folder, self.env)

    def ready(self, limit: float = 60.0) -> Server:
        def poll() -> bool:
            if self.part.process.poll() is not None:
                raise AssertionError(f"the server ended:\n{self.part.text()}")
            return call("GET", f"{self.url}/readyz")[0] == 200

        wait_for("readiness", poll, limit)
        for line in self.part.text().splitlines():
            name, _, value = line.strip().rpartition("  ")
            if name.strip() in ("API key", "read key", "ping key", "password"):
                self.keys[name.strip()] = value.strip()
        return self

    def metric(self, name: str) -> float | None:
        """The figures of /metrics; empty if it does not answer."""
        for line in call("GET", f"{self.url}/metrics")[2].decode().splitlines():
            if line.startswith(f"{name} "):
                return float(line.split()[1])
        return None

    def drained(self, limit: float = 60.0) -> Server:
        """Wait until the database is back and the spool is replayed."""
        self.ready(limit)
        wait_for("an empty spool", lambda: self.metric("deadbeat_spool_pings") == 0, limit)
        wait_for("no signals aside", lambda: not self.metric("deadbeat_pings_aside"), limit)
        return self

    def again(self) -> Server:
        """Start again on the same data folder and port."""
        self.part = self._launch()
        return self.ready()

    def api(self, method: str, path: str, body: Any = None) -> Any:
        status, _, answer = call(method, f"{self.url}/api/v1{path}", self.keys["API key"], body)
        assert 200 <= status < 300, (method, path, status, answer)
        return json.loads(answer) if answer else None

    def every(self, path: str, name: str) -> list[dict[str, Any]]:
        """All rows of a list, page by page."""
        rows: list[dict[str, Any]] = []
        cursor = ""
        while True:
            page = self.api("GET", f"{path}?limit=500{cursor}")
            rows += page[name]
            if page["next_cursor"] is None:
                return rows
            cursor = f"&cursor={page['next_cursor']}"

    def postgres_pid(self) -> int:
        return int((self.data / "postgres" / "postmaster.pid").read_text().splitlines()[0])

    def stop(self) -> int:
        return self.part.stop()


class Sink:
    """A real HTTP server that keeps each request."""

    def __init__(self) -> None:
        self.received: list[dict[str, Any]] = []
        self.status = 200
        sink = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:  # the name that http.server calls
                body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                sink.received.append(
                    {"at": time.time(), "headers": dict(self.headers), "body": body, "json": json.loads(body)}
                )
                self.send_response(sink.status)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_: Any) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}/hook"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def alerts(self, kind: str) -> list[dict[str, Any]]:
        return [one for one in list(self.received) if one["json"]["type"] == kind]

    def stop(self) -> None:
        self.server.shutdown()
        self.server.server_close()


def program(name: str) -> str:
    """A program of the Python environment, or of the machine."""
    beside = Path(sys.executable).parent / name
    found = str(beside) if beside.exists() else shutil.which(name)
    assert found, f"{name} is not installed: scripts/install test brings it"
    return found


class Redis:
    """A Redis of the test; it can be killed and started again, without its data."""

    def __init__(self, folder: Path, *options: str) -> None:
        self.folder = folder
        self.port = free_port()
        self.url = f"redis://127.0.0.1:{self.port}/0"
        self.options = options
        self.part: Part | None = None

    def start(self) -> Redis:
        command = [
            program("redis-server"),
            "--port",
            str(self.port),
            "--bind",
            "127.0.0.1",
            "--save",
            "",
            "--appendonly",
            "no",
            *self.options,
        ]
        self.part = Part("redis", command, self.folder)
        wait_for("Redis", self._answers)
        return self

    def _answers(self) -> bool:
        # It refuses commands while it loads its data.
        with contextlib.suppress(OSError, AssertionError):
            return self.ask("PING") == "PONG"
        return False

    def ask(self, *words: str) -> str:
        """The first line of its answer to a command."""
        with socket.create_connection(("127.0.0.1", self.port), 5) as link:
            asked = "".join(f"${len(word.encode())}\r\n{word}\r\n" for word in words)
            link.sendall(f"*{len(words)}\r\n{asked}".encode())
            line = link.makefile("rb").readline().decode().strip()
        assert not line.startswith("-"), (words, line)
        return line[1:]

    def kill(self) -> None:
        if self.part is not None:
            self.part.kill()

    def stop(self) -> None:
        if self.part is not None:
            self.part.stop()


@contextlib.contextmanager
def redis(folder: Path) -> Iterator[str]:
    """A Redis of the test; its URL."""
    started = Redis(folder)
    try:
        yield started.start().url
    finally:
        started.stop()


class RabbitMQ:
    """A RabbitMQ of the test, with its own port mapper. It can be killed and started again."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "rabbitmq"
        self.folder.mkdir()
        self.port, mapper = free_port(), free_port()
        self.url = f"amqp://guest:guest@127.0.0.1:{self.port}//"
        config = self.folder / "rabbitmq.conf"
        config.write_text(f"listeners.tcp.default = 127.0.0.1:{self.port}\n")
        self.env = {
            # RabbitMQ keeps the cookie of its node in the home folder.
            "HOME": str(self.folder),
            "ERL_EPMD_ADDRESS": "127.0.0.1",
            "ERL_EPMD_PORT": str(mapper),
            "RABBITMQ_NODENAME": f"rabbit{self.port}@localhost",
            "RABBITMQ_DIST_PORT": str(free_port()),
            "RABBITMQ_MNESIA_BASE": str(self.folder / "data"),
            "RABBITMQ_LOG_BASE": str(self.folder / "log"),
            "RABBITMQ_CONFIG_FILE": str(config),
            "RABBITMQ_CONF_ENV_FILE": str(self.folder / "none"),
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(self.folder / "plugins"),
            "RABBITMQ_PID_FILE": str(self.folder / "pid"),
            # On loopback only, and without threads that spin.
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": (
                "-kernel inet_dist_use_interface {127,0,0,1} +S 1:1 +sbwt none"
            ),
        }
        # If the node started it, it would outlive the node.
        self.mapper = Part(
            "epmd", [program("epmd"), "-address", "127.0.0.1", "-port", str(mapper)], self.folder
        )
        self.part: Part | None = None

    def start(self) -> RabbitMQ:
        # Not the program on the PATH, which requires the machine's own user and folders.
        beside = [root / "usr/lib/rabbitmq/bin/rabbitmq-server" for root in (Path("/"), ROOT / ".tools")]
        found = next((str(path) for path in beside if path.exists()), None)
        assert found, "no RabbitMQ: scripts/install test brings it"
        part = self.part = Part("rabbitmq", [found], self.folder, self.env)
        wait_for("RabbitMQ", lambda: "Starting broker... completed" in part.text(), 90)
        return self

    def control(self, *words: str) -> str:
        """The output of `rabbitmqctl` with these arguments."""
        assert self.part is not None
        command = [str(Path(self.part.process.args[0]).with_name("rabbitmqctl")), "-q", *words]
        env = {**os.environ, **self.env}
        return subprocess.run(command, env=env, check=True, capture_output=True, text=True, timeout=60).stdout

    def kill(self) -> None:
        if self.part is not None:
            self.part.kill()

    def stop(self) -> None:
        self.kill()
        self.mapper.stop()


@contextlib.contextmanager
def rabbitmq(folder: Path) -> Iterator[str]:
    """A RabbitMQ of the test; its URL."""
    started = RabbitMQ(folder)
    try:
        yield started.start().url
    finally:
        started.stop()


# libfaketime treats a sleep by the monotonic clock, such as Python's, as one by the wall clock.
UNSHIFTED_SLEEP = """
#include <errno.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>
int clock_nanosleep(clockid_t clock, int flags, const struct timespec *until, struct timespec *left) {
    return syscall(SYS_clock_nanosleep, clock, flags, until, left) == 0 ? 0 : errno;
}
"""


class Clock:
    """The time that processes see: the machine's, shifted. No step moves a monotonic clock."""

    def __init__(self, folder: Path, seconds: float = 0) -> None:
        self.file = folder / f"clock-{time.monotonic_ns()}"
        self.step(seconds)
        libraries = [
            *Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1"),
            *ROOT.glob(".tools/usr/lib/*/faketime/libfaketimeMT.so.1"),
        ]
        assert libraries, "no libfaketime: scripts/install test brings it"
        sleep = self.file.with_suffix(".so")
        subprocess.run(
            ["cc", "-shared", "-fPIC", "-x", "c", "-o", str(sleep), "-"],
            input=UNSHIFTED_SLEEP.encode(),
            check=True,
        )
        self.env = {
            "LD_PRELOAD": f"{sleep}:{libraries[0]}",
            "FAKETIME_TIMESTAMP_FILE": str(self.file),
            "FAKETIME_NO_CACHE": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
            "DONT_FAKE_MONOTONIC": "1",
            "NO_FAKE_STAT": "1",
        }

    def step(self, seconds: float) -> None:
        """Set the difference from the machine's clock."""
        fresh = self.file.with_suffix(".new")
        fresh.write_text(f"{seconds:+.0f}\n")
        fresh.rename(self.file)
