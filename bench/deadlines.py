"""Deadlines that pass: incidents and deliveries a second, and the time until an incident is committed."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from stand import (
    Postgres,
    Receiver,
    Server,
    build,
    make_due,
    say,
    seed_projects,
    settle,
    stand,
    syncs_per_second,
)

MONITORS = 1_000_000
DUE = 100_000
AT_ONCE = 10_000
# Seconds that are enough to write these deadlines.
PREPARATION = 25

# The core of the work as one SQL statement, with texts of real length: the limit that no server reaches.
LIKE_STATEMENT = """
WITH due AS (
    SELECT id, project_id FROM monitor WHERE check_after <= now()
    ORDER BY check_after LIMIT 1000 FOR UPDATE SKIP LOCKED
), down AS (
    UPDATE monitor SET status = 'down', deadline_at = NULL, check_after = NULL
    FROM due WHERE monitor.id = due.id
), changed AS (
    INSERT INTO transition (id, project_id, subject_kind, subject_id, from_status, to_status, cause, at)
    SELECT gen_random_uuid(), project_id, 'monitor', id, 'up', 'down', 'MISSED', now() FROM due
), opened AS (
    INSERT INTO incident (id, project_id, subject_kind, subject_id, subject_name, cause, summary,
        evidence, repair, opened_at, remind_at)
    SELECT gen_random_uuid(), project_id, 'monitor', id, 'x', 'MISSED', repeat('x', 60),
        jsonb_build_array(repeat('x', 300)), jsonb_build_array(repeat('x', 200)), now(),
        now() + interval '1 day'
    FROM due RETURNING id, project_id
)
INSERT INTO delivery (id, project_id, channel_id, incident_id, alert, payload, status, created_at,
    next_attempt_at)
SELECT gen_random_uuid(), opened.project_id, channel.id, opened.id, 'opened',
    jsonb_build_object('incident', repeat('x', 1300)), 'pending', now(), now()
FROM opened JOIN channel USING (project_id)
"""


def limit(postgres: Postgres, folder: Path, clients: int) -> float:
    """Deadlines a second of the similar statement, by pgbench."""
    script = folder / "like.sql"
    script.write_text(" ".join(LIKE_STATEMENT.split()) + ";\n")
    rounds = DUE // 1000 // clients
    began = time.monotonic()
    command = [str(postgres.bin / "pgbench"), "-n", "-f", str(script), "-c", str(clients), "-j", str(clients)]
    subprocess.run(
        [*command, "-t", str(rounds), postgres.url],
        check=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    return rounds * clients * 1000 / (time.monotonic() - began)


def committed(postgres: Postgres, since: str) -> dict[str, float]:
    """When the incidents since `since` were committed, and how late, in seconds."""
    row = postgres.sql(f"""
        WITH one AS (
            SELECT pg_xact_commit_timestamp(incident.xmin) AS at,
                next_due_at + interval '5 minutes' AS deadline
            FROM incident JOIN monitor ON monitor.id = subject_id
            WHERE opened_at >= '{since}'
        )
        SELECT count(*), extract(epoch FROM max(at) - min(at)), extract(epoch FROM max(at - deadline)),
            extract(epoch FROM percentile_cont(0.5) WITHIN GROUP (ORDER BY at - deadline)),
            extract(epoch FROM max(at) - max(deadline))
        FROM one
    """).split("|")
    names = ("count", "seconds", "latest", "median", "last_after_last")
    return dict(zip(names, map(float, row), strict=True))


def check(postgres: Postgres, since: str, wanted: int) -> None:
    """Check that each deadline made exactly one incident with two deliveries."""
    row = postgres.sql(f"""
        SELECT count(*), count(DISTINCT subject_id),
            (SELECT count(*) FROM delivery WHERE created_at >= '{since}'),
            (SELECT count(DISTINCT incident_id) FROM delivery WHERE created_at >= '{since}')
        FROM incident WHERE opened_at >= '{since}'
    """)
    if row != f"{wanted}|{wanted}|{2 * wanted}|{wanted}":
        raise RuntimeError(f"incidents, subjects, deliveries, told: {row}, wanted {wanted}")


def wait_until_judged(postgres: Postgres, at: str) -> None:
    while postgres.sql(f"SELECT now() <= '{at}'") == "t":
        time.sleep(1)
    while postgres.sql("SELECT EXISTS (SELECT FROM monitor WHERE check_after <= now())") == "t":
        time.sleep(1)


def drain(postgres: Postgres, servers: list[Server], first: int) -> dict[str, float]:
    """Deadlines that all pass at one instant."""
    since = postgres.sql("SELECT now()")
    at = postgres.sql(f"SELECT now() + interval '{PREPARATION} seconds'")
    make_due(postgres, first, first + DUE - 1, f"timestamptz '{at}'")
    settle(postgres)
    if postgres.sql(f"SELECT now() > '{at}'") == "t":
        raise RuntimeError("this machine is too slow: the deadlines passed before they were written")
    cpu_servers, cpu_postgres = sum(server.cpu() for server in servers), postgres.cpu()
    wait_until_judged(postgres, at)
    figures = committed(postgres, since)
    check(postgres, since, DUE)
    return {
        "per_second": DUE / figures["last_after_last"],
        "cpu_server_us": (sum(server.cpu() for server in servers) - cpu_servers) / DUE * 1e6,
        "cpu_postgres_us": (postgres.cpu() - cpu_postgres) / DUE * 1e6,
    }


def at_once(postgres: Postgres, first: int) -> dict[str, float]:
    """Deadlines spread over one second, with one process that has every role and delivers, too."""
    since, at = postgres.sql("SELECT now(), now() + interval '10 seconds'").split("|")
    last = first + AT_ONCE - 1
    make_due(postgres, first, last, f"timestamptz '{at}' + (i - {first}) * interval '1 second' / {AT_ONCE}")
    settle(postgres)
    time.sleep(11)
    wait_until_judged(postgres, at)
    figures = committed(postgres, since)
    check(postgres, since, AT_ONCE)
    return figures


def measure(rounds: int = 3) -> dict[str, Any]:
    build()
    found: dict[str, Any] = {}

    def keep(name: str, row: dict[str, float]) -> None:
        say(f"{name}: " + ", ".join(f"{key} {value:,.2f}" for key, value in row.items()))
        for key, value in row.items():
            found.setdefault(f"{name}_{key}", []).append(value)

    with stand("track_commit_timestamp=on", "checkpoint_timeout=30min", "max_wal_size=16GB") as (
        folder,
        postgres,
    ):
        receiver = Receiver()
        # Without a process that listens, the evaluator judges no monitor.
        listener = Server(postgres, folder, {"DEADBEAT_ROLE": "http"})
        say(f"seeding {MONITORS:,} monitors")
        seed_projects(postgres, 100, MONITORS, f"http://{receiver.target}/hook")
        keep("disk", {"syncs_per_second": syncs_per_second(folder)})
        place = 1
        servers: list[Server] = []
        for processes in (1, 2):
            servers.append(Server(postgres, folder, {"DEADBEAT_ROLE": "evaluator"}, ready="/healthz"))
            time.sleep(15)  # Its first retention pass reads every monitor.
            for _ in range(rounds):
                keep(f"{processes}_process", drain(postgres, servers, place))
                place += DUE
        for server in servers:
            server.stop()
        for clients in (1, 2):
            make_due(postgres, place, place + DUE - 1, "now() - interval '1 second'")
            place += DUE
            settle(postgres)
            keep(f"like_statement_{clients}", {"per_second": limit(postgres, folder, clients)})
        # Delete unsent deliveries: a burst is measured on an empty outbox.
        postgres.sql("TRUNCATE delivery, attempt")
        server = Server(postgres, folder)
        time.sleep(15)
        for _ in range(rounds):
            keep("burst", at_once(postgres, place))
            place += AT_ONCE
            while postgres.sql("SELECT EXISTS (SELECT FROM delivery WHERE status = 'pending')") == "t":
                time.sleep(1)
            alerted = receiver.figures()
            keep(
                "burst_told",
                {"webhooks_per_second": alerted["count"] / alerted["seconds"], "last_ms": alerted["max_ms"]},
            )
        server.stop()
        listener.stop()
        receiver.stop()
    return found


if __name__ == "__main__":
    for name, values in measure(int(sys.argv[1]) if len(sys.argv) > 1 else 3).items():
        print(f"{name:>35} {sorted(values)[len(values) // 2]:,.3f}   {[round(one, 3) for one in values]}")
