"""The reports of real prefork workers; and no fault of the SDK or the server reaches a task."""

from __future__ import annotations

import json
import time
import uuid
from pathlib import Path
from typing import Any, Callable

import pytest
from celery import Celery
from celery.exceptions import TaskRevokedError

from conftest import StartCelery, reporting_to
from sink import Sink

Send = Callable[..., Any]


def finished(sink: Sink, task_id: str) -> dict[str, Any]:
    (event,) = sink.wait_for(lambda: sink.of("run_finished", task_id=task_id))
    return event


def test_every_way_a_run_can_end_is_reported_as_what_it_was(
    sink: Sink, start_celery: StartCelery, send: Send
) -> None:
    worker = start_celery("worker", "-n", "w1@here", **reporting_to(sink.url))

    good, bad, unwatched = send("ok", 7), send("bad"), send("ok", entry=None)
    flaky, hopeless = send("flaky"), send("hopeless")
    ignored, rejected = send("ignored"), send("rejected")
    expired = send("ok", expires=-5, headers={"deadbeat_at": 1782871200.5})
    named = send("ok", task_id="chosen by the application")

    # Success: started and finished, with worker, queue and duration.
    end = finished(sink, good.id)
    (start,) = sink.of("run_started", task_id=good.id)
    for event in (start, end):
        assert (event["beat"], event["entry"], event["task"]) == ("watched", "nightly", "watched.ok")
        assert (event["run_id"], event["worker"], event["retries"]) == (good.id, "w1@here", 0)
    assert (end["outcome"], end["error"]) == ("success", None)
    assert 0 <= end["duration_seconds"] < 10

    # Failure: the exception's class, without its text.
    end = finished(sink, bad.id)
    assert (end["outcome"], end["error"]) == ("failure", "ValueError")
    assert "a secret" not in json.dumps(sink.events)

    # A retry keeps its run, is no failure, and the run ends once.
    end = finished(sink, flaky.id)
    assert (end["outcome"], end["retries"], end["run_id"]) == ("success", 1, flaky.id)
    # Two children may have taken part, each with a connection of its own: no order between them.
    sink.wait_for(lambda: {e["retries"] for e in sink.of("run_started", run_id=flaky.id)} == {0, 1})
    (retried,) = sink.wait_for(lambda: sink.of("run_retried", run_id=flaky.id))
    assert retried["retries"] == 0
    end = finished(sink, hopeless.id)
    assert (end["outcome"], end["error"], end["retries"]) == ("retries_exhausted", "ValueError", 1)

    assert finished(sink, ignored.id)["outcome"] == "ignored"
    assert finished(sink, rejected.id)["outcome"] == "rejected"
    end = finished(sink, expired.id)
    assert (end["outcome"], end["duration_seconds"]) == ("expired", None)
    assert end["published_at"] == "2026-07-01T02:00:00.500000Z"
    assert sink.of("run_started", task_id=expired.id) == []

    # A task id that is no UUID still makes one run, under a derived UUID.
    run_id = finished(sink, named.id)["run_id"]
    assert str(uuid.UUID(run_id)) == run_id
    assert [e["run_id"] for e in sink.of("run_started", task_id=named.id)] == [run_id]

    # The SDK does not report runs that Beat did not send.
    unwatched.get(timeout=10)
    assert worker.stop() < 10
    assert [e for e in sink.events if e.get("task_id") == unwatched.id] == []
    assert sink.of("client_loss") == []


def test_a_message_that_the_worker_refuses_ends_its_run_with_the_reason(
    sink: Sink, start_celery: StartCelery, send: Send, broker: str
) -> None:
    start_celery("worker", "-n", "w1@here", **reporting_to(sink.url))

    unknown, pickled = send("nowhere"), send("ok", serializer="pickle")
    unwatched = send("nowhere", entry=None)
    broken = str(uuid.uuid4())
    with Celery("sender", broker=broker).producer_pool.acquire() as producer:
        producer.publish(
            b"{",
            routing_key="celery",
            content_type="application/json",
            content_encoding="utf-8",
            headers={
                "id": broken,
                "task": "watched.ok",
                "lang": "py",
                "deadbeat_beat": "watched",
                "deadbeat_entry": "nightly",
            },
        )
        # A message of another program.
        producer.publish(b"{}", routing_key="celery", content_type="application/json")
    good = send("ok")

    for task_id, reason in (
        (unknown.id, "unknown task watched.nowhere"),
        (pickled.id, "ContentDisallowed: content type application/x-python-serialize"),
        (broken, "DecodeError: content type application/json"),
    ):
        end = finished(sink, task_id)
        assert (end["outcome"], end["error"], end["attempt"]) == ("rejected", reason, None)
        assert (end["entry"], end["worker"], end["queue"]) == ("nightly", "w1@here", "celery")
    # The worker goes on, and the SDK does not report runs that Beat did not send.
    assert finished(sink, good.id)["outcome"] == "success"
    assert [event for event in sink.events if event.get("task_id") == unwatched.id] == []


def test_what_a_killed_child_cannot_say_is_said_by_the_main_process(
    sink: Sink, start_celery: StartCelery, send: Send
) -> None:
    start_celery("worker", "--concurrency", "4", **reporting_to(sink.url))

    limited, exits, waits = send("limited"), send("exits"), send("waits")
    sink.wait_for(lambda: sink.of("run_started", task_id=waits.id))
    waits.revoke(terminate=True)

    sink.wait_for(lambda: sink.of("run_finished", task_id=limited.id, outcome="time_limit"))
    sink.wait_for(lambda: sink.of("run_finished", task_id=waits.id, outcome="revoked"))
    sink.wait_for(lambda: sink.of("run_finished", task_id=exits.id))
    with pytest.raises(TaskRevokedError):
        waits.get(timeout=10)
    # Alone, because a dying child sometimes takes messages of its siblings from the shared pipe with it.
    killed = send("killed")
    sink.wait_for(lambda: sink.of("run_finished", task_id=killed.id))

    (end,) = sink.of("run_finished", task_id=killed.id)
    assert (end["outcome"], end["error"], end["duration_seconds"]) == ("lost", "WorkerLostError", None)
    (end,) = sink.of("run_finished", task_id=limited.id, outcome="time_limit")
    assert (end["error"], end["soft"], end["attempt"]) == ("TimeLimitExceeded", False, None)
    for task in (limited, exits, waits, killed):
        kinds = [(e["type"], e.get("outcome")) for e in sink.events if e.get("task_id") == task.id]
        assert len(kinds) == len(set(kinds)), f"told twice: {kinds}"


def test_threads_pool_reports_the_same(sink: Sink, start_celery: StartCelery, send: Send) -> None:
    start_celery("worker", "--pool", "threads", **reporting_to(sink.url))

    good, bad, hopeless = send("ok"), send("bad"), send("hopeless")

    assert finished(sink, good.id)["outcome"] == "success"
    assert finished(sink, bad.id)["error"] == "ValueError"
    assert finished(sink, hopeless.id)["error"] == "ValueError"
    # The second attempt may end before the first one has reported the retry.
    sink.wait_for(lambda: len(sink.of("run_retried", task_id=hopeless.id)) == 1)


def test_child_flushes_at_exit_what_still_lingers(sink: Sink, start_celery: StartCelery, send: Send) -> None:
    worker = start_celery("worker", "--max-tasks-per-child", "1", **reporting_to(sink.url))

    sent = [send("ok") for _ in range(2)]

    sink.wait_for(lambda: len(sink.of("run_finished", outcome="success")) == 2)
    assert {e["task_id"] for e in sink.of("run_started")} == {task.id for task in sent}
    assert worker.stop() < 10


@pytest.mark.parametrize("server", ["refuse", "hang", "401", "503"])
def test_useless_server_fails_delays_and_blocks_no_task(
    server: str, sink: Sink, dead_url: str, start_celery: StartCelery, send: Send
) -> None:
    sink.answer = int(server) if server.isdigit() else server
    url = dead_url if server == "refuse" else sink.url
    worker = start_celery("worker", **reporting_to(url))
    send("ok").get(timeout=30)

    started = time.monotonic()
    results = [send("ok", number) for number in range(200)]
    values = [result.get(timeout=30) for result in results]
    took = time.monotonic() - started
    failure = send("bad")

    assert values == list(range(200))
    # One blocked report would take the two seconds of its timeout: 200 of them take seven minutes.
    assert took < 20
    with pytest.raises(ValueError, match="a secret"):
        failure.get(timeout=30)
    # The main process has no reports, and its children flush for a second at most.
    assert worker.stop() < 10
    if server != "refuse":
        assert sink.batches, "the server was not even tried"
    output = worker.output()
    # One traceback belongs to the failing task.
    assert output.count("Traceback") == 1
    assert "the application is not affected" in output


@pytest.mark.parametrize("pool", ["prefork", "threads", "solo"])
def test_last_reports_of_all_processes_together_hold_up_a_shutdown_for_two_seconds_at_most(
    pool: str, dead_url: str, start_celery: StartCelery, send: Send, tmp_path: Path
) -> None:
    notes = tmp_path / "flushes"
    worker = start_celery("worker", "--pool", pool, FLUSHES=str(notes), **reporting_to(dead_url))
    for number in range(8):
        send("ok", number).get(timeout=30)

    worker.stop()

    lines = [line.split() for line in notes.read_text().splitlines()]
    # Later flushes of a process share the deadline of its first one.
    granted: dict[int, float] = {}
    for pid, seconds in lines:
        granted.setdefault(int(pid), float(seconds))
    main = granted.pop(worker.process.pid)
    assert main > 0.9
    assert bool(granted) == (pool == "prefork")
    # The children end side by side, and then the main process does.
    assert main + max(granted.values(), default=0.0) <= 2.0


def test_nothing_reaches_a_task_when_our_own_code_is_broken(
    sink: Sink, start_celery: StartCelery, send: Send
) -> None:
    worker = start_celery("worker", SABOTAGE="1", **reporting_to(sink.url))
    beat = start_celery("beat", SABOTAGE="1", OFTEN_SECONDS="0.5", **reporting_to(sink.url))

    assert [send("ok", number).get(timeout=30) for number in range(20)] == list(range(20))
    assert send("flaky").get(timeout=30) == "done"
    beat.wait_for_output("Sending due task often")
    worker.wait_for_output("sabotage")

    assert worker.stop() < 10
    beat.stop()
    assert sink.batches == []


def test_worker_without_settings_works_and_says_nothing(start_celery: StartCelery, send: Send) -> None:
    worker = start_celery("worker")

    assert send("ok", 5).get(timeout=30) == 5

    assert "Deadbeat" not in worker.output()
