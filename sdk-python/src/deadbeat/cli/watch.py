"""The command `watch`: repeats an audit; redraws a terminal, and writes changes as lines elsewhere."""

from __future__ import annotations

import shutil
import time
from typing import TextIO

from deadbeat.cli.application import Application
from deadbeat.cli.audit.finding import Finding, Unknown
from deadbeat.cli.audit.report import Choice, Report, make_report
from deadbeat.cli.audit.screen import plain, render, summary

_HOME, _CLEAR_LINE, _CLEAR_BELOW = "\x1b[H", "\x1b[K", "\x1b[J"
_UNKNOWN = "unknown"
_OTHER_SCREEN, _FORMER_SCREEN = "\x1b[?1049h\x1b[?25l", "\x1b[?25h\x1b[?1049l"


def watch(
    application: Application, choice: Choice, interval: float, out: TextIO, rounds: int | None = None
) -> None:
    """Audit every `interval` seconds until interrupted, or `rounds` times; writes to `out`."""
    terminal = out.isatty()
    changes = _Changes(out)
    if terminal:
        out.write(_OTHER_SCREEN)
    try:
        while rounds is None or rounds > 0:
            began = time.monotonic()
            report = make_report(application, choice)
            if terminal:
                _redraw(out, report, interval)
            else:
                changes.write(report)
            out.flush()
            rounds = None if rounds is None else rounds - 1
            if rounds != 0:
                time.sleep(max(0.1, interval - (time.monotonic() - began)))
    except KeyboardInterrupt:
        pass
    finally:
        if terminal:
            out.write(_FORMER_SCREEN)
            out.flush()


def _redraw(out: TextIO, report: Report, interval: float) -> None:
    """Draw over the former picture, line by line: clearing the screen first would flicker."""
    width, height = shutil.get_terminal_size()
    text = f"every {interval:g} s, Ctrl-C ends · {summary(report)}\n{render(report, colour=True)}"
    shown, rows = [], 0
    for line in text.split("\n"):
        # Count wrapped lines; the codes of colours do not take space.
        rows += max(1, -(-len(line) // max(1, width)))
        if rows > height - 2:
            shown.append("… the rest does not fit; `audit` shows all")
            break
        shown.append(line)
    lines = f"{_CLEAR_LINE}\n".join(shown)
    out.write(f"{_HOME}{lines}{_CLEAR_LINE}{_CLEAR_BELOW}")


class _Changes:
    """Writes what has come and what has gone since the audit before, in plain lines."""

    def __init__(self, out: TextIO) -> None:
        self._out = out
        self._known: dict[tuple[str, ...], str] | None = None

    def write(self, report: Report) -> None:
        at = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(report.at))
        shown: list[Finding | Unknown] = [*report.findings, *report.unknown]
        now = {_key(one): _line(one) for one in shown}
        before = self._known or {}
        if report.observed.last.broker.reachable is not True:
            # Keep the findings: without a broker to sample, none of them is known to be over.
            now = {**{key: line for key, line in before.items() if key[0] != _UNKNOWN}, **now}
        if self._known is None or now.keys() != before.keys():
            self._say(at, "=", summary(report))
        for key in now.keys() - before.keys():
            self._say(at, "+", now[key])
        for key in before.keys() - now.keys():
            self._say(at, "-", before[key])
        self._known = now

    def _say(self, at: str, sign: str, text: str) -> None:
        self._out.write(f"{at} {sign} {plain(text)}\n")


def _key(one: Finding | Unknown) -> tuple[str, ...]:
    if isinstance(one, Unknown):
        return (_UNKNOWN, one.what)
    return (one.severity, one.code, one.subject.kind, one.subject.name)


def _line(one: Finding | Unknown) -> str:
    if isinstance(one, Unknown):
        return f"not examined  {one.what}: {one.why}"
    return f"{one.severity}  {one.code}  {one.subject.kind} {one.subject.name}  {one.summary}"
