"""The runs that one process knows, and the events about them.

Tracked runs are those that Beat sent, with `deadbeat_entry` in their headers, and tasks that `track` names.
`task_postrun` in the process that ran the task gives the outcome. If that process cannot report any more (it
was killed, the task was revoked or expired), the worker's main process does. A retry keeps its run open, as
does a replacement, a chain or a chord that the task starts (`follow`). Each start is an attempt with an id of
its own; a redelivered message makes two. Arguments, results and the text of exceptions stay here.
"""

from __future__ import annotations

import os
import re
import socket
import sys
import time
import uuid
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any, NamedTuple
from weakref import WeakValueDictionary

from deadbeat._transport.clock import utc_text
from deadbeat._transport.transport import Transport
from deadbeat.integrations.celery.result_backend.calls import ResultBackend
from deadbeat.integrations.celery.runs.tracked import TrackedTasks
from deadbeat.integrations.celery.runs.workflow import is_member, stage_of

if TYPE_CHECKING:
    from celery import Celery

    from deadbeat.config import Settings

CANARY = "deadbeat.canary"
_REMEMBERED_RUNS = 10_000
_REMEMBERED_QUEUES = 500
_ERROR_TEXT_LIMIT = 500

# task_postrun's state → outcome. None: the process had to exit in the middle of the task.
_OUTCOMES = {
    "SUCCESS": "success",
    "FAILURE": "failure",
    "IGNORED": "ignored",
    "REJECTED": "rejected",
    None: "aborted",
}
# Ends that only the main process knows: class of the exception → outcome.
_ENDS_FROM_OUTSIDE = {"WorkerLostError": "lost", "TimeLimitExceeded": "time_limit"}

_plain_id = re.compile("[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}").fullmatch


class Attempt:
    """A task running in this process."""

    __slots__ = ("error", "error_name", "goes_on", "id", "started", "workflow")

    def __init__(self) -> None:
        self.id = new_id()
        self.started = time.monotonic()
        # The exception as it is sent, and its class.
        self.error: str | None = None
        self.error_name: str | None = None
        # Whether it published a part of its own run, with which the run ends.
        self.goes_on = False
        # The id of the followed workflow.
        self.workflow: str | None = None


class End(NamedTuple):
    """How a run ended, as far as one process knows."""

    outcome: str
    error: str | None = None
    duration_seconds: float | None = None
    attempt: str | None = None
    soft: bool = False


class RunReporter:
    """The open and the closed runs of this process; makes all their events."""

    def __init__(self, app: Celery, settings: Settings, transport: Transport) -> None:
        self.app = app
        self.settings = settings
        self.transport = transport
        self.beat = transport.app = settings.name or app.main or "celery"
        self.worker: str | None = None
        # The id of this worker's incarnation; chosen before the pool is forked, for all its processes.
        self.incarnation: str | None = None
        self.project = project_of(sys.argv, os.environ)
        self.result_backend = ResultBackend(app)
        self.tracked = TrackedTasks(settings.track)
        # (task id, stage) → the attempt; only while the task runs in this process. Not by id alone: a retry
        # without countdown, or a replacement, may start in another thread before this attempt has ended.
        self.open: dict[tuple[str, int], Attempt] = {}
        # Requests that the main process has received. Celery keeps them alive while they matter.
        self.received: WeakValueDictionary[str, Any] = WeakValueDictionary()
        # Some Celery versions announce one end twice: (task id, stage) → outcomes already reported.
        self.closed: OrderedDict[tuple[str, int], set[str]] = OrderedDict()
        # Queues to which this process sent tracked messages: the broker's sample must include them.
        self.seen_queues: dict[str, None] = {}
        self._queue_names: dict[tuple[Any, Any], str | None] = {}

    def is_tracked(self, request: Any, task_name: str) -> bool:
        """Whether to report this run. A direct call (`task()`, eager) is the application's own."""
        if not request.get("deadbeat_entry") and task_name not in self.tracked:
            return False
        return not request.get("is_eager")

    def report(self, kind: str, task_id: str, request: Any, task_name: str, **fields: Any) -> None:
        """Queue one event about a run. Runs of Beat go before merely tracked ones; their failures and the
        canaries are vital.

        `request` gives the message's headers: a dict in the main process, Celery's request in a task; both
        have the same `get`.
        """
        entry = request.get("deadbeat_entry")
        event = {
            "id": new_id(),
            "type": kind,
            "at": utc_text(),
            "beat": str(request.get("deadbeat_beat") or self.beat),
            "entry": None if not entry else str(entry),
            "run_id": run_id_of(request.get("deadbeat_run") or task_id),
            "task": task_name,
            "task_id": task_id,
            "worker": self.worker or request.get("hostname") or socket.gethostname(),
            "retries": stage_of(request),
        }
        event.update(fields)
        vital = entry == CANARY or (bool(entry) and fields.get("outcome", "success") != "success")
        self.transport.put(event, vital=vital, history=not entry)

    def report_unsendable(self, entry: str, task_name: str, error: str) -> None:
        """Report that Beat could not make a message of this entry: a run that failed before it began."""
        task_id = new_id()
        request = {"deadbeat_beat": self.beat, "deadbeat_entry": entry}
        self.finish(task_id, request, task_name, End("failure", error))

    def published(self, task_name: str, headers: dict[str, Any], exchange: Any, routing_key: Any) -> None:
        """Report a published message; workers do not need to know who published it."""
        queue = self.queue_of(exchange, routing_key)
        if queue is not None and len(self.seen_queues) < _REMEMBERED_QUEUES:
            self.seen_queues[queue] = None
        if is_member(headers):
            return
        self.report(
            "run_published",
            str(headers["id"]),
            headers,
            task_name,
            worker=None,
            queue=queue,
            slot=_text(headers.get("deadbeat_slot")),
            eta=_instant(headers.get("eta")),
        )

    def receive(self, request: Any) -> None:
        """The worker has received a message; it may wait here for its ETA or for a free process."""
        message = request.request_dict
        # A failure that the main process announces has the task id only.
        self.received[request.id] = request
        self.reopen(request.id, message)
        if is_member(message):
            return
        eta = request.eta
        self.report(
            "run_received",
            request.id,
            message,
            request.task.name,
            **self.delivery(message),
            eta=None if eta is None else _instant(eta.isoformat()),
        )

    def start(self, task_id: str, request: Any, task: Any) -> None:
        """Report that an attempt begins in this process."""
        self.reopen(task_id, request)
        attempt = Attempt()
        self.open[task_id, stage_of(request)] = attempt
        if is_member(request):
            return
        self.report(
            "run_started",
            task_id,
            request,
            task.name,
            attempt=attempt.id,
            **self.delivery(request),
            pid=os.getpid(),
            incarnation=self.incarnation,
            # Whether the broker redelivers its message when this worker dies.
            acks_late=bool(task.acks_late),
        )

    def end_attempt(self, task_id: str, request: Any, task: Any, state: str | None) -> None:
        """Report that the task function returned, or that its process must exit: `state` says which."""
        retries = retries_of(request)
        attempt = self.open.pop((task_id, stage_of(request)), None)
        number = None if attempt is None else attempt.id
        error = None if attempt is None else attempt.error
        # A replaced task ends as ignored; the replacement ends the run.
        goes_on = attempt is not None and attempt.goes_on and state in ("SUCCESS", "IGNORED")
        if state == "RETRY" or goes_on:
            if not is_member(request):
                self.report("run_retried", task_id, request, task.name, attempt=number, error=error)
            return
        # A state of the user's own is an end like any other.
        outcome = _OUTCOMES.get(state, "ignored")
        soft = False
        if outcome == "failure" and attempt is not None:
            if attempt.error_name == "SoftTimeLimitExceeded":
                outcome, soft = "time_limit", True
            elif attempt.error_name == "MaxRetriesExceededError" or retries == task.max_retries != 0:
                outcome = "retries_exhausted"
        # A later part's duration is not the run's: the server counts from the run's start.
        is_whole = attempt is not None and not request.get("deadbeat_run")
        duration = round(time.monotonic() - attempt.started, 6) if attempt is not None and is_whole else None
        self.finish(task_id, request, task.name, End(outcome, error, duration, number, soft))

    def end_from_outside(self, task_id: str, task_name: str, exception: Any) -> None:
        """Report from the main process an end that the run's own process cannot report."""
        request = self.received.get(task_id)
        if request is None:
            return
        outcome = _ENDS_FROM_OUTSIDE.get(error_name(exception), "failure")
        self.finish(task_id, request.request_dict, task_name, End(outcome, self.error_of(exception)))

    def finish(self, task_id: str, request: Any, task_name: str, end: End) -> None:
        """Report the end of a run, once per outcome, however often Celery announces it."""
        if is_member(request) and end.outcome in ("success", "ignored"):
            return
        key = (task_id, stage_of(request))
        reported = self.closed.setdefault(key, set())
        if end.outcome in reported:
            return
        reported.add(end.outcome)
        if len(self.closed) > _REMEMBERED_RUNS:
            self.closed.popitem(last=False)
        self.report(
            "run_finished",
            task_id,
            request,
            task_name,
            outcome=end.outcome,
            soft=end.soft,
            duration_seconds=end.duration_seconds,
            error=end.error,
            attempt=end.attempt,
            queue=self._queue_of_delivery(request.get("delivery_info")),
            # The sender's clock may have made it expire.
            **({"published_at": _published_at(request)} if end.outcome == "expired" else {}),
        )

    def reopen(self, task_id: str, request: Any) -> None:
        """A redelivered message repeats id and retries; treat its end as a new one."""
        if self.closed:
            self.closed.pop((task_id, stage_of(request)), None)

    def delivery(self, request: Any) -> dict[str, Any]:
        """The delivery of this message: its queue, whether it is a redelivery, when it was published."""
        delivery = request.get("delivery_info") or {}
        return {
            "queue": self._queue_of_delivery(delivery),
            "redelivered": bool(delivery.get("redelivered")),
            "published_at": _published_at(request),
        }

    def _queue_of_delivery(self, delivery: Any) -> str | None:
        delivery = delivery or {}
        return self.queue_of(delivery.get("exchange"), delivery.get("routing_key"))

    def queue_of(self, exchange: Any, routing_key: Any) -> str | None:
        """The queue that the app binds to this exchange with this key; else the key, usually its name."""
        key = (exchange, routing_key)
        try:
            return self._queue_names[key]
        except KeyError:
            pass
        name = None if routing_key is None else str(routing_key)
        if exchange:
            for queue in list(self.app.amqp.queues.values()):
                if queue.routing_key == routing_key and getattr(queue.exchange, "name", None) == exchange:
                    name = str(queue.name)
        if len(self._queue_names) < _REMEMBERED_QUEUES:
            self._queue_names[key] = name
        return name

    def error_of(self, exception: Any) -> str:
        """The exception's class; with its text only if the user asked for that."""
        name = error_name(exception)
        if self.settings.send_error_text:
            return f"{name}: {exception}"[:_ERROR_TEXT_LIMIT]
        return name


def project_of(arguments: Sequence[str], environment: Mapping[str, str]) -> str | None:
    """The value of `celery -A` in this process's command line, for the commands in alerts."""
    for place, argument in enumerate(arguments):
        if argument in ("-A", "--app") and place + 1 < len(arguments):
            return arguments[place + 1]
        if argument.startswith("--app="):
            return argument[len("--app=") :]
        if argument.startswith("-A") and len(argument) > len("-A"):
            return argument[len("-A") :].lstrip("=")
    return environment.get("CELERY_APP") or None


def error_name(exception: Any) -> str:
    """The exception's class, even of one that Celery wrapped because it could not be pickled."""
    return str(getattr(exception, "exc_cls_name", None) or type(exception).__name__)


def new_id() -> str:
    """A random UUID as text. Each event of each task needs one; `uuid.uuid4` takes three times as long."""
    text = os.urandom(16).hex()
    return f"{text[:8]}-{text[8:12]}-4{text[13:16]}-a{text[17:20]}-{text[20:]}"


def run_id_of(task_id: str) -> str:
    """The task id, which a retry keeps; a UUID derived from it if the application uses another form."""
    if _plain_id(task_id):
        return task_id
    try:
        return str(uuid.UUID(task_id))
    except ValueError:
        return str(uuid.uuid5(uuid.NAMESPACE_OID, task_id))


def _published_at(request: Any) -> str | None:
    """When the message was sent, by its sender's clock."""
    published_at = request.get("deadbeat_at")
    return utc_text(published_at) if isinstance(published_at, (int, float)) else None


def retries_of(request: Any) -> int:
    """How often the run was retried before this attempt."""
    return int(request.get("retries") or 0)


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) else None


def _instant(text: Any) -> str | None:
    """An ISO 8601 time of a message as RFC 3339 in UTC; None when missing or unreadable."""
    if not isinstance(text, str):
        return None
    try:
        instant = datetime.fromisoformat(text.replace("Z", "+00:00"))
    except ValueError:
        return None
    return utc_text((instant if instant.tzinfo else instant.replace(tzinfo=timezone.utc)).timestamp())
