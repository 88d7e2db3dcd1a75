"""A temporary worker runs one task: shows which reports the SDK makes, and in which process.

It finds handlers that are connected and never called, because they were connected in the wrong process or
because the garbage collector removed them. So it is a real prefork worker.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from typing import Any

from deadbeat._transport import timeouts
from deadbeat.cli.application import Application
from deadbeat.cli.audit.finding import error_words, listed
from deadbeat.cli.doctor.diagnosis import FAILED, GOOD, UNTRIED, Check, Diagnosis
from deadbeat.integrations.celery import apps
from deadbeat.integrations.celery.broker.connection import connected, note_blocking
from deadbeat.integrations.celery.runs.reporter import CANARY

# Brokers on which the trial can create a queue and remove it again.
_TRIED_TRANSPORTS = ("redis", "amqp")
# The reports that a prefork worker must make of one task: event, and whether in the pool's child.
_EXPECTED = (
    ("run_received", False, "receives a message"),
    ("run_started", True, "starts a run"),
    ("run_finished", True, "ends a run"),
    ("worker_snapshot", False, "reports its state"),
)


def check_worker(diagnosis: Diagnosis) -> list[dict[str, Any]]:
    """Start the worker, send it one task, and return the reports that were made."""
    app = diagnosis.application.app
    try:
        connection = connected(app.connection_for_write, time.monotonic() + timeouts.DOCTOR_BROKER_SECONDS)
        kind = str(connection.transport.driver_type)
    except Exception as fault:
        diagnosis.checks.append(
            Check("broker", FAILED, f"this machine cannot reach it: {error_words(fault)}")
        )
        diagnosis.checks.append(Check("reports", UNTRIED, "no broker, no worker"))
        return []
    diagnosis.checks.append(Check("broker", GOOD, f"{kind} answers"))
    if kind not in _TRIED_TRANSPORTS:
        detail = f"no worker was started: a queue of its own might be left behind on the broker {kind}"
        diagnosis.checks.append(Check("reports", UNTRIED, detail))
        return []
    if not hasattr(os, "fork"):
        diagnosis.checks.append(Check("reports", UNTRIED, "this system has no prefork pool"))
        return []
    trial = _Trial(diagnosis.application)
    try:
        trial.run(connection)
    except Exception as fault:
        diagnosis.checks.append(Check("worker", FAILED, error_words(fault)))
    finally:
        trial.end(connection)
    diagnosis.checks += trial.checks()
    return trial.seen


class _Trial:
    """One temporary worker, one task, and the reports of it."""

    def __init__(self, application: Application) -> None:
        self._application = application
        self._queue = f"deadbeat.doctor.{uuid.uuid4().hex[:12]}"
        self._task_id = str(uuid.uuid4())
        self._deadline = time.monotonic() + timeouts.DOCTOR_WORKER_SECONDS
        self._process: subprocess.Popen[bytes] | None = None
        self._rest = b""
        self._output = b""
        self._is_blocked = False
        self.seen: list[dict[str, Any]] = []

    def run(self, connection: Any) -> None:
        reading, writing = os.pipe()
        command = [
            sys.executable,
            "-m",
            "deadbeat.cli.doctor.probe",
            self._application.project,
            self._queue,
            str(writing),
        ]
        self._reading = reading
        self._process = subprocess.Popen(
            command,
            pass_fds=(writing,),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )
        os.close(writing)
        if not self._wait_for("ready"):
            return
        from kombu import Exchange, Queue

        queue = Queue(
            self._queue, Exchange(self._queue, auto_delete=True), routing_key=self._queue, auto_delete=True
        )
        note_blocking(connection, self._note_blocked)
        with self._reports_kept_here():
            self._application.app.send_task(
                CANARY,
                task_id=self._task_id,
                queue=queue,  # type: ignore[arg-type]  # the stubs know names only
                connection=connection,
                expires=timeouts.DOCTOR_WORKER_SECONDS,
                ignore_result=True,
                retry=False,
                # These headers make the run one of Beat's; no server knows its name.
                headers={"deadbeat_entry": "deadbeat.doctor", "deadbeat_beat": self._application.name},
            )
        if self._wait_for("task_over"):
            self._wait_for("worker_snapshot")
        elif not any(one["kind"] == "run_received" for one in self.seen):
            # Whether the broker has announced that it accepts nothing.
            with contextlib.suppress(OSError):
                connection.drain_events(timeout=0.1)

    def _note_blocked(self) -> None:
        self._is_blocked = True

    @contextlib.contextmanager
    def _reports_kept_here(self) -> Iterator[None]:
        """Keep this process's reports meanwhile, instead of sending them."""
        reporter = apps.installed(self._application.app)
        if reporter is None:
            yield
            return

        def put(event: dict[str, Any], **_: Any) -> None:
            self.seen.append({"kind": event["type"], "pid": os.getpid(), "task_id": event.get("task_id")})

        reporter.transport.put = put  # type: ignore[method-assign]
        try:
            yield
        finally:
            # This uncovers the method of the class.
            del reporter.transport.put

    def end(self, connection: Any) -> None:
        """End the worker, and leave nothing at the broker."""
        process = self._process
        if process is not None:
            with contextlib.suppress(ProcessLookupError):
                process.send_signal(signal.SIGTERM)
            try:
                _, self._output = process.communicate(timeout=timeouts.DOCTOR_END_SECONDS)
            except subprocess.TimeoutExpired:
                # The session holds the worker and its child, nothing else.
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
                _, self._output = process.communicate()
            os.close(self._reading)
        if self._is_blocked:
            # The broker would not read this; the queue goes with its last consumer, the worker.
            with contextlib.suppress(Exception):
                connection.connection.collect()
            return
        with contextlib.suppress(Exception):
            from kombu import Exchange, Queue

            channel = connection.default_channel
            exchange = Exchange(self._queue, auto_delete=True)
            queue = Queue(self._queue, exchange, routing_key=self._queue, auto_delete=True)(channel)
            if str(connection.transport.driver_type) == "redis":
                # A virtual transport unbinds only what it has bound itself.
                queue.declare()
            queue.delete()
            exchange(channel).delete()
        with contextlib.suppress(Exception):
            connection.release()

    def _wait_for(self, kind: str) -> bool:
        while not any(one["kind"] == kind for one in self.seen):
            left = self._deadline - time.monotonic()
            if left <= 0 or not select.select([self._reading], [], [], left)[0]:
                return False
            data = os.read(self._reading, 65_536)
            if not data:
                return False
            *lines, self._rest = (self._rest + data).split(b"\n")
            self.seen += [json.loads(line) for line in lines]
        return True

    def checks(self) -> list[Check]:
        kinds = {one["kind"] for one in self.seen}
        if "ready" not in kinds:
            last = self._output.decode("utf-8", "replace").strip().splitlines()[-1:]
            why = (
                "the SDK is off there"
                if "not_installed" in kinds
                else f"the last line of its output: {listed(last) or 'none'}"
            )
            return [Check("worker", FAILED, f"a prefork worker with this app did not get ready; {why}")]
        main = next(one["main"] for one in self.seen if one["kind"] == "ready")
        found = [Check("worker", GOOD, f"a prefork worker with this app got ready (main process {main})")]
        if self._is_blocked:
            detail = (
                "RabbitMQ accepts no messages: memory or disk is nearly full (rabbitmq-diagnostics alarms)"
            )
            return [
                *found,
                Check("sending", FAILED, detail),
                Check("reports", UNTRIED, "the worker's task did not get into its queue"),
            ]
        for event, in_child, words in _EXPECTED:
            mine = [
                one
                for one in self.seen
                if one["kind"] == event and one.get("task_id") in (self._task_id, None)
            ]
            right = [one for one in mine if (one["pid"] != main) == in_child]
            where = "the pool's child" if in_child else "the main process"
            if right:
                detail = f"when it {words}, in {where} (process {right[0]['pid']})"
                found.append(Check(event, GOOD, detail))
            elif mine:
                detail = f"came from process {mine[0]['pid']}, not from {where}"
                found.append(Check(event, FAILED, detail))
            else:
                found.append(
                    Check(event, FAILED, f"did not come when it {words}: the hook is dead in {where}")
                )
        return [*found, *self._publishing()]

    def _publishing(self) -> Iterator[Check]:
        by_kind = {one["kind"]: one for one in self.seen}
        published, received = by_kind.get("run_published"), by_kind.get("run_received")
        if published is not None:
            detail = f"when it sends a message, in this process ({published['pid']})"
            yield Check("run_published", GOOD, detail)
        elif received is not None:
            yield Check("run_published", FAILED, "did not come when this process sent a message")
        if received is not None:
            stamped = received.get("published_at") is not None
            words = f"messages that this app sends carry {'their' if stamped else 'no'} time"
            yield Check("stamp", GOOD if stamped else FAILED, words)
