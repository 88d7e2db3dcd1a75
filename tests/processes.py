"""Several processes on one database, each behind its own proxy, which can be cut."""

from __future__ import annotations

import json
from pathlib import Path
from types import TracebackType

import parts
from postgres import Postgres
from proxy import Proxy

# `/ping/<id>` is the same at every process.
PingPath = str


class Processes:
    """Listeners `a` and `b`, each behind a proxy, and an evaluator whose connection is never cut."""

    def __init__(self, database: Postgres, folder: Path, env: dict[str, str] | None = None) -> None:
        self.database = database
        self.folder = folder
        self.env = env or {}
        self.lines = {name: Proxy(database.port) for name in ("a", "b")}
        self.servers: dict[str, parts.Server] = {}
        self.all: list[parts.Server] = []

    def __enter__(self) -> Processes:
        try:
            for name, line in self.lines.items():
                url = f"postgres://postgres@127.0.0.1:{line.port}/postgres"
                self.servers[name] = self.start(name, url, "http,delivery")
                # The first process creates the project and its keys.
                self.servers[name].ready()
            self.servers["b"].keys = self.servers["a"].keys
            self.judge = self.start("judge", self.database.url, "evaluator").ready()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    def start(self, name: str, url: str, role: str) -> parts.Server:
        folder = self.folder / name
        folder.mkdir()
        env = {
            "DEADBEAT_DATABASE_URL": url,
            "DEADBEAT_ROLE": role,
            "DEADBEAT_SECRET_KEY": parts.SECRET_KEY,
            **self.env,
        }
        server = parts.Server(folder, env=env)
        self.all.append(server)
        return server

    def stop(self) -> None:
        for server in self.all:
            server.stop()
        for line in self.lines.values():
            line.stop()

    def cut(self, *names: str, how: str = "refuses") -> None:
        """Cut these processes off from the database, and wait until each has noticed."""
        for name in names:
            line = self.lines[name]
            line.refuse() if how == "refuses" else line.hang()
        for name in names:
            server = self.servers[name]
            parts.wait_for(
                f"{name} to miss its database",
                lambda server=server: parts.call("GET", f"{server.url}/readyz")[0] == 503,
                30,
            )

    def heal(self, name: str) -> None:
        """Reconnect the process with its database, and wait until its spool is replayed."""
        self.lines[name].heal()
        self.servers[name].drained()

    def ping(self, name: str, path: PingPath) -> None:
        """A ping that this process acknowledges."""
        status, _, answer = parts.call("POST", f"{self.servers[name].url}{path}", limit=30)
        assert status == 200, (name, path, status, answer)

    def incidents(self, state: str = "") -> list[dict[str, str]]:
        """The incidents that `b` lists."""
        found = self.servers["b"].api("GET", f"/incidents{f'?state={state}' if state else ''}")
        return [{"name": one["subject"]["name"], "cause": one["cause"]["code"]} for one in found["incidents"]]

    def readiness(self) -> dict[str, object]:
        """The state of the deployment, by the evaluator's `/readyz`."""
        found: dict[str, object] = json.loads(parts.call("GET", f"{self.judge.url}/readyz")[2])["deployment"]
        return found
