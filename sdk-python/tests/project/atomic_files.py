"""A result backend of files without joins of its own, so that `celery.chord_unlock` joins chords.

Celery's own backend loses results in two ways, and then the chord never ends:

* It writes a file in place. A reader may see half a result meanwhile.
* A retry is published before its state is stored. When the next attempt ends first, the late `RETRY`
  replaces its `SUCCESS`.
"""

from __future__ import annotations

import fcntl
import json
import os
from typing import Any

from celery.backends.filesystem import FilesystemBackend
from celery.states import READY_STATES
from kombu.utils.encoding import ensure_bytes


class AtomicFiles(FilesystemBackend):  # type: ignore[misc]
    """Replaces a result's file in one step, and never the result of a task that has ended."""

    def set(self, key: Any, value: Any) -> None:
        path = self._filename(key)
        new = path + f".{os.getpid()}".encode()
        with self.open(os.path.join(self.path, b"lock"), "wb") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if _has_ended(self.get(key)) and not _has_ended(value):
                return
            with self.open(new, "wb") as file:
                file.write(ensure_bytes(value))
            os.replace(new, path)


def _has_ended(result: Any) -> bool:
    """True if the stored value is the result of a task that has ended."""
    try:
        meta = json.loads(result)
    except (TypeError, ValueError):
        return False
    return isinstance(meta, dict) and meta.get("status") in READY_STATES
