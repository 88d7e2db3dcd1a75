"""The events of one process that are queued for sending: bounded, never blocking, vital ones apart.

The buffer has four parts:

* *Vital* events (schedules, canary runs, failures of runs that Beat sent) are few and must survive a flood of
  others, so they have room of their own.
* *Latest* events (heartbeats) matter only while they are new. A newer one replaces a queued one, or
  merges with it (`merge`).
* *Ordinary* events are all others.
* *History* is about runs that nobody expects. It shares the room of the ordinary events and is dropped first.

A full part drops its oldest event and counts it.
"""

from __future__ import annotations

import contextlib
import itertools
from collections import deque
from typing import Any, Callable

Event = dict[str, Any]
# Makes one event of an older and a newer one, with the newer one's id; changes neither.
Merge = Callable[[Event, Event], Event]

ORDINARY_LIMIT = 10_000
VITAL_LIMIT = 1_000


class QueuedEvent:
    """An event with its place in the order of arrival, and with what a second sending needs."""

    __slots__ = ("event", "latest", "merge", "number", "second_try")

    def __init__(self, number: int, event: Event, latest: str | None, merge: Merge | None = None) -> None:
        self.number = number
        self.event = event
        self.latest = latest
        self.merge = merge
        self.second_try = False


class EventBuffer:
    """Bounded parts that any thread may `put` into and one thread takes from.

    There is no lock. `put` runs inside the host's tasks: a fork could happen while a lock is held, and a
    signal handler could wait for one forever. Appending to and popping from a deque are atomic, and so is
    the drop count, an `itertools.count`.
    """

    def __init__(self, ordinary_limit: int = ORDINARY_LIMIT, vital_limit: int = VITAL_LIMIT) -> None:
        self._ordinary: deque[QueuedEvent] = deque()
        self._history: deque[QueuedEvent] = deque()
        self._vital: deque[QueuedEvent] = deque()
        self._latest: dict[str, QueuedEvent] = {}
        self._ordinary_limit = ordinary_limit
        self._vital_limit = vital_limit
        self._numbers = itertools.count()
        self._drops = itertools.count(1)
        self._history_drops = itertools.count(1)
        self.dropped = 0
        # History among the dropped events.
        self.dropped_history = 0

    def __len__(self) -> int:
        return len(self._ordinary) + len(self._history) + len(self._vital) + len(self._latest)

    def put(
        self,
        event: Event,
        *,
        vital: bool = False,
        history: bool = False,
        latest: str | None = None,
        merge: Merge | None = None,
    ) -> None:
        """Add an event; drops the part's oldest one when it is full. Takes microseconds.

        Events that merge must come from one thread: two threads could merge with the same older event.
        """
        queued = QueuedEvent(next(self._numbers), event, latest, merge)
        if latest is not None:
            older = self._latest.get(latest)
            if merge is not None and older is not None:
                # If the sender takes the older event just now, the server gets its content twice.
                queued.event = merge(older.event, event)
            self._latest[latest] = queued
            return
        if vital:
            self._vital.append(queued)
            while len(self._vital) > self._vital_limit:
                self._drop_oldest(self._vital)
            return
        (self._history if history else self._ordinary).append(queued)
        while len(self._ordinary) + len(self._history) > self._ordinary_limit:
            if self._history:
                self.dropped_history = next(self._history_drops)
                self._drop_oldest(self._history)
            else:
                self._drop_oldest(self._ordinary)

    def _drop_oldest(self, part: deque[QueuedEvent]) -> None:
        try:
            part.popleft()
        except IndexError:  # the sender emptied the part meanwhile
            return
        self.count_dropped()

    def put_back(self, queued: QueuedEvent) -> None:
        """Return an event for another try; it becomes ordinary and keeps its place in the order."""
        self._ordinary.append(queued)

    def take(self, limit: int) -> list[QueuedEvent]:
        """Remove up to `limit` events, latest and vital ones first; returns them in order of arrival."""
        taken: list[QueuedEvent] = []
        for latest in list(self._latest):
            if len(taken) < limit and (queued := self._latest.pop(latest, None)) is not None:
                taken.append(queued)
        for part in (self._vital, self._ordinary, self._history):
            # `put` may drop the oldest at the same moment, and a sender's successor takes, too.
            with contextlib.suppress(IndexError):
                while len(taken) < limit:
                    taken.append(part.popleft())
        taken.sort(key=lambda queued: queued.number)
        return taken

    def is_superseded(self, queued: QueuedEvent) -> bool:
        """Whether a newer event of the same latest part is queued, so that this one is worthless."""
        return queued.latest is not None and queued.merge is None and queued.latest in self._latest

    @staticmethod
    def merged(batch: list[QueuedEvent]) -> list[QueuedEvent]:
        """The batch with one event for those that merge, so that an outage does not pile them up.

        The newest one absorbs the others: it is new, so its id was never sent with less content.
        """
        newest: dict[str | None, QueuedEvent] = {}
        for queued in batch:
            if queued.merge is not None:
                older = newest.get(queued.latest)
                if older is not None:
                    queued.event = queued.merge(older.event, queued.event)
                newest[queued.latest] = queued
        return [queued for queued in batch if queued.merge is None or newest[queued.latest] is queued]

    def count_dropped(self) -> None:
        """Count one event that will never be sent."""
        self.dropped = next(self._drops)
