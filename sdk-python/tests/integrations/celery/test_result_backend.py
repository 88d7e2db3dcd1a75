"""Reports of workers and Beat about a result backend that answers, hangs, refuses, or is away."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Iterator
from typing import Any, Callable

import pytest
from celery import Celery
from celery.exceptions import BackendStoreError, SoftTimeLimitExceeded
from kombu.exceptions import EncodeError
from redis import Redis
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import OutOfMemoryError

from conftest import RedisServer, StartCelery, free_port, reporting_to
from deadbeat.integrations.celery.result_backend.calls import ResultBackend
from deadbeat.integrations.celery.result_backend.fault import address_of, fault_of, is_elsewhere, words_of
from sink import Sink

Send = Callable[..., Any]


def said(sink: Sink, kind: str = "worker_snapshot") -> list[dict[str, Any]]:
    """The reports about the backend, the newest first."""
    return [event["result_backend"] for event in reversed(sink.of(kind)) if event["result_backend"]]


def newest(sink: Sink, kind: str = "worker_snapshot") -> dict[str, Any]:
    return next(iter(said(sink, kind)), {})


@pytest.mark.parametrize("pool", ["prefork", "threads"])
def test_a_worker_says_that_it_waits_for_a_frozen_backend_until_that_answers(
    pool: str, sink: Sink, start_celery: StartCelery, send: Send, own_redis: RedisServer
) -> None:
    url = f"redis://:secret@127.0.0.1:{own_redis.port}/3"
    own_redis_client(own_redis).config_set("requirepass", "secret")
    start_celery("worker", "--pool", pool, RESULT_BACKEND=url, **reporting_to(sink.url))
    send("ok")
    well = sink.wait_for(lambda: newest(sink) if newest(sink).get("answered_at") else None)
    assert well["address"] == f"redis://127.0.0.1:{own_redis.port}/3"
    assert (well["operation"], well["hanging"], well["failing"], well["error"]) == (None, 0, 0, None)

    own_redis.process.send_signal(signal.SIGSTOP)
    try:
        send("ok")
        send("ok")
        waits = 2 if pool == "prefork" else 1
        hung = sink.wait_for(lambda: next((one for one in said(sink) if one["hanging"] == waits), None))
        assert hung["operation"] == "store_result"
        assert well["answered_at"] <= hung["since"] <= hung["last_at"]
    finally:
        own_redis.process.send_signal(signal.SIGCONT)

    sink.wait_for(lambda: newest(sink)["operation"] is None)
    assert newest(sink)["answered_at"] > hung["since"]
    assert "secret" not in str(sink.events)


def own_redis_client(server: RedisServer, **options: Any) -> Redis:
    return Redis(port=server.port, **options)


def test_a_backend_that_is_full_is_reported_with_its_words_and_without_the_result(
    sink: Sink, start_celery: StartCelery, send: Send, own_redis: RedisServer
) -> None:
    url = f"redis://127.0.0.1:{own_redis.port}/0"
    start_celery("worker", RESULT_BACKEND=url, **reporting_to(sink.url))
    send("ok")
    sink.wait_for(lambda: newest(sink).get("answered_at"))
    client = own_redis_client(own_redis)
    client.config_set("maxmemory", "1")

    send("ok", "pssst", entry=None)
    full = sink.wait_for(lambda: next((one for one in said(sink) if one["failing"]), None))

    assert full["operation"] == "store_result"
    assert "maxmemory" in full["error"]
    assert "pssst" not in str(full)
    # No task stores a result any more: the SDK probes the backend all the same.
    sink.wait_for(lambda: any(one["last_at"] > full["last_at"] for one in said(sink) if one["last_at"]))
    client.config_set("maxmemory", "0")
    sink.wait_for(lambda: newest(sink)["operation"] is None)


def test_a_run_whose_result_is_lost_ends_once_as_its_body_did(
    sink: Sink, start_celery: StartCelery, send: Send, own_redis: RedisServer
) -> None:
    url = f"redis://127.0.0.1:{own_redis.port}/0"
    more = {"RESULT_BACKEND": url, "CUT_OFF_PORT": str(free_port())}
    worker = start_celery("worker", **more, **reporting_to(sink.url))

    # The main process stores the failure in place of the child, once the backend is back, and announces it.
    lost = send("ok").id
    sink.wait_for(lambda: own_redis_client(own_redis).keys("celery-task-meta-*"))
    bad = send("bad").id
    sink.wait_for(lambda: len(own_redis_client(own_redis).keys("celery-task-meta-*")) == 2)
    sink.wait_for(lambda: {lost, bad} <= {end["run_id"] for end in sink.of("run_finished")})

    worker.stop()
    outcomes = {
        run: [end["outcome"] for end in sink.of("run_finished") if end["run_id"] == run]
        for run in (lost, bad)
    }
    assert outcomes == {lost: ["success"], bad: ["aborted"]}


def test_beat_says_that_it_waits_for_a_backend_that_is_gone_and_calls_no_entry_failed(
    sink: Sink, start_celery: StartCelery, own_redis: RedisServer
) -> None:
    url = f"redis://127.0.0.1:{own_redis.port}/0"
    own_redis.stop()
    start_celery("beat", RESULT_BACKEND=url, OFTEN_SECONDS="1", **reporting_to(sink.url))

    hung = sink.wait_for(lambda: next((one for one in said(sink, "beat_alive") if one["hanging"]), None))
    assert hung["operation"] == "on_task_call"
    # Beat gives up after some twenty tries, and goes on with the next entry.
    failed = sink.wait_for(
        lambda: next((one for one in said(sink, "beat_alive") if one["failing"]), None), 60
    )
    assert failed["since"] <= hung["last_at"]
    assert failed["error"] == "ConnectionError"
    own_redis.start()
    sink.wait_for(lambda: newest(sink, "beat_alive")["operation"] is None, 60)
    assert sink.of("publish_failed") == []
    assert [end for end in sink.of("run_finished") if end["outcome"] != "success"] == []


def test_a_worker_whose_backend_is_its_broker_says_nothing_of_it(
    sink: Sink, start_celery: StartCelery, send: Send
) -> None:
    start_celery("worker", **reporting_to(sink.url))
    send("ok")

    sink.wait_for(lambda: sink.of("worker_snapshot", finished=1))

    assert said(sink) == []


class Backend:
    """Stands in for Celery's backend, for addresses and faults alone."""

    connection_errors = (KeyError, RedisConnectionError)
    channel_errors = (OutOfMemoryError, Exception)

    def __init__(self, url: str) -> None:
        self.url = url

    def as_uri(self) -> str:
        return self.url


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("redis://user:pass@10.0.0.1:6379/0", "redis://10.0.0.1:6379/0"),
        ("redis://:p/a@ss@10.0.0.1/0?ssl_cert_reqs=none", "redis://10.0.0.1/0"),
        ("redis://:pa?ss@10.0.0.1/0", "redis"),
        ("redis://:pa#ss@10.0.0.1/0", "redis"),
        ("redis://10.0.0.1/0?password=a@b", "redis"),
        ("sentinel://:p@a:1/0;sentinel://:p@b:2/0", "sentinel://a:1/0;sentinel://b:2/0"),
        ("db+postgresql://u:p@db/results", "db+postgresql://db/results"),
        ("file:///var/results", "file:///var/results"),
        ("", "Backend"),
    ],
)
def test_an_address_is_shown_without_what_is_secret(url: str, shown: str) -> None:
    assert address_of(Backend(url)) == shown


@pytest.mark.parametrize(
    ("backend", "broker", "elsewhere"),
    [
        ("redis://localhost/1", "redis://127.0.0.1:6379/0", False),
        ("redis://127.0.0.1:6380/1", "redis://127.0.0.1:6379/0", True),
        ("redis://:a@10.0.0.1/1", "redis://:b@10.0.0.1:6379/0", False),
        ("redis://10.0.0.1/1", "redis://10.0.0.2/0;redis://10.0.0.1/0", False),
        ("file:///tmp", "redis://10.0.0.2/0", True),
        ("rpc://", "amqp://10.0.0.2//", False),
        (None, "redis://10.0.0.2/0", False),
    ],
)
def test_a_backend_on_the_brokers_server_is_not_watched(
    backend: str | None, broker: str, elsewhere: bool
) -> None:
    app = Celery("app", broker=broker, backend=backend, set_as_current=False)

    assert is_elsewhere(app, app.backend) is elsewhere


def raised(fault: BaseException, cause: BaseException | None = None) -> BaseException:
    with contextlib.suppress(type(fault)):
        raise fault from cause
    return fault


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        (RedisConnectionError("redis://:secret@host"), "ConnectionError"),
        (raised(RuntimeError("Retry limit"), RedisConnectionError("x")), "ConnectionError"),
        (OutOfMemoryError("command not allowed"), "OutOfMemoryError: command not allowed"),
        (
            OutOfMemoryError("Command # 1 (SETEX key 1 secret) of pipeline caused error: no room"),
            "OutOfMemoryError: no room",
        ),
        (OutOfMemoryError("unknown command, with args beginning with: secret"), "OutOfMemoryError"),
        (EncodeError("a result"), None),
        (KeyError("of a result's own"), None),
        (BackendStoreError("value too large for Redis backend"), None),
        (SoftTimeLimitExceeded(), None),
        (SystemExit(), None),
    ],
)
def test_a_fault_of_the_backend_is_reported_from_one_of_the_result(
    fault: BaseException, words: str | None
) -> None:
    found = fault_of(Backend("redis://h"), fault)

    assert (None if found is None else words_of(found)) == words


@pytest.fixture
def watched() -> Iterator[tuple[Any, ResultBackend]]:
    """An app whose backend keeps results in this process, and the watcher of its calls."""
    app = Celery("app", broker=f"redis://127.0.0.1:{free_port()}/0", set_as_current=False)
    app.conf.result_backend = f"redis://127.0.0.1:{free_port()}/0"
    backend = app.backend
    backend._store_result = lambda *args, **kwargs: None
    watcher = ResultBackend(app)
    watcher.watch()
    yield app, watcher
    app.close()


def test_what_the_backend_answers_and_raises_is_the_hosts(watched: tuple[Any, ResultBackend]) -> None:
    app, watcher = watched
    assert app.backend.store_result("id", 1, "SUCCESS") == 1
    fault = SoftTimeLimitExceeded()

    def breaks(*args: Any, **kwargs: Any) -> None:
        raise fault

    app.backend._store_result = breaks
    with pytest.raises(SoftTimeLimitExceeded) as caught:
        app.backend.store_result("id", 1, "SUCCESS")

    assert caught.value is fault
    report = watcher.report([os.getpid()])
    assert report is not None
    assert (report["operation"], report["failing"]) == (None, 0)
    assert report["answered_at"] is not None


def test_each_thread_has_a_backend_that_is_timed_and_a_second_watch_changes_nothing(
    watched: tuple[Any, ResultBackend],
) -> None:
    app, watcher = watched
    watcher.watch()
    seen: list[Any] = []
    thread = threading.Thread(target=lambda: seen.append(app.backend))
    thread.start()
    thread.join()

    for backend in (app.backend, *seen):
        assert backend.store_result.deadbeat_times
        assert not hasattr(backend.store_result.__wrapped__, "deadbeat_times")
    assert seen[0] is not app.backend


def test_a_child_reports_its_calls_and_forgets_its_parents(watched: tuple[Any, ResultBackend]) -> None:
    app, watcher = watched

    def breaks(*args: Any, **kwargs: Any) -> None:
        raise RedisConnectionError("gone")

    app.backend._store_result = breaks
    child = os.fork()
    if child == 0:
        with contextlib.suppress(RedisConnectionError):
            app.backend.store_result("id", 1, "SUCCESS")
        os._exit(0)
    os.waitpid(child, 0)

    mine, both = watcher.report([os.getpid()]), watcher.report([os.getpid(), child])
    assert mine is not None
    assert both is not None
    assert mine["failing"] == 0
    assert (both["failing"], both["operation"], both["error"]) == (1, "store_result", "ConnectionError")
