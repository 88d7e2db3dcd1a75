"""How much CPU time a worker's processes get, and for how much of the time they wait for a CPU.

A host's load says how many processes want its CPUs, but not whether this worker gets them. Linux counts for
each process how long it ran, and how long it was ready and waited (`/proc/<pid>/schedstat`, for the
main thread). A stopped process, or one that waits for a network or a lock, is not ready.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterable
from dataclasses import dataclass

# Two measurements that are closer together show nothing.
SHORTEST_SECONDS = 0.5


@dataclass(frozen=True)
class Share:
    """The CPU time of a worker's processes since the last measurement."""

    # The largest share of the time that a process waited for a CPU, 0 to 1.
    waited: float
    # The share of the host's CPUs that all processes used together, 0 to 1.
    used: float


class CpuMeter:
    """Compares each measurement with the last one."""

    def __init__(self) -> None:
        self._measured_at = 0.0
        # By process id: nanoseconds of running and of waiting.
        self._before: dict[int, tuple[int, int]] = {}
        self._share: Share | None = None

    def measure(self, pids: Iterable[int]) -> Share | None:
        """The shares since the last measurement; None at first, and where the system does not count it."""
        now = time.monotonic()
        seconds = now - self._measured_at
        if self._before and seconds < SHORTEST_SECONDS:
            return self._share
        known = {pid: figures for pid in pids if (figures := _schedstat(pid)) is not None}
        before, self._before, self._measured_at = self._before, known, now
        # A process that has started or ended in between has no two measurements.
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
    # Counters and clock are read at slightly different instants.
    return round(min(1.0, max(0.0, share)), 3)


def _schedstat(pid: int) -> tuple[int, int] | None:
    try:
        with open(f"/proc/{pid}/schedstat", "rb") as schedstat:
            ran, waited, *_ = schedstat.read().split()
            return int(ran), int(waited)
    except (OSError, ValueError):  # it has just ended, or this is no Linux
        return None
