"""The table of rows: printed, and kept in docs/silent-failures.md."""

from __future__ import annotations

import re

import parts
from silent_failures.stage import Row

FILE = parts.ROOT / "docs" / "silent-failures.md"
BEGIN, END = "<!-- rows -->", "<!-- /rows -->"
HEAD = ["row", "what is done", "holds", "cause named", "seconds (deadline)", "repair works"]


def cells(row: Row) -> list[str]:
    seconds = "" if row.seconds is None else f"{row.seconds:.1f}"
    deadline = "" if row.deadline is None else f" ({row.deadline:g})"
    cause = row.cause if "," in row.cause or not row.cause.isupper() else f"`{row.cause}`"
    return [row.number, row.fault, "yes" if row.held else "**no**", cause, seconds + deadline, row.repair]


def lines(rows: list[Row]) -> list[str]:
    """The rows as a Markdown table, in the document's order."""
    return [line_of(HEAD), line_of(["---"] * len(HEAD)), *(line_of(cells(row)) for row in in_order(rows))]


def in_order(rows: list[Row]) -> list[Row]:
    return sorted(rows, key=lambda row: (place(row.number), row.fault))


def place(number: str) -> tuple[int, int]:
    """The sort key: faults first, then healthy rows by their number, then the rest."""
    found = re.fullmatch(r"([FS])(\d+)", number)
    return ("FS".index(found[1]), int(found[2])) if found else (2, 0)


def line_of(words: list[str]) -> str:
    return "| " + " | ".join(words) + " |"


def write(rows: list[Row]) -> None:
    """Replace these rows in the document; the others stay."""
    text = FILE.read_text(encoding="utf-8")
    before, kept, after = re.split(f"{re.escape(BEGIN)}|{re.escape(END)}", text)
    known = {}
    for line in kept.splitlines():
        words = [word.strip() for word in line.strip().removeprefix("|").removesuffix("|").split("|")]
        if len(words) == len(HEAD) and re.match(r"[FS]\d|quiet", words[0]):
            known[words[0], words[1]] = line
    known |= {(row.number, row.fault): line_of(cells(row)) for row in rows}
    ordered = [known[key] for key in sorted(known, key=lambda key: (place(key[0]), key[1]))]
    body = "\n".join([line_of(HEAD), line_of(["---"] * len(HEAD)), *ordered])
    FILE.write_text(f"{before}{BEGIN}\n{body}\n{END}{after}", encoding="utf-8")
