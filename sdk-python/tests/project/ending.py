"""Schedulers that an error ends: as soon as a file exists, and before they begin."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from celery.beat import PersistentScheduler


class Ending(PersistentScheduler):
    """Celery's own scheduler until the file exists."""

    def tick(self, *args: Any, **kwargs: Any) -> Any:
        if Path(os.environ["END_FILE"]).exists():
            raise MemoryError
        return super().tick(*args, **kwargs)


class Unmade(PersistentScheduler):
    """A scheduler whose database does not answer."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        raise ConnectionError
