"""Findings from a configuration and from observations: the rules alone, without a broker."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta, timezone
from typing import Any

import pytest
from celery import Celery
from celery.schedules import crontab
from kombu import Queue

from deadbeat.cli.application import Application, Entry, describe
from deadbeat.cli.audit.assess import assess
from deadbeat.cli.audit.broker import BrokerSample
from deadbeat.cli.audit.finding import Finding, Unknown
from deadbeat.cli.audit.inspection import Sample
from deadbeat.cli.audit.knowledge import Knowledge
from deadbeat.cli.audit.observations import Observations, instant
from deadbeat.cli.audit.rules.configuration import configuration_findings
from deadbeat.integrations.celery.broker.queue import QueueSample
from deadbeat.integrations.celery.broker.workers import WorkerAnswer

NOW = datetime(2026, 3, 1, 2, 0, tzinfo=timezone.utc)
URL = "redis://here:6379/0"


def nothing() -> None:
    pass


def application(**settings: Any) -> Application:
    """An app without faults except in these settings; `late` is acknowledged late, `plain` is not."""
    app = Celery("shop", broker="memory://", set_as_current=False)
    app.conf.update({"task_time_limit": 600, "broker_transport_options": {}, **settings})
    app.task(name="shop.plain")(nothing)
    app.task(name="shop.late", acks_late=True, reject_on_worker_lost=True)(nothing)
    app.finalize()
    return describe(app, "proj.celery:app")


def redis(**figures: Any) -> BrokerSample:
    sound = {"maxmemory_policy": "noeviction", "persistent": True, "visibility_timeout_seconds": 3600.0}
    return BrokerSample(URL, "redis", True, scan_complete=True, **{**sound, **figures})


def worker(name: str, **figures: Any) -> WorkerAnswer:
    stats = {
        "pool": {"implementation": "celery.concurrency.prefork:TaskPool", "max-concurrency": 4},
        "pid": 7,
    }
    sound = {"active": [], "reserved": [], "scheduled": [], "queues": ["celery"], "answers": {"stats": 1}}
    return WorkerAnswer(name, **{"stats": {"total": {}, **stats}, **sound, **figures})


def sample(*workers: WorkerAnswer, broker: BrokerSample | None = None, at: float = 0.0) -> Sample:
    named = {one.name: one for one in workers}
    return Sample(at, broker or redis(), named, listeners=len(named), complete=True)


def judged(
    first: Sample, second: Sample | None = None, known: Knowledge | None = None, **settings: Any
) -> tuple[dict[str, Finding], list[Unknown]]:
    """Findings by code, and what is unknown."""
    findings, unknown = assess(Observations(application(**settings), first, second, known, NOW))
    by_code = {finding.code: finding for finding in findings}
    assert len(by_code) == len(findings), "none is told twice"
    return by_code, unknown


def of_configuration(
    *workers: WorkerAnswer, broker: BrokerSample | None = None, **settings: Any
) -> dict[str, Finding]:
    broker = broker or redis()
    findings, _ = configuration_findings(application(**settings), broker, list(workers), bool(workers))
    return {finding.code: finding for finding in findings}


SOUND = {"worker_prefetch_multiplier": 1}


def test_sound_configuration_has_no_finding() -> None:
    assert of_configuration(worker("w1@here"), **SOUND) == {}


@pytest.mark.parametrize(
    ("code", "severity", "settings"),
    [
        ("CONFIG_PICKLE", "warning", {"accept_content": ["json", "pickle"]}),
        ("CONFIG_PICKLE", "warning", {"task_serializer": "pickle"}),
        ("CONFIG_ALWAYS_EAGER", "warning", {"task_always_eager": True}),
        ("CONFIG_TIME_LIMIT", "warning", {"task_time_limit": None, "broker_transport_options": {}}),
        ("CONFIG_TIME_LIMIT_ORDER", "warning", {"task_soft_time_limit": 600}),
        ("CONFIG_PREFETCH", "warning", {"worker_prefetch_multiplier": 4}),
        ("CONFIG_PREFETCH", "warning", {"worker_prefetch_multiplier": 0}),
        ("CONFIG_VISIBILITY_TIMEOUT", "warning", {"task_time_limit": 7200}),
        ("CONFIG_RESULT_EXPIRES", "warning", {"result_backend": "cache+memory://", "result_expires": None}),
        (
            "CONFIG_BEAT_OVERLAP",
            "notice",
            {"beat_schedule": {"a": {"task": "shop.plain", "schedule": 60.0, "options": {"expires": 9}}}},
        ),
        (
            "CONFIG_BEAT_EXPIRES",
            "notice",
            {"beat_schedule": {"a": {"task": "shop.plain", "schedule": crontab(minute="0")}}},
        ),
        ("CONFIG_ROUTE_UNKNOWN_TASK", "notice", {"task_routes": {"shop.gone": {"queue": "celery"}}}),
        (
            "CONFIG_QUEUE_UNDECLARED",
            "warning",
            {
                "task_create_missing_queues": False,
                "task_queues": [Queue("celery")],
                "task_routes": {"shop.plain": "other"},
            },
        ),
    ],
)
def test_each_dangerous_setting_is_found(code: str, severity: str, settings: dict[str, Any]) -> None:
    found = of_configuration(worker("w1@here"), **{**SOUND, **settings})

    assert found[code].severity == severity
    assert found[code].evidence
    assert found[code].repair
    # A run without a limit can outlive the visibility timeout, and many tasks have a bad order: nothing else.
    assert set(found) <= {code, "CONFIG_VISIBILITY_TIMEOUT"}


def test_limits_are_worth_nothing_in_a_pool_that_cannot_enforce_them() -> None:
    threads = {"pool": {"implementation": "celery.concurrency.thread:TaskPool", "max-concurrency": 4}}

    found = of_configuration(worker("w1@here"), worker("w2@here", stats=threads), **SOUND)

    assert set(found) == {"CONFIG_TIME_LIMIT_POOL"}
    assert "w2@here" in found["CONFIG_TIME_LIMIT_POOL"].evidence[1].fact
    assert "w1@here" not in found["CONFIG_TIME_LIMIT_POOL"].evidence[1].fact


def test_late_acknowledgement_that_loses_a_killed_run_is_found() -> None:
    shop = application(**SOUND)
    shop.tasks["shop.late"].reject_on_worker_lost = None

    findings, _ = configuration_findings(shop, redis(), [], False)

    assert [(one.code, one.severity) for one in findings] == [("CONFIG_LATE_ACK_LOST", "notice")]


def test_entry_with_an_unknown_task_is_critical_only_when_no_worker_knows_it() -> None:
    entry = {"task": "shop.plane", "schedule": 60.0, "options": {"expires": 9}}
    settings = {**SOUND, "beat_schedule": {"typo": entry}}

    def found(*workers: WorkerAnswer) -> dict[str, Finding]:
        return of_configuration(*workers, **settings)

    assert found()["CONFIG_BEAT_ENTRY_UNKNOWN_TASK"].severity == "warning"
    ignorant = worker("w1@here", registered=["shop.plain"])
    assert found(ignorant)["CONFIG_BEAT_ENTRY_UNKNOWN_TASK"].severity == "critical"
    assert found(ignorant, worker("w2@here", registered=["shop.plane"])) == {}


def test_scheduler_that_keeps_its_entries_itself_makes_them_unknown() -> None:
    shop = application(**SOUND, beat_scheduler="redbeat.RedBeatScheduler")

    _, unknown = configuration_findings(shop, redis(), [], False)

    assert [one.what for one in unknown] == ["the rules on Beat's entries"]


def test_queues_are_known_from_entries_tasks_and_routes() -> None:
    shop = application(
        beat_schedule={"a": {"task": "shop.plain", "schedule": 1.0, "options": {"queue": Queue("night")}}},
        task_routes=([("shop.*", {"queue": "day"})], {"mail.*": "post"}),
    )

    assert shop.entries == [Entry("a", "shop.plain", 1.0, {"queue": Queue("night")})]
    assert {name: shop.queues[name] for name in ("night", "day", "post")} == {
        "night": "the Beat entry a",
        "day": "the route of shop.*",
        "post": "the route of mail.*",
    }


# -- observations


def queued(name: str, depth: int, **figures: Any) -> BrokerSample:
    return redis(queues={name: QueueSample(name, depth, **figures)})


def run(task_id: str, started_seconds_ago: float, name: str = "shop.plain", **more: Any) -> dict[str, Any]:
    return {"id": task_id, "name": name, "time_start": NOW.timestamp() - started_seconds_ago, **more}


def test_queue_that_shrinks_without_a_known_consumer_is_unknown() -> None:
    first, second = (
        sample(worker("w1@here"), broker=queued("other", depth, oldest_seconds=5.0)) for depth in (9, 7)
    )
    assert set(judged(first, first)[0]) == {"QUEUE_UNCONSUMED"}

    findings, unknown = judged(first, second)

    assert findings == {}
    assert [one.what for one in unknown] == ["whether messages wait in a queue that nobody consumes"]


def test_queue_is_unconsumed_only_when_every_worker_answered() -> None:
    waiting = queued("other", 9, oldest_seconds=5.0)
    partial = replace(sample(worker("w1@here"), broker=waiting), listeners=2, complete=False)

    findings, unknown = judged(partial)

    assert findings == {}
    assert any("other" in one.why for one in unknown)


def rabbitmq(*queues: QueueSample, **figures: Any) -> BrokerSample:
    named = {one.name: one for one in queues}
    return BrokerSample("amqp://here:5672/", "amqp", True, queues=named, **figures)


def on_rabbitmq(*workers: WorkerAnswer, broker: BrokerSample) -> Sample:
    # RabbitMQ does not show how many workers a broadcast reaches.
    return Sample(0.0, broker, {one.name: one for one in workers}, listeners=None, complete=None)


# RabbitMQ shows these to no client.
UNACKED = "messages that workers hold unacknowledged"


def test_amqp_counts_consumers_itself() -> None:
    def judge(consumers: int) -> tuple[dict[str, Finding], list[Unknown]]:
        return judged(on_rabbitmq(broker=rabbitmq(QueueSample("other", 9, consumers=consumers))))

    findings, _ = judge(0)
    assert set(findings) == {"QUEUE_UNCONSUMED", "NO_WORKERS"}

    findings, unknown = judge(1)
    assert (findings, [one.what for one in unknown]) == (
        {},
        [UNACKED, "how long the oldest message waits", "the workers"],
    )


def test_no_worker_is_ordered_to_consume_a_queue_of_rabbitmq_that_may_be_made_otherwise() -> None:
    def repairs(queue: str) -> list[str | None]:
        broker = rabbitmq(QueueSample("celery", 0, consumers=1), QueueSample(queue, 9, consumers=0))
        findings, _ = judged(
            on_rabbitmq(worker("w1@here"), broker=broker), task_routes={"shop.plain": "named"}
        )
        return [step.command for step in findings["QUEUE_UNCONSUMED"].repair]

    add = "celery -A proj.celery:app control add_consumer"
    assert f"{add} named -d w1@here" in repairs("named"), "this app makes it itself"
    assert not any(str(command).startswith(add) for command in repairs("foreign"))


def test_amqp_consumer_that_no_answer_accounts_for_is_a_worker_that_is_not_known() -> None:
    def unknown(consumers: int, *workers: WorkerAnswer) -> list[str]:
        broker = rabbitmq(QueueSample("celery", 0, consumers=consumers), QueueSample("gone", 0, consumers=0))
        findings, unknown = judged(on_rabbitmq(*workers, broker=broker))
        assert findings == {}
        return [one.what for one in unknown]

    one, two = worker("w1@here"), worker("w2@here")
    assert unknown(2, one, two) == [UNACKED], "each consumer is a worker that answered"
    assert unknown(3, one, two) == [UNACKED, "some workers"]
    # A consumer that started while the workers were being asked.
    assert unknown(1, one, two) == [UNACKED]


def test_amqp_that_takes_in_nothing_is_found_and_of_its_workers_nothing_is_said() -> None:
    broker = rabbitmq(QueueSample("celery", 0, consumers=1), blocked=True)

    findings, unknown = judged(on_rabbitmq(broker=broker))

    assert {code: one.severity for code, one in findings.items()} == {"BROKER_BLOCKED": "critical"}
    assert [one.what for one in unknown] == [UNACKED, "the workers"]


def test_amqp_queue_that_may_not_be_examined_is_unknown() -> None:
    findings, unknown = judged(
        on_rabbitmq(
            worker("w1@here"), broker=rabbitmq(QueueSample("celery", 0, consumers=1), QueueSample("x"))
        )
    )

    assert findings == {}
    assert [one.why for one in unknown if one.what == "how deep the queues are"] == [
        "RabbitMQ refuses to answer about x"
    ]


def test_what_may_outlive_the_consumer_timeout_of_rabbitmq_is_found() -> None:
    found = of_configuration(worker("w1@here"), broker=rabbitmq(), **SOUND)
    assert found == {}, "a limit of ten minutes is below it"
    found = of_configuration(worker("w1@here"), broker=rabbitmq(), **SOUND, task_time_limit=7200)
    assert {code: one.severity for code, one in found.items()} == {"CONFIG_CONSUMER_TIMEOUT": "warning"}
    assert "consumer_timeout = 14400000" in found["CONFIG_CONSUMER_TIMEOUT"].repair[1].text

    def holding(seconds: float) -> Sample:
        eta = (NOW + timedelta(seconds=seconds)).isoformat()
        waiting = worker("w1@here", scheduled=[{"eta": eta, "request": {"name": "shop.plain"}}])
        return on_rabbitmq(waiting, broker=rabbitmq(QueueSample("celery", 0, consumers=1)))

    assert judged(holding(1700))[0] == {}
    assert judged(holding(1900))[0]["CONFIG_CONSUMER_TIMEOUT"].severity == "warning"


def test_consumed_queue_whose_oldest_message_is_old_breaches() -> None:
    findings, _ = judged(sample(worker("w1@here"), broker=queued("celery", 9, oldest_seconds=599.0)))
    assert findings == {}

    findings, _ = judged(sample(worker("w1@here"), broker=queued("celery", 9, oldest_seconds=600.0)))
    assert findings["QUEUE_SLA_BREACH"].severity == "critical"


def test_app_may_say_itself_how_long_a_message_may_wait() -> None:
    waiting = sample(worker("w1@here"), broker=queued("celery", 9, oldest_seconds=5.0))
    impatient = replace(application(), queue_wait=4.0)

    findings, _ = assess(Observations(impatient, waiting, None, None, NOW))

    assert [one.code for one in findings] == ["QUEUE_SLA_BREACH"]


@pytest.mark.parametrize(
    "figures",
    [
        {"active": [run("a", 1)]},
        {"stats": {"pid": 7, "total": {"shop.plain": 1}, "pool": {"max-concurrency": 4}}},
        {"stats": {"pid": 8, "total": {}, "pool": {"max-concurrency": 4}}},
        {"reserved": None},
    ],
    ids=["runs something", "has begun something", "was restarted", "did not say"],
)
def test_worker_that_may_be_working_is_no_ghost(figures: dict[str, Any]) -> None:
    waiting = queued("celery", 3, oldest_seconds=100.0)
    idle = sample(worker("w1@here"), broker=waiting)
    assert judged(idle, replace(idle, at=1.0))[0]["GHOST_WORKER"].severity == "critical"

    assert judged(idle, sample(worker("w1@here", **figures), broker=waiting, at=1.0))[0] == {}


def test_frozen_pool_is_a_ghost_and_a_rate_limit_is_none() -> None:
    held = sample(worker("w1@here", reserved=[{"id": "a", "name": "shop.plain"}]))

    assert judged(held, replace(held, at=1.0))[0]["GHOST_WORKER"].severity == "warning"
    assert judged(held, replace(held, at=1.0), task_default_rate_limit="1/m")[0] == {}


def test_one_task_id_that_runs_in_two_workers_at_both_samples_is_a_duplicate() -> None:
    both = sample(worker("w1@here", active=[run("a", 4000)]), worker("w2@here", active=[run("a", 90)]))
    findings, _ = judged(both, replace(both, at=1.0), task_time_limit=9000)
    assert findings["DUPLICATE_RUN"].severity == "critical"
    assert "w1@here, w2@here" in findings["DUPLICATE_RUN"].evidence[0].fact

    # A retry elsewhere may overlap with the end of the first attempt.
    over = sample(worker("w1@here"), worker("w2@here", active=[run("a", 90)]), at=1.0)
    assert judged(both, over, task_time_limit=9000)[0] == {}


def test_run_past_its_hard_limit_and_run_past_the_visibility_timeout_are_found() -> None:
    late = worker("w1@here", active=[run("a", 3700, "shop.late", acknowledged=False)])

    findings, _ = judged(sample(late))

    assert {code: one.severity for code, one in findings.items()} == {
        "OVERRUN": "critical",
        "CONFIG_VISIBILITY_TIMEOUT": "critical",
    }
    early = worker("w1@here", active=[run("a", 3700, acknowledged=True)])
    assert judged(sample(early), task_time_limit=9000)[0] == {}


def test_task_held_for_a_time_beyond_the_visibility_timeout_is_found() -> None:
    def holding(seconds: float) -> Sample:
        eta = (NOW + timedelta(seconds=seconds)).isoformat()
        return sample(worker("w1@here", scheduled=[{"eta": eta, "request": {"name": "shop.plain"}}]))

    assert judged(holding(3000))[0] == {}
    assert judged(holding(4000))[0]["CONFIG_VISIBILITY_TIMEOUT"].severity == "warning"


@pytest.mark.parametrize(
    ("figures", "code", "severity"),
    [
        ({"maxmemory_policy": "allkeys-lru", "maxmemory": 10**9}, "CONFIG_EVICTION", "warning"),
        (
            {"maxmemory_policy": "allkeys-lru", "maxmemory": 9, "evicted_keys": 1},
            "CONFIG_EVICTION",
            "critical",
        ),
        ({"maxmemory_policy": "allkeys-lru", "maxmemory": 0}, "CONFIG_EVICTION", "notice"),
        ({"maxmemory_policy": "volatile-lru", "maxmemory": 10**9}, "CONFIG_EVICTION", "notice"),
        ({"maxmemory": 100, "used_memory": 80}, "BROKER_MEMORY", "warning"),
        ({"maxmemory": 100, "used_memory": 95}, "BROKER_MEMORY", "critical"),
        ({"persistent": False}, "CONFIG_PERSISTENCE", "notice"),
    ],
)
def test_redis_that_may_lose_or_refuse_messages(figures: dict[str, Any], code: str, severity: str) -> None:
    findings, _ = judged(sample(worker("w1@here"), broker=redis(**figures)))

    assert {one.code: one.severity for one in findings.values()} == {code: severity}


# -- the server's answers


def incident(code: str, kind: str, name: str) -> dict[str, Any]:
    return {
        "cause": {"code": code, "summary": "It is so."},
        "subject": {"kind": kind, "id": "1", "name": name},
        "opened_at": "2026-03-01T01:00:00.5Z",
        "evidence": [{"at": None, "fact": "It was seen."}],
        "repair": [{"text": "Start it.", "command": "celery -A shop worker -n w2@here"}],
    }


def test_incident_of_the_server_is_a_finding_with_its_evidence_and_repair() -> None:
    known = Knowledge("http://server", "shop", True, incidents=[incident("WORKER_LOST", "worker", "w2@here")])

    findings, _ = judged(sample(worker("w1@here")), known=known)

    lost = findings["WORKER_LOST"]
    assert (lost.severity, lost.subject.name, lost.summary) == ("critical", "w2@here", "It is so.")
    assert [fact.fact for fact in lost.evidence] == [
        "Deadbeat has an open incident about this.",
        "It was seen.",
    ]
    # The server knows the app as shop; the command needs the value of -A here.
    assert lost.repair[0].command == "celery -A proj.celery:app worker -n w2@here"

    # The worker answers again; the server does not know that yet.
    findings, _ = judged(sample(worker("w1@here"), worker("w2@here")), known=known)
    assert findings["WORKER_LOST"].severity == "notice"


def test_incident_makes_a_finding_of_the_same_certain() -> None:
    waiting = queued("other", 3, oldest_seconds=1.0)
    assert judged(sample(worker("w1@here"), broker=waiting))[0]["QUEUE_UNCONSUMED"].severity == "warning"
    known = Knowledge(
        "http://server", "shop", True, incidents=[incident("QUEUE_UNCONSUMED", "queue", "other")]
    )

    findings, _ = judged(sample(worker("w1@here"), broker=waiting), known=known)

    assert set(findings) == {"QUEUE_UNCONSUMED"}
    assert findings["QUEUE_UNCONSUMED"].severity == "critical"


def test_broker_that_only_we_cannot_reach_is_unknown_and_not_down() -> None:
    away = Sample(0.0, BrokerSample(URL, "redis", False, "refused"))
    assert judged(away)[0]["BROKER_DOWN"].severity == "critical"

    def known(sampled_at: str) -> Knowledge:
        row = {"id": "1", "reachable": True, "sampled_at": sampled_at, "sampler": "w1@here"}
        return Knowledge("http://server", "shop", True, broker=row)

    findings, unknown = judged(away, known=known("2026-03-01T01:59:50Z"))
    assert (findings, [one.what for one in unknown]) == ({}, ["the broker"])
    # A sample of an hour ago says nothing about now.
    assert "BROKER_DOWN" in judged(away, known=known("2026-03-01T01:00:00Z"))[0]


def test_worker_that_reported_to_the_server_lately_and_does_not_answer_here_still_consumes() -> None:
    row = {"name": "solo@here", "status": "up", "queues": ["other"], "pool": "solo", "reserved": 0}
    known = Knowledge("http://server", "shop", True, workers=[row])
    waiting = queued("other", 3, oldest_seconds=1.0)

    findings, unknown = judged(sample(worker("w1@here"), broker=waiting), known=known)

    assert findings == {}
    assert any("solo@here" in one.why for one in unknown)


def test_server_can_stand_in_for_the_worker_that_did_not_answer() -> None:
    row = {"name": "solo@here", "status": "up", "queues": ["celery"], "pool": "solo", "reserved": 0}
    waiting = queued("other", 3, oldest_seconds=1.0)
    partial = replace(sample(worker("w1@here"), broker=waiting), listeners=2, complete=False)
    assert judged(partial)[0] == {}

    findings, _ = judged(partial, known=Knowledge("http://server", "shop", True, workers=[row]))

    assert set(findings) == {"QUEUE_UNCONSUMED"}


@pytest.mark.parametrize("text", ["2026-03-01T02:00:00.5Z", "2026-03-01T03:00:00.500000123+01:00"])
def test_times_with_any_fraction_are_read(text: str) -> None:
    assert instant(text) == NOW + timedelta(seconds=0.5)


def test_what_is_no_time_is_none() -> None:
    assert instant(None) is None
    assert instant("soon") is None


def reporting(name: str, app: str = "shop", **more: Any) -> dict[str, Any]:
    row = {"name": name, "app": app, "status": "up", "trouble": None, "queues": ["celery"], "pool": "prefork"}
    return {**row, "reserved": 0, **more}


def running_for(seconds: float | None, name: str, queue: str = "celery") -> WorkerAnswer:
    return worker(name, stats={"total": {}, "uptime": seconds}, queues=[queue])


def test_worker_that_answers_and_does_not_report_is_found() -> None:
    known = Knowledge("http://server", "shop", True, workers=[reporting("w1@here")])
    both = sample(running_for(3_600, "w1@here"), running_for(3_600, "w2@here"))

    findings, _ = judged(both, known=known)

    assert set(findings) == {"WORKER_WITHOUT_SDK"}
    found = findings["WORKER_WITHOUT_SDK"]
    assert (found.severity, found.subject.name) == ("warning", "w2@here")
    assert found.repair[1].command == "celery -A proj.celery:app control shutdown -d w2@here"


@pytest.mark.parametrize(
    ("silent", "row"),
    [
        (running_for(3_600, "w2@here"), {"status": "new"}),
        # The worker has a fault, and reports.
        (running_for(3_600, "w2@here"), {"status": "down", "trouble": "CLOCK_SKEW"}),
        # The worker has just started, or did not say when it started.
        (running_for(29, "w2@here"), None),
        (running_for(None, "w2@here"), None),
        # Its queues do not belong to this application.
        (running_for(3_600, "w2@here", "mails"), None),
    ],
)
def test_worker_that_reports_or_may_soon_or_is_not_ours_is_not_found(
    silent: WorkerAnswer, row: dict[str, Any] | None
) -> None:
    rows = [reporting("w1@here"), *([] if row is None else [reporting("w2@here", **row)])]
    known = Knowledge("http://server", "shop", True, workers=rows)
    assert judged(sample(running_for(3_600, "w1@here"), silent), known=known)[0] == {}


def test_worker_of_another_application_and_a_server_that_knows_nothing_accuse_nobody() -> None:
    both = sample(running_for(3_600, "w1@here"), running_for(3_600, "w2@here"))
    ours, theirs = [reporting("w1@here")], [reporting("w2@here", "mails")]
    known = Knowledge("http://server", "shop", True, workers=ours, workers_elsewhere=theirs)
    assert judged(both, known=known)[0] == {}
    for is_reachable in (True, False):
        assert judged(both, known=Knowledge("http://server", "shop", is_reachable))[0] == {}


def test_consumers_beyond_those_that_answer_or_report_are_found() -> None:
    rows = [reporting("w1@here"), reporting("solo@here")]
    known = Knowledge("http://server", "shop", True, workers=rows)

    def counting(consumers: int) -> dict[str, Finding]:
        seen = sample(running_for(3_600, "w1@here"), broker=queued("celery", 0, consumers=consumers))
        return judged(seen, known=known)[0]

    # One worker answered; another one reports, and was too busy to answer.
    assert counting(2) == {}
    found = counting(3)["WORKER_WITHOUT_SDK"]
    assert (found.subject.kind, found.subject.name) == ("queue", "celery")
    assert "1 consumer" in found.summary
