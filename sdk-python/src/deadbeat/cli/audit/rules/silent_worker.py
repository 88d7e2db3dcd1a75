"""Workers that receive messages and do not report to Deadbeat: they lack the SDK, its address or its key."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from deadbeat.cli.audit.finding import (
    WARNING,
    Fact,
    Finding,
    Repair,
    Subject,
    Unknown,
    command,
    counted,
    listed,
)
from deadbeat.cli.audit.observations import Observations
from deadbeat.integrations.celery.broker.workers import WorkerAnswer

# A worker that has just started may not have reported yet: it does so every few seconds.
REPORTS_WITHIN_SECONDS = 30.0
# The server's causes for a worker that reports although something is wrong with it.
_REPORTING = {"GHOST_WORKER", "CLOCK_SKEW"}


def findings(observed: Observations) -> Iterator[Finding]:
    """Find workers that consume a queue and do not report, if the server knows the application."""
    known = observed.knowledge
    if known is None or not known.reachable or not (known.beats or known.workers):
        # The server has no report of the application, as `unknown` says: no single worker is at fault.
        return
    reporting = {row["name"] for row in known.workers if _is_reporting(row)}
    elsewhere = {row["name"] for row in known.workers_elsewhere if _is_reporting(row)}
    ours = {*observed.application.queues, *(queue for row in known.workers for queue in row["queues"])}
    for worker in observed.first.workers.values():
        # All workers of a broker answer, those of other applications, too.
        if worker.name in reporting or worker.name in elsewhere or not ours.intersection(worker.queues or ()):
            continue
        uptime = (worker.stats or {}).get("uptime")
        if isinstance(uptime, (int, float)) and uptime >= REPORTS_WITHIN_SECONDS:
            yield _silent(observed, worker, uptime, len(reporting))
        else:
            why = "it does not report to the server; it has just started, or did not say when"
            observed.unknown.append(Unknown(f"whether worker {worker.name} reports", why))
    for queue, more in _uncounted(observed, reporting).items():
        yield Finding(
            "WORKER_WITHOUT_SDK",
            WARNING,
            Subject("queue", queue),
            f"Queue {queue} has {counted(more, 'consumer')} that neither answers nor reports.",
            [
                Fact("The broker counts more consumers than workers that answered or report to the server."),
                Fact("A run of Beat that such a consumer receives is missed."),
            ],
            [Repair("List its consumers.", "rabbitmqctl list_consumers")],
        )


def _silent(observed: Observations, worker: WorkerAnswer, uptime: float, reporting: int) -> Finding:
    project = observed.project
    return Finding(
        "WORKER_WITHOUT_SDK",
        WARNING,
        Subject("worker", worker.name),
        f"Worker {worker.name} runs tasks and does not report: the runs that it receives are missed.",
        [
            Fact(f"It answers, and consumes {listed(worker.queues or [])}."),
            Fact(f"It has run for {uptime:.0f} s. No worker of that name reports to the server."),
            Fact(f"Workers of {observed.application.name} that report: {reporting}."),
        ],
        [
            Repair(
                "Start it with the SDK (deadbeat.init(app) where its app is made), and with DEADBEAT_URL and "
                "DEADBEAT_KEY. In its environment, this command says what is missing.",
                command("celery", "-A", project, "deadbeat", "doctor"),
            ),
            Repair(
                "Or stop it, if it is not meant to run.",
                command("celery", "-A", project, "control", "shutdown", "-d", worker.name),
            ),
        ],
    )


def _is_reporting(row: dict[str, Any]) -> bool:
    return row["status"] in ("new", "up") or row.get("trouble") in _REPORTING


def _uncounted(observed: Observations, reporting: set[str]) -> dict[str, int]:
    """Queue → consumers that the broker counts beyond the workers that answered or report."""
    if observed.first.unknown or observed.first.broker.blocked:
        # They could not be asked.
        return {}
    found = {}
    for queue, more in (observed.unanswered() or {}).items():
        silent = [row for row in observed.silent_workers() if row["name"] in reporting]
        more -= sum(1 for row in silent if queue in row["queues"])
        if more > 0:
            found[queue] = more
    return found
