"""Faults and healthy events, composed at random from a seed: what happens, when, and which alerts follow.

A seed always gives the same plan. The course still depends on the machine: a run that is open on one machine
may have ended on another.
"""

from __future__ import annotations

import os
import random
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import parts
from silent_failures.stage import (
    BROKER_DEADLINE,
    CANARY,
    TOLERANCE,
    WORKER_DEADLINE,
    WORKER_PERIOD,
    Alerted,
    Stage,
    alerted_of,
    children,
)

# Long enough for a deployment on a slow machine.
PATIENCE = 15.0
BEAT_GONE = 1.0 + PATIENCE
# The interval at which Celery checks the processes of its pool.
POOL_CHECK = 5.0
# Silence that began this shortly before Deadbeat's own absence does not show a fault.
UNREPORTED = 6.0
# How long an incident may stay open after its fault is removed.
RECOVERY = 60.0
QUEUES = "celery,reports"
SCHEDULE: dict[str, dict[str, Any]] = {
    "tick": {"task": "shop.job", "schedule": 1.0},
    "slow": {"task": "shop.job", "schedule": 5.0},
    "flaky": {"task": "shop.job", "schedule": 2.0},
    "fails": {"task": "shop.job", "schedule": 3.0},
    "dies": {"task": "shop.job", "schedule": 4.0},
    "elsewhere": {"task": "shop.job", "schedule": 3.0, "options": {"queue": "reports"}},
}

# An event in steps: each turn runs one step, and the event ends after the last.
Event = Iterator[None]


@dataclass
class Fault:
    """A caused fault, and its one incident once that is open."""

    alerted: Alerted
    since: float
    deadline: float
    # When it was removed.
    until: float | None = None
    incident: str | None = None


@dataclass
class World:
    """The running processes, the faults caused, and the incidents that Deadbeat opened."""

    stage: Stage
    broker: parts.Redis
    server: parts.Server
    chance: random.Random
    beat: parts.Part
    workers: dict[str, parts.Part]
    # Subjects in use by an event: no other event touches them.
    taken: set[str] = field(default_factory=set)
    faults: list[Fault] = field(default_factory=list)
    # For a while after Deadbeat was away, every alert may be this much later.
    away: float = 0.0
    # When Deadbeat was last restarted.
    back_at: float = 0.0
    diary: list[str] = field(default_factory=list)
    born: float = field(default_factory=time.time)
    incidents: list[dict[str, Any]] = field(default_factory=list)
    # Incidents about runs that Redis really delivered twice: no event caused them.
    repeated: set[str] = field(default_factory=set)

    def note(self, words: str) -> None:
        self.diary.append(f"{time.time() - self.born:6.1f} s  {words}")

    def poll(self) -> None:
        """Compares the open incidents with the faults caused."""
        self.incidents = self.stage.incidents()
        known = {fault.incident for fault in self.faults} | self.repeated
        for incident in self.incidents:
            if incident["id"] in known:
                continue
            alerted = alerted_of(incident)
            if self.stage.was_repeated(incident):
                self.note(f"told, of a run that was executed twice: {alerted}")
                self.repeated.add(incident["id"])
                continue
            fault = next(
                (one for one in self.faults if one.alerted == alerted and one.incident is None), None
            )
            evidence = [fact["fact"] for fact in incident["evidence"]]
            summary = f"{incident['cause']['summary']} {evidence}"
            assert fault is not None, f"told without a fault, or twice: {alerted}: {summary}"
            fault.incident = incident["id"]
            self.note(f"told: {alerted}")
        seen = [
            (alerted_of(one)[0], alerted_of(one)[1], alerted_of(one)[2])
            for one in self.incidents
            if one["resolved_at"] is None
        ]
        assert len(seen) == len(set(seen)), f"two open incidents of one subject and cause: {seen}"

    def take(self, name: str) -> None:
        self.taken.add(name)

    def leave(self, name: str) -> None:
        self.taken.discard(name)

    def free_worker(self) -> str | None:
        """A worker that no event uses, if another worker runs beside it."""
        free = sorted(set(self.workers) - self.taken)
        return self.chance.choice(free) if len(free) > 1 else None

    def pause(self, seconds: float) -> Event:
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            yield

    def until(self, what: str, seen: Callable[[], Any], limit: float) -> Event:
        end = time.monotonic() + limit
        while not seen():
            assert time.monotonic() < end, f"{what} did not come within {limit:g} s"
            yield

    def is_up(self, worker: str) -> bool:
        found = self.stage.workers().get(f"{worker}@shop")
        return found is not None and found["status"] == "up"

    def has_reported(self, worker: str) -> Event:
        """Wait for a report of the worker after Deadbeat's return.

        A worker that fell silent while Deadbeat was away may have stopped in order: then no alert comes.
        """

        def is_reporting() -> bool:
            seen = self.stage.workers()[f"{worker}@shop"]["last_seen_at"]
            return seen is not None and parts.instant(seen) > self.back_at

        yield from self.until(f"a report of {worker}", is_reporting, 60)

    def start_worker(self, name: str) -> Event:
        self.workers[name] = self.stage.worker(name, queues=QUEUES)
        yield from self.until(f"worker {name}", lambda: self.is_up(name), 60)

    def is_alerted(self, fault: Fault) -> Event:
        """Wait for the fault's incident, up to its limit."""
        limit = fault.deadline + TOLERANCE
        while fault.incident is None:
            assert time.time() < fault.since + limit + self.away, (
                f"{fault.alerted} made no alert within {limit:g} s (and {self.away:.1f} s for our absence)"
            )
            yield

    def is_over(self, fault: Fault) -> Event:
        """The fault is removed: wait for the end of its incident."""
        fault.until = time.time()
        self.note(f"mended: {fault.alerted}")

        def has_ended() -> bool:
            return any(one["id"] == fault.incident and one["resolved_at"] for one in self.incidents)

        yield from self.until(f"the end of {fault.alerted}", has_ended, RECOVERY)
        self.note(f"resolved: {fault.alerted}")

    def fault(self, alerted: Alerted, deadline: float) -> Fault:
        self.note(f"fault: {alerted}")
        self.faults.append(Fault(alerted, time.time(), deadline))
        return self.faults[-1]


# Faults. Each is caused once, must make one alert, and is removed again.


def kill_worker(world: World) -> Event:
    """SIGKILL to a worker and its pool, whatever they do; another worker goes on."""
    if (name := world.free_worker()) is None:
        return
    world.take(name)
    yield from world.has_reported(name)
    fault = world.fault(("worker", f"{name}@shop", "WORKER_LOST"), WORKER_DEADLINE)
    world.workers[name].kill()
    yield from world.is_alerted(fault)
    yield from world.pause(world.chance.uniform(0, 5))
    yield from world.start_worker(name)
    yield from world.is_over(fault)
    world.leave(name)


def freeze_worker(world: World) -> Event:
    """SIGSTOP to a worker's main process: it reports nothing, and receives nothing."""
    if (name := world.free_worker()) is None:
        return
    world.take(name)
    yield from world.has_reported(name)
    fault = world.fault(("worker", f"{name}@shop", "WORKER_LOST"), WORKER_DEADLINE)
    os.kill(world.workers[name].process.pid, signal.SIGSTOP)
    yield from world.is_alerted(fault)
    os.kill(world.workers[name].process.pid, signal.SIGCONT)
    yield from world.is_over(fault)
    world.leave(name)


def kill_beat(world: World) -> Event:
    """SIGKILL to Beat, twice at most: three times one after the other are a crash loop, which ends later."""
    alerted = ("beat", "shop", "BEAT_DOWN")
    if "beat" in world.taken or sum(fault.alerted == alerted for fault in world.faults) >= 2:
        return
    world.take("beat")
    fault = world.fault(alerted, BEAT_GONE)
    world.beat.kill()
    yield from world.is_alerted(fault)
    yield from world.pause(world.chance.uniform(0, 5))
    world.beat = world.stage.beat()
    yield from world.is_over(fault)
    world.leave("beat")


def freeze_beat(world: World) -> Event:
    """SIGSTOP to Beat."""
    if "beat" in world.taken:
        return
    world.take("beat")
    fault = world.fault(("beat", "shop", "BEAT_DOWN"), BEAT_GONE)
    os.kill(world.beat.process.pid, signal.SIGSTOP)
    yield from world.is_alerted(fault)
    os.kill(world.beat.process.pid, signal.SIGCONT)
    yield from world.is_over(fault)
    world.leave("beat")


def stall_broker(world: World) -> Event:
    """SIGSTOP to Redis: connections stay, and nothing is answered."""
    if world.taken or world.broker.part is None:
        return
    # Every other event would need the broker.
    everything = {"beat", "broker", "server", *world.workers}
    world.taken |= everything
    fault = world.fault(("broker", "shop", "BROKER_DOWN"), BROKER_DEADLINE)
    os.kill(world.broker.part.process.pid, signal.SIGSTOP)
    yield from world.is_alerted(fault)
    os.kill(world.broker.part.process.pid, signal.SIGCONT)
    yield from world.is_over(fault)
    # Workers come back one after the other.
    yield from world.until("workers", lambda: all(world.is_up(name) for name in world.workers), RECOVERY)
    world.taken -= everything


def forget_incidents(world: World, entry: str) -> None:
    """A pause forgets the incidents of the last hour: with a third one the monitor would flap."""
    monitor = world.stage.monitors()[entry]["id"]
    for action in ("pause", "resume"):
        world.stage.project.api("POST", f"/monitors/{monitor}/{action}")


def fail_run(world: World) -> Event:
    """A task raises; the next run succeeds."""
    if "fails" in world.taken:
        return
    world.take("fails")
    forget_incidents(world, "fails")
    fault = world.fault(("monitor", "fails", "FAILED"), 3.0 + PATIENCE)
    world.stage.order("fails", "fail a reason")
    yield from world.is_alerted(fault)
    world.stage.recall("fails")
    yield from world.is_over(fault)
    world.leave("fails")


def kill_run(world: World) -> Event:
    """SIGKILL to a pool process in the middle of a run, as the kernel does when memory is short."""
    if "dies" in world.taken:
        return
    world.take("dies")
    forget_incidents(world, "dies")
    world.stage.order("dies", "alone")
    begun = world.stage.folder / "pids" / "dies"
    yield from world.until("a run", lambda: begun.exists() and begun.read_text().split()[1:], 40)
    # Its start is reported within a second.
    yield from world.until("an open run", lambda: world.stage.monitors()["dies"]["running"], 20)
    pid = int(begun.read_text().split()[0])
    owner = next((name for name, part in world.workers.items() if pid in children(part)), None)
    if owner is None or owner in world.taken:
        # Another event is about to end that worker; this event causes no fault.
        world.stage.recall("dies")
        yield from world.pause(2.0)
        world.leave("dies")
        return
    world.take(owner)
    fault = world.fault(("monitor", "dies", "WORKER_KILLED"), POOL_CHECK + WORKER_PERIOD)
    os.kill(pid, signal.SIGKILL)
    world.stage.recall("dies")
    yield from world.is_alerted(fault)
    yield from world.is_over(fault)
    world.leave(owner)
    world.leave("dies")


# Healthy events. None of them may make an alert.


def deploy_worker(world: World) -> Event:
    """A worker stops in order, and a worker of another node name takes over: a pod is replaced."""
    if (name := world.free_worker()) is None:
        return
    world.take(name)
    world.note(f"healthy: worker {name} is replaced")
    gone = world.workers[name]
    gone.process.terminate()
    yield from world.until("its end", lambda: gone.process.poll() is not None, 60)
    del world.workers[name]
    successor = f"pod{len(world.diary)}"
    world.take(successor)
    yield from world.start_worker(successor)
    world.leave(successor)
    world.leave(name)


def restart_worker(world: World) -> Event:
    """The same under its own name."""
    if (name := world.free_worker()) is None:
        return
    world.take(name)
    world.note(f"healthy: worker {name} is restarted")
    gone = world.workers[name]
    gone.process.terminate()
    yield from world.until("its end", lambda: gone.process.poll() is not None, 60)
    yield from world.start_worker(name)
    world.leave(name)


def scale(world: World) -> Event:
    """One more worker for some seconds."""
    if len(world.workers) > 3:
        return
    name = f"more{len(world.diary)}"
    world.take(name)
    world.note(f"healthy: worker {name} comes and goes")
    yield from world.start_worker(name)
    yield from world.pause(world.chance.uniform(3, 15))
    world.workers[name].process.terminate()
    yield from world.until("its end", lambda: world.workers[name].process.poll() is not None, 60)
    del world.workers[name]
    world.leave(name)


def restart_beat(world: World) -> Event:
    """A deployment of Beat."""
    if "beat" in world.taken:
        return
    world.take("beat")
    world.note("healthy: Beat is restarted")
    world.beat.process.terminate()
    yield from world.until("its end", lambda: world.beat.process.poll() is not None, 30)
    world.beat = world.stage.beat()
    yield from world.pause(5.0)
    world.leave("beat")


def busy(world: World) -> Event:
    """Runs take long for a while, within their limits."""
    if "slow" in world.taken:
        return
    world.take("slow")
    world.note("healthy: runs take long")
    world.stage.order("slow", f"sleep {world.chance.uniform(2, 6):.1f}")
    yield from world.pause(world.chance.uniform(5, 15))
    world.stage.recall("slow")
    world.leave("slow")


def retry(world: World) -> Event:
    """Each run is retried once, for a while."""
    if "flaky" in world.taken:
        return
    world.take("flaky")
    world.note("healthy: runs are retried")
    world.stage.order("flaky", "once the shop is away")
    yield from world.pause(world.chance.uniform(5, 15))
    world.stage.recall("flaky")
    world.leave("flaky")


def restart_server(world: World) -> Event:
    """Deadbeat itself is killed and restarted: alerts may come this much later."""
    # A worker that fell silent this shortly before Deadbeat may have stopped in order meanwhile.
    fresh = any(time.time() - fault.since < UNREPORTED for fault in world.faults if fault.incident is None)
    if fresh or "server" in world.taken:
        return
    world.take("server")
    world.note("healthy: Deadbeat is restarted")
    gone_at = time.time()
    world.server.part.kill_only()
    parts.wait_for("a while", lambda: time.time() > gone_at + 3, 10)
    world.server.again()
    # Deadlines meanwhile get one grace more; a worker's grace is the longest.
    world.back_at = time.time()
    world.away += world.back_at - gone_at + WORKER_DEADLINE
    world.leave("server")
    yield


FAULTS = [kill_worker, freeze_worker, kill_beat, freeze_beat, stall_broker, fail_run, kill_run]
HEALTHY = [deploy_worker, restart_worker, scale, restart_beat, busy, retry, restart_server]


def play(world: World, seconds: float) -> None:
    """Run events for this time, then let all of them end. Raises AssertionError if a promise is broken."""
    events: list[Event] = []
    end = time.monotonic() + seconds
    due = time.monotonic()
    while events or time.monotonic() < end:
        if time.monotonic() >= due and time.monotonic() < end:
            # One fault at a time: two together have no single right answer.
            # The run to kill must not lose its worker before.
            is_faulty = "dies" in world.taken or any(fault.until is None for fault in world.faults)
            kind = FAULTS if not is_faulty and world.chance.random() < 0.4 else HEALTHY
            events.append(world.chance.choice(kind)(world))
            due = time.monotonic() + world.chance.uniform(2, 10)
        world.poll()
        for event in list(events):
            try:
                next(event)
            except StopIteration:
                events.remove(event)
        time.sleep(0.2)


def quiet(world: World) -> None:
    """Check that each fault has made one alert, and that nothing else comes."""
    calm = time.monotonic() + 2 * PATIENCE
    while time.monotonic() < calm:
        world.poll()
        time.sleep(0.5)
    assert [fault.alerted for fault in world.faults if fault.incident is None] == []
    alerts = [one["json"]["incident"] for one in world.stage.sink.alerts("incident.opened")]
    opened = [alerted_of(incident) for incident in alerts if incident["id"] not in world.repeated]
    assert sorted(opened) == sorted(fault.alerted for fault in world.faults), "one alert each"
    monitors = world.stage.monitors()
    down = [name for name in (*SCHEDULE, CANARY) if monitors[name]["status"] not in ("up", "late")]
    assert down == [], f"{down} are not up at the end"
