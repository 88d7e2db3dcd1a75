"""The command `doctor`: whether the SDK works in this set-up, shown by trying; what nobody can claim with it.

The class of fault it is for: handlers that are connected and never called, because they were connected in the
wrong process or were forgotten by the garbage collector. So a real prefork worker runs one task.
"""

from __future__ import annotations

import contextlib
import json
import os
import platform
import select
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from http.client import HTTPException
from typing import Any

from deadbeat._transport import timeouts
from deadbeat._transport.clock import utc_text
from deadbeat.cli.application import Application
from deadbeat.cli.audit.finding import error_words, listed
from deadbeat.cli.audit.screen import plain
from deadbeat.cli.server import Server
from deadbeat.config import READ_KEY, Settings, read_settings
from deadbeat.integrations.celery import registry
from deadbeat.integrations.celery.broker.connection import connected, note_blocking
from deadbeat.integrations.celery.runs.reporter import CANARY
from deadbeat.version import __version__

# The server's clock is read from a header in whole seconds.
SKEW_SECONDS = 2.0
GOOD, WARNED, FAILED, UNTRIED = "good", "warning", "failed", "could not try"
# Brokers on which a queue of our own can be made, and is gone afterwards.
_TRIED_TRANSPORTS = ("redis", "amqp")
_KEY_KINDS = {"dbp_": "a ping key", "dbr_": "a read key", "dbw_": "an API key"}
# What a prefork worker must report of one task: event, and whether in the pool's child.
_EXPECTED = (
    ("run_received", False, "takes a message in"),
    ("run_started", True, "starts a run"),
    ("run_finished", True, "ends a run"),
    ("worker_snapshot", False, "says how it is"),
)


@dataclass(frozen=True)
class Check:
    """One thing that was tried."""

    name: str
    result: str
    detail: str


@dataclass
class Diagnosis:
    """All that was tried, and what follows for what can be claimed."""

    application: Application
    checks: list[Check] = field(default_factory=list)
    versions: dict[str, str] = field(default_factory=dict)
    claims: list[str] = field(default_factory=list)
    blocked: list[tuple[str, str]] = field(default_factory=list)

    @property
    def exit_code(self) -> int:
        """0 all that was tried works, 1 with a warning, 2 something does not, 3 nothing could be tried."""
        results = {check.result for check in self.checks}
        if FAILED in results:
            return 2
        if WARNED in results:
            return 1
        return 0 if GOOD in results else 3

    def as_json(self) -> dict[str, Any]:
        """The document of `--json`; docs/audit.md describes it."""
        return {
            "deadbeat": __version__,
            "app": self.application.name,
            "at": utc_text(),
            "exit_code": self.exit_code,
            "versions": self.versions,
            "checks": [vars(check) for check in self.checks],
            "claims": self.claims,
            "blocked_claims": [{"claim": claim, "why": why} for claim, why in self.blocked],
        }

    def as_text(self, colour: bool = False) -> str:
        """For a terminal."""
        marks = {GOOD: "\x1b[32m", WARNED: "\x1b[33m", FAILED: "\x1b[1;31m"} if colour else {}
        versions = ", ".join(f"{name} {version}" for name, version in self.versions.items())
        lines = [f"{plain(self.application.name)} · {plain(versions)}", ""]
        width = max(len(check.name) for check in self.checks)
        for check in self.checks:
            mark = marks.get(check.result, "")
            result = f"{mark}{check.result:<13}{chr(27) + '[0m' if mark else ''}"
            lines.append(f"{result}  {check.name.ljust(width)}  {plain(check.detail)}")
        lines += ["", "What can be claimed with this set-up:"]
        lines += [f"  + {plain(claim)}" for claim in self.claims] or ["  nothing"]
        lines += ["", "What cannot:"]
        lines += [f"  - {plain(claim)}: {plain(why)}" for claim, why in self.blocked]
        return "\n".join(lines)


def examine(application: Application, worker: bool = True) -> Diagnosis:
    """Try everything. Takes some 5 s, 20 s at most; raises nothing of broker, worker or server."""
    diagnosis = Diagnosis(application, versions=_versions())
    reporter = registry.installed(application.app)
    settings, faults = read_settings({}) if reporter is None else (reporter.settings, [])
    _check_installed(diagnosis, reporter is not None, settings, faults)
    _check_server(diagnosis, settings)
    seen: list[dict[str, Any]] = []
    if reporter is None:
        diagnosis.checks.append(
            Check("reports", UNTRIED, "the SDK is off in this process, so it reports nothing")
        )
    elif not worker:
        diagnosis.checks.append(Check("reports", UNTRIED, "--no-worker"))
    else:
        seen = _check_worker(diagnosis)
    _judge_claims(diagnosis, seen)
    return diagnosis


def _versions() -> dict[str, str]:
    import kombu
    from celery import __version__ as celery_version

    found = {
        "deadbeat": __version__,
        "python": platform.python_version(),
        "celery": celery_version,
        "kombu": str(getattr(kombu, "__version__", "?")),
    }
    for name in ("redis", "amqp", "gevent", "eventlet"):
        if name in sys.modules:
            found[name] = str(getattr(sys.modules[name], "__version__", "?"))
    return found


def _check_installed(
    diagnosis: Diagnosis, installed: bool, settings: Settings | None, faults: list[str]
) -> None:
    if installed and settings is not None:
        detail = f"deadbeat.init was called; reports go to {settings.url} as {diagnosis.application.name}"
        diagnosis.checks.append(Check("init", GOOD, detail))
    elif settings is None:
        diagnosis.checks.append(
            Check("init", FAILED, f"the SDK is off in this environment: {'; '.join(faults)}")
        )
    else:
        detail = f"{diagnosis.application.project} does not call deadbeat.init(app); address and key are set"
        diagnosis.checks.append(Check("init", FAILED, detail))


# -- the server


def _check_server(diagnosis: Diagnosis, settings: Settings | None) -> None:
    if settings is None:
        diagnosis.checks.append(Check("server", UNTRIED, "no address and key"))
        return
    server = Server(settings.url, settings.key, time.monotonic() + timeouts.DOCTOR_SERVER_SECONDS)
    kind = _KEY_KINDS.get(settings.key[:4], "of a kind this version does not know")
    try:
        before = time.time()
        # A batch without events: it proves the key and leaves nothing behind.
        answer = server.ask("POST", "/api/v1/events", {"sent_at": utc_text(before), "events": []})
        took = time.time() - before
    except (OSError, HTTPException) as fault:
        diagnosis.checks.append(Check("server", FAILED, f"{settings.url}: {error_words(fault)}"))
        diagnosis.checks.append(Check("key", UNTRIED, "the server does not answer"))
        return
    finally:
        server.close()
    diagnosis.checks.append(Check("server", GOOD, f"{settings.url} answered in {took * 1000:.0f} ms"))
    if answer.status == 200:
        diagnosis.checks.append(Check("key", GOOD, f"accepted for reports; it is {kind}"))
    elif answer.status == 401:
        diagnosis.checks.append(
            Check("key", FAILED, f"the server does not know it; by its form it is {kind}")
        )
    elif answer.status == 403:
        detail = f"it is {kind}, which may not report: DEADBEAT_KEY must be a ping key (dbp_…)"
        diagnosis.checks.append(Check("key", FAILED, detail))
    else:
        code = answer.document.get("code") if isinstance(answer.document, dict) else None
        detail = (
            f"the server answered {answer.status}{f' ({code})' if code else ''}: is it a Deadbeat server?"
        )
        diagnosis.checks.append(Check("key", UNTRIED if answer.status >= 500 else FAILED, detail))
    _check_clock(diagnosis, answer.headers.get("date"), before, took)


def _check_clock(diagnosis: Diagnosis, date: str | None, before: float, took: float) -> None:
    try:
        # Somewhere in the second that the header names.
        theirs = parsedate_to_datetime(date or "").timestamp() + 0.5
    except (TypeError, ValueError):
        diagnosis.checks.append(Check("clock", UNTRIED, "the server does not tell its time"))
        return
    skew = before + took / 2 - theirs
    detail = f"{abs(skew):.1f} s {'ahead of' if skew > 0 else 'behind'} the server's, to half a second"
    if abs(skew) > SKEW_SECONDS:
        detail += "; times of reports are corrected by that, but Beat and ETAs go by this machine's clock"
        diagnosis.checks.append(Check("clock", WARNED, detail))
    else:
        diagnosis.checks.append(Check("clock", GOOD, detail))


# -- a worker of our own


def _check_worker(diagnosis: Diagnosis) -> list[dict[str, Any]]:
    app = diagnosis.application.app
    try:
        connection = connected(app.connection_for_write, time.monotonic() + timeouts.DOCTOR_BROKER_SECONDS)
        kind = str(connection.transport.driver_type)
    except Exception as fault:
        diagnosis.checks.append(Check("broker", FAILED, f"not reached from here: {error_words(fault)}"))
        diagnosis.checks.append(Check("reports", UNTRIED, "no broker, no worker"))
        return []
    diagnosis.checks.append(Check("broker", GOOD, f"{kind} answers"))
    if kind not in _TRIED_TRANSPORTS:
        detail = f"no worker was started: on the broker {kind} a queue of our own might be left behind"
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
    """One temporary worker, one task, and what was reported of it."""

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
                # What makes a run one of Beat's; its own name, which no server has heard of.
                headers={"deadbeat_entry": "deadbeat.doctor", "deadbeat_beat": self._application.name},
            )
        if self._wait_for("task_over"):
            self._wait_for("worker_snapshot")
        elif not any(one["kind"] == "run_received" for one in self.seen):
            # Whether the broker has said that it takes in nothing.
            with contextlib.suppress(OSError):
                connection.drain_events(timeout=0.1)

    def _note_blocked(self) -> None:
        self._is_blocked = True

    @contextlib.contextmanager
    def _reports_kept_here(self) -> Iterator[None]:
        """What this process reports meanwhile is looked at, and not sent."""
        reporter = registry.installed(self._application.app)
        if reporter is None:
            yield
            return

        def put(event: dict[str, Any], **_: Any) -> None:
            self.seen.append({"kind": event["type"], "pid": os.getpid(), "task_id": event.get("task_id")})

        reporter.transport.put = put  # type: ignore[method-assign]
        try:
            yield
        finally:
            # The method of the class shows again.
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
                # The session is ours: the worker and its child, nothing else.
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
                _, self._output = process.communicate()
            os.close(self._reading)
        if self._is_blocked:
            # It would not hear us; the queue goes with its last consumer, the worker.
            with contextlib.suppress(Exception):
                connection.connection.collect()
            return
        with contextlib.suppress(Exception):
            from kombu import Exchange, Queue

            channel = connection.default_channel
            exchange = Exchange(self._queue, auto_delete=True)
            queue = Queue(self._queue, exchange, routing_key=self._queue, auto_delete=True)(channel)
            if str(connection.transport.driver_type) == "redis":
                # A virtual transport unbinds what it has bound itself.
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
                else f"its last words: {listed(last) or 'none'}"
            )
            return [Check("worker", FAILED, f"a prefork worker with this app did not get ready; {why}")]
        main = next(one["main"] for one in self.seen if one["kind"] == "ready")
        found = [Check("worker", GOOD, f"a prefork worker with this app got ready (main process {main})")]
        if self._is_blocked:
            detail = (
                "RabbitMQ takes in no messages: memory or disk is nearly full (rabbitmq-diagnostics alarms)"
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
                detail = f"came from process {mine[0]['pid']}, and not from {where}"
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


# -- what follows


def _judge_claims(diagnosis: Diagnosis, seen: list[dict[str, Any]]) -> None:
    """Claims stand on what was tried here and now, and on facts of Celery and its brokers."""
    app = diagnosis.application.app
    good = {check.name for check in diagnosis.checks if check.result == GOOD}
    claim = diagnosis.claims.append

    def block(what: str, why: str) -> None:
        diagnosis.blocked.append((what, why))

    reported = {"server", "key"} <= good
    if reported and {"run_started", "run_finished"} <= good:
        claim("every run that Beat sends, in a prefork worker with this app and environment: start and end")
    else:
        block("that a run was made", "the reports of a prefork child did not all come through; see above")
    if reported and "worker_snapshot" in good:
        claim("that a worker with this app is alive, and that it was killed without a goodbye")
    else:
        block("that a worker is alive", "its reports did not come through; see above")
    kind = str(app.connection_for_read().transport_cls)
    on_redis = kind.startswith(("redis", "sentinel"))
    if on_redis:
        if reported and "stamp" in good:
            claim("how long messages wait that processes with deadbeat.init publish")
        block(
            "how long the oldest message waits that other programs publish",
            "a message without the SDK's header carries no time, on any broker",
        )
    else:
        block(
            "how long the oldest message of a queue waits",
            f"{kind} shows a message only to who takes it; how long one waited is known when it is received",
        )
    if diagnosis.claims:
        claim("all of this with task_send_sent_event, worker_send_task_events and task_track_started off")
    if on_redis:
        block(
            "unacknowledged messages of one queue",
            "Redis keeps them for the whole database; only their sum and the age of the oldest are known",
        )
    else:
        block("unacknowledged messages", f"{kind} does not tell them to a client")
    if not on_redis and not kind.startswith(("amqp", "pyamqp")):
        block("how deep queues are", f"{kind} is not read")
    pool = str(app.conf.worker_pool or "prefork")
    if pool != "prefork":
        block(f"what the pool {pool} does", "a prefork worker was tried, whatever worker_pool says")
    block(
        "a hung task on the pools threads, solo and eventlet",
        "they enforce no hard time limit; it is told when its longest run has passed, and not ended",
    )
    if not any(one["kind"] == "worker_snapshot" and one.get("scheduled") is not None for one in seen):
        block("how many tasks a worker holds for their time (ETA)", _why_no_eta(diagnosis))
    block("other machines", "this was one process here: their environment, version and firewall may differ")
    block(
        "a run whose child is killed within a second of its start",
        "its start report goes with it; the end is told",
    )
    if not os.environ.get(READ_KEY):
        block("what `audit` learns from the server", f"{READ_KEY} is not set here")


def _why_no_eta(diagnosis: Diagnosis) -> str:
    from celery.worker import state

    if not hasattr(state, "scheduled_requests"):
        return f"Celery {diagnosis.versions['celery']} does not count them; 5.7 and later do"
    return "no worker's report told it here; see above"
