"""The Deadbeat server's API for the commands: JSON, with a deadline."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from typing import Any

from deadbeat._transport.client import Client

_REPLY_LIMIT_BYTES = 16 * 1024 * 1024


@dataclass(frozen=True)
class Answer:
    """The server's answer: `document` is its JSON, None without one; `headers` by lower-case name."""

    status: int
    document: Any
    headers: dict[str, str]


class Server:
    """One connection to the server; every answer must come before `deadline` (monotonic clock)."""

    def __init__(self, url: str, key: str, deadline: float) -> None:
        self._deadline = deadline
        self._client = Client(url, key, _REPLY_LIMIT_BYTES)

    def ask(self, method: str, path: str, body: Any = None) -> Answer:
        """One request. Raises OSError or http.client.HTTPException when there is no answer in time."""
        left = self._deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError("no time is left")
        content = None if body is None else json.dumps(body).encode()
        response = self._client.request(method, path, left, content)
        try:
            document = json.loads(response.body)
        except ValueError:
            document = None
        return Answer(response.status, document, response.headers)

    def close(self) -> None:
        """Close the connection."""
        self._client.close()
