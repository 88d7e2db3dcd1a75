"""The canary: a task that does nothing, sent by Beat through broker and worker to prove that they work.

It goes only to a queue that workers consume. The server names those queues in its verdict on `beat_alive`;
before the first verdict Beat sends none. Canaries in a queue without consumers would pile up, and open an
incident that Deadbeat itself caused. An older server names no queues: then it goes to its configured queue.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Sequence
from typing import Any, Callable

from deadbeat._transport.guard import guarded
from deadbeat.integrations.celery.broker.fault import is_broker_fault
from deadbeat.integrations.celery.runs.headers import sending_entry
from deadbeat.integrations.celery.runs.reporter import CANARY, RunReporter
from deadbeat.integrations.celery.schedules.listing import whole

logger = logging.getLogger("deadbeat")

# A canary whose broker never answers must neither stop later ones nor pile up threads.
CANARY_THREADS = 3


class Canary:
    """Chooses the canary's queue and sends it; `failed` reports that the broker did not accept one."""

    def __init__(self, runs: RunReporter, failed: Callable[[BaseException], None]) -> None:
        self._runs = runs
        self._app = runs.app
        self._settings = runs.settings
        self._failed = failed
        # The canary's queue; None: send none.
        self._queue: str | None = self._settings.canary_queue
        # False until the server has named the consumed queues, or turned out too old for that.
        self.is_ready = False
        # Whether the server is to expect canaries.
        self.is_enabled = True
        # Whether `is_enabled` or the queue has changed since the last list of the schedule.
        self.has_changed = False
        self._attended: tuple[str, ...] | None = None
        self._warned: set[str] = set()
        self._threads: list[tuple[float, threading.Thread]] = []

    @guarded
    def learn(self, attended: Sequence[str] | None) -> None:
        """Take the queues that workers consume, None from an older server that does not say.

        The sender's thread calls this.
        """
        known = None if attended is None else tuple(attended)
        if self.is_ready and known == self._attended:
            return
        self._attended = known
        before = (self._queue, self.is_enabled)
        if known is None:
            self._queue, self.is_enabled = self._settings.canary_queue, True
        else:
            self._queue = self._choose(known)
            self.is_enabled = self._queue is not None
        self.has_changed = self.has_changed or before != (self._queue, self.is_enabled)
        self.is_ready = True

    def _choose(self, attended: tuple[str, ...]) -> str | None:
        """The configured queue; else the one before; else one that this app knows; else any."""
        wanted = self._settings.canary_queue or self._default_queue()
        if wanted in attended:
            return wanted
        if attended and self._settings.canary_queue is not None:
            self._warn_once("no worker that reports consumes canary_queue %s; using another queue", wanted)
        if self._queue in attended:
            return self._queue
        known = [name for name in attended if name in self._app.amqp.queues]
        return next(iter([*known, *attended]), None)

    def _default_queue(self) -> str:
        """Where the app's routes send the canary."""
        try:
            queue = self._app.amqp.router.route({}, CANARY).get("queue")
            return str(getattr(queue, "name", queue))
        except Exception:
            # Without `task_create_missing_queues` the default queue may not exist.
            return str(self._app.conf.task_default_queue)

    def entry(self) -> dict[str, Any]:
        """The canary's entry in the schedule that Beat reports."""
        self.has_changed = False
        period = self._settings.canary_period
        return {
            "name": CANARY,
            "task": CANARY,
            "canary": True,
            "schedule": {"kind": "interval", "seconds": float(period)},
            "enabled": self.is_enabled,
            "grace_seconds": whole(self._settings.canary_grace),
            "longest_run_seconds": whole(2 * period),
            "longest_run_is_a_guess": False,
            "queue": self._queue,
            "next_due_at": None,
        }

    def start(self, now: float) -> None:
        """Send one from a thread of its own.

        Connecting to a broker that does not answer can take forever. Beat itself must not wait for that, so
        that it ticks and sends heartbeats while its broker is away.
        """
        if not self.is_enabled:
            return
        self._threads = [(since, thread) for since, thread in self._threads if thread.is_alive()]
        stuck_for = now - self._threads[-1][0] if self._threads else None
        if stuck_for is not None and (
            stuck_for < 2 * self._settings.canary_period or len(self._threads) >= CANARY_THREADS
        ):
            return
        thread = threading.Thread(target=self._send, name="deadbeat-canary", daemon=True)
        self._threads.append((now, thread))
        thread.start()

    @guarded
    def _send(self) -> None:
        period = self._settings.canary_period
        try:
            # A new connection each time also proves that Beat's machine can still connect.
            with self._app.connection_for_write() as connection:
                connection.ensure_connection(max_retries=1, interval_start=0)
                producer = self._app.amqp.Producer(connection, auto_declare=False)
                with sending_entry(self._runs, CANARY, CANARY, None):
                    self._app.send_task(
                        CANARY,
                        producer=producer,
                        expires=2 * period,
                        ignore_result=True,
                        retry=False,
                        **self._destination(),
                    )
        except Exception as fault:
            if is_broker_fault(self._app, fault):
                logger.info("Deadbeat: the canary could not be sent (%s)", type(fault).__name__)
                self._failed(fault)
            else:
                self._warn_once("the canary could not be sent (%s: %s)", type(fault).__name__, fault)

    def _destination(self) -> dict[str, Any]:
        name = self._queue
        if name is None:
            return {}
        if self._attended is None or name in self._app.amqp.queues:
            return {"queue": name}
        # A workers' queue that Beat's configuration does not name: it exists, so do not declare it here.
        from kombu import Exchange, Queue

        return {"queue": Queue(name, Exchange("", type="direct"), routing_key=name, no_declare=True)}

    def _warn_once(self, text: str, *details: Any) -> None:
        if text not in self._warned:
            self._warned.add(text)
            logger.warning("Deadbeat: " + text + "; the application is not affected", *details)
