"""Reports as text for a terminal: tables, findings, unknowns."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

from deadbeat.cli.audit.finding import CRITICAL, SEVERITIES, WARNING, Finding, counted, span
from deadbeat.cli.audit.report import Report

_COLOURS = {CRITICAL: "\x1b[1;31m", WARNING: "\x1b[1;33m"}
_BOLD, _PLAIN = "\x1b[1m", "\x1b[0m"
# Longer names are cut in tables only; findings have them whole.
_CELL_WIDTH = 48


def plain(text: Any) -> str:
    """Text from a broker, without characters that a terminal would obey."""
    return "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in str(text))


def render(report: Report, colour: bool = False) -> str:
    """The whole report."""
    lines = [_headline(report), ""]
    lines += _table(
        ("WORKER", "POOL", "PROCESSES", "ACTIVE", "RESERVED", "ETA", "BEGUN", "RUNNING LONGEST", "QUEUES"),
        [
            (
                row["name"],
                row["pool"],
                row["processes"],
                row["active"],
                row["reserved"],
                row["scheduled"],
                row["accepted"],
                f"{row['longest']['task']} {span(row['longest']['seconds'])}" if row["longest"] else "-",
                "?" if row["queues"] is None else ", ".join(row["queues"]) or "none",
            )
            for row in report.workers()
        ],
        right=(2, 3, 4, 5, 6),
    ) or ["no worker answered"]
    lines.append("")
    lines += _table(
        ("QUEUE", "WAITING", "OLDEST", "TASK", "CONSUMED BY"),
        [
            (
                row["name"],
                row["depth"],
                "-" if not row["depth"] else row["oldest_seconds"] and span(row["oldest_seconds"]),
                "-" if not row["depth"] else row["oldest_task"],
                _consumers(row),
            )
            for row in report.queues()
        ],
        right=(1,),
    ) or ["no queue was sampled"]
    broker = report.observed.last.broker
    if broker.unacked is not None:
        line = f"unacked: {counted(broker.unacked, 'message')} unacknowledged at workers, of all queues"
        if broker.oldest_unacked_seconds is not None:
            line += f"; the oldest for {span(broker.oldest_unacked_seconds)}"
        lines.append(line)
    for finding in report.findings:
        lines += ["", *_finding(finding, colour)]
    if report.unknown:
        lines += ["", _emphasised("not examined", colour)]
        lines += [f"  {plain(one.what)}: {plain(one.why)}" for one in report.unknown]
    lines += ["", summary(report)]
    return "\n".join(lines)


def summary(report: Report) -> str:
    """The last line: the number of findings by severity, and of unknowns."""
    counts = [
        (sum(finding.severity == severity for finding in report.findings), severity)
        for severity in SEVERITIES
    ]
    words = ", ".join(
        counted(number, severity) if severity != CRITICAL else f"{number} critical"
        for number, severity in counts
        if number
    )
    text = words or "nothing found"
    if report.unknown:
        text += f"; {counted(len(report.unknown), 'thing')} not examined"
    return text


def _headline(report: Report) -> str:
    at = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(report.at))
    broker = report.observed.last.broker
    state = {True: "", False: " (DOWN)", None: " (not examined)"}[broker.reachable]
    server = report.observed.knowledge
    parts = [plain(report.application.name), f"{plain(broker.url)}{state}"]
    if server is not None:
        parts.append(f"{plain(server.url)}{'' if server.reachable else ' (no answer)'}")
    return " · ".join([*parts, at, f"{report.took_seconds:.1f} s"])


def _consumers(row: dict[str, Any]) -> str:
    if row["workers"]:
        names = row["workers"]
        return ", ".join(names) if len(names) <= 3 else f"{', '.join(names[:3])} and {len(names) - 3} more"
    return "nobody that answered" if row["consumers"] is None else counted(row["consumers"], "consumer")


def _finding(finding: Finding, colour: bool) -> list[str]:
    title = f"{finding.severity:<8}  {finding.code}  {finding.subject.kind} {plain(finding.subject.name)}"
    lines = [_coloured(title, finding.severity, colour), f"  {plain(finding.summary)}"]
    for fact in finding.evidence:
        lines.append(f"  · {plain(fact.fact)}{f' ({plain(fact.at)})' if fact.at else ''}")
    for step in finding.repair:
        lines.append(f"  → {plain(step.text)}")
        if step.command:
            lines.append(f"      {plain(step.command)}")
    return lines


def _coloured(text: str, severity: str, colour: bool) -> str:
    return f"{_COLOURS.get(severity, _BOLD)}{text}{_PLAIN}" if colour else text


def _emphasised(text: str, colour: bool) -> str:
    return f"{_BOLD}{text}{_PLAIN}" if colour else text


def _table(head: Sequence[str], rows: Sequence[Sequence[Any]], right: tuple[int, ...] = ()) -> list[str]:
    """Columns as wide as their widest cell; `?` for an unknown figure."""
    if not rows:
        return []
    cells = [[_cell(value) for value in row] for row in (head, *rows)]
    # The last column needs no padding.
    widths = [max(len(row[place]) for row in cells) for place in range(len(head) - 1)]
    lines = []
    for row in cells:
        padded = [
            cell.rjust(width) if place in right else cell.ljust(width)
            for place, (cell, width) in enumerate(zip(row, widths))
        ]
        lines.append("  ".join([*padded, row[-1]]).rstrip())
    return lines


def _cell(value: Any) -> str:
    if value is None:
        return "?"
    text = plain(value)
    return text if len(text) <= _CELL_WIDTH else f"{text[: _CELL_WIDTH - 1]}…"
