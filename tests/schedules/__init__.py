"""Compares many random schedules with the programs whose rules they follow: the oracles.

`driver` runs the comparison; one module a kind makes the cases and asks the oracle. `scripts/schedule-diff`
is the full size, `tests/test_schedules.py` a small one. An intended difference has a name in the module and a
row in docs/schedules.md.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

#: A line for the server's `slots` program: `schedule` (its JSON form), `after` (a text) and `count`. The
#: program ignores further fields, which a module may add for itself.
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


#: The server's answer: slots in UTC, fewer than `count` when the schedule ends, or a refusal.
Ours = list[datetime] | Refusal
#: An oracle's answer: the same, or in place of slots a text with its reason. An oracle may have its own type
#: for it; only its own module reads the answer.
Theirs = list[datetime] | str
