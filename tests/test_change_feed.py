"""Two processes write and two readers poll: each reader's copy becomes equal to the project."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from itertools import cycle
from pathlib import Path
from typing import Any

import pytest

import parts
from postgres import Postgres

WRITERS = 4
ROUNDS = 10


class Copy:
    """A reader's copy of a project's monitors and incidents. It knows of changes by the feed alone."""

    def __init__(self, servers: list[parts.Server]) -> None:
        self.key = servers[0].keys["read key"]
        self.urls = cycle([f"{server.url}/api/v1" for server in servers])
        self.things: dict[tuple[str, str], tuple[str, str]] = {}
        # Take the position first, then read the state: changes in between come in the feed.
        self.after = int(self.ask("/changes")["next_after"])
        for kind in ("monitor", "incident"):
            for one in self.ask(f"/{kind}s?limit=500")[f"{kind}s"]:
                self.things[kind, one["id"]] = state(kind, one)

    def ask(self, path: str) -> Any:
        """The answer of one of the processes, in turn. None: the subject does not exist."""

        def answer() -> tuple[int, bytes] | None:
            status, _, body = parts.call("GET", next(self.urls) + path, self.key)
            # The process was killed, or is about to start.
            return (status, body) if status not in (0, 500, 503) else None

        status, body = parts.wait_for(path, answer, 60)
        assert status in (200, 404), (path, status, body)
        return json.loads(body) if status == 200 else None

    def poll(self) -> int:
        """Follow one page of changes; return how many there were."""
        page = self.ask(f"/changes?after={self.after}&limit=7")
        assert page["must_reload"] is False
        changes = page["changes"]
        # A read key does not see changes of keys, and no key is issued here: no number may be missing.
        numbers = [change["sequence"] for change in changes]
        assert numbers == list(range(self.after + 1, self.after + 1 + len(changes)))
        for kind, name in {(one["subject"]["kind"], one["subject"]["id"]) for one in changes}:
            if kind not in ("monitor", "incident"):
                continue
            found = self.ask(f"/{kind}s/{name}")
            if found is None:
                self.things.pop((kind, name), None)
            else:
                self.things[kind, name] = state(kind, found)
        self.after = page["next_after"]
        return len(changes)


def state(kind: str, one: dict[str, Any]) -> tuple[str, str]:
    if kind == "monitor":
        return one["name"], one["status"]
    return one["cause"]["code"], "open" if one["resolved_at"] is None else "resolved"


def alternately(servers: list[parts.Server], number: int) -> Callable[[str, str, Any], Any]:
    """Requests to the processes in turn. None: there is no answer, and the request had an effect or not."""
    turns = cycle(servers[number % 2 :] + servers[: number % 2])

    def ask(method: str, path: str, body: Any = None) -> Any:
        server = next(turns)
        status, _, answer = parts.call(method, server.url + path, server.keys["API key"], body, limit=30)
        return json.loads(answer) if status in (200, 201) and path.startswith("/api") else None

    return ask


def write(servers: list[parts.Server], number: int) -> None:
    """Create monitors, let them fail and recover, rename them and delete some."""
    ask = alternately(servers, number)
    settings = {"schedule": {"kind": "interval", "seconds": 86_400}, "grace_seconds": 3_600}
    for turn in range(ROUNDS):
        monitor = ask("POST", "/api/v1/monitors", {"name": f"{number} {turn}", **settings})
        if monitor is None:
            continue
        path = f"/ping/{monitor['ping_url'].rpartition('/')[2]}"
        ask("POST", path, None)
        ask("POST", f"{path}/fail", None)
        if turn % 2:
            ask("POST", path, None)
        ask("PATCH", f"/api/v1/monitors/{monitor['id']}", {"name": f"{number} {turn} renamed"})
        if turn % 3 == 0:
            ask("DELETE", f"/api/v1/monitors/{monitor['id']}", None)


@pytest.mark.proof("two processes, readers of the change feed")
def test_a_reader_of_the_change_feed_misses_nothing_while_a_process_is_killed(
    database: Postgres, tmp_path: Path
) -> None:
    servers: list[parts.Server] = []
    try:
        for name in ("a", "b"):
            (tmp_path / name).mkdir()
            servers.append(parts.Server(tmp_path / name, env={"DEADBEAT_DATABASE_URL": database.url}))
            # The first makes the project and its keys.
            servers[-1].ready()
        servers[1].keys = servers[0].keys
        # One reader for each process.
        copies = [Copy(servers), Copy(servers[:1])]
        is_over = threading.Event()
        faults: list[BaseException] = []

        def follow(copy: Copy) -> None:
            try:
                while copy.poll() > 0 or not is_over.is_set():
                    pass
            except BaseException as fault:
                faults.append(fault)

        readers = [threading.Thread(target=follow, args=(copy,)) for copy in copies]
        writers = [threading.Thread(target=write, args=(servers, number)) for number in range(WRITERS)]
        for thread in readers + writers:
            thread.start()
        parts.wait_for("a third of the changes", lambda: copies[1].after > 60 or faults, 120)
        servers[1].part.kill()
        servers[1].again()
        for writer in writers:
            writer.join(240)
        assert not any(writer.is_alive() for writer in writers)
        # The pings in the spool of the killed process become changes, too.
        for server in servers:
            server.drained()
        is_over.set()
        for reader in readers:
            reader.join(120)

        assert faults == []
        newest = servers[0].api("GET", "/changes")["next_after"]
        now = {
            (kind, one["id"]): state(kind, one)
            for kind in ("monitor", "incident")
            for one in servers[0].every(f"/{kind}s", f"{kind}s")
        }
        assert {condition for _, condition in now.values()} >= {"up", "down", "open", "resolved"}
        for copy in copies:
            assert copy.after == newest
            assert copy.things == now
    finally:
        for server in servers:
            server.stop()
