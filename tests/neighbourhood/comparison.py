"""Compares the other project's waiting times during an attack with those of a quiet stretch before it."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

from neighbourhood.neighbour import Neighbour, Sample, at_most

# Seconds between two messages about the remaining time.
SAID_EACH = 15.0


class Memory:
    """The resident memory of a process, in megabytes."""

    def __init__(self, pid: int) -> None:
        self.folder = Path("/proc") / str(pid)

    def read(self, name: str) -> float:
        for line in (self.folder / "status").read_text().splitlines():
            if line.startswith(f"{name}:"):
                return int(line.split()[1]) * 1_024 / 1e6
        raise AssertionError(f"no {name}")

    def peak(self) -> float:
        """The peak since the last call."""
        most = self.read("VmHWM")
        # 5 resets the peak.
        (self.folder / "clear_refs").write_text("5")
        return most


class Comparison:
    """Measures a quiet stretch, then an attack."""

    # The allowed ratio of attack to quiet stretch.
    LIMIT = 2.0
    COLUMNS = ("ping p50", "ping p99", "alert p50", "alert p99", "page p99")

    def __init__(
        self, attack: str, neighbour: Neighbour, memory: Memory, progress: Callable[[str], None]
    ) -> None:
        self.attack = attack
        self.progress = progress
        self.neighbour = neighbour
        self.memory = memory
        self.stretches: list[dict[str, list[Sample]]] = []
        # Memory peaks of the quiet stretch, of the attack's first third and of its last third.
        self.peaks: list[float] = []

    def wait(self, what: str, seconds: float, is_over: Callable[[], bool] = lambda: False) -> None:
        end, said = time.monotonic() + seconds, 0.0
        while (left := end - time.monotonic()) > 0 and not is_over():
            if time.monotonic() - said >= SAID_EACH:
                said = time.monotonic()
                self.progress(f"{self.attack}: {what}, {left:.0f} s to go")
            time.sleep(min(0.5, left))

    def quiet(self, seconds: float) -> None:
        # Let a new server finish the work of its start first.
        self.wait("warming up", 5)
        start = time.monotonic()
        self.memory.peak()
        self.wait("quiet", seconds)
        self.peaks.append(self.memory.peak())
        self.stretches.append(self.neighbour.between(start, time.monotonic()))

    def attacked(self, has_ended: Callable[[], bool], seconds: float) -> None:
        start = time.monotonic()
        for third in range(3):
            self.memory.peak()
            self.wait("attack", seconds / 3, has_ended)
            if third != 1:
                self.peaks.append(self.memory.peak())
        # At its end, an attack waits for its last answers.
        while not has_ended():
            self.wait("the attack's last answers, at most", 300, has_ended)
        self.stretches.append(self.neighbour.between(start, time.monotonic()))

    def figures(self) -> dict[str, tuple[float, float]]:
        """Milliseconds in the quiet stretch and in the attack, by column."""

        def of(column: str, stretch: dict[str, list[Sample]]) -> float:
            kind, part = column.split()
            return 1_000 * at_most(stretch[kind], int(part[1:]) / 100)

        quiet, attacked = self.stretches
        return {column: (of(column, quiet), of(column, attacked)) for column in self.COLUMNS}

    @classmethod
    def head(cls) -> str:
        columns = " ".join(f"{column + ', ms':>21}" for column in cls.COLUMNS)
        return f"{'attack':<17} {columns} {'memory, MB':>16}"

    def line(self) -> str:
        cells = " ".join(
            f"{f'{quiet:.1f} > {beside:.1f} ({beside / quiet:.1f}x)':>21}"
            for quiet, beside in self.figures().values()
        )
        return f"{self.attack:<17} {cells} {' > '.join(f'{peak:.0f}' for peak in self.peaks):>16}"

    def broken(self) -> list[str]:
        """The violated limits, in words."""
        slow = [
            f"{column} went from {quiet:.1f} to {beside:.1f} ms"
            for column, (quiet, beside) in self.figures().items()
            if beside > self.LIMIT * quiet
        ]
        _, first, last = self.peaks
        # Memory that grows with time, and not only at the beginning of the attack.
        grew = [f"memory went from {first:.0f} to {last:.0f} MB"] if last > 1.25 * first + 32 else []
        return slow + grew
