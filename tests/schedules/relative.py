"""Relative intervals: the oracle is Celery's `schedule(run_every, relative=True)`, asked as Beat asks it."""

from __future__ import annotations

import random
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

from celery.schedules import schedule as celery_schedule

from . import DIFFERS, Case, Ours, Theirs, clocks
from .celery import Clock, app, wait_for_dispatch

#: People's favourites, and those at which the rounding changes.
USUAL = (
    1,
    5,
    10,
    30,
    59,
    60,
    61,
    90,
    120,
    300,
    600,
    900,
    1800,
    3599,
    3600,
    3601,
    5400,
    7200,
    10800,
    21600,
    43200,
)
LONG = (86399, 86400, 86401, 90000, 129600, 172800, 604800, 2592000, 31622400)


def cases(seed: int, count: int) -> Iterator[Case]:
    rng = random.Random(seed)
    for _ in range(count):
        place = clocks.random_zone(rng)
        yield {
            "schedule": {
                "kind": "interval",
                "seconds": random_seconds(rng),
                "relative": True,
                "timezone": place,
            },
            "after": clocks.text(clocks.random_instant(rng, place)),
            "count": 6,
        }


def random_seconds(rng: random.Random) -> float:
    kind = rng.random()
    if kind < 0.4:
        return rng.choice(USUAL)
    if kind < 0.6:
        return rng.choice(LONG)
    if kind < 0.7:
        return round(rng.uniform(1, 10_000), rng.choice((1, 3, 6)))
    # As many of each size.
    return round(10 ** rng.uniform(0, 7.5))


def expected(case: Case) -> Theirs:
    place = case["schedule"]["timezone"]
    last = clocks.instant(case["after"]).astimezone(clocks.zone(place))
    clock = Clock(last)
    every = timedelta(seconds=case["schedule"]["seconds"])
    schedule = celery_schedule(every, relative=True, nowfun=clock, app=app(place))
    slots: list[datetime] = []
    for _ in range(case["count"]):
        if not wait_for_dispatch(schedule, clock, last):
            return "due at once"
        last = clock.now
        slots.append(last.astimezone(UTC))
    return slots


def agrees(_case: Case, ours: Ours, theirs: Theirs) -> str | None:
    """Nothing is refused and nothing differs on purpose."""
    return None if ours == theirs else DIFFERS
