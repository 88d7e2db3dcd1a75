"""The broker is away: one incident, however many subjects it affects."""

from __future__ import annotations

import os
import signal
import time
from typing import Any

import parts
from silent_failures.stage import BROKER_DEADLINE, CANARY, GRACE, Open

ALERTED = ("broker", "shop", "BROKER_DOWN")
SCHEDULE = {f"entry {n}": {"task": "shop.job", "schedule": 2.0} for n in range(5)}


def test_a_killed_broker_is_one_incident(
    open_stage: Open, broker: parts.Redis | parts.RabbitMQ, rows: Any
) -> None:
    row = rows("F16", f"the broker is killed ({type(broker).__name__})")
    stage = open_stage(broker.url, SCHEDULE)
    stage.worker("one")
    stage.worker("two")
    stage.beat()
    stage.healthy(*SCHEDULE, CANARY, workers=("one@shop", "two@shop"))

    killed_at = time.time()
    broker.kill()
    incident = stage.noticed(row, killed_at, ALERTED, BROKER_DEADLINE)
    stage.stays(3 * GRACE, ALERTED)

    broker.start()
    stage.resolved(row, incident)
    stage.recovered()
    stage.stays(3 * GRACE, ALERTED)


def test_a_frozen_broker_is_one_incident(open_stage: Open, redis: parts.Redis, rows: Any) -> None:
    row = rows("F16", "the broker takes connections, and answers nothing (SIGSTOP)")
    stage = open_stage(redis.url, SCHEDULE)
    stage.worker("one")
    stage.beat()
    stage.healthy(*SCHEDULE, CANARY)
    assert redis.part is not None

    frozen_at = time.time()
    os.kill(redis.part.process.pid, signal.SIGSTOP)
    incident = stage.noticed(row, frozen_at, ALERTED, BROKER_DEADLINE)
    stage.stays(3 * GRACE, ALERTED)

    os.kill(redis.part.process.pid, signal.SIGCONT)
    stage.resolved(row, incident)
    stage.recovered()
    stage.stays(3 * GRACE, ALERTED)
