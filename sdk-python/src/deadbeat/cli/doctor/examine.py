"""The command `doctor`: tests whether the SDK works in this set-up, and which claims follow."""

from __future__ import annotations

import platform
import sys
from typing import Any

from deadbeat.cli.application import Application
from deadbeat.cli.doctor.claims import judge_claims
from deadbeat.cli.doctor.diagnosis import FAILED, GOOD, UNTRIED, Check, Diagnosis
from deadbeat.cli.doctor.server import check_server
from deadbeat.cli.doctor.trial import check_worker
from deadbeat.config import Settings, read_settings
from deadbeat.integrations.celery import apps
from deadbeat.version import __version__


def examine(application: Application, worker: bool = True) -> Diagnosis:
    """Run all tests. Takes some 5 s, 20 s at most; raises nothing of broker, worker or server."""
    diagnosis = Diagnosis(application, versions=_versions())
    reporter = apps.installed(application.app)
    settings, faults = read_settings({}) if reporter is None else (reporter.settings, [])
    _check_installed(diagnosis, reporter is not None, settings, faults)
    check_server(diagnosis, settings)
    seen: list[dict[str, Any]] = []
    if reporter is None:
        diagnosis.checks.append(
            Check("reports", UNTRIED, "the SDK is off in this process, so it reports nothing")
        )
    elif not worker:
        diagnosis.checks.append(Check("reports", UNTRIED, "--no-worker"))
    else:
        seen = check_worker(diagnosis)
    judge_claims(diagnosis, seen)
    return diagnosis


def _versions() -> dict[str, str]:
    import kombu
    from celery import __version__ as celery_version

    found = {
        "deadbeat": __version__,
        "python": platform.python_version(),
        "celery": celery_version,
        "kombu": str(getattr(kombu, "__version__", "?")),
    }
    for name in ("redis", "amqp", "gevent", "eventlet"):
        if name in sys.modules:
            found[name] = str(getattr(sys.modules[name], "__version__", "?"))
    return found


def _check_installed(
    diagnosis: Diagnosis, installed: bool, settings: Settings | None, faults: list[str]
) -> None:
    if installed and settings is not None:
        detail = f"deadbeat.init was called; reports go to {settings.url} as {diagnosis.application.name}"
        diagnosis.checks.append(Check("init", GOOD, detail))
    elif settings is None:
        diagnosis.checks.append(
            Check("init", FAILED, f"the SDK is off in this environment: {'; '.join(faults)}")
        )
    else:
        detail = f"{diagnosis.application.project} does not call deadbeat.init(app); address and key are set"
        diagnosis.checks.append(Check("init", FAILED, detail))
