"""Derives findings from what was observed at the broker, the workers and the server; pure.

A finding says only what the evidence supports. If it does not suffice, because a worker did not answer
or a message has no stamp, the question goes to `unknown`.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from deadbeat.cli.audit.finding import CRITICAL, NOTICE, Fact, Finding, Repair, Subject, Unknown, command
from deadbeat.cli.audit.observations import Observations
from deadbeat.cli.audit.rules import broker as broker_rule
from deadbeat.cli.audit.rules import silent_worker as silent_worker_rule
from deadbeat.cli.audit.rules import worker as worker_rule


def assess(observed: Observations) -> tuple[list[Finding], list[Unknown]]:
    """Every finding, and every question that the audit could not answer."""
    found: list[Finding] = []
    if observed.last.broker.reachable:
        for rules in (broker_rule, worker_rule, silent_worker_rule):
            found += rules.findings(observed)
    else:
        found += broker_rule.unreachable(observed)
    observed.unknown.extend(observed.first.unknown)
    if observed.knowledge is not None:
        found = _with_incidents(found, observed)
        observed.unknown.extend(observed.knowledge.unknown)
    return found, observed.unknown


def _with_incidents(found: list[Finding], observed: Observations) -> list[Finding]:
    """Add the server's open incidents; one that the audit found too makes that finding critical."""
    for incident in observed.knowledge.incidents if observed.knowledge is not None else ():
        code, subject = incident["cause"]["code"], incident["subject"]
        known = Fact("Deadbeat has an open incident about this.", incident["opened_at"])
        same = [
            place
            for place, finding in enumerate(found)
            if finding.code == code
            and finding.subject.kind == subject["kind"]
            and (finding.subject.name == subject["name"] or subject["kind"] == "broker")
        ]
        if same:
            finding = found[same[0]]
            found[same[0]] = replace(finding, severity=CRITICAL, evidence=[*finding.evidence, known])
            continue
        passed = _passed(incident, observed)
        found.append(
            Finding(
                code,
                CRITICAL if passed is None else NOTICE,
                Subject(subject["kind"], subject["name"]),
                incident["cause"]["summary"],
                [
                    known,
                    *([] if passed is None else [Fact(passed)]),
                    *(Fact(fact["fact"], fact["at"]) for fact in incident["evidence"]),
                ],
                [
                    Repair(step["text"], _as_called_here(step["command"], observed))
                    for step in incident["repair"]
                ],
            )
        )
    return found


def _passed(incident: dict[str, Any], observed: Observations) -> str | None:
    """Evidence here that an incident of the server is over, which the server learns later; else None."""
    kind, name = incident["subject"]["kind"], incident["subject"]["name"]
    sample = observed.last
    if kind == "worker" and incident["cause"]["code"] == "WORKER_LOST" and name in sample.workers:
        return "It answers now: it restarted or came back."
    queue = sample.broker.queues.get(name) if kind == "queue" else None
    if queue is not None and queue.depth == 0:
        return "It is empty now."
    if kind == "broker" and incident["cause"]["code"] == "BROKER_DOWN" and sample.broker.reachable:
        return "It answers this machine now."
    return None


def _as_called_here(words: str | None, observed: Observations) -> str | None:
    """The server knows the app by its name; a shell here may need another value of -A."""
    theirs = f"{command('celery', '-A', observed.application.name)} "
    if words is None or not words.startswith(theirs):
        return words
    return f"{command('celery', '-A', observed.project)} {words[len(theirs) :]}"
