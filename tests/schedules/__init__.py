"""Schedules compared with the programs whose manner they follow: many random ones, by independent oracles.

`driver` runs the comparison; one module a kind makes the cases and asks the oracle. `scripts/schedule-diff`
is the full size, `tests/test_schedules.py` a small one. What differs on purpose has a name in the module and
a row in docs/schedules.md.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

#: A line for the server's `slots` program: `schedule` (its JSON form), `after` (a text) and `count`. What a
#: module adds for itself is ignored there.
Case = dict[str, Any]

#: An unexplained difference: a fault of the server, of the oracle or of the test.
DIFFERS = "DIFFERS"


@dataclass(frozen=True)
class Refusal:
    """Why the server refuses a schedule."""

    #: JSON pointer below the schedule: `/expression`.
    field: str
    position: int | None
    message: str


#: What the server says: slots in UTC, fewer than asked for when the schedule ends, or a refusal.
Ours = list[datetime] | Refusal
#: What an oracle says: the same, or in place of slots a text with its reason. One that has more to tell may
#: have a type of its own; only its own module looks at it.
Theirs = list[datetime] | str
