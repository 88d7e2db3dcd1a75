"""The stages of a run from its publishing to its end, as real Beats and workers report them."""

from __future__ import annotations

import os
import time
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any, Callable

import pytest
from celery import Celery
from celery.beat import Scheduler
from celery.schedules import crontab, schedule

from conftest import RedisServer, StartCelery, reporting_to
from deadbeat._transport.buffer import EventBuffer
from deadbeat.config import Settings
from deadbeat.integrations.celery.beat import BeatReporter
from deadbeat.integrations.celery.runs.reporter import RunReporter, new_id, run_id_of
from deadbeat.integrations.celery.runs.tracked import TrackedTasks
from deadbeat.integrations.celery.schedules.due import Slots
from sink import Sink

Send = Callable[..., Any]


def instant(text: str) -> datetime:
    return datetime.fromisoformat(text.replace("Z", "+00:00"))


def the(sink: Sink, kind: str, **fields: Any) -> dict[str, Any]:
    """The only expected event."""
    (event,) = sink.wait_for(lambda: sink.of(kind, **fields))
    return event


def test_run_of_beat_is_followed_from_its_publishing_to_its_end(
    sink: Sink, start_celery: StartCelery
) -> None:
    quiet = reporting_to(sink.url, DEADBEAT_CANARY="0")
    beat = start_celery("beat", OFTEN_SECONDS="1", **quiet)
    first = sink.wait_for(lambda: sink.of("run_published"))[0]
    # A message cannot be received before it is sent.
    assert sink.of("run_received") == []
    start_celery("worker", "-n", "w1@here", **quiet)

    end = sink.wait_for(lambda: sink.of("run_finished", run_id=first["run_id"]))[0]
    beat.stop()

    received = the(sink, "run_received", run_id=first["run_id"])
    started = the(sink, "run_started", run_id=first["run_id"])
    for event in (first, received, started, end):
        assert (event["beat"], event["entry"], event["task"]) == ("watched", "often", "watched.ok")
        assert (event["queue"], event["retries"], event["task_id"]) == ("celery", 0, first["task_id"])
    assert [e["worker"] for e in (first, received, started, end)] == [None, "w1@here", "w1@here", "w1@here"]
    assert (received["redelivered"], started["redelivered"], received["eta"]) == (False, False, None)
    assert received["published_at"] == started["published_at"]
    assert instant(received["published_at"]) <= instant(first["at"]) <= instant(received["at"])
    assert end["attempt"] == started["attempt"] != None  # noqa: E711
    assert (end["outcome"], end["soft"]) == ("success", False)
    assert started["pid"] != os.getpid()
    # Each slot follows the one before, and none lies after the sending.
    published = sink.of("run_published")
    slots = [instant(event["slot"]) for event in published]
    assert all(slot <= instant(event["at"]) for slot, event in zip(slots, published))
    assert all(timedelta(seconds=0.9) < b - a < timedelta(seconds=3) for a, b in zip(slots, slots[1:]))


def test_tracked_task_is_reported_without_an_entry_and_no_other(
    sink: Sink, start_celery: StartCelery, send: Send
) -> None:
    worker = start_celery(
        "worker", "-Q", "celery,images", **reporting_to(sink.url, DEADBEAT_TRACK="watched.o?, *.bad")
    )

    inner = send("publishes", "watched.ok", "images", entry=None).get(timeout=30)
    bad, other = send("bad", entry=None), send("ignored", entry=None)
    end = the(sink, "run_finished", task_id=inner)
    failed = the(sink, "run_finished", task_id=bad.id)
    assert worker.stop() < 10

    assert (end["entry"], end["beat"], end["outcome"], end["queue"]) == (None, "watched", "success", "images")
    published = the(sink, "run_published", task_id=inner)
    assert (published["worker"], published["queue"], published["slot"]) == (None, "images", None)
    assert the(sink, "run_received", task_id=inner)["published_at"] <= published["at"]
    assert the(sink, "run_started", task_id=inner)["attempt"] == end["attempt"]
    assert (failed["outcome"], failed["error"], failed["entry"]) == ("failure", "ValueError", None)
    # Sent by a program without the SDK: the time is unknown.
    assert the(sink, "run_received", task_id=bad.id)["published_at"] is None
    other_tasks = {e["task"] for e in sink.events if e["type"].startswith("run_")}
    assert other_tasks == {"watched.ok", "watched.bad"}
    assert not [e for e in sink.events if e.get("task_id") == other.id]


def test_each_attempt_of_a_run_has_an_id_of_its_own(
    sink: Sink, start_celery: StartCelery, send: Send, tmp_path: Path
) -> None:
    start_celery("worker", **reporting_to(sink.url))

    flaky = send("flaky", eta=datetime.now(timezone.utc) + timedelta(seconds=1))
    end = the(sink, "run_finished", task_id=flaky.id)
    sink.wait_for(lambda: len(sink.of("run_started", task_id=flaky.id)) == 2)
    retried = the(sink, "run_retried", task_id=flaky.id)

    started = {e["retries"]: e for e in sink.of("run_started", task_id=flaky.id)}
    assert started[0]["attempt"] == retried["attempt"] != started[1]["attempt"] == end["attempt"]
    assert retried["error"] == "ValueError"
    # The worker publishes the retry itself; it is still the same run of the same entry.
    again = the(sink, "run_published", task_id=flaky.id)
    assert (again["retries"], again["entry"], again["run_id"]) == (1, "nightly", flaky.id)
    received = {e["retries"]: e for e in sink.of("run_received", task_id=flaky.id)}
    assert received[0]["eta"].endswith("Z")
    assert instant(received[0]["at"]) < instant(received[0]["eta"])
    assert received[0]["published_at"] is None
    assert received[1]["published_at"] is not None

    # A redelivered message repeats id and retries: the attempt distinguishes the executions.
    twice = send("killed_once", str(tmp_path / "kill"))
    the(sink, "run_started", task_id=twice.id)
    (tmp_path / "kill").touch()
    end = the(sink, "run_finished", task_id=twice.id)
    started_twice = sink.wait_for(
        lambda: len(found := sink.of("run_started", task_id=twice.id)) == 2 and found
    )
    assert [e["retries"] for e in started_twice] == [0, 0]
    assert {e["redelivered"] for e in started_twice} == {False, True}
    (second,) = [e for e in started_twice if e["redelivered"]]
    assert end["outcome"] == "success"
    assert end["attempt"] == second["attempt"]
    assert {e["redelivered"] for e in sink.of("run_received", task_id=twice.id)} == {False, True}


def test_soft_time_limit_is_a_time_limit(sink: Sink, start_celery: StartCelery, send: Send) -> None:
    start_celery("worker", **reporting_to(sink.url))

    end = the(sink, "run_finished", task_id=send("hurried").id)

    assert (end["outcome"], end["soft"], end["error"]) == ("time_limit", True, "SoftTimeLimitExceeded")
    assert end["duration_seconds"] >= 1


@pytest.mark.parametrize("pool", ["threads", "solo"])
def test_other_pools_report_the_same_stages(
    pool: str, sink: Sink, start_celery: StartCelery, send: Send
) -> None:
    start_celery("worker", "--pool", pool, **reporting_to(sink.url))

    for task, outcome in (("ok", "success"), ("hopeless", "retries_exhausted"), ("rejected", "rejected")):
        sent = send(task)
        end = the(sink, "run_finished", task_id=sent.id)
        assert end["outcome"] == outcome
        assert {e["attempt"] for e in sink.of("run_started", task_id=sent.id)} >= {end["attempt"]}
        assert sink.of("run_received", task_id=sent.id)


def test_what_the_broker_did_not_take_is_reported_and_does_not_pile_up(
    sink: Sink, start_celery: StartCelery, own_redis: RedisServer
) -> None:
    own = f"redis://127.0.0.1:{own_redis.port}/0"
    start_celery(
        "beat", CELERY_BROKER_URL=own, OFTEN_SECONDS="0.2", **reporting_to(sink.url, DEADBEAT_CANARY="0")
    )
    sink.wait_for(lambda: sink.of("run_published"))

    own_redis.stop()
    failed = sink.wait_for(lambda: sink.of("publish_failed"))[0]
    own_redis.start()
    tried = len(sink.of("run_published"))
    sink.wait_for(lambda: len(sink.of("run_published")) > tried)

    assert (failed["beat"], failed["entry"], failed["task"]) == ("watched", "often", "watched.ok")
    assert (failed["error"], failed["count"]) == ("OperationalError", 1)


class Recorder:
    """Replaces the transport, with its real buffer."""

    def __init__(self) -> None:
        self.buffer = EventBuffer()
        self.put = self.buffer.put


def test_failures_to_publish_merge_into_one_with_their_number(own_redis: RedisServer) -> None:
    app = Celery("shop", broker=f"redis://127.0.0.1:{own_redis.port}/0", set_as_current=False)
    app.conf.task_publish_retry = False
    ago = datetime.now(timezone.utc) - timedelta(hours=1)
    plans = {"first": schedule(0.001), "second": schedule(3600)}
    app.conf.beat_schedule = {
        name: {"task": "t", "schedule": plan, "last_run_at": ago} for name, plan in plans.items()
    }
    recorder = Recorder()
    scheduler = Scheduler(app=app)
    settings = Settings(url="http://127.0.0.1", key="k", canary=False)
    BeatReporter(RunReporter(app, settings, recorder)).wrap(scheduler)  # type: ignore[arg-type]

    assert scheduler.producer.connection.connected
    own_redis.stop()
    for _ in range(6):
        scheduler.tick()
    own_redis.start()

    failed = [w.event for w in recorder.buffer.take(100) if w.event["type"] == "publish_failed"]
    counts = {event["entry"]: event["count"] for event in failed}
    assert len(failed) == 2, "one for each entry, however long the broker is away"
    assert counts["second"] == 1
    assert counts["first"] >= 2
    assert {event["error"] for event in failed} == {"OperationalError"}


class Entry:
    def __init__(self, plan: Any, last_run_at: datetime | None) -> None:
        self.name, self.schedule, self.last_run_at = "entry", plan, last_run_at


def test_slot_is_the_instant_since_when_an_entry_is_due() -> None:
    now = datetime.now(timezone.utc)
    minute = now.replace(second=0, microsecond=0)

    class Slow(schedule):
        def remaining_estimate(self, last_run_at: datetime) -> timedelta:
            time.sleep(0.01)
            return timedelta(seconds=-3)

    def slot(plan: Any, last_run_at: datetime | None) -> datetime | None:
        text = Slots().of(Entry(plan, last_run_at))
        return None if text is None else instant(text)

    every_minute = crontab(app=Celery("utc", set_as_current=False))
    assert slot(every_minute, minute - timedelta(seconds=20)) == minute
    # After a pause, the first slot that was missed.
    assert slot(every_minute, minute - timedelta(minutes=10)) == minute - timedelta(minutes=9)
    late = slot(schedule(60), now - timedelta(seconds=61))
    assert late is not None
    assert abs((late - (now - timedelta(seconds=1))).total_seconds()) < 0.1
    # The entry is not due: it was sent by hand.
    assert slot(schedule(3600), now) is None
    assert slot(schedule(60), None) is None
    # A schedule that takes long each time is not asked forever, because Beat waits meanwhile.
    slots, entry = Slots(), Entry(Slow(60), now)
    asked = [slots.of(entry) is not None for _ in range(5)]
    assert asked == [True, True, True, False, False]


@pytest.mark.parametrize(
    ("patterns", "inside", "outside"),
    [
        ((), [], ["shop.tasks.pay", ""]),
        (("shop.tasks.*",), ["shop.tasks.pay", "shop.tasks.a.b"], ["shop.task", "Shop.tasks.pay"]),
        (("a", "b.?"), ["a", "b.c"], ["aa", "b.cd"]),
        (("*",), ["anything", "with\nnewline"], []),
    ],
)
def test_patterns_are_matched_as_file_names_are(
    patterns: tuple[str, ...], inside: list[str], outside: list[str]
) -> None:
    tracked = TrackedTasks(patterns)

    for _ in range(2):
        assert all(name in tracked for name in inside)
        assert not any(name in tracked for name in outside)


def test_ids_are_uuids() -> None:
    made = [new_id() for _ in range(100)]

    assert len(set(made)) == 100
    assert all(run_id_of(one) == one for one in made)
    assert run_id_of(made[0].upper()) == made[0]
    assert run_id_of("chosen by the application") == run_id_of("chosen by the application")
