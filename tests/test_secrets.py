"""The key of the secrets of channels: created, refused, missing, replaced while servers run."""

from __future__ import annotations

import json
import os
import stat
import subprocess
from pathlib import Path

import parts
from postgres import Postgres, rows
from test_command_line import deadbeat

MARK = "S3CRETmarkS3CRET"
OTHER_KEY = "08" * 32


def hook(server: parts.Server, url: str) -> dict[str, object]:
    made = server.api("POST", "/channels", {"kind": "webhook", "name": "hook", "settings": {"url": url}})
    assert isinstance(made, dict)
    return made


def missing_keys(server: parts.Server) -> list[dict[str, object]]:
    found = json.loads(parts.call("GET", f"{server.url}/readyz")[2])["missing_keys"]
    assert isinstance(found, list)
    return found


def test_the_first_start_makes_a_key_that_only_its_owner_reads(sink: parts.Sink, tmp_path: Path) -> None:
    server = parts.Server(tmp_path, env={"DEADBEAT_LOG": "trace"})
    file = server.data / "secret.key"
    try:
        server.ready()
        assert stat.S_IMODE(file.stat().st_mode) == 0o600
        made = hook(server, f"{sink.url}/{MARK}/0123456789")
        server.api("POST", f"/channels/{made['id']}/test", {})
        parts.wait_for("the test", lambda: sink.alerts("channel.test"))
        examined = deadbeat("doctor", "--data-dir", str(server.data), "--listen", "127.0.0.1:0")
        assert f"of {file} seals 1 channels" in examined.stdout, examined.stdout

        [key] = [line for line in file.read_text().splitlines() if not line.startswith("#")]
        for secret in (MARK, key, made["signing_secret"]):
            assert str(secret) not in server.part.text()
        server.stop()

        # Others may read the file: the server refuses it and says what to do.
        file.chmod(0o644)
        server.part = server._launch()
        assert server.part.process.wait(60) != 0
        assert f"chmod 600 {file}" in server.part.text()
        examined = deadbeat("doctor", "--data-dir", str(server.data), "--listen", "127.0.0.1:0")
        assert examined.returncode != 0
        assert "MISSING  secrets" in examined.stdout

        # The key is lost: the server starts all the same, and creates no other.
        file.unlink()
        server.again()
        [missing] = parts.wait_for("the missing key", lambda: missing_keys(server))
        assert missing["channels"] == 1
        assert not file.exists()
        assert "is missing" in server.api("GET", f"/channels/{made['id']}")["unopened_reason"]
        ping = f"{server.url}/ping/{server.keys['ping key']}/job?create=1&period=60"
        assert parts.call("GET", ping)[0] == 201
    finally:
        server.stop()


def test_a_wrong_key_is_refused_and_not_repeated(tmp_path: Path) -> None:
    for wrong in ("c2hvcnQtaHVudGVyMg==", f"{OTHER_KEY},hunter2"):
        done = deadbeat("serve", "--data-dir", str(tmp_path / "data"), env={"DEADBEAT_SECRET_KEY": wrong})
        assert done.returncode != 0
        assert "DEADBEAT_SECRET_KEY: key" in done.stderr
        assert "openssl rand" in done.stderr
        assert "hunter2" not in done.stderr
        assert "c2hvcnQ" not in done.stderr


def test_of_two_servers_with_different_keys_one_seals_and_the_other_says_what_is_missing(
    database: Postgres, tmp_path: Path
) -> None:
    servers = []
    try:
        for name, key in (("one", parts.SECRET_KEY), ("two", OTHER_KEY)):
            (tmp_path / name).mkdir()
            env = {"DEADBEAT_DATABASE_URL": database.url, "DEADBEAT_SECRET_KEY": key}
            servers.append(parts.Server(tmp_path / name, env=env))
        # Both servers started at once on an empty database.
        for server in servers:
            server.ready()
        keys = next(server.keys for server in servers if server.keys)
        answers = []
        body = {"kind": "webhook", "name": "hook", "settings": {"url": "http://127.0.0.1:9000/x"}}
        for server in servers:
            server.keys = keys
            answers.append(parts.call("POST", f"{server.url}/api/v1/channels", keys["API key"], body))
        assert sorted(status for status, *_ in answers) == [201, 503], answers

        [refused] = [json.loads(body) for status, _, body in answers if status == 503]
        [[agreed]] = rows(database.url, "SELECT key_id FROM sealing_key")
        assert refused["code"] == "key_missing"
        assert agreed in refused["detail"]
        loser = servers[[status for status, *_ in answers].index(503)]
        [missing] = parts.wait_for("the missing key", lambda: missing_keys(loser))
        assert missing["key_id"] == agreed
    finally:
        for server in servers:
            server.stop()


def test_a_rotation_is_killed_and_goes_on_while_the_server_delivers(
    database: Postgres, sink: parts.Sink, tmp_path: Path
) -> None:
    env = {"DEADBEAT_DATABASE_URL": database.url}
    server = parts.Server(tmp_path, env=env)
    try:
        server.ready()
        made = hook(server, sink.url)
        # More channels than a project may have: the rotation takes several batches.
        rows(
            database.url,
            """
            INSERT INTO channel (id, project_id, kind, name, settings, signing_secret, created_at, updated_at)
            SELECT gen_random_uuid(), project_id, 'webhook', 'old', '{"url": "http://127.0.0.1:9/"}',
                'whsec_AAAA', now(), now()
            FROM channel, generate_series(1, 3000)
            """,
        )
        server.stop()
        server.again()
        clear = "SELECT count(*) FROM channel WHERE sealed IS NULL"
        parts.wait_for("the sealing", lambda: rows(database.url, clear) == [["0"]])
        before = rows(database.url, "SELECT DISTINCT sealed ->> 'key' FROM channel")
        assert len(before) == 1

        command = [str(parts.BINARY), "secrets", "rotate", "--data-dir", str(server.data)]
        rotating = subprocess.Popen(command, env={**os.environ, **env}, stdout=subprocess.PIPE, text=True)
        assert rotating.stdout is not None
        assert "of 3001 channels" in rotating.stdout.readline()
        rotating.kill()
        rotating.communicate()
        done = deadbeat("secrets", "rotate", "--data-dir", str(server.data), env=env)
        assert done.returncode == 0, done.stderr

        [[after]] = rows(database.url, "SELECT DISTINCT sealed ->> 'key' FROM channel")
        assert [after] != before[0]
        assert f"key {after} seals from now on" in done.stdout
        lines = (server.data / "secret.key").read_text().splitlines()
        assert len([line for line in lines if not line.startswith("#")]) == 2
        server.api("POST", f"/channels/{made['id']}/test", {})
        parts.wait_for("the test", lambda: sink.alerts("channel.test"))
    finally:
        server.stop()
