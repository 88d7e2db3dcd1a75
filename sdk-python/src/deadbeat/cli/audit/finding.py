"""The results of an audit: findings with evidence and repair, and what it could not examine."""

from __future__ import annotations

import re
import shlex
from dataclasses import asdict, dataclass, field
from typing import Any

CRITICAL = "critical"
WARNING = "warning"
NOTICE = "notice"
SEVERITIES = (CRITICAL, WARNING, NOTICE)

_USERINFO = re.compile(r"://[^@\s/]*@")


@dataclass(frozen=True)
class Subject:
    """The subject of a finding: a broker, queue, worker, beat, monitor, entry, task or setting."""

    kind: str
    name: str


@dataclass(frozen=True)
class Fact:
    """One fact that supports a finding; `at` is RFC 3339 in UTC, None for now."""

    fact: str
    at: str | None = None


@dataclass(frozen=True)
class Repair:
    """What to do, with the command where there is one."""

    text: str
    command: str | None = None


@dataclass(frozen=True)
class Finding:
    """A present or coming fault."""

    code: str
    severity: str
    subject: Subject
    summary: str
    evidence: list[Fact] = field(default_factory=list)
    repair: list[Repair] = field(default_factory=list)

    def as_json(self) -> dict[str, Any]:
        """The finding in the form of `--json`."""
        return asdict(self)


@dataclass(frozen=True)
class Unknown:
    """A question that the audit could not examine or decide: neither good nor bad."""

    what: str
    why: str


def command(*words: str) -> str:
    """A command line, quoted for a shell: names come from brokers, and people paste repairs."""
    return " ".join(shlex.quote(word) for word in words)


def listed(names: list[str], most: int = 10) -> str:
    """Names in a sentence; of many, the first ones and the number of the others."""
    if len(names) <= most:
        return ", ".join(names)
    return f"{', '.join(names[:most])} and {len(names) - most} more"


def counted(number: int, noun: str) -> str:
    """`1 message`, `2 messages`."""
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"


def span(seconds: float) -> str:
    """A duration in words: `8 s`, `3 min 5 s`, `2 h 10 min`, `3 d 4 h`."""
    whole = int(max(0.0, seconds))
    units = ((86_400, "d"), (3_600, "h"), (60, "min"), (1, "s"))
    for place, (size, name) in enumerate(units):
        if whole >= size or size == 1:
            text = f"{whole // size} {name}"
            rest = whole % size
            if size > 1 and rest >= units[place + 1][0]:
                text += f" {rest // units[place + 1][0]} {units[place + 1][1]}"
            return text
    return "0 s"


def error_words(fault: BaseException) -> str:
    """An exception in one line, without the user and password of an address."""
    text = " ".join(str(fault).split()).rstrip(".")
    words = f"{type(fault).__name__}: {text}" if text else type(fault).__name__
    return _USERINFO.sub("://…@", words)[:300]
