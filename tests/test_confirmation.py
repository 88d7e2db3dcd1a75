"""The owner of a mail address agrees to alerts, in a real browser, with scripts and without."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import parts
from browser import Browser
from mail_sink import MailSink


@pytest.fixture
def mailbox() -> Iterator[MailSink]:
    box = MailSink()
    yield box
    box.close()


@pytest.fixture
def server(tmp_path: Path, mailbox: MailSink) -> Iterator[parts.Server]:
    port = parts.free_port()
    settings = {
        "DEADBEAT_SMTP_URL": mailbox.url,
        "DEADBEAT_SMTP_FROM": "deadbeat@example.org",
        "DEADBEAT_SITE_URL": f"http://127.0.0.1:{port}",
    }
    started = parts.Server(tmp_path, port, settings)
    try:
        yield started.ready()
    finally:
        started.stop()


def asked(server: parts.Server, mailbox: MailSink, address: str) -> tuple[dict[str, Any], str]:
    """A new mail channel, and the link in the mail that its address got."""
    channel = server.api("POST", "/channels", {"kind": "email", "name": address, "settings": {"to": address}})
    mail = parts.wait_for(
        f"the mail to {address}", lambda: next((one for one in mailbox.mails if one["To"] == address), None)
    )
    text = mail.get_body(("plain",)).get_content()
    [link] = re.findall(rf"{re.escape(server.url)}/confirm/\S+", text)
    return channel, link


@pytest.mark.parametrize(
    ("scripts", "width"), [(True, 1_280), (False, 360)], ids=["desk", "phone-no-scripts"]
)
def test_an_owner_confirms_in_a_browser(
    server: parts.Server, mailbox: MailSink, tmp_path: Path, scripts: bool, width: int
) -> None:
    channel, link = asked(server, mailbox, "ops@example.org")
    path = f"/channels/{channel['id']}"

    with Browser(tmp_path, scripts=scripts, width=width) as browser:
        browser.open(link)
        assert "Send alerts to ops@example.org?" in browser.text()
        # A mail scanner opens links, too.
        assert server.api("GET", path)["confirmed_at"] is None
        assert browser.evaluate("document.documentElement.scrollWidth <= window.innerWidth")

        browser.press("Yes, send alerts")
        assert "Alerts go to ops@example.org" in browser.text()
        assert browser.evaluate("document.querySelector('[role=status]').innerText") == (
            "The address is confirmed."
        )
        assert server.api("GET", path)["confirmed_at"] is not None
        # The page has no button when it is opened again.
        browser.open(link)
        assert "The address is confirmed." in browser.text()
        assert browser.evaluate("document.querySelectorAll('main button').length") == 0

        assert browser.complaints == []
        elsewhere = [one for one in browser.requests if f" {server.url}/" not in one]
        assert not elsewhere, "the page loads from elsewhere"

    # Once the address is confirmed, a test sends a mail.
    server.api("POST", f"{path}/test")
    parts.wait_for("the test's mail", lambda: len(mailbox.mails) == 2)


def test_a_link_that_was_changed_confirms_nothing(
    server: parts.Server, mailbox: MailSink, tmp_path: Path
) -> None:
    channel, link = asked(server, mailbox, "ops@example.org")
    _, other = asked(server, mailbox, "dev@example.org")
    token = other.rpartition("token=")[2]

    with Browser(tmp_path) as browser:
        for wrong in (
            link[:-1] + ("0" if link[-1] != "0" else "1"),
            link.rpartition("token=")[0] + f"token={token}",
        ):
            browser.open(wrong)
            assert "ops@example.org" not in browser.text()
            assert browser.evaluate("document.querySelectorAll('main button').length") == 0
    assert server.api("GET", f"/channels/{channel['id']}")["confirmed_at"] is None
