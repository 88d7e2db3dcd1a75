"""A server answers from its first moment on, even if its database is away, hangs, migrates or is too new."""

from __future__ import annotations

import json
import subprocess
import uuid
from pathlib import Path

import pytest

import parts
from postgres import Postgres, rows
from proxy import Proxy
from test_command_line import deadbeat

# Records the timeout under which each change of the schema runs.
NOTE_LIMITS = """
CREATE TABLE seen (statement_timeout text);
CREATE FUNCTION note() RETURNS event_trigger LANGUAGE plpgsql AS $$
BEGIN INSERT INTO public.seen VALUES (current_setting('statement_timeout')); END $$;
CREATE EVENT TRIGGER note ON ddl_command_start EXECUTE FUNCTION note();
"""
# Delays the fifth change of the schema, which is one of migration 1.
NAP = """
CREATE SEQUENCE statements_seen;
CREATE FUNCTION nap() RETURNS event_trigger LANGUAGE plpgsql AS $$
BEGIN IF nextval('public.statements_seen') = 5 THEN PERFORM pg_sleep(600); END IF; END $$;
CREATE EVENT TRIGGER nap ON ddl_command_start EXECUTE FUNCTION nap();
"""


def healthy(server: parts.Server) -> bool:
    return parts.call("GET", f"{server.url}/healthz")[0] == 200


def readiness(server: parts.Server) -> tuple[int, dict[str, object]]:
    status, _, body = parts.call("GET", f"{server.url}/readyz", limit=30)
    return status, json.loads(body or b"{}")


def naps(database: Postgres) -> list[list[str]]:
    return rows(database.url, "SELECT pid FROM pg_stat_activity WHERE wait_event = 'PgSleep'")


@pytest.mark.parametrize("how", ["refuses", "hangs"])
def test_a_server_that_starts_without_its_database_serves_and_obeys(
    database: Postgres, tmp_path: Path, how: str
) -> None:
    proxy = Proxy(database.port)
    proxy.refuse() if how == "refuses" else proxy.hang()
    env = {"DEADBEAT_DATABASE_URL": f"postgres://postgres@127.0.0.1:{proxy.port}/postgres"}
    server = parts.Server(tmp_path, env=env)
    try:
        parts.wait_for("health", lambda: healthy(server))
        status, alerted = readiness(server)
        assert (status, alerted["ready"], alerted["database"]) == (503, False, False)
        assert alerted["reason"] == "this server has not reached its database since it started"
        assert parts.call("GET", f"{server.url}/api/v1/monitors", "dbw_" + 32 * "a", limit=30)[0] == 503
        # The server does not know yet whose ping this is: it keeps the ping unchecked.
        assert parts.call("GET", f"{server.url}/ping/{uuid.uuid4()}", limit=30)[0] == 200
        parts.wait_for("its cause in the log", lambda: "the database is away: " in server.part.text())

        assert server.stop() == 0, server.part.text()
    finally:
        server.stop()
        proxy.stop()


def test_pings_that_come_before_the_database_are_kept(database: Postgres, tmp_path: Path) -> None:
    proxy = Proxy(database.port)
    env = {"DEADBEAT_DATABASE_URL": f"postgres://postgres@127.0.0.1:{proxy.port}/postgres"}
    server = parts.Server(tmp_path, env=env)
    try:
        server.ready()
        schedule = {"kind": "interval", "seconds": 3600}
        monitor = server.api("POST", "/monitors", {"name": "job", "schedule": schedule})
        server.stop()
        proxy.refuse()

        server.part = server._launch()
        parts.wait_for("health", lambda: healthy(server))
        for _ in range(3):
            assert parts.call("GET", monitor["ping_url"], limit=30)[0] == 200
        proxy.heal()
        server.drained()

        assert server.api("GET", f"/monitors/{monitor['id']}")["ping_count"] == 3
    finally:
        server.stop()
        proxy.stop()


def test_without_a_spool_a_ping_that_comes_before_the_database_is_refused(tmp_path: Path) -> None:
    env = {
        "DEADBEAT_DATABASE_URL": f"postgres://postgres@127.0.0.1:{parts.free_port()}/postgres",
        "DEADBEAT_SPOOL_MB": "0",
    }
    server = parts.Server(tmp_path, env=env)
    try:
        parts.wait_for("health", lambda: healthy(server))
        status, headers, body = parts.call("GET", f"{server.url}/ping/{uuid.uuid4()}", limit=30)
        assert (status, body) == (503, b"database away, try again")
        assert int(headers["retry-after"]) > 0
    finally:
        server.stop()


def test_the_first_start_shows_the_keys_when_the_database_comes(database: Postgres, tmp_path: Path) -> None:
    proxy = Proxy(database.port)
    proxy.refuse()
    env = {"DEADBEAT_DATABASE_URL": f"postgres://postgres@127.0.0.1:{proxy.port}/postgres"}
    server = parts.Server(tmp_path, env=env)
    try:
        parts.wait_for("health", lambda: healthy(server))
        assert "API key" not in server.part.text()
        proxy.heal()

        server.ready()

        assert server.api("GET", "/monitors")["monitors"] == []
    finally:
        server.stop()
        proxy.stop()


def test_a_server_serves_while_it_migrates_and_leaves_no_lock_when_it_is_stopped(
    database: Postgres, tmp_path: Path
) -> None:
    rows(database.url, NAP)
    server = parts.Server(tmp_path, env={"DEADBEAT_DATABASE_URL": database.url})
    try:
        parts.wait_for("its migration", lambda: naps(database))
        assert healthy(server)
        status, alerted = readiness(server)
        assert (status, alerted["reason"]) == (503, "the database's schema is being brought up to date")
        assert parts.call("GET", f"{server.url}/ping/{uuid.uuid4()}", limit=30)[0] == 200

        assert server.stop() == 0, server.part.text()
        # PostgreSQL ends the statement of a dead client, and releases the lock of the migration.
        parts.wait_for("the end of its migration", lambda: not naps(database), 60)
        server.again()
    finally:
        server.stop()


@pytest.mark.parametrize("command", ["serve", "migrate"])
def test_no_statement_of_a_migration_has_a_limit(database: Postgres, tmp_path: Path, command: str) -> None:
    rows(database.url, NOTE_LIMITS)
    env = {"DEADBEAT_DATABASE_URL": database.url}

    if command == "serve":
        server = parts.Server(tmp_path, env=env)
        try:
            server.ready()
        finally:
            server.stop()
    else:
        done = deadbeat("migrate", env=env)
        assert done.returncode == 0, done.stderr

    assert rows(database.url, "SELECT DISTINCT statement_timeout FROM seen") == [["0"]]


def test_a_migration_that_is_stopped_is_named_and_tried_again(database: Postgres, tmp_path: Path) -> None:
    rows(database.url, NAP)
    server = parts.Server(tmp_path, env={"DEADBEAT_DATABASE_URL": database.url})
    try:
        [[pid]] = parts.wait_for("its migration", lambda: naps(database))
        rows(database.url, f"SELECT pg_cancel_backend({pid})")

        server.ready()

        assert "migration 1 was stopped (SQLSTATE 57014)" in server.part.text()
    finally:
        server.stop()


def test_a_schema_of_a_newer_server_is_refused(database: Postgres, tmp_path: Path) -> None:
    env = {"DEADBEAT_DATABASE_URL": database.url}
    assert deadbeat("migrate", env=env).returncode == 0
    rows(
        database.url,
        "INSERT INTO _sqlx_migrations"
        " SELECT 9999, description, installed_on, success, checksum, execution_time"
        " FROM _sqlx_migrations LIMIT 1",
    )

    server = parts.Server(tmp_path, env=env)
    try:
        parts.wait_for("its end", lambda: server.part.process.poll() is not None)
        assert server.part.process.returncode == 1
        assert "it has migration 9999, which this server does not know" in server.part.text()
    finally:
        server.stop()


def test_a_certificate_of_version_1_is_named(database: Postgres, tmp_path: Path) -> None:
    # The commands of older manuals: a request, signed without extensions.
    crt, key = database.folder / "server.crt", database.folder / "server.key"
    request = tmp_path / "server.csr"
    for command in (
        ["req", "-new", "-nodes", "-subj", "/CN=localhost", "-keyout", str(key), "-out", str(request)],
        ["x509", "-req", "-in", str(request), "-days", "1", "-signkey", str(key), "-out", str(crt)],
    ):
        subprocess.run(["openssl", *command], check=True, capture_output=True)
    text = subprocess.run(
        ["openssl", "x509", "-noout", "-text", "-in", str(crt)], check=True, capture_output=True, text=True
    ).stdout
    assert "Version: 1 " in text, "openssl makes what this test is about"
    database.owns(crt, key)
    rows(database.url, "ALTER SYSTEM SET ssl = on")
    rows(database.url, "SELECT pg_reload_conf()")
    parts.wait_for("TLS", lambda: rows(database.url, "SHOW ssl") == [["on"]])

    done = deadbeat("migrate", env={"DEADBEAT_DATABASE_URL": database.url})

    assert done.returncode == 1
    assert "the server's certificate is of X.509 version 1; make a v3 one: openssl" in done.stderr
