"""What the Deadbeat server knows of an application: asked for with a key that may read, never written.

The server has what no broker can tell: which worker went without a goodbye, whether Beat ticks, since when
something has been wrong.
"""

from __future__ import annotations

import http.client
import json
import ssl
import time
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote, urlsplit

from deadbeat.cli.audit.finding import Unknown, error_words
from deadbeat.version import __version__

_REPLY_LIMIT_BYTES = 16 * 1024 * 1024
# Each monitor that is down costs a question of its own.
_MONITOR_LIMIT = 20


@dataclass(frozen=True)
class Answer:
    """What the server said: `document` is its JSON, None when there is none; `headers` by small name."""

    status: int
    document: Any
    headers: dict[str, str]


class Client:
    """One connection to the server; every answer must come before `deadline` (monotonic clock).

    Redirects are not followed: a key must not travel to another host.
    """

    def __init__(self, url: str, key: str, deadline: float) -> None:
        parts = urlsplit(url)
        left = max(0.1, deadline - time.monotonic())
        self._deadline = deadline
        self._prefix = parts.path.rstrip("/")
        self._headers = {"Authorization": f"Bearer {key}", "User-Agent": f"deadbeat-python/{__version__}"}
        self._http: http.client.HTTPConnection
        if parts.scheme == "https":
            context = ssl.create_default_context()
            self._http = http.client.HTTPSConnection(
                parts.hostname or "", parts.port, timeout=left, context=context
            )
        else:
            self._http = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=left)

    def ask(self, method: str, path: str, body: Any = None) -> Answer:
        """One request. Raises OSError or http.client.HTTPException when there is no answer in time."""
        left = self._deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError("no time is left")
        self._http.timeout = left
        if self._http.sock is not None:
            self._http.sock.settimeout(left)
        content = None if body is None else json.dumps(body)
        headers = self._headers if body is None else {**self._headers, "Content-Type": "application/json"}
        self._http.request(method, f"{self._prefix}{path}", body=content, headers=headers)
        response = self._http.getresponse()
        text = response.read(_REPLY_LIMIT_BYTES)
        try:
            document = json.loads(text)
        except ValueError:
            document = None
        return Answer(
            response.status, document, {name.lower(): value for name, value in response.getheaders()}
        )

    def close(self) -> None:
        """Close the connection."""
        self._http.close()


@dataclass
class Knowledge:
    """The server's rows about one application, as its API words them."""

    url: str
    app: str
    reachable: bool = False
    beats: list[dict[str, Any]] = field(default_factory=list)
    workers: list[dict[str, Any]] = field(default_factory=list)
    # Of other applications of the project: they may consume from the same broker.
    workers_elsewhere: list[dict[str, Any]] = field(default_factory=list)
    queues: list[dict[str, Any]] = field(default_factory=list)
    broker: dict[str, Any] | None = None
    # Open ones about any of these, and about the monitors of these Beats.
    incidents: list[dict[str, Any]] = field(default_factory=list)
    unknown: list[Unknown] = field(default_factory=list)


def ask_server(url: str, key: str, app: str, deadline: float) -> Knowledge:
    """Ask for everything about `app`; what cannot be had stands in `unknown`. Never raises."""
    known = Knowledge(url, app)
    client = Client(url, key, deadline)
    try:
        _read(client, known)
    except (OSError, http.client.HTTPException, _Refused) as fault:
        words = str(fault) if isinstance(fault, _Refused) else error_words(fault)
        known.unknown.append(Unknown("what the Deadbeat server knows", f"{url}: {words}"))
    except (KeyError, TypeError, AttributeError) as fault:
        words = f"{url} answers in words of another version ({error_words(fault)})"
        known.unknown.append(Unknown("what the Deadbeat server knows", words))
    finally:
        client.close()
    return known


class _Refused(Exception):
    """The server answered, and not with what was asked for."""


def _read(client: Client, known: Knowledge) -> None:
    def rows(path: str, name: str) -> list[dict[str, Any]]:
        """All rows of a list, page by page; a server before 0.2 has some lists on one page."""
        first = page(path, name)
        found: list[dict[str, Any]] = first[name]
        cursor = first.get("next_cursor")
        while cursor is not None:
            join = "&" if "?" in path else "?"
            more = page(f"{path}{join}cursor={quote(cursor)}", name)
            found += more[name]
            cursor = more.get("next_cursor")
        return found

    def page(path: str, name: str) -> dict[str, Any]:
        join = "&" if "?" in path else "?"
        answer = client.ask("GET", f"/api/v1{path}{join}limit=500")
        if answer.status == 401:
            raise _Refused("it does not know the key (a key that may read is needed: DEADBEAT_READ_KEY)")
        if answer.status == 403:
            raise _Refused(
                "the key may not read; a ping key only signals (set DEADBEAT_READ_KEY to a read key)"
            )
        if answer.status != 200 or answer.document is None:
            raise _Refused(f"it answered {answer.status} to {path}")
        known.reachable = True
        document: dict[str, Any] = answer.document
        return document

    def ours(
        path: str, name: str, field_name: str, others: list[dict[str, Any]] | None = None
    ) -> list[dict[str, Any]]:
        found = []
        for row in rows(path, name):
            if row[field_name] == known.app:
                found.append(row)
            elif others is not None:
                others.append(row)
        # The server lists by age; people look for names.
        return sorted(found, key=lambda row: str(row.get("name", "")))

    known.beats = ours("/beats", "beats", "name")
    known.workers = ours("/workers", "workers", "app", known.workers_elsewhere)
    known.queues = ours("/queues", "queues", "app")
    known.broker = next(iter(ours("/brokers", "brokers", "app")), None)
    if not (known.beats or known.workers or known.queues):
        known.unknown.append(
            Unknown(
                "what the Deadbeat server knows",
                f"nothing of an application {known.app!r} in this key's project has reached {known.url} yet",
            )
        )
    ids = {row["id"] for row in (*known.beats, *known.workers, *known.queues)}
    if known.broker is not None:
        ids.add(known.broker["id"])
    beats = {beat["id"] for beat in known.beats}
    asked = 0
    for incident in rows("/incidents?state=open", "incidents"):
        subject = incident["subject"]
        if subject["id"] in ids:
            known.incidents.append(incident)
        elif subject["kind"] == "monitor" and beats and asked < _MONITOR_LIMIT:
            asked += 1
            monitor = client.ask("GET", f"/api/v1/monitors/{subject['id']}")
            if monitor.status == 200 and monitor.document["beat_id"] in beats:
                known.incidents.append(incident)
    if asked == _MONITOR_LIMIT:
        known.unknown.append(
            Unknown("further monitors that are down", f"only {_MONITOR_LIMIT} were asked for")
        )
