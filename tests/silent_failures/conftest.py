"""Rows of the table: which of them run, on which stage, and where the table is written."""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import parts
from silent_failures import table
from silent_failures.stage import Open, Project, Row, Stage, new_project

# Every row, not only the quick ones: `scripts/silent-failures` sets it.
FULL = os.environ.get("SILENT_FAILURES") == "1"
HERE = Path(__file__).resolve().parent


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line(
        "markers", "core: one of the quick rows of silent_failures, which `make test` runs"
    )
    config.addinivalue_line("markers", "long: a row that takes many minutes; it begins first")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    left = [
        item
        for item in items
        if HERE in item.path.parents and not FULL and not item.get_closest_marker("core")
    ]
    # The longest tests begin first.
    items[:] = sorted(
        (item for item in items if item not in left), key=lambda item: not item.get_closest_marker("long")
    )
    config.hook.pytest_deselected(items=left)


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[parts.Server]:
    """The rows share one server; each row has its own project."""
    started = parts.Server(tmp_path_factory.mktemp("server"))
    try:
        yield started.ready()
    finally:
        started.stop()


@pytest.fixture
def open_stage(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Open]:
    """Makes the stage of a row; ends all its processes."""
    stages: list[Stage] = []

    def make(broker: str, schedule: dict[str, Any], *, project: Project | None = None, **more: Any) -> Stage:
        if project is None:
            project = new_project(request.getfixturevalue("server"))
        folder = more.pop("folder", tmp_path)
        stages.append(Stage(project, broker, folder, parts.Sink(), schedule, **more))
        return stages[-1]

    yield make
    for stage in stages:
        if getattr(request.node, "has_failed", False):
            print(stage.logs())
        stage.end()


@pytest.fixture
def redis(tmp_path: Path) -> Iterator[parts.Redis]:
    started = parts.Redis(tmp_path)
    try:
        yield started.start()
    finally:
        started.stop()


@pytest.fixture(params=["redis", "rabbitmq"])
def broker(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[parts.Redis | parts.RabbitMQ]:
    """Redis, then RabbitMQ, for rows that differ between them."""
    started = (parts.Redis if request.param == "redis" else parts.RabbitMQ)(tmp_path)
    try:
        yield started.start()
    finally:
        started.stop()


@pytest.fixture
def rows(request: pytest.FixtureRequest) -> Iterator[Any]:
    """Opens lines of the table: `rows("F1", "Beat is killed")`."""
    opened: list[Row] = []

    def make(number: str, fault: str) -> Row:
        opened.append(Row(number, fault))
        request.node.user_properties.append(("row", opened[-1]))
        return opened[-1]

    return make


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Iterator[None]:
    outcome: Any = yield
    report = outcome.get_result()
    if report.failed:
        item.has_failed = True  # type: ignore[attr-defined]
    rows = [value for name, value in item.user_properties if name == "row"]
    report.user_properties = [one for one in item.user_properties if one[0] != "row"]
    if call.when == "call":
        for row in rows:
            row.held = row.held or report.passed
            # As text: reports come from other processes, too.
            report.user_properties.append(("row", json.dumps(dataclasses.asdict(row))))


def pytest_terminal_summary(terminalreporter: Any) -> None:
    rows = [
        Row(**json.loads(value))
        for result in ("passed", "failed")
        for report in terminalreporter.stats.get(result, [])
        for name, value in getattr(report, "user_properties", [])
        if name == "row" and report.when == "call"
    ]
    if not rows:
        return
    terminalreporter.section("silent failures")
    for line in table.lines(rows):
        terminalreporter.write_line(line)
    if FULL:
        table.write(rows)
