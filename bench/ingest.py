"""Durable pings a second, compared with a constant of actix-web; CPU a ping; latency at half the rate."""

from __future__ import annotations

import re
import statistics
import subprocess
from pathlib import Path
from typing import Any

from stand import (
    Postgres,
    Server,
    build,
    cpu_seconds,
    hello,
    load,
    ping_paths,
    say,
    seed_monitors,
    stand,
    syncs_per_second,
)

# Pings of one transaction: as many as a writer commits together under full load.
BATCH = 60

# The core of taking pings as one SQL statement, with nothing to decide: the limit that no server reaches.
LIKE_STATEMENT = f"""
WITH heard AS (
    SELECT id, ping_count + 1 AS n FROM monitor
    WHERE id = ANY (ARRAY(
        SELECT id FROM bench_id
        WHERE n IN (SELECT (random() * 9999)::int + 1 FROM generate_series(1, {BATCH}))
    ))
    ORDER BY id FOR UPDATE
), kept AS (
    INSERT INTO ping (monitor_id, n, received_at, kind, source, method, remote_addr, user_agent, body_bytes)
    SELECT id, n, now(), 'success', 'http', 'GET', '127.0.0.1', 'bench', 0 FROM heard
)
UPDATE monitor SET ping_count = heard.n, last_ping_at = now(), last_success_at = now(),
    next_due_at = now() + interval '3 hours', deadline_at = now() + interval '4 hours'
FROM heard WHERE monitor.id = heard.id
"""


def limit(postgres: Postgres, folder: Path, clients: int, seconds: int = 5) -> float:
    """Pings a second of the similar statement, by pgbench."""
    script = folder / "like.sql"
    script.write_text(" ".join(LIKE_STATEMENT.split()) + ";\n")
    command = [str(postgres.bin / "pgbench"), "-n", "-M", "prepared", "-f", str(script), "-T", str(seconds)]
    done = subprocess.run(
        [*command, "-c", str(clients), "-j", str(clients), postgres.url],
        check=True,
        capture_output=True,
        text=True,
    )
    found = re.search(r"tps = ([0-9.]+)", done.stdout)
    return float(found.group(1)) * BATCH if found else 0.0


def measure(rounds: int = 3, seconds: float = 6.0) -> dict[str, Any]:
    build()
    with stand() as (folder, postgres):
        server = Server(postgres, folder)
        seed_monitors(postgres, 10_000)
        server.stop()
        server = Server(postgres, folder)
        paths = ping_paths(folder / "paths", postgres)
        load(server.target, paths, 2, 256)
        rows = []
        with hello() as (baseline, process):
            load(baseline, paths, 1, 256)
            for round_number in range(rounds):
                row: dict[str, Any] = {}
                for connections in (256, 64):
                    before = cpu_seconds(process.pid)
                    constant = load(baseline, paths, seconds, connections)
                    row[f"hello_{connections}"] = constant["per_second"]
                    row[f"hello_cpu_{connections}"] = (
                        (cpu_seconds(process.pid) - before) / constant["acknowledged"] * 1e6
                    )
                    server_before, postgres_before = server.cpu(), postgres.cpu()
                    seen = load(server.target, paths, seconds, connections)
                    pings = seen["acknowledged"]
                    row[f"pings_{connections}"] = seen["per_second"]
                    row[f"ratio_{connections}"] = seen["per_second"] / constant["per_second"]
                    row[f"cpu_server_{connections}"] = (server.cpu() - server_before) / pings * 1e6
                    row[f"cpu_postgres_{connections}"] = (postgres.cpu() - postgres_before) / pings * 1e6
                    row[f"p99_{connections}"] = seen["p99_ms"]
                half = load(server.target, paths, seconds, 256, "--rate", str(row["pings_256"] / 2))
                row["half_p50"], row["half_p99"] = half["p50_ms"], half["p99_ms"]
                rows.append(row)
                say(
                    f"round {round_number + 1}: "
                    + ", ".join(f"{name} {value:,.3g}" for name, value in row.items())
                )
        server.stop()
        raw = {"disk_syncs": syncs_per_second(folder)}
        postgres.sql("""
            CREATE TABLE bench_id AS SELECT row_number() OVER ()::int AS n, id FROM monitor;
            ALTER TABLE bench_id ADD PRIMARY KEY (n);
            ANALYZE bench_id;
        """)
        for clients in (1, 2):
            raw[f"like_statement_{clients}"] = limit(postgres, folder, clients)
        say("raw limits: " + ", ".join(f"{name} {value:,.0f}" for name, value in raw.items()))
    return raw | {name: statistics.median(row[name] for row in rows) for name in rows[0]}


if __name__ == "__main__":
    for name, value in measure().items():
        print(f"{name:>20} {value:,.2f}")
