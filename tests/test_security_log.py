"""The security log shows who did what, and no secret."""

from __future__ import annotations

import http.client
import re
from pathlib import Path
from urllib.parse import urlencode

import parts


def sign_in(server: parts.Server, email: str, password: str) -> int:
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=30)
    try:
        connection.request("GET", "/sign-in")
        page = connection.getresponse()
        cookie = (page.getheader("Set-Cookie") or "").split(";")[0]
        token = re.search(r'name="form_token" value="([^"]+)"', page.read().decode())
        assert token is not None
        form = urlencode({"form_token": token[1], "email": email, "password": password})
        headers = {"Cookie": cookie, "Content-Type": "application/x-www-form-urlencoded"}
        connection.request("POST", "/sign-in", form, headers)
        return connection.getresponse().status
    finally:
        connection.close()


def test_the_security_log_records_who_did_what_and_no_secret(tmp_path: Path) -> None:
    server = parts.Server(tmp_path)
    try:
        server.ready()
        secrets = [*server.keys.values(), "what somebody guesses"]
        # The first start prints these once; the log comes after them.
        printed = len(server.part.text())

        assert sign_in(server, "nobody@example.org", "what somebody guesses") == 422
        statuses: list[int] = []
        # One try is allowed again every six seconds.
        while 429 not in statuses:
            assert len(statuses) < 100, statuses
            statuses.append(sign_in(server, "admin@localhost", "what somebody guesses"))
        issued = server.api("POST", "/api-keys", {"name": "CI", "scope": "write"})
        secrets.append(issued["key"])
        server.api("DELETE", f"/api-keys/{issued['id']}")
        assert parts.call("GET", f"{server.url}/api/v1/monitors", server.keys["ping key"])[0] == 403
        server.stop()

        log = server.part.text()[printed:]
        for action in ("sign_in_failed", "sign_in_too_soon", "key_issued", "key_revoked", "scope_refused"):
            assert f'action="{action}"' in log, f"{action} is not in {log}"
        for line in log.splitlines():
            if "key_issued" in line or "key_revoked" in line:
                assert issued["id"] in line
                assert "by.key.id=" in line
        assert not [secret for secret in secrets if secret in log], "a secret is in the log"
        assert "@" not in log, "an address of mail is in the log"
    finally:
        server.stop()
