"""Projects of one server, each with its own keys."""

from __future__ import annotations

import json
import os
import subprocess
from dataclasses import dataclass
from typing import Any

import parts


@dataclass(frozen=True)
class Project:
    """A further project of the account that the server's first start created."""

    server: parts.Server
    id: str
    api_key: str
    ping_key: str

    @classmethod
    def make(cls, server: parts.Server, name: str) -> Project:
        command = [str(parts.BINARY), "project", "create", "--name", name, "--json"]
        made = subprocess.run(
            [*command, "--data-dir", str(server.data)],
            env={**os.environ, **server.env},
            capture_output=True,
            text=True,
            timeout=120,
            check=True,
        )
        keys = json.loads(made.stdout)
        return cls(server, keys["project_id"], keys["api_key"], keys["ping_key"])

    def api(self, method: str, path: str, body: Any = None) -> Any:
        status, _, answer = parts.call(method, f"{self.server.url}/api/v1{path}", self.api_key, body, 60)
        assert 200 <= status < 300, (method, path, status, answer)
        return json.loads(answer) if answer else None

    def every(self, path: str, name: str) -> list[dict[str, Any]]:
        """All rows of a list, page by page."""
        rows: list[dict[str, Any]] = []
        cursor = ""
        while True:
            page = self.api("GET", f"{path}?limit=500{cursor}")
            rows += page[name]
            if page["next_cursor"] is None:
                return rows
            cursor = f"&cursor={page['next_cursor']}"
