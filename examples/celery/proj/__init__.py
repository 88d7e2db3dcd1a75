"""A small Celery project watched by Deadbeat. `celery -A proj` finds the app here."""

from proj.app import app

__all__ = ["app"]
