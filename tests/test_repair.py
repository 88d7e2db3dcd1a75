"""The commands of an alert are safe to paste, whatever a ping key has sent."""

from __future__ import annotations

import os
import pty
import select
import signal
import time
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

import parts


def event(kind: str, **rest: Any) -> dict[str, Any]:
    return {"id": str(uuid.uuid4()), "at": now(), "type": kind, **rest}


def now() -> str:
    return datetime.now(UTC).isoformat()


def send(server: parts.Server, *events: dict[str, Any]) -> list[dict[str, Any]]:
    body = {"sent_at": now(), "events": list(events)}
    status, _, answer = parts.call("POST", f"{server.url}/api/v1/events", server.keys["ping key"], body)
    assert status == 200, answer
    results: list[dict[str, Any]] = parts.json.loads(answer)["results"]
    return results


def incident(server: parts.Server, cause: str) -> dict[str, Any]:
    def poll() -> Any:
        open_ones = server.api("GET", "/incidents?state=open")["incidents"]
        return next((one for one in open_ones if one["cause"]["code"] == cause), None)

    found: dict[str, Any] = parts.wait_for(cause, poll)
    return found


class Terminal:
    """An interactive bash in its own terminal."""

    def __init__(self, folder: Path) -> None:
        self.pid, self.file = pty.fork()
        if self.pid == 0:
            os.chdir(folder)
            env = {"PATH": os.environ["PATH"], "TERM": "xterm", "PS1": "ready> ", "HOME": str(folder)}
            os.execvpe("bash", ["bash", "--noprofile", "--norc", "-i"], env)
        self.seen = b""
        self.read_until(b"ready> ")
        self.type(b"celery() { printf 'arguments:'; printf '<%s>' \"$@\"; echo; }\n")

    def read_until(self, expected: bytes, limit: float = 30.0) -> None:
        end = time.monotonic() + limit
        while expected not in self.seen:
            ready, _, _ = select.select([self.file], [], [], max(0.0, end - time.monotonic()))
            assert ready, f"{expected!r} did not come: {self.seen!r}"
            self.seen += os.read(self.file, 65_536)

    def type(self, keys: bytes) -> bytes:
        """Send keys, and wait until all their commands have ended; returns the output."""
        self.seen = b""
        mark = f"end-{uuid.uuid4().hex}"
        os.write(self.file, keys)
        # The typed line has the mark in two parts: only the output has it whole.
        os.write(self.file, f"\necho {mark[:8]}''{mark[8:]}\n".encode())
        self.read_until(mark.encode())
        return self.seen

    def close(self) -> None:
        os.kill(self.pid, signal.SIGKILL)
        os.waitpid(self.pid, 0)
        os.close(self.file)


@pytest.fixture
def terminal(tmp_path: Path) -> Iterator[Terminal]:
    folder = tmp_path / "terminal"
    folder.mkdir()
    opened = Terminal(folder)
    try:
        yield opened
    finally:
        opened.close()


def texts(found: dict[str, Any]) -> list[str]:
    """All sentences of an alert."""
    steps = [step["text"] for step in found["repair"]]
    return [*steps, *(fact["fact"] for fact in found["evidence"]), found["cause"]["summary"]]


BRACKETED = (b"\x1b[200~", b"\x1b[201~")


@pytest.mark.parametrize("paste", [(b"", b""), BRACKETED], ids=["plain", "bracketed"])
def test_a_name_from_a_ping_key_runs_nothing_when_a_repair_is_pasted(
    server: parts.Server, terminal: Terminal, tmp_path: Path, paste: tuple[bytes, bytes]
) -> None:
    folder = tmp_path / "terminal"
    attack = "shop\x03\x1b[201~\ntouch pwned\n#"
    verdicts = send(
        server,
        event(
            "worker_snapshot",
            app="shop",
            worker="celery@w1",
            state="running",
            period_seconds=0.1,
            grace_seconds=0,
            project=attack,
            host=attack,
            queues=["celery"],
            longest={"task": attack, "task_id": attack, "started_at": now()},
        ),
        event(
            "beat_alive", beat="shop", period_seconds=0.1, grace_seconds=0, project=attack, host=f"{attack}2"
        ),
    )
    assert [one["status"] for one in verdicts] == ["accepted", "accepted"]

    for cause in ("WORKER_LOST", "BEAT_DOWN"):
        found = incident(server, cause)
        for command in [step["command"] for step in found["repair"] if step["command"]]:
            terminal.type(paste[0] + command.encode() + paste[1])
            assert not (folder / "pwned").exists(), (cause, command)
        assert all(text.isprintable() for text in texts(found)), (cause, texts(found))


def test_a_name_that_only_seems_dangerous_is_pasted_as_one_argument(
    server: parts.Server, terminal: Terminal, tmp_path: Path
) -> None:
    names = {
        "project": "it's $(touch pwned) `touch pwned` !! \\",
        "worker": "w; touch pwned # \"'",
        "queue": "a b$IFS",
    }
    send(
        server,
        event(
            "worker_snapshot",
            app="shop",
            worker=names["worker"],
            state="running",
            period_seconds=0.1,
            grace_seconds=0,
            project=names["project"],
            queues=[names["queue"]],
        ),
    )

    commands = [step["command"] for step in incident(server, "WORKER_LOST")["repair"] if step["command"]]
    start = next(command for command in commands if command.startswith("celery"))
    shown = terminal.type(start.encode())

    words = ["-A", names["project"], "worker", "-n", names["worker"], "-Q", names["queue"]]
    expected = "arguments:" + "".join(f"<{word}>" for word in words)
    assert expected.encode() in shown
    assert not (tmp_path / "terminal" / "pwned").exists()
