"""Distinguishes faults of a result backend from faults of the results that an application stores in it."""

from __future__ import annotations

import re
from typing import Any

ADDRESS_LIMIT = 200
WORDS_LIMIT = 150
# Packages whose exceptions come from a server or its client.
_CLIENTS = frozenset(
    (
        *("redis", "sqlalchemy", "psycopg", "psycopg2", "MySQLdb", "pymysql", "oracledb", "pymongo"),
        *("elasticsearch", "elastic_transport", "cassandra", "couchbase", "pycouchdb", "consul", "botocore"),
        *("azure", "google", "arango", "pylibmc", "pymemcache", "memcache"),
    )
)
# Backends that are the broker, or no server.
_NO_SERVER = frozenset(("", "disabled", "rpc", "amqp", "cache+memory", "memory"))
_PORTS = {"redis": 6379, "rediss": 6379, "sentinel": 26379, "amqp": 5672, "amqps": 5671}
_LOCAL = frozenset(("localhost", "::1", "[::1]"))


def is_elsewhere(app: Any, backend: Any) -> bool:
    """Whether results are kept on a server that is not the broker's."""
    uri = _uri(backend)
    if type(backend).__name__ == "DisabledBackend":
        return False
    parameters = getattr(backend, "connparams", None) or {}
    if "host" in parameters:
        ours = {_server(str(parameters["host"]), parameters.get("port") or _PORTS["redis"])}
    elif uri.partition("://")[0] in _NO_SERVER:
        return False
    else:
        ours = _servers(uri)
    broker = app.connection_for_write()
    return not ours & set().union(*(_servers(str(one)) for one in broker.alt or [broker.as_uri()]))


def address_of(backend: Any) -> str:
    """The backend's address, without user, password and options."""
    said = ";".join(_bare(part) for part in _uri(backend).split(";"))
    return (said or type(backend).__name__)[:ADDRESS_LIMIT]


def fault_of(backend: Any, fault: BaseException) -> BaseException | None:
    """The exception that shows that the backend was unreachable or refused a command.

    None for a fault of the result: it cannot be encoded, or is too large. Causes are followed, contexts are
    not: a failure is stored while the task's own exception is being handled.
    """
    errors = (*getattr(backend, "connection_errors", ()), *getattr(backend, "channel_errors", ()))
    # kombu lists `KeyError` among Redis' errors; encoding a result may raise that, too.
    kinds = tuple(
        kind
        for kind in errors
        if isinstance(kind, type) and kind is not Exception and not issubclass(kind, LookupError)
    )
    one: BaseException | None = fault
    for _ in range(4):
        if one is None:
            return None
        if isinstance(one, (OSError, *kinds)) or type(one).__module__.partition(".")[0] in _CLIENTS:
            return one
        one = one.__cause__
    return None


def words_of(fault: BaseException) -> str:
    """The exception's class, and Redis' answer; never the data that was sent to it."""
    name = type(fault).__name__
    if not any(kind.__name__ == "ResponseError" for kind in type(fault).__mro__):
        return name
    # redis-py puts the command with its arguments before the answer; Redis repeats the arguments of a command
    # that it does not know.
    said = str(fault).rpartition("of pipeline caused error: ")[2]
    return name if "args" in said else f"{name}: {said}"[:WORDS_LIMIT]


def _uri(backend: Any) -> str:
    try:
        return str(backend.as_uri() or "")
    except Exception:
        return ""


def _bare(uri: str) -> str:
    scheme, _, rest = uri.partition("://")
    place, _, options = rest.partition("?")
    # A password may hold any character: if its end is not certain, show nothing.
    if "@" in options or "#" in place:
        return scheme
    place = place.rpartition("@")[2]
    return f"{scheme}://{place}" if place.strip("/") else scheme


def _servers(uri: str) -> set[str]:
    """Host and port of each server that an address names."""
    found = set()
    for part in uri.split(";"):
        scheme, _, place = _bare(part).partition("://")
        for server in place.partition("/")[0].split(","):
            host, port = re.fullmatch(r"(.*?)(?::(\d+))?", server, re.DOTALL).groups()  # type: ignore[union-attr]
            if host:
                found.add(_server(host, port or _PORTS.get(scheme, 0)))
    return found


def _server(host: str, port: Any) -> str:
    return f"{'127.0.0.1' if host in _LOCAL else host}:{port}"
