"""A Celery schedule in the form the server computes with.

Sent are the sets Celery itself has expanded, never the text it parsed, so that the server need not know
Celery's syntax; and float seconds, never rounded units. A schedule that cannot be said in this form is
named as unsupported rather than left out: a task missing from the list would look unscheduled.
"""

from __future__ import annotations

from datetime import datetime, timedelta, timezone, tzinfo
from typing import TYPE_CHECKING, Any

from celery import __version__ as celery_version
from celery.schedules import BaseSchedule, crontab, schedule

if TYPE_CHECKING:
    from celery import Celery

_CRONTAB_FIELDS = {
    "minute": 60,
    "hour": 24,
    "day_of_week": 7,
    "day_of_month": 31,
    "month_of_year": 12,
}
_OWN_ARITHMETIC = ("is_due", "remaining_estimate", "remaining_delta")


def wire_schedule(plan: Any, app: Celery) -> dict[str, Any]:
    """Translate a schedule object; whatever it is, the answer has a `kind`."""
    if isinstance(plan, crontab) and _computes_as(plan, crontab):
        sets: dict[str, Any] = {
            field: _comma_list(getattr(plan, field), size) for field, size in _CRONTAB_FIELDS.items()
        }
        return {"kind": "celery", **sets, "timezone": zone_name(_zone_of(plan, app))}
    if isinstance(plan, schedule) and _computes_as(plan, schedule):
        seconds = plan.run_every.total_seconds()  # type: ignore[attr-defined]
        wire: dict[str, Any] = {"kind": "interval", "seconds": float(seconds)}
        if plan.relative:
            wire["relative"] = True
        return wire
    return {"kind": "unsupported", "class": type(plan).__name__}


def next_due(plan: BaseSchedule, last_run_at: datetime | None) -> float | None:
    """When the schedule is due after its last run, as a timestamp; None when never or unknown.

    A run already overdue is due now: Beat sends it on its next tick.
    """
    now = datetime.now(timezone.utc)
    if last_run_at is None:
        last_run_at = now
    elif last_run_at.tzinfo is None:
        last_run_at = last_run_at.replace(tzinfo=timezone.utc)
    zone = getattr(plan, "tz", None)
    if isinstance(zone, tzinfo):
        # A crontab with a zone of its own matches its fields in the zone of the instant it is given.
        last_run_at = last_run_at.astimezone(zone)
    remaining: timedelta | None = plan.remaining_estimate(last_run_at)
    if remaining is None:
        return None
    due = now.timestamp() + max(0.0, remaining.total_seconds())
    # Celery read its clock a moment after us; a crontab is due at a whole minute, not just before it.
    return float(round(due)) if isinstance(plan, crontab) else due


def zone_name(zone: Any) -> str:
    """The IANA name of a zone object, or the best text there is when it has none."""
    for attribute in ("key", "zone"):
        name = getattr(zone, attribute, None)
        if isinstance(name, str) and name:
            return name
    if isinstance(zone, timezone):
        offset = zone.utcoffset(None)
        if not offset:
            return "UTC"
        hours = offset.total_seconds() / 3600
        if hours.is_integer():
            # The signs of the Etc zones are reversed.
            return f"Etc/GMT{-int(hours):+d}"
    return str(zone)


def _zone_of(plan: crontab, app: Celery) -> Any:
    if _is_zone_aware(plan):
        return plan.tz
    nowfun = getattr(plan, "nowfun", None)
    if nowfun is not None and _celery_release() < (5, 7):
        # Up to 5.6 the zone of the user's clock decides (naive is UTC); 5.7 ignores that clock.
        return nowfun().tzinfo or timezone.utc
    return app.timezone


def _computes_as(plan: Any, base: type[BaseSchedule]) -> bool:
    """Whether the object follows the arithmetic of its base class, so that its fields tell all."""
    own = type(plan)
    return _is_zone_aware(plan) or all(
        getattr(own, method, None) is getattr(base, method, None) for method in _OWN_ARITHMETIC
    )


def _is_zone_aware(plan: Any) -> bool:
    # By name: importing django-celery-beat needs a configured Django. It differs by its zone only.
    return any(cls.__name__ == "TzAwareCrontab" for cls in type(plan).__mro__)


def _comma_list(values: Any, size: int) -> str:
    return "*" if len(values) == size else ",".join(str(value) for value in sorted(values))


def _celery_release() -> tuple[int, ...]:
    return tuple(int(part) for part in celery_version.split(".")[:2] if part.isdigit())
