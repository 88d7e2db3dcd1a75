"""How much CPU time a worker's processes get, and how much of the time they wait for some.

The load of a host says how many processes want its CPUs, and not whether this worker gets its turn. Linux
counts for each process how long it ran, and how long it was ready to run and waited (`/proc/<pid>/schedstat`,
which has the main thread's figures). A process that was stopped, or that waits for a network or a lock, is
not ready to run.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterable
from dataclasses import dataclass

# Two looks that are closer together compare nothing.
SHORTEST_SECONDS = 0.5


@dataclass(frozen=True)
class Share:
    """What a worker's processes had since the look before."""

    # For how much of the time a process waited for a CPU, 0 to 1: the one that waited most.
    waited: float
    # How much of the host's CPUs all of them had, 0 to 1.
    used: float


class CpuMeter:
    """Compares each look with the one before."""

    def __init__(self) -> None:
        self._looked_at = 0.0
        # By process id: nanoseconds that it ran, and that it waited.
        self._before: dict[int, tuple[int, int]] = {}
        self._share: Share | None = None

    def measure(self, pids: Iterable[int]) -> Share | None:
        """What these processes had since the last look; None where the system does not say, and at first."""
        now = time.monotonic()
        seconds = now - self._looked_at
        if self._before and seconds < SHORTEST_SECONDS:
            return self._share
        known = {pid: figures for pid in pids if (figures := _schedstat(pid)) is not None}
        before, self._before, self._looked_at = self._before, known, now
        # One that has started or ended in between has no two figures.
        grown = [
            (ran - before[pid][0], waited - before[pid][1])
            for pid, (ran, waited) in known.items()
            if pid in before
        ]
        self._share = None
        if grown:
            waited = max(waited for _, waited in grown) / 1e9 / seconds
            used = sum(ran for ran, _ in grown) / 1e9 / seconds / (os.cpu_count() or 1)
            self._share = Share(_ratio(waited), _ratio(used))
        return self._share


def _ratio(share: float) -> float:
    # The counters and the clock are not read at one instant.
    return round(min(1.0, max(0.0, share)), 3)


def _schedstat(pid: int) -> tuple[int, int] | None:
    try:
        with open(f"/proc/{pid}/schedstat", "rb") as schedstat:
            ran, waited, *_ = schedstat.read().split()
            return int(ran), int(waited)
    except (OSError, ValueError):  # it has just ended, or this is no Linux
        return None
