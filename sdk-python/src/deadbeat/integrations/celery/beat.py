"""What Beat reports: its schedule, the next due times of sent entries, heartbeats, and a canary.

The SDK wraps the running scheduler *instance* (`tick` and `apply_async`), patches no class and adds no entry
to the schedule. This works the same on Celery's own schedulers, RedBeat and django-celery-beat. Nothing is
reported before the first tick: a standby RedBeat waits for its lock in `beat_init` and must not look alive.
"""

from __future__ import annotations

import functools
import hashlib
import json
import logging
import os
import socket
import time
from datetime import datetime
from typing import Any, Callable

from deadbeat._transport.clock import utc_text
from deadbeat._transport.guard import guarded
from deadbeat.integrations.celery.broker.fault import is_broker_fault
from deadbeat.integrations.celery.canary import Canary
from deadbeat.integrations.celery.ends import unhandled
from deadbeat.integrations.celery.machine import boot_id
from deadbeat.integrations.celery.runs.headers import sending_entry
from deadbeat.integrations.celery.runs.reporter import CANARY, RunReporter, new_id
from deadbeat.integrations.celery.schedules.due import ENTRY_LIMIT, DueHints, Slots, is_last_time, merge_due
from deadbeat.integrations.celery.schedules.listing import list_entries, whole

logger = logging.getLogger("deadbeat")

RELIST_SECONDS = 60.0
RESEND_SECONDS = 600.0
# How soon the schedule is listed again after Beat sent an entry that was not in it.
EARLY_RELIST_SECONDS = 10.0
# How long, beyond its grace, a sent one-off stays listed as enabled.
LAST_SHOT_SECONDS = 10.0
# How many unwatched entries the log names.
LEFT_OUT_NAMES = 20
# How soon Beat checks again whether the server has named the canary's queues.
CANARY_WAIT_SECONDS = 1.0


class BeatReporter:
    """Reports for one running Beat; lives in Beat's process, called from its tick loop."""

    def __init__(self, runs: RunReporter) -> None:
        self._scheduler: Any = None
        self._runs = runs
        self._app = runs.app
        self._settings = runs.settings
        self._transport = runs.transport
        self._beat = runs.beat
        # Identifies this process from its start to its end, apart from another Beat of the same name.
        self._boot = new_id()
        self._boot_id = boot_id()
        self._started_at = time.time()
        self._pid = os.getpid()
        # Whether the process runs exit hooks and so can report its end.
        self._reports_end = True
        self._has_ended = False
        self._alive_due = 0.0
        self._canary_due = 0.0
        self._list_due = 0.0
        self._listed_at = 0.0
        self._sent_hash = ""
        self._sent_at = 0.0
        # Enabled entries of the last list, by name; None before the first list.
        self._listed: set[str] | None = None
        # Those of them that the server gets.
        self._watched: set[str] | None = None
        # Entries that only Beat can compute: name → next due as last reported.
        self._reported_due: dict[str, str | None] = {}
        # Sent one-offs: name → until when they stay listed as enabled.
        self._last_shots: dict[str, float] = {}
        # The number of entries beyond the server's limit, as last logged.
        self._left_out = 0
        self._due_hints = DueHints()
        self._slots = Slots()
        self._canary = Canary(runs, self._report_canary_failed) if runs.settings.canary else None
        if self._canary is not None:
            self._transport.on_attended_queues = self._canary.learn
        # When Beat's loop last turned, and whether a duty watches that.
        self._came_by = time.monotonic()
        self._is_watched = False

    def wrap(self, scheduler: Any) -> None:
        """Wrap the instance's `tick` and `apply_async`."""
        self._scheduler = scheduler
        self._scheduler.tick = self._around_tick(self._scheduler.tick)
        self._scheduler.apply_async = self._around_apply_async(self._scheduler.apply_async)
        self._runs.result_backend.watch()

    def note_embedded(self) -> None:
        """Note that Beat runs in a process that a worker forked (`-B`), which ends without exit hooks."""
        self._reports_end = False

    @guarded
    def report_end(self) -> None:
        """The process ends in order or by an error: report that. Without this report it has crashed."""
        if not self._reports_end or self._has_ended or self._pid != os.getpid():
            return
        error = unhandled()
        if error is None and not self._is_watched:
            # It has never ticked: a standby that waited for its turn is not expected.
            return
        self._has_ended = True
        said = {
            "state": "stopped" if error is None else "failed",
            "exit_error": None if error is None else self._runs.error_of(error),
        }
        event = self._event("beat_alive", time.time(), **{**self._heartbeat_fields(), **said})
        self._transport.put(event, vital=True)

    def _around_tick(self, tick: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(tick)
        def reporting_tick(*args: Any, **kwargs: Any) -> Any:
            # Before the tick, so that the server knows an entry before its first run.
            self._watch()
            self._report_schedule()
            started = time.time()
            interval = tick(*args, **kwargs)
            self._came_by = time.monotonic()
            self._after_tick(started, interval)
            return self._shortened(interval)

        return reporting_tick

    def _around_apply_async(self, apply_async: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(apply_async)
        def naming_apply_async(*args: Any, **kwargs: Any) -> Any:
            entry = args[0] if args else kwargs.get("entry")
            name, task = getattr(entry, "name", None), getattr(entry, "task", None)
            slot = self._slots.of(entry)
            sent_at = time.time()
            try:
                with sending_entry(self._runs, name, task, slot):
                    return apply_async(*args, **kwargs)
            except Exception as fault:
                self._report_failed(name, task, fault)
                raise
            finally:
                # Even if the sending failed: Beat has taken the entry's turn and waits for the next one.
                self._note_sent(entry, sent_at)

        return naming_apply_async

    @guarded
    def _report_failed(self, name: str | None, task: str | None, fault: BaseException) -> None:
        """Report a failed sending. Celery wraps the exception in an error of its own."""
        if name is None:
            return
        cause = fault.__context__ if type(fault).__name__ == "SchedulingError" else None
        cause = cause or fault
        if self._runs.result_backend.is_at_fault(cause):
            # The heartbeat reports the result backend: neither the entry nor the broker is at fault.
            return
        error = self._runs.error_of(cause)
        if is_broker_fault(self._app, cause):
            self._report_refused(str(name), task, error)
        else:
            # The broker is healthy; the entry fails each time, and nobody else can report that.
            self._runs.report_unsendable(str(name), str(task), error)

    def _report_refused(self, name: str, task: str | None, error: str) -> None:
        event = self._event("publish_failed", time.time(), entry=name, task=task, error=error, count=1)
        self._transport.put(event, latest=f"publish_failed {name}", merge=_merge_failed)

    @guarded
    def _report_canary_failed(self, fault: BaseException) -> None:
        self._report_refused(CANARY, CANARY, self._runs.error_of(fault))

    @guarded
    def _note_sent(self, entry: Any, at: float) -> None:
        if entry is None:
            return
        self._due_hints.note_sent(entry, at)
        if is_last_time(entry) and len(self._last_shots) < ENTRY_LIMIT:
            patience = max(self._settings.grace, self._settings.beat_period) + LAST_SHOT_SECONDS
            self._last_shots[str(entry.name)] = time.monotonic() + patience
        if self._listed is not None and str(entry.name) not in self._listed:
            # Added or enabled since the last list: the server must not wait a minute for it.
            self._list_due = min(self._list_due, self._listed_at + EARLY_RELIST_SECONDS)

    @guarded
    def _report_schedule(self) -> None:
        """List the schedule once a minute; send it when it changed, and every ten minutes in any case."""
        now = time.monotonic()
        canary = self._canary
        if now < self._list_due and not (canary is not None and canary.has_changed):
            return
        self._list_due, self._listed_at = now + RELIST_SECONDS, now
        entries = list_entries(self._scheduler, self._app, self._settings)
        self._keep_last_shots(entries, now)
        self._runs.seen_queues.update(dict.fromkeys(e["queue"] for e in entries if e["queue"]))
        self._listed = {entry["name"] for entry in entries if entry["enabled"]}
        # The canary counts as one entry.
        entries = self._as_many_as_taken(entries, ENTRY_LIMIT - (canary is not None))
        self._watched = {entry["name"] for entry in entries if entry["enabled"]}
        by_hint = {
            entry["name"]: entry["next_due_at"]
            for entry in entries
            if entry["enabled"] and entry["schedule"]["kind"] == "hint"
        }
        if canary is not None:
            entries.append(canary.entry())
        lasting = [{**entry, "next_due_at": None} for entry in entries]
        text = json.dumps(lasting, sort_keys=True, default=str)
        digest = hashlib.sha256(text.encode()).hexdigest()
        if digest == self._sent_hash and now - self._sent_at < RESEND_SECONDS:
            self._report_due(self._moved(by_hint))
            return
        self._transport.put(
            self._event(
                "beat_schedule",
                time.time(),
                **self._identity(),
                entries=entries,
            ),
            latest="beat_schedule",
        )
        self._sent_hash, self._sent_at, self._reported_due = digest, now, by_hint

    def _as_many_as_taken(self, entries: list[dict[str, Any]], limit: int) -> list[dict[str, Any]]:
        """Leave out entries beyond the limit, for which the server would refuse the whole list, and log them.

        In order of name, because RedBeat lists entries in another order each time.
        """
        if len(entries) <= limit:
            self._left_out = 0
            return entries
        entries = sorted(entries, key=lambda entry: str(entry["name"]))
        beyond = entries[limit:]
        if self._left_out != len(beyond):
            names = ", ".join(str(entry["name"]) for entry in beyond[:LEFT_OUT_NAMES])
            logger.warning(
                "Deadbeat: %d of %d entries are not watched, beyond the limit of %d: %s%s; "
                "the application is not affected",
                len(beyond),
                len(entries),
                ENTRY_LIMIT,
                names,
                ", …" if len(beyond) > LEFT_OUT_NAMES else "",
            )
        self._left_out = len(beyond)
        return entries[:limit]

    def _moved(self, by_hint: dict[str, str | None]) -> list[dict[str, Any]]:
        """Entries whose due time moved without a sending: their schedules read it elsewhere."""
        now = utc_text()
        return [
            {"name": name, "next_due_at": due}
            for name, due in by_hint.items()
            if _is_other_due(self._reported_due.get(name), due, now)
        ]

    def _keep_last_shots(self, entries: list[dict[str, Any]], now: float) -> None:
        """List a sent one-off as enabled until its run must have started, though its scheduler disables it.

        A disabled entry's monitor would be paused, and a run lost in the broker would never be missed.
        """
        self._last_shots = {name: until for name, until in self._last_shots.items() if until > now}
        if not self._last_shots:
            return
        for entry in entries:
            if not entry["enabled"] and entry["name"] in self._last_shots:
                entry["enabled"], entry["next_due_at"] = True, None
        over_at = min(self._last_shots.values())
        self._list_due = min(self._list_due, max(over_at, now + EARLY_RELIST_SECONDS))

    @guarded
    def _report_sent(self, idle: bool) -> None:
        """Report when sent entries are due next; soon after the last of those that are due together."""
        self._report_due(self._due_hints.take(idle, self._watched))

    def _report_due(self, hints: list[dict[str, Any]]) -> None:
        if not hints:
            return
        for hint in hints:
            if hint["name"] in self._reported_due:
                self._reported_due[hint["name"]] = hint["next_due_at"]
        event = self._event("beat_due", time.time(), entries=hints)
        self._transport.put(event, latest="beat_due", merge=merge_due)

    @guarded
    def _after_tick(self, started: float, interval: Any) -> None:
        now = time.monotonic()
        # Celery sends one due task a tick and returns 0 while more may be due. Only after an idle tick
        # has Beat sent everything that was due before, which is what the server concludes. A Beat that
        # is busy for a whole period still lives, and reports that.
        idle = not (isinstance(interval, (int, float)) and interval <= 0)
        self._report_sent(idle)
        if now >= self._alive_due + (0.0 if idle else self._settings.beat_period):
            if idle or self._alive_due:
                self._report_alive(started)
                self._alive_due = now + self._settings.beat_period
            else:
                # Busy since the first tick: the busy period starts here.
                self._alive_due = now
        if self._canary is not None and now >= self._canary_due:
            if self._canary.is_ready:
                self._canary_due = now + self._settings.canary_period
                self._canary.start(now)
            else:
                self._canary_due = now + min(CANARY_WAIT_SECONDS, self._settings.canary_period)

    @guarded
    def _watch(self) -> None:
        self._came_by = time.monotonic()
        if not self._is_watched:
            self._is_watched = True
            self._transport.every(self._settings.beat_period, self._report_hung)

    def _report_hung(self) -> None:
        """Report from the sender's thread that Beat's loop hangs: otherwise Beat would seem dead."""
        if self._has_ended or time.monotonic() - self._came_by <= 2 * self._settings.beat_period:
            return
        event = self._event("beat_alive", time.time(), **self._heartbeat_fields(), ticking=False)
        self._transport.put(event, latest="beat_hung")

    def _report_alive(self, at: float) -> None:
        self._transport.put(self._event("beat_alive", at, **self._heartbeat_fields()), latest="beat_alive")

    def _heartbeat_fields(self) -> dict[str, Any]:
        backend = self._runs.result_backend.report([os.getpid()])
        self._runs.result_backend.ask(backend)
        return {
            "period_seconds": whole(self._settings.beat_period),
            "grace_seconds": whole(self._settings.beat_grace),
            "project": self._runs.project,
            "result_backend": backend,
            "boot_id": self._boot_id,
            **self._identity(),
        }

    def _identity(self) -> dict[str, Any]:
        return {
            "boot": self._boot,
            "host": socket.gethostname(),
            "pid": os.getpid(),
            "started_at": utc_text(self._started_at),
            "state": "running" if self._reports_end else None,
        }

    def _shortened(self, interval: Any) -> Any:
        """Beat's own pause, or less when a duty of the SDK comes first (Beat may sleep 300 s)."""
        try:
            due = min(self._alive_due, self._list_due)
            if self._canary is not None:
                due = min(due, self._canary_due)
            hints_due = self._due_hints.round_due
            if hints_due is not None:
                due = min(due, hints_due)
            # At least a tenth of a second: a late duty must not make Beat spin.
            return min(interval, max(0.1, due - time.monotonic()))
        except TypeError:
            return interval

    def _event(self, kind: str, at: float, **fields: Any) -> dict[str, Any]:
        return {
            "id": new_id(),
            "type": kind,
            "at": utc_text(at),
            "beat": self._beat,
            **fields,
        }


def _is_other_due(reported: str | None, due: str | None, now: str) -> bool:
    if reported is None or due is None:
        return reported is not due
    if max(reported, due) <= now:
        # Overdue means due now: another instant each time, but no change.
        return False
    # The time that the computation takes makes it vary.
    apart = datetime.fromisoformat(due[:-1]) - datetime.fromisoformat(reported[:-1])
    return abs(apart.total_seconds()) >= 1.0


def _merge_failed(older: dict[str, Any], newer: dict[str, Any]) -> dict[str, Any]:
    """Merge two failures to send one entry, so that an outage of the broker does not pile them up."""
    return {**newer, "count": older["count"] + newer["count"]}
