"""Clocks for the cases: zones with odd changes, and instants that mostly lie near a change.

By default Python reads the machine's zone files, whose release is unknown. Here it reads only those of the
`tzdata` package, which tests/requirements.txt pins to the release that is built into the server.
"""

from __future__ import annotations

import random
import zoneinfo
from bisect import bisect_left, bisect_right
from datetime import UTC, datetime, timedelta, tzinfo
from functools import cache

import tzdata

zoneinfo.reset_tzpath(to=())
zoneinfo.ZoneInfo.clear_cache()

#: Each zone with its reason: when and by how much its clock changes.
ZONES = (
    "UTC",
    "America/New_York",  # an hour, at 2 o'clock
    "Europe/London",  # an hour, at 1 o'clock, and UTC in winter
    "Europe/Berlin",
    "Europe/Dublin",  # its summer time is the standard one
    "Australia/Lord_Howe",  # half an hour
    "America/Sao_Paulo",  # midnight was skipped and repeated, until 2019
    "America/Havana",  # midnight still is
    "Asia/Beirut",
    "Africa/Cairo",
    "America/St_Johns",  # one minute past midnight, until 2011; half an hour off the others
    "America/Nuuk",  # on a Saturday evening
    "America/Caracas",  # half an hour, and for good
    "Asia/Pyongyang",
    "Asia/Tehran",
    "Asia/Kathmandu",  # never
    "Asia/Gaza",  # on days that are announced
    "Africa/Casablanca",  # back and forth around Ramadan
    "Antarctica/Troll",  # two hours
    "Pacific/Chatham",  # at a quarter to
    "Pacific/Apia",  # a whole day was skipped in 2011
    "Pacific/Kiritimati",  # never, and 14 hours ahead
)

#: The time in which cases begin.
FIRST = datetime(2004, 1, 1, tzinfo=UTC)
LAST = datetime(2037, 1, 1, tzinfo=UTC)
#: No first slot lies further ahead: the rarest, 29 February on one weekday, are 40 years apart.
HORIZON = datetime(2080, 1, 1, tzinfo=UTC)


def release() -> str:
    """The release of the IANA database that Python computes with: "2026e"."""
    return str(tzdata.IANA_VERSION)


@cache
def zone(name: str) -> tzinfo:
    return UTC if name == "UTC" else zoneinfo.ZoneInfo(name)


def wall(instant: datetime, where: tzinfo) -> datetime:
    """The time that a clock of the zone shows, without a zone."""
    return instant.astimezone(where).replace(tzinfo=None)


@cache
def changes(name: str) -> tuple[datetime, ...]:
    """The first instants with another offset from UTC, up to HORIZON. No zone changes twice in a day."""
    where = zone(name)
    day = timedelta(days=1)
    found = []
    begin = FIRST - day
    offset = begin.astimezone(where).utcoffset()
    while begin < HORIZON:
        end = begin + day
        next_offset = end.astimezone(where).utcoffset()
        if next_offset != offset:
            same, other = begin, end
            while other - same > timedelta(seconds=1):
                middle = same + (other - same) // 2
                middle = middle.replace(microsecond=0)
                if middle.astimezone(where).utcoffset() == offset:
                    same = middle
                else:
                    other = middle
            found.append(other)
        begin, offset = end, next_offset
    return tuple(found)


def changes_between(name: str, begin: datetime, end: datetime) -> tuple[datetime, ...]:
    """The changes from `begin` to `end`, both included."""
    every = changes(name)
    return every[bisect_left(every, begin) : bisect_right(every, end)]


def step(name: str, change: datetime) -> timedelta:
    """By how much a change sets the clock forward; negative if it sets the clock back."""
    where = zone(name)
    return wall(change, where) - wall(change - timedelta(seconds=1), where) - timedelta(seconds=1)


def random_zone(rng: random.Random) -> str:
    return rng.choice(ZONES)


def random_instant(rng: random.Random, name: str) -> datetime:
    """Three of five lie within 25 hours of a clock change, where the zone has one; whole seconds, mostly."""
    near = changes_between(name, FIRST, LAST)
    if near and rng.random() < 0.6:
        # A change affects schedules of hours in the nights before and after, those of minutes at the change.
        spread = rng.choice((25 * 3600, 25 * 3600, 3 * 3600))
        instant = rng.choice(near) + timedelta(seconds=rng.randint(-spread, spread))
    else:
        instant = FIRST + timedelta(seconds=rng.randrange(int((LAST - FIRST).total_seconds())))
    kind = rng.random()
    if kind < 0.4:
        return instant.replace(second=0)
    if kind < 0.5:
        return instant.replace(minute=0, second=0)
    if kind < 0.55:
        return instant.replace(microsecond=rng.randrange(1_000_000))
    return instant


def instant(text: str) -> datetime:
    return datetime.fromisoformat(text)


def text(when: datetime) -> str:
    """As the server writes it: UTC, and no more digits of a second than are needed."""
    when = when.astimezone(UTC)
    whole = when.strftime("%Y-%m-%dT%H:%M:%S")
    if when.microsecond == 0:
        return f"{whole}Z"
    if when.microsecond % 1000 == 0:
        return f"{whole}.{when.microsecond // 1000:03}Z"
    return f"{whole}.{when.microsecond:06}Z"
