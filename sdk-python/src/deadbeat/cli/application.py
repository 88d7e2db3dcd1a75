"""The application that a command examines: loaded as by `celery -A`, with its configuration."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from deadbeat.config import Settings, read_settings
from deadbeat.integrations.celery.runs.reporter import CANARY

if TYPE_CHECKING:
    from celery import Celery

# Celery's own tasks, which no configuration is about.
_BUILT_IN = "celery."


@dataclass(frozen=True)
class Entry:
    """An entry of `beat_schedule`."""

    name: str
    task: str
    schedule: Any
    options: dict[str, Any]

    @property
    def queue(self) -> str | None:
        """The queue that its options name."""
        return queue_name(self.options.get("queue"))


@dataclass(frozen=True)
class Application:
    """An app with the facts that an audit needs; `project` is the value of -A."""

    app: Celery
    project: str
    name: str
    # Queue → what names it.
    queues: dict[str, str] = field(default_factory=dict)
    entries: list[Entry] = field(default_factory=list)
    # For how many seconds a message may wait, if the app sets that.
    queue_wait: float | None = None

    @property
    def tasks(self) -> dict[str, Any]:
        """The application's own tasks."""
        return {
            str(name): task
            for name, task in self.app.tasks.items()
            if not str(name).startswith(_BUILT_IN) and name != CANARY
        }

    def hard_limit(self, task: Any) -> float | None:
        """After how many seconds a run of this task is killed; None, never."""
        return _seconds(getattr(task, "time_limit", None)) or _seconds(self.app.conf.task_time_limit)

    def soft_limit(self, task: Any) -> float | None:
        """After how many seconds a run of this task gets an exception; None, never."""
        return _seconds(getattr(task, "soft_time_limit", None)) or _seconds(
            self.app.conf.task_soft_time_limit
        )


def load(project: str) -> Application:
    """Load the app as `celery -A` does. Raises whatever its modules raise."""
    from celery.app.utils import find_app

    return complete(find_app(project), project)


def complete(app: Celery, project: str) -> Application:
    """Describe an app that `celery -A` has found, after importing its tasks."""
    app.finalize()
    app.loader.import_default_modules()
    return describe(app, project)


def describe(app: Celery, project: str) -> Application:
    """Describe a loaded app."""
    settings = sdk_settings(app)
    name = (
        (settings.name if settings is not None else os.environ.get("DEADBEAT_NAME")) or app.main or "celery"
    )
    entries = list(_entries(app))
    # Only versions with this setting have the attribute.
    queue_wait = getattr(settings, "queue_wait", None)
    return Application(app, project, str(name), _queues(app, entries), entries, queue_wait)


def sdk_settings(app: Any = None) -> Settings | None:
    """The settings of `deadbeat.init` for this app, else those of the environment; None without either."""
    from deadbeat.integrations.celery import apps

    reporter = apps.installed(app)
    return reporter.settings if reporter is not None else read_settings({})[0]


def _entries(app: Celery) -> Iterator[Entry]:
    for name, line in (app.conf.beat_schedule or {}).items():
        if isinstance(line, dict):
            yield Entry(
                str(name), str(line.get("task")), line.get("schedule"), dict(line.get("options") or {})
            )
        else:  # a ScheduleEntry is allowed, too
            yield Entry(str(name), str(line.task), line.schedule, dict(line.options or {}))


def _queues(app: Celery, entries: list[Entry]) -> dict[str, str]:
    queues = dict.fromkeys((str(name) for name in app.amqp.queues), "the app's configuration")
    for entry in entries:
        name = entry.queue or queue_name(getattr(app.tasks.get(entry.task), "queue", None))
        if name is not None:
            queues.setdefault(name, f"the Beat entry {entry.name}")
    for pattern, name in routes(app):
        queues.setdefault(name, f"the route of {pattern}")
    for task_name, task in app.tasks.items():
        name = queue_name(getattr(task, "queue", None))
        if name is not None:
            queues.setdefault(name, f"the task {task_name}")
    return queues


def routes(app: Celery) -> Iterator[tuple[str, str]]:
    """The routes of `task_routes`: task or pattern, and queue. Functions cannot be read."""
    tables = app.conf.task_routes or ()
    for table in tables if isinstance(tables, (list, tuple)) else (tables,):
        items = (
            table.items() if isinstance(table, dict) else table if isinstance(table, (list, tuple)) else ()
        )
        for item in items:
            if not (isinstance(item, (list, tuple)) and len(item) == 2):
                continue
            pattern, route = item
            name = queue_name(route.get("queue") if isinstance(route, dict) else route)
            if name is not None:
                yield getattr(pattern, "pattern", str(pattern)), name


def queue_name(queue: Any) -> str | None:
    """The name of a queue, given as an object or as a name."""
    name = getattr(queue, "name", queue)
    return name if isinstance(name, str) and name else None


def _seconds(limit: Any) -> float | None:
    return float(limit) if isinstance(limit, (int, float)) and limit > 0 else None
