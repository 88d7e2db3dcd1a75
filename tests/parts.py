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
BINARY = ROOT / "target" / "debug" / "deadbeat"


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_for(what: str, look: Callable[[], Any], limit: float = 30.0) -> Any:
    """Look again and again until something is there; fail after the limit and say what did not come."""
    end = time.monotonic() + limit
    while True:
        seen = look()
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
    """A process whose output is kept for when a test fails."""

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
        """SIGKILL to the process and everything that it started in its session."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait(30)

    def kill_only(self) -> None:
        """SIGKILL to the process alone."""
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
    """`deadbeat serve`, and the project that its first start made."""

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
        def look() -> bool:
            if self.part.process.poll() is not None:
                raise AssertionError(f"the server ended:\n{self.part.text()}")
            return call("GET", f"{self.url}/readyz")[0] == 200

        wait_for("readiness", look, limit)
        for line in self.part.text().splitlines():
            name, _, value = line.strip().rpartition("  ")
            if name.strip() in ("API key", "read key", "ping key", "password"):
                self.keys[name.strip()] = value.strip()
        return self

    def metric(self, name: str) -> float | None:
        """What /metrics says, if anything."""
        for line in call("GET", f"{self.url}/metrics")[2].decode().splitlines():
            if line.startswith(f"{name} "):
                return float(line.split()[1])
        return None

    def drained(self, limit: float = 60.0) -> Server:
        """Wait until the database is there and has all that was spooled."""
        self.ready(limit)
        wait_for("an empty spool", lambda: self.metric("deadbeat_spool_pings") == 0, limit)
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
    """A real HTTP server that keeps what it is sent."""

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


@contextlib.contextmanager
def redis(folder: Path) -> Iterator[str]:
    """A Redis of our own; its URL."""
    port = free_port()
    part = Part(
        "redis",
        [
            program("redis-server"),
            "--port",
            str(port),
            "--bind",
            "127.0.0.1",
            "--save",
            "",
            "--appendonly",
            "no",
        ],
        folder,
    )

    def answers() -> bool:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1) as link:
            link.sendall(b"PING\r\n")
            return link.recv(16).startswith(b"+PONG")
        return False

    try:
        wait_for("Redis", answers)
        yield f"redis://127.0.0.1:{port}/0"
    finally:
        part.stop()
