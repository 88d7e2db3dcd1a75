"""The whole schedule of a running Beat, whichever scheduler it has.

`scheduler.schedule` is complete for Celery's own schedulers only. RedBeat shows the due entries and the next
one; django-celery-beat hides disabled rows and crontab rows that are hours away. The SDK reads these two
where they keep their list. It writes nothing, and builds no entry of theirs that could write.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timezone
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any

from deadbeat._transport.clock import utc_text
from deadbeat._transport.guard import log_once
from deadbeat.integrations.celery.schedules.hint import hint_schedule
from deadbeat.integrations.celery.schedules.wire import estimates_due, happens_once, next_due, wire_schedule

if TYPE_CHECKING:
    from celery import Celery

    from deadbeat.config import Settings

logger = logging.getLogger("deadbeat")

_DAY_SECONDS = 86_400.0
_AFTER_TIME_LIMIT_SECONDS = 60.0
# The longest delay that the server accepts.
_LONGEST_DELAY_SECONDS = 366 * _DAY_SECONDS

_warned_classes: set[str] = set()


@dataclass
class _Found:
    """An entry as its scheduler keeps it. `due` is a timestamp if the scheduler knows it."""

    name: str
    task: str
    plan: Any
    options: dict[str, Any]
    enabled: bool = True
    due: float | None = None


def list_entries(scheduler: Any, app: Celery, settings: Settings) -> list[dict[str, Any]]:
    """All entries of this scheduler in the server's form, in order of name.

    An entry whose schedule cannot be read is listed by its class. Raises what the scheduler's storage raises.
    """
    entries = [_wire_entry(found, app, settings) for found in _find_entries(scheduler, app)]
    return sorted(entries, key=lambda entry: str(entry["name"]))


def _find_entries(scheduler: Any, app: Celery) -> Iterator[_Found]:
    if any(cls.__name__ == "RedBeatScheduler" for cls in type(scheduler).__mro__):
        return _in_redis(app)
    if hasattr(getattr(scheduler, "Model", None), "_default_manager"):
        return _in_database(scheduler)
    return _in_memory(scheduler)


def _in_memory(scheduler: Any) -> Iterator[_Found]:
    for name, entry in list(scheduler.schedule.items()):
        over = happens_once(entry.schedule) and bool(entry.total_run_count)
        yield _Found(
            name=str(name),
            task=entry.task,
            plan=entry.schedule,
            options=entry.options or {},
            due=None if over else _due(entry.schedule, entry.last_run_at),
        )


def _in_redis(app: Celery) -> Iterator[_Found]:
    from redbeat.schedulers import RedBeatSchedulerEntry, get_redis

    redis = get_redis(app)
    scored = redis.zrange(app.redbeat_conf.schedule_key, 0, -1, withscores=True)  # type: ignore[attr-defined]
    with redis.pipeline() as pipe:
        for key, _ in scored:
            pipe.hget(key, "definition")
        definitions = pipe.execute() if scored else []
    for (_, score), definition in zip(scored, definitions):
        if not definition:
            continue
        entry = RedBeatSchedulerEntry.decode_definition(definition)
        yield _Found(
            name=str(entry["name"]),
            task=entry["task"],
            plan=entry["schedule"],
            options=entry.get("options") or {},
            enabled=bool(entry.get("enabled", True)),
            # RedBeat itself goes by the score; below zero means never again.
            due=score if score >= 0 else None,
        )


def _in_database(scheduler: Any) -> Iterator[_Found]:
    model = scheduler.Model
    kinds = {"interval", "crontab", "solar", "clocked"}
    joined = [field.name for field in model._meta.get_fields() if field.name in kinds]
    now = datetime.now(timezone.utc)
    for row in model._default_manager.select_related(*joined):
        last_run_at, runs = _last_run(row, scheduler)
        over = bool(row.expires and _aware(row.expires) <= now)
        # The scheduler disables a one-off row that has run only when it comes across it.
        over = over or bool(row.one_off and runs > 0)
        try:
            plan = row.schedule
        except Exception:
            plan = None  # its schedule row is gone; Beat disables such a task
        enabled = bool(row.enabled) and not over and plan is not None
        due = _due(plan, last_run_at) if enabled else None
        if due is not None and row.start_time and not row.last_run_at:
            due = max(due, _aware(row.start_time).timestamp())
        yield _Found(
            name=str(row.name),
            task=row.task,
            plan=plan,
            options={"queue": row.queue} if row.queue else {},
            enabled=enabled,
            due=due,
        )


def _last_run(row: Any, scheduler: Any) -> tuple[datetime, int]:
    """When a row was last sent, and how often; its scheduler writes that down every three minutes only."""
    last_run_at, runs = row.last_run_at or row.date_changed, row.total_run_count
    # Avoid `schedule`, which reads the database and may write to it.
    running = vars(scheduler).get("_schedule") or {}
    sent = getattr(running.get(row.name), "model", None)
    if sent is not None and sent.enabled and _aware(sent.last_run_at) > _aware(last_run_at):
        return sent.last_run_at, sent.total_run_count
    return last_run_at, runs


def _due(plan: Any, last_run_at: datetime | None) -> float | None:
    try:
        if not estimates_due(plan):
            _warn_unwatched(type(plan).__name__)
            return None
        return next_due(plan, last_run_at)
    except Exception:
        log_once("the next due time of a schedule")
        return None


def _warn_unwatched(name: str) -> None:
    if name not in _warned_classes:
        _warned_classes.add(name)
        logger.warning(
            "Deadbeat: the schedule class %s overrides is_due alone, so only Beat knows when it is due; "
            "override remaining_estimate, too, or Deadbeat does not notice its missing runs",
            name,
        )


def _aware(instant: datetime) -> datetime:
    return instant if instant.tzinfo else instant.replace(tzinfo=timezone.utc)


def _wire_entry(found: _Found, app: Celery, settings: Settings) -> dict[str, Any]:
    try:
        plan = wire_schedule(found.plan, app)
    except Exception:
        log_once("the translation of a schedule")
        plan = hint_schedule(found.plan)
    longest_run = _longest_run(found, app, settings)
    delay = _delay(found)
    return {
        "name": found.name,
        "task": found.task,
        "schedule": plan,
        "enabled": found.enabled,
        **({"delay_seconds": whole(delay)} if delay else {}),
        "grace_seconds": whole(settings.grace),
        "longest_run_seconds": whole(_DAY_SECONDS if longest_run is None else longest_run),
        # Then the baseline that the server learns from this task's runs bounds them, too.
        "longest_run_is_a_guess": longest_run is None,
        **({"every_run": True} if _wants_every_run(found, settings) else {}),
        "queue": _queue_name(found, app),
        "next_due_at": None if found.due is None else utc_text(found.due),
    }


def _delay(found: _Found) -> float:
    """The earliest time after its due time at which the entry's run may begin, in seconds.

    `expires` does not count: Beat may send late, and the worker reports an expired message.
    """
    countdown, eta = found.options.get("countdown"), found.options.get("eta")
    delay = 0.0
    if isinstance(countdown, (int, float)) and countdown:
        # Celery prefers it to an `eta`.
        delay = float(countdown)
    elif isinstance(eta, datetime) and found.due is not None:
        delay = float(round(_aware(eta).timestamp() - found.due))
    return min(max(delay, 0.0), _LONGEST_DELAY_SECONDS)


def _wants_every_run(found: _Found, settings: Settings) -> bool:
    return any(fnmatchcase(found.name, pattern) for pattern in settings.every_run)


def _longest_run(found: _Found, app: Celery, settings: Settings) -> float | None:
    """A minute after the hard time limit, when the run is certainly over and reported. None: no limit."""
    if settings.longest_run is not None:
        return settings.longest_run
    limit = (
        found.options.get("time_limit")
        or getattr(app.tasks.get(found.task), "time_limit", None)
        or app.conf.task_time_limit
    )
    return None if not limit else float(limit) + _AFTER_TIME_LIMIT_SECONDS


def _queue_name(found: _Found, app: Celery) -> str | None:
    """The queue named by the entry or its task; None when routing chooses at publishing time."""
    queue = found.options.get("queue") or getattr(app.tasks.get(found.task), "queue", None)
    return None if queue is None else str(getattr(queue, "name", queue))


def whole(seconds: float) -> float:
    """A number of seconds, as an integer if it is whole, as documented."""
    return int(seconds) if float(seconds).is_integer() else seconds
