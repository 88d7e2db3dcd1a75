"""The attacks, each as a separate process: `attack.py NAME GIVEN` prints its answers. GIVEN is JSON.

Every attack uses one project's keys and one network address, at a given rate. It comes from its own address
(127.0.0.2) and runs at a low priority (`nice`), because a real attacker has another machine.
"""

from __future__ import annotations

import contextlib
import gzip
import http.client
import json
import os
import resource
import select
import socket
import sys
import threading
import time
import uuid
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import postgres

FROM = "127.0.0.2"
HOUR = {"kind": "interval", "seconds": 3600}
# Seconds that an attacker waits for an answer.
PATIENCE = 60


@dataclass(frozen=True)
class Given:
    """The attacker's keys, and the size of its attack."""

    port: int
    api_key: str
    ping_key: str
    database: str
    seconds: float
    # Requests a second of the attacks that send many.
    rate: float
    channels: int
    connections: int
    # Rows of the monitor that the attack deletes.
    rows: int
    # A file: the attack begins once it exists. Everything that it needs is created before the quiet stretch.
    signal: str


class Client:
    """One connection of the attacker, opened again after it was closed."""

    def __init__(self, attack: Attack) -> None:
        self.attack = attack
        self.link: http.client.HTTPConnection | None = None

    def send(
        self,
        what: str,
        method: str,
        path: str,
        body: bytes | None = None,
        key: str | None = None,
        **headers: str,
    ) -> tuple[int, Any]:
        """Send a request, and count its answer under `what`. Status 0: no answer came."""
        if key is not None:
            headers["Authorization"] = f"Bearer {key}"
        sent = {name.replace("_", "-"): value for name, value in headers.items()}
        status, text = 0, b""
        try:
            if self.link is None:
                self.link = http.client.HTTPConnection(
                    "127.0.0.1", self.attack.given.port, timeout=PATIENCE, source_address=(FROM, 0)
                )
            self.link.request(method, path, body, sent)
            answer = self.link.getresponse()
            status, text = answer.status, answer.read()
        except (OSError, http.client.HTTPException):
            if self.link is not None:
                self.link.close()
            self.link = None
        self.attack.count(what, status)
        with contextlib.suppress(ValueError):
            return status, json.loads(text)
        return status, text.decode(errors="replace")

    def api(self, what: str, method: str, path: str, body: Any = None) -> tuple[int, Any]:
        data = None if body is None else json.dumps(body).encode()
        return self.send(
            what, method, f"/api/v1{path}", data, self.attack.given.api_key, Content_Type="application/json"
        )

    def monitor(self, name: str) -> tuple[str, str]:
        """A new monitor: its id, and the path of its ping URL."""
        status, made = self.api("monitor", "POST", "/monitors", {"name": name, "schedule": HOUR})
        if status != 201:
            raise RuntimeError(f"no monitor: {status} {made}")
        return made["id"], "/" + made["ping_url"].split("/", 3)[3]

    def events(self, what: str, *events: dict[str, Any]) -> int:
        body = json.dumps({"sent_at": now(), "events": list(events)}).encode()
        return self.send(what, "POST", "/api/v1/events", body, self.attack.given.ping_key)[0]


def now() -> str:
    return datetime.now(UTC).isoformat()


class Attack:
    """A running attack: its end, and the server's answers."""

    def __init__(self, given: Given) -> None:
        self.given = given
        self.end = float("inf")
        self.lock = threading.Lock()
        self.answers: Counter[str] = Counter()
        # Beside the answers: facts that a test checks afterwards.
        self.facts: dict[str, Any] = {}

    def count(self, what: str, status: int) -> None:
        with self.lock:
            self.answers[f"{what} {status}"] += 1

    def begin(self) -> None:
        """Report that everything the attack needs exists; wait for the order to begin."""
        print("ready", flush=True)
        while not Path(self.given.signal).exists():
            time.sleep(0.05)
        self.end = time.monotonic() + self.given.seconds

    def goes_on(self) -> bool:
        return time.monotonic() < self.end

    def by(self, clients: int, rate: float, send: Callable[[Client, int], None]) -> list[threading.Thread]:
        """This many clients call `send` with a number (0, 1, …, over all of them), at this rate in total."""
        numbers, began = iter(range(sys.maxsize)), time.monotonic()

        def run() -> None:
            client = Client(self)
            while self.goes_on():
                with self.lock:
                    number = next(numbers)
                time.sleep(max(0.0, min(began + number / rate, self.end) - time.monotonic()))
                if self.goes_on():
                    send(client, number)

        threads = [threading.Thread(target=run, daemon=True) for _ in range(clients)]
        for thread in threads:
            thread.start()
        return threads


def wait(*groups: list[threading.Thread]) -> None:
    for group in groups:
        for thread in group:
            thread.join()


def constant_rid(attack: Attack) -> None:
    """Pings with one run id, again and again: each end of a run makes a row."""
    monitor, path = Client(attack).monitor("constant")
    attack.facts["monitor"] = monitor
    rid = uuid.uuid4()
    attack.begin()

    def ping(client: Client, number: int) -> None:
        what = "/start" if number % 4 == 0 else ""
        client.send("ping", "POST", f"{path}{what}?rid={rid}")

    wait(attack.by(8, attack.given.rate, ping))


def channels(attack: Attack, url: str) -> None:
    """Many channels, as many tests as the server accepts, and incidents that all channels get."""
    client = Client(attack)
    made = []
    for n in range(attack.given.channels):
        body = {"kind": "webhook", "name": f"c{n}", "settings": {"url": f"{url}/{n}"}}
        status, channel = client.api("channel", "POST", "/channels", body)
        if status == 201:
            made.append(channel["id"])
    attack.facts["channels"] = len(made)
    paths = [client.monitor(f"m{n}")[1] for n in range(5)]
    attack.begin()

    def test(client: Client, number: int) -> None:
        client.api("test", "POST", f"/channels/{made[number % len(made)]}/test")

    def fail(client: Client, number: int) -> None:
        what = "/fail" if (number // len(paths)) % 2 == 0 else ""
        client.send("ping", "POST", f"{paths[number % len(paths)]}{what}")

    wait(attack.by(2, 30, test), attack.by(1, 2, fail))


def hanging_channels(attack: Attack) -> None:
    """Channels whose endpoints accept a connection and never answer."""
    listener = socket.create_server(("127.0.0.1", 0), backlog=1_024)
    held: list[socket.socket] = []

    def accept() -> None:
        while True:
            held.append(listener.accept()[0])

    threading.Thread(target=accept, daemon=True).start()
    channels(attack, f"http://127.0.0.1:{listener.getsockname()[1]}")
    attack.facts["hung"] = len(held)


def failing_channels(attack: Attack) -> None:
    """Channels that fail permanently: each is a reason to notify the others."""
    gone = Counter[str]()

    class Gone(BaseHTTPRequestHandler):
        def do_POST(self) -> None:  # the name that http.server calls
            self.rfile.read(int(self.headers.get("Content-Length", 0)))
            gone["all"] += 1
            self.send_response(410)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Gone)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    channels(attack, f"http://127.0.0.1:{server.server_address[1]}")
    attack.facts["refused"] = gone["all"]


def leaked_key(attack: Attack) -> None:
    """Endless new monitors and keys, and bodies of the largest kept size."""
    given, body = attack.given, b"x" * 100_000
    attack.facts["monitor"], path = Client(attack).monitor("bodies")
    attack.begin()

    def create(client: Client, number: int) -> None:
        client.send("create", "GET", f"/ping/{given.ping_key}/job-{number}?create=1")

    def fill(client: Client, _: int) -> None:
        client.send("body", "POST", path, body)

    def issue(client: Client, number: int) -> None:
        client.api("key", "POST", "/api-keys", {"name": f"key {number}", "scope": "ping"})

    share = given.rate / 4
    wait(attack.by(8, share, create), attack.by(4, share, fill), attack.by(2, share / 4, issue))


def is_readable(link: socket.socket) -> bool:
    # Not select(), which accepts no file descriptor above 1,023.
    poll = select.poll()
    poll.register(link, select.POLLIN)
    return bool(poll.poll(0))


def slow_bodies(attack: Attack) -> None:
    """Connections that send a byte a second, send nothing, or send a request and never read the answer."""
    key = attack.given.ping_key
    posts = [
        f"POST {path} HTTP/1.1\r\nHost: x\r\nX-Api-Key: {key}\r\nContent-Length: 100000\r\n\r\nx".encode()
        for path in ("/sign-in", "/api/v1/events", f"/ping/{key}/slow?create=1")
    ]
    # More answers than a small socket buffer holds: the server must wait for a client that does not read.
    # Few connections do it: many would be a flood of requests, which a reverse proxy limits.
    greedy = b"GET /sign-in HTTP/1.1\r\nHost: x\r\n\r\n" * 300
    readers = 20
    heads = [*posts, b"", b"GET /sign-in HT"]
    kinds = ["body", "body", "body", "idle", "head"]
    open_ones: dict[int, socket.socket] = {}
    most = 0
    attack.begin()
    while attack.goes_on():
        for n in range(attack.given.connections):
            kind = "reader" if n < readers else kinds[n % len(kinds)]
            link = open_ones.get(n)
            try:
                if link is None:
                    link = socket.create_connection(("127.0.0.1", attack.given.port), 5, (FROM, 0))
                    link.setblocking(False)
                    if kind == "reader":
                        link.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
                    open_ones[n] = link
                    with contextlib.suppress(BlockingIOError):
                        link.send(greedy if kind == "reader" else heads[n % len(heads)])
                    continue
                if kind != "reader" and is_readable(link):
                    # An answer to an incomplete request, or the end of the connection.
                    link.recv(65_536)
                    raise ConnectionError
                if kind == "body":
                    with contextlib.suppress(BlockingIOError):
                        link.send(b"x")
            except OSError:
                attack.count(f"closed-{kind}", 0)
                if link is not None:
                    link.close()
                open_ones.pop(n, None)
        most = max(most, len(open_ones))
        time.sleep(min(1.0, max(0.0, attack.end - time.monotonic())))
    attack.facts["connections"] = most


def gzip_bombs(attack: Attack) -> None:
    """Batches of four kilobytes that unpack to JSON that takes long to read, or to more than the limit."""
    long = f'{{"sent_at": "{now()}", "sdk": [{",".join(["{}"] * 1_000_000)}], "events": []}}'
    bombs = [gzip.compress(long.encode()), gzip.compress(b" " * 100_000_000)]
    attack.facts["bytes"] = [len(bomb) for bomb in bombs]

    def throw(client: Client, number: int) -> None:
        bomb = bombs[number % len(bombs)]
        client.send("bomb", "POST", "/api/v1/events", bomb, attack.given.ping_key, Content_Encoding="gzip")

    attack.begin()
    wait(attack.by(8, attack.given.rate / 20, throw))


def locks(attack: Attack) -> None:
    """Sync schedules of 5,000 entries, delete a large monitor, ping a monitor whose row is locked."""
    given = attack.given
    client = Client(attack)
    large, _ = client.monitor("large")
    held, path = client.monitor("held")
    attack.facts["monitor"] = held
    postgres.rows(
        given.database,
        "INSERT INTO run (id, monitor_id, run_id, status, started_at, finished_at, retries)"
        f" SELECT gen_random_uuid(), '{large}', gen_random_uuid(), 'success', now(), now(), 0"
        f" FROM generate_series(1, {given.rows})",
    )
    entry = {"task": "t", "schedule": HOUR, "grace_seconds": 60}
    entries = [{"name": f"entry {n}", **entry} for n in range(5_000)]

    def hold() -> None:
        # A large delete or sync locks a row in the same way.
        while attack.goes_on():
            seconds = min(5.0, max(0.1, attack.end - time.monotonic()))
            row = f"SELECT FROM monitor WHERE id = '{held}' FOR UPDATE"
            postgres.rows(given.database, f"BEGIN; {row}; SELECT pg_sleep({seconds}); COMMIT")

    def sync(client: Client, number: int) -> None:
        sent = {"id": str(uuid.uuid4()), "at": now(), "type": "beat_schedule", "beat": f"beat {number % 2}"}
        client.events("sync", {**sent, "entries": entries if number % 4 < 2 else entries[:2_500]})

    def delete(client: Client, number: int) -> None:
        if number == 0:
            client.api("delete", "DELETE", f"/monitors/{large}")

    def ping(client: Client, number: int) -> None:
        client.send("ping", "POST", f"{path}?rid={uuid.UUID(int=number + 1)}")

    attack.begin()
    holder = threading.Thread(target=hold, daemon=True)
    holder.start()
    wait(attack.by(2, 2, sync), attack.by(1, 1, delete), attack.by(8, given.rate / 40, ping), [holder])


def fails(attack: Attack) -> None:
    """Send up to 512 failures at once to a monitor that is down, again and again."""
    client = Client(attack)
    monitor, path = client.monitor("failing")
    attack.facts["monitor"] = monitor
    client.send("ping", "POST", f"{path}/fail")
    request = f"POST {path}/fail HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n".encode()
    links: list[http.client.HTTPConnection] = []
    crowd = min(512, attack.given.connections // 2)
    attack.begin()
    # The rate is in failures a second.
    pause = crowd / attack.given.rate
    while attack.goes_on():
        began = time.monotonic()
        while len(links) < crowd:
            link = http.client.HTTPConnection(
                "127.0.0.1", attack.given.port, timeout=PATIENCE, source_address=(FROM, 0)
            )
            link.connect()
            links.append(link)
        for link in links:
            link.sock.sendall(request)
        for link in list(links):
            status = 0
            with contextlib.suppress(OSError, http.client.HTTPException):
                answer = http.client.HTTPResponse(link.sock, method="POST")
                answer.begin()
                status = answer.status
                answer.read()
            attack.count("ping", status)
            if status == 0:
                link.close()
                links.remove(link)
        time.sleep(max(0.0, min(began + pause, attack.end) - time.monotonic()))


def event_floods(attack: Attack) -> None:
    """Ended runs of one entry, 300 in a request, with as many requests at once as many workers send."""
    client = Client(attack)
    event = {"id": str(uuid.uuid4()), "at": now(), "type": "beat_schedule", "beat": "flood"}
    entry = {"name": "flooded", "task": "t", "schedule": HOUR, "grace_seconds": 60}
    client.events("list", {**event, "entries": [entry]})

    def report(client: Client, number: int) -> None:
        run = {"at": now(), "type": "run_finished", "beat": "flood", "entry": "flooded", "outcome": "success"}
        client.events(
            "runs", *({"id": str(uuid.uuid4()), "run_id": str(uuid.uuid4()), **run} for _ in range(300))
        )

    attack.begin()
    wait(attack.by(40, attack.given.rate, report))


def previews(attack: Attack) -> None:
    """Previews that take long to compute: sunsets near a pole, and very rare dates."""
    schedules = [
        {"kind": "solar", "event": "dusk_astronomical", "latitude": 80, "longitude": 0},
        {"kind": "solar", "event": "sunset", "latitude": 67, "longitude": 0},
        {"kind": "quartz", "expression": "59 59 23 29 2 ? 2096"},
        {"kind": "cron", "expression": "0 0 29 2 1", "timezone": "America/Havana"},
    ]

    def preview(client: Client, number: int) -> None:
        schedule = schedules[number % len(schedules)]
        client.api("preview", "POST", "/schedules/preview", {"schedule": schedule, "count": 500})

    attack.begin()
    wait(attack.by(40, attack.given.rate, preview))


def heavy_reads(attack: Attack) -> None:
    """Searches that find nothing among many monitors, and pages and figures of a long history."""
    given, rows = attack.given, min(attack.given.rows, 50_000)
    made, _ = Client(attack).monitor("first")
    postgres.rows(
        given.database,
        "INSERT INTO monitor (id, project_id, ping_id, slug, name, tags, schedule, grace_seconds,"
        " all_channels, status, created_at, updated_at)"
        " SELECT gen_random_uuid(), project_id, gen_random_uuid(), 'm-' || n, 'monitor ' || n, tags,"
        " schedule, grace_seconds, all_channels, status, created_at, updated_at"
        f" FROM monitor, generate_series(1, {rows}) AS n WHERE id = '{made}'",
    )
    postgres.rows(
        given.database,
        "INSERT INTO trace (project_id, run_id, app, task, state, attempts, retries, redelivered, stages,"
        " more_stages, more_starts, heard_first_at, heard_at)"
        " SELECT project_id, gen_random_uuid(), 'shop', 't', 'success', 1, 0, false, '[]', 0, 0,"
        " now() - n * interval '1 second', now()"
        f" FROM monitor, generate_series(1, {rows}) AS n WHERE monitor.id = '{made}'",
    )
    paths = [
        "/monitors?search=nobody&limit=500",
        "/tasks",
        "/runs?worker=nobody&limit=500",
        "/monitors?limit=500",
    ]

    def read(client: Client, number: int) -> None:
        client.api("read", "GET", paths[number % len(paths)])

    attack.begin()
    wait(attack.by(40, given.rate, read))


ATTACKS: dict[str, Callable[[Attack], None]] = {
    attack.__name__: attack
    for attack in (
        constant_rid,
        hanging_channels,
        failing_channels,
        leaked_key,
        slow_bodies,
        gzip_bombs,
        locks,
        fails,
        event_floods,
        previews,
        heavy_reads,
    )
}


def main() -> None:
    os.nice(19)
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    attack = Attack(Given(**json.loads(sys.argv[2])))
    ATTACKS[sys.argv[1]](attack)
    print(json.dumps({"answers": attack.answers, "facts": attack.facts}))


if __name__ == "__main__":
    main()
