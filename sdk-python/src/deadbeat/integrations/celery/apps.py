"""The applications of this process that called `init`, each with its own reporter.

Celery's signals are global to the process: a handler asks here which app owns the task, worker or Beat.
"""

from __future__ import annotations

from typing import Any

from deadbeat.integrations.celery.runs.reporter import RunReporter

# By the app's identity. A reporter keeps its app alive, so that no other app gets the same id.
_reporters: dict[int, RunReporter] = {}


def actual_app(app: Any) -> Any:
    """The app itself, given the app or its proxy (`celery.current_app`)."""
    resolve = getattr(app, "_get_current_object", None)
    return app if resolve is None else resolve()


def add(reporter: RunReporter) -> None:
    """Register the reporter of an app."""
    _reporters[id(reporter.app)] = reporter


def reporter_of(app: Any) -> RunReporter | None:
    """The reporter of this app; None if it did not call `init`."""
    return _reporters.get(id(app)) or _reporters.get(id(actual_app(app)))


def reporters() -> list[RunReporter]:
    """All reporters, in the order of `init`."""
    return list(_reporters.values())


def installed(app: Any = None) -> RunReporter | None:
    """The reporter of this app; without an app, of the first app that called `init`."""
    return next(iter(reporters()), None) if app is None else reporter_of(app)
