"""Compares this build with another one, and one run id with random ones: in turns, as ratios of one run."""

from __future__ import annotations

import os
import statistics
import sys
import uuid
from pathlib import Path

from stand import Postgres, Server, build, load, ping_paths, say, seed_monitors, stand

CONNECTIONS = 64
SECONDS = float(os.environ.get("PAIRED_SECONDS", "5"))
ROUNDS = int(os.environ.get("PAIRED_ROUNDS", "8"))
# Pings that each of the two takes before the comparison.
AGED = int(os.environ.get("PAIRED_PINGS", "1000000"))
RANDOM_IDS = 300_000


class Side:
    """A server with its own database, and the figures measured on it."""

    def __init__(self, name: str, server: Server, postgres: Postgres, paths: Path) -> None:
        self.name, self.server, self.postgres, self.paths = name, server, postgres, paths
        self.rates: list[float] = []
        self.cpu: list[float] = []

    def drive(self, seconds: float) -> int:
        return int(load(self.server.target, self.paths, seconds, CONNECTIONS)["acknowledged"])

    def measure(self) -> None:
        before = self.server.cpu()
        seen = load(self.server.target, self.paths, SECONDS, CONNECTIONS)
        self.rates.append(seen["per_second"])
        self.cpu.append((self.server.cpu() - before) / seen["acknowledged"] * 1e6)


def compare(one: Side, other: Side) -> None:
    """Measure in the order ABBA, so that a drift of the machine affects both alike."""
    for number in range(ROUNDS):
        for side in (one, other) if number % 2 == 0 else (other, one):
            side.measure()
        say(
            f"round {number + 1}: {one.name} {one.rates[-1]:,.0f}/s {one.cpu[-1]:.1f} us, "
            f"{other.name} {other.rates[-1]:,.0f}/s {other.cpu[-1]:.1f} us"
        )
    for what, ones, others in (("pings/s", one.rates, other.rates), ("server CPU", one.cpu, other.cpu)):
        ratios = sorted(mine / theirs for mine, theirs in zip(ones, others, strict=True))
        print(
            f"{what} of {one.name} / {other.name}: median {statistics.median(ratios):.3f} "
            f"({ratios[0]:.3f} to {ratios[-1]:.3f})"
        )


def against(baseline: Path) -> None:
    """Compare this build with another one."""
    with stand() as (folder, postgres), stand() as (other_folder, other_postgres):
        sides = []
        for name, where, database, binary in (
            ("this build", folder, postgres, None),
            ("the baseline", other_folder, other_postgres, baseline),
        ):
            Server(database, where, binary=binary).stop()
            seed_monitors(database, 10_000)
            server = Server(database, where, binary=binary)
            sides.append(Side(name, server, database, ping_paths(where / "paths", database)))
            sides[-1].drive(3)
        compare(*sides)
        for side in sides:
            side.server.stop()


def one_run_id() -> None:
    """Compare one constant run id with random ones, each on one ping URL, after many pings."""
    with stand() as (folder, postgres):
        Server(postgres, folder).stop()
        seed_monitors(postgres, 2, "hourly")
        server = Server(postgres, folder)
        paths = ping_paths(folder / "paths", postgres).read_text().split()
        constant, random = folder / "constant", folder / "random"
        constant.write_text(f"{paths[0]}?rid={uuid.uuid4()}\n")
        random.write_text("".join(f"{paths[1]}?rid={uuid.uuid4()}\n" for _ in range(RANDOM_IDS)))
        sides = [Side(file.name, server, postgres, file) for file in (constant, random)]
        for side in sides:
            taken = 0
            while taken < AGED:
                taken += side.drive(10)
                say(f"{side.name}: {taken:,} of {AGED:,} pings")
        compare(*sides)
        server.stop()


if __name__ == "__main__":
    build()
    if len(sys.argv) > 1:
        against(Path(sys.argv[1]).resolve())
    one_run_id()
