"""Instants in the server's format."""

from __future__ import annotations

import time
from datetime import datetime, timezone

# The last second and its text: each task needs several times within one second.
_second: tuple[int, str] = (0, "1970-01-01T00:00:00")


def utc_text(timestamp: float | None = None) -> str:
    """An instant (seconds since 1970, None for now) as RFC 3339 in UTC with microseconds."""
    global _second
    if timestamp is None:
        timestamp = time.time()
    second = int(timestamp // 1)
    microseconds = round((timestamp - second) * 1e6)
    if microseconds == 1_000_000:
        second, microseconds = second + 1, 0
    known, text = _second
    if known != second:
        text = datetime.fromtimestamp(second, timezone.utc).strftime("%Y-%m-%dT%H:%M:%S")
        _second = second, text
    return f"{text}.{microseconds:06d}Z"
