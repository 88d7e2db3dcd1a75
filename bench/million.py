"""A million monitors: the server's memory, an idle sweep, and the cost of `check_after` under pings."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from stand import Postgres, Server, build, cpu_seconds, load, rss_megabytes, say, seed_projects, stand

MONITORS = 1_000_000
RATE = 5_000
# Monitors that get a ping every twenty seconds, with periods of one to two minutes. `check_after` comes due
# once in a period, so short periods make the most moves.
BUSY = 100_000


def idle(server: Server, seconds: float = 20.0) -> float:
    """Milliseconds of a sweep that finds nothing."""
    before = server.metrics()
    time.sleep(seconds)
    after = server.metrics()
    if after["deadbeat_sweep_rows_total"] != before["deadbeat_sweep_rows_total"]:
        raise RuntimeError("something was due")
    spent, count = (
        after[f"deadbeat_sweep_seconds_{name}"] - before[f"deadbeat_sweep_seconds_{name}"]
        for name in ("sum", "count")
    )
    return spent / count * 1_000


def backend_cpu(postgres: Postgres, user: str) -> float:
    """CPU time of the connections of this user."""
    pids = postgres.sql(f"SELECT pid FROM pg_stat_activity WHERE usename = '{user}'").split()
    return sum(cpu_seconds(int(pid)) for pid in pids)


def mover(postgres: Postgres, folder: Path, paths: Path, seconds: float = 40.0) -> dict[str, float]:
    """One process takes pings, another one sweeps. A database user for each separates their CPU time."""
    postgres.sql(f"""
        UPDATE monitor SET schedule = jsonb_build_object('kind', 'interval', 'seconds', 60 + n % 60),
            grace_seconds = 30, next_due_at = now() + (60 + n % 60) * interval '1 second',
            deadline_at = now() + (90 + n % 60) * interval '1 second',
            check_after = now() + (90 + n % 60) * interval '1 second'
        FROM generate_series(1, {BUSY}) AS n WHERE ping_id = md5('bench ' || n)::uuid;
        CREATE ROLE sweeper SUPERUSER LOGIN;
    """)
    postgres.sql("VACUUM ANALYZE monitor")
    http = Server(postgres, folder, {"DEADBEAT_ROLE": "http"})
    url = postgres.url.replace("postgres@", "sweeper@")
    env = {"DEADBEAT_ROLE": "evaluator", "DEADBEAT_DATABASE_URL": url}
    evaluator = Server(postgres, folder, env, ready="/healthz")

    def cpu() -> list[float]:
        backends = [backend_cpu(postgres, user) for user in ("postgres", "sweeper")]
        return [http.cpu(), evaluator.cpu(), *backends, postgres.cpu()]

    # Until each monitor comes due by the first `check_after` once.
    load(http.target, paths, 60, 64, "--rate", str(RATE))
    before, figures = cpu(), evaluator.metrics()
    seen = load(http.target, paths, seconds, 64, "--rate", str(RATE))
    used = [later - then for then, later in zip(before, cpu(), strict=True)]
    now = evaluator.metrics()
    evaluator.stop()
    http.stop()
    total = used[0] + used[1] + used[4]
    moved = now["deadbeat_sweep_rows_total"] - figures["deadbeat_sweep_rows_total"]
    return {
        "pings_per_second": seen["per_second"],
        "ping_p99_ms": seen["p99_ms"],
        "went_down": float(postgres.sql("SELECT count(*) FROM incident")),
        "moved_per_second": moved / seconds,
        "sweeps_per_second": (now["deadbeat_sweep_seconds_count"] - figures["deadbeat_sweep_seconds_count"])
        / seconds,
        "cpu_pings_percent_of_a_core": (used[0] + used[2]) / seconds * 100,
        "cpu_sweeps_percent_of_a_core": (used[1] + used[3]) / seconds * 100,
        "cpu_all_percent_of_a_core": total / seconds * 100,
        "sweeps_share_of_cpu_percent": (used[1] + used[3]) / total * 100,
        "cpu_us_a_move": (used[1] + used[3]) / max(moved, 1) * 1e6,
    }


def measure() -> dict[str, Any]:
    build()
    found: dict[str, Any] = {}
    with stand() as (folder, postgres):
        server = Server(postgres, folder)
        found["rss_empty_mb"] = rss_megabytes(server.process.pid)
        say(f"seeding {MONITORS:,} monitors")
        seed_projects(postgres, 100, MONITORS, "http://127.0.0.1:9/hook")
        server.stop()
        server = Server(postgres, folder)
        while server.metrics()["deadbeat_registry_pings"] < MONITORS:
            time.sleep(0.5)
        time.sleep(30)  # The first retention pass reads every monitor.
        found["rss_mb"] = rss_megabytes(server.process.pid)
        found["idle_sweep_ms"] = idle(server)
        say(", ".join(f"{name} {value:,.2f}" for name, value in found.items()))
        server.stop()
        paths = folder / "paths"
        ids = postgres.sql(f"SELECT md5('bench ' || n)::uuid FROM generate_series(1, {BUSY}) AS n").split()
        paths.write_text("".join(f"/ping/{one}\n" for one in ids))
        found |= mover(postgres, folder, paths)
    return found


if __name__ == "__main__":
    for name, value in measure().items():
        print(f"{name:>40} {value:,.2f}")
