"""The events of one process that wait to be sent: bounded, never blocking, vital ones apart.

Four lanes. *Vital* events (schedules, canary runs, failures of what Beat sends) are few and must survive
a flood of ordinary ones, so they have room of their own. *Latest* events (Beat lives) are worth something
only while they are new: a newer one replaces the one that still waits, or takes in what that one says
beyond it (`merge`). *History* is of runs that nobody expects: it shares the room of the *ordinary* ones,
which is everything else, and goes first. A full lane drops its oldest event and counts it.
"""

from __future__ import annotations

import contextlib
import itertools
from collections import deque
from typing import Any, Callable

Event = dict[str, Any]
# Makes one event of an older and a newer one, with the id of the newer one, and changes neither.
Merge = Callable[[Event, Event], Event]

ORDINARY_LIMIT = 10_000
VITAL_LIMIT = 1_000


class QueuedEvent:
    """An event with its place in the order of arrival and what is needed to send it again."""

    __slots__ = ("event", "latest", "merge", "number", "second_try")

    def __init__(self, number: int, event: Event, latest: str | None, merge: Merge | None = None) -> None:
        self.number = number
        self.event = event
        self.latest = latest
        self.merge = merge
        self.second_try = False


class EventBuffer:
    """Bounded lanes that any thread may `put` into and one thread takes from.

    There is no lock: `put` runs inside the host's tasks, where a lock could be held across a fork or be
    waited for inside a signal handler. Appending to and popping from a deque are atomic, and the drop
    count comes from an `itertools.count`, which is too.
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
        # Of those, history.
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
        """Add an event; drops the lane's oldest one when it is full. Takes microseconds.

        Events that merge must come from one thread, lest two of them replace the same older one.
        """
        queued = QueuedEvent(next(self._numbers), event, latest, merge)
        if latest is not None:
            older = self._latest.get(latest)
            if merge is not None and older is not None:
                # Should the sender take the older one just now, what it says is said twice.
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
        except IndexError:  # the sender emptied the lane meanwhile
            return
        self.count_dropped()

    def put_back(self, queued: QueuedEvent) -> None:
        """Return an event for another try; it counts as ordinary and keeps its place in the order."""
        self._ordinary.append(queued)

    def take(self, limit: int) -> list[QueuedEvent]:
        """Remove up to `limit` events, rare ones first, and return them in order of arrival."""
        taken: list[QueuedEvent] = []
        for latest in list(self._latest):
            if len(taken) < limit and (queued := self._latest.pop(latest, None)) is not None:
                taken.append(queued)
        for part in (self._vital, self._ordinary, self._history):
            # A full lane drops its oldest at the same moment, and a sender's successor takes, too.
            with contextlib.suppress(IndexError):
                while len(taken) < limit:
                    taken.append(part.popleft())
        taken.sort(key=lambda queued: queued.number)
        return taken

    def is_superseded(self, queued: QueuedEvent) -> bool:
        """Whether a newer event of the same latest lane waits, so that this one is worth nothing."""
        return queued.latest is not None and queued.merge is None and queued.latest in self._latest

    @staticmethod
    def merged(batch: list[QueuedEvent]) -> list[QueuedEvent]:
        """The batch with one event for those that merge, so that no outage piles them up in it.

        The newest one takes the others in: it has just come, so its id has not been sent with less.
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
