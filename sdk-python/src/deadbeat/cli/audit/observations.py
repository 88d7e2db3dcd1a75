"""Everything that an audit observed, and the times in it."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from datetime import datetime, timezone
from typing import Any

from deadbeat.cli.application import Application
from deadbeat.cli.audit.finding import Unknown
from deadbeat.cli.audit.inspection import Sample
from deadbeat.cli.audit.knowledge import Knowledge

_FRACTION = re.compile(r"\.(\d+)")


@dataclass
class Observations:
    """Everything observed. `second` is a later sample, if there was a reason for one."""

    application: Application
    first: Sample
    second: Sample | None
    knowledge: Knowledge | None
    now: datetime
    unknown: list[Unknown] = field(default_factory=list)

    @property
    def last(self) -> Sample:
        """The newest sample."""
        return self.second or self.first

    @property
    def project(self) -> str:
        """The value of -A."""
        return self.application.project

    def consumers(self, queue: str) -> list[str]:
        """The workers that consume it, from their answers or from the server."""
        names = {worker.name for worker in self.first.workers.values() if queue in (worker.queues or ())}
        names.update(row["name"] for row in self.silent_workers() if queue in row["queues"])
        return sorted(names)

    def knows_every_worker(self) -> bool:
        """Whether the queues of each connected worker are known, from its answer or from the server."""
        sample = self.first
        if sample.complete:
            return True
        if sample.listeners is None or any(worker.queues is None for worker in sample.workers.values()):
            return False
        return sample.listeners - len(sample.workers) <= len(self.silent_workers())

    def unanswered(self) -> dict[str, int] | None:
        """Queue → how many consumers the broker counts beyond the workers that answered, where positive.

        None: the broker counts no consumers.
        """
        counted = {q.name: q.consumers for q in self.last.broker.queues.values() if q.consumers is not None}
        if not counted:
            return None
        for worker in self.first.workers.values():
            for queue in worker.queues or ():
                if queue in counted:
                    # Two workers of one name answer twice.
                    counted[queue] -= worker.answers.get("active_queues", 1)
        return {queue: more for queue, more in sorted(counted.items()) if more > 0}

    def silent_workers(self) -> list[dict[str, Any]]:
        """Workers that report to the server and did not answer here."""
        if self.knowledge is None:
            return []
        answered = self.first.workers
        return [
            row for row in self.knowledge.workers if row["status"] == "up" and row["name"] not in answered
        ]


def instant(text: Any) -> datetime | None:
    """An RFC 3339 or ISO 8601 time, in UTC; None when missing or unreadable."""
    # Python before 3.11 reads fractions of three or six digits only.
    plain = _FRACTION.sub(lambda match: f".{match[1][:6]:0<6}", str(text).replace("Z", "+00:00"))
    try:
        at = datetime.fromisoformat(plain)
    except ValueError:
        return None
    return at.astimezone(timezone.utc) if at.tzinfo else at.replace(tzinfo=timezone.utc)


def age(observed: Observations, text: Any) -> float:
    """Seconds since an instant of the server's; infinite without one."""
    at = instant(text)
    return float("inf") if at is None else max(0.0, (observed.now - at).total_seconds())


def running_seconds(observed: Observations, started: float) -> float:
    """The duration so far of a run whose worker gives this start (seconds since 1970)."""
    return max(0.0, observed.now.timestamp() - started)
