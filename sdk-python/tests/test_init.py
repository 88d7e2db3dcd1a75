"""`deadbeat.init` in a fresh interpreter each, because it acts on the whole process."""

from __future__ import annotations

import subprocess
import sys

import pytest


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


LOGGED = "import logging; logging.basicConfig(level=logging.INFO, format='%(levelname)s %(message)s')"


def test_without_any_setting_there_is_one_quiet_line_and_nothing_else() -> None:
    quiet = run(STATE.format(init="deadbeat.init(app)"))
    logged = run(LOGGED + STATE.format(init="deadbeat.init(app)"))

    assert quiet.stdout == logged.stdout == "0 False 1\n"
    assert quiet.stderr == ""
    (line,) = logged.stderr.strip().splitlines()
    assert line.startswith("INFO Deadbeat is off: ")
    assert "DEADBEAT_URL" in line
    assert "DEADBEAT_KEY" in line


@pytest.mark.parametrize(
    ("init", "environment"),
    [
        ("deadbeat.init(app)", {"DEADBEAT_URL": "http://127.0.0.1:1"}),
        ("deadbeat.init(app, key='k')", {}),
        ("deadbeat.init(app, enabled=True)", {}),
    ],
)
def test_half_of_the_settings_is_a_mistake_and_makes_one_warning(
    init: str, environment: dict[str, str]
) -> None:
    done = run(STATE.format(init=init), **environment)

    assert done.stdout == "0 False 1\n"
    assert done.stderr.count("Deadbeat is off") == 1
    assert len(done.stderr.strip().splitlines()) == 1


@pytest.mark.parametrize(
    ("init", "environment"),
    [
        ("deadbeat.init(app, 'http://127.0.0.1:1', 'k', enabled=False)", {}),
        ("deadbeat.init(app, enabled=False)", {"DEADBEAT_URL": "not an address"}),
        ("deadbeat.init(app, 'http://127.0.0.1:1', 'k')", {"DEADBEAT_ENABLED": "0"}),
    ],
)
def test_switched_off_it_says_nothing_and_does_nothing(init: str, environment: dict[str, str]) -> None:
    done = run(LOGGED + STATE.format(init=init), **environment)

    assert (done.stdout, done.stderr) == ("0 False 1\n", "")


def test_second_call_is_harmless_and_nothing_starts_before_the_first_report() -> None:
    once = run(STATE.format(init="deadbeat.init(app, 'http://127.0.0.1:1', 'k')"))
    twice = run(STATE.format(init="for _ in '12': deadbeat.init(app, 'http://127.0.0.1:1', 'k')"))

    assert once.stderr == twice.stderr == ""
    assert once.stdout == twice.stdout == "16 True 1\n"


def test_bad_values_make_one_warning_and_never_an_exception() -> None:
    done = run(
        STATE.format(init="deadbeat.init(app, 'http://127.0.0.1:1', 'k', grace='soon', colour='red')"),
        DEADBEAT_BEAT_PERIOD_SECONDS="-3",
    )

    assert done.returncode == 0
    assert done.stdout == "16 True 1\n"
    assert len(done.stderr.strip().splitlines()) == 1
    for word in ("grace", "from 0 to", "beat_period", "from 1 to 3600", "colour"):
        assert word in done.stderr


def test_an_app_that_is_no_app_does_not_raise() -> None:
    done = run("import deadbeat; deadbeat.init(None, 'http://127.0.0.1:1', 'k'); print('alive')")

    assert done.stdout == "alive\n"
    assert "could not be set up" in done.stderr
