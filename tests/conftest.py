"""Fixtures: a server with its data folder, a sink, a PostgreSQL; and the size of the proofs."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

import parts
from neighbourhood.comparison import Comparison
from postgres import Postgres

# The proofs at full size, with the release binary: `scripts/soak` sets it.
SOAK = os.environ.get("SOAK") == "1"
if SOAK and not os.environ.get("DEADBEAT_TEST_BINARY"):
    parts.BINARY = parts.ROOT / "target" / "release" / "deadbeat"


@dataclass(frozen=True)
class AttackSize:
    """The size of a noisy neighbour's attacks."""

    seconds: float
    # Requests a second of the attacks that send many.
    rate: float
    channels: int
    connections: int
    # Runs of the monitor that is deleted.
    rows: int


@dataclass(frozen=True)
class Size:
    """The size of the proofs."""

    kills: int
    cut_seconds: float
    # More than one batch of an evaluator, so that two evaluators have work.
    monitors: int
    connections: int
    # Seconds to wait after each step of the clock.
    step_seconds: float
    # Old rows of each table that the retention empties.
    rows: int
    attack: AttackSize


@pytest.fixture
def size(pytestconfig: pytest.Config) -> Size:
    if SOAK:
        seconds = pytestconfig.getoption("--attack-seconds") or 60
        return Size(
            kills=10,
            cut_seconds=30,
            monitors=5_000,
            connections=16,
            step_seconds=30,
            rows=pytestconfig.getoption("--rows") or 5_000_000,
            attack=AttackSize(seconds, rate=1_000, channels=200, connections=1_300, rows=500_000),
        )
    return Size(
        kills=2,
        cut_seconds=4,
        monitors=1_100,
        connections=6,
        step_seconds=3,
        rows=pytestconfig.getoption("--rows") or 12_000,
        attack=AttackSize(3, rate=400, channels=20, connections=200, rows=20_000),
    )


@pytest.fixture
def progress(capfd: pytest.CaptureFixture[str]) -> Callable[[str], None]:
    """Report the progress of a proof of full size."""

    def say(text: str) -> None:
        if SOAK:
            with capfd.disabled():
                print(f"\n  {text}", end="", flush=True)

    return say


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("proofs")
    group.addoption("--rows", type=int, help="old rows of each table that the retention empties")
    group.addoption("--attack-seconds", type=float, help="how long each attack of a noisy neighbour takes")


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "proof(name): one of the proofs that scripts/soak runs at full size")


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Iterator[None]:
    outcome: Any = yield
    report = outcome.get_result()
    if (mark := item.get_closest_marker("proof")) is not None:
        case = item.callspec.id if hasattr(item, "callspec") else ""
        report.user_properties.append(("proof", f"{mark.args[0]} {case}".strip()))


def pytest_terminal_summary(terminalreporter: Any) -> None:
    if not SOAK:
        return
    terminalreporter.section("proofs")
    terminalreporter.write_line(f"{'proof':<58} {'size':<5} {'result':<8} {'seconds':>7}")
    for result in ("passed", "failed", "error", "skipped"):
        for report in terminalreporter.stats.get(result, []):
            for key, name in getattr(report, "user_properties", []):
                if key == "proof":
                    seconds = f"{report.duration:.0f}"
                    terminalreporter.write_line(f"{name:<58} {'full':<5} {result:<8} {seconds:>7}")
    figures = [
        text
        for reports in terminalreporter.stats.values()
        for report in reports
        for key, text in getattr(report, "user_properties", [])
        if key == "figures" and report.when == "call"
    ]
    if figures:
        terminalreporter.section("beside a noisy neighbour: quiet > attack")
        terminalreporter.write_line(Comparison.head())
        for line in figures:
            terminalreporter.write_line(line)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[parts.Server]:
    started = parts.Server(tmp_path)
    try:
        yield started.ready()
    finally:
        started.stop()


@pytest.fixture
def sink() -> Iterator[parts.Sink]:
    started = parts.Sink()
    yield started
    started.stop()


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Postgres]:
    started = Postgres(tmp_path)
    try:
        yield started.start()
    finally:
        started.kill()
