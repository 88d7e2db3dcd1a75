"""Whether the server answers, accepts the key, and has the same time."""

from __future__ import annotations

import time
from email.utils import parsedate_to_datetime
from http.client import HTTPException

from deadbeat._transport import timeouts
from deadbeat._transport.clock import utc_text
from deadbeat.cli.audit.finding import error_words
from deadbeat.cli.doctor.diagnosis import FAILED, GOOD, UNTRIED, WARNED, Check, Diagnosis
from deadbeat.cli.server import Server
from deadbeat.config import Settings

# The server's time comes from a header in whole seconds.
SKEW_SECONDS = 2.0
_KEY_KINDS = {"dbp_": "a ping key", "dbr_": "a read key", "dbw_": "an API key"}


def check_server(diagnosis: Diagnosis, settings: Settings | None) -> None:
    """Send a batch without events, and note the result."""
    if settings is None:
        diagnosis.checks.append(Check("server", UNTRIED, "no address and key"))
        return
    server = Server(settings.url, settings.key, time.monotonic() + timeouts.DOCTOR_SERVER_SECONDS)
    kind = _KEY_KINDS.get(settings.key[:4], "of a kind that this version does not know")
    try:
        before = time.time()
        # A batch without events: it proves the key and leaves nothing behind.
        answer = server.ask("POST", "/api/v1/events", {"sent_at": utc_text(before), "events": []})
        took = time.time() - before
    except (OSError, HTTPException) as fault:
        diagnosis.checks.append(Check("server", FAILED, f"{settings.url}: {error_words(fault)}"))
        diagnosis.checks.append(Check("key", UNTRIED, "the server does not answer"))
        return
    finally:
        server.close()
    diagnosis.checks.append(Check("server", GOOD, f"{settings.url} answered in {took * 1000:.0f} ms"))
    if answer.status == 200:
        diagnosis.checks.append(Check("key", GOOD, f"accepted for reports; it is {kind}"))
    elif answer.status == 401:
        diagnosis.checks.append(
            Check("key", FAILED, f"the server does not know it; its form is that of {kind}")
        )
    elif answer.status == 403:
        detail = f"it is {kind}, which may not report: DEADBEAT_KEY must be a ping key (dbp_…)"
        diagnosis.checks.append(Check("key", FAILED, detail))
    else:
        code = answer.document.get("code") if isinstance(answer.document, dict) else None
        detail = (
            f"the server answered {answer.status}{f' ({code})' if code else ''}: is it a Deadbeat server?"
        )
        diagnosis.checks.append(Check("key", UNTRIED if answer.status >= 500 else FAILED, detail))
    _check_clock(diagnosis, answer.headers.get("date"), before, took)


def _check_clock(diagnosis: Diagnosis, date: str | None, before: float, took: float) -> None:
    try:
        # The middle of the second that the header names.
        theirs = parsedate_to_datetime(date or "").timestamp() + 0.5
    except (TypeError, ValueError):
        diagnosis.checks.append(Check("clock", UNTRIED, "the server's answer has no time"))
        return
    skew = before + took / 2 - theirs
    detail = f"{abs(skew):.1f} s {'ahead of' if skew > 0 else 'behind'} the server's, to half a second"
    if abs(skew) > SKEW_SECONDS:
        detail += "; the server corrects the times of reports, but Beat and ETAs use this machine's clock"
        diagnosis.checks.append(Check("clock", WARNED, detail))
    else:
        diagnosis.checks.append(Check("clock", GOOD, detail))
