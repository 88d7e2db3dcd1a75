"""Celery's crontabs: the oracle is `celery.schedules.crontab`, called as Beat calls it.

Beat keeps the time of each entry's last run. It asks `is_due` how long to wait, waits, asks again, and takes
the clock's time as the new last run. Here the clock is a number that the test sets forward, so nothing waits.
"""

from __future__ import annotations

import random
import re
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cache
from typing import Any

from celery import Celery
from celery.beat import ScheduleEntry, Scheduler
from celery.schedules import BaseSchedule, crontab

from . import DIFFERS, Case, Ours, Refusal, clocks

#: The classes of docs/schedules.md.
SENDS_WITHOUT_END = "Beat started in a repeated hour"
IGNORES_THE_REST = "characters that Celery overlooks"
OTHER_NUMBERS = "numbers as Python writes them"

FIELDS = ("minute", "hour", "day_of_month", "month_of_year", "day_of_week")
RANGES = ((0, 59), (0, 23), (1, 31), (1, 12), (0, 6))
MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
WEEKDAYS = ("sun", "mon", "tue", "wed", "thu", "fri", "sat")
LONG_MONTHS = (
    "January", "february", "March", "april", "May", "june",
    "July", "AUGUST", "Sept", "October", "novem", "December",
)  # fmt: skip
LONG_WEEKDAYS = ("Sunday", "monday", "Tues", "WEDNESDAY", "thurs", "Friday", "saturday")
#: Most are no items of Celery's grammar; Celery accepts some of these all the same.
SLIPS = (
    "60", "24", "7", "0", "13", "32", "5/15", "*/0", "1-5/", "", "L", "5L", "1#2", "?", "-1", "1-", "mo",
    "mon-", "mon/2", "1-5-7", "*/5/2", "1_0", "+5", "٣", "1-5x", "*/x", "**", "*-5", "5,", "jan#1", "1-3,,5",
)  # fmt: skip

#: The same crontab is asked in so many places and times.
PLACES = 4

_VALUE = r"([0-9]+|[A-Za-z]+)"
_ITEM = rf"(\*(/[0-9]+)?|{_VALUE}|{_VALUE}-{_VALUE}(/[0-9]+)?)"
GRAMMAR = re.compile(rf" *{_ITEM} *(, *{_ITEM} *)*")


# Cases


def cases(seed: int, count: int) -> Iterator[Case]:
    rng = random.Random(seed)
    fields: dict[str, Any] = {}
    for number in range(count):
        if number % PLACES == 0:
            fields = random_fields(rng)
        place = clocks.random_zone(rng)
        yield {
            "schedule": {"kind": "celery", **fields, "timezone": place},
            "after": clocks.text(clocks.random_instant(rng, place)),
            "count": 6,
        }


def random_fields(rng: random.Random) -> dict[str, Any]:
    """In Celery's grammar, or as the numbers into which Celery expanded it; the SDK sends numbers."""
    expanded = rng.random() < 0.4
    stars = (0.25, 0.25, 0.6, 0.65, 0.55)
    fields: dict[str, Any] = {}
    for index, name in enumerate(FIELDS):
        low, high = RANGES[index]
        if rng.random() < stars[index]:
            fields[name] = list(range(low, high + 1)) if expanded else "*"
        elif expanded:
            wanted = min(high - low + 1, rng.choice((1, 1, 1, 2, 3, 6, 20)))
            # Half of the hours are those in which clocks change.
            pool = range(0, 4) if index == 1 and wanted <= 4 and rng.random() < 0.5 else range(low, high + 1)
            fields[name] = rng.sample(pool, wanted)
        elif rng.random() < 0.05:
            fields[name] = rng.randint(low, high)
        elif index == 1 and rng.random() < 0.5:
            fields[name] = rng.choice(
                ("0", "1", "2", "3", "1,2", "2,3", "0-3", "23-2", "*/2", "22-4/2", "0, 12")
            )
        else:
            items = [random_item(rng, index) for _ in range(rng.choice((1, 1, 1, 1, 2, 3)))]
            # Celery takes a blank only before a number.
            blank = " " if rng.random() < (0.3 if all(item.isdigit() for item in items) else 0.02) else ""
            fields[name] = f",{blank}".join(items)
        if fields[name] == "*" and rng.random() < 0.5:
            del fields[name]
    if rng.random() < 0.06:
        spoil(rng, fields)
    return fields


def random_item(rng: random.Random, index: int) -> str:
    low, high = RANGES[index]

    def value() -> str:
        number = rng.randint(low, high)
        if index >= 3 and rng.random() < 0.5:
            # Celery takes both kinds of names in both fields, as their numbers.
            months, weekdays = rng.choice(((MONTHS, WEEKDAYS), (LONG_MONTHS, LONG_WEEKDAYS)))
            swapped = rng.random() < 0.1
            if (index == 3) != swapped and 1 <= number <= 12:
                return months[number - 1]
            if (index == 4) != swapped and number <= 6:
                return weekdays[number]
        return str(number)

    kind = rng.random()
    if kind < 0.4:
        return value()
    if kind < 0.65:
        return f"*/{rng.choice((1, 2, 2, 3, 4, 5, 6, 10, 12, 15, 20, 30, 45, 61, rng.randint(1, 70)))}"
    # Backwards is around the end.
    text = f"{value()}-{value()}"
    return f"{text}/{rng.choice((1, 2, 2, 3, 5, 7, 10, 40, 90))}" if kind > 0.85 else text


def spoil(rng: random.Random, fields: dict[str, Any]) -> None:
    name = rng.choice(FIELDS)
    value = fields.get(name, "*")
    kind = rng.randrange(4)
    if kind == 0 or not isinstance(value, str):
        # If no day matches, Celery searches to the year 9999.
        fields[name] = rng.choice(
            (-1, 60, 31, 0, 7, 13, 24, [60] if name == "day_of_week" else [], [60], [0, 99], [-1])
        )
    elif kind == 1:
        fields[name] = rng.choice(SLIPS)
    else:
        at = rng.randrange(len(value) + 1)
        fields[name] = value[:at] + rng.choice("-/,*#Lx?_+. 0956") + value[at + (kind == 3) :]


# Beat


@dataclass
class Clock:
    """The time that Beat sees."""

    now: datetime

    def __call__(self) -> datetime:
        return self.now


@dataclass
class Dispatches:
    """When Beat sends the task."""

    slots: list[datetime]
    #: Beat found the entry due again at the very time at which it had sent it.
    without_end: bool = False
    #: The same, and not because the clock shows an hour again.
    broken: bool = False


class NeverDue(Exception):
    """Beat waited as computed, and then computed another wait."""


@cache
def app(place: str) -> Celery:
    """Schedules take their zone from the app."""
    made = Celery(set_as_current=False)
    made.conf.timezone = "UTC" if place == "UTC" else place
    return made


def wait_for_dispatch(schedule: BaseSchedule, clock: Clock, last_run_at: datetime) -> bool:
    """Set the clock forward to when Beat sends the task, as `Scheduler.tick` does; false if that is now."""
    for attempt in range(10):
        due, wait = schedule.is_due(last_run_at)
        if due:
            return attempt > 0
        # In UTC: Python adds to an aware time by what its clock shows, also across a change.
        clock.now = (clock.now.astimezone(UTC) + timedelta(seconds=float(wait))).astimezone(
            last_run_at.tzinfo
        )
    raise NeverDue


def expected(case: Case) -> Dispatches | str:
    fields = {name: case["schedule"].get(name, "*") for name in FIELDS}
    place = case["schedule"]["timezone"]
    last = clocks.instant(case["after"]).astimezone(clocks.zone(place))
    clock = Clock(last)
    try:
        schedule = crontab(**fields, nowfun=clock, app=app(place))
        # Celery finds some faults only when the schedule is first used.
        schedule.is_due(last)
    except Exception as error:  # Celery raises many kinds, and lets those of Python through.
        return f"{type(error).__name__}: {error}"
    found = Dispatches([])
    for _ in range(case["count"]):
        clock.now = last
        if not wait_for_dispatch(schedule, clock, last):
            # The task is due at once after each dispatch, for as long as the clock shows this hour again. The
            # next slot is that of a Beat that starts in the last second of the hour.
            found.without_end = True
            if last.fold != 1:
                found.broken = True
                return found
            end = end_of_repeated_hour(place, last)
            clock.now = last = (end - timedelta(seconds=1)).astimezone(clocks.zone(place))
            wait_for_dispatch(schedule, clock, last)
        last = clock.now
        found.slots.append(last.astimezone(UTC))
    return found


class RecordingScheduler(Scheduler):
    """Beat's own scheduler with one entry; it notes due entries instead of sending them."""

    def __init__(self, *arguments: Any, **keywords: Any) -> None:
        self.sent = 0
        super().__init__(*arguments, **keywords)

    def setup_schedule(self) -> None:
        """Without the entries of the app."""

    @property
    def producer(self) -> None:
        """There is no broker."""

    def apply_entry(self, entry: ScheduleEntry, producer: None = None) -> None:
        self.sent += 1


def dispatched_by_scheduler(case: Case) -> list[datetime]:
    """The same as `expected`, by a whole Beat: slow, and proof that `expected` calls `is_due` correctly."""
    place = case["schedule"]["timezone"]
    last = clocks.instant(case["after"]).astimezone(clocks.zone(place))
    clock = Clock(last)
    fields = {name: case["schedule"].get(name, "*") for name in FIELDS}
    schedule = crontab(**fields, nowfun=clock, app=app(place))
    entry = ScheduleEntry("name", "task", last_run_at=last, schedule=schedule, app=app(place))
    scheduler = RecordingScheduler(app(place), schedule={"name": entry}, max_interval=1e12, Producer=dict)
    found: list[datetime] = []
    while len(found) < case["count"]:
        wait = scheduler.tick()
        if scheduler.sent > len(found):
            found.append(clock.now.astimezone(UTC).replace(microsecond=0))
        else:
            # Beat wakes up 10 ms early and then calls it repeatedly, which takes a real Beat some time.
            now = clock.now.astimezone(UTC) + timedelta(seconds=max(wait, 0.001))
            clock.now = now.astimezone(last.tzinfo)
    return found


def end_of_repeated_hour(place: str, inside: datetime) -> datetime:
    """The first instant after the second showing of a wall time that is shown only once."""
    change = clocks.changes_between(place, clocks.FIRST, inside.astimezone(UTC))[-1]
    return change - clocks.step(place, change)


def agrees(case: Case, ours: Ours, theirs: Dispatches | str) -> str | None:
    if isinstance(ours, Refusal):
        return None if isinstance(theirs, str) else refused_on_purpose(case, ours)
    if isinstance(theirs, str) or theirs.broken or ours != theirs.slots:
        return DIFFERS
    return SENDS_WITHOUT_END if theirs.without_end else None


def refused_on_purpose(case: Case, ours: Refusal) -> str:
    """Why the server is right to refuse a schedule that Celery accepts, or DIFFERS.

    The grammar is in the documentation of `celery.schedules.crontab_parser`. Celery matches only the
    beginning of an item, and only the first three letters of a name: it ignores the rest.
    """
    text = case["schedule"].get(ours.field.removeprefix("/"))
    if not isinstance(text, str):
        return DIFFERS
    # int() accepts the digits of any script, a sign in front, and underscores between digits.
    plain = "".join(str(unicodedata.digit(one, one)) for one in text)
    plain = re.sub(r"(?<=\d)_(?=\d)|(?<![^,\s])\+(?=\d)", "", plain)
    if not GRAMMAR.fullmatch(plain):
        return IGNORES_THE_REST
    return OTHER_NUMBERS if plain != text else DIFFERS
