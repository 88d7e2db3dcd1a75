"""One kept-alive HTTP connection to the server, with short timeouts; used by the sender thread only.

The standard library's client is enough: importing a bigger one costs the worker up to 6 MB and 70 ms.
Redirects are not followed (a key must not travel to another host), proxies from the environment are
not used.
"""

from __future__ import annotations

import email.utils
import gzip
import http.client
import ssl
import time
from dataclasses import dataclass
from urllib.parse import urlsplit

from deadbeat.version import __version__

GZIP_ABOVE_BYTES = 1024
_REPLY_LIMIT_BYTES = 4 * 1024 * 1024


@dataclass(frozen=True)
class Reply:
    """What the server answered; `retry_after` is in seconds, None when it did not say."""

    status: int
    body: bytes
    retry_after: float | None


class Connection:
    """Posts batches to ``<url>/api/v1/events``; connects when needed, forgets the socket on any error."""

    def __init__(self, url: str, key: str) -> None:
        parts = urlsplit(url)
        self._secure = parts.scheme == "https"
        self._host = parts.hostname or ""
        self._port = parts.port
        self._path = parts.path.rstrip("/") + "/api/v1/events"
        self._headers = {
            "Authorization": f"Bearer {key}",
            "Content-Type": "application/json",
            "User-Agent": f"deadbeat-python/{__version__}",
        }
        self._context: ssl.SSLContext | None = None
        self._client: http.client.HTTPConnection | None = None

    def post(self, body: bytes, timeout: float) -> Reply:
        """Send one body and return the answer.

        A connection that was kept open may have been closed by the other side meanwhile: then the body
        is sent once more on a new one, which is safe because events carry ids.
        Raises OSError or http.client.HTTPException when there is no answer.
        """
        headers = self._headers
        if len(body) > GZIP_ABOVE_BYTES:
            # Events are much alike: the levels above take twice the time for a tenth of the size.
            body = gzip.compress(body, compresslevel=1)
            headers = {**headers, "Content-Encoding": "gzip"}
        kept_open = self._client is not None
        try:
            return self._exchange(body, headers, timeout)
        except (ConnectionError, http.client.BadStatusLine):
            self.close()
            if not kept_open:
                raise
        except BaseException:
            self.close()
            raise
        try:
            return self._exchange(body, headers, timeout)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Forget the socket; the next post opens a new one."""
        client, self._client = self._client, None
        if client is not None:
            client.close()

    def _exchange(self, body: bytes, headers: dict[str, str], timeout: float) -> Reply:
        client = self._client or self._connect(timeout)
        client.timeout = timeout
        if client.sock is not None:
            client.sock.settimeout(timeout)
        client.request("POST", self._path, body=body, headers=headers)
        response = client.getresponse()
        answer = response.read(_REPLY_LIMIT_BYTES)
        if response.will_close or not response.isclosed():
            self.close()
        return Reply(response.status, answer, _seconds_of(response.getheader("Retry-After")))

    def _connect(self, timeout: float) -> http.client.HTTPConnection:
        client: http.client.HTTPConnection
        if self._secure:
            if self._context is None:
                self._context = ssl.create_default_context()
            client = http.client.HTTPSConnection(
                self._host, self._port, timeout=timeout, context=self._context
            )
        else:
            client = http.client.HTTPConnection(self._host, self._port, timeout=timeout)
        self._client = client
        return client


def _seconds_of(retry_after: str | None) -> float | None:
    if not retry_after:
        return None
    try:
        return max(0.0, float(retry_after))
    except ValueError:
        pass
    try:
        return max(0.0, email.utils.parsedate_to_datetime(retry_after).timestamp() - time.time())
    except (TypeError, ValueError):
        return None
