"""A real Beat sends its canary only to queues that workers are known to consume."""

from __future__ import annotations

from typing import Any

import pytest
from redis import Redis

from conftest import StartCelery, reporting_to
from deadbeat.integrations.celery.runs.reporter import CANARY
from sink import Sink


def attended(sink: Sink, queues: list[str]) -> None:
    """Let the server's verdict name these queues as consumed."""

    def more(event: dict[str, Any]) -> dict[str, Any]:
        if event["type"] != "beat_alive":
            return {}
        return {"sample_queues": False, "queues": [], "attended_queues": queues}

    sink.more = more


def newest_canary(sink: Sink) -> dict[str, Any]:
    schedules = sink.wait_for(lambda: sink.of("beat_schedule"))
    (entry,) = (entry for entry in schedules[-1]["entries"] if entry["name"] == CANARY)
    return dict(entry)


def test_canary_goes_to_a_queue_that_workers_consume(
    sink: Sink, start_celery: StartCelery, broker: str
) -> None:
    attended(sink, ["high", "low"])
    start_celery("worker", "-Q", "high,low", **reporting_to(sink.url))

    beat = start_celery("beat", **reporting_to(sink.url))

    sink.wait_for(lambda: len(sink.of("run_finished", entry=CANARY, outcome="success")) >= 3)
    assert {event["queue"] for event in sink.of("run_published", entry=CANARY)} == {"high"}
    sink.wait_for(lambda: newest_canary(sink)["queue"] == "high")
    assert Redis.from_url(broker).llen("celery") == 0
    # No worker consumes its queue any more, but one consumes another queue.
    attended(sink, ["low"])
    sink.wait_for(lambda: sink.of("run_finished", entry=CANARY, queue="low"))
    sink.wait_for(lambda: newest_canary(sink)["queue"] == "low")
    beat.stop()


def test_queues_that_must_be_configured_are_no_fault_of_the_broker(
    sink: Sink, start_celery: StartCelery
) -> None:
    attended(sink, ["unknown to Beat", "high"])
    start_celery("worker", "-Q", "high", ONLY_QUEUES="high,low", **reporting_to(sink.url))

    start_celery("beat", ONLY_QUEUES="high,low", **reporting_to(sink.url))

    sink.wait_for(lambda: len(sink.of("run_finished", entry=CANARY, queue="high")) >= 2)
    assert sink.of("publish_failed") == []


def test_queue_that_only_workers_know_is_reached_without_declaring_it(
    sink: Sink, start_celery: StartCelery
) -> None:
    attended(sink, ["only workers know"])
    start_celery("worker", "-Q", "only workers know", **reporting_to(sink.url))

    beat = start_celery("beat", ONLY_QUEUES="high,low", **reporting_to(sink.url))

    sink.wait_for(lambda: sink.of("run_finished", entry=CANARY, outcome="success"))
    assert "could not be sent" not in beat.output()


def test_without_any_worker_the_canary_rests(sink: Sink, start_celery: StartCelery, broker: str) -> None:
    attended(sink, [])
    start_celery("beat", **reporting_to(sink.url))

    sink.wait_for(lambda: newest_canary(sink)["enabled"] is False)
    seen = len(sink.of("beat_alive"))
    sink.wait_for(lambda: len(sink.of("beat_alive")) > seen + 2)
    assert sink.of("run_published", entry=CANARY) == []
    assert Redis.from_url(broker).keys("*celery*") == []

    attended(sink, ["celery"])
    sink.wait_for(lambda: sink.of("run_published", entry=CANARY, queue="celery"))
    assert newest_canary(sink)["enabled"] is True


def test_nothing_is_sent_before_the_server_has_said_where_to(
    sink: Sink, start_celery: StartCelery, broker: str
) -> None:
    sink.answer = 503
    beat = start_celery("beat", **reporting_to(sink.url))

    # Several periods of the canary.
    sink.wait_for(lambda: len([b for b in sink.batches if "beat_alive" in str(b.body)]) >= 3)
    assert Redis.from_url(broker).llen("celery") == 0
    assert newest_canary(sink)["enabled"] is True

    attended(sink, ["celery"])
    sink.answer = "ok"
    sink.wait_for(lambda: sink.of("run_published", entry=CANARY, queue="celery"))
    beat.stop()


def test_a_wanted_queue_that_nobody_consumes_is_said(sink: Sink, start_celery: StartCelery) -> None:
    attended(sink, ["high"])
    beat = start_celery("beat", **reporting_to(sink.url, DEADBEAT_CANARY_QUEUE="hihg"))

    sink.wait_for(lambda: sink.of("run_published", entry=CANARY, queue="high"))
    beat.wait_for_output("no worker that reports consumes canary_queue hihg")


def test_an_entry_that_cannot_be_sent_is_a_failed_run_and_no_fault_of_the_broker(
    sink: Sink, start_celery: StartCelery
) -> None:
    # `nightly` and `often` name queues that are not configured; the server is one that names no queues.
    beat = start_celery("beat", ONLY_QUEUES="high", OFTEN_SECONDS="1", **reporting_to(sink.url))

    end = sink.wait_for(lambda: sink.of("run_finished", entry="often"))[0]

    assert (end["outcome"], end["error"], end["attempt"]) == ("failure", "QueueNotFound", None)
    assert (end["beat"], end["task"], end["retries"]) == ("watched", "watched.ok", 0)
    beat.wait_for_output("the canary could not be sent (QueueNotFound")
    assert beat.output().count("the canary could not be sent") == 1
    assert sink.of("publish_failed") == []


@pytest.mark.parametrize("queue", [None, "high"])
def test_a_server_that_names_no_queues_gets_the_canary_as_configured(
    queue: str | None, sink: Sink, start_celery: StartCelery
) -> None:
    wanted = {} if queue is None else {"DEADBEAT_CANARY_QUEUE": queue}
    start_celery("beat", **reporting_to(sink.url, **wanted))

    sink.wait_for(lambda: sink.of("run_published", entry=CANARY, queue=queue or "celery"))
    assert (newest_canary(sink)["queue"], newest_canary(sink)["enabled"]) == (queue, True)
