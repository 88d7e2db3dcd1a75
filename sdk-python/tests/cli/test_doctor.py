"""The command `doctor`: a real prefork worker with the project, and a server that records."""

from __future__ import annotations

import json
from typing import Any

from celery import __version__ as celery_version
from celery.worker import state
from redis import Redis

from conftest import free_port
from sink import Sink
from test_audit import run


def examined(broker: str, *options: str, **environment: str) -> tuple[int, dict[str, Any], dict[str, str]]:
    """Exit status, document, and the result of each check."""
    done = run("doctor", "-A", "audited", "--json", *options, CELERY_BROKER_URL=broker, **environment)
    document = json.loads(done.stdout)
    assert done.returncode == document["exit_code"]
    return done.returncode, document, {check["name"]: check["result"] for check in document["checks"]}


def test_hooks_are_seen_alive_in_a_prefork_child_and_nothing_is_left_behind(broker: str, sink: Sink) -> None:
    sent_to = {"DEADBEAT_URL": sink.url, "DEADBEAT_KEY": "dbp_test"}

    status, document, results = examined(broker, **sent_to)

    assert status == 0, document
    assert set(results) == {
        "init",
        "server",
        "key",
        "clock",
        "broker",
        "worker",
        "run_published",
        "run_received",
        "run_started",
        "run_finished",
        "worker_snapshot",
        "stamp",
    }
    assert set(results.values()) == {"good"}
    pids = {check["name"]: check["detail"].rpartition("process ")[2] for check in document["checks"]}
    assert pids["run_started"] == pids["run_finished"] != pids["run_received"] == pids["worker_snapshot"]
    assert any("every run that Beat sends" in claim for claim in document["claims"])
    # The server got one empty batch, and the broker is unchanged.
    assert [batch.body["events"] for batch in sink.batches] == [[]]
    assert Redis.from_url(broker).keys("*doctor*") == []


def test_hook_that_is_dead_in_the_child_is_found(broker: str, sink: Sink) -> None:
    sent_to = {"DEADBEAT_URL": sink.url, "DEADBEAT_KEY": "dbp_test"}

    status, document, results = examined(broker, UNHOOKED="1", **sent_to)

    assert status == 2
    assert results["run_received"] == "good"
    assert results["run_started"] == "failed"
    assert not any("every run that Beat sends" in claim for claim in document["claims"])


def test_key_that_is_refused_and_sdk_that_is_off_are_reported(broker: str, sink: Sink) -> None:
    sink.answer = 401
    sent_to = {"DEADBEAT_URL": sink.url, "DEADBEAT_KEY": "dbp_test"}

    status, document, results = examined(broker, "--no-worker", **sent_to)
    assert (status, results["server"], results["key"]) == (2, "good", "failed")
    assert "dbp_test" not in json.dumps(document)

    status, document, results = examined(broker)
    assert (status, results["init"], results["reports"]) == (2, "failed", "could not try")
    assert document["claims"] == []


def test_eta_is_not_blamed_on_a_celery_that_counts_it(broker: str, sink: Sink) -> None:
    counts = hasattr(state, "scheduled_requests")
    sent_to = {"DEADBEAT_URL": sink.url, "DEADBEAT_KEY": "dbp_test"}

    # With the SDK off and without a worker, the doctor has tested nothing that depends on Celery's version.
    for environment, options in (({}, ()), (sent_to, ("--no-worker",))):
        _, document, _ = examined(broker, *options, **environment)
        (why,) = [one["why"] for one in document["blocked_claims"] if "(ETA)" in one["claim"]]
        assert ("does not count them" in why) is not counts

    _, document, _ = examined(broker, **sent_to)
    blocked = [one["why"] for one in document["blocked_claims"] if "(ETA)" in one["claim"]]
    assert blocked == ([] if counts else [f"Celery {celery_version} does not count them; 5.7 and later do"])


def test_broker_that_is_away_is_reported_and_no_worker_is_started(sink: Sink) -> None:
    sent_to = {"DEADBEAT_URL": sink.url, "DEADBEAT_KEY": "dbp_test"}

    status, document, results = examined(f"redis://:secret@127.0.0.1:{free_port()}/0", **sent_to)

    assert (status, results["broker"], results["reports"]) == (2, "failed", "could not try")
    assert "worker" not in results
    assert "secret" not in json.dumps(document)
