"""Beat's report of its end: ordered, by an error, or none."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import pytest

from conftest import CeleryProcess, StartCelery, reporting_to
from sink import Sink


def started(sink: Sink, beat: CeleryProcess) -> None:
    said = sink.wait_for(lambda: sink.of("beat_alive"))[0]
    assert (said["state"], said.get("exit_error")) == ("running", None), beat.output()


def ends(sink: Sink) -> list[tuple[str, Any]]:
    """The `state` and the error of each report of an end."""
    return [
        (said["state"], said["exit_error"]) for said in sink.of("beat_alive") if said["state"] != "running"
    ]


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGINT])
def test_a_beat_that_is_ordered_to_end_says_so(
    sink: Sink, start_celery: StartCelery, how: signal.Signals
) -> None:
    beat = start_celery("beat", **reporting_to(sink.url))
    started(sink, beat)

    os.kill(beat.process.pid, how)
    beat.process.wait(20)

    assert ends(sink) == [("stopped", None)]
    named = {said["boot"] for said in (*sink.of("beat_alive"), *sink.of("beat_schedule"))}
    assert len(named) == 1


def test_a_beat_that_an_error_ends_says_which(sink: Sink, start_celery: StartCelery, tmp_path: Path) -> None:
    end = tmp_path / "end"
    beat = start_celery("beat", "--scheduler", "ending:Ending", END_FILE=str(end), **reporting_to(sink.url))
    started(sink, beat)

    end.touch()
    beat.process.wait(20)

    assert beat.process.returncode == 1, beat.output()
    assert ends(sink) == [("failed", "MemoryError")]


def test_a_beat_that_an_error_ends_before_it_begins_says_which(sink: Sink, start_celery: StartCelery) -> None:
    beat = start_celery("beat", "--scheduler", "ending:Unmade", **reporting_to(sink.url))

    beat.process.wait(20)

    assert beat.process.returncode == 1, beat.output()
    assert [(said["state"], said["exit_error"]) for said in sink.of("beat_alive")] == [
        ("failed", "ConnectionError")
    ]


def test_a_beat_that_is_killed_says_nothing(sink: Sink, start_celery: StartCelery) -> None:
    beat = start_celery("beat", **reporting_to(sink.url))
    started(sink, beat)

    beat.process.kill()
    beat.process.wait(20)

    assert ends(sink) == []


def test_a_beat_inside_of_a_worker_does_not_promise_an_end_report(
    sink: Sink, start_celery: StartCelery, tmp_path: Path
) -> None:
    start_celery("worker", "-B", "--schedule", str(tmp_path / "embedded"), **reporting_to(sink.url))
    beat = sink.wait_for(lambda: sink.of("beat_alive"))[0]["pid"]

    os.kill(beat, signal.SIGTERM)
    sink.wait_for(lambda: is_over(beat))

    assert {said["state"] for said in sink.of("beat_alive")} == {None}
    assert {said["state"] for said in sink.of("beat_schedule")} == {None}


def is_over(pid: int) -> bool:
    """True if the process has ended, even if its parent has not noticed yet."""
    stat = Path(f"/proc/{pid}/stat")
    return not stat.exists() or stat.read_text().rpartition(")")[2].split()[0] == "Z"
