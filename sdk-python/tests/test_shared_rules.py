"""Rules that the SDK and the server both have: the server's crates test the same file."""

from __future__ import annotations

import json
import re
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import pytest
from celery import Celery
from celery.schedules import crontab

from deadbeat._transport import sender, timeouts
from deadbeat.cli.audit import rules
from deadbeat.cli.audit.finding import command, span
from deadbeat.cli.audit.rules import broker as broker_rules
from deadbeat.cli.audit.rules import worker as worker_rules
from deadbeat.cli.doctor import server as doctor_server
from deadbeat.config import Settings
from deadbeat.integrations.celery import worker
from deadbeat.integrations.celery.broker import consumers
from deadbeat.integrations.celery.runs import reporter
from deadbeat.integrations.celery.schedules import due, hint, listing
from deadbeat.integrations.celery.schedules.wire import next_due, wire_schedule

RULES: dict[str, Any] = json.loads(
    (Path(__file__).parents[2] / "tests" / "fixtures" / "shared-rules.json").read_text(encoding="utf-8")
)
SOURCES = Path(reporter.__file__).parent
# Only an audit finds these: no report to the server shows them.
OF_AUDITS_ALONE = {"BROKER_BLOCKED", "BROKER_MEMORY", "DUPLICATE_NODE_NAME", "NO_WORKERS"}


def test_canary_has_one_name() -> None:
    assert RULES["canary"] == reporter.CANARY


@pytest.mark.parametrize("case", RULES["run_ids"], ids=lambda case: str(case["task_id"]))
def test_run_is_named_by_its_task_id(case: dict[str, str]) -> None:
    assert reporter.run_id_of(case["task_id"]) == case["run_id"]


def test_outcomes_are_those_that_the_server_knows() -> None:
    text = (SOURCES / "reporter.py").read_text() + (SOURCES / "refused.py").read_text()
    text += (SOURCES.parent / "handlers.py").read_text()
    tables = {*reporter._OUTCOMES.values(), *reporter._ENDS_FROM_OUTSIDE.values()}
    said = set(re.findall(r'End\("(\w+)"|outcome = "(\w+)"|outcome, soft = "(\w+)"', text))
    said_in_code = {word for words in said for word in words if word}
    branches = set(re.findall(r'End\("expired" if expired else "(\w+)"\)', text))

    assert tables | said_in_code | branches == set(RULES["outcomes"])


def test_keys_are_distinguished_by_their_beginning() -> None:
    assert set(doctor_server._KEY_KINDS) == set(RULES["key_prefixes"].values())


def test_findings_that_are_causes_bear_the_causes_names() -> None:
    folder = Path(rules.__file__).parent
    text = "".join(path.read_text() for path in folder.glob("*.py"))
    codes = set(re.findall(r'Finding\(\s*"([A-Z_]+)"', text))

    assert {code for code in codes if not code.startswith("CONFIG_")} - OF_AUDITS_ALONE == set(
        RULES["causes_of_an_audit"]
    )


def test_nothing_is_sent_beyond_what_the_server_takes() -> None:
    limits = {
        # The one event beyond the limit is the report of losses.
        "events_of_a_batch": sender.BATCH_LIMIT + 1,
        "entries_of_a_beat": due.ENTRY_LIMIT,
        "characters_of_a_hint": hint.TEXT_LIMIT,
        "running_runs_of_a_worker": worker.MOST_RUNNING,
        "running_tasks_of_a_worker": worker.MOST_TASKS,
        "rate_limits_of_a_worker": worker.MOST_LIMITS,
        "workers_of_a_sample": consumers.WORKER_LIMIT,
        "queues_of_a_worker": consumers.QUEUE_LIMIT,
    }

    assert limits == {name: limit["sdk"] for name, limit in RULES["limits"].items()}
    assert all(limit["sdk"] <= limit["server"] for limit in RULES["limits"].values())


def test_defaults_are_the_servers() -> None:
    settings = Settings("http://localhost", "key")

    assert {
        "beat_period": settings.beat_period,
        "beat_grace": settings.beat_grace,
        "monitor_grace": settings.grace,
        "longest_wait_in_a_queue": broker_rules.SLA_SECONDS,
        "ghost_patience": worker_rules.GHOST_SECONDS,
        "longest_delay": listing._LONGEST_DELAY_SECONDS,
    } == RULES["seconds"]


def test_sdk_is_back_before_the_server_blames_its_silence() -> None:
    both = RULES["return_after_an_outage"]

    assert timeouts.LONGEST_RETRY_SECONDS == both["sdk"] < both["server"]


@pytest.mark.parametrize("case", RULES["words"], ids=lambda case: str(case["argument"]))
def test_words_are_quoted_as_the_server_quotes(case: dict[str, str]) -> None:
    assert command(case["argument"]) == case["word"]


@pytest.mark.parametrize("case", RULES["spans"], ids=lambda case: str(case["words"]))
def test_spans_are_reported_as_in_an_alert(case: dict[str, Any]) -> None:
    assert span(case["seconds"]) == case["words"]


@pytest.mark.parametrize("case", RULES["schedules"], ids=lambda case: str(case["crontab"]))
def test_crontabs_mean_the_same_to_celery_and_to_the_server(case: dict[str, Any]) -> None:
    app = Celery("shop", set_as_current=False)
    app.conf.timezone = case["schedule"]["timezone"]
    plan = crontab(app=app, **case["crontab"])
    after = datetime.fromisoformat(case["after"].replace("Z", "+00:00"))

    assert wire_schedule(plan, app) == case["schedule"]
    due_at = next_due(plan, after)
    assert due_at is not None
    assert datetime.fromtimestamp(due_at, timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ") == case["next"]
