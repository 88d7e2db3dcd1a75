"""Decides by the server's answer whether a batch is delivered, retried later, or dropped."""

from __future__ import annotations

import json
import logging
import random
import time
from typing import Any, Callable

from deadbeat._transport import timeouts
from deadbeat._transport.buffer import QueuedEvent
from deadbeat._transport.post import Reply
from deadbeat._transport.process import Process

logger = logging.getLogger("deadbeat")

# Length of the server's text in a log line.
DETAIL_LIMIT = 500

_REJECTED = "rejected "


class Answers:
    """Reads the answers of one server.

    The sender's thread calls `on_sample_queues` with the server's request to sample the broker's queues.
    After each `beat_alive` it calls `on_attended_queues` with the queues that workers consume (None: an older
    server does not say).
    """

    def __init__(self, url: str) -> None:
        self._url = url
        self.on_sample_queues: Callable[[bool, list[str]], None] | None = None
        self.on_attended_queues: Callable[[list[str] | None], None] | None = None

    def _settle(self, process: Process, batch: list[QueuedEvent], reply: Reply) -> None:
        status = reply.status
        if 200 <= status < 300:
            if process.failures:
                logger.info("Deadbeat: reports are delivered again")
            process.failures = process.server_errors = 0
            process.not_before = 0.0
            # Keep the rejections: they come with a good answer, and each is logged once only.
            process.warned = {fault for fault in process.warned if fault.startswith(_REJECTED)}
            process.batch = []
            self._read_verdicts(process, batch, reply.body)
        elif status in (401, 403):
            self._warn_once(process, "key", "%s refuses the key (%d)", self._url, status)
            self._retry_later(process, None)
            process.not_before = time.monotonic() + timeouts.REFUSED_KEY_SECONDS
        elif status >= 500 or status in (408, 425, 429):
            process.server_errors += status == 500
            self._warn_once(process, "unwell", "%s answers %d", self._url, status)
            if process.server_errors >= timeouts.SERVER_ERROR_TRIES:
                process.server_errors = 0
                self._drop(process, batch)
            self._retry_later(process, reply.retry_after)
        else:
            self._warn_once(
                process, "refused", "%s answers %d; dropped a batch of reports", self._url, status
            )
            self._drop(process, batch)
            self._retry_later(process, reply.retry_after)

    @staticmethod
    def _drop(process: Process, batch: list[QueuedEvent]) -> None:
        process.batch = []
        for queued in batch:
            if queued.event["type"] == "client_loss":
                # The server did not get this count: the next report includes it again.
                process.losses_reported -= queued.event["dropped"]
            else:
                process.buffer.count_dropped()

    @staticmethod
    def _retry_later(process: Process, asked_seconds: float | None) -> None:
        process.failures += 1
        pause = min(
            timeouts.LONGEST_RETRY_SECONDS,
            timeouts.FIRST_RETRY_SECONDS * 2.0 ** min(process.failures - 1, 10),
        )
        # Jitter spreads workers that lost the server at the same time.
        pause *= random.uniform(0.75, 1.0)
        if asked_seconds is not None:
            # Honour it up to our own longest pause: a longer silence would look like a death.
            pause = min(timeouts.LONGEST_RETRY_SECONDS, max(asked_seconds, timeouts.FIRST_RETRY_SECONDS))
            pause *= random.uniform(1.0, 1.1)
        process.not_before = time.monotonic() + pause

    def _read_verdicts(self, process: Process, batch: list[QueuedEvent], answer: bytes) -> None:
        try:
            results = json.loads(answer)["results"]
            rejected = {r["id"]: r for r in results if r.get("status") == "rejected"}
            wishes = [r for r in results if "sample_queues" in r]
        except (ValueError, KeyError, TypeError, AttributeError):
            # The server accepted the batch, whatever the body says.
            return
        if wishes and self.on_sample_queues is not None:
            names = _names(wishes[-1].get("queues")) or []
            self.on_sample_queues(wishes[-1]["sample_queues"] is True, names)
        if self.on_attended_queues is not None:
            # The `beat_alive` of a hanging loop gets no queues.
            ticked = [
                w.event for w in batch if w.event["type"] == "beat_alive" and w.event.get("ticking", True)
            ]
            alive = {event["id"] for event in ticked}
            accepted = [r for r in results if r["id"] in alive and r.get("status") == "accepted"]
            if accepted:
                self.on_attended_queues(_names(accepted[-1].get("attended_queues")))
        if not rejected:
            return
        for queued in batch:
            refusal = rejected.get(queued.event["id"])
            if refusal is None:
                continue
            code, kind = refusal.get("code"), queued.event["type"]
            if code == "unknown_entry" and kind.startswith("run_"):
                # Beat's first schedule may still be under way.
                if not queued.second_try:
                    queued.second_try = True
                    process.second_tries.append((time.monotonic() + timeouts.SECOND_TRY_SECONDS, queued))
            else:
                why = f"{code}: {str(refusal.get('detail') or 'no detail')[:DETAIL_LIMIT]}"
                self._warn_once(
                    process, f"{_REJECTED}{code} {kind}", "a report (%s) was rejected: %s", kind, why
                )

    @staticmethod
    def _warn_once(process: Process, fault: str, text: str, *details: Any) -> None:
        """Warn once per fault and process. After a delivery, a fault of delivery may be logged again."""
        if fault not in process.warned:
            process.warned.add(fault)
            logger.warning("Deadbeat: " + text + "; the application is not affected", *details)


def _names(value: Any) -> list[str] | None:
    return [name for name in value if isinstance(name, str)] if isinstance(value, list) else None
