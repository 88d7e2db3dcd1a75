"""Each statement that removes old rows is bounded work, however large the tables are."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Callable

import pytest

import parts
from conftest import Size
from postgres import Postgres, rows

STEP = 5_000

# One project, one monitor and one channel, all of which stay.
OWNERS = """
    INSERT INTO project (id, name, created_at) VALUES (gen_random_uuid(), 'large', now());
    INSERT INTO monitor (id, project_id, ping_id, slug, name, tags, schedule, grace_seconds, all_channels,
        status, created_at, updated_at)
    SELECT gen_random_uuid(), id, gen_random_uuid(), 'm', 'm', '{}', '{"kind": "interval", "seconds": 60}',
        60, true, 'new', now(), now()
    FROM project
"""

# An old id: ids sort by the time of their creation.
OLD_ID = "('00000000' || right(gen_random_uuid()::text, 28))::uuid"

# A deleted monitor whose rows still exist.
GONE = "'0b5e55ed-0000-4000-8000-000000000000'"

# By the name that the command prints: how many rows of `n` it removes, and the SQL that creates them.
TABLES = {
    "runs": f"""
        INSERT INTO run (id, monitor_id, run_id, status, started_at, finished_at, retries)
        SELECT {OLD_ID}, monitor.id, gen_random_uuid(), 'success', '2020-01-01', '2020-01-01', 0
        FROM monitor, generate_series(1, {{n}})""",
    "excess_pings": """
        INSERT INTO ping (monitor_id, n, received_at, kind, source, body_bytes)
        SELECT id, n, now(), 'success', 'http', 0 FROM monitor, generate_series(1, {n}) AS n;
        UPDATE monitor SET ping_count = {n} + 10000""",
    "stray_pings": """
        INSERT INTO ping (monitor_id, n, received_at, kind, source, body_bytes)
        SELECT id, 1000000000 + n, '2020-01-01', 'success', 'http', 0
        FROM monitor, generate_series(1, {n}) AS n""",
    "stray_bodies": """
        INSERT INTO ping_body (monitor_id, n, received_at, body)
        SELECT id, 1000000000 + n, '2020-01-01', 'x' FROM monitor, generate_series(1, {n}) AS n""",
    "deleted": f"""
        INSERT INTO ping (project_id, monitor_id, n, received_at, kind, source, body_bytes)
        SELECT id, {GONE}, n, now(), 'success', 'http', 0 FROM project, generate_series(1, {{n}}) AS n;
        INSERT INTO purge (project_id, monitor_id, deleted_at) SELECT id, {GONE}, now() FROM project""",
    "traces": """
        INSERT INTO trace (project_id, run_id, app, state, attempts, retries, redelivered, stages,
            more_stages, more_starts, heard_first_at, heard_at)
        SELECT project_id, gen_random_uuid(), 'shop', 'success', 1, 0, false, '[]', 0, 0, '2020-01-01',
            '2020-01-01'
        FROM monitor, generate_series(1, {n})""",
    "incidents": f"""
        INSERT INTO incident (id, project_id, subject_kind, subject_id, subject_name, cause, summary,
            evidence, repair, opened_at, resolved_at)
        SELECT {OLD_ID}, project_id, 'monitor', monitor.id, 'm', 'MISSED', '', '[]', '[]', '2020-01-01',
            '2020-01-01'
        FROM monitor, generate_series(1, {{n}})""",
    "members": """
        INSERT INTO incident_member (incident_id, monitor_id, joined_at)
        SELECT incident.id, monitor.id, '2020-01-01' FROM incident, monitor""",
    "deliveries": f"""
        INSERT INTO delivery (id, project_id, channel_id, incident_id, alert, payload, status, created_at,
            settled_at)
        SELECT {OLD_ID}, project_id, gen_random_uuid(), id, 'opened', '{{{{}}}}', 'sent', '2020-01-01',
            '2020-01-01'
        FROM incident""",
    "attempts": """
        INSERT INTO attempt (delivery_id, number, started_at, duration_ms, outcome)
        SELECT id, 1, '2020-01-01', 1, 'sent' FROM delivery""",
    "transitions": f"""
        INSERT INTO transition (id, project_id, subject_kind, subject_id, from_status, to_status, cause, at)
        SELECT {OLD_ID}, project_id, 'monitor', id, 'up', 'down', 'SILENCE', '2020-01-01'
        FROM monitor, generate_series(1, {{n}})""",
    "blind_spells": """
        INSERT INTO blind_spell (id, started_at, ended_at)
        SELECT gen_random_uuid(), '2020-01-01', '2020-01-02' FROM generate_series(1, {n})""",
}


def deadbeat(database: Postgres, command: str) -> str:
    done = subprocess.run(
        [str(parts.BINARY), command],
        env={**os.environ, "DEADBEAT_DATABASE_URL": database.url},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.proof("old rows removed in bounded steps")
def test_a_large_table_is_removed_in_bounded_steps(
    database: Postgres, size: Size, progress: Callable[[str], None]
) -> None:
    deadbeat(database, "migrate")
    rows(database.url, OWNERS)
    for number, (name, statement) in enumerate(TABLES.items(), 1):
        progress(f"making {size.rows:,} {name} ({number} of {len(TABLES)})")
        rows(database.url, statement.format(n=size.rows))

    progress("removing all of them")
    said = deadbeat(database, "prune")

    line = re.compile(r"(\w+) +(\d+) removed in +(\d+) steps, +(\d+) at most in one")
    done = {name: [int(value) for value in values] for name, *values in line.findall(said)}
    for name in TABLES:
        removed, steps, most = done[name]
        assert removed == size.rows, said
        assert 0 < most <= STEP, said
        # No more steps than the rows need, and one that finds nothing; the search for pings takes one more.
        assert size.rows / STEP <= steps <= size.rows / STEP + 2, said
    tables = [
        "run",
        "ping",
        "ping_body",
        "trace",
        "incident",
        "incident_member",
        "delivery",
        "attempt",
        "transition",
        "blind_spell",
    ]
    left = " + ".join(f"(SELECT count(*) FROM {table})" for table in tables)
    assert rows(database.url, f"SELECT {left}") == [["0"]]
