"""The sender's thread: decides when to send and what, and runs the duties in between."""

from __future__ import annotations

import http.client
import json
import os
import time
import uuid
from typing import Callable

from deadbeat._transport import timeouts
from deadbeat._transport.answer import Answers
from deadbeat._transport.buffer import Event, QueuedEvent
from deadbeat._transport.clock import utc_text
from deadbeat._transport.guard import log_once
from deadbeat._transport.process import Process, enter_own_thread
from deadbeat.version import __version__

BATCH_LIMIT = 500

_encode = json.JSONEncoder(default=str, separators=(",", ":")).encode


def answer_seconds(body_bytes: int, to_exit: float | None) -> float:
    """The timeout of a batch's answer; `to_exit`: seconds until the process must have ended."""
    patience = min(
        timeouts.ANSWER_SECONDS + body_bytes / timeouts.ANSWER_BYTES_PER_SECOND,
        timeouts.LONGEST_ANSWER_SECONDS,
    )
    return patience if to_exit is None else min(patience, timeouts.ANSWER_SECONDS, max(0.1, to_exit))


class Sender(Answers):
    """Sends the queued events of this process.

    `process_label` names the process in loss reports; it is called when one is made. `app` is the Celery
    application's name in them.
    """

    def __init__(self, url: str, process_label: Callable[[], str]) -> None:
        super().__init__(url)
        self._process_label = process_label
        self.app: str | None = None
        # None before the first report: web servers patch and fork after `init`.
        self._process: Process | None = None

    def _run(self, process: Process) -> None:
        enter_own_thread()
        while True:
            try:
                self._wait(process)
                if process.pid != os.getpid():
                    return
                if process is not self._process:
                    self._hand_back(process)
                    self._rest(process)
                self._send_once(process)
            except Exception:
                log_once("Transport._run")
                time.sleep(timeouts.FIRST_RETRY_SECONDS)

    @staticmethod
    def _hand_back(process: Process) -> None:
        """Return unsent events to the buffer, which the successor's thread empties.

        That thread is not woken: its locks belong to greenlets, and this is another native thread.
        """
        for queued in [*process.batch, *(queued for _, queued in process.second_tries)]:
            process.buffer.put_back(queued)
        process.batch, process.second_tries = [], []

    @staticmethod
    def _rest(process: Process) -> None:
        """Wait for the end of the process: the patched threading module fails when a native thread ends."""
        while True:
            process.wake.wait()

    def _wait(self, process: Process) -> None:
        """Return when there is an event to send and sending is allowed now."""
        while not self._is_due(process):
            if process is not self._process:
                return
            if self._do_duties(process):
                continue
            process.wake.wait(self._pause(process))
        if not (process.batch or len(process.buffer) >= BATCH_LIMIT or process.exiting.is_set()):
            process.urgent.wait(timeouts.LINGER_SECONDS)
        process.urgent.clear()
        pause = process.not_before - time.monotonic()
        if pause <= 0:
            return
        if process.exiting.is_set() or process.exiting.wait(pause):
            # An exit cannot wait long, but must not hammer a refusing server either.
            time.sleep(min(pause, timeouts.EXIT_RETRY_SECONDS))

    def _is_due(self, process: Process) -> bool:
        if process.batch or len(process.buffer) or self._second_try_due(process):
            return True
        # An exit waits for nothing. Without work the sender must not spin: it would stop all other greenlets.
        return process.exiting.is_set() and process.has_work()

    @staticmethod
    def _pause(process: Process) -> float | None:
        """How long the sender may sleep without a wake-up; None: forever."""
        dues = [duty.due for duty in process.duties]
        if process.second_tries:
            dues.append(process.second_tries[0][0])
        return max(0.01, min(dues) - time.monotonic()) if dues else None

    @staticmethod
    def _do_duties(process: Process) -> bool:
        """Run the due duties; returns whether there were any."""
        now = time.monotonic()
        due = [duty for duty in process.duties if duty.due <= now]
        for duty in due:
            # Missed turns are not repeated.
            duty.due = duty.due + duty.period if duty.due > now - duty.period else now + duty.period
            try:
                duty.act()
            except Exception:
                log_once("a duty of the sender")
        return bool(due)

    @staticmethod
    def _second_try_due(process: Process) -> bool:
        return bool(process.second_tries) and process.second_tries[0][0] <= time.monotonic()

    def _next_batch(self, process: Process) -> list[QueuedEvent]:
        """The next batch: unanswered events without superseded ones, and new events."""
        buffer = process.buffer
        while process.second_tries and (process.exiting.is_set() or self._second_try_due(process)):
            buffer.put_back(process.second_tries.pop(0)[1])
        batch = [queued for queued in process.batch if not buffer.is_superseded(queued)]
        batch = buffer.merged(batch + buffer.take(BATCH_LIMIT - len(batch)))
        lost = buffer.dropped - process.losses_reported
        # It may exceed the limit by one: after a full batch no other may follow.
        if lost > 0 and not any(queued.event["type"] == "client_loss" for queued in batch):
            process.losses_reported += lost
            history = buffer.dropped_history - process.history_losses_reported
            process.history_losses_reported += history
            batch.append(QueuedEvent(-1, self._loss_event(lost, lost > history), None))
        return batch

    def _loss_event(self, lost: int, is_missed: bool) -> Event:
        return {
            "id": str(uuid.uuid4()),
            "type": "client_loss",
            "at": utc_text(),
            "dropped": lost,
            # Lost history leaves no gap in what the server judges.
            "app": self.app if is_missed else None,
            "process": self._process_label(),
        }

    def _send_once(self, process: Process) -> None:
        """Try to deliver one batch; on failure keep it, and set `not_before` to the time of the next try."""
        # Set before events leave the buffer, so that `has_work` never overlooks those in between.
        process.sending = True
        try:
            # After the pause, so that a worker's snapshot is not as old as the pause.
            self._do_duties(process)
            self._deliver(process)
        finally:
            process.sending = False

    def _deliver(self, process: Process) -> None:
        process.batch = batch = self._next_batch(process)
        if not batch:
            return
        # Encode one by one: a single step would block the tasks' threads for milliseconds.
        events = ",".join([_encode(queued.event) for queued in batch])
        about = _encode({"sdk": {"name": "deadbeat-python", "version": __version__}, "sent_at": utc_text()})
        body = f'{about[:-1]},"events":[{events}]}}'.encode()
        patience = answer_seconds(len(body), process.seconds_to_exit())
        try:
            reply = process.connection.post(body, patience)
        except (OSError, http.client.HTTPException) as fault:
            self._warn_once(process, "unreachable", "cannot reach %s (%s)", self._url, _name(fault))
            self._retry_later(process, None)
            return
        self._settle(process, batch, reply)


def _name(fault: BaseException) -> str:
    return f"{type(fault).__name__}: {fault}" if str(fault) else type(fault).__name__
