"""What the Deadbeat server knows of an application; asked with a read key, never written.

The server knows what no broker can show: which worker vanished without signing off, whether Beat ticks, since
when a fault has lasted.
"""

from __future__ import annotations

import http.client
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote

from deadbeat.cli.audit.finding import Unknown, error_words
from deadbeat.cli.server import Server

# Each monitor that is down costs one request.
_MONITOR_LIMIT = 20


@dataclass
class Knowledge:
    """The server's rows about one application, in the form of its API."""

    url: str
    app: str
    reachable: bool = False
    beats: list[dict[str, Any]] = field(default_factory=list)
    workers: list[dict[str, Any]] = field(default_factory=list)
    # Workers of other applications of the project: they may consume from the same broker.
    workers_elsewhere: list[dict[str, Any]] = field(default_factory=list)
    queues: list[dict[str, Any]] = field(default_factory=list)
    broker: dict[str, Any] | None = None
    # Open incidents about any of these, and about the monitors of these Beats.
    incidents: list[dict[str, Any]] = field(default_factory=list)
    unknown: list[Unknown] = field(default_factory=list)


def ask_server(url: str, key: str, app: str, deadline: float) -> Knowledge:
    """Ask for everything about `app`; what the server does not answer goes to `unknown`. Never raises."""
    known = Knowledge(url, app)
    server = Server(url, key, deadline)
    try:
        _read(server, known)
    except (OSError, http.client.HTTPException, _Refused) as fault:
        words = str(fault) if isinstance(fault, _Refused) else error_words(fault)
        known.unknown.append(Unknown("the state at the Deadbeat server", f"{url}: {words}"))
    except (KeyError, TypeError, AttributeError) as fault:
        words = f"{url} answers in the form of another version ({error_words(fault)})"
        known.unknown.append(Unknown("the state at the Deadbeat server", words))
    finally:
        server.close()
    return known


class _Refused(Exception):
    """The server's answer is not what was asked for."""


def _read(server: Server, known: Knowledge) -> None:
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
        answer = server.ask("GET", f"/api/v1{path}{join}limit=500")
        if answer.status == 401:
            raise _Refused("it does not know the key (set DEADBEAT_READ_KEY to a read key)")
        if answer.status == 403:
            raise _Refused(
                "the key may not read: a ping key only signals (set DEADBEAT_READ_KEY to a read key)"
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
        # The server sorts by age; people look for names.
        return sorted(found, key=lambda row: str(row.get("name", "")))

    known.beats = ours("/beats", "beats", "name")
    known.workers = ours("/workers", "workers", "app", known.workers_elsewhere)
    known.queues = ours("/queues", "queues", "app")
    known.broker = next(iter(ours("/brokers", "brokers", "app")), None)
    if not (known.beats or known.workers or known.queues):
        known.unknown.append(
            Unknown(
                "the state at the Deadbeat server",
                f"{known.url} has no report of an application {known.app!r} in this key's project",
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
            monitor = server.ask("GET", f"/api/v1/monitors/{subject['id']}")
            if monitor.status == 200 and monitor.document["beat_id"] in beats:
                known.incidents.append(incident)
    if asked == _MONITOR_LIMIT:
        known.unknown.append(
            Unknown("further monitors that are down", f"the audit asked for {_MONITOR_LIMIT} only")
        )
