"""Fixtures: a server with its data folder, a sink, a Redis."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

import parts


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
