"""Web Push for programs of others: `http-ece` decrypts the message, `cryptography` verifies the token."""

from __future__ import annotations

import base64
import json
import os
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import http_ece
import pytest
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric import ec, utils
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

import parts

ENDPOINT = "/push/S3CRETmarkS3CRET"


def encoded(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def decoded(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


class PushService:
    """A push service that keeps each request."""

    def __init__(self) -> None:
        self.received: list[tuple[str, dict[str, str], bytes]] = []
        self.status = 201
        service = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:  # the name that http.server calls
                body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                headers = {name.lower(): value for name, value in self.headers.items()}
                service.received.append((self.path, headers, body))
                self.send_response(service.status)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_: Any) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.origin = f"http://127.0.0.1:{self.server.server_address[1]}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def stop(self) -> None:
        self.server.shutdown()
        self.server.server_close()


class Browser:
    """A browser that subscribed: its keys, and what it reads."""

    def __init__(self) -> None:
        self.private = ec.generate_private_key(ec.SECP256R1())
        self.auth = os.urandom(16)

    def subscription(self, service: PushService) -> dict[str, str]:
        point = self.private.public_key().public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)
        return {
            "endpoint": service.origin + ENDPOINT,
            "p256dh": encoded(point),
            "auth": encoded(self.auth),
        }

    def read(self, body: bytes) -> dict[str, Any]:
        text = http_ece.decrypt(body, private_key=self.private, auth_secret=self.auth, version="aes128gcm")
        message: dict[str, Any] = json.loads(text)
        return message


def claims(header: str, public_key: str) -> dict[str, Any]:
    """Verifies the token of a request, and returns its claims."""
    scheme, parameters = header.split(" ", 1)
    found = dict(part.strip().split("=", 1) for part in parameters.split(","))
    assert (scheme, found["k"]) == ("vapid", public_key)
    signed, _, proof = found["t"].rpartition(".")
    raw = decoded(proof)
    assert len(raw) == 64
    pair = utils.encode_dss_signature(int.from_bytes(raw[:32], "big"), int.from_bytes(raw[32:], "big"))
    key = ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256R1(), decoded(public_key))
    key.verify(pair, signed.encode(), ec.ECDSA(SHA256()))
    kind, body = (json.loads(decoded(part)) for part in signed.split("."))
    assert kind == {"typ": "JWT", "alg": "ES256"}
    assert isinstance(body, dict)
    return body


@pytest.fixture
def service() -> Iterator[PushService]:
    started = PushService()
    yield started
    started.stop()


def test_another_program_reads_the_message_and_a_subscription_that_ended_ends_the_channel(
    service: PushService, tmp_path: Path
) -> None:
    server = parts.Server(tmp_path, env={"DEADBEAT_LOG": "trace"})
    try:
        server.ready()
        public_key = server.api("GET", "/push-key")["public_key"]
        assert public_key == server.api("GET", "/push-key")["public_key"]
        browser = Browser()
        made = server.api(
            "POST",
            "/channels",
            {"kind": "web_push", "name": "phone", "settings": browser.subscription(service)},
        )
        assert made["settings"]["endpoint"] == f"{service.origin}/…CRET"

        server.api("POST", f"/channels/{made['id']}/test", {})
        parts.wait_for("the test", lambda: service.received)
        path, headers, body = service.received[0]
        assert path == ENDPOINT
        assert headers["content-encoding"] == "aes128gcm"
        assert headers["ttl"] == "86400"
        assert len(body) <= 4_096
        message = browser.read(body)
        assert message["web_push"] == 8030
        assert message["notification"]["title"] == "Test: this channel works"
        with pytest.raises((http_ece.ECEException, InvalidTag)):
            Browser().read(body)
        found = claims(headers["authorization"], public_key)
        assert found["aud"] == service.origin
        assert time.time() < found["exp"] < time.time() + 86_400

        # The browser unsubscribed.
        service.status = 410
        server.api("POST", f"/channels/{made['id']}/test", {})

        def ended() -> str | None:
            return server.api("GET", f"/channels/{made['id']}")["disabled_reason"]

        assert "410 Gone" in str(parts.wait_for("the end of the channel", ended))
        log = server.part.text()
        for secret in (ENDPOINT, encoded(browser.auth), headers["authorization"]):
            assert secret not in log
    finally:
        server.stop()
