"""A run ends with its last part, in real workers: replacements, chains and chords that an entry starts."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Callable

import pytest
from celery import Celery

from conftest import StartCelery, reporting_to
from sink import Sink

Send = Callable[..., Any]

# Flow → how its run ends: outcome and exception of the last part, or of the part that failed.
ENDS = {
    "replace": ("success", None),
    "replace badly": ("failure", "ValueError"),
    "replace twice": ("failure", "ValueError"),
    "replace by retried": ("success", None),
    "replace by chord": ("failure", "KeyError"),
    "replace by group": ("success", None),
    "replace by chain": ("failure", "ValueError"),
    "chord": ("success", None),
    "chord, bad body": ("failure", "KeyError"),
    "chord, bad header": ("failure", "ValueError"),
    "chord, retried": ("success", None),
    "chord of chains": ("failure", "KeyError"),
    "chord with a chain": ("failure", "ValueError"),
    "chord in a chord": ("failure", "KeyError"),
    "chain": ("success", None),
    "chain, bad": ("failure", "ValueError"),
    "chain with a chord": ("failure", "KeyError"),
    # Of several workflows the first one is followed.
    "two workflows": ("success", None),
    # These have no common end: the run ends with the task that sent them.
    "group": ("success", None),
    "others": ("success", None),
}


@pytest.fixture
def start(broker: str) -> Any:
    """Sends the task `starts` as Beat does."""
    app = Celery("sender", broker=broker)

    def send(flow: str, *arguments: Any) -> str:
        headers = {"deadbeat_beat": "flows", "deadbeat_entry": flow}
        return str(app.send_task("flows.starts", args=(flow, *arguments), headers=headers).id)

    yield send
    app.close()


@pytest.mark.parametrize(
    ("pool", "backend"), [("prefork", ""), ("threads", ""), ("prefork", "file")], ids=str
)
def test_run_ends_with_its_last_part(
    pool: str, backend: str, sink: Sink, start_celery: StartCelery, start: Send, tmp_path: Path
) -> None:
    (tmp_path / "results").mkdir()
    results = {"RESULT_BACKEND": f"atomic_files.AtomicFiles+file://{tmp_path / 'results'}"} if backend else {}
    worker = start_celery(
        "worker", "--pool", pool, "--concurrency", "4", project="flows", **results, **reporting_to(sink.url)
    )
    for flow in ENDS:
        run = start(flow)
        (end,) = sink.wait_for(lambda run=run: sink.of("run_finished", run_id=run))
        assert (flow, end["outcome"], end["error"]) == (flow, *ENDS[flow])
        assert (end["entry"], end["beat"]) == (flow, "flows")

    worker.stop(60)
    for flow in ENDS:
        events = [event for event in sink.events if event.get("entry") == flow]
        # One run, reported once: no part is a run of its own.
        assert len({event["run_id"] for event in events}) == 1, flow
        assert [event["type"] for event in events].count("run_finished") == 1, flow
        # Each stage has one start, so that no execution seems to be a second one.
        starts = [event["retries"] for event in events if event["type"] == "run_started"]
        assert len(starts) == len(set(starts)), flow
        # Each part but the last one reports that the run goes on.
        goes_on = [event["retries"] for event in events if event["type"] == "run_retried"]
        end = max(event["retries"] for event in events if event["type"] == "run_finished")
        assert set(starts) - {end} <= set(goes_on), flow
    assert "a secret" not in json.dumps(sink.events)
    assert "the application is not affected" not in worker.output()


def test_killed_header_of_a_chord_fails_the_run(sink: Sink, start_celery: StartCelery, start: Send) -> None:
    start_celery("worker", project="flows", **reporting_to(sink.url))

    # Alone: a dying child sometimes takes messages of its siblings from the shared pipe with it.
    run = start("chord, killed header")

    (end,) = sink.wait_for(lambda: sink.of("run_finished", run_id=run))
    assert (end["outcome"], end["error"]) == ("lost", "WorkerLostError")


def test_worker_names_the_run_whose_later_part_it_executes(
    sink: Sink, start_celery: StartCelery, start: Send, tmp_path: Path
) -> None:
    start_celery("worker", project="flows", **reporting_to(sink.url))
    order = tmp_path / "order"

    run = start("replace by waiting", str(order))

    sink.wait_for(lambda: sink.of("run_started", run_id=run, task="flows.waits_for"))
    sink.wait_for(lambda: any(run in (e["running"] or ()) for e in sink.of("worker_snapshot")[-2:]))
    assert sink.of("run_finished", run_id=run) == []
    order.touch()
    (end,) = sink.wait_for(lambda: sink.of("run_finished", run_id=run))
    # The run takes longer than its last part, and the server knows when it began.
    assert (end["outcome"], end["duration_seconds"]) == ("success", None)
