"""Posts batches of events over a kept-alive connection; only the sender thread uses it."""

from __future__ import annotations

import email.utils
import gzip
import http.client
import time
from dataclasses import dataclass

from deadbeat._transport.client import Client

GZIP_ABOVE_BYTES = 1024
_REPLY_LIMIT_BYTES = 4 * 1024 * 1024
_PATH = "/api/v1/events"


@dataclass(frozen=True)
class Reply:
    """The server's answer; `retry_after` is in seconds, None when absent."""

    status: int
    body: bytes
    retry_after: float | None


class Connection:
    """Posts batches to ``<url>/api/v1/events``."""

    def __init__(self, url: str, key: str) -> None:
        self._client = Client(url, key, _REPLY_LIMIT_BYTES)

    def post(self, body: bytes, timeout: float) -> Reply:
        """Send one body and return the answer.

        The server may have closed the open connection meanwhile. Then the body is sent once more on a new
        one, which is safe because events carry ids.
        Raises OSError or http.client.HTTPException when there is no answer.
        """
        encoding = None
        if len(body) > GZIP_ABOVE_BYTES:
            # Events are similar: higher levels take twice the time for a tenth of the size.
            body, encoding = gzip.compress(body, compresslevel=1), "gzip"
        kept_open = self._client.is_open
        try:
            return self._exchange(body, encoding, timeout)
        except (ConnectionError, http.client.BadStatusLine):
            if not kept_open:
                raise
        return self._exchange(body, encoding, timeout)

    def close(self) -> None:
        """Close the socket; the next post opens a new one."""
        self._client.close()

    def _exchange(self, body: bytes, encoding: str | None, timeout: float) -> Reply:
        response = self._client.request("POST", _PATH, timeout, body, encoding)
        return Reply(response.status, response.body, _seconds_of(response.headers.get("retry-after")))


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
