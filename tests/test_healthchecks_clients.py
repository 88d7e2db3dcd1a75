"""Real clients of Healthchecks, unmodified, after a change of one address."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import beatwatch
import cronalive
import pytest
from beatwatch.celery import monitored_task
from celery import Celery
from healthchecks_decorator import healthcheck
from healthchecks_io import CheckCreate, CheckUpdate, Client
from healthchecks_io.client.check_trap import CheckTrap
from healthchecks_io.client.exceptions import BadAPIRequestError, CheckNotFoundError, HCAPIAuthError
from healthchecks_wrapper import HealthCheck

import parts


class Fault(Exception):
    """The fault of a job."""


@pytest.fixture
def client(server: parts.Server) -> Client:
    return client_of(server, "API key")


def client_of(server: parts.Server, key: str, version: int = 3) -> Client:
    return Client(
        api_key=server.keys[key],
        ping_key=server.keys["ping key"],
        api_url=f"{server.url}/api/",
        ping_url=f"{server.url}/ping/",
        api_version=version,
    )


def check_of(client: Client, name: str) -> tuple[str, str]:
    check = client.create_check(CheckCreate(name=name, timeout=3600, grace=60, unique=["name"]))
    assert check.uuid
    assert check.ping_url
    return check.uuid, check.ping_url


def kinds(client: Client, uuid: str) -> list[str]:
    """What a client's runs left in the history, oldest first."""
    return [ping.type for ping in reversed(client.get_check_pings(uuid))]


@pytest.mark.parametrize("version", [1, 2, 3])
def test_healthchecks_io_manages_checks_in_each_version(server: parts.Server, version: int) -> None:
    client = client_of(server, "API key", version)
    made = client.create_check(
        CheckCreate(name="Nightly backup", tags="prod db", desc="a text", timeout=3600, grace=600)
    )
    uuid = made.uuid or ""
    assert (made.name, made.tags, made.desc, made.timeout, made.grace, made.status) == (
        "Nightly backup",
        "prod db",
        "a text",
        3600,
        600,
        "new",
    )
    assert made.slug == "nightly-backup"
    assert [check.uuid for check in client.get_checks(tags=["prod", "db"])] == [uuid]
    assert client.get_checks(tags=["prod", "none"]) == []
    assert client.get_check(uuid) == made

    update: dict[str, Any] = {"grace": 120, "tags": "prod"}
    changed = client.update_check(uuid, CheckUpdate(**update))
    assert (changed.grace, changed.tags, changed.name) == (120, "prod", "Nightly backup")
    assert client.pause_check(uuid).status == "paused"
    assert client.get_integrations() == []
    assert set(client.get_badges()) == {"*", "prod"}

    reader = client_of(server, "read key", version)
    [seen] = reader.get_checks()
    assert (seen.uuid, seen.ping_url) == (None, None)
    assert seen.unique_key
    assert reader.get_check(seen.unique_key).name == "Nightly backup"
    with pytest.raises(HCAPIAuthError):
        reader.delete_check(uuid)
    with pytest.raises(BadAPIRequestError, match="schedule is not a valid"):
        client.update_check(uuid, CheckUpdate.model_construct({"schedule"}, schedule="x"))
    assert client.delete_check(uuid).name == "Nightly backup"
    with pytest.raises(CheckNotFoundError):
        client.get_check(uuid)


def test_healthchecks_io_pings_and_reads_what_came(server: parts.Server, client: Client) -> None:
    uuid, _ = check_of(client, "job")
    assert client.start_ping(uuid=uuid) == (True, "OK")
    assert client.success_ping(slug="job", data="it worked") == (True, "OK")
    assert client.fail_ping(uuid=uuid) == (True, "OK")
    assert client.exit_code_ping(exit_code=3, uuid=uuid) == (True, "OK")
    with pytest.raises(CheckNotFoundError):
        client.success_ping(slug="nobody")
    with CheckTrap(client, uuid=uuid) as trap:
        trap.add_log("a line")
    with pytest.raises(Fault), CheckTrap(client, uuid=uuid):
        raise Fault

    assert kinds(client, uuid) == [
        "start",
        "success",
        "fail",
        "fail",
        "start",
        "success",
        "start",
        "fail",
    ]
    check = client.get_check(uuid)
    assert (check.n_pings, check.status) == (8, "down")
    assert parts.wait_for("the incident", lambda: server.every("/incidents", "incidents"))


def test_healthchecks_decorator_and_wrapper_report_each_run(client: Client) -> None:
    uuid, url = check_of(client, "decorated")

    @healthcheck(url=url, send_start=True, send_diagnostics=True)
    def job(fails: bool) -> dict[str, str]:
        if fails:
            raise Fault
        return {"rows": "5"}

    assert job(False) == {"rows": "5"}
    with pytest.raises(Fault):
        job(True)
    assert kinds(client, uuid) == ["start", "success", "start", "fail"]

    uuid, url = check_of(client, "wrapped")
    with HealthCheck(url):
        pass
    with HealthCheck(url, suppress_exceptions=True):
        raise Fault("with its trace")
    assert kinds(client, uuid) == ["start", "success", "start", "fail"]
    last = client.get_check_pings(uuid)[0]
    assert last.method == "POST"


def test_cronalive_reports_a_function_and_a_command(
    server: parts.Server, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    uuid, _ = check_of(client, "cronalive")
    monkeypatch.setattr(cronalive, "DEFAULT_DOMAIN", f"{server.url}/ping")

    @cronalive.monitor(uuid)
    def job() -> None:
        pass

    job()
    done = subprocess.run(
        [sys.executable, "-m", "cronalive.cli", "run", "--id", uuid, "--", "false"],
        env={"CRONALIVE_PING_DOMAIN": f"{server.url}/ping", "PATH": "/usr/bin:/bin"},
        check=False,
    )

    assert done.returncode == 1
    assert kinds(client, uuid) == ["start", "success", "start", "fail"]


def test_beatwatch_reports_a_task_of_celery_that_succeeds(server: parts.Server, client: Client) -> None:
    uuid, _ = check_of(client, "beatwatch")
    app = Celery("shop", broker="memory://")
    app.conf.task_always_eager = True
    beatwatch.set_base_url(server.url)

    @monitored_task(uuid, celery_app=app)
    def job(fails: bool) -> int:
        if fails:
            raise Fault
        return 5

    assert job.delay(False).get() == 5
    with pytest.raises(Fault):
        job.delay(True).get()
    parts.wait_for("the ping", lambda: kinds(client, uuid) == ["success"])
    beatwatch.ping(uuid, blocking=True)
    assert kinds(client, uuid) == ["success", "success"]
