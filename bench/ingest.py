"""Durable pings a second, against actix-web answering a constant; CPU a ping; latency at half of the rate."""

from __future__ import annotations

import statistics
from typing import Any

from stand import Server, build, cpu_seconds, hello, load, ping_paths, say, seed_monitors, stand


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
    return {name: statistics.median(row[name] for row in rows) for name in rows[0]}


if __name__ == "__main__":
    for name, value in measure().items():
        print(f"{name:>20} {value:,.2f}")
