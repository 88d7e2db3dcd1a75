"""Which tasks are tracked beyond those that Beat sends, by patterns on their names."""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Sequence

# Names come from messages: an application that generates names must not fill the memory.
_REMEMBERED_NAMES = 10_000


class TrackedTasks:
    """Says whether a pattern matches a name; called twice in the life of each task."""

    def __init__(self, patterns: Sequence[str]) -> None:
        self._matches = re.compile("|".join(map(fnmatch.translate, patterns))).match if patterns else None
        self._known: dict[str, bool] = {}

    def __contains__(self, name: str) -> bool:
        if self._matches is None:
            return False
        known = self._known.get(name)
        if known is None:
            if len(self._known) >= _REMEMBERED_NAMES:
                self._known.clear()
            known = self._known[name] = self._matches(name) is not None
        return known
