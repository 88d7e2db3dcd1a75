"""Finds out in an exit hook what ends this process. Each process uses this, so it imports nothing of Beat."""

from __future__ import annotations

import sys
import traceback
from typing import Any


def unhandled() -> Exception | None:
    """The error that ends this process; None without one."""
    # The interpreter has printed it by then; the name was `last_value` before Python 3.12.
    error = getattr(sys, "last_exc", None) or getattr(sys, "last_value", None)
    return error if isinstance(error, Exception) else None


def failed_to_start() -> Any:
    """The app whose Beat failed to start with an error; None: this process is no such Beat.

    A scheduler that cannot be made (its database does not answer) fails before `beat_init`.
    """
    error, beats = unhandled(), sys.modules.get("celery.apps.beat")
    if error is None or beats is None:
        return None
    for frame, _ in traceback.walk_tb(error.__traceback__):
        owner = frame.f_locals.get("self")
        if isinstance(owner, beats.Beat):
            return owner.app
    return None
