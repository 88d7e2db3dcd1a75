"""The tests of the doctor and their results, as text and as JSON."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from deadbeat._transport.clock import utc_text
from deadbeat.cli.application import Application
from deadbeat.cli.audit.screen import plain
from deadbeat.version import __version__

GOOD, WARNED, FAILED, UNTRIED = "good", "warning", "failed", "could not try"


@dataclass(frozen=True)
class Check:
    """One test."""

    name: str
    result: str
    detail: str


@dataclass
class Diagnosis:
    """All tests, and the claims that follow."""

    application: Application
    checks: list[Check] = field(default_factory=list)
    versions: dict[str, str] = field(default_factory=dict)
    claims: list[str] = field(default_factory=list)
    blocked: list[tuple[str, str]] = field(default_factory=list)

    @property
    def exit_code(self) -> int:
        """0 every test passed, 1 with a warning, 2 one failed, 3 nothing could be tested."""
        results = {check.result for check in self.checks}
        if FAILED in results:
            return 2
        if WARNED in results:
            return 1
        return 0 if GOOD in results else 3

    def as_json(self) -> dict[str, Any]:
        """The document of `--json`; docs/audit.md describes it."""
        return {
            "deadbeat": __version__,
            "app": self.application.name,
            "at": utc_text(),
            "exit_code": self.exit_code,
            "versions": self.versions,
            "checks": [vars(check) for check in self.checks],
            "claims": self.claims,
            "blocked_claims": [{"claim": claim, "why": why} for claim, why in self.blocked],
        }

    def as_text(self, colour: bool = False) -> str:
        """For a terminal."""
        marks = {GOOD: "\x1b[32m", WARNED: "\x1b[33m", FAILED: "\x1b[1;31m"} if colour else {}
        versions = ", ".join(f"{name} {version}" for name, version in self.versions.items())
        lines = [f"{plain(self.application.name)} · {plain(versions)}", ""]
        width = max(len(check.name) for check in self.checks)
        for check in self.checks:
            mark = marks.get(check.result, "")
            result = f"{mark}{check.result:<13}{chr(27) + '[0m' if mark else ''}"
            lines.append(f"{result}  {check.name.ljust(width)}  {plain(check.detail)}")
        lines += ["", "Claims that this set-up supports:"]
        lines += [f"  + {plain(claim)}" for claim in self.claims] or ["  nothing"]
        lines += ["", "Claims that it does not support:"]
        lines += [f"  - {plain(claim)}: {plain(why)}" for claim, why in self.blocked]
        return "\n".join(lines)
