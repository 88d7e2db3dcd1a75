"""Finds out whether `init` was called too late: from inside a Beat or worker that has started already."""

from __future__ import annotations

import sys
from typing import Any

# Module and function that starts it → the local variable with the app, and the name for the log.
_STARTS: dict[tuple[Any, str], tuple[str, str]] = {
    ("celery.beat", "start"): ("self", "Beat"),
    ("celery.bootsteps", "start"): ("parent", "a worker"),
}


def started_before(app: Any) -> str | None:
    """The part of this app that runs further up the call stack: "Beat", "a worker"; None without one.

    Handlers of beat_init, worker_ready and worker_process_init run there. The last one runs in a
    forked child, which inherits the stack. Only the stack frames show this reliably.
    """
    frame = sys._getframe(1)
    while frame is not None:
        place = (frame.f_globals.get("__name__"), frame.f_code.co_name)
        local, what = _STARTS.get(place, (None, None))
        if local is not None and getattr(frame.f_locals.get(local), "app", None) is app:
            return what
        frame = frame.f_back  # type: ignore[assignment]
    return None
