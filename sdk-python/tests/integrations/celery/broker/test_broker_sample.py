"""Samples of the broker's queues, when the server asks for them: against a real Redis."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterator
from importlib.util import find_spec
from typing import Any, Callable

import pytest
from celery import Celery
from redis import Redis

from conftest import RedisServer, StartCelery, free_port, reporting_to
from deadbeat._transport import timeouts
from deadbeat._transport.transport import Transport
from deadbeat.config import Settings
from deadbeat.integrations.celery.broker import sampler as sample_module
from deadbeat.integrations.celery.broker.sampler import Sampler
from deadbeat.integrations.celery.runs.headers import on_before_task_publish
from deadbeat.integrations.celery.runs.reporter import RunReporter
from sink import Sink

Send = Callable[..., Any]


def wishing(kind: str) -> Callable[[dict[str, Any]], dict[str, Any]]:
    """Verdicts that ask the sender of this kind of event to sample."""
    return lambda event: {"sample_queues": True} if event["type"] == kind else {}


def queue(sample: dict[str, Any], name: str) -> dict[str, Any]:
    (found,) = [queue for queue in sample["queues"] if queue["name"] == name]
    return found


def test_worker_samples_as_long_as_the_server_asks(
    sink: Sink, start_celery: StartCelery, send: Send, broker: str
) -> None:
    start_celery("worker", "-n", "w1@here", **reporting_to(sink.url))
    sink.wait_for(lambda: len(sink.of("worker_snapshot")) >= 2)
    assert sink.of("broker_sample") == [], "nobody has asked"

    # Nobody consumes this queue: only Beat's configuration names it.
    send("ok", queue="night", headers={"deadbeat_at": time.time() - 60})
    send("ok", queue="night")
    client = Redis.from_url(broker)
    connections = len(client.client_list())
    sink.more = wishing("worker_snapshot")
    sample = sink.wait_for(lambda: sink.of("broker_sample"))[0]

    assert (sample["app"], sample["worker"], sample["transport"]) == ("watched", "w1@here", "redis")
    assert (sample["reachable"], sample["error"]) == (True, None)
    assert (sample["maxmemory_policy"], sample["visibility_timeout_seconds"]) == ("noeviction", 3600)
    assert (sample["unacked"], sample["oldest_unacked_seconds"]) == (0, None)
    night = queue(sample, "night")
    assert (night["depth"], night["oldest_task"], night["consumers"]) == (2, "watched.ok", None)
    assert 60 <= night["oldest_seconds"] < 120
    assert queue(sample, "celery")["depth"] == 0

    sink.more = lambda event: {"sample_queues": False} if event["type"] == "worker_snapshot" else {}
    deadline = time.monotonic() + 20
    while len(client.client_list()) > connections and time.monotonic() < deadline:
        time.sleep(0.05)
    assert len(client.client_list()) <= connections, "its connection is closed when nobody asks any more"


@pytest.mark.skipif(find_spec("gevent") is None, reason="gevent is not installed")
def test_gevent_worker_samples(sink: Sink, start_celery: StartCelery) -> None:
    sink.more = wishing("worker_snapshot")
    start_celery("worker", "--pool", "gevent", **reporting_to(sink.url))

    assert sink.wait_for(lambda: sink.of("broker_sample", reachable=True))


def test_beat_samples_where_its_entries_go(sink: Sink, start_celery: StartCelery, send: Send) -> None:
    sink.more = wishing("beat_alive")
    send("ok", queue="night")
    start_celery("beat", **reporting_to(sink.url, DEADBEAT_CANARY="0"))

    sample = sink.wait_for(lambda: sink.of("broker_sample"))[0]

    assert sample["worker"].startswith("beat@")
    assert queue(sample, "night")["depth"] == 1


def test_messages_held_by_a_worker_are_counted_as_unacked(
    sink: Sink, start_celery: StartCelery, send: Send
) -> None:
    sink.more = wishing("worker_snapshot")
    start_celery("worker", **reporting_to(sink.url))
    for _ in range(12):
        send("waits", 60)
    sink.wait_for(lambda: sink.of("worker_snapshot", reserved=10))

    # The process samples every ten seconds.
    sample = sink.wait_for(lambda: [e for e in sink.of("broker_sample") if e["unacked"] == 8], limit=30)[-1]

    # Two run, eight are prefetched and hidden from the queue's depth.
    assert queue(sample, "celery")["depth"] == 2
    assert sample["oldest_unacked_seconds"] >= 0


@pytest.fixture
def app(broker: str) -> Iterator[Celery]:
    app = Celery("shop", broker=broker, set_as_current=False)
    yield app
    app.close()


def sampler_of(app: Celery, url: str, *queues: str) -> tuple[Sampler, RunReporter]:
    transport = Transport(url, "test-key", lambda: "celery@test/1")
    runs = RunReporter(app, Settings(url=url, key="test-key"), transport)
    runs.worker = "w1@here"
    return Sampler(runs, lambda: queues), runs


def test_priorities_are_one_queue_and_the_oldest_message_of_all_counts(app: Celery, sink: Sink) -> None:
    app.conf.broker_transport_options = {"queue_order_strategy": "priority", "visibility_timeout": 7}
    sampler, runs = sampler_of(app, sink.url)
    now = time.time()
    for priority, age in ((0, 5), (3, 50), (9, 20)):
        app.send_task(
            f"priority.{priority}", queue="steps", priority=priority, headers={"deadbeat_at": now - age}
        )
    app.send_task("unstamped", queue="plain")
    runs.seen_queues["steps"] = runs.seen_queues["plain"] = None

    sample = sampler.sample()

    assert sample["visibility_timeout_seconds"] == 7
    steps, plain = queue(sample, "steps"), queue(sample, "plain")
    assert (steps["depth"], steps["oldest_task"]) == (3, "priority.3")
    assert 50 <= steps["oldest_seconds"] < 60
    assert (steps["oldest_is_a_guess"], plain["oldest_is_a_guess"]) == (False, True)
    # Sent by a program without the SDK: its waiting time is unknown.
    assert (plain["depth"], plain["oldest_task"], plain["oldest_seconds"]) == (1, "unstamped", None)


def test_what_nobody_stamped_has_waited_for_as_long_as_a_message_behind_it(
    app: Celery, sink: Sink, broker: str
) -> None:
    sampler, _ = sampler_of(app, sink.url, "plain")
    redis = Redis.from_url(broker)

    def age() -> float | None:
        waited: float | None = queue(sampler.sample(), "plain")["oldest_seconds"]
        return waited

    for _ in range(3):
        app.send_task("unstamped", queue="plain")
    began = time.monotonic()
    assert age() is None, "who knows since when"
    redis.rpop("plain")
    first = age()
    assert first is not None
    assert 0.0 <= first <= time.monotonic() - began
    app.send_task("unstamped", queue="plain")
    redis.rpop("plain")
    later = age()
    assert later is not None
    assert first <= later
    redis.rpop("plain")
    assert age() is None, "all that was there then is gone"


def test_keys_with_a_prefix_are_found(app: Celery, sink: Sink) -> None:
    app.conf.broker_transport_options = {"global_keyprefix": "shop:"}
    sampler, _ = sampler_of(app, sink.url, "prefixed")
    app.send_task("stamped", queue="prefixed", headers={"deadbeat_at": time.time() - 9})

    found = queue(sampler.sample(), "prefixed")

    assert (found["depth"], found["oldest_task"]) == (1, "stamped")
    assert found["oldest_seconds"] >= 9


def test_foreign_message_has_a_depth_and_no_more(app: Celery, sink: Sink, broker: str) -> None:
    Redis.from_url(broker).lpush("foreign", b"\xff not json")
    sampler, _ = sampler_of(app, sink.url, "foreign")

    assert queue(sampler.sample(), "foreign") == {
        "name": "foreign",
        "depth": 1,
        "oldest_seconds": None,
        "oldest_is_a_guess": True,
        "oldest_task": None,
        "consumers": None,
        "unacked": None,
        "head": hashlib.sha256(b"\xff not json").hexdigest()[:16],
        "taken_seconds": None,
    }


def test_the_head_stays_while_nothing_leaves_the_queue(app: Celery, sink: Sink, broker: str) -> None:
    sampler, _ = sampler_of(app, sink.url, "thumbs")
    redis = Redis.from_url(broker)

    def head() -> str | None:
        word: str | None = queue(sampler.sample(), "thumbs")["head"]
        return word

    assert head() is None
    app.send_task("first", queue="thumbs")
    first = head()
    # Other messages come behind it, also into another list.
    app.send_task("second", queue="thumbs")
    app.send_task("urgent", queue="thumbs", priority=0, headers={"deadbeat_at": time.time() - 60})
    app.send_task("last", queue="thumbs", priority=9)
    assert first is not None
    assert head() == first

    redis.rpop("thumbs")
    second = head()
    assert second not in (None, first)
    # The same for another process, which samples from now on.
    assert queue(sampler_of(app, sink.url, "thumbs")[0].sample(), "thumbs")["head"] is not None


def test_a_message_that_anybody_holds_shows_when_it_was_taken(app: Celery, sink: Sink) -> None:
    sampler, _ = sampler_of(app, sink.url, "thumbs", "other")
    for name in ("thumbs", "other"):
        for _ in range(3):
            app.send_task("thumb", queue=name)
    with app.connection_for_read() as connection, connection.SimpleQueue("thumbs") as thumbs:
        held = thumbs.get(timeout=5)
        sampler.sample()
        # Nothing has left the queue since the last sample: now the sampler reads the unacknowledged messages.
        sample = sampler.sample()
        held.requeue()

    assert 0 <= queue(sample, "thumbs")["taken_seconds"] < 60
    assert queue(sample, "other")["taken_seconds"] is None
    sampler.sample()
    assert queue(sampler.sample(), "thumbs")["taken_seconds"] is None


def test_one_broker_has_one_identity_and_each_part_of_it_another(
    app: Celery, sink: Sink, broker: str
) -> None:
    def identity(url: str, **options: Any) -> str | None:
        other = Celery("other", broker=url, set_as_current=False)
        other.conf.broker_transport_options = options
        word: str | None = sampler_of(other, sink.url)[0].sample()["identity"]
        return word

    mine = sampler_of(app, sink.url)[0].sample()["identity"]
    assert mine is not None
    assert identity(broker.replace("127.0.0.1", "localhost")) == mine
    others = {identity(f"{broker.rpartition('/')[0]}/7"), identity(broker, global_keyprefix="b:")}
    assert len(others | {mine}) == 3


def test_broker_that_is_away_makes_a_sample_too(sink: Sink) -> None:
    app = Celery("shop", broker=f"redis://127.0.0.1:{free_port()}/0", set_as_current=False)
    sampler, _ = sampler_of(app, sink.url, "celery")

    sample = sampler.sample()

    assert (sample["reachable"], sample["transport"], sample["queues"]) == (False, "redis", [])
    assert sample["error"] == "ConnectionError"


def test_broker_that_hangs_holds_up_nothing_but_the_sampling(
    app: Celery, sink: Sink, own_redis: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(timeouts, "BROKER_ANSWER_SECONDS", 0.1)
    app = Celery("shop", broker=f"redis://127.0.0.1:{own_redis.port}/0", set_as_current=False)
    sampler, runs = sampler_of(app, sink.url, "celery")
    assert sampler.sample()["reachable"] is True
    own_redis.process.send_signal(19)  # SIGSTOP
    try:
        sampler.ask(True)
        runs.transport.put({"id": "1", "type": "run_started"}, vital=True)
        sink.wait_for(lambda: sink.of("run_started"))
        hung = sink.wait_for(lambda: sink.of("broker_sample"))[0]
    finally:
        own_redis.process.send_signal(18)  # SIGCONT
    sampler.ask(False)

    assert (hung["reachable"], hung["error"]) == (False, "TimeoutError")


def test_without_another_wish_sampling_ends(app: Celery, sink: Sink, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sample_module, "PERIOD_SECONDS", 0.05)
    monkeypatch.setattr(sample_module, "WISH_SECONDS", 0.5)
    sampler, _ = sampler_of(app, sink.url, "celery")

    sampler.ask(True)
    thread = sampler._thread
    sampler.ask(True)
    assert thread is sampler._thread is not None, "one thread, however often it is asked"
    thread.join(20)

    assert not thread.is_alive()
    assert sampler._connection is None
    assert len(sink.wait_for(lambda: sink.of("broker_sample"))) >= 1
    # Sampling begins anew when the server asks again.
    sampler.ask(True)
    assert sampler._thread is not thread
    sampler.ask(False)


def test_every_message_is_stamped_when_it_is_published() -> None:
    headers: dict[str, Any] = {"id": "1"}

    before = time.time()
    on_before_task_publish(sender="task", headers=headers)

    assert set(headers) == {"id", "deadbeat_at"}
    assert before <= headers["deadbeat_at"] <= time.time()


@pytest.mark.parametrize("how", ["full", "replica"])
def test_a_redis_that_refuses_to_write_is_reported_with_its_words(
    app: Celery, sink: Sink, broker: str, how: str
) -> None:
    sampler, _ = sampler_of(app, sink.url, "celery")
    redis = Redis.from_url(broker)
    assert sampler.sample()["refused_why"] is None
    keys = redis.dbsize()

    if how == "full":
        redis.config_set("maxmemory", 1_000_000)
    else:
        redis.slaveof("127.0.0.1", free_port())
    try:
        refused = sampler.sample()
    finally:
        redis.slaveof()
        redis.config_set("maxmemory", 0)

    assert (refused["reachable"], refused["refused_command"]) == (True, "LPUSHX")
    assert ("maxmemory" if how == "full" else "read only replica") in refused["refused_why"]
    assert sampler.sample()["refused_why"] is None
    assert redis.dbsize() == keys, "asking changes nothing"


def test_sample_names_every_worker_that_answers_and_asks_again_when_one_comes_or_goes(
    sink: Sink, start_celery: StartCelery
) -> None:
    sink.more = wishing("worker_snapshot")
    start_celery("worker", "-n", "w1@here", "-Q", "celery", **reporting_to(sink.url))

    def answered() -> dict[str, list[str]]:
        asked = [one["answering"] for one in sink.of("broker_sample") if one["answering"] is not None]
        return {one["worker"]: one["queues"] for one in asked[-1]} if asked else {}

    assert sink.wait_for(lambda: answered() == {"w1@here": ["celery"]}, 40)
    # It has no server address: it reports nothing, and still answers the broadcast.
    silent = start_celery("worker", "-n", "silent@here", "-Q", "celery,night")
    both = {"w1@here": ["celery"], "silent@here": ["celery", "night"]}
    assert sink.wait_for(lambda: {name: sorted(queues) for name, queues in answered().items()} == both, 40)
    silent.stop()
    assert sink.wait_for(lambda: answered() == {"w1@here": ["celery"]}, 40)
