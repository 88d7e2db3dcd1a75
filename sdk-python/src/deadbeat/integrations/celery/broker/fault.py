"""Distinguishes a broker that accepts no messages from a message that the application cannot make."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kombu.exceptions import OperationalError

if TYPE_CHECKING:
    from celery import Celery


def is_broker_fault(app: Celery, fault: BaseException) -> bool:
    """True if the broker could not be reached or refused the message; false for a fault of the application.

    A queue that is not configured or an argument that cannot be encoded never reaches the broker.
    """
    connection = app.connection_for_write()
    errors = (*connection.connection_errors, *connection.channel_errors)
    # Transports list `KeyError` (Redis) or `Exception` among their errors; the application raises those, too.
    kinds = tuple(
        kind
        for kind in errors
        if isinstance(kind, type) and kind is not Exception and not issubclass(kind, LookupError)
    )
    return isinstance(fault, (OSError, TimeoutError, OperationalError, *kinds)) or _tripped(fault)


def _tripped(fault: BaseException) -> bool:
    """True if kombu's transport failed on a connection that vanished meanwhile.

    After a failover of Redis, kombu builds its pool from a connection that is None: an AttributeError there.
    """
    frame = fault.__traceback__
    while frame is not None and frame.tb_next is not None:
        frame = frame.tb_next
    module = "" if frame is None else str(frame.tb_frame.f_globals.get("__name__"))
    return isinstance(fault, AttributeError) and module.startswith("kombu.transport.")
