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
        ["prune"],
        ["schedule"],
        ["account"],
        ["account", "create"],
        ["project", "create"],
        ["member"],
        ["member", "list"],
        ["member", "role"],
        ["member", "remove"],
        ["member", "invite"],
        ["secrets"],
        ["secrets", "rotate"],
        ["alert"],
        ["alert", "preview"],
    ):
        done = deadbeat(*command, "--help")
        assert done.returncode == 0, done.stderr
        assert "Usage: deadbeat" in done.stdout


def test_a_project_is_made_beside_a_running_server(server: parts.Server) -> None:
    done = deadbeat(
        *("project", "create", "--name", "Payments", "--json", "--data-dir", str(server.data)),
        *("--site-url", server.url),
    )
    assert done.returncode == 0, done.stderr
    made = json.loads(done.stdout)
    assert {"project_id", "api_key", "read_key", "ping_key", "sentry_dsn"} <= set(made)

    status, _, body = parts.call("GET", f"{server.url}/api/v1/project", made["read_key"])
    project = json.loads(body)
    assert (status, project["name"]) == (200, "Payments")
    assert made["sentry_dsn"] == project["sentry_dsn"].replace("<ping key>", made["ping_key"])
    assert parts.call("GET", f"{server.url}/ping/{made['ping_key']}/job?create=1")[0] == 201
    assert server.api("GET", "/monitors")["monitors"] == [], "another project's monitor is not seen"


def test_members_are_managed_beside_a_running_server(server: parts.Server) -> None:
    made = deadbeat("project", "create", "--name", "Members", "--json", "--data-dir", str(server.data))
    of = ("--project", json.loads(made.stdout)["project_id"], "--json", "--data-dir", str(server.data))

    owner = json.loads(deadbeat("member", "list", *of).stdout)
    assert owner["role"] == "owner"
    for command in (("role", "--role", "viewer"), ("remove",)):
        refused = deadbeat("member", *command, *of, "--account", owner["account_id"])
        assert refused.returncode != 0, refused
        assert "last owner" in refused.stderr

    made = deadbeat("member", "invite", *of, "--role", "member", "--site-url", server.url)
    link = json.loads(made.stdout)["url"]
    assert link.startswith(f"{server.url}/invitations/")
    assert parts.call("GET", link)[0] == 200
    assert parts.call("GET", f"{link}x")[0] == 404


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
    # Compose files write an empty variable for "not set".
    unset = dict.fromkeys(
        (
            "DEADBEAT_DATABASE_URL",
            "DEADBEAT_SMTP_URL",
            "DEADBEAT_SITE_URL",
            "DEADBEAT_POSTGRES_BIN",
            "DEADBEAT_SECRET_KEY",
        ),
        "",
    )
    examined = deadbeat("doctor", "--data-dir", data, "--listen", "127.0.0.1:0", env=unset)
    assert examined.returncode == 0, examined.stdout + examined.stderr
    assert "schema: up to date" in examined.stdout
    assert "secrets: no key yet" in examined.stdout
    assert not (tmp_path / "data" / "postgres" / "postmaster.pid").exists()


def test_a_schedule_is_explained_without_a_server() -> None:
    berlin = ("--tz", "Europe/Berlin", "--after", "2026-03-28T12:00:00Z", "--count", "2")
    done = deadbeat("schedule", "30 2 * * *", *berlin)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines() == [
        "at 02:30 every day, Europe/Berlin",
        "2026-03-29T01:00:00Z  Sun 2026-03-29 03:00:00 +02:00",
        "2026-03-30T00:30:00Z  Mon 2026-03-30 02:30:00 +02:00",
    ]
    answer = json.loads(deadbeat("schedule", "30 2 * * *", *berlin, "--json").stdout)
    assert answer.pop("time_zone_database") >= "2026f"
    assert answer.pop("time_zone_origin") in ("built_in", "machine")
    assert answer == {
        "summary": "at 02:30 every day, Europe/Berlin",
        "slots": ["2026-03-29T01:00:00Z", "2026-03-30T00:30:00Z"],
        "schedule": {"kind": "cron", "expression": "30 2 * * *", "timezone": "Europe/Berlin"},
    }


def test_a_schedule_of_every_kind_is_explained() -> None:
    after = ("--after", "2026-01-15T12:00:00Z", "--count", "1")
    for expression, options, summary, slot in (
        (
            "*/5 * * * *",
            ["--kind", "celery", "--tz", "US/Eastern"],
            "every 5 minutes, America/New_York",
            "12:05:00Z",
        ),
        ("10 * * * * *", [], "cron 10 * * * * *, UTC", "12:00:10Z"),
        ("90", ["--kind", "interval"], "every 90 seconds", "12:01:30Z"),
        ("0 30 18 ? * 2-6", ["--kind", "quartz"], "at 18:30 on weekdays, UTC", "18:30:00Z"),
        ("*-*-* 18:30\n19:00", ["--kind", "oncalendar"], "calendar *-*-* 18:30 and 19:00, UTC", "18:30:00Z"),
        (
            '{"kind": "interval", "seconds": 3600, "anchor": "2026-01-01T00:15:00Z"}',
            [],
            "every hour from 2026-01-01T00:15:00Z",
            "12:15:00Z",
        ),
    ):
        done = deadbeat("schedule", expression, *options, *after)
        assert done.returncode == 0, done.stderr
        words, first = done.stdout.splitlines()
        assert (words, first.split()[0]) == (summary, f"2026-01-15T{slot}")
    # By default, ten slots from now on.
    done = deadbeat("schedule", "* * * * *")
    assert len(done.stdout.splitlines()) == 11
    hint = deadbeat("schedule", '{"kind": "hint", "class": "rrule"}')
    assert (hint.returncode, hint.stdout) == (0, "at times that Beat computes (rrule)\n")


def test_a_fault_in_a_schedule_is_pointed_at() -> None:
    for expression, options, lines in (
        ("0 25 * * *", [], ["deadbeat: character 3: hour takes 0 to 23, not '25'", "  0 25 * * *", "    ^"]),
        (
            "0 1,24 * * *",
            ["--kind", "celery"],
            ["deadbeat: hour, character 3: takes 0 to 23, not '24'", "  1,24", "    ^"],
        ),
        (
            "0 0 12 1 2 ? 19",
            ["--kind", "quartz"],
            [None, "  0 0 12 1 2 ? 19", "               ^"],
        ),
        (
            "daily\nMon 25:00",
            ["--kind", "oncalendar"],
            [None, "  Mon 25:00", "      ^"],
        ),
        (
            "* * * * *",
            ["--tz", "Mars"],
            ["deadbeat: there is no time zone 'Mars'; it is an IANA name like Europe/Berlin"],
        ),
        (
            "ten",
            ["--kind", "interval"],
            ["deadbeat: an interval is a number of seconds, not 'ten': invalid float literal"],
        ),
        ('{"kind": "cron"', [], [None]),
        ('{"kind": "hint"}', [], ["deadbeat: class is missing"]),
    ):
        done = deadbeat("schedule", expression, *options)
        assert (done.returncode, done.stdout) == (1, ""), done.stdout
        found = done.stderr.splitlines()
        assert len(found) == len(lines), done.stderr
        for line, expected in zip(found, lines, strict=True):
            assert expected in (None, line), done.stderr
    for options, word in (
        (["--count", "0"], "1..=500"),
        (["--count", "501"], "1..=500"),
        (["--kind", "lunar"], "oncalendar"),
        (["--after", "yesterday"], "--after"),
    ):
        done = deadbeat("schedule", "* * * * *", *options)
        assert (done.returncode, done.stdout) == (2, "")
        assert word in done.stderr


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
