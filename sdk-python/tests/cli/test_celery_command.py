"""`celery -A proj deadbeat …`: the commands through the real `celery` program, which finds them itself."""

from __future__ import annotations

import importlib.metadata
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from celery import Celery
from redis import Redis

from conftest import PROJECT, default_signals, free_port
from sink import Sink

# The `celery` program of this environment, as a shell finds it.
CELERY = Path(sys.executable).parent / "celery"


def run(*arguments: str, folder: Path = PROJECT, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(CELERY), *arguments],
        cwd=folder,
        env={**clean(), **environment},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def clean() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if not name.startswith("DEADBEAT_")}


def document(done: subprocess.CompletedProcess[str]) -> dict[str, Any]:
    """The document, which follows the output of the application's modules during their import."""
    read: dict[str, Any] = json.loads(done.stdout[done.stdout.index("{\n") :])
    return read


def test_sdk_installs_no_program_named_as_the_server_and_celery_finds_its_commands() -> None:
    installed = importlib.metadata.distribution("deadbeat").entry_points

    assert [one.name for one in installed if one.group == "console_scripts"] == []
    assert [one.name for one in installed if one.group == "celery.commands"] == ["deadbeat"]
    listed = [line.split() for line in run("--help").stdout.splitlines()]
    assert any(words[:1] == ["deadbeat"] and "(!)" not in words for words in listed)


def test_audit_through_celery_finds_what_the_module_finds(broker: str) -> None:
    app = Celery("sender", broker=broker, set_as_current=False)
    app.send_task("audited.ok", queue="red")
    app.close()
    options = ("audit", "--json", "--no-server", "--no-config")

    done = run("-A", "audited", "deadbeat", *options, CELERY_BROKER_URL=broker)
    as_module = subprocess.run(
        [sys.executable, "-m", "deadbeat", *options, "-A", "audited"],
        cwd=PROJECT,
        env={**clean(), "CELERY_BROKER_URL": broker},
        capture_output=True,
        timeout=60,
        check=False,
    )

    found, same = document(done), json.loads(as_module.stdout)
    assert (done.returncode, found["exit_code"]) == (2, 2), done.stderr
    assert "NO_WORKERS" in {finding["code"] for finding in found["findings"]}
    assert found["findings"] == same["findings"]
    assert as_module.returncode == 2


def test_broker_and_folder_that_celery_was_given_count(broker: str, tmp_path: Path) -> None:
    away = f"redis://127.0.0.1:{free_port()}/0"
    options = ("--workdir", str(PROJECT), "-b", broker, "-A", "audited")

    done = run(
        *options, "deadbeat", "audit", "--json", "--no-server", folder=tmp_path, CELERY_BROKER_URL=away
    )

    assert document(done)["broker"]["reachable"] is True


@pytest.mark.parametrize(
    ("words", "environment"),
    [
        (("--app=audited", "-q"), {}),
        (("-qA", "audited:app"), {}),
        (("-q",), {"APP": "audited"}),
    ],
)
def test_app_may_be_named_in_every_way_that_celery_knows(
    words: tuple[str, ...], environment: dict[str, str], broker: str
) -> None:
    options = ("deadbeat", "audit", "--json", "--no-server", "--no-config")

    done = run(*words, *options, CELERY_BROKER_URL=broker, **environment)

    assert document(done)["app"] == "audited", done.stderr
    repairs = [step["command"] for one in document(done)["findings"] for step in one["repair"]]
    project = environment.get("APP", words[-1] if words[-1] != "-q" else "audited")
    assert any((command or "").startswith(f"celery -A {project} ") for command in repairs), repairs


def test_app_that_a_program_hands_to_celery_has_no_name_to_go_by(broker: str) -> None:
    words = "from audited import app; app.start(['deadbeat', 'audit'])"

    done = subprocess.run(
        [sys.executable, "-c", words],
        cwd=PROJECT,
        env={**clean(), "CELERY_BROKER_URL": broker},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )

    assert done.returncode == 64, done.stderr
    assert "no app is named" in done.stderr


def test_doctor_through_celery_tries_the_app_that_celery_was_given(broker: str, sink: Sink) -> None:
    sent_to = {"DEADBEAT_URL": sink.url, "DEADBEAT_KEY": "dbp_test"}

    done = run("-A", "audited:app", "deadbeat", "doctor", "--json", CELERY_BROKER_URL=broker, **sent_to)

    diagnosis = document(done)
    assert {check["result"] for check in diagnosis["checks"]} == {"good"}, diagnosis
    assert "run_finished" in {check["name"] for check in diagnosis["checks"]}
    assert done.returncode == 0
    assert Redis.from_url(broker).keys("*doctor*") == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_watch_through_celery_ends_cleanly_when_it_is_ordered_to(number: signal.Signals, broker: str) -> None:
    watching = subprocess.Popen(
        [str(CELERY), "-A", "audited", "deadbeat", "watch", "--no-config", "--interval", "0.2"],
        cwd=PROJECT,
        env={**clean(), "CELERY_BROKER_URL": broker},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        preexec_fn=default_signals,
    )
    assert watching.stdout is not None
    try:
        line = watching.stdout.readline()
        while "NO_WORKERS" not in line:
            assert line
            line = watching.stdout.readline()

        watching.send_signal(number)

        _out, err = watching.communicate(timeout=20)
        assert watching.returncode == 0
        assert "Traceback" not in err
    finally:
        watching.kill()
        watching.wait(10)


@pytest.mark.parametrize(
    ("words", "reported"),
    [
        (("-A", "audited", "deadbeat"), "COMMAND"),
        (("-A", "audited", "deadbeat", "audit", "--interval", "1"), "--interval"),
        (("-A", "audited", "deadbeat", "watch", "--interval", "0"), "--interval"),
        # Not 2, with which an audit says "critical".
        (("-A", "audited", "deadbeat", "audit", "-A", "audited"), "unrecognized arguments: -A"),
        (("deadbeat", "audit"), "no app is named"),
    ],
)
def test_wrong_call_is_reported_with_the_status_of_a_wrong_call(
    words: tuple[str, ...], reported: str
) -> None:
    done = run(*words, CELERY_BROKER_URL="redis://127.0.0.1:1/0")

    assert done.returncode == 64, done.stderr
    assert "usage: celery -A APP deadbeat" in done.stderr
    assert reported in done.stderr
    assert "Traceback" not in done.stderr


def test_app_that_celery_cannot_load_is_reported_by_celery_with_its_own_status() -> None:
    # docs/audit.md says so, and names the form of the call in which it is 3.
    done = run("-A", "no_such_module", "deadbeat", "audit", "--json")

    assert (done.returncode, done.stdout) == (2, "")
    assert "no_such_module" in done.stderr


@pytest.mark.parametrize("words", [("deadbeat", "--help"), ("-A", "audited", "deadbeat", "doctor", "--help")])
def test_help_needs_nothing(words: tuple[str, ...]) -> None:
    done = run(*words, CELERY_BROKER_URL="redis://127.0.0.1:1/0")

    assert done.returncode == 0
    assert "usage: celery -A APP deadbeat" in done.stdout


def test_option_that_the_application_adds_to_every_command_is_given_to_it(
    broker: str, tmp_path: Path
) -> None:
    (tmp_path / "optioned.py").write_text(
        "import sys\n"
        "from celery import Celery, signals\n"
        "from click import Option\n"
        "app = Celery('optioned')\n"
        "app.user_options['preload'].add(Option(('-Z', '--zone'), default='none'))\n"
        "@signals.user_preload_options.connect\n"
        "def told(options, **_):\n"
        "    print('zone', options['zone'], file=sys.stderr)\n"
    )

    words = ("-A", "optioned", "deadbeat", "-Z", "north", "audit", "--json", "--no-server", "--no-config")
    done = run(*words, folder=tmp_path, CELERY_BROKER_URL=broker)

    assert document(done)["app"] == "optioned", done.stderr
    assert "zone north" in done.stderr


def test_every_other_command_of_celery_pays_nothing_for_these() -> None:
    # Celery imports its plugins whenever a worker or Beat starts.
    words = "import sys, deadbeat.cli.plugin; sys.exit('deadbeat.cli.command' in sys.modules)"

    assert subprocess.run([sys.executable, "-c", words], check=False, timeout=60).returncode == 0
