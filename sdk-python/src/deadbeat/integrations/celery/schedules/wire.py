"""Translates a Celery schedule into the form with which the server computes.

It sends the sets that Celery itself has expanded, never the text that Celery parsed: the server need not know
Celery's syntax. Seconds are floats, never rounded units. A schedule that the server cannot compute has the
kind `hint`; then only Beat reports when it is due.
"""

from __future__ import annotations

import re
from datetime import datetime, timedelta, timezone, tzinfo
from typing import TYPE_CHECKING, Any

from celery import __version__ as celery_version
from celery.schedules import BaseSchedule, crontab, schedule, solar

from deadbeat.integrations.celery.schedules.hint import hint_schedule

if TYPE_CHECKING:
    from celery import Celery

_CRONTAB_FIELDS = {
    "minute": 60,
    "hour": 24,
    "day_of_week": 7,
    "day_of_month": 31,
    "month_of_year": 12,
}
_CRON_ORDER = ("minute", "hour", "day_of_month", "month_of_year", "day_of_week")
_OWN_ARITHMETIC = (
    "is_due",
    "remaining_estimate",
    "remaining_delta",
    "_delta_to_next",
    "maybe_make_aware",
    "now",
)
_END_OF_CALENDAR = datetime(9999, 12, 31, tzinfo=timezone.utc).timestamp()
_ZONE_NAME = re.compile(r"[A-Za-z0-9_+-]+(/[A-Za-z0-9_+-]+)*")
# Names of zone files that name no zone.
_NO_ZONES = {"local", "localtime", "posixrules", "posix", "right", "Factory"}


def wire_schedule(plan: Any, app: Celery) -> dict[str, Any]:
    """Translate a schedule object; the result always has a `kind`."""
    if isinstance(plan, crontab) and _computes_as(plan, crontab):
        zone = zone_name(_own_zone(plan) or app.timezone)
        if zone is None:
            return hint_schedule(plan, _crontab_text(plan))
        sets: dict[str, Any] = {
            field: _comma_list(getattr(plan, field), size) for field, size in _CRONTAB_FIELDS.items()
        }
        return {"kind": "celery", **sets, "timezone": zone}
    if isinstance(plan, schedule) and _computes_as(plan, schedule):
        seconds = float(plan.run_every.total_seconds())  # type: ignore[attr-defined]
        if not plan.relative:
            return {"kind": "interval", "seconds": seconds}
        # Rounded down to the minute, hour or day on this zone's clock.
        zone = zone_name(_own_zone(plan) or app.timezone)
        if zone is None:
            return hint_schedule(plan, f"every {seconds:g} s, relative")
        return {"kind": "interval", "seconds": seconds, "relative": True, "timezone": zone}
    # Not a subclass: it may compute otherwise without overriding a method, because the horizons are fields.
    if type(plan) is solar:
        return {
            "kind": "solar",
            "event": str(plan.event),
            "latitude": float(plan.lat),
            "longitude": float(plan.lon),
        }
    return hint_schedule(plan)


def next_due(plan: BaseSchedule, last_run_at: datetime | None) -> float | None:
    """When the schedule is due after its last run, as a timestamp; None when never or unknown.

    An overdue run is due now: Beat sends it on its next tick. Raises what the schedule raises.
    """
    if not estimates_due(plan):
        return None
    now = datetime.now(timezone.utc)
    due = _reckoned_due(plan, now, last_run_at)
    if due is None or due >= _END_OF_CALENDAR:
        return None
    return max(due, now.timestamp())


def due_since(plan: BaseSchedule, last_run_at: datetime) -> float | None:
    """The slot of an entry that Beat is just sending: since when it is due; None when unknown.

    Raises what the schedule raises.
    """
    if not estimates_due(plan):
        return None
    now = datetime.now(timezone.utc)
    due = _reckoned_due(plan, now, last_run_at)
    # Beat rounds: an entry that it sends up to a second early is meant for the coming slot.
    return due if due is not None and due <= now.timestamp() + 1.0 else None


def _reckoned_due(plan: BaseSchedule, now: datetime, last_run_at: datetime | None) -> float | None:
    if last_run_at is None:
        last_run_at = now
    elif last_run_at.tzinfo is None:
        last_run_at = last_run_at.replace(tzinfo=timezone.utc)
    zone = _own_zone(plan) or getattr(plan, "tz", None)
    if isinstance(zone, tzinfo):
        # Celery matches fields, and rounds relative intervals, in the zone of the given instant.
        last_run_at = last_run_at.astimezone(zone)
    remaining: timedelta | None = plan.remaining_estimate(last_run_at)
    if remaining is None:
        return None
    due = now.timestamp() + remaining.total_seconds()
    # Celery read its clock a moment after the SDK; a crontab is due at a whole minute, not just before it.
    whole = isinstance(plan, crontab) or (isinstance(plan, schedule) and plan.relative)
    return float(round(due)) if whole else due


def estimates_due(plan: Any) -> bool:
    """Whether Beat goes by `remaining_estimate`.

    A class that overrides `is_due` alone inherits an estimate that ignores its decision, and each run that
    it leaves out would raise an alert. No due time is better than a wrong one.
    """
    for cls in type(plan).__mro__:
        if cls is BaseSchedule:
            break
        own = vars(cls)
        # django-celery-beat's class overrides `is_due` too, but computes as its base does.
        if "remaining_estimate" in own or "remaining_delta" in own or cls.__name__ == "TzAwareCrontab":
            return True
        if "is_due" in own:
            break
    return False


def happens_once(plan: Any) -> bool:
    """Whether Beat is done with the schedule after one sending; its estimate does not show that."""
    return any(cls.__name__ == "clocked" for cls in type(plan).__mro__)


def zone_name(zone: Any) -> str | None:
    """The IANA name of a zone object, None without one."""
    for attribute in ("key", "zone"):
        name = getattr(zone, attribute, None)
        if isinstance(name, str) and name:
            known = _ZONE_NAME.fullmatch(name) and name.split("/")[0] not in _NO_ZONES
            return name if known else None
    try:
        # Only a fixed offset has a value without an instant.
        offset = zone.utcoffset(None)
    except Exception:
        offset = None
    if offset is None:
        return None
    hours = offset.total_seconds() / 3600
    if not hours:
        return "UTC"
    # Only these have Etc zones, whose signs are reversed.
    return f"Etc/GMT{-int(hours):+d}" if hours.is_integer() and -12 <= hours <= 14 else None


def _own_zone(plan: Any) -> tzinfo | None:
    """The zone of the schedule if it is not the app's."""
    if _zone_aware_class(plan) is not None:
        return plan.tz  # type: ignore[no-any-return]
    nowfun = getattr(plan, "nowfun", None)
    if nowfun is None or (isinstance(plan, crontab) and _celery_release() >= (5, 7)):
        # Up to 5.6 the zone of the user's clock decides; 5.7 ignores that clock for crontabs.
        return None
    # An instant without a zone counts as UTC and is converted into the app's zone.
    return nowfun().tzinfo  # type: ignore[no-any-return]


def _computes_as(plan: Any, base: type[BaseSchedule]) -> bool:
    """Whether the object follows the arithmetic of its base class, so that its fields describe it fully."""
    base = _zone_aware_class(plan) or base
    return all(getattr(type(plan), method, None) is getattr(base, method, None) for method in _OWN_ARITHMETIC)


def _zone_aware_class(plan: Any) -> type[BaseSchedule] | None:
    # By name: importing django-celery-beat needs a configured Django. It differs only by its zone.
    return next((cls for cls in type(plan).__mro__ if cls.__name__ == "TzAwareCrontab"), None)


def _comma_list(values: Any, size: int) -> str:
    return "*" if len(values) == size else ",".join(str(value) for value in sorted(values))


def _crontab_text(plan: crontab) -> str:
    """Its five fields in the order of a crontab line, as written where that was text."""
    fields = []
    for field in _CRON_ORDER:
        written = getattr(plan, f"_orig_{field}", None)
        expanded = _comma_list(getattr(plan, field), _CRONTAB_FIELDS[field])
        fields.append(str(written) if isinstance(written, (str, int)) else expanded)
    return " ".join(fields)


def _celery_release() -> tuple[int, ...]:
    return tuple(int(part) for part in celery_version.split(".")[:2] if part.isdigit())
