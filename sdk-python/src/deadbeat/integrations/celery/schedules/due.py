"""When entries that Beat has just sent are next due, computed by Beat's own schedules.

Sending an entry only leaves a note here, which takes a microsecond. The arithmetic waits for the end of
the tick and takes at most a twentieth of Beat's time, however many entries there are and however slow one
computes (RedBeat counts a rule through from its start). Notes are by name, so an entry that is sent
again meanwhile is computed once.
"""

from __future__ import annotations

import time
from collections.abc import Collection
from datetime import datetime, timezone
from typing import Any

from deadbeat._transport.clock import utc_text
from deadbeat._transport.guard import log_once
from deadbeat.integrations.celery.schedules.wire import due_since, estimates_due, happens_once, next_due

# The server accepts at most this many entries of one Beat.
ENTRY_LIMIT = 5_000
ROUND_SECONDS = 1.0
WORK_SECONDS = 0.05
REST_PER_WORK = 19.0
# A schedule that takes longer, this many times in a row, is not asked for its slot any more.
SLOT_SECONDS = 0.005
SLOW_SLOTS = 3


class DueHints:
    """The entries sent since the last report; only Beat's own thread uses it."""

    def __init__(self) -> None:
        # Name → (entry, when it was sent). A repeated entry keeps its place, so that all get their turn.
        self._sent: dict[str, tuple[Any, float]] = {}
        self._first_at = 0.0
        self._not_before = 0.0

    def note_sent(self, entry: Any, at: float) -> None:
        """Note that Beat has taken this entry's turn, at this timestamp."""
        if not self._sent:
            self._first_at = time.monotonic()
        elif len(self._sent) >= ENTRY_LIMIT and entry.name not in self._sent:
            del self._sent[next(iter(self._sent))]
        self._sent[entry.name] = (entry, at)

    @property
    def round_due(self) -> float | None:
        """When the next report may be made, on the monotonic clock; None when there is nothing to report."""
        return self._not_before if self._sent else None

    def take(self, idle: bool, known: Collection[str] | None) -> list[dict[str, Any]]:
        """Name and next due of each noted entry, if it is time; the rest waits for the next round.

        While Beat is busy, entries gather for a second, so that those due together make one report. An
        entry that the server does not have yet (due None: unknown) comes with the schedule.
        """
        started = time.monotonic()
        if not self._sent or started < self._not_before:
            return []
        if not idle and started < self._first_at + ROUND_SECONDS:
            return []
        hints: list[dict[str, Any]] = []
        spent = 0.0
        while self._sent and spent < WORK_SECONDS:
            name = next(iter(self._sent))
            entry, at = self._sent.pop(name)
            if known is None or str(name) in known:
                hints.extend(_hint(str(name), entry, at))
            spent = time.monotonic() - started
        self._not_before = started + max(ROUND_SECONDS, spent * (1 + REST_PER_WORK))
        return hints


class Slots:
    """The slot for which an entry is sent, read right before the sending; only Beat's own thread uses it."""

    def __init__(self) -> None:
        # Name → how many times in a row it took too long.
        self._slow: dict[str, int] = {}

    def of(self, entry: Any) -> str | None:
        """The instant since when the entry is due, as text; None when unknown, or too slow to compute.

        After a pause of Beat that is the first slot that it missed. Never raises.
        """
        try:
            name = str(entry.name)
            if self._slow.get(name, 0) >= SLOW_SLOTS or entry.last_run_at is None:
                return None
            started = time.perf_counter()
            due = due_since(entry.schedule, entry.last_run_at)
            if time.perf_counter() - started <= SLOT_SECONDS:
                self._slow.pop(name, None)
            elif len(self._slow) < ENTRY_LIMIT:
                self._slow[name] = self._slow.get(name, 0) + 1
            return None if due is None else utc_text(due)
        except Exception:
            log_once("the slot of an entry")
            return None


def merge_due(older: dict[str, Any], newer: dict[str, Any]) -> dict[str, Any]:
    """Merge two reports: where both have an entry, the newer one counts. Changes neither."""
    again = {entry["name"] for entry in newer["entries"]}
    entries = [entry for entry in older["entries"] if entry["name"] not in again]
    return {**newer, "entries": (entries + newer["entries"])[-ENTRY_LIMIT:]}


def is_last_time(entry: Any) -> bool:
    """Whether Beat is done with a sent entry; django-celery-beat disables it some time later."""
    return happens_once(entry.schedule) or bool(getattr(getattr(entry, "model", None), "one_off", False))


def _hint(name: str, entry: Any, sent_at: float) -> list[dict[str, Any]]:
    """At most one hint; none when the due time is unknown, which is not the same as never."""
    try:
        due = None
        if not is_last_time(entry):
            if not estimates_due(entry.schedule):
                return []
            # Beat counts from the beginning of the entry's turn, however long the broker took.
            due = next_due(entry.schedule, datetime.fromtimestamp(sent_at, timezone.utc))
        return [{"name": name, "next_due_at": None if due is None else utc_text(due)}]
    except Exception:
        log_once("the next due time of an entry that was sent")
        return []
