"""The command line, beside a running server and without one."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import parts


def deadbeat(
    *arguments: str, env: dict[str, str] | None = None, text: str = ""
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(parts.BINARY), *arguments],
        env={**os.environ, **(env or {})},
        input=text,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def test_every_command_explains_itself() -> None:
    for command in (
        [],
        ["serve"],
        ["migrate"],
        ["doctor"],
        ["account"],
        ["account", "create"],
        ["project", "create"],
    ):
        done = deadbeat(*command, "--help")
        assert done.returncode == 0, done.stderr
        assert "Usage: deadbeat" in done.stdout


def test_a_project_is_made_beside_a_running_server(server: parts.Server) -> None:
    done = deadbeat("project", "create", "--name", "Payments", "--json", "--data-dir", str(server.data))
    assert done.returncode == 0, done.stderr
    made = json.loads(done.stdout)
    assert {"project_id", "api_key", "read_key", "ping_key"} <= set(made)

    status, _, body = parts.call("GET", f"{server.url}/api/v1/project", made["read_key"])
    assert (status, json.loads(body)["name"]) == (200, "Payments")
    assert parts.call("GET", f"{server.url}/ping/{made['ping_key']}/job?create=1")[0] == 201
    assert server.api("GET", "/monitors")["monitors"] == [], "another project's monitor is not seen"


def test_commands_work_without_a_server_and_leave_nothing_running(tmp_path: Path) -> None:
    data = str(tmp_path / "data")
    assert deadbeat("migrate", "--data-dir", data).returncode == 0
    made = deadbeat(
        "account",
        "create",
        "--email",
        "ops@example.org",
        "--password-stdin",
        "--json",
        "--data-dir",
        data,
        text="correct horse",
    )
    assert made.returncode == 0, made.stderr
    assert json.loads(made.stdout)["email"] == "ops@example.org"
    twice = deadbeat("account", "create", "--email", "OPS@example.org", "--data-dir", data)
    assert twice.returncode != 0
    assert "already" in twice.stderr
    short = deadbeat(
        "account", "create", "--email", "x@example.org", "--password-stdin", "--data-dir", data, text="short"
    )
    assert short.returncode != 0
    assert "password" in short.stderr
    # Empty is how compose files say "not set".
    unset = dict.fromkeys(
        ("DEADBEAT_DATABASE_URL", "DEADBEAT_SMTP_URL", "DEADBEAT_SITE_URL", "DEADBEAT_POSTGRES_BIN"), ""
    )
    looked = deadbeat("doctor", "--data-dir", data, "--listen", "127.0.0.1:0", env=unset)
    assert looked.returncode == 0, looked.stdout + looked.stderr
    assert "schema: up to date" in looked.stdout
    assert not (tmp_path / "data" / "postgres" / "postmaster.pid").exists()


def test_bad_settings_are_refused_with_what_is_allowed(tmp_path: Path) -> None:
    for arguments, word in (
        (["--listen", "nowhere"], "--listen"),
        (["--site-url", "ftp://x"], "http://"),
        (["--listen", "127.0.0.1:0", "--database-url", "mysql://x"], "postgres://"),
        (["--listen", "127.0.0.1:0", "--postgres-bin", str(tmp_path)], "DEADBEAT_POSTGRES_BIN"),
    ):
        done = deadbeat("serve", "--data-dir", str(tmp_path / "data"), *arguments)
        assert done.returncode != 0
        assert word in done.stderr, done.stderr


def test_without_postgresql_the_package_is_named(tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    done = deadbeat(
        "serve", "--data-dir", str(tmp_path / "data"), "--listen", "127.0.0.1:0", "--postgres-bin", str(empty)
    )
    assert done.returncode != 0
    assert "initdb" in done.stderr


def test_a_second_server_on_the_same_folder_is_refused(server: parts.Server) -> None:
    done = deadbeat("serve", "--data-dir", str(server.data), "--listen", "127.0.0.1:0")
    assert done.returncode != 0
    assert "already using the data folder" in done.stderr


def test_the_first_start_shows_what_is_needed_and_the_next_does_not(server: parts.Server) -> None:
    shown = server.part.text()
    assert server.url in shown
    assert set(server.keys) == {"API key", "read key", "ping key", "password"}
    assert f"{server.url}/ping/{server.keys['ping key']}/" in shown
    assert "import deadbeat" in shown
    assert f'deadbeat.init(app, url="{server.url}", key="{server.keys["ping key"]}")' in shown

    assert server.stop() == 0
    server.again()
    assert "password" not in server.part.text()
    assert parts.call("GET", f"{server.url}/api/v1/project", server.keys["API key"])[0] == 200
