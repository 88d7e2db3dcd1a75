"""Debian's cron by its manual, crontab(5) and cron(8), simulated minute by minute.

It is slow and simple. It is written from the manual, without reading the source of the server or of cronsim;
only their extensions (seconds, `N/step`, `L`, `LW`, `5L`, `MON#2`) follow them. Where the manual says
"a `*`", it means a field that begins with one.
"""

from __future__ import annotations

import re
from calendar import monthrange
from dataclasses import dataclass
from datetime import date, datetime, timedelta

from . import clocks

MINUTE = timedelta(minutes=1)
#: Longer than the search of cronsim and of the server, and than the gap between any two slots.
SEARCH = timedelta(days=51 * 366)

#: The nicknames and their fields: crontab(5), EXTENSIONS.
NICKNAMES = {
    "@hourly": "0 * * * *",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@weekly": "0 0 * * 0",
    "@monthly": "0 0 1 * *",
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
}
MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
WEEKDAYS = ("sun", "mon", "tue", "wed", "thu", "fri", "sat")


class Refused(Exception):
    """A crontab line is invalid."""


@dataclass(frozen=True)
class Line:
    """The times that the fields of a crontab line name."""

    seconds: frozenset[int]
    minutes: frozenset[int]
    hours: frozenset[int]
    dates: frozenset[int]
    months: frozenset[int]
    #: Sunday is 0.
    weekdays: frozenset[int]
    last_date: bool
    last_workday: bool
    #: Weekday and which one of the month; 0 is the last.
    numbered_weekdays: frozenset[tuple[int, int]]
    #: A day field begins with `*`: a day has to match both. Otherwise one of them is enough.
    both_days: bool
    #: Neither the minute nor the hour begins with `*`: cron(8) makes up for a clock change.
    fixed: bool

    def has_day(self, day: date) -> bool:
        if day.month not in self.months:
            return False
        length = monthrange(day.year, day.month)[1]
        weekday = day.isoweekday() % 7
        by_date = (
            day.day in self.dates
            or (self.last_date and day.day == length)
            or (self.last_workday and weekday in range(1, 6) and not workdays_after(day, length))
        )
        by_weekday = (
            weekday in self.weekdays
            or (weekday, (day.day + 6) // 7) in self.numbered_weekdays
            or ((weekday, 0) in self.numbered_weekdays and day.day + 7 > length)
        )
        return (by_date and by_weekday) if self.both_days else (by_date or by_weekday)


def workdays_after(day: date, length: int) -> list[date]:
    """Monday to Friday, up to the end of the month."""
    later = (day.replace(day=number) for number in range(day.day + 1, length + 1))
    return [one for one in later if one.isoweekday() <= 5]


# Reading


def written_out(expression: str) -> str:
    """The fields that a nickname stands for; anything else as it is."""
    return NICKNAMES.get(expression.strip(" \t"), expression)


def read(expression: str) -> Line:
    """crontab(5), with `L`, `LW`, `5L` and `MON#2`, and seconds in front where there are six fields."""
    fields = written_out(expression).lower().split()
    if len(fields) not in (5, 6):
        raise Refused("neither five nor six fields")
    second = fields.pop(0) if len(fields) == 6 else None
    minute, hour, dates, month, weekdays = fields

    plain_dates, last_date, last_workday = [], False, False
    for item in dates.split(","):
        if item == "l":
            last_date = True
        elif item == "lw":
            last_workday = True
        else:
            plain_dates.append(item)
    plain_weekdays, numbered = [], set()
    for item in weekdays.split(","):
        if "#" in item:
            day, number = item.split("#", 1)
            which = read_number(number, 1, 5)
            numbered.add((read_number(day, 0, 7, WEEKDAYS) % 7, which))
        elif re.fullmatch(r"\d+l", item, re.ASCII):
            numbered.add((read_number(item[:-1], 0, 7) % 7, 0))
        else:
            plain_weekdays.append(item)
    return Line(
        seconds=frozenset({0}) if second is None else read_items(second.split(","), 0, 59),
        minutes=read_items(minute.split(","), 0, 59),
        hours=read_items(hour.split(","), 0, 23),
        dates=read_items(plain_dates, 1, 31),
        months=read_items(month.split(","), 1, 12, MONTHS),
        weekdays=frozenset(day % 7 for day in read_items(plain_weekdays, 0, 7, WEEKDAYS)),
        last_date=last_date,
        last_workday=last_workday,
        numbered_weekdays=frozenset(numbered),
        both_days=dates.startswith("*") or weekdays.startswith("*"),
        fixed=second is None and not minute.startswith("*") and not hour.startswith("*"),
    )


def read_items(items: list[str], low: int, high: int, names: tuple[str, ...] = ()) -> frozenset[int]:
    values: set[int] = set()
    for item in items:
        begin, slash, step_text = item.partition("/")
        step = read_number(step_text, 1, None) if slash else 1
        first_text, dash, last_text = begin.partition("-")
        if begin == "*":
            first, last = low, high
        elif dash:
            first, last = read_number(first_text, low, high, names), read_number(last_text, low, high, names)
            if first > last:
                raise Refused("a range that runs backwards")
        else:
            first = read_number(first_text, low, high, names)
            last = high if slash else first
        values.update(range(first, last + 1, step))
    return frozenset(values)


def read_number(text: str, low: int, high: int | None, names: tuple[str, ...] = ()) -> int:
    if text in names:
        return low + names.index(text)
    if not re.fullmatch(r"\d+", text, re.ASCII):
        raise Refused(f"'{text}' is no number")
    number = int(text)
    if number < low or (high is not None and number > high):
        raise Refused(f"{number} lies outside")
    return number


# Running


def simulated(
    line: Line, place: str, after: datetime, count: int, largest_change: timedelta | None = None
) -> list[datetime]:
    """The first runs after an instant, of a cron that has been running for long.

    cron(8): "Special considerations exist when the clock is changed by less than 3 hours, for example at the
    beginning and end of daylight savings time. If the time has moved forwards, those jobs which would have
    run in the time that was skipped will be run soon after the change. Conversely, if the time has moved
    backwards by less than 3 hours, those jobs that fall into the repeated time will not be re-run. Only jobs
    that run at a particular time (not specified as @hourly, nor with '*' in the hour or minute specifier) are
    affected. Jobs which are specified with wildcards are run based on the new time immediately. Clock changes
    of more than 3 hours are considered to be corrections to the clock, and the new time is used immediately."

    `largest_change` is that limit; without it, every change counts as a small one.
    """
    where = clocks.zone(place)
    found: list[datetime] = []
    end = after + SEARCH
    # Begin long enough before: the runs until then decide about the repeated hour.
    now = after.replace(second=0, microsecond=0) - timedelta(days=2)
    # cron has run everything up to this minute of the wall clock.
    done = clocks.wall(now, where) - MINUTE
    while now < end and len(found) < count:
        shown = clocks.wall(now, where)
        ahead = shown - done
        if ahead == MINUTE:
            # Nothing happens in an hour or a day that the clock shows in full and the line does not name.
            leap = None
            if shown.minute == 0:
                if shown.hour == 0 and not line.has_day(shown.date()):
                    leap = timedelta(days=1)
                elif shown.hour not in line.hours or not line.has_day(shown.date()):
                    leap = timedelta(hours=1)
            if leap and clocks.wall(now + leap, where) == shown + leap:
                now += leap
                done = shown + leap - MINUTE
                continue
        large = largest_change is not None and abs(ahead - MINUTE) >= largest_change
        if large or not line.fixed:
            runs = matches(line, shown)
        elif ahead > timedelta(0):
            missed = range(int(ahead / MINUTE))
            runs = any(matches(line, shown - minutes * MINUTE) for minutes in missed)
        else:
            runs = False
        if large or not line.fixed or ahead > timedelta(0):
            done = shown
        if runs:
            seconds = (now + timedelta(seconds=second) for second in sorted(line.seconds))
            slots = [slot for slot in seconds if slot > after]
            found += slots[: count - len(found)]
            if slots:
                end = slots[-1] + SEARCH
        now += MINUTE
    return found


def matches(line: Line, shown: datetime) -> bool:
    return shown.minute in line.minutes and shown.hour in line.hours and line.has_day(shown.date())
