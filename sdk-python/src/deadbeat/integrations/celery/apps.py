"""The applications of this process that called `init`, each with a reporter of its own.

Celery's signals are those of the whole process: a handler asks here whose the task, worker or Beat is.
"""

from __future__ import annotations

from typing import Any

from deadbeat.integrations.celery.runs.reporter import RunReporter

# By the app's identity. A reporter keeps its app alive, so that no other app gets the same number.
_reporters: dict[int, RunReporter] = {}


def actual_app(app: Any) -> Any:
    """The app itself, where it is given as a proxy (`celery.current_app`)."""
    resolve = getattr(app, "_get_current_object", None)
    return app if resolve is None else resolve()


def add(reporter: RunReporter) -> None:
    """Note the reporter of an app."""
    _reporters[id(reporter.app)] = reporter


def reporter_of(app: Any) -> RunReporter | None:
    """The reporter of this app; None if it did not call `init`."""
    return _reporters.get(id(app)) or _reporters.get(id(actual_app(app)))


def reporters() -> list[RunReporter]:
    """All of them, in the order of `init`."""
    return list(_reporters.values())


def installed(app: Any = None) -> RunReporter | None:
    """The reporter of this app; without an app, that of the first which called `init`."""
    return next(iter(reporters()), None) if app is None else reporter_of(app)
