"""systemd's calendar expressions: two oracles, the `oncalendar` package and systemd itself.

`oncalendar` (which Healthchecks uses) is another reading of the same manual page; `systemd-analyze calendar`
is the program that runs the jobs, but not every machine has it. Where the two differ, the server follows
systemd. An intended difference has a name below and a row in docs/schedules.md.

Slots are lists of aware datetimes; in place of them, a text says why an expression was refused.
"""

from __future__ import annotations

import random
import re
import shutil
import subprocess
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta, tzinfo
from functools import cache
from itertools import islice
from typing import Any
from zoneinfo import ZoneInfo

Case = dict[str, Any]
Answer = list[datetime] | str

#: An unexplained difference: a fault of the server, of the oracle or of the test.
DIFFERS = "DIFFERS"

#: The classes of docs/schedules.md. Of both oracles:
NEVER_COMES = "never-comes"  # read by the oracle, which then finds no slot; refused by the server
SECOND_SHOWING = "second-showing"  # a search that starts in the second showing of an hour
GOES_BACK = "goes-back"  # started in a second showing, the oracle begins with times that are over
FRACTION = "fraction"  # of a second
TOO_LONG = "too-long"  # more lines or characters than the server takes
OTHER_ZONE = "other-zone"  # posix/…, right/…, localtime: files beside those of the IANA database
TIMESTAMP = "timestamp"  # `@ 5`, `@+5`
#: Of systemd alone:
OTHER_SHOWING = "other-showing"  # a leap to a repeated time may end in its second showing
GIVES_UP = "gives-up"  # "Resource deadlock avoided": it runs in circles before some gaps
#: After a gap that is not one whole hour, or with which "summer" ends, times of that day are lost or wrong.
ODD_GAP = "odd-gap"
STARTED_AT_TURN = "started-at-turn"  # `*:0/7` loses 00:00, but not when the search starts after midnight
TURN_AT_CHANGE = "turn-at-change"  # a step over a turn takes the offset of where it would have ended
#: Of the package alone, where the server is with systemd:
PACKAGE_REFUSES = "package-refuses"
PACKAGE_TAKES = "package-takes"
PACKAGE_MERGES = "package-merges"  # it puts lines together by wall time, and loses one of two showings
PACKAGE_OVERRUN = "package-overrun"  # `*:0/7` loses 00:00 in systemd
PACKAGE_ONE_VALUE = "package-one-value"  # `7..7/30` is 7 for systemd, and 7/30 for it
PACKAGE_STEP_FROM_END = "package-step-from-end"  # `~1..8/3` is 1, 4, 7 for systemd, and 2, 5, 8 for it

MAX_CHARS, MAX_LINE_CHARS, MAX_LINES = 1000, 200, 10

#: Zones with odd changes.
ZONES = (
    "UTC", "America/New_York", "Europe/London", "Europe/Berlin", "Europe/Dublin", "Australia/Lord_Howe",
    "America/Sao_Paulo", "America/Asuncion", "America/Santiago", "Asia/Beirut", "Africa/Cairo",
    "Atlantic/Azores", "America/Nuuk", "Asia/Tehran", "Asia/Kathmandu", "Antarctica/Troll", "Pacific/Chatham",
    "Asia/Amman",
    "Pacific/Apia", "Pacific/Kiritimati", "America/Caracas", "Asia/Pyongyang", "Europe/Istanbul",
    "America/St_Johns", "Europe/Moscow",
    "America/Havana", "Africa/Casablanca", "America/Vancouver", "Europe/Chisinau",
)  # fmt: skip
#: Where the zone data call the winter's clock the changed one.
WINTER_IS_SUMMER = {"Europe/Dublin", "Africa/Casablanca", "Africa/El_Aaiun"}
#: Other rules in the release that is built into the server than in older ones, from then on: not compared.
AUTUMN_2026 = datetime(2026, 6, 1, tzinfo=UTC)
CHANGED_ZONES = {
    "America/Havana": AUTUMN_2026,
    "Africa/Casablanca": AUTUMN_2026,
    "Africa/El_Aaiun": AUTUMN_2026,
    "America/Vancouver": AUTUMN_2026,
    "America/Edmonton": AUTUMN_2026,
    "America/Winnipeg": AUTUMN_2026,
    "Europe/Chisinau": datetime(2022, 1, 1, tzinfo=UTC),
}

FIRST = datetime(2004, 1, 1, tzinfo=UTC)
LAST = datetime(2036, 1, 1, tzinfo=UTC)

SHORTHANDS = (
    "minutely", "hourly", "daily", "weekly", "monthly", "quarterly", "yearly", "annually", "semiannually",
    "anually", "biannually", "bi-annually", "semi-annually",
)  # fmt: skip
#: Those that the package does not know.
SYSTEMD_SHORTHANDS = SHORTHANDS[-4:]
WEEKDAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")


# Cases


def cases(seed: int, count: int) -> Iterator[Case]:
    """Three of five start near a clock change of the zone; one in twenty has a typing mistake."""
    rng = random.Random(seed)
    for _ in range(count):
        zone = rng.choice(ZONES)
        lines = [random_line(rng, zone) for _ in range(rng.choice((1, 1, 1, 1, 2, 3)))]
        expression = "\n".join(lines)
        if rng.random() < 0.05:
            expression = spoiled(rng, expression)
        after = random_instant(rng, rng.choice([zone, *zones_of(expression, zone)]))
        schedule = {"kind": "oncalendar", "expression": expression, "timezone": zone}
        yield {"schedule": schedule, "after": after.isoformat().replace("+00:00", "Z"), "count": 6}


def random_line(rng: random.Random, zone: str) -> str:
    if rng.random() < 0.06:
        words = [rng.choice(SHORTHANDS)]
    else:
        words = []
        if rng.random() < 0.3:
            words.append(random_weekdays(rng))
        if rng.random() < 0.5:
            words.append(random_date(rng))
        if not words or rng.random() < 0.85:
            words.append(random_time(rng))
    if rng.random() < 0.15:
        words.append(rng.choice((zone, "UTC", rng.choice(ZONES))))
    return " ".join(words)


def random_weekdays(rng: random.Random) -> str:
    def name(index: int) -> str:
        text = WEEKDAYS[index] if rng.random() < 0.3 else WEEKDAYS[index][:3]
        return rng.choice((text, text, text.lower(), text.upper()))

    def item() -> str:
        first, last = sorted((rng.randrange(7), rng.randrange(7)))
        if rng.random() < 0.5:
            return name(first)
        return name(first) + rng.choice(("..", "..", "-")) + name(last)

    return ",".join(item() for _ in range(rng.choice((1, 1, 2, 3)))) + ("," if rng.random() < 0.05 else "")


def random_date(rng: random.Random) -> str:
    year = ""
    if rng.random() < 0.6:
        listed = random_values(rng, 2005, 2040) if rng.random() < 0.9 else random_values(rng, 0, 99)
        year = rng.choice(("*", "*", "*", listed)) + "-"
    month = rng.choice(("*", "*", "3,4,10,11", "3..4", "10/1", random_values(rng, 1, 12)))
    if rng.random() < 0.25:
        day = rng.choice(("~1", "~07/1", "~7/2", "~1..7", "~" + random_values(rng, 1, 28, back=True)))
    else:
        day = "-" + rng.choice(("*", "1", "1", "1..7", "8..14", "25..31", random_values(rng, 1, 31)))
    return f"{year}{month}{day}"


def random_time(rng: random.Random) -> str:
    """Half of the hours are those in which clocks change."""
    near = ("0", "1", "2", "3", "23", "00..03", "0/1", "1,2", "22..23", "2..3", "0/2", "0/3")
    hour = rng.choice(("*", rng.choice(near), rng.choice(near), random_values(rng, 0, 23)))
    minute = rng.choice(("*", "0", "00", "30", "0/15", "5/10", "15,45", "0/30", random_values(rng, 0, 59)))
    if rng.random() < 0.6:
        return f"{hour}:{minute}"
    return f"{hour}:{minute}:" + rng.choice(("0", "00", "30", "*", "0/20", "59", random_values(rng, 0, 59)))


def random_values(rng: random.Random, low: int, high: int, back: bool = False) -> str:
    def item() -> str:
        first = rng.randint(low, high)
        text = f"{first:0{rng.choice((1, 1, 2))}}"
        kind = rng.random()
        if kind < 0.6:
            return text
        if kind < 0.8:
            last = rng.randint(first, high)
            step = f"/{rng.randint(1, 9)}" if rng.random() < 0.4 else ""
            return f"{text}..{last}{step}"
        room = first - low if back else high - first
        return f"{text}/{rng.randint(1, room)}" if room else text

    return ",".join(item() for _ in range(rng.choice((1, 1, 1, 2, 3))))


def spoiled(rng: random.Random, expression: str) -> str:
    """The expression with one typing mistake; some results are still calendar expressions."""
    at = rng.randrange(len(expression))
    kind = rng.randrange(8)
    if kind == 0:
        return expression[:at] + expression[at + 1 :]
    if kind in (1, 2):
        return expression[:at] + rng.choice("-/,*.~:@ \t0123579MonUTC\n") + expression[at:]
    if kind == 3:
        return expression[:at] + rng.choice("-/,*.~:@x 0956") + expression[at + 1 :]
    if kind == 4:
        numbers = list(re.finditer(r"\d+", expression))
        if numbers:
            found = rng.choice(numbers)
            other = rng.choice(
                (
                    "0",
                    "60",
                    "24",
                    "32",
                    "13",
                    "99",
                    "2200",
                    "1969",
                    "1.5",
                    "*",
                    "5..3",
                    "7..7",
                    "3..9/100",
                    "0/40",
                    "",
                )
            )
            return expression[: found.start()] + other + expression[found.end() :]
    if kind == 5:
        return expression.replace(" ", rng.choice(("  ", "\t", "   ")), 1)
    if kind == 6:
        words = expression.split(" ")
        rng.shuffle(words)
        return " ".join(words)
    tail = rng.choice(
        (
            " utc",
            " Utc",
            " CET",
            " europe/berlin",
            " Mars",
            " @1395716396",
            ".5",
            " ",
            "\n",
            "\r\ndaily",
            " EST5EDT",
            " posix/UTC",
        )
    )
    return rng.choice(
        (expression + tail, f"@{rng.randrange(2_000_000_000)}", "Tue @1395716396", "@ 5", "@+7")
    )


@cache
def clock_changes(name: str) -> tuple[datetime, ...]:
    """The first instants with another offset from UTC, from FIRST to LAST."""
    where = clock(name)
    found = []
    begin, day = FIRST, timedelta(days=1)
    while begin < LAST:
        end = begin + day
        if offset(begin.astimezone(where)) != offset(end.astimezone(where)):
            same, other = begin, end
            while other - same > timedelta(seconds=1):
                middle = (same + (other - same) // 2).replace(microsecond=0)
                if offset(middle.astimezone(where)) == offset(begin.astimezone(where)):
                    same = middle
                else:
                    other = middle
            found.append(other)
        begin = end
    return tuple(found)


def random_instant(rng: random.Random, name: str) -> datetime:
    near = clock_changes(name)
    if near and rng.random() < 0.6:
        spread = rng.choice((26 * 3600, 26 * 3600, 3 * 3600))
        instant = rng.choice(near) + timedelta(seconds=rng.randint(-spread, spread))
    else:
        instant = FIRST + timedelta(seconds=rng.randrange(int((LAST - FIRST).total_seconds())))
    kind = rng.random()
    if kind < 0.4:
        return instant.replace(second=0)
    if kind < 0.5:
        return instant.replace(minute=0, second=0)
    return instant.replace(microsecond=rng.randrange(1_000_000)) if kind < 0.55 else instant


# Oracles


def expected_package(case: Case, count: int | None = None) -> Answer:
    """The slots of `oncalendar`, also those that are not after `after`: `agrees` needs them."""
    from oncalendar import OnCalendar, OnCalendarError

    schedule, count = case["schedule"], count or case["count"]
    start = instant(case["after"]).astimezone(clock(schedule["timezone"]))
    try:
        found = islice(OnCalendar(schedule["expression"], start), count)
        return [slot.astimezone(UTC) for slot in found]
    except (OnCalendarError, IndexError, ValueError) as error:
        return f"{type(error).__name__}: {error}"


@cache
def systemd_available() -> bool:
    return shutil.which("systemd-analyze") is not None


def expected_systemd(case: Case, count: int | None = None) -> Answer:
    """The slots of all lines by systemd; a line without a zone gets that of the schedule."""
    schedule, count = case["schedule"], count or case["count"]
    # The unit file's reader removes blanks around a value; the server drops empty lines.
    lines = [line.strip(" \t\r") for line in schedule["expression"].split("\n")]
    zoned = [line if names_zone(line) else f"{line} {schedule['timezone']}" for line in lines if line]
    if not zoned:
        return "no expression"
    base = instant(case["after"]).strftime("%Y-%m-%d %H:%M:%S.%f UTC")
    output = analyze(f"--iterations={count}", f"--base-time={base}", "--", *zoned)
    if isinstance(output, str):
        return output
    found = re.findall(r"(?:Next elapse|Iter\. #\d+): \w+ (\S+ \S+) UTC$", "\n".join(output), re.MULTILINE)
    slots = {datetime.strptime(text, "%Y-%m-%d %H:%M:%S").replace(tzinfo=UTC) for text in found}
    return sorted(slots)[:count]


def normalised(expression: str) -> str | None:
    """systemd's long form of one expression, or none if it refuses it."""
    output = analyze("--", expression)
    found = None if isinstance(output, str) else re.search(r"Normalized form: (.*)", "\n".join(output))
    return found[1] if found else None


def analyze(*arguments: str) -> list[str] | str:
    environment = {"TZ": "UTC", "LC_ALL": "C", "PATH": "/usr/bin:/bin", "SYSTEMD_COLORS": "0"}
    command = ["systemd-analyze", "calendar", *arguments]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    return done.stderr.strip() or "refused" if done.returncode else done.stdout.splitlines()


# Comparison


def agrees(case: Case, ours: Answer | Any, theirs: Answer, oracle_name: str) -> str | None:
    """None when they agree, or the class of a difference; `oracle_name` is "package" or "systemd".

    A difference from the package is intended only if systemd, where it exists, agrees with the server.
    """
    found = difference(case, ours, theirs, oracle_name)
    if found and oracle_name == "package" and systemd_available():
        systemd = expected_systemd(case)
        if difference(case, ours, systemd, "systemd") == DIFFERS:
            return DIFFERS
    return found


def agrees_package(case: Case, ours: Answer | Any, theirs: Answer) -> str | None:
    return agrees(case, ours, theirs, "package")


def agrees_systemd(case: Case, ours: Answer | Any, theirs: Answer) -> str | None:
    return agrees(case, ours, theirs, "systemd")


def difference(case: Case, ours: Answer | Any, theirs: Answer, oracle_name: str) -> str | None:
    expression, default = case["schedule"]["expression"], case["schedule"]["timezone"]
    if not isinstance(ours, list):
        return None if isinstance(theirs, str) else refused_on_purpose(expression, theirs, oracle_name)
    if isinstance(theirs, str):
        if oracle_name == "package":
            return PACKAGE_REFUSES
        return GIVES_UP if "deadlock" in theirs else DIFFERS
    after = instant(case["after"])
    zones = zones_of(expression, default)
    ahead = [slot for slot in theirs if slot > after]
    if until := min((CHANGED_ZONES[zone] for zone in zones if zone in CHANGED_ZONES), default=None):
        ours, ahead = ([slot for slot in slots if slot < until] for slots in (ours, ahead))
    # A full list ends somewhere: slots of the other list behind that end need not be missing.
    end = min((slots[-1] for slots in (ours, ahead) if len(slots) == case["count"]), default=None)
    only_ours, only_theirs = (
        {slot for slot in set(these) - set(those) if end is None or slot <= end}
        for these, those in ((ours, ahead), (ahead, ours))
    )
    if not only_ours and not only_theirs:
        return None
    turns = [lost_at(slot, expression, default) for slot in only_theirs]
    if len(ahead) < len(theirs) and None not in turns:
        return GOES_BACK
    if oracle_name == "package" and re.search(r"~[^ ]*\.\.\d+/", expression):
        return PACKAGE_STEP_FROM_END
    if oracle_name == "package" and re.search(r"\b0*(\d+)\.\.0*\1/", expression):
        return PACKAGE_ONE_VALUE
    are_repeated = not only_theirs and all(showing(slot, zones) for slot in only_ours)
    if oracle_name == "package" and "\n" in expression and are_repeated:
        return PACKAGE_MERGES
    showings = {showing(slot, zones) for slot in only_ours}, {showing(slot, zones) for slot in only_theirs}
    if showings[0] <= {1} and showings[1] <= {2}:
        return SECOND_SHOWING if showing(after, zones) == 2 else OTHER_SHOWING
    if not only_ours and None not in turns:
        if oracle_name == "package":
            return PACKAGE_OVERRUN
        if all(turn <= after + timedelta(seconds=1) for turn in turns if turn):
            return STARTED_AT_TURN
    if all(after_odd_gap(slot, zones) for slot in only_ours | only_theirs):
        return ODD_GAP
    has_open_step = re.search(r"(?<![.\d])\d+/", expression) is not None
    if not only_theirs and has_open_step and all(is_change_day(slot, zones) for slot in only_ours):
        return TURN_AT_CHANGE
    return DIFFERS


def refused_on_purpose(expression: str, theirs: list[datetime], oracle_name: str) -> str:
    lines = expression.split("\n")
    if (
        len(expression) > MAX_CHARS
        or len(lines) > MAX_LINES
        or any(len(line) > MAX_LINE_CHARS for line in lines)
    ):
        return TOO_LONG
    if any(line and normalised_never(line) for line in lines) if systemd_available() else not theirs:
        return NEVER_COMES
    if oracle_name == "package":
        return PACKAGE_TAKES
    if re.search(r"@[ +]", expression):
        return TIMESTAMP
    if re.search(r":[^ ]*\d\.\d", expression):
        return FRACTION
    return OTHER_ZONE if re.search(r" (posix|right)/| localtime", expression) else DIFFERS


def normalised_never(line: str) -> bool:
    """True if systemd accepts a line and finds no slot from the first year on, in any zone."""
    output = analyze("--base-time=1970-01-01 00:00:00 UTC", "--", line.strip())
    return not isinstance(output, str) and any("elapse: never" in text for text in output)


def names_zone(line: str) -> bool:
    head, _, last = line.rpartition(" ")
    return bool(head) and (last.lower() == "utc" or known(last))


def zones_of(expression: str, default: str) -> list[str]:
    """The zones of its lines."""
    lines = [line.strip() for line in expression.split("\n")]
    return [
        "UTC" if line[-4:].lower() == " utc" else line.rpartition(" ")[2] if names_zone(line) else default
        for line in lines
    ]


def showing(when: datetime, names: list[str]) -> int:
    """1 or 2 when the clock of one of the zones shows this wall time twice, else 0; the second wins."""
    found = 0
    for name in names:
        local = when.astimezone(clock(name))
        wall = local.replace(tzinfo=None)
        offsets = [offset(wall.replace(tzinfo=clock(name), fold=fold)) for fold in (0, 1)]
        if offsets[0] > offsets[1]:
            found = max(found, 2 if local.fold else 1)
    return found


def after_odd_gap(when: datetime, names: list[str]) -> bool:
    """True if a clock change that systemd mishandles set the clock forward in the day before."""
    hour = timedelta(hours=1)
    for name in names:
        for change in clock_changes(name):
            if change <= when < change + 25 * hour:
                before, at = (
                    instant.astimezone(clock(name)) for instant in (change - timedelta(seconds=1), change)
                )
                step = offset(at) - offset(before)
                if step > timedelta(0) and (step != hour or before.minute != 59 or name in WINTER_IS_SUMMER):
                    return True
    return False


def is_change_day(when: datetime, names: list[str]) -> bool:
    """True if it is the start of a year, or a clock changes up to a day later."""
    locals_ = [when.astimezone(clock(name)) for name in names]
    if any((local.month, local.day) == (1, 1) and local.hour < 3 for local in locals_):
        return True
    return any(when <= change < when + timedelta(days=1) for name in names for change in clock_changes(name))


def lost_at(when: datetime, expression: str, default: str) -> datetime | None:
    """The turn of an hour, day, month or year at which an open step of some line may have lost a time."""
    for line, name in zip(expression.split("\n"), zones_of(expression, default), strict=True):
        local = when.astimezone(clock(name))
        date, time = re.search(r" ?([\d*][^ :]*[-~][^ :]*)?(?: |$)", line), re.search(r"[^ ]+:[^ ]+", line)
        parts = [date[1] or "" if date else "", *(time[0].split(":") if time else ())]
        turns = [
            local.replace(month=1, day=1, hour=0, minute=0, second=0),
            local.replace(day=1, hour=0, minute=0, second=0),
            local.replace(hour=0, minute=0, second=0),
            local.replace(minute=0, second=0),
        ]
        # January, the first of a month, the first hour of a day and the first minute of an hour.
        fits = [local.month == 1, local.day == 1, local.hour == 0, local.minute == 0]
        for part, turn, is_near in zip(parts, turns, fits, strict=False):
            if is_near and re.search(r"(?<![.\d])\d+/", part):
                return turn
    return None


@cache
def known(name: str) -> bool:
    try:
        return re.match("[A-Z]", name) is not None and bool(ZoneInfo(name))
    except (KeyError, OSError, ValueError):
        return False


def offset(when: datetime) -> timedelta:
    return when.utcoffset() or timedelta(0)


@cache
def clock(name: str) -> tzinfo:
    return UTC if name == "UTC" else ZoneInfo(name)


def instant(text: str) -> datetime:
    return datetime.fromisoformat(text.replace("Z", "+00:00"))
