"""The commands in a Python that has no Celery: they say what is missing, and how to get it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import venv
from pathlib import Path

import pytest

from conftest import PROJECT

SOURCE = Path(__file__).parent.parent / "src"


@pytest.fixture(scope="module")
def bare_python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An empty virtual environment, as somebody uses who forgets to activate the application's."""
    folder = tmp_path_factory.mktemp("bare")
    venv.create(folder, with_pip=False)
    return folder / "bin" / "python"


def run(python: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("DEADBEAT_")}
    return subprocess.run(
        [str(python), "-m", "deadbeat", *arguments],
        cwd=PROJECT,
        env={**environment, "PYTHONPATH": str(SOURCE), "CELERY_BROKER_URL": "redis://127.0.0.1:1/0"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


# For an audit, 2 would say that something critical was found.
@pytest.mark.parametrize(("command", "status"), [("doctor", 2), ("audit", 3), ("watch", 3)])
def test_missing_celery_is_named_with_the_command_that_installs_it(
    command: str, status: int, bare_python: Path
) -> None:
    done = run(bare_python, command, "-A", "audited")

    assert (done.returncode, done.stdout) == (status, "")
    assert f"Celery is not installed for {bare_python}" in done.stderr
    assert f"{bare_python} -m pip install 'deadbeat[celery]'" in done.stderr
    assert "Traceback" not in done.stderr
    assert "fault of Deadbeat" not in done.stderr


@pytest.mark.parametrize(("command", "status"), [("doctor", 2), ("audit", 3)])
def test_document_names_missing_celery_too(command: str, status: int, bare_python: Path) -> None:
    done = run(bare_python, command, "-A", "audited", "--json")

    document = json.loads(done.stdout)
    assert (done.returncode, document["exit_code"]) == (status, status)
    assert "Celery is not installed" in document["error"]


def test_app_that_cannot_be_loaded_is_another_fault_than_missing_celery(tmp_path: Path) -> None:
    # An application's own celery.py hides the package of that name from the modules beside it.
    (tmp_path / "celery.py").write_text("app = None\n")

    for command in ("doctor", "audit"):
        done = subprocess.run(
            [sys.executable, "-m", "deadbeat", command, "-A", "celery", "--json"],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == 3, done.stderr
        assert "Celery is not installed" not in done.stderr
        assert "'celery' is not a package" in json.loads(done.stdout)["error"]
        assert "Traceback" not in done.stderr
