"""One audit from beginning to end: observe, judge, and hold the result for a terminal or as JSON."""

from __future__ import annotations

import os
import threading
import time
from dataclasses import dataclass, field
from datetime import datetime, timezone
from typing import Any

from deadbeat._transport import timeouts
from deadbeat._transport.clock import utc_text
from deadbeat.cli.application import Application, sdk_settings
from deadbeat.cli.audit.assess import assess
from deadbeat.cli.audit.finding import CRITICAL, SEVERITIES, WARNING, Finding, Unknown
from deadbeat.cli.audit.inspection import COMMANDS, SECOND_COMMANDS, Inspection, Sample
from deadbeat.cli.audit.knowledge import Knowledge, ask_server
from deadbeat.cli.audit.observations import Observations
from deadbeat.cli.audit.rules.configuration import configuration_findings
from deadbeat.config import READ_KEY
from deadbeat.version import __version__

# Between two samples: a worker with work and a free process begins some of it in this time.
SECOND_SAMPLE_AFTER_SECONDS = 1.0

EXIT_NOTHING, EXIT_WARNING, EXIT_CRITICAL, EXIT_BLIND = 0, 1, 2, 3


@dataclass(frozen=True)
class Choice:
    """The options of an audit; `timeout` is for each answer, in seconds."""

    timeout: float = timeouts.AUDIT_ANSWER_SECONDS
    server: bool = True
    configuration: bool = True


@dataclass
class Report:
    """The result of an audit."""

    application: Application
    at: float
    took_seconds: float
    observed: Observations
    findings: list[Finding] = field(default_factory=list)
    unknown: list[Unknown] = field(default_factory=list)

    @property
    def exit_code(self) -> int:
        """0 nothing, 1 warnings, 2 critical; 3: neither broker nor server could be examined."""
        server = self.observed.knowledge
        if self.observed.last.broker.reachable is None and not (server is not None and server.reachable):
            return EXIT_BLIND
        severities = {finding.severity for finding in self.findings}
        if CRITICAL in severities:
            return EXIT_CRITICAL
        return EXIT_WARNING if WARNING in severities else EXIT_NOTHING

    def workers(self) -> list[dict[str, Any]]:
        """The figures of the workers that answered; None where a worker did not answer that."""
        rows = []
        for name, first in self.observed.first.workers.items():
            second = self.observed.second.workers.get(name) if self.observed.second is not None else None
            last = second if second is not None and second.stats is not None else first
            running = [
                (float(request["time_start"]), str(request.get("name")), str(request.get("id")))
                for request in last.active or ()
                if isinstance(request.get("time_start"), (int, float))
            ]
            longest = min(running, default=None)
            rows.append(
                {
                    "name": name,
                    "pid": last.pid,
                    "pool": last.pool,
                    "processes": last.processes,
                    "active": _count(last.active),
                    "reserved": _count(last.reserved),
                    "scheduled": _count(first.scheduled),
                    "accepted": last.accepted,
                    "prefetch": last.prefetch,
                    "queues": first.queues,
                    "longest": None
                    if longest is None
                    else {
                        "task": longest[1],
                        "task_id": longest[2],
                        "seconds": round(max(0.0, self.at - longest[0]), 1),
                    },
                }
            )
        return rows

    def queues(self) -> list[dict[str, Any]]:
        """The sampled queues, with the workers that consume them."""
        return [
            {
                "name": queue.name,
                "depth": queue.depth,
                "oldest_seconds": queue.oldest_seconds,
                "oldest_task": queue.oldest_task,
                "consumers": queue.consumers,
                "workers": self.observed.consumers(queue.name),
                "named_by": self.application.queues.get(queue.name),
            }
            for queue in sorted(self.observed.last.broker.queues.values(), key=lambda queue: queue.name)
        ]

    def as_json(self) -> dict[str, Any]:
        """The document of `--json`; docs/audit.md describes it."""
        broker, server = self.observed.last.broker, self.observed.knowledge
        return {
            "deadbeat": __version__,
            "app": self.application.name,
            "at": utc_text(self.at),
            "took_seconds": round(self.took_seconds, 3),
            "exit_code": self.exit_code,
            "broker": {
                "url": broker.url,
                "transport": broker.transport,
                "reachable": broker.reachable,
                "error": broker.error,
                "maxmemory_policy": broker.maxmemory_policy,
                "visibility_timeout_seconds": broker.visibility_timeout_seconds,
                "unacked": broker.unacked,
                "oldest_unacked_seconds": broker.oldest_unacked_seconds,
            },
            "server": None if server is None else {"url": server.url, "reachable": server.reachable},
            "workers_connected": self.observed.first.listeners,
            "workers": self.workers(),
            "queues": self.queues(),
            "findings": [finding.as_json() for finding in self.findings],
            "unknown": [{"what": one.what, "why": one.why} for one in self.unknown],
        }


def make_report(application: Application, choice: Choice) -> Report:
    """Audit once. Takes `choice.timeout` and a second at most; raises nothing of broker or server."""
    began = time.monotonic()
    deadline = began + choice.timeout
    inquiry = _Inquiry(application, choice, deadline)
    inspection = Inspection(application.app)
    first = inspection.sample(application.queues, COMMANDS, deadline)
    knowledge = inquiry.result(deadline)
    names = dict.fromkeys(application.queues)
    for worker in first.workers.values():
        names.update(dict.fromkeys(worker.queues or ()))
    for row in knowledge.queues if knowledge is not None else ():
        names[row["name"]] = None
    names.update(dict.fromkeys(first.broker.found))
    second = None
    if _deserves_a_second_sample(first, names):
        time.sleep(max(0.0, first.at + SECOND_SAMPLE_AFTER_SECONDS - time.monotonic()))
        second = inspection.sample(
            names, SECOND_COMMANDS, time.monotonic() + SECOND_SAMPLE_AFTER_SECONDS, len(first.workers)
        )
        if second.broker.reachable is not True:
            # It vanished in between: the next audit will report that.
            second = None
    now = time.time()
    observed = Observations(
        application, first, second, knowledge, datetime.fromtimestamp(now, timezone.utc), inquiry.unknown
    )
    findings, unknown = assess(observed)
    if choice.configuration:
        workers = list(first.workers.values())
        more, undecided = configuration_findings(application, first.broker, workers, first.complete is True)
        findings, unknown = [*findings, *more], [*unknown, *undecided]
    else:
        # Always report what does harm already.
        findings = [one for one in findings if not one.code.startswith("CONFIG_") or one.severity == CRITICAL]
    findings.sort(
        key=lambda finding: (SEVERITIES.index(finding.severity), finding.code, finding.subject.name)
    )
    return Report(application, now, time.monotonic() - began, observed, findings, unknown)


def _deserves_a_second_sample(first: Sample, names: dict[str, None]) -> bool:
    if not first.broker.reachable:
        return False
    if set(names) - set(first.broker.queues):
        return True
    if any(queue.depth for queue in first.broker.queues.values()):
        return True
    ids = [request.get("id") for worker in first.workers.values() for request in worker.active or ()]
    return len(ids) != len(set(ids)) or any(worker.reserved for worker in first.workers.values())


class _Inquiry:
    """The questions to the server, asked while the broker is sampled."""

    def __init__(self, application: Application, choice: Choice, deadline: float) -> None:
        self.unknown: list[Unknown] = []
        self._answers: list[Knowledge] = []
        self._thread: threading.Thread | None = None
        if not choice.server:
            return
        settings = sdk_settings()
        url = settings.url if settings is not None else os.environ.get("DEADBEAT_URL", "").strip().rstrip("/")
        key = os.environ.get(READ_KEY) or (settings.key if settings is not None else "")
        what = "the state at the Deadbeat server (lost workers, Beat)"
        if not url:
            self.unknown.append(Unknown(what, "no server is set (DEADBEAT_URL); --no-server skips this"))
        elif not key or key.startswith("dbp_"):
            why = f"no read key is set ({READ_KEY}); --no-server skips this"
            self.unknown.append(Unknown(what, why))
        else:
            self._url = url
            self._thread = threading.Thread(
                target=lambda: self._answers.append(ask_server(url, key, application.name, deadline)),
                name="deadbeat-server",
                daemon=True,
            )
            self._thread.start()

    def result(self, deadline: float) -> Knowledge | None:
        """The server's answers; None when it was not asked, or has not answered."""
        if self._thread is None:
            return None
        self._thread.join(max(0.0, deadline - time.monotonic()) + 0.1)
        if self._answers:
            return self._answers[0]
        self.unknown.append(
            Unknown("the state at the Deadbeat server", f"{self._url} did not answer in time")
        )
        return None


def _count(items: list[Any] | None) -> int | None:
    return None if items is None else len(items)
