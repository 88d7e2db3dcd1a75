"""The way to the server: batches, retries, forks, exits; against a server with scripted answers."""

from __future__ import annotations

import logging
import subprocess
import sys
import threading
import time
import uuid
from typing import Any

import pytest

from conftest import free_port
from deadbeat._transport import timeouts
from deadbeat._transport.clock import utc_text
from deadbeat._transport.sender import BATCH_LIMIT, answer_seconds
from deadbeat._transport.timeouts import ANSWER_SECONDS
from deadbeat._transport.transport import Transport
from deadbeat.integrations.celery.schedules.due import merge_due
from sink import Sink


def run_event(**fields: Any) -> dict[str, Any]:
    return {"id": str(uuid.uuid4()), "type": "run_started", "at": utc_text(), **fields}


def alive_event(number: int) -> dict[str, Any]:
    return {"id": str(uuid.uuid4()), "type": "beat_alive", "at": utc_text(), "number": number}


@pytest.fixture
def transport(sink: Sink) -> Transport:
    return Transport(sink.url, "test-key", lambda: "celery@test/1")


def test_request_is_what_the_contract_says(sink: Sink) -> None:
    transport = Transport(sink.url + "/behind/a/proxy", "test-key", lambda: "celery@test/1")
    event = run_event(entry="nightly")

    transport.put(event)

    sink.wait_for(lambda: sink.events)
    batch = sink.batches[0]
    assert batch.path == "/behind/a/proxy/api/v1/events"
    assert batch.headers["Authorization"] == "Bearer test-key"
    assert batch.headers["Content-Type"] == "application/json"
    assert batch.headers["User-Agent"] == "deadbeat-python/0.1.0"
    assert "Content-Encoding" not in batch.headers
    assert batch.body["sdk"] == {"name": "deadbeat-python", "version": "0.1.0"}
    assert batch.body["sent_at"].endswith("Z")
    assert batch.body["events"] == [event]


def test_long_body_is_compressed_and_batches_are_bounded_over_one_connection(
    sink: Sink, transport: Transport
) -> None:
    for number in range(1_200):
        transport.put(run_event(number=number))

    sink.wait_for(lambda: len(sink.events) == 1_200)
    assert [event["number"] for event in sink.events] == list(range(1_200))
    assert all(batch.headers["Content-Encoding"] == "gzip" for batch in sink.batches[:2])
    assert max(len(batch.body["events"]) for batch in sink.batches) == 500
    assert len({batch.peer for batch in sink.batches}) == 1


def test_ordinary_events_gather_and_a_vital_one_takes_them_along_at_once(
    sink: Sink, transport: Transport, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(timeouts, "LINGER_SECONDS", 30.0)

    transport.put(run_event(number=1))
    transport.put(run_event(number=2))
    transport.put(run_event(number=3), vital=True)

    sink.wait_for(lambda: len(sink.events) == 3, limit=5)
    assert [event["number"] for event in sink.events] == [1, 2, 3]


def test_503_is_tried_again_with_the_same_ids_not_before_retry_after(
    sink: Sink, transport: Transport
) -> None:
    sink.answer = (503, {"Retry-After": "1"})
    transport.put(run_event(), vital=True)
    sink.wait_for(lambda: sink.batches)
    sink.answer = "ok"

    sink.wait_for(lambda: len(sink.batches) == 2)

    first, second = sink.batches
    assert first.body["events"] == second.body["events"]
    assert second.arrived - first.arrived >= 1.0
    assert transport.flush_at_exit(2)


def test_beat_alive_does_not_pile_up_while_the_server_is_away(
    sink: Sink, transport: Transport, monkeypatch: pytest.MonkeyPatch
) -> None:
    sink.answer = 503
    monkeypatch.setattr(timeouts, "FIRST_RETRY_SECONDS", 0.05)
    transport.put(alive_event(0), latest="beat_alive")
    sink.wait_for(lambda: sink.batches)

    for number in range(1, 40):
        transport.put(alive_event(number), latest="beat_alive")
    sink.wait_for(lambda: [e["number"] for e in sink.batches[-1].body["events"]] == [39])
    sink.answer = "ok"

    sink.wait_for(lambda: transport.flush_at_exit(2))
    assert [event["number"] for event in sink.batches[-1].body["events"]] == [39]
    assert transport.dropped == 0


def due_event(**dues: str | None) -> dict[str, Any]:
    entries = [{"name": name, "next_due_at": due} for name, due in dues.items()]
    return {"id": str(uuid.uuid4()), "type": "beat_due", "at": utc_text(), "entries": entries}


def test_events_that_merge_become_one_while_the_server_is_away_and_say_it_all(
    sink: Sink, transport: Transport, monkeypatch: pytest.MonkeyPatch
) -> None:
    sink.answer = 503
    monkeypatch.setattr(timeouts, "FIRST_RETRY_SECONDS", 0.05)
    monkeypatch.setattr(timeouts, "LONGEST_RETRY_SECONDS", 0.05)
    transport.put(due_event(first="01:00", often="01:00"), latest="beat_due", merge=merge_due)
    sink.wait_for(lambda: sink.batches)

    # Some of them merge with the earlier event in the queue, some with one in the unanswered batch.
    for number in range(40):
        transport.put(
            due_event(often=str(number), **{f"n{number}": None}), latest="beat_due", merge=merge_due
        )
        time.sleep(0.005)
    transport.put(run_event(), vital=True)
    sink.wait_for(lambda: sink.batches[-1].body["events"][-1]["type"] == "run_started")
    sink.answer = "ok"

    sink.wait_for(lambda: transport.flush_at_exit(2))
    assert [event["type"] for event in sink.batches[-1].body["events"]] == ["beat_due", "run_started"]
    reported = {
        entry["name"]: entry["next_due_at"] for entry in sink.batches[-1].body["events"][0]["entries"]
    }
    assert reported == {"first": "01:00", "often": "39", **{f"n{number}": None for number in range(40)}}
    said: dict[str, Any] = {}
    for event in sink.of("beat_due"):
        assert said.setdefault(event["id"], event) == event, "the same id always says the same"
    assert transport.dropped == 0


def test_kind_of_report_that_the_server_does_not_know_is_one_warning(
    sink: Sink, transport: Transport, caplog: pytest.LogCaptureFixture
) -> None:
    sink.verdict = lambda event: "invalid_event" if event["type"] == "beat_due" else None

    for number in range(1, 4):
        transport.put(due_event(nightly="01:00"), latest="beat_due", merge=merge_due)
        sink.wait_for(lambda number=number: len(sink.of("beat_due")) == number)
        transport.put(run_event(number=number), vital=True)
        sink.wait_for(lambda number=number: sink.of("run_started", number=number))
    assert transport.flush_at_exit(2)

    assert [record.getMessage() for record in caplog.records] == [
        "Deadbeat: a report (beat_due) was rejected: invalid_event: scripted; the application is not affected"
    ]


def test_refused_key_is_one_warning_and_a_long_pause(
    sink: Sink, transport: Transport, caplog: pytest.LogCaptureFixture
) -> None:
    sink.answer = 401

    transport.put(run_event(), vital=True)
    sink.wait_for(lambda: sink.batches)
    process = transport._process
    sink.wait_for(lambda: process.not_before > time.monotonic() + 50)
    transport.put(run_event(), vital=True)
    # The exit tries again, which must not log another warning.
    assert not transport.flush_at_exit(0.5)

    warnings = [record.getMessage() for record in caplog.records]
    assert len(warnings) == 1
    assert "refuses the key (401)" in warnings[0]
    assert "test-key" not in caplog.text
    assert transport.dropped == 0


def test_refused_batch_is_dropped_counted_and_reported_later(
    sink: Sink, transport: Transport, caplog: pytest.LogCaptureFixture
) -> None:
    transport.app = "shop"
    sink.answer = 400
    for _ in range(3):
        transport.put(run_event())
    sink.wait_for(lambda: transport.dropped == 3)
    sink.answer = "ok"

    transport.put(run_event(number="next"), vital=True)

    (loss,) = sink.wait_for(lambda: sink.of("client_loss"))
    assert (loss["dropped"], loss["process"], loss["app"]) == (3, "celery@test/1", "shop")
    assert len(sink.of("run_started", number="next")) == 1
    assert [record.levelno for record in caplog.records] == [logging.WARNING]


def test_batch_that_makes_the_server_stumble_does_not_block_those_after_it(
    sink: Sink, transport: Transport, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(timeouts, "FIRST_RETRY_SECONDS", 0.001)
    sink.answer = 500
    transport.put(run_event(), vital=True)

    sink.wait_for(lambda: transport.dropped == 1)

    assert len(sink.batches) == timeouts.SERVER_ERROR_TRIES


def test_unknown_entry_gets_one_second_chance(
    sink: Sink, transport: Transport, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(timeouts, "SECOND_TRY_SECONDS", 0.2)
    sink.verdict = lambda event: "unknown_entry" if event.get("entry") == "new" else None
    lost = run_event(entry="new")

    transport.put(lost, vital=True)
    sink.wait_for(lambda: sink.events.count(lost) == 2)
    transport.put(run_event(entry="other"), vital=True)

    sink.wait_for(lambda: sink.of("run_started", entry="other"))
    assert transport.flush_at_exit(2)
    assert sink.events.count(lost) == 2


def test_loss_of_mere_history_names_no_application(sink: Sink, transport: Transport) -> None:
    transport.app = "shop"
    buffer = transport._current().buffer
    for number in range(10_001):
        buffer.put(run_event(number=number), history=True)

    transport.put(run_event(), vital=True)

    (loss,) = sink.wait_for(lambda: sink.of("client_loss"))
    assert (loss["dropped"], loss["app"]) == (1, None)


def test_loss_is_reported_although_the_last_batch_is_full(sink: Sink, transport: Transport) -> None:
    sink.answer = 400
    transport.put(run_event(), vital=True)
    sink.wait_for(lambda: transport.dropped == 1)
    process = transport._process
    process.not_before = time.monotonic() + 1.0
    for number in range(BATCH_LIMIT):
        transport.put(run_event(number=number))
    sink.answer = "ok"

    sink.wait_for(lambda: sink.of("client_loss"))

    assert [event["dropped"] for event in sink.of("client_loss")] == [1]


def test_full_queue_keeps_the_newest_and_the_vital_and_says_what_was_lost(sink: Sink) -> None:
    port = free_port()
    transport = Transport(f"http://127.0.0.1:{port}", "test-key", lambda: "celery@test/1")
    transport.put(run_event(number="failure"), vital=True)
    time_of_first_try = time.monotonic() + 5
    while not transport._process.failures and time.monotonic() < time_of_first_try:
        time.sleep(0.005)

    for number in range(12_000):
        transport.put(run_event(number=number))
    late = Sink(port)
    try:
        late.wait_for(lambda: late.of("client_loss") and late.of("run_started", number=11_999))
        assert len(late.of("run_started", number="failure")) == 1
        assert transport.dropped >= 1_000
        assert sum(event["dropped"] for event in late.of("client_loss")) == transport.dropped
        numbers = [e["number"] for e in late.events if isinstance(e.get("number"), int)]
        assert numbers == sorted(numbers)
        assert len(numbers) + transport.dropped == 12_000
    finally:
        late.close()


@pytest.mark.parametrize(("answer", "seconds"), [("hang", 2.0), (503, 0.5), (401, 0.5), ("refuse", 0.5)])
def test_put_never_blocks_and_exit_is_held_up_no_longer_than_granted(
    sink: Sink, dead_url: str, answer: Any, seconds: float
) -> None:
    sink.answer = answer
    transport = Transport(dead_url if answer == "refuse" else sink.url, "test-key", lambda: "celery@test/1")

    started = time.monotonic()
    for number in range(20_000):
        transport.put(run_event(number=number), vital=number % 10 == 0)
    putting = time.monotonic() - started
    started = time.monotonic()
    delivered = transport.flush_at_exit(seconds)
    again = transport.flush_at_exit(seconds)
    flushing = time.monotonic() - started

    assert (delivered, again) == (False, False)
    # 20,000 events in 10 s leaves 0.5 ms for each, a hundred times the usual time on an idle machine.
    assert putting < 10
    assert flushing < seconds + 1


@pytest.mark.parametrize(
    ("body_bytes", "to_exit", "seconds"),
    [
        (0, None, ANSWER_SECONDS),
        # 5,000 entries of a schedule.
        (1_000_000, None, 7.0),
        (100_000_000, None, 10.0),
        (1_000_000, 60.0, ANSWER_SECONDS),
        (1_000_000, 0.5, 0.5),
        (0, -1.0, 0.1),
    ],
)
def test_answer_is_waited_for_as_long_as_its_batch_may_take(
    body_bytes: int, to_exit: float | None, seconds: float
) -> None:
    assert answer_seconds(body_bytes, to_exit) == seconds


def test_flush_delivers_what_waits(sink: Sink, transport: Transport, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(timeouts, "LINGER_SECONDS", 30.0)
    for number in range(1_100):
        transport.put(run_event(number=number))

    assert transport.flush_at_exit(2)

    assert len(sink.events) == 1_100


def test_fault_inside_put_does_not_reach_the_caller(
    transport: Transport, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_thread(self: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", no_thread)

    transport.put(run_event(), vital=True)

    assert transport._process.has_work()


def test_server_that_closes_idle_connections_loses_nothing(sink: Sink, transport: Transport) -> None:
    transport.put(run_event(number=1), vital=True)
    sink.wait_for(lambda: sink.events)
    transport.flush_at_exit(2)
    # A server or a proxy does this to a connection that was idle for too long.
    transport._process.connection._client.sock.shutdown(2)  # type: ignore[union-attr]

    transport.put(run_event(number=2), vital=True)

    sink.wait_for(lambda: sink.of("run_started", number=2))
    assert transport._process.failures == 0


FORK = """
import ctypes, os, sys, time
from deadbeat._transport import timeouts as module
from deadbeat._transport.transport import Transport
module.LINGER_SECONDS = 30.0
transport = Transport(sys.argv[1], "test-key", lambda: "celery@test/1")
def event(who, number):
    return {"id": f"{who}-{number}", "type": "run_started", "who": who, "number": number}
for number in range(5):
    transport.put(event("parent", number))
assert transport._process.thread.is_alive()
# C code that forks runs none of Python's fork hooks.
child = os.fork() if sys.argv[2] == "python" else ctypes.PyDLL(None).fork()
if child == 0:
    transport.put(event("child", 0), vital=True)
    assert transport._process.thread.is_alive()
    assert transport.flush_at_exit(2)
    os._exit(0)
_, status = os.waitpid(child, 0)
assert status == 0
assert transport.flush_at_exit(2)
"""


@pytest.mark.parametrize("who_forks", ["python", "c"])
def test_forked_child_reports_for_itself_only(who_forks: str, sink: Sink) -> None:
    subprocess.run([sys.executable, "-c", FORK, sink.url, who_forks], timeout=20, check=True)

    ids = [event["id"] for event in sink.events]
    assert sorted(ids) == ["child-0", *(f"parent-{number}" for number in range(5))]
    assert len({batch.peer for batch in sink.batches}) == 2


PATCH = """
import sys
from deadbeat._transport.transport import Transport
transport = Transport(sys.argv[1], "test-key", lambda: "celery@test/1")
def put(number):
    transport.put({"id": f"event-{number}", "type": "run_started", "number": number}, vital=True)
if sys.argv[2] == "reported before":
    put(0)
    # Under this transport's first locks, made before the patch.
    transport.every(0.05, lambda: transport.put({"id": "duty", "type": "beat_alive"}, latest="duty"))
from gevent import monkey
monkey.patch_all()
import gevent
transport.every(0.05, lambda: transport.put({"id": "duty-2", "type": "beat_alive"}, latest="duty"))
# Nobody else gets a turn while a greenlet waits for a lock that was made before the patch.
other = gevent.spawn(lambda: [gevent.sleep(0.01) for _ in range(100)])
for number in range(1, 50):
    put(number)
    gevent.sleep(0.01)
other.join()
assert transport.flush_at_exit(10)
"""


@pytest.mark.parametrize("when", ["reported before", "reports after"])
def test_locks_made_before_gevent_patched_are_made_anew(when: str, sink: Sink) -> None:
    done = subprocess.run(
        [sys.executable, "-c", PATCH, sink.url, when],
        timeout=60,
        check=True,
        stderr=subprocess.PIPE,
        text=True,
    )

    assert "Traceback" not in done.stderr
    first = 0 if when == "reported before" else 1
    assert {event["number"] for event in sink.of("run_started")} == set(range(first, 50))
    assert sink.of("beat_alive")


def test_duty_is_done_in_the_senders_thread_every_so_often_until_it_ceases(
    sink: Sink, transport: Transport
) -> None:
    threads: set[str] = set()

    def act() -> None:
        threads.add(threading.current_thread().name)
        transport.put(alive_event(len(sink.events)), latest="beat_alive")

    duty = transport.every(0.05, act)
    sink.wait_for(lambda: len(sink.of("beat_alive")) >= 3)
    transport.cease(duty)
    transport.put(run_event(number="after"), vital=True)
    sink.wait_for(lambda: sink.of("run_started", number="after"))
    assert transport.flush_at_exit(2)

    assert threads == {"deadbeat"}
    assert transport._pause(transport._process) is None, "nothing is to be done until something comes"


def test_duty_in_a_hurry_does_not_wait_for_its_time(sink: Sink, transport: Transport) -> None:
    duty = transport.every(600, lambda: transport.put(alive_event(1), latest="beat_alive"))
    sink.wait_for(lambda: len(sink.of("beat_alive")) == 1)

    transport.hurry(duty)

    sink.wait_for(lambda: len(sink.of("beat_alive")) == 2)


def test_duty_that_fails_stops_neither_the_sending_nor_itself(sink: Sink, transport: Transport) -> None:
    tries: list[int] = []

    def act() -> None:
        tries.append(1)
        raise RuntimeError("broken")

    transport.every(0.02, act)
    sink.wait_for(lambda: len(tries) >= 3)
    transport.put(run_event(number=1), vital=True)

    sink.wait_for(lambda: sink.of("run_started", number=1))


def test_wish_for_samples_is_handed_on(sink: Sink, transport: Transport) -> None:
    wishes: list[bool] = []
    transport.on_sample_queues = lambda wish, _: wishes.append(wish)
    sink.more = lambda event: {"sample_queues": event["number"] == 1} if event.get("number") else {}

    for number in range(3):
        transport.put(run_event(number=number), vital=True)
        sink.wait_for(lambda number=number: sink.of("run_started", number=number))
        assert transport.flush_at_exit(2)

    assert wishes == [True, False], "an answer that does not speak of it is no wish"


INTERRUPTED = """
import signal, sys
from deadbeat._transport.transport import Transport
transport = Transport(sys.argv[1], "test-key", lambda: "celery@test/1")
strikes = 0
def strike(*_):
    global strikes
    strikes += 1
    transport.put({"id": str(strikes), "type": "struck"}, vital=True)
signal.signal(signal.SIGALRM, strike)
signal.setitimer(signal.ITIMER_REAL, 0.0002, 0.0002)
number = 0
while strikes < 3_000:
    number += 1
    transport.put({"id": str(number), "type": "run_started"}, vital=True)
signal.setitimer(signal.ITIMER_REAL, 0)
print("alive")
"""


def test_put_inside_a_signal_handler_never_waits_for_what_it_interrupted(sink: Sink) -> None:
    done = subprocess.run(
        [sys.executable, "-c", INTERRUPTED, sink.url], timeout=60, check=True, capture_output=True, text=True
    )

    assert done.stdout == "alive\n"


@pytest.mark.parametrize(
    ("timestamp", "text"),
    [
        (0, "1970-01-01T00:00:00.000000Z"),
        (1_770_000_000, "2026-02-02T02:40:00.000000Z"),
        (1_770_000_000.25, "2026-02-02T02:40:00.250000Z"),
        (1_770_000_000.9999999, "2026-02-02T02:40:01.000000Z"),
        (1_770_000_059.1, "2026-02-02T02:40:59.100000Z"),
    ],
)
def test_times_are_written_in_utc_with_microseconds(timestamp: float, text: str) -> None:
    assert utc_text(timestamp) == utc_text(timestamp) == text
