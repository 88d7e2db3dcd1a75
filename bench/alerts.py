"""Alerts end to end: from a deadline to the webhook at its receiver, under steady load; webhooks a second."""

from __future__ import annotations

import sys
import time
from typing import Any

from stand import Postgres, Receiver, Server, build, make_due, say, seed_projects, settle, stand

A_SECOND = 50
SECONDS = 30
BACKLOG = 20_000


def lateness(postgres: Postgres, receiver: Receiver, first: int) -> dict[str, float]:
    """`A_SECOND` deadlines a second, with two webhooks each."""
    count = A_SECOND * SECONDS
    make_due(
        postgres,
        first,
        first + count - 1,
        f"now() + interval '5 seconds' + (i - {first}) * interval '1 second' / {A_SECOND}",
    )
    settle(postgres)
    receiver.figures()
    time.sleep(SECONDS + 8)
    figures = receiver.figures()
    if figures["count"] != 2 * count:
        raise RuntimeError(f"{figures['count']} webhooks came, not {2 * count}")
    return {"p50_ms": figures["p50_ms"], "p99_ms": figures["p99_ms"], "max_ms": figures["max_ms"]}


def armed_just_now(postgres: Postgres, receiver: Receiver, first: int, count: int = 25) -> dict[str, float]:
    """Deadlines written a moment before they pass, while the evaluator sleeps: the cost of a poll."""
    receiver.figures()
    for number in range(first, first + count):
        # A twentieth to nineteen twentieths of a second ahead.
        ahead = 0.05 + 0.9 * ((number * 37) % 100) / 100
        make_due(postgres, number, number, f"clock_timestamp() + interval '{ahead} seconds'")
        # Between two of them, nothing else wakes the evaluator.
        time.sleep(1.5)
    time.sleep(4)
    figures = receiver.figures()
    if figures["count"] != 2 * count:
        raise RuntimeError(f"{figures['count']} webhooks came, not {2 * count}")
    return {"p50_ms": figures["p50_ms"], "p99_ms": figures["p99_ms"], "max_ms": figures["max_ms"]}


def backlog(postgres: Postgres, receiver: Receiver, server: Server) -> dict[str, float]:
    """A backlog of deliveries to a thousand channels."""
    receiver.figures()
    before = server.cpu(), postgres.cpu(), receiver.cpu()
    postgres.sql(f"""
        INSERT INTO delivery (id, project_id, channel_id, alert, payload, status, created_at, next_attempt_at)
        SELECT gen_random_uuid(), project_id, id, 'test', jsonb_build_object('text', repeat('x', 1300)),
            'pending', now(), now()
        FROM channel, generate_series(1, {BACKLOG} / (SELECT count(*) FROM channel)) AS n;
    """)
    while postgres.sql("SELECT EXISTS (SELECT FROM delivery WHERE status = 'pending')") == "t":
        time.sleep(0.5)
    figures = receiver.figures()
    after = server.cpu(), postgres.cpu(), receiver.cpu()
    used = [(now - then) / BACKLOG * 1e6 for now, then in zip(after, before, strict=True)]
    return {
        "per_second": figures["count"] / figures["seconds"],
        "cpu_server_us": used[0],
        "cpu_postgres_us": used[1],
        "cpu_receiver_us": used[2],
    }


def measure(rounds: int = 3) -> dict[str, list[float]]:
    build()
    found: dict[str, list[float]] = {}

    def keep(name: str, row: dict[str, Any]) -> None:
        say(f"{name}: " + ", ".join(f"{key} {value:,.0f}" for key, value in row.items()))
        for key, value in row.items():
            found.setdefault(f"{name}_{key}", []).append(value)

    with stand() as (folder, postgres):
        receiver = Receiver()
        server = Server(postgres, folder)
        seed_projects(postgres, 500, 100_000, f"http://{receiver.target}/hook")
        place = 1
        for _ in range(rounds):
            keep("steady", lateness(postgres, receiver, place))
            place += A_SECOND * SECONDS
            keep("armed_just_now", armed_just_now(postgres, receiver, place))
            place += 25
            keep("backlog", backlog(postgres, receiver, server))
        server.stop()
        receiver.stop()
    return found


if __name__ == "__main__":
    for name, values in measure(int(sys.argv[1]) if len(sys.argv) > 1 else 3).items():
        print(f"{name:>30} {sorted(values)[len(values) // 2]:,.0f}   {[round(one) for one in values]}")
