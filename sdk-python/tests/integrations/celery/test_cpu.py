"""The CPU time that a worker's processes get: measured with real processes that need more than there is."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator

import pytest

from deadbeat.integrations.celery import cpu
from deadbeat.integrations.celery.cpu import CpuMeter, Share

BURN = "print('begun', flush=True)\nwhile True: pass"
REST = "import time\nprint('begun', flush=True)\ntime.sleep(600)"
# The length of a measurement, in seconds.
SECONDS = 2.0


@pytest.fixture
def processes() -> Iterator[dict[str, list[int]]]:
    """Three processes that compete for one CPU, and one that sleeps."""
    started = [
        subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE)
        for program in (BURN, BURN, BURN, REST)
    ]
    try:
        one = min(os.sched_getaffinity(0))
        for process in started:
            os.sched_setaffinity(process.pid, {one})
            assert process.stdout is not None
            assert process.stdout.readline() == b"begun\n"
        pids = [process.pid for process in started]
        yield {"burning": pids[:3], "resting": pids[3:]}
    finally:
        for process in started:
            process.kill()
            process.communicate()


def measured(pids: list[int]) -> Share:
    meter = CpuMeter()
    assert meter.measure(pids) is None, "one look compares nothing"
    time.sleep(SECONDS)
    share = meter.measure(pids)
    assert share is not None
    return share


def test_a_sample_at_once_after_another_has_nothing_new(
    processes: dict[str, list[int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    meter = CpuMeter()
    meter.measure(processes["burning"])
    monkeypatch.setattr(cpu, "SHORTEST_SECONDS", 0.0)
    share = meter.measure(processes["burning"])
    assert share is not None

    monkeypatch.setattr(cpu, "SHORTEST_SECONDS", 600.0)
    assert meter.measure(processes["burning"]) is share


def test_processes_that_share_a_cpu_wait_for_it_and_one_that_rests_does_not(
    processes: dict[str, list[int]],
) -> None:
    burning = measured(processes["burning"])
    # Two thirds of the time or more: other programs may use that CPU, too.
    assert burning.waited >= 0.5
    assert 0 < burning.used <= 1.05 / (os.cpu_count() or 1)

    resting = measured(processes["resting"])
    assert resting.waited <= 0.1
    assert resting.used <= 0.1


def test_one_that_waits_is_found_among_others_and_processes_come_and_go(
    processes: dict[str, list[int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    everyone = processes["burning"] + processes["resting"]
    meter = CpuMeter()
    assert meter.measure([*everyone, 2**22 + 1]) is None, "there is no such process"
    time.sleep(SECONDS)
    share = meter.measure(everyone)
    assert share is not None
    assert share.waited >= 0.5

    monkeypatch.setattr(cpu, "SHORTEST_SECONDS", 0.0)
    # None of the known processes is left; the new ones have a single measurement.
    assert meter.measure([os.getpid()]) is None


def test_a_system_that_does_not_say_is_no_error() -> None:
    meter = CpuMeter()
    assert meter.measure([2**22 + 1]) is None
    assert meter.measure([]) is None
