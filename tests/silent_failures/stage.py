"""The stage of a row: its own project and broker, and the example application's processes."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shlex
import signal
import subprocess
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from celery import Celery

import parts

EXAMPLE = Path(__file__).resolve().parent / "example"

# Short, so that the rows are; see sdk-python/README.md for the product's defaults.
GRACE = 4.0
BEAT_PERIOD = 1.0
BEAT_GRACE = 4.0
WORKER_PERIOD = 1.0
# When an alert about silence is due: from the settings above and the server's constants.
BEAT_DEADLINE = BEAT_PERIOD + BEAT_GRACE
WORKER_DEADLINE = WORKER_PERIOD + 25.0
SAMPLE_PERIOD = 10.0
# The time that the fault must last, and the interval of samples.
UNCONSUMED_DEADLINE = 30.0 + SAMPLE_PERIOD
# A worker that stops in order may be replaced within this time.
REPLACED_WITHIN = 120.0
# The same, and the wait for an answer.
BROKER_DEADLINE = 20.0 + SAMPLE_PERIOD + 2.0
GHOST_DEADLINE = 60.0 + WORKER_PERIOD
# Two Beats side by side: a deployment takes less.
OVERLAP_PATIENCE = 120.0
# A worker that has just started may answer before it reports.
REPORTS_WITHIN = 15.0
CANARY = "deadbeat.canary"
# A list that is empty for a moment opens no incident.
EMPTIED_PATIENCE = 30.0
# For a message that began a second time: its worker first reports whether the first run is still alive.
CONTEST_PATIENCE = 7.0
# The tolerance beyond the deadline that the product promises.
TOLERANCE = 5.0

# Kind of subject, its name, the incident's cause.
Alerted = tuple[str, str, str]


@dataclass
class Row:
    """One line of the table: the fault and the result."""

    number: str
    fault: str
    deadline: float | None = None
    cause: str = "none"
    seconds: float | None = None
    repair: str = ""
    # Whether every promise of the row held.
    held: bool = False

    def silent(self) -> None:
        """Record that no alert came, which is right."""
        self.cause = "none, as it should be"
        self.held = True


@dataclass(frozen=True)
class Host:
    """A simulated machine for the processes that see it: its name, and the id of its start."""

    name: str
    boot_id: str = field(default_factory=lambda: str(uuid.uuid4()))

    def around(self, command: list[str], folder: Path) -> list[str]:
        """The command that starts there. The kernel gives both values; no process can set the boot id."""
        file = folder / f"boot-{self.boot_id}"
        file.write_text(f"{self.boot_id}\n")
        inside = 'hostname "$1" && mount --bind "$2" /proc/sys/kernel/random/boot_id && shift 2 && exec "$@"'
        spaces = ["unshare", "--map-root-user", "--mount", "--uts"]
        return [*spaces, "sh", "-c", inside, "sh", self.name, str(file), *command]


@dataclass
class Project:
    """The server of the stage's processes, and their keys."""

    url: str
    api_key: str
    ping_key: str

    def api(self, method: str, path: str, body: Any = None) -> Any:
        status, _, answer = parts.call(method, f"{self.url}/api/v1{path}", self.api_key, body)
        assert 200 <= status < 300, (method, path, status, answer)
        return json.loads(answer) if answer else None


@dataclass
class Stage:
    """The application's processes and Deadbeat's incidents about them."""

    project: Project
    broker: str
    folder: Path
    sink: parts.Sink
    schedule: dict[str, dict[str, Any]]
    settings: dict[str, Any] = field(default_factory=dict)
    env: dict[str, str] = field(default_factory=dict)
    channel: str = ""
    running: list[parts.Part] = field(default_factory=list)

    def __post_init__(self) -> None:
        for name in ("orders", "pids"):
            (self.folder / name).mkdir(exist_ok=True)
        self.deploy()
        sink = {"kind": "webhook", "name": "sink", "settings": {"url": self.sink.url}}
        self.channel = self.project.api("POST", "/channels", sink)["id"]
        self.env = {
            "CELERY_BROKER_URL": self.broker,
            "DEADBEAT_URL": self.project.url,
            "DEADBEAT_KEY": self.project.ping_key,
            "DEADBEAT_GRACE_SECONDS": f"{GRACE:g}",
            "DEADBEAT_BEAT_PERIOD_SECONDS": f"{BEAT_PERIOD:g}",
            "DEADBEAT_BEAT_GRACE_SECONDS": f"{BEAT_GRACE:g}",
            "DEADBEAT_CANARY_SECONDS": "2",
            "DEADBEAT_CANARY_GRACE_SECONDS": f"{GRACE:g}",
            "DEADBEAT_WORKER_PERIOD_SECONDS": f"{WORKER_PERIOD:g}",
            "PYTHONPATH": f"{EXAMPLE}{os.pathsep}{parts.ROOT / 'sdk-python' / 'src'}",
            "SHOP_FOLDER": str(self.folder),
            **self.env,
        }

    # The application.

    def deploy(self) -> None:
        """Write the settings for processes that start from now on."""
        (self.folder / "schedule.json").write_text(json.dumps(self.schedule))
        (self.folder / "settings.json").write_text(json.dumps(self.settings))

    def celery(
        self, name: str, *arguments: str, env: dict[str, str] | None = None, host: Host | None = None
    ) -> parts.Part:
        command = [parts.program("celery"), "-A", "shop", *arguments]
        if host is not None:
            command = host.around(command, self.folder)
        part = parts.Part(name, command, self.folder, {**self.env, **(env or {})})
        self.running.append(part)
        return part

    def worker(
        self,
        name: str = "one",
        *options: str,
        processes: int = 2,
        queues: str = "celery",
        env: dict[str, str] | None = None,
        host: Host | None = None,
    ) -> parts.Part:
        """A worker; its node is `NAME@shop`."""
        size = ["--concurrency", str(processes), "--loglevel", "info"]
        words = ["worker", "-n", f"{name}@shop", "-Q", queues, *size, *options]
        return self.celery(name, *words, env=env, host=host)

    def beat(self, *options: str, env: dict[str, str] | None = None, host: Host | None = None) -> parts.Part:
        return self.celery("beat", "beat", *options, env=env, host=host)

    @property
    def control(self) -> Any:
        """Celery's remote control, from outside the application."""
        return Celery("shop", broker=self.broker).control

    def depth(self, queue: str) -> int:
        """The number of messages in an existing queue."""
        with Celery("shop", broker=self.broker).connection_for_read() as connection:
            return int(connection.default_channel.queue_declare(queue, passive=True).message_count)

    def order(self, name: str, what: str) -> None:
        """Order the task of that entry to do this from now on."""
        fresh = self.folder / "orders.new"
        fresh.write_text(what)
        fresh.rename(self.folder / "orders" / name)
        (self.folder / "pids" / name).unlink(missing_ok=True)

    def recall(self, name: str) -> None:
        """Withdraw the order: the task of that entry is healthy again."""
        (self.folder / "orders" / name).unlink(missing_ok=True)

    def at_work(self, name: str, limit: float = 40.0) -> tuple[int, str]:
        """Wait for a run that carries out an order; returns its process and task id."""
        file = self.folder / "pids" / name
        words = parts.wait_for(
            f"a run of {name}",
            lambda: file.exists() and file.read_text().split()[1:] and file.read_text(),
            limit,
        ).split()
        return int(words[0]), words[1]

    # Deadbeat's answers.

    def monitors(self) -> dict[str, dict[str, Any]]:
        return {one["name"]: one for one in self.project.api("GET", "/monitors?limit=500")["monitors"]}

    def workers(self) -> dict[str, dict[str, Any]]:
        return {one["name"]: one for one in self.project.api("GET", "/workers")["workers"]}

    def queues(self) -> dict[str, dict[str, Any]]:
        return {one["name"]: one for one in self.project.api("GET", "/queues")["queues"]}

    def incidents(self) -> list[dict[str, Any]]:
        return self.project.api("GET", "/incidents?limit=500")["incidents"]

    def alerted(self) -> list[Alerted]:
        return sorted(alerted_of(incident) for incident in self.incidents())

    def was_repeated(self, incident: dict[str, Any]) -> bool:
        """True if the incident is about a run that the workers really executed twice, by their logs.

        Redis redelivers a message if its acknowledgement is lost with a connection or at a shutdown.
        """
        if alerted_of(incident)[2] != "DUPLICATE_RUN":
            return False
        run = re.search(r"the run ([0-9a-f-]{36}) of", str(incident["evidence"]))
        if run is None:
            return False
        return sum(part.text().count(f"[{run[1]}] succeeded") for part in self.running) > 1

    def healthy(self, *names: str, workers: tuple[str, ...] = ("one@shop",), runs: int = 2) -> None:
        """Wait until Beat, these workers and these entries (default: all) are up."""
        wanted = names or tuple(self.schedule)

        def poll() -> str:
            monitors, up = self.monitors(), self.workers()
            for name in workers:
                if up.get(name, {}).get("status") != "up":
                    return f"worker {name}"
            for name in wanted:
                one = monitors.get(name)
                # Start and end of each run.
                if one is None or one["status"] not in ("up", "late") or one["ping_count"] < 2 * runs:
                    return f"entry {name}: {one and (one['status'], one['ping_count'])}"
            beats = [beat["status"] for beat in self.project.api("GET", "/beats")["beats"]]
            return "" if beats == ["up"] else f"Beat: {beats}"

        last = "nothing"

        def is_well() -> bool:
            nonlocal last
            last = poll()
            return not last

        try:
            parts.wait_for("health", is_well, 90)
        except AssertionError as late:
            raise AssertionError(f"{late}: still waiting for {last}") from None
        assert self.alerted() == []
        assert self.sink.received == []

    def recovered(self) -> None:
        """Wait until all entries that are due often are up again."""
        names = {*self.schedule, CANARY} & set(self.monitors())

        def poll() -> list[str]:
            monitors = self.monitors()
            return [name for name in names if monitors[name]["status"] not in ("up", "late")]

        parts.wait_for("recovery", lambda: not poll(), 60)

    def lively(self, *names: str, runs: int = 3) -> None:
        """Wait until each of these entries has reported this many more runs."""
        before = self.monitors()

        def poll() -> bool:
            now = self.monitors()
            return all(now[name]["ping_count"] >= before[name]["ping_count"] + 2 * runs for name in names)

        parts.wait_for("more runs", poll, 60)

    def noticed(
        self, row: Row, since: float, alerted: Alerted, deadline: float, patience: float = 12.0
    ) -> dict[str, Any]:
        """Wait for the alert, which must come in time after `since`; returns its incident."""
        row.deadline = deadline

        def poll() -> dict[str, Any] | None:
            alerts = self.sink.alerts("incident.opened")
            row.cause = (
                ", ".join(sorted({alerted_of(one["json"]["incident"])[2] for one in alerts})) or "none"
            )
            return next((one for one in alerts if alerted_of(one["json"]["incident"]) == alerted), None)

        limit = max(1.0, since + deadline + patience - time.time())
        try:
            alert = parts.wait_for(f"{alerted}", poll, limit)
        except AssertionError as late:
            raise AssertionError(f"{late}; told was: {self.alerted()}") from None
        row.cause = alerted[2]
        row.seconds = max(0.0, alert["at"] - since)
        assert row.seconds <= deadline + TOLERANCE, f"{alerted} came {row.seconds:.1f} s after the fault"
        return next(one for one in self.incidents() if one["id"] == alert["json"]["incident"]["id"])

    def stays(self, seconds: float, *alerted: Alerted) -> None:
        """Check for this time that exactly these alerts came, each once."""
        end = time.monotonic() + seconds

        def poll() -> bool:
            assert self.alerted() == sorted(alerted), f"{self.alerted()} and not {sorted(alerted)}"
            time.sleep(0.2)
            return time.monotonic() > end

        parts.wait_for("a while", poll, seconds + 30)
        alerts = [alerted_of(one["json"]["incident"]) for one in self.sink.alerts("incident.opened")]
        assert sorted(alerts) == sorted(alerted), "one alert each"

    def members(self, alerted: Alerted, wanted: set[str], limit: float = 30.0) -> None:
        """Wait until these, and no others, are members of that incident."""

        def poll() -> set[str]:
            incident = next(one for one in self.incidents() if alerted_of(one) == alerted)
            return {member["name"] for member in incident["members"]}

        try:
            parts.wait_for("the members", lambda: poll() == wanted, limit)
        except AssertionError:
            raise AssertionError(f"members of {alerted} are {poll()} and not {wanted}") from None

    def type_in(self, incident: dict[str, Any], words: str) -> parts.Part | None:
        """Run the incident's command that has these words. A command that does not end is left running."""
        commands = [
            step["command"] for step in incident["repair"] if (step["command"] or "").startswith("celery ")
        ]
        command = next((command for command in commands if words in command), None)
        assert command is not None, f"no repair with {words!r} among {commands}"
        asked = shlex.split(command)
        assert asked[:3] == ["celery", "-A", "shop"], command
        if asked[3] in ("beat", "worker"):
            return self.celery(f"repair-{asked[3]}", *asked[3:])
        asked[0] = parts.program("celery")
        done = subprocess.run(
            asked,
            cwd=self.folder,
            env={**os.environ, **self.env},
            check=False,
            capture_output=True,
            timeout=60,
        )
        assert done.returncode == 0, (command, done.stdout, done.stderr)
        return None

    def resolved(self, row: Row, incident: dict[str, Any], limit: float = 60.0, repair: str = "yes") -> None:
        """Wait for the end of the incident and its alert."""
        parts.wait_for(
            f"the end of {alerted_of(incident)}",
            lambda: any(
                one["json"]["incident"]["id"] == incident["id"]
                for one in self.sink.alerts("incident.resolved")
            ),
            limit,
        )
        row.repair = repair

    def logs(self) -> str:
        """Details for a row that does not hold."""
        alerted = []
        for path in ("/incidents", "/beats", "/workers", "/queues", "/brokers"):
            with contextlib.suppress(AssertionError):
                alerted.append(f"{path}: {json.dumps(self.project.api('GET', path))}")
        with contextlib.suppress(AssertionError):
            shown = ("status", "running", "ping_count", "next_due_at", "deadline_at")
            alerted += [
                f"{name}: { {key: one[key] for key in shown} }" for name, one in self.monitors().items()
            ]
        for part in self.running:
            alerted.append(f"---- {part.name} ({part.process.poll()})\n{part.text()[-4000:]}")
        return "\n".join(alerted)

    def end(self) -> None:
        # The end of all processes is a fault, too, and the next sink may get this port. A row may have ended
        # the server.
        with contextlib.suppress(AssertionError):
            self.project.api("DELETE", f"/channels/{self.channel}")
        for part in reversed(self.running):
            with contextlib.suppress(ProcessLookupError):
                os.killpg(part.process.pid, signal.SIGKILL)
            part.process.wait(30)
            part.out.close()
        self.sink.stop()


def alerted_of(incident: dict[str, Any]) -> Alerted:
    return incident["subject"]["kind"], incident["subject"]["name"], incident["cause"]["code"]


def children(part: parts.Part) -> list[int]:
    """The children of a process."""
    listed = Path(f"/proc/{part.process.pid}/task/{part.process.pid}/children").read_text()
    return [int(pid) for pid in listed.split()]


def new_project(server: parts.Server) -> Project:
    """A project beside a running server."""
    made = subprocess.run(
        [str(parts.BINARY), "project", "create", "--name", "row", "--json", "--data-dir", str(server.data)],
        env={**os.environ, **server.env},
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    keys = json.loads(made.stdout)
    return Project(server.url, keys["api_key"], keys["ping_key"])


@contextlib.contextmanager
def ended(*started: Any) -> Iterator[None]:
    """End brokers and the like, whatever happens."""
    try:
        yield
    finally:
        for one in started:
            one.stop()


Open = Callable[..., Stage]
