"""Which broker a process uses: by what it calls itself, as one and the same goes by several addresses."""

from __future__ import annotations

import hashlib
import json
from typing import Any


def identity_word(itself: Any, *parts: Any) -> str | None:
    """A digest of what a broker calls itself and of the part of it that is used."""
    if not itself:
        return None
    return hashlib.sha256(json.dumps([str(itself), *map(str, parts)]).encode()).hexdigest()[:16]
