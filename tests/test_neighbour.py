"""A noisy neighbour: whatever one project tries, another one's pings count, its alerts come, its pages open.

`make test` checks behaviour alone. At full size (`scripts/soak`) each attack takes a minute, and the test
compares the other project's waiting times with those of a quiet minute before.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

import parts
import postgres
from conftest import SOAK, Size
from neighbourhood.attack import ATTACKS
from neighbourhood.comparison import Comparison, Memory
from neighbourhood.neighbour import Neighbour, recorded
from neighbourhood.project import Project

ATTACK = parts.ROOT / "tests" / "neighbourhood" / "attack.py"

# Limits that a short attack reaches. No address is a proxy, so connections of the attacker are counted.
SMALL = {
    "DEADBEAT_TRUSTED_PROXIES": "",
    "DEADBEAT_CONNECTIONS_PER_ADDRESS": "130",
    "DEADBEAT_PINGS_PER_SECOND": "50",
    "DEADBEAT_BODY_MB_PER_DAY": "240",
    "DEADBEAT_CREATED_MONITORS_PER_DAY": "100",
    "DEADBEAT_API_KEYS_PER_DAY": "10",
}
# The server's default settings, except for the proxies.
FULL = {"DEADBEAT_TRUSTED_PROXIES": ""}

# Megabytes that one attack may add to the server's memory: at most 8,192 waiting signals, 128 running
# attempts, two batches of 4 MB that are being read, and the buffers of one address's connections.
GROWTH_MB = 300


class Attacker:
    """Another project, and the process that uses its keys."""

    def __init__(self, server: parts.Server, name: str, size: Size, folder: Path) -> None:
        self.name = name
        self.project = Project.make(server, name)
        self.database = postgres.embedded(server.data)
        self.given = {
            "port": server.port,
            "api_key": self.project.api_key,
            "ping_key": self.project.ping_key,
            "database": self.database,
            **asdict(size.attack),
        }
        self.folder = folder
        self.signal = folder / "begin"
        self.given["signal"] = str(self.signal)
        self.part: parts.Part | None = None

    def prepare(self) -> None:
        """Start the process, and wait until it has created everything that its attack needs."""
        command = [sys.executable, str(ATTACK), self.name, json.dumps(self.given)]
        part = self.part = parts.Part("attack", command, self.folder)
        parts.wait_for("a prepared attack", lambda: "ready" in part.text() or self.has_ended(), 300)
        assert not self.has_ended(), part.text()

    def begin(self) -> None:
        self.signal.touch()

    def has_ended(self) -> bool:
        assert self.part is not None
        return self.part.process.poll() is not None

    def met(self) -> tuple[dict[str, int], dict[str, Any]]:
        """The server's answers, and further facts."""
        assert self.part is not None
        assert self.part.process.returncode == 0, self.part.text()
        met = json.loads(self.part.text().splitlines()[-1])
        return met["answers"], met["facts"]

    def stop(self) -> None:
        if self.part is not None:
            self.part.stop()

    def count(self, table: str, more: str = "") -> int:
        """The number of rows of a table that belong to the attacker's project."""
        statement = f"SELECT count(*) FROM {table} WHERE project_id = '{self.project.id}' {more}"
        return int(postgres.rows(self.database, statement)[0][0])


def answered(answers: dict[str, int], what: str, *statuses: int) -> int:
    """How many answers to `what` had these statuses; fails if one had another status."""
    found = {int(key.split()[1]): count for key, count in answers.items() if key.split()[0] == what}
    assert set(found) <= set(statuses), f"{what}: {found}"
    return sum(found.values())


def of(answers: dict[str, int], key: str) -> int:
    return answers.get(key, 0)


def constant_rid(attacker: Attacker, answers: dict[str, int], facts: dict[str, Any]) -> None:
    assert answered(answers, "ping", 200, 429) > 0
    assert recorded(attacker.database, facts["monitor"]) >= of(answers, "ping 200")
    # KEPT_RUNS_OF_ID of server/store/src/monitor/run.rs, and the runs that one batch adds before that.
    assert attacker.count("run") <= 100 + 512


def hanging_channels(attacker: Attacker, answers: dict[str, int], facts: dict[str, Any]) -> None:
    assert facts["hung"] > 0
    answered(answers, "test", 202, 429)
    answered(answers, "ping", 200)
    assert attacker.count("delivery", "AND status = 'sent'") == 0


def failing_channels(attacker: Attacker, answers: dict[str, int], facts: dict[str, Any]) -> None:
    assert facts["refused"] > 0
    # A channel may be switched off before its test.
    answered(answers, "test", 202, 409, 429)
    assert attacker.count("channel", "AND disabled_at IS NOT NULL") > 0
    notices = attacker.count("delivery", "AND payload ->> 'type' = 'channel.disabled'")
    assert notices < facts["channels"], "failing channels multiply"


def leaked_key(attacker: Attacker, answers: dict[str, int], facts: dict[str, Any]) -> None:
    # 503: too many creations wait, or one of them waited too long.
    answered(answers, "create", 200, 201, 429, 503)
    answered(answers, "body", 200, 429)
    answered(answers, "key", 201, 429)
    assert of(answers, "create 201") > 0
    assert of(answers, "key 201") > 0
    assert recorded(attacker.database, facts["monitor"]) >= of(answers, "body 200")
    if SOAK:
        return
    # The share of the quota that returns within seconds is less than one body.
    assert of(answers, "create 201") <= int(SMALL["DEADBEAT_CREATED_MONITORS_PER_DAY"]) + 1
    assert of(answers, "key 201") <= int(SMALL["DEADBEAT_API_KEYS_PER_DAY"]) + 1
    [[kept]] = postgres.rows(
        attacker.database,
        f"SELECT coalesce(sum(octet_length(body)), 0) FROM ping_body WHERE monitor_id = '{facts['monitor']}'",
    )
    at_once = int(SMALL["DEADBEAT_BODY_MB_PER_DAY"]) * 1_000_000 / 24
    assert int(kept) <= 1.1 * at_once


def slow_bodies(attacker: Attacker, answers: dict[str, int], facts: dict[str, Any]) -> None:
    assert facts["connections"] > 0


def gzip_bombs(attacker: Attacker, answers: dict[str, int], facts: dict[str, Any]) -> None:
    # 200: the server does not read more than it needs. 503: the batch waited ten seconds for its turn.
    assert answered(answers, "bomb", 200, 413, 503) > 0


def locks(attacker: Attacker, answers: dict[str, int], facts: dict[str, Any]) -> None:
    assert of(answers, "sync 200") > 0
    answered(answers, "sync", 200, 503)
    answered(answers, "delete", 204)
    # 503: the server sets aside at most 500 signals of one address.
    answered(answers, "ping", 200, 429, 503)
    assert recorded(attacker.database, facts["monitor"]) >= of(answers, "ping 200")


def fails(attacker: Attacker, answers: dict[str, int], facts: dict[str, Any]) -> None:
    assert answered(answers, "ping", 200, 429) > 0
    assert recorded(attacker.database, facts["monitor"]) >= of(answers, "ping 200")
    assert attacker.count("incident") == 1


def event_floods(attacker: Attacker, answers: dict[str, int], facts: dict[str, Any]) -> None:
    # 503: too many of its requests wait.
    answered(answers, "runs", 200, 503)
    taken = 300 * of(answers, "runs 200")
    assert taken > 0
    [[monitor]] = postgres.rows(attacker.database, "SELECT id FROM monitor WHERE entry = 'flooded'")
    # The server may have recorded a part of a refused request: the SDK sends it again under the same ids.
    assert recorded(attacker.database, monitor) >= taken


def previews(attacker: Attacker, answers: dict[str, int], facts: dict[str, Any]) -> None:
    assert answered(answers, "preview", 200, 503) > 0
    assert of(answers, "preview 200") > 0


def heavy_reads(attacker: Attacker, answers: dict[str, int], facts: dict[str, Any]) -> None:
    assert answered(answers, "read", 200, 503) > 0
    assert of(answers, "read 200") > 0


# The attacker's pings were recorded, and it stayed within its limits.
HELD: dict[str, Callable[[Attacker, dict[str, int], dict[str, Any]], None]] = {
    check.__name__: check
    for check in (
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


@pytest.fixture(scope=lambda fixture_name, config: "function" if SOAK else "module")  # type: ignore[arg-type]
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[parts.Server]:
    """One server for all small attacks; at full size, a new one for each attack."""
    started = parts.Server(tmp_path_factory.mktemp("server"), env=FULL if SOAK else SMALL)
    try:
        yield started.ready()
    finally:
        started.stop()


def test_every_attack_is_checked() -> None:
    assert set(HELD) == set(ATTACKS)


@pytest.mark.proof("a noisy neighbour:")
@pytest.mark.parametrize("attack", ATTACKS)
def test_a_noisy_neighbour_takes_nothing_from_another_project(
    attack: str,
    shared: parts.Server,
    tmp_path: Path,
    sink: parts.Sink,
    size: Size,
    record_property: Callable[[str, object], None],
    progress: Callable[[str], None],
) -> None:
    server, printed = shared, len(shared.part.text())
    attacker = Attacker(server, attack, size, tmp_path)
    neighbour = Neighbour(Project.make(server, "neighbour"), sink, pause=0.05)
    try:
        parts.wait_for("the first ping", neighbour.pings)
        attacker.prepare()
        memory = Memory(server.part.process.pid)
        comparison = Comparison(attack, neighbour, memory, progress) if SOAK else None
        if comparison is not None:
            comparison.quiet(size.attack.seconds)
        memory.peak()
        before = memory.read("VmRSS")

        attacker.begin()
        if comparison is not None:
            comparison.attacked(attacker.has_ended, size.attack.seconds)
        parts.wait_for("the end of the attack", attacker.has_ended, size.attack.seconds + 300)
        peak = memory.peak()
        # The other project goes on afterwards, and no acknowledged signal waits any more.
        ended = time.monotonic()
        parts.wait_for("life after the attack", lambda: neighbour.has_seen(ended), 120)
        server.drained()
        parts.wait_for("nothing set aside", lambda: server.metric("deadbeat_pings_aside") == 0, 300)
        neighbour.end()

        neighbour.check(attacker.database)
        HELD[attack](attacker, *attacker.met())
        assert server.metric("deadbeat_loops_failed") == 0
        assert "panicked" not in server.part.text()
        assert peak <= before + GROWTH_MB, f"{before:.0f} MB before the attack, {peak:.0f} MB in it"
        if comparison is not None:
            record_property("figures", comparison.line())
            assert not comparison.broken(), comparison.broken()
    except BaseException:
        print(server.part.text()[printed:][-6_000:])
        raise
    finally:
        attacker.stop()
        neighbour.stop()
