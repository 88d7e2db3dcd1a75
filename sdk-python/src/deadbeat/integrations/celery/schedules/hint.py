"""A schedule that only Beat can compute: its class, and a text for people.

The server expects such an entry only when Beat reports its next due time. Nothing here comes from a `repr`:
an object of the user's own may show a password or an address in it. The server gets only the name of such a
class.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime, timezone
from typing import Any

TEXT_LIMIT = 200

_FREQUENCIES = ("YEARLY", "MONTHLY", "WEEKLY", "DAILY", "HOURLY", "MINUTELY", "SECONDLY")
_DAYS = ("MO", "TU", "WE", "TH", "FR", "SA", "SU")
# Without the start: RedBeat sets a missing start to now at each start of the app, and the entry would seem
# changed.
_RULE_PARTS = {
    "COUNT": "count",
    "WKST": "wkst",
    "BYSETPOS": "bysetpos",
    "BYMONTH": "bymonth",
    "BYMONTHDAY": "bymonthday",
    "BYYEARDAY": "byyearday",
    "BYEASTER": "byeaster",
    "BYWEEKNO": "byweekno",
    "BYDAY": "byweekday",
    "BYHOUR": "byhour",
    "BYMINUTE": "byminute",
    "BYSECOND": "bysecond",
}


def hint_schedule(plan: Any, text: str = "") -> dict[str, Any]:
    """The schedule's class, with a text where one is known that describes it fully."""
    wire = {"kind": "hint", "class": _plain(type(plan).__name__) or "unknown"}
    if text := _plain(text or _known_text(plan)):
        wire["text"] = text
    return wire


def _known_text(plan: Any) -> str:
    # By exact name: importing RedBeat or django-celery-beat here would need their set-up.
    name = type(plan).__name__
    try:
        if name == "clocked":
            return _utc(plan.clocked_time)
        if name == "rrule":
            return _rule_text(plan)
    except Exception:
        # Another class of that name: its name alone must do.
        pass
    return ""


def _utc(instant: datetime) -> str:
    if instant.tzinfo is None:
        return instant.isoformat(timespec="seconds")
    return instant.astimezone(timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")


def _rule_text(plan: Any) -> str:
    """The rule as RFC 5545 writes it."""
    parts = [f"FREQ={_FREQUENCIES[plan.freq]}"]
    if plan.interval != 1:
        parts.append(f"INTERVAL={_rule_value('INTERVAL', plan.interval)}")
    if plan.until is not None:
        parts.append(f"UNTIL={_utc(plan.until).replace('-', '').replace(':', '')}")
    for part, field in _RULE_PARTS.items():
        value = getattr(plan, field)
        if value is not None:
            parts.append(f"{part}={_rule_value(part, value)}")
    return ";".join(parts)


def _rule_value(part: str, value: Any) -> str:
    if isinstance(value, Iterable):
        return ",".join(_rule_value(part, one) for one in value)
    # dateutil's weekday: MO(-1) is the month's last Monday.
    day = getattr(value, "weekday", None)
    if day is not None:
        return f"{value.n or ''}{_DAYS[day]}"
    number = int(value)
    return _DAYS[number] if part in ("BYDAY", "WKST") else str(number)


def _plain(text: str) -> str:
    """One short line, with blanks in place of unprintable characters."""
    return "".join(c if c.isprintable() else " " for c in text).strip()[:TEXT_LIMIT].rstrip()
