"""Which broker a process uses, by the broker's own id: one broker may have several addresses."""

from __future__ import annotations

import hashlib
import json
from typing import Any


def identity_digest(itself: Any, *parts: Any) -> str | None:
    """A digest of a broker's own id and of the part of it in use."""
    if not itself:
        return None
    return hashlib.sha256(json.dumps([str(itself), *map(str, parts)]).encode()).hexdigest()[:16]
