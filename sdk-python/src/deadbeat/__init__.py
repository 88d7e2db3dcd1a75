"""Deadbeat, the dead man's switch for Celery.

Write two lines beside the Celery app::

    import deadbeat
    deadbeat.init(app)

and set ``DEADBEAT_URL`` and ``DEADBEAT_KEY`` in the environment of Beat and of the workers.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Optional, Union

from deadbeat.version import __version__

if TYPE_CHECKING:
    from celery import Celery

__all__ = ["__version__", "init"]

_logger = logging.getLogger("deadbeat")

# Evaluated when the module is read, so it has to be written the way Python 3.9 understands.
Seconds = Optional[Union[float, timedelta]]


def init(
    app: Celery,
    url: str | None = None,
    key: str | None = None,
    *,
    enabled: bool | None = None,
    name: str | None = None,
    grace: Seconds = None,
    longest_run: Seconds = None,
    beat_period: Seconds = None,
    beat_grace: Seconds = None,
    canary: bool | None = None,
    canary_period: Seconds = None,
    canary_grace: Seconds = None,
    canary_queue: str | None = None,
    send_error_text: bool | None = None,
    track: str | Sequence[str] | None = None,
    every_run: str | Sequence[str] | None = None,
    worker_period: Seconds = None,
    queue_wait: Seconds = None,
    **unknown: Any,
) -> None:
    """Report this app's periodic tasks, its Beat, its workers and its broker to a Deadbeat server.

    Call it once where the app is made, before workers and Beat start. It opens no socket and starts no
    thread; the first report does. It never raises: for a missing or invalid setting it logs one warning
    (logger ``deadbeat``), and the application runs as if Deadbeat were not there. Without address and key
    it logs one line of level INFO. A second call for the same app changes nothing. Several apps of one
    process report separately.

    A missing argument comes from the environment, else it has its default:

    * ``enabled`` (on): ``False`` switches Deadbeat off silently.
    * ``url``, ``key``: ``DEADBEAT_URL``, ``DEADBEAT_KEY``. Both are needed.
    * ``name``: ``DEADBEAT_NAME``, else the app's own name. Distinguishes the Beats of one project.
    * ``grace`` (60 s): how late a run may start before its monitor goes down.
    * ``longest_run`` (the task's hard time limit + 60 s, else a day): when an unfinished run is a fault.
    * ``beat_period`` (15 s), ``beat_grace`` (60 s): interval and tolerated lateness of Beat's heartbeats.
    * ``canary`` (on), ``canary_period`` (60 s), ``canary_grace`` (60 s), ``canary_queue`` (the default
      queue): a task that does nothing, sent through broker and worker to prove that they work.
    * ``send_error_text`` (off): send an exception's text, not only its class. Texts may hold secrets.
    * ``track`` (nothing): names of further tasks whose runs are reported, although Beat does not send
      them: a list of patterns such as ``["shop.tasks.*"]``, or ``"all"``.
    * ``every_run`` (nothing): entries of Beat of which every run counts: a list of patterns such as
      ``["invoice-*"]``, or ``"all"``. A lost message opens an incident even if later runs succeeded.
    * ``worker_period`` (5 s): the interval of a worker's snapshots.
    * ``queue_wait`` (the server's 10 min): how long a message may wait in a queue.
    """
    try:
        from deadbeat.config import is_wanted, read_settings

        arguments = {
            "enabled": enabled,
            "url": url,
            "key": key,
            "name": name,
            "grace": grace,
            "longest_run": longest_run,
            "beat_period": beat_period,
            "beat_grace": beat_grace,
            "canary": canary,
            "canary_period": canary_period,
            "canary_grace": canary_grace,
            "canary_queue": canary_queue,
            "send_error_text": send_error_text,
            "track": track,
            "every_run": every_run,
            "worker_period": worker_period,
            "queue_wait": queue_wait,
        }
        settings, faults = read_settings(arguments)
        # An option of another version must not stop the application from starting.
        faults.extend(f"{option} is not an option of this version" for option in sorted(unknown))
        if settings is None and not faults:
            # Switched off.
            return
        if settings is None:
            level = logging.WARNING if is_wanted(arguments) else logging.INFO
            _logger.log(level, "Deadbeat is off: %s", "; ".join(faults))
            return
        if faults:
            _logger.warning("Deadbeat: %s", "; ".join(faults))

        from deadbeat.integrations.celery.handlers import install

        install(app, settings)
    except Exception:
        _logger.warning("Deadbeat is off: it could not be set up", exc_info=True)
