"""Durable run stages a second, in gzipped batches of 200 as the SDK sends them, compared with a constant."""

from __future__ import annotations

import json
import statistics
import subprocess
from pathlib import Path
from typing import Any

from stand import RELEASE, Postgres, Server, build, cpu_seconds, hello, say, stand, syncs_per_second

STAGES = 240_000


def stages(target: str, key: str, connections: int, count: int = STAGES) -> dict[str, Any]:
    command = [str(RELEASE / "stages"), "--target", target, "--key", key]
    command += ["--connections", str(connections), "--stages", str(count)]
    done: dict[str, Any] = json.loads(subprocess.check_output(command))
    return done


def ping_key(server: Server) -> str:
    """The ping key, which the server prints once, at its first start."""
    (line,) = (line for line in server.log.read_text().splitlines() if line.strip().startswith("ping key"))
    return line.split()[-1]


def one_round(server: Server, postgres: Postgres, key: str, connections: int) -> dict[str, float]:
    """One round; the table keeps the rows of earlier rounds."""
    cpu = (server.cpu(), postgres.cpu())
    batches = server.metrics()["deadbeat_trace_batches_total"]
    wal = int(postgres.sql("SELECT pg_wal_lsn_diff(pg_current_wal_lsn(), '0/0')::bigint"))
    seen = stages(server.target, key, connections)
    written = int(postgres.sql("SELECT pg_wal_lsn_diff(pg_current_wal_lsn(), '0/0')::bigint")) - wal
    count = seen["stages"]
    assert seen["rejected"] == 0, seen
    return {
        "stages": seen["per_second"],
        "cpu_server": (server.cpu() - cpu[0]) / count * 1e6,
        "cpu_postgres": (postgres.cpu() - cpu[1]) / count * 1e6,
        "p50_ms": seen["p50_ms"],
        "p99_ms": seen["p99_ms"],
        "refused": seen["refused"],
        "stages_a_commit": count / (server.metrics()["deadbeat_trace_batches_total"] - batches),
        "wal_bytes": written / count,
        "bytes": seen["bytes_a_stage"],
    }


def measure(rounds: int = 3) -> dict[str, Any]:
    build()
    with stand() as (folder, postgres):
        server = Server(postgres, folder)
        key = ping_key(server)
        stages(server.target, key, 8, 20_000)
        rows = []
        with hello() as (baseline, process):
            for number in range(rounds):
                before = cpu_seconds(process.pid)
                constant = stages(baseline, key, 8)
                row = {"hello": constant["per_second"]}
                row["hello_cpu"] = (cpu_seconds(process.pid) - before) / constant["stages"] * 1e6
                row |= one_round(server, postgres, key, 8)
                row["ratio"] = row["stages"] / row["hello"]
                rows.append(row)
                say(
                    f"round {number + 1}: " + ", ".join(f"{name} {value:,.3g}" for name, value in row.items())
                )
        stored = postgres.sql("""
            SELECT count(*), count(*) FILTER (WHERE state = 'success' AND jsonb_array_length(stages) = 4),
                pg_total_relation_size('trace') / count(*) FROM trace
        """)
        say(f"runs, whole ones, bytes a run with its indexes: {stored}")
        hot = postgres.sql("SELECT n_tup_upd, n_tup_hot_upd FROM pg_stat_user_tables WHERE relname = 'trace'")
        say(f"updates, hot ones: {hot}")
        server.stop()
        raw = {"disk_syncs": syncs_per_second(Path(folder))}
    return raw | {name: statistics.median(row[name] for row in rows) for name in rows[0]}


if __name__ == "__main__":
    for name, value in measure().items():
        print(f"{name:>20} {value:,.2f}")
