"""Solar schedules: compares the server with Celery's own ``celery.schedules.solar``.

Both sides start from an instant and name the next time at which the task is due, then go on from there.
The comparison never uses Celery's clock: it calls the search with the instant itself.
"""

from __future__ import annotations

import math
import random
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import ephem
from celery import Celery
from celery.schedules import solar

from . import DIFFERS, Case, Ours, Refusal, clocks

EVENTS = (
    "dawn_astronomical",
    "dawn_nautical",
    "dawn_civil",
    "sunrise",
    "solar_noon",
    "sunset",
    "dusk_civil",
    "dusk_nautical",
    "dusk_astronomical",
)
#: The answers of both sides are equal when they are as close as this.
TOLERANCE = timedelta(seconds=1)
#: The greatest distance, in arcseconds, between the server's position of the sun and PyEphem's.
#: Seen: 0.4 in declination, 0.7 in right ascension.
POSITION = 1.0
#: A day is a grazing one when the sun turns this close to the horizon, in arcseconds.
GRAZING = 60.0
#: If Celery's search does not converge, it may name the last event again, up to this much later.
SAME_EVENT = timedelta(minutes=1)
#: Beyond this latitude the season moves the sun's height about as much as the day does.
NEAR_A_POLE = 89.0

_APP = Celery("deadbeat-tests", set_as_current=False)
_ARCSECOND = math.pi / 180 / 3600


def cases(seed: int, count: int) -> Iterator[Case]:
    """Random places and times from 2020 to 2040; more of high latitudes, solstices and borders than fair."""
    rng = random.Random(seed)
    for _ in range(count):
        yield _case(rng)


def _case(rng: random.Random) -> Case:
    kind = rng.random()
    if kind < 0.30:
        latitude = rng.uniform(-60, 60)
    elif kind < 0.60:
        latitude = rng.choice((-1, 1)) * rng.uniform(45, 67)
    elif kind < 0.85:
        latitude = rng.choice((-1, 1)) * rng.uniform(63, 76)
    elif kind < 0.97:
        latitude = rng.choice((-1, 1)) * rng.uniform(75, 90)
    else:
        latitude = rng.choice((0, 66, 66.56, 89, 89.9, 89.99, 90)) * rng.choice((-1, 1))
    longitude = rng.uniform(-180, 180) if rng.random() < 0.95 else rng.choice((-180, -90, 0, 90, 180))
    year = rng.randint(2020, 2039)
    if rng.random() < 0.5:
        solstice = datetime(year, rng.choice((6, 12)), 21, tzinfo=UTC)
        after = solstice + timedelta(days=rng.gauss(0, 25))
    else:
        after = datetime(year, 1, 1, tzinfo=UTC) + timedelta(days=rng.uniform(0, 365))
    if rng.random() < 0.5:
        after = after.replace(microsecond=0)
    digits = rng.choice((0, 1, 2, 4, 6))
    return {
        "schedule": {
            "kind": "solar",
            "event": rng.choice(EVENTS),
            "latitude": round(latitude, digits),
            "longitude": round(longitude, digits),
        },
        "after": clocks.text(after),
        "count": 4,
    }


def expected(case: Case) -> list[datetime]:
    """The times at which Celery runs the task, each computed from the one before."""
    schedule = _celery(case)
    found = []
    after = clocks.instant(case["after"])
    for _ in range(case["count"]):
        after = _next(schedule, after)
        found.append(after)
    return found


def agrees(case: Case, ours: Ours, theirs: list[datetime]) -> str | None:
    """None where both agree, the name of a documented difference, or ``DIFFERS``.

    * ``grazing``: the same event at another time, because the sun runs along the horizon: at our time it
      stands where it should.
    * ``grazing day``: one side has an event on a day on which the sun only just touches the horizon, the
      other has none.
    * ``celery repeats``: Celery names the event again that it has just run for, or a time that has passed;
      ours is the next one. Also where the first instant happens to be less than a second before an event: to
      us that run was for the event.
    * ``near a pole``: beyond 89 degrees PyEphem's search rarely converges, and where it stops is chance.
    """
    if isinstance(ours, Refusal):
        return DIFFERS
    found = None
    ours, theirs = list(ours), list(theirs)
    before = clocks.instant(case["after"])
    while ours and theirs:
        our, their = ours[0], theirs[0]
        verdict = _difference(case, before, our, their)
        if verdict in (DIFFERS, "near a pole"):
            # From here on both chains may start from different days.
            return verdict
        found = found or verdict
        # Leave out an event that only one side has.
        is_same_event = verdict in (None, "grazing")
        if is_same_event or our < their:
            ours.pop(0)
        if is_same_event or their < our:
            theirs.pop(0)
        before = min(our, their)
    return found


def _difference(case: Case, before: datetime, our: datetime, their: datetime) -> str | None:
    if abs(our - their) <= TOLERANCE:
        return None
    if case["schedule"]["event"] == "solar_noon":
        return DIFFERS
    if abs(our - their) < timedelta(hours=6) and abs(_height(case, our)) <= POSITION:
        return "grazing"
    if their - before <= (TOLERANCE if before == clocks.instant(case["after"]) else SAME_EVENT):
        return "celery repeats"
    if abs(case["schedule"]["latitude"]) >= NEAR_A_POLE:
        return "near a pole"
    if any(abs(_height(case, turn)) <= GRAZING for turn in _turns(case, min(our, their))):
        return "grazing day"
    return DIFFERS


def _celery(case: Case) -> solar:
    place = case["schedule"]
    return solar(place["event"], place["latitude"], place["longitude"], app=_APP)


def _next(schedule: solar, after: datetime) -> datetime:
    # As `remaining_estimate`, without the subtraction of the present time.
    return schedule._next_event(ephem.Date(after)).datetime().replace(tzinfo=UTC)


def _height(case: Case, at: datetime) -> float:
    """How far the sun is above the event's horizon at an instant, in arcseconds, as PyEphem sees it."""
    schedule = _celery(case)
    sun = ephem.Sun()
    schedule.cal.date = ephem.Date(at)
    sun.compute(schedule.cal)
    above = sun.alt - schedule.cal.horizon
    if not schedule.use_center:
        above += sun.radius
    return above / _ARCSECOND


def _turns(case: Case, at: datetime) -> list[datetime]:
    """The highest and lowest points of the sun around an instant."""
    observer = _celery(case).cal
    sun = ephem.Sun()
    found = []
    for name in ("previous_transit", "next_transit", "previous_antitransit", "next_antitransit"):
        turn = getattr(observer, name)(sun, start=ephem.Date(at))
        found.append(turn.datetime().replace(tzinfo=UTC))
    return [turn for turn in found if abs(turn - at) < timedelta(hours=7)]
