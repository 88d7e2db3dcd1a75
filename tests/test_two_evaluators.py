"""Two evaluators and thousands of deadlines at once: one incident and one delivery each."""

from __future__ import annotations

from pathlib import Path

import pytest

import parts
from conftest import Size
from postgres import Postgres, rows

# Copies of one monitor, all with the same deadline.
COPIES = """
    INSERT INTO monitor
    SELECT (jsonb_populate_record(monitor, jsonb_build_object(
        'id', gen_random_uuid(), 'ping_id', gen_random_uuid(), 'name', 'copy ' || n, 'slug', 'copy-' || n,
        'status', 'up', 'ping_count', 0, 'last_ping_at', now(), 'last_success_at', now(),
        'next_due_at', now() + interval '5 s', 'deadline_at', now() + interval '6 s',
        'check_after', now() + interval '6 s'
    ))).*
    FROM monitor, generate_series(2, {count}) AS n
"""


@pytest.mark.proof("two evaluators, thousands of deadlines")
def test_two_evaluators_open_each_incident_once(
    database: Postgres, sink: parts.Sink, tmp_path: Path, size: Size
) -> None:
    servers: list[parts.Server] = []
    try:
        for name, role in [("http", "http,delivery"), ("one", "evaluator"), ("two", "evaluator")]:
            (tmp_path / name).mkdir()
            env = {
                "DEADBEAT_DATABASE_URL": database.url,
                "DEADBEAT_ROLE": role,
                "DEADBEAT_SECRET_KEY": parts.SECRET_KEY,
            }
            servers.append(parts.Server(tmp_path / name, env=env))
            # The first process creates the project and its keys.
            servers[0].ready()
        http, *evaluators = [server.ready() for server in servers]
        channel = http.api(
            "POST", "/channels", {"kind": "webhook", "name": "sink", "settings": {"url": sink.url}}
        )
        schedule = {"kind": "interval", "seconds": 5}
        first = http.api("POST", "/monitors", {"name": "first", "schedule": schedule, "grace_seconds": 1})
        assert parts.call("GET", first["ping_url"])[0] == 200

        rows(database.url, COPIES.format(count=size.monitors))
        wanted = size.monitors

        def alerted() -> bool:
            sent = rows(database.url, "SELECT count(*) FROM delivery WHERE status = 'sent'")
            return int(sent[0][0]) >= wanted

        parts.wait_for("all deliveries", alerted, 60 + wanted / 20)

        opened = rows(database.url, "SELECT subject_id, cause FROM incident")
        assert len(opened) == wanted
        assert len({subject for subject, _ in opened}) == wanted
        assert {cause for _, cause in opened} == {"MISSED"}
        deliveries = rows(database.url, "SELECT incident_id, channel_id, status FROM delivery")
        assert len(deliveries) == wanted
        assert {(one, status) for _, one, status in deliveries} == {(channel["id"], "sent")}
        assert len({incident for incident, _, _ in deliveries}) == wanted
        alerts = sink.alerts("incident.opened")
        assert len(alerts) == wanted
        assert len({one["json"]["incident"]["id"] for one in alerts}) == wanted
        found = [server.metric("deadbeat_evaluator_found_silent_total") or 0 for server in evaluators]
        assert sum(found) == wanted
        assert min(found) > 0, "both took part"
    finally:
        for server in servers:
            server.stop()
