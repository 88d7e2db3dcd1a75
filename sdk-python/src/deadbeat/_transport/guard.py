"""Keeps the SDK's faults out of the host application.

Celery calls the SDK only through `guarded`: a monitor that breaks what it watches is worse than none.
"""

from __future__ import annotations

import functools
import logging
from typing import Any, Callable, TypeVar

logger = logging.getLogger("deadbeat")

_Handler = TypeVar("_Handler", bound=Callable[..., Any])
_logged: set[str] = set()


def guarded(handler: _Handler) -> _Handler:
    """Make a handler swallow its own exceptions and return None instead.

    The first fault of each handler in a process is logged with its traceback. Later ones are not: a handler
    that fails once usually fails for each task.
    """

    @functools.wraps(handler)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        try:
            return handler(*args, **kwargs)
        except Exception:
            log_once(handler.__qualname__)
            return None

    return wrapper  # type: ignore[return-value]


def log_once(place: str) -> None:
    """Log the exception being handled, once per place and process; never raises."""
    try:
        if place not in _logged:
            _logged.add(place)
            logger.warning("Deadbeat: %s failed; the application is not affected", place, exc_info=True)
    except Exception:
        # A broken logging set-up must not reach the application.
        pass
