"""Many slow clients do not block the requests of others."""

from __future__ import annotations

import contextlib
import resource
import socket
from collections.abc import Iterator
from pathlib import Path

import parts

# Many systems start a process with a limit of 1,024; a smaller limit needs fewer clients.
FILES = 256
CLIENTS = 600


@contextlib.contextmanager
def few_files() -> Iterator[None]:
    """Processes started inside have a low limit of open files, and may raise it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (FILES, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_a_ping_is_answered_while_more_clients_hang_than_a_process_may_have_files(tmp_path: Path) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    assert soft > CLIENTS + 200, "the test itself needs files"
    assert hard > 2 * CLIENTS, "so does the server"
    with few_files():
        server = parts.Server(tmp_path)
    clients: list[socket.socket] = []
    try:
        server.ready()
        monitor = server.api(
            "POST", "/monitors", {"name": "job", "schedule": {"kind": "interval", "seconds": 60}}
        )
        for n in range(CLIENTS):
            client = socket.create_connection(("127.0.0.1", server.port), timeout=30)
            clients.append(client)
            path = ("/sign-in", "/api/v1/events")[n % 2]
            head = [f"POST {path} HTTP/1.1", "Host: x", f"X-Api-Key: {server.keys['ping key']}"]
            client.sendall("\r\n".join([*head, "Content-Length: 10000", "", "x"]).encode())

        for _ in range(20):
            assert parts.call("GET", monitor["ping_url"])[0] == 200
    finally:
        for client in clients:
            client.close()
        server.stop()
