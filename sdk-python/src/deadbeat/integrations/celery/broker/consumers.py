"""Asks every worker behind a broker which queues it consumes, including workers without the SDK.

A worker without the SDK receives messages and reports nothing, but answers Celery's inspect like any other.
The SDK asks all workers once a minute, and sooner when their number seems to have changed. That costs each
of them one short answer.
"""

from __future__ import annotations

import time
from typing import Any

from deadbeat._transport import timeouts
from deadbeat.integrations.celery.broker.workers import consumed_queues

PERIOD_SECONDS = 60.0
WORKER_LIMIT = 1_000
QUEUE_LIMIT = 200


class ConsumerCheck:
    """Asks when there is a reason to; only the sampling thread uses it."""

    def __init__(self, app: Any) -> None:
        self._app = app
        self._due = 0.0
        self._signs: Any = None

    def ask(self, signs: Any) -> list[dict[str, Any]] | None:
        """Who consumes what, by name; None when it is not time to ask, or nobody could be asked.

        `signs` is what the broker shows of its consumers; a changed value means that a worker came or left.
        """
        now = time.monotonic()
        if now < self._due and signs == self._signs:
            return None
        self._due, self._signs = now + PERIOD_SECONDS, signs
        if not self._app.conf.worker_enable_remote_control:
            return None
        answers = consumed_queues(self._app, now + timeouts.WORKERS_ANSWER_SECONDS)
        if answers is None:
            return None
        return [
            {"worker": name, "queues": queues[:QUEUE_LIMIT]}
            for name, queues in sorted(answers.items())[:WORKER_LIMIT]
        ]
