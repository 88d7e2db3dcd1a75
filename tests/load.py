"""Numbered pings over several connections to several monitors: each acknowledged ping must be recorded."""

from __future__ import annotations

import contextlib
import http.client
import threading
import time
from collections import defaultdict
from urllib.parse import urlsplit

import parts
import postgres


class Connection(threading.Thread):
    """One client: it pings its monitors in turn, and waits for each answer before the next ping."""

    def __init__(self, number: int, urls: list[str], body: int, pause: float) -> None:
        super().__init__(daemon=True)
        self.number = number
        self.targets = [urlsplit(url) for url in urls]
        self.padding = b" " + b"x" * body
        self.pause = pause
        self.sent = 0
        self.acknowledged: list[int] = []
        # When each ping was sent, and how many seconds its answer took.
        self.answered: list[tuple[float, float]] = []
        # Every answer other than 200, by status and text; status 0 is no answer.
        self.refusals: dict[tuple[int, str], int] = defaultdict(int)
        self.ending = threading.Event()

    def run(self) -> None:
        link: http.client.HTTPConnection | None = None
        while not self.ending.is_set():
            target = self.targets[self.sent % len(self.targets)]
            self.sent += 1
            status, text = 0, ""
            began = time.monotonic()
            try:
                if link is None:
                    link = http.client.HTTPConnection(target.hostname or "", target.port, timeout=30)
                link.request("POST", target.path, f"{self.number}:{self.sent}".encode() + self.padding)
                answer = link.getresponse()
                status, text = answer.status, answer.read().decode()
                if status != 200 and answer.headers.get("retry-after") is None:
                    text += " (without Retry-After)"
            except (OSError, http.client.HTTPException):
                if link is not None:
                    link.close()
                link = None
            if status == 200:
                self.acknowledged.append(self.sent)
                self.answered.append((began, time.monotonic() - began))
            else:
                self.refusals[status, text.strip()] += 1
            self.ending.wait(self.pause if status == 200 else max(self.pause, 0.02))
        if link is not None:
            link.close()


class Load:
    """Pings until it is ended, then checks that the database has every acknowledged ping."""

    def __init__(self, urls: list[str], connections: int, *, body: int = 0, pause: float = 0.0) -> None:
        self.connections = [Connection(n, urls, body, pause) for n in range(connections)]
        for connection in self.connections:
            connection.start()

    def acknowledged(self) -> int:
        return sum(len(connection.acknowledged) for connection in self.connections)

    def refusals(self) -> dict[tuple[int, str], int]:
        every: dict[tuple[int, str], int] = defaultdict(int)
        for connection in self.connections:
            for refusal, count in list(connection.refusals.items()):
                every[refusal] += count
        return every

    def wait_for_more(self, count: int = 30, limit: float = 60) -> None:
        """Wait until the server has acknowledged this many more pings of each connection."""
        wanted = [len(connection.acknowledged) + count for connection in self.connections]

        def there() -> bool:
            return all(len(c.acknowledged) >= w for c, w in zip(self.connections, wanted, strict=True))

        parts.wait_for("pings", there, limit)

    def end(self) -> None:
        for connection in self.connections:
            connection.ending.set()
        for connection in self.connections:
            connection.join(40)
            assert not connection.is_alive()

    def check(self, url: str, *, only: set[str] | None = None) -> None:
        """Check that each acknowledged ping is there, once and in order, and that numbers have no holes."""
        recorded: dict[int, list[int]] = defaultdict(list)
        last: dict[str, int] = {}
        latest: dict[tuple[str, int], tuple[int, str]] = {}
        for monitor, n, received_at, body in postgres.rows(
            url,
            "SELECT monitor_id, n, to_char(received_at AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI:SS.US'),"
            " split_part(convert_from(body, 'UTF8'), ' ', 1)"
            " FROM ping LEFT JOIN ping_body USING (monitor_id, n, received_at) ORDER BY monitor_id, n",
        ):
            if only is not None and monitor not in only:
                continue
            before = last.get(monitor, 0)
            assert int(n) == before + 1, f"{monitor}: {before} is followed by {n}"
            last[monitor] = int(n)
            connection, number = (int(part) for part in body.split(":"))
            # The order between pings of two connections is unknown.
            number_before, came_before = latest.get((monitor, connection), (0, ""))
            assert number > number_before, (
                f"{monitor}: connection {connection}: {number} after {number_before}"
            )
            assert received_at > came_before, f"{monitor}: connection {connection}: {number} keeps its time"
            latest[monitor, connection] = number, received_at
            recorded[connection].append(number)
        for connection in self.connections:
            there = recorded[connection.number]
            assert len(there) == len(set(there)), f"connection {connection.number}: some are there twice"
            lost = set(connection.acknowledged) - set(there)
            assert not lost, (
                f"connection {connection.number}: {len(lost)} acknowledged pings are lost: {sorted(lost)[:9]}"
            )
            assert max(there, default=0) <= connection.sent

    def __enter__(self) -> Load:
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(AssertionError):
            self.end()
