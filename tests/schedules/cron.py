"""Crontab lines: two oracles, cronsim and a simulation of Debian's cron, minute by minute.

cronsim 2.8 imitates Debian's cron and is in daily use, but it steps through the clock and fails at odd
changes. Where cronsim and the server differ, the simulation (`debian`) decides. The server is also compared
with the simulation alone.
"""

from __future__ import annotations

import random
import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from cronsim import CronSim, CronSimError

from . import DIFFERS, Case, Ours, Refusal, Theirs, clocks
from .debian import MONTHS, NICKNAMES, WEEKDAYS, Refused, read, read_number, simulated, written_out

#: The classes of docs/schedules.md.
CRONSIM_ONE_VALUE = "a step after a range of one value"
CRONSIM_HALF_HOUR = "a clock change of half an hour"
CRONSIM_MID_HOUR = "a clock change in the middle of an hour"
CRONSIM_MIDNIGHT = "a clock change at midnight"
CRONSIM_GOES_BACK = "an answer that does not lie ahead"
CRONSIM_NEVER_RETURNS = "a search without end"
NEVER_COMES = "dates that never come"
STEP_AFTER_LAST = "a step after L or LW"
OTHER_BLANKS = "line breaks between fields"
TOO_LONG = "more than 200 characters"
LARGE_CHANGE = "a clock change of three hours or more"

#: Most are invalid in a field; "" leaves a field out.
SLIPS = (
    "60", "24", "32", "0", "13", "8", "L", "5L", "1#6", "1#0", "*/0", "5-3", "", "?", "1-", "-1", "/2",
    "MON-L", "٣",
)  # fmt: skip

#: How many zones and times each expression is tried with.
PLACES = 4
#: A search with more steps than this never ends; others need a few thousand steps.
CRONSIM_STEPS = 50_000


# Cases


def cases(seed: int, count: int) -> Iterator[Case]:
    rng = random.Random(seed)
    expression = ""
    for number in range(count):
        if number % PLACES == 0:
            expression = random_expression(rng)
        place = clocks.random_zone(rng)
        yield {
            "schedule": {"kind": "cron", "expression": expression, "timezone": place},
            "after": clocks.text(clocks.random_instant(rng, place)),
            "count": 6,
        }


def random_expression(rng: random.Random) -> str:
    """Expressions as people write them, and a few with typing mistakes."""
    if rng.random() < 0.01:
        return rng.choice((*NICKNAMES, "@Daily", "@reboot", "@never"))
    fields = [
        random_field(rng, 0, 59),
        random_hours(rng),
        random_dates(rng),
        random_months(rng),
        random_weekdays(rng),
    ]
    if rng.random() < 0.2:
        # All slots of an expression for every second would lie in the minute of the start.
        fields.insert(
            0, rng.choice(("0", "30", "*", "*/20")) if rng.random() < 0.5 else random_field(rng, 0, 59)
        )
    blank = rng.choice((" ", " ", " ", " ", "  ", "\t"))
    expression = blank.join(fields)
    case = rng.random()
    if case < 0.2:
        expression = expression.upper()
    elif case < 0.25:
        expression = expression.title()
    if rng.random() < 0.04:
        expression = spoiled(rng, expression)
    return expression


def random_item(rng: random.Random, low: int, high: int, names: tuple[str, ...] = ()) -> str:
    def value(at_least: int = low) -> tuple[int, str]:
        number = rng.randint(at_least, high)
        # Sunday has a name as 0 only: SAT-SUN would run backwards.
        named = names and low <= number < low + len(names) and rng.random() < 0.4
        text = names[number - low] if named else str(number)
        return number, text if named or rng.random() < 0.97 else f"0{text}"

    kind = rng.random()
    if kind < 0.40:
        return value()[1]
    if kind < 0.60:
        return f"*/{rng.choice((1, 2, 2, 3, 4, 5, 6, 10, 12, 15, 20, 30, 45, 61, rng.randint(1, 70)))}"
    if kind < 0.90:
        first, first_text = value()
        last = value(first)[1]
        step = f"/{rng.choice((1, 2, 2, 3, 5, 7, 10, 40, 90))}" if kind > 0.78 else ""
        if kind > 0.895:
            last = first_text
        return f"{first_text}-{last}{step}"
    return f"{value()[1]}/{rng.choice((1, 2, 3, 5, 10, 15, 20, 40))}"


def random_field(rng: random.Random, low: int, high: int, names: tuple[str, ...] = ()) -> str:
    kind = rng.random()
    if kind < 0.28:
        return "*"
    items = [random_item(rng, low, high, names) for _ in range(1 if kind < 0.8 else rng.randint(2, 4))]
    if rng.random() < 0.02:
        items.insert(rng.randint(0, len(items)), "*")
    return ",".join(items)


def random_hours(rng: random.Random) -> str:
    """Half of the hours are those in which clocks change."""
    if rng.random() < 0.5:
        return rng.choice(
            ("0", "1", "2", "3", "23", "1,2", "2,3", "0-3", "1-3", "0,12", "*/2", "*/3", "23-23/5", "22-23")
        )
    return random_field(rng, 0, 23)


def random_dates(rng: random.Random) -> str:
    kind = rng.random()
    if kind < 0.5:
        return "*"
    if kind < 0.62:
        return rng.choice(
            ("L", "LW", "L,15", "LW,1-7", "1,L,LW", "*,L", "L,*", "l", "lw", "L/2", "LW/3", "29", "30", "31")
        )
    return random_field(rng, 1, 31)


def random_months(rng: random.Random) -> str:
    kind = rng.random()
    if kind < 0.6:
        return "*"
    if kind < 0.7:
        return rng.choice(("2", "FEB", "3,10,11", "mar-apr", "9-11", "Feb,nov"))
    return random_field(rng, 1, 12, MONTHS)


def random_weekdays(rng: random.Random) -> str:
    kind = rng.random()
    if kind < 0.45:
        return "*"
    if kind < 0.65:

        def day() -> str:
            return str(rng.randint(0, 7)) if rng.random() < 0.5 else rng.choice(WEEKDAYS)

        special = [
            rng.choice((f"{rng.randint(0, 7)}L", f"{day()}#{rng.randint(1, 5)}", day()))
            for _ in range(rng.choice((1, 1, 1, 2, 3)))
        ]
        return ",".join(special)
    return random_field(rng, 0, 7, WEEKDAYS)


def spoiled(rng: random.Random, expression: str) -> str:
    """The expression with one typing mistake; some results are still crontab lines."""
    at = rng.randrange(len(expression))
    kind = rng.randrange(8)
    if kind == 0:
        return expression[:at] + expression[at + 1 :]
    if kind in (1, 2):
        return expression[:at] + rng.choice("-/,*#LWwl?@x~.+_0956 ") + expression[at:]
    if kind == 3:
        return expression[:at] + rng.choice("-/,*#LW?@x~.+_0956 ") + expression[at + 1 :]
    fields = expression.split()
    index = rng.randrange(len(fields))
    if kind == 4:
        fields[index] = rng.choice(SLIPS)
    elif kind == 5:
        fields.insert(index, rng.choice(fields))
    elif kind == 6:
        fields[index] = ",".join([fields[index]] * rng.choice((2, 40)))
    else:
        return rng.choice(("\n", "\r\n", "\x0b", "\u00a0")).join(fields)
    return " ".join(fields)


# cronsim


@dataclass(frozen=True)
class Stopped:
    """cronsim's slots up to its failure."""

    slots: list[datetime]
    #: One of the classes above.
    why: str


class Stuck(Exception):
    """The search of cronsim does not end."""


class BoundedCronSim(CronSim):
    """A cronsim that gives up instead of searching forever: each round of its search makes such a step."""

    steps = 0

    def tick(self, seconds: int = 1) -> None:
        self._count()
        super().tick(seconds)

    def advance_day(self) -> bool:
        self._count()
        return super().advance_day()

    def _count(self) -> None:
        self.steps += 1
        if self.steps > CRONSIM_STEPS:
            raise Stuck


def expected(case: Case) -> Theirs | Stopped:
    """cronsim's slots, each computed anew from the one before, as the server does."""
    return cronsim_slots(written_out(case["schedule"]["expression"]), case)


def cronsim_slots(expression: str, case: Case) -> Theirs | Stopped:
    where = clocks.zone(case["schedule"]["timezone"])
    last = clocks.instant(case["after"])
    slots: list[datetime] = []
    for _ in range(case["count"]):
        try:
            slot = next(BoundedCronSim(expression, last.astimezone(where))).astimezone(UTC)
        except (CronSimError, AssertionError, ValueError) as error:
            return f"{type(error).__name__}: {error}"
        except StopIteration:
            break
        except Stuck:
            return Stopped(slots, CRONSIM_NEVER_RETURNS)
        if slot <= last:
            return Stopped(slots, CRONSIM_GOES_BACK)
        slots.append(slot)
        last = slot
    return slots


def agrees(case: Case, ours: Ours, theirs: Theirs | Stopped) -> str | None:
    """None if both agree; the class of the difference if the simulation backs the server; else DIFFERS."""
    if isinstance(ours, Refusal):
        return None if isinstance(theirs, str) else refused_on_purpose(case)
    if ours == theirs:
        return None
    if isinstance(theirs, str) or ours != expected_debian(case, largest_change=None):
        return DIFFERS
    theirs = cronsim_slots(without_steps_of_one_value(case["schedule"]["expression"]), case)
    if ours == theirs:
        return CRONSIM_ONE_VALUE
    if isinstance(theirs, Stopped):
        return theirs.why
    return DIFFERS if isinstance(theirs, str) else clock_change(case, ours, theirs)


def without_steps_of_one_value(expression: str) -> str:
    """The expression with `3` for `3-3/10`: cronsim reads that as `3/10`, but it means 3."""
    fields = written_out(expression).lower().split()
    for index, names in enumerate([()] * (len(fields) - 2) + [MONTHS, WEEKDAYS]):
        low = 1 if names == MONTHS else 0
        items = fields[index].split(",")
        for place, item in enumerate(items):
            found = re.fullmatch(r"(\w+)-(\w+)/\d+", item)
            if found and read_number(found[1], low, None, names) == read_number(found[2], low, None, names):
                items[place] = found[1]
        fields[index] = ",".join(items)
    return " ".join(fields)


def clock_change(case: Case, ours: list[datetime], theirs: list[datetime]) -> str:
    """The kind of clock change between the last slot on which two answers agree and the first that differ."""
    index = next(
        (number for number, pair in enumerate(zip(ours, theirs, strict=False)) if pair[0] != pair[1]), None
    )
    if index is None:
        return DIFFERS
    place = case["schedule"]["timezone"]
    begin = ours[index - 1] if index else clocks.instant(case["after"])
    end = max(ours[index], theirs[index])
    for change in clocks.changes_between(place, begin - timedelta(days=1), end):
        step = clocks.step(place, change)
        before = clocks.wall(change - timedelta(seconds=1), clocks.zone(place)) + timedelta(seconds=1)
        if step % timedelta(hours=1):
            return CRONSIM_HALF_HOUR
        if before.minute:
            return CRONSIM_MID_HOUR
        if before.hour == 0 or (before + step).hour == 0 or (before + step).date() != before.date():
            return CRONSIM_MIDNIGHT
    # cronsim is correct at changes of whole hours at a full hour other than midnight.
    return DIFFERS


def refused_on_purpose(case: Case) -> str:
    """Why the server is right to refuse an expression that an oracle accepts, or DIFFERS."""
    expression = case["schedule"]["expression"]
    if len(expression) > 200:
        return TOO_LONG
    if re.search(r"[^ \t!-~]", expression):
        return OTHER_BLANKS
    try:
        line = read(expression)
    except Refused:
        return STEP_AFTER_LAST if re.search(r"(^|[\s,])LW?/\d", expression, re.IGNORECASE) else DIFFERS
    # The server checks once, when the schedule is set; the hours that a clock skips changed over the years.
    beginnings = (clocks.instant(case["after"]), clocks.LAST)
    if not any(simulated(line, case["schedule"]["timezone"], begin, 1) for begin in beginnings):
        return NEVER_COMES
    return DIFFERS


# Debian's cron


def expected_debian(case: Case, largest_change: timedelta | None = timedelta(hours=3)) -> Theirs:
    """The slots of Debian's cron, by its manual."""
    schedule = case["schedule"]
    try:
        line = read(schedule["expression"])
    except Refused as reason:
        return str(reason)
    return simulated(line, schedule["timezone"], clocks.instant(case["after"]), case["count"], largest_change)


def agrees_debian(case: Case, ours: Ours, theirs: Theirs) -> str | None:
    if isinstance(ours, Refusal):
        return None if isinstance(theirs, str) else refused_on_purpose(case)
    if ours == theirs:
        return None
    return LARGE_CHANGE if ours == expected_debian(case, largest_change=None) else DIFFERS
