"""Several applications in one process; and one whose `init` comes too late."""

from __future__ import annotations

from typing import Any

import pytest
from redis import Redis

from conftest import StartCelery, reporting_to
from deadbeat.integrations.celery.runs.reporter import CANARY
from sink import Sink

TOO_LATE = "init was called after"


@pytest.fixture
def brokers(redis_port: int) -> dict[str, str]:
    """Two Redis databases, far from those that other tests use."""
    addresses = [f"redis://127.0.0.1:{redis_port}/{number}" for number in (62, 63)]
    for address in addresses:
        Redis.from_url(address).flushdb()
    # Celery's own variable would override the broker of an app.
    return {"CELERY_BROKER_URL": "", "BILLING_BROKER_URL": addresses[0], "MAIL_BROKER_URL": addresses[1]}


def test_each_app_of_a_process_is_reported_as_itself(
    sink: Sink, start_celery: StartCelery, brokers: dict[str, str]
) -> None:
    environment = {**brokers, **reporting_to(sink.url)}
    names = ("billing", "mail")
    for name in names:
        start_celery("worker", "-n", f"{name}@here", project=f"two:{name}", **environment)
    for name in names:
        start_celery("beat", project=f"two:{name}", **environment)

    for name in names:
        sink.wait_for(lambda name=name: sink.of("beat_alive", beat=name))
        sink.wait_for(lambda name=name: sink.of("worker_snapshot", app=name, worker=f"{name}@here"))
        sink.wait_for(lambda name=name: sink.of("run_finished", beat=name, entry=f"{name} entry"))
        # The canary of each app went through its own broker to its own worker.
        end = sink.wait_for(lambda name=name: sink.of("run_finished", beat=name, entry=CANARY))[0]
        assert end["worker"] == f"{name}@here"

    schedules: dict[str, set[str]] = {}
    for event in sink.of("beat_schedule"):
        schedules[event["beat"]] = {entry["name"] for entry in event["entries"]} - {"celery.backend_cleanup"}
    assert schedules == {name: {f"{name} entry", CANARY} for name in names}
    reported: list[dict[str, Any]] = [e for e in sink.events if e["type"].startswith("run_")]
    assert {(e["beat"], e["worker"] or f"{e['beat']}@here") for e in reported} == {
        (n, f"{n}@here") for n in names
    }


def test_task_sent_to_another_app_is_no_part_of_the_run(
    sink: Sink, start_celery: StartCelery, brokers: dict[str, str]
) -> None:
    environment = {**brokers, **reporting_to(sink.url, DEADBEAT_CANARY="0"), "SEND_ACROSS": "1"}
    start_celery("worker", "-n", "billing@here", project="two:billing", **environment)
    start_celery("worker", "-n", "mail@here", project="two:mail", **environment)
    start_celery("beat", project="two:mail", **environment)

    sink.wait_for(lambda: len(sink.of("run_finished", entry="mail entry", outcome="success")) >= 2)

    assert {e["task"] for e in sink.events if e["type"].startswith("run_")} == {"mail.work"}


@pytest.mark.parametrize(
    ("command", "where", "what"),
    [
        ("beat", "beat_init", "Beat"),
        ("worker", "worker_ready", "a worker"),
        ("worker", "celeryd_after_setup", "a worker"),
        ("worker", "worker_process_init", "a worker"),
    ],
)
def test_init_that_comes_too_late_says_where_it_belongs(
    command: str, where: str, what: str, sink: Sink, start_celery: StartCelery
) -> None:
    options = ["--concurrency", "1"] if command == "worker" else []
    process = start_celery(command, *options, project="late", WHERE=where, **reporting_to(sink.url))

    process.wait_for_output(f"{TOO_LATE} {what} had started")

    process.stop()
    assert process.output().count(TOO_LATE) == 1
    assert "call deadbeat.init(app) where the app is made" in process.output()


@pytest.mark.parametrize("where", ["celeryd_init", "worker_init"])
def test_init_before_the_worker_is_set_up_is_in_time(
    where: str, sink: Sink, start_celery: StartCelery
) -> None:
    worker = start_celery("worker", project="late", WHERE=where, **reporting_to(sink.url))

    sink.wait_for(lambda: sink.of("worker_snapshot", app="late"))

    assert TOO_LATE not in worker.output()
