"""Fixtures: a server with its data folder, a sink, a PostgreSQL; and how big the proofs are."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

import parts
from postgres import Postgres

# The proofs at full size, with the release binary: `scripts/soak` sets it.
SOAK = os.environ.get("SOAK") == "1"
if SOAK:
    parts.BINARY = parts.ROOT / "target" / "release" / "deadbeat"


@dataclass(frozen=True)
class Size:
    """How big the proofs are."""

    kills: int
    cut_seconds: float
    # More than one batch of an evaluator, so that two find something to do.
    monitors: int
    connections: int
    # After each step of the clock.
    step_seconds: float
    # Of each table that the retention empties.
    rows: int


@pytest.fixture
def size() -> Size:
    if SOAK:
        return Size(kills=10, cut_seconds=30, monitors=5_000, connections=16, step_seconds=30, rows=5_000_000)
    return Size(kills=2, cut_seconds=4, monitors=1_100, connections=6, step_seconds=3, rows=12_000)


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
