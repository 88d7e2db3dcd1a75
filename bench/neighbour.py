"""How long a project's alerts take from the outbox to `sent` while another's endpoints never answer."""

from __future__ import annotations

import contextlib
import socket
import threading
import time

from stand import Postgres, Receiver, Server, build, say, seed_projects, stand

CHANNELS = 200
TESTS = 2_000
ALERTS = 100


class Tarpit:
    """Takes connections and never answers."""

    def __init__(self) -> None:
        self.listener = socket.create_server(("127.0.0.1", 0), backlog=1_024)
        self.held: list[socket.socket] = []
        threading.Thread(target=self.accept, daemon=True).start()

    def url(self) -> str:
        return f"http://127.0.0.1:{self.listener.getsockname()[1]}/tarpit"

    def accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                self.held.append(self.listener.accept()[0])

    def stop(self) -> None:
        self.listener.close()
        for connection in self.held:
            connection.close()


def attack(postgres: Postgres, url: str) -> None:
    """Adds hanging channels to the first project, and tests that wait for them."""
    postgres.sql(f"""
        WITH hanging AS (
            INSERT INTO channel (id, project_id, kind, name, settings, signing_secret, created_at, updated_at)
            SELECT gen_random_uuid(), project_id, kind, name, jsonb_build_object('url', '{url}'),
                'whsec_' || encode(decode(md5(id::text), 'hex'), 'base64'), now(), now()
            FROM (SELECT * FROM channel WHERE project_id = md5('project 1')::uuid LIMIT 1) AS one,
                generate_series(1, {CHANNELS})
            RETURNING id, project_id
        )
        INSERT INTO delivery (id, project_id, channel_id, alert, payload, status, created_at, next_attempt_at)
        SELECT gen_random_uuid(), project_id, id, 'test', '{{"type": "channel.test"}}', 'pending',
            now(), now()
        FROM hanging, generate_series(1, {TESTS // CHANNELS});
    """)


def seconds_to_sent(postgres: Postgres) -> list[float]:
    """Alerts of the second project, one after the other. Nothing wakes the loop: each waits for a poll."""
    found = []
    for _ in range(ALERTS):
        delivery = postgres.sql("""
            INSERT INTO delivery
                (id, project_id, channel_id, alert, payload, status, created_at, next_attempt_at)
            SELECT gen_random_uuid(), project_id, id, 'test', '{"type": "channel.test"}', 'pending',
                clock_timestamp(), now()
            FROM channel WHERE project_id = md5('project 2')::uuid LIMIT 1 RETURNING id;
        """).split()[0]
        took = ""
        while not took:
            time.sleep(0.02)
            took = postgres.sql(f"""
                SELECT extract(epoch FROM settled_at - created_at)
                FROM delivery WHERE id = '{delivery}' AND status = 'sent'
            """).strip()
        found.append(float(took))
    return sorted(found)


def measure() -> None:
    build()
    with stand() as (folder, postgres):
        receiver, tarpit = Receiver(), Tarpit()
        server = Server(postgres, folder)
        seed_projects(postgres, 2, 2, f"http://{receiver.target}/hook")
        quiet = seconds_to_sent(postgres)
        attack(postgres, tarpit.url())
        time.sleep(3)
        beside = seconds_to_sent(postgres)
        place = int(ALERTS * 0.99) - 1
        for name, values in (("quiet", quiet), ("beside the attack", beside)):
            say(f"{name}: p50 {values[ALERTS // 2]:.2f} s, p99 {values[place]:.2f} s")
        say(f"p99 beside the attack / quiet: {beside[place] / quiet[place]:.2f}")
        server.stop()
        tarpit.stop()
        receiver.stop()


if __name__ == "__main__":
    measure()
