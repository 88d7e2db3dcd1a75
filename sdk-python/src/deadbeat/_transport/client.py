"""One kept-alive HTTP connection to a Deadbeat server: for the reports and for the commands.

The standard library's client suffices: importing a bigger one costs the worker up to 6 MB and 70 ms. The
client follows no redirects, because a key must not travel to another host, and ignores proxies of the
environment.
"""

from __future__ import annotations

import http.client
import ssl
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from deadbeat.version import __version__


@dataclass(frozen=True)
class Response:
    """The server's answer; the names of `headers` are in lower case."""

    status: int
    body: bytes
    headers: dict[str, str]


class Client:
    """Connects on demand, drops the socket after any error, and reads at most `limit` bytes of an answer."""

    def __init__(self, url: str, key: str, limit: int) -> None:
        parts = urlsplit(url)
        self._secure = parts.scheme == "https"
        self._host = parts.hostname or ""
        self._port = parts.port
        self._prefix = parts.path.rstrip("/")
        self._limit = limit
        self._headers = {"Authorization": f"Bearer {key}", "User-Agent": f"deadbeat-python/{__version__}"}
        self._context: ssl.SSLContext | None = None
        self._http: http.client.HTTPConnection | None = None

    @property
    def sock(self) -> Any:
        """The open socket, None without one."""
        return None if self._http is None else self._http.sock

    @property
    def is_open(self) -> bool:
        """Whether a connection is open here; the server may have closed it meanwhile."""
        return self._http is not None

    def request(
        self, method: str, path: str, timeout: float, body: bytes | None = None, encoding: str | None = None
    ) -> Response:
        """Send one request, with JSON as its body, and return the answer; `timeout` is in seconds.

        Raises OSError or http.client.HTTPException when there is no answer.
        """
        headers = self._headers
        if body is not None:
            headers = {**headers, "Content-Type": "application/json"}
        if encoding is not None:
            headers["Content-Encoding"] = encoding
        try:
            connection = self._http or self._connect(timeout)
            connection.timeout = timeout
            if connection.sock is not None:
                connection.sock.settimeout(timeout)
            connection.request(method, f"{self._prefix}{path}", body=body, headers=headers)
            response = connection.getresponse()
            answer = response.read(self._limit)
            if response.will_close or not response.isclosed():
                self.close()
        except BaseException:
            self.close()
            raise
        return Response(
            response.status, answer, {name.lower(): value for name, value in response.getheaders()}
        )

    def close(self) -> None:
        """Close the socket; the next request opens a new one."""
        connection, self._http = self._http, None
        if connection is not None:
            connection.close()

    def _connect(self, timeout: float) -> http.client.HTTPConnection:
        connection: http.client.HTTPConnection
        if self._secure:
            if self._context is None:
                self._context = ssl.create_default_context()
            connection = http.client.HTTPSConnection(
                self._host, self._port, timeout=timeout, context=self._context
            )
        else:
            connection = http.client.HTTPConnection(self._host, self._port, timeout=timeout)
        self._http = connection
        return connection
