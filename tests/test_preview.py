"""Previews of alerts on the command line, without a server and beside one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from cloudevents.core.bindings.http import HTTPMessage, from_http_event

import parts
from test_command_line import deadbeat

WEBHOOK = {"url": "https://hooks.example.org/in/0123456789"}


def preview(*arguments: str) -> str:
    done = deadbeat("alert", "preview", *arguments)
    assert (done.returncode, done.stderr) == (0, ""), arguments
    return done.stdout


def requests(*arguments: str) -> list[dict[str, Any]]:
    answer = json.loads(preview(*arguments, "--json"))
    found: list[dict[str, Any]] = answer["requests"]
    return found


def test_a_message_is_shown_as_it_would_be_sent() -> None:
    head, body = preview("--kind", "slack", "--cause", "BEAT_DOWN").split("\n\n", 1)

    lines = head.splitlines()
    assert lines[0].startswith("POST https://hooks.slack.com/services/")
    assert "content-type: application/json; charset=utf-8" in lines
    sent = json.loads(body)
    assert sent["text"] == "*DOWN: Celery Beat shop (BEAT_DOWN)*"
    assert "celery -A shop beat" in sent["attachments"][0]["blocks"][0]["text"]["text"]


def test_a_mail_is_shown_as_text_and_its_html_is_written(tmp_path: Path) -> None:
    file = tmp_path / "mail.html"

    text = preview("--kind", "email", "--cause", "MISSED", "--event", "resolved", "--html", str(file))

    assert text.startswith("Subject: [Deadbeat] RESOLVED: nightly-report after 42 min\n\n")
    assert '<h1 class="good">RESOLVED: nightly-report after 42 min</h1>' in file.read_text()
    done = deadbeat("alert", "preview", "--kind", "slack", "--html", str(file))
    assert (done.returncode, done.stdout) == (1, "")
    assert "only mails have HTML" in done.stderr


def test_a_template_is_shown_or_refused_with_its_place() -> None:
    settings = {
        **WEBHOOK,
        "method": "PUT",
        "body": '{"text": "{{ words.headline }}"}',
        "path": "v1?x={{ severity }}",
    }

    (request,) = requests("--kind", "webhook", "--settings", json.dumps(settings), "--event", "reminder")

    assert (request["method"], request["url"]) == ("PUT", f"{WEBHOOK['url']}/v1?x=critical")
    assert json.loads(request["body"]) == {"text": "STILL DOWN: Celery Beat shop (BEAT_DOWN)"}
    for settings, said in (
        ({**WEBHOOK, "body": "[\n{{ nmae }}]"}, "/settings/body line 2, column 4: `nmae` is undefined"),
        ({**WEBHOOK, "method": "TRACE"}, '/settings/method is "TRACE"'),
        ({"body": "x"}, "missing field `url`"),
    ):
        done = deadbeat("alert", "preview", "--kind", "webhook", "--settings", json.dumps(settings))
        assert (done.returncode, done.stdout) == (1, "")
        assert said in done.stderr
    for arguments, word in (
        ([], "--kind"),
        (["--kind", "pigeon"], "slack"),
        (["--kind", "slack", "--cause", "FULL_MOON"], "BEAT_DOWN"),
        (["--kind", "slack", "--event", "closed"], "resolved"),
        (["--kind", "slack", "--channel", "00000000-0000-0000-0000-000000000000"], "--channel"),
    ):
        done = deadbeat("alert", "preview", *arguments)
        assert (done.returncode, done.stdout) == (2, "")
        assert word in done.stderr
    assert "is no JSON" in deadbeat("alert", "preview", "--kind", "webhook", "--settings", "{").stderr


@pytest.mark.parametrize(
    "event",
    [
        "opened",
        "reminder",
        "acknowledged",
        "escalated",
        "resolved",
        "test",
        "channel_disabled",
        "blind_spell",
    ],
)
def test_the_cloud_events_are_read_by_their_own_sdk(event: str) -> None:
    settings = json.dumps({**WEBHOOK, "preset": "cloudevents"})
    (request,) = requests("--kind", "webhook", "--settings", settings, "--event", event)
    headers = {one["name"]: one["value"] for one in request["headers"]}

    read = from_http_event(HTTPMessage(headers=headers, body=request["body"].encode()))

    data = read.get_data()
    assert isinstance(data, dict)
    assert (read.get_specversion(), read.get_type()) == ("1.0", data["type"])
    assert read.get_id() == headers["webhook-id"]
    time = read.get_time()
    assert time is not None
    assert time.timestamp() == parts.instant(data["timestamp"])
    assert read.get_subject()
    assert read.get_source().startswith("/")
    assert read.get_datacontenttype() == "application/json"


def test_a_channel_that_exists_is_shown_without_its_secrets(server: parts.Server) -> None:
    token = "Bearer S3CRETmark-0123"
    settings = {
        "url": "https://hooks.example.org/S3CRETmark/in",
        "headers": {"Authorization": token},
        "body": "[{{ type }}]",
    }
    channel = server.api("POST", "/channels", {"kind": "webhook", "name": "Hook", "settings": settings})

    database = ("--data-dir", str(server.data))
    (request,) = requests("--channel", channel["id"], "--cause", "MISSED", *database)

    assert (request["url"], request["body"]) == ("…", '["incident.opened"]')
    headers = {one["name"]: one["value"] for one in request["headers"]}
    assert headers["authorization"] == "…"
    assert headers["webhook-signature"].startswith("v1,")
    done = deadbeat("alert", "preview", "--channel", "00000000-0000-0000-0000-000000000000", *database)
    assert (done.returncode, done.stdout) == (1, "")
    assert "there is no such channel" in done.stderr
