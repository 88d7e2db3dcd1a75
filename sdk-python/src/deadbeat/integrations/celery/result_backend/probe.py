"""Probes the result backend while the application's own calls do not show whether it answers."""

from __future__ import annotations

import contextlib
import threading
import time
from typing import TYPE_CHECKING, Any

from deadbeat._transport import timeouts
from deadbeat._transport.guard import log_once
from deadbeat._transport.process import enter_own_thread
from deadbeat.integrations.celery.broker.connection import options_for
from deadbeat.integrations.celery.broker.redis import refused_by_redis
from deadbeat.integrations.celery.result_backend.fault import fault_of, words_of

if TYPE_CHECKING:
    from celery import Celery

PERIOD_SECONDS = 4.0
# Each report of a fault prolongs the probing.
WISH_SECONDS = 30.0
# No task has this id.
NO_TASK = "deadbeat-no-such-task"


class Probe:
    """A connection and a thread of its own, both only while there is a fault."""

    def __init__(self, app: Celery) -> None:
        self._app = app
        self._until = 0.0
        self._thread: threading.Thread | None = None
        # Of the monotonic clock; 0: never.
        self.answered_at = 0.0
        self.failed_at = 0.0
        self.error: str | None = None

    def want(self) -> None:
        """Probe for a while, or go on with it."""
        self._until = time.monotonic() + WISH_SECONDS
        # Do not start a second thread beside one that hangs.
        if self._thread is None or not self._thread.is_alive():
            self._thread = threading.Thread(target=self._run, name="deadbeat-result-backend", daemon=True)
            self._thread.start()

    def _run(self) -> None:
        enter_own_thread()
        backend: Any = None
        try:
            while time.monotonic() < self._until:
                began = time.monotonic()
                if backend is None:
                    backend = _impatient(self._app)
                self._probe_once(backend)
                if self.answered_at >= began:
                    return
                time.sleep(max(0.1, began + PERIOD_SECONDS - time.monotonic()))
        except Exception:
            log_once("the probe of the result backend")
        finally:
            with contextlib.suppress(Exception):
                backend.client.close()

    def _probe_once(self, backend: Any) -> None:
        try:
            refusal = _ask(backend)
        except Exception as fault:
            of_backend = fault_of(backend, fault)
            if of_backend is None:
                raise
            refusal = words_of(of_backend)
        if refusal is None:
            self.answered_at = time.monotonic()
        else:
            self.failed_at, self.error = time.monotonic(), refusal


def _impatient(app: Any) -> Any:
    """A backend of this thread's own, with a timeout; never used for results."""
    backend = type(app)._get_backend(app)
    if isinstance(getattr(backend, "connparams", None), dict):
        backend.connparams.update(options_for("redis", timeouts.BACKEND_ANSWER_SECONDS))
    return backend


def _ask(backend: Any) -> str | None:
    """Redis' refusal of a writing command; None: it accepts. Other backends are only read."""
    if hasattr(backend, "connparams"):
        return refused_by_redis(backend.client)
    backend._get_task_meta_for(NO_TASK)
    return None
