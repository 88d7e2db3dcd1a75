"""`deadbeat.init` in a fresh interpreter each, because it acts on the whole process."""

from __future__ import annotations

import subprocess
import sys


def run(code: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code],
        env={"PATH": "/usr/bin:/bin", **environment},
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )


STATE = """
import threading, deadbeat
from celery import Celery, signals
app = Celery("proj", broker="memory://")
{init}
app.finalize()
receivers = [r for s in vars(signals).values() for r, _ in getattr(s, "receivers", None) or []]
ours = sum("deadbeat" in str(r) for r in receivers)
print(ours, "deadbeat.canary" in app.tasks, threading.active_count())
"""


def test_without_settings_there_is_one_warning_and_nothing_else() -> None:
    done = run(STATE.format(init="deadbeat.init(app)"))

    assert done.stdout == "0 False 1\n"
    assert done.stderr.count("Deadbeat is off") == 1
    assert len(done.stderr.strip().splitlines()) == 1
    assert "DEADBEAT_URL" in done.stderr
    assert "DEADBEAT_KEY" in done.stderr


def test_second_call_is_harmless_and_nothing_starts_before_the_first_report() -> None:
    once = run(STATE.format(init="deadbeat.init(app, 'http://127.0.0.1:1', 'k')"))
    twice = run(STATE.format(init="for _ in '12': deadbeat.init(app, 'http://127.0.0.1:1', 'k')"))

    assert once.stderr == twice.stderr == ""
    assert once.stdout == twice.stdout == "13 True 1\n"


def test_bad_values_make_one_warning_and_never_an_exception() -> None:
    done = run(
        STATE.format(init="deadbeat.init(app, 'http://127.0.0.1:1', 'k', grace='soon', colour='red')"),
        DEADBEAT_BEAT_PERIOD_SECONDS="-3",
    )

    assert done.returncode == 0
    assert done.stdout == "13 True 1\n"
    assert len(done.stderr.strip().splitlines()) == 1
    for word in ("grace", "from 0 to", "beat_period", "from 1 to 3600", "colour"):
        assert word in done.stderr


def test_an_app_that_is_no_app_does_not_raise() -> None:
    done = run("import deadbeat; deadbeat.init(None, 'http://127.0.0.1:1', 'k'); print('alive')")

    assert done.stdout == "alive\n"
    assert "could not be set up" in done.stderr
