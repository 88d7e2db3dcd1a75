"""Which claims the tests of a set-up support; and which they do not, and why."""

from __future__ import annotations

import os
from typing import Any

from deadbeat.cli.doctor.diagnosis import GOOD, Diagnosis
from deadbeat.config import READ_KEY


def judge_claims(diagnosis: Diagnosis, seen: list[dict[str, Any]]) -> None:
    """Derive the claims from the tests of this run, and from facts of Celery and its brokers."""
    app = diagnosis.application.app
    good = {check.name for check in diagnosis.checks if check.result == GOOD}
    claim = diagnosis.claims.append

    def block(what: str, why: str) -> None:
        diagnosis.blocked.append((what, why))

    reported = {"server", "key"} <= good
    if reported and {"run_started", "run_finished"} <= good:
        claim("every run that Beat sends, in a prefork worker with this app and environment: start and end")
    else:
        block("that a run took place", "some reports of a prefork child are missing; see above")
    if reported and "worker_snapshot" in good:
        claim("that a worker with this app is alive, and that it was killed")
    else:
        block("that a worker is alive", "its reports are missing; see above")
    kind = str(app.connection_for_read().transport_cls)
    on_redis = kind.startswith(("redis", "sentinel"))
    if on_redis:
        if reported and "stamp" in good:
            claim("how long messages from processes with deadbeat.init wait")
        block(
            "how long the oldest message from other programs waits",
            "a message without the SDK's header carries no time, on any broker",
        )
    else:
        block(
            "how long the oldest message of a queue waits",
            f"{kind} shows a message only to its receiver; its waiting time is known when it is received",
        )
    if diagnosis.claims:
        claim("all of this with task_send_sent_event, worker_send_task_events and task_track_started off")
    if on_redis:
        block(
            "unacknowledged messages of one queue",
            "Redis keeps them for the whole database; only their sum and the age of the oldest are known",
        )
    else:
        block("unacknowledged messages", f"{kind} does not show them to a client")
    if not on_redis and not kind.startswith(("amqp", "pyamqp")):
        block("how deep queues are", f"{kind} is not read")
    pool = str(app.conf.worker_pool or "prefork")
    if pool != "prefork":
        block(f"what the pool {pool} does", "a prefork worker was tried, whatever worker_pool says")
    block(
        "a hung task on the pools threads, solo and eventlet",
        "they enforce no hard time limit; an alert comes after its longest run, but nothing ends it",
    )
    if not any(one["kind"] == "worker_snapshot" and one.get("scheduled") is not None for one in seen):
        block("how many tasks in a worker wait for their time (ETA)", _why_no_eta(diagnosis))
    block("other machines", "the test ran here only: their environment, version and firewall may differ")
    block(
        "a run whose child is killed within a second of its start",
        "the report of its start is lost with it; the end is reported",
    )
    if not os.environ.get(READ_KEY):
        block("the answers of the server to `audit`", f"{READ_KEY} is not set here")


def _why_no_eta(diagnosis: Diagnosis) -> str:
    from celery.worker import state

    if not hasattr(state, "scheduled_requests"):
        return f"Celery {diagnosis.versions['celery']} does not count them; 5.7 and later do"
    return "no worker reported it here; see above"
