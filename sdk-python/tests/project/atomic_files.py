"""A result backend of files without joins of its own, so that `celery.chord_unlock` joins chords.

Celery's own backend writes a file in place. Whoever reads it meanwhile sees half a result, and the chord
never ends.
"""

from __future__ import annotations

import os
from typing import Any

from celery.backends.filesystem import FilesystemBackend
from kombu.utils.encoding import ensure_bytes


class AtomicFiles(FilesystemBackend):  # type: ignore[misc]
    """Replaces a result's file in one step."""

    def set(self, key: Any, value: Any) -> None:
        path = self._filename(key)
        new = path + f".{os.getpid()}".encode()
        with self.open(new, "wb") as file:
            file.write(ensure_bytes(value))
        os.replace(new, path)
