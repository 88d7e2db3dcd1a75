"""The project beside the attacker's: it pings, has monitors that really miss reports, and opens its pages."""

from __future__ import annotations

import http.client
import re
import threading
import time
from dataclasses import dataclass
from itertools import cycle
from urllib.parse import urlencode

import parts
import postgres
from load import Load
from neighbourhood.project import Project

# A steady monitor gets several pings a second: it goes down if pings are lost or delayed for long.
STEADY = {"schedule": {"kind": "interval", "seconds": 2}, "grace_seconds": 8}
SILENCE = 10.0
# Each of these monitors gets one ping, and goes down two seconds later.
MISSED = {"schedule": {"kind": "interval", "seconds": 1}, "grace_seconds": 1}
DEADLINE = 2.0


@dataclass(frozen=True)
class Sample:
    """One measured value, at an instant of the monotonic clock."""

    at: float
    seconds: float


def at_most(samples: list[Sample], part: float) -> float:
    """The quantile of the samples for this share, in seconds."""
    ordered = sorted(sample.seconds for sample in samples)
    return ordered[min(len(ordered) - 1, int(len(ordered) * part))] if ordered else float("nan")


class Loop(threading.Thread):
    """Repeats one action until it is ended; its end raises the exception of the action, if there was one."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.samples: list[Sample] = []
        self.ending = threading.Event()
        self.error: BaseException | None = None

    def run(self) -> None:
        try:
            while not self.ending.is_set():
                self.once()
        except BaseException as error:
            self.error = error

    def once(self) -> None:
        raise NotImplementedError

    def end(self) -> None:
        self.ending.set()
        self.join(120)
        assert not self.is_alive(), f"{type(self).__name__} does not end"
        if self.error is not None:
            raise self.error


class Misses(Loop):
    """A monitor gets one ping, goes down, and its alert comes; the next ping resolves the incident."""

    def __init__(self, project: Project, sink: parts.Sink, name: str) -> None:
        super().__init__()
        self.sink = sink
        self.project = project
        self.monitor = project.api("POST", "/monitors", {"name": name, **MISSED})
        self.misses = 0

    def opened(self) -> list[tuple[float, str]]:
        """When the first alert of each incident came."""
        first: dict[str, float] = {}
        for one in self.sink.alerts("incident.opened"):
            incident = one["json"]["incident"]
            if incident["subject"]["name"] == self.monitor["name"]:
                first.setdefault(incident["id"], one["at"])
        return [(at, incident) for incident, at in first.items()]

    def once(self) -> None:
        # It would flap: a pause forgets the incidents before.
        self.project.api("POST", f"/monitors/{self.monitor['id']}/pause")
        sent, at = time.time(), time.monotonic()
        status, _, answer = parts.call("POST", self.monitor["ping_url"], limit=60)
        assert status == 200, (status, answer)
        self.misses += 1
        opened = parts.wait_for(
            f"the alert of miss {self.misses} of {self.monitor['name']}",
            lambda: len(found := self.opened()) >= self.misses and found,
            120,
        )
        self.samples.append(Sample(at, opened[-1][0] - sent - DEADLINE))


class Pages(Loop):
    """A person who opens the pages, one after the other."""

    def __init__(self, project: Project, pause: float) -> None:
        super().__init__()
        self.pause = pause
        server = project.server
        self.paths = cycle([f"{page}?project={project.id}" for page in ("/", "/runs", "/tasks")])
        self.link = http.client.HTTPConnection("127.0.0.1", server.port, timeout=60)
        self.cookie = self.sign_in(server.keys["password"])

    def sign_in(self, password: str) -> str:
        self.link.request("GET", "/sign-in")
        page = self.link.getresponse()
        cookie = (page.getheader("Set-Cookie") or "").split(";")[0]
        token = re.search(r'name="form_token" value="([^"]+)"', page.read().decode())
        assert token is not None
        form = urlencode({"form_token": token[1], "email": "admin@localhost", "password": password})
        headers = {"Cookie": cookie, "Content-Type": "application/x-www-form-urlencoded"}
        self.link.request("POST", "/sign-in", form, headers)
        answer = self.link.getresponse()
        answer.read()
        assert answer.status == 303, answer.status
        return (answer.getheader("Set-Cookie") or "").split(";")[0]

    def once(self) -> None:
        path, at = next(self.paths), time.monotonic()
        self.link.request("GET", path, headers={"Cookie": self.cookie})
        answer = self.link.getresponse()
        body = answer.read()
        assert answer.status == 200, (path, answer.status, body[:500])
        self.samples.append(Sample(at, time.monotonic() - at))
        self.ending.wait(self.pause)

    def end(self) -> None:
        super().end()
        self.link.close()


class Neighbour:
    """The whole project at once, with its checks."""

    def __init__(self, project: Project, sink: parts.Sink, *, pause: float) -> None:
        self.project = project
        self.sink = sink
        project.api("POST", "/channels", {"kind": "webhook", "name": "sink", "settings": {"url": sink.url}})
        self.misses = [Misses(project, sink, f"missed {n}") for n in range(4)]
        self.pages = Pages(project, pause)
        self.steady = [project.api("POST", "/monitors", {"name": f"steady {n}", **STEADY}) for n in range(8)]
        self.load = Load([monitor["ping_url"] for monitor in self.steady], 2, body=100, pause=pause / 4)
        # The time of the answer to the last ping of a steady monitor.
        self.ended_at = 0.0
        for loop in (self.pages, *self.misses):
            loop.start()

    def has_seen(self, since: float) -> bool:
        """True if an action of every kind began and ended since then."""
        kinds = [self.pages.samples, self.pings(), *(one.samples for one in self.misses)]
        failed = [loop.error for loop in (self.pages, *self.misses) if loop.error is not None]
        assert not failed, failed
        return all(any(sample.at >= since for sample in list(kind)) for kind in kinds)

    def pings(self) -> list[Sample]:
        return [Sample(*one) for each in self.load.connections for one in list(each.answered)]

    def between(self, start: float, end: float) -> dict[str, list[Sample]]:
        """The samples from `start` to `end`, by kind."""
        kinds = {
            "ping": self.pings(),
            "alert": [sample for one in self.misses for sample in one.samples],
            "page": list(self.pages.samples),
        }
        return {
            kind: [sample for sample in samples if start <= sample.at < end]
            for kind, samples in kinds.items()
        }

    def end(self) -> None:
        """End everything. Raises the first fault: a refused page, or a missing alert."""
        loops = (self.pages, *self.misses)
        for loop in loops:
            loop.ending.set()
        try:
            for loop in loops:
                loop.end()
        finally:
            self.load.end()
            self.ended_at = time.time()

    def stop(self) -> None:
        """Stop everything after a failure, without checks."""
        for thread in (self.pages, *self.misses, *self.load.connections):
            thread.ending.set()

    def check(self, database: str) -> None:
        """Check after the end: no ping refused or lost, no false alert, one incident and one alert a miss."""
        assert not self.load.refusals(), self.load.refusals()
        self.load.check(database, only={monitor["id"] for monitor in self.steady})
        incidents = self.project.every("/incidents", "incidents")
        # No ping comes any more: some time later the steady monitors rightly go down.
        early = [one for one in incidents if parts.instant(one["opened_at"]) < self.ended_at + SILENCE / 2]
        names = {one.monitor["name"] for one in self.misses}
        false = [one for one in early if one["subject"]["name"] not in names]
        assert not false, f"false alarms: {false}"
        for one in self.misses:
            found = [i for i in incidents if i["subject"]["name"] == one.monitor["name"]]
            assert len(found) == one.misses, f"{one.misses} misses of {one.monitor['name']}: {found}"
            assert {i["cause"]["code"] for i in found} <= {"MISSED"}, found
            assert {i["id"] for i in found} == {incident for _, incident in one.opened()}
        alerted: dict[str, set[str]] = {}
        for alert in self.sink.alerts("incident.opened"):
            incident = alert["json"]["incident"]["id"]
            alerted.setdefault(incident, set()).add(alert["headers"]["webhook-id"])
        assert all(len(deliveries) == 1 for deliveries in alerted.values()), f"alerts by incident: {alerted}"
        kinds = {one["json"]["type"] for one in self.sink.received}
        assert kinds <= {"incident.opened", "incident.resolved"}, f"told of another project: {kinds}"


def recorded(database: str, monitor: str) -> int:
    """The number of a monitor's pings in the database; checks that their numbers have no holes."""
    [[count, last]] = postgres.rows(
        database, f"SELECT count(*), coalesce(max(n), 0) FROM ping WHERE monitor_id = '{monitor}'"
    )
    assert count == last, f"{count} pings up to number {last}"
    return int(count)
