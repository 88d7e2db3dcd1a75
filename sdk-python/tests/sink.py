"""A stand-in for the server: real sockets on loopback, scripted answers, and a record of all requests."""

from __future__ import annotations

import gzip
import json
import threading
import time
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Callable


@dataclass
class Batch:
    """One request: its path, headers, events; and the connection it came over."""

    path: str
    headers: dict[str, str]
    body: dict[str, Any]
    peer: tuple[str, int]
    arrived: float = field(default_factory=time.monotonic)


class Sink:
    """`answer` decides what a request gets: "ok", "hang", a status, or (status, headers).

    `verdict` may return a code for an event, which is then rejected with it; `more` adds to the verdict of
    one that is accepted.
    """

    def __init__(self, port: int = 0) -> None:
        self.batches: list[Batch] = []
        self.answer: Any = "ok"
        self.verdict: Callable[[dict[str, Any]], str | None] = lambda event: None
        self.more: Callable[[dict[str, Any]], dict[str, Any]] = lambda event: {}
        self.changed = threading.Condition()
        self.released = threading.Event()
        self._server = _Server(("127.0.0.1", port), _Handler)
        self._server.sink = self
        self.port = self._server.server_address[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop listening and let go of requests that hang."""
        self.released.set()
        self._server.shutdown()
        self._server.server_close()

    @property
    def events(self) -> list[dict[str, Any]]:
        """Every event of every request, in order of arrival, whatever the answer was."""
        return [event for batch in list(self.batches) for event in batch.body["events"]]

    def of(self, kind: str, **fields: Any) -> list[dict[str, Any]]:
        """The events of one type whose fields have these values."""
        return [
            event
            for event in self.events
            if event["type"] == kind and all(event.get(name) == value for name, value in fields.items())
        ]

    def wait_for(self, found: Callable[[], Any], limit: float = 20.0) -> Any:
        """Call `found` whenever something arrives, and return its first true result; fail at the limit."""
        deadline = time.monotonic() + limit
        with self.changed:
            while not (answer := found()):
                left = deadline - time.monotonic()
                if left <= 0:
                    kinds = [(e["type"], e.get("entry"), e.get("outcome")) for e in self.events]
                    raise AssertionError(f"not reported within {limit} s; reported were {kinds}")
                self.changed.wait(min(left, 0.2))
        return answer


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    sink: Sink

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client killed in the middle of a request is what these tests are about."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server
    # One segment an answer: two would meet Nagle's algorithm and a delayed acknowledgement.
    wbufsize = -1

    def do_POST(self) -> None:
        sink = self.server.sink
        raw = self.rfile.read(int(self.headers["Content-Length"]))
        if self.headers.get("Content-Encoding") == "gzip":
            raw = gzip.decompress(raw)
        batch = Batch(self.path, dict(self.headers), json.loads(raw), self.client_address)
        with sink.changed:
            sink.batches.append(batch)
            answer = sink.answer
            sink.changed.notify_all()
        if answer == "hang":
            sink.released.wait(60)
            self.close_connection = True
            return
        status, headers = answer if isinstance(answer, tuple) else (answer, {})
        if status == "ok":
            self._reply(200, {}, {"results": [self._result(event) for event in batch.body["events"]]})
        else:
            self._reply(status, headers, {"code": "scripted"})

    def _result(self, event: dict[str, Any]) -> dict[str, Any]:
        code = self.server.sink.verdict(event)
        if code is None:
            return {"id": event["id"], "status": "accepted", **self.server.sink.more(event)}
        return {"id": event["id"], "status": "rejected", "code": code, "detail": "scripted"}

    def _reply(self, status: int, headers: dict[str, str], content: dict[str, Any]) -> None:
        body = json.dumps(content).encode()
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(body))}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        pass
