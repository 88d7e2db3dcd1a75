"""Asks the server and an oracle for the next slots of many random schedules, and counts where they differ.

One row of ORACLES is one comparison. Its module makes the cases and knows the oracle:

    cases(seed: int, count: int) -> Iterator[Case]
        Random cases; the same ones for the same arguments. The driver asks for many small parts, each with a
        seed of its own. One expression may be used for several neighbouring cases.
    expected(case) -> Theirs | None
        What the oracle says; None where it cannot be asked, which is counted as left out.
    agrees(case: Case, ours: Ours, theirs: Theirs) -> str | None
        None when both say the same. Otherwise the class of a difference that is intended and has a row in
        docs/schedules.md, or DIFFERS.

A difference is undocumented when its class is DIFFERS, or has no row there.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import re
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from dataclasses import asdict, dataclass, field, is_dataclass
from datetime import datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from . import DIFFERS, Case, Ours, Refusal, clocks

ROOT = Path(__file__).resolve().parent.parent.parent
DOCUMENT = ROOT / "docs" / "schedules.md"
#: Cases that go to the server at once, and to one process.
CHUNK = 400
#: Examples that are kept of each class, and of what is undocumented.
EXAMPLES = 3
UNDOCUMENTED_EXAMPLES = 20


@dataclass(frozen=True)
class Oracle:
    """The program with which one kind of schedule is compared."""

    kind: str
    against: str
    module: str
    #: Cases at full size.
    full: int
    expected: str = "expected"
    agrees: str = "agrees"
    #: A function of the module: true if this machine has the oracle. Without it the comparison is left out.
    available: str | None = None

    def function(self, name: str) -> Callable[..., Any]:
        found: Callable[..., Any] = getattr(importlib.import_module(f"{__package__}.{self.module}"), name)
        return found


ORACLES = (
    Oracle("cron", "cronsim", "cron", 100_000),
    Oracle("cron", "Debian's cron, simulated", "cron", 100_000, "expected_debian", "agrees_debian"),
    Oracle("celery", "Celery's crontab", "celery", 100_000),
    Oracle("relative", "Celery's schedule", "relative", 60_000),
    Oracle("oncalendar", "oncalendar", "oncalendar", 50_000, "expected_package", "agrees_package"),
    Oracle(
        "oncalendar",
        "systemd-analyze",
        "oncalendar",
        5_000,
        "expected_systemd",
        "agrees_systemd",
        available="systemd_available",
    ),
    Oracle("solar", "Celery's solar", "solar", 5_000),
)
#: What answers, for the head of the table.
PACKAGES = ("cronsim", "celery", "ephem", "oncalendar")
#: Compared by a Rust program of their own.
RUST_TESTS = {"quartz": ["--lib", "quartz"]}
KINDS = tuple(dict.fromkeys([oracle.kind for oracle in ORACLES] + list(RUST_TESTS)))


#: A case, what the server says and what the oracle says.
Example = tuple[Case, Ours, Any]


@dataclass
class Result:
    """What a comparison found."""

    oracle: Oracle
    cases: int = 0
    agree: int = 0
    #: Of those that agree: both refuse.
    refused: int = 0
    left_out: int = 0
    classes: Counter[str] = field(default_factory=Counter)
    examples: dict[str, list[Example]] = field(default_factory=dict)
    seconds: float = 0.0

    def add(self, other: Result) -> None:
        self.cases += other.cases
        self.agree += other.agree
        self.refused += other.refused
        self.left_out += other.left_out
        self.classes += other.classes
        for name, examples in other.examples.items():
            for example in examples:
                self.keep(name, example)

    def keep(self, name: str, example: Example) -> None:
        kept = self.examples.setdefault(name, [])
        if len(kept) < (UNDOCUMENTED_EXAMPLES if name == DIFFERS else EXAMPLES):
            kept.append(example)

    def undocumented(self) -> Counter[str]:
        known = documented()
        return Counter(
            {name: count for name, count in self.classes.items() if (self.oracle.kind, name) not in known}
        )


def documented() -> set[tuple[str, str]]:
    """Kind and class of each row in docs/schedules.md, "Where we differ from other programs"."""
    section = (
        DOCUMENT.read_text(encoding="utf-8")
        .split("## Where we differ from other programs")[1]
        .split("\n## ")[0]
    )
    rows = [
        [cell.strip() for cell in line.split("|")[1:-1]]
        for line in section.splitlines()
        if line.startswith("|")
    ]
    return {
        (row[0].strip("`"), row[2].strip("`")) for row in rows if len(row) >= 3 and not row[0].startswith("-")
    }


# The server


def build(release: bool) -> Path:
    """Build the program that computes slots by the server's rules; returns its path."""
    command = ["cargo", "build", "--quiet", "--package", "deadbeat-domain", "--example", "slots"]
    command += ["--message-format", "json", *(["--release"] if release else [])]
    done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True)
    for line in done.stdout.splitlines():
        message = json.loads(line)
        if message.get("target", {}).get("name") == "slots" and message.get("executable"):
            return Path(message["executable"])
    raise RuntimeError("cargo does not say where the example 'slots' is")


def ask(slots: Path, questions: list[dict[str, Any]]) -> list[dict[str, Any]]:
    lines = "".join(f"{json.dumps(question)}\n" for question in questions)
    done = subprocess.run([str(slots)], input=lines, capture_output=True, text=True, check=False)
    answers = [json.loads(line) for line in done.stdout.splitlines()]
    if done.returncode or len(answers) != len(questions):
        raise RuntimeError(f"slots answered {len(answers)} of {len(questions)} lines: {done.stderr.strip()}")
    return answers


def read_answer(answer: dict[str, Any]) -> Ours:
    if "error" in answer:
        return Refusal(**answer["error"])
    return [clocks.instant(slot) for slot in answer["slots"]]


def check_release(slots: Path) -> None:
    """Require the same zone data on both sides: otherwise each zone with changed rules would seem a fault."""
    ours = ask(slots, [{"database": True}])[0]["database"]
    theirs = clocks.release()
    if ours != theirs:
        raise SystemExit(
            f"The server has release {ours} of the time zone database and Python's tzdata has {theirs}.\n"
            "Pin the package of the server's release in tests/requirements.txt and run scripts/install test."
        )


# Comparing


def compare(oracle: Oracle, slots: Path, seed: int, count: int) -> Result:
    """One part of a comparison, in one process."""
    result = Result(oracle)
    cases: list[Case] = list(oracle.function("cases")(seed, count))
    expected, agrees = oracle.function(oracle.expected), oracle.function(oracle.agrees)
    for case, answer in zip(cases, ask(slots, cases), strict=True):
        ours = read_answer(answer)
        result.cases += 1
        theirs = expected(case)
        if theirs is None:
            result.left_out += 1
            continue
        difference = agrees(case, ours, theirs)
        if difference is None:
            result.agree += 1
            result.refused += isinstance(ours, Refusal)
        else:
            result.classes[difference] += 1
            result.keep(difference, (case, ours, theirs))
    return result


def compare_all(
    oracle: Oracle,
    slots: Path,
    count: int,
    seed: int = 1,
    jobs: int = 2,
    progress: Callable[[Result, int], None] = lambda _result, _count: None,
) -> Result:
    """A whole comparison, in as many processes; its cases depend on seed and count alone."""
    result = Result(oracle)
    begin = time.monotonic()

    def parts() -> Iterator[tuple[int, int]]:
        for part, first in enumerate(range(0, count, CHUNK)):
            yield seed * 1_000_000 + part, min(CHUNK, count - first)

    waiting = parts()
    running: set[Future[Result]] = set()
    with ProcessPoolExecutor(jobs) as pool:
        while True:
            # Few at a time, so that a fault of the oracle or the driver ends it soon.
            for part_seed, part_count in waiting:
                running.add(pool.submit(compare, oracle, slots, part_seed, part_count))
                if len(running) >= 2 * jobs:
                    break
            if not running:
                break
            done, running = wait(running, return_when=FIRST_COMPLETED)
            for future in done:
                result.add(future.result())
            progress(result, count)
    result.seconds = time.monotonic() - begin
    return result


def oracles(kinds: list[str]) -> tuple[list[Oracle], list[str]]:
    """The comparisons of these kinds that can be made here, and what is said about the others."""
    there, missing = [], []
    for oracle in ORACLES:
        if oracle.kind in kinds:
            if oracle.available is None or oracle.function(oracle.available)():
                there.append(oracle)
            else:
                missing.append(f"{oracle.kind}: {oracle.against} is not on this machine")
    return there, missing


# The command


def show_progress() -> Callable[[Result, int], None]:
    """Prints how far it is, on one line of a terminal and every ten seconds elsewhere."""
    live = sys.stderr.isatty()
    last = time.monotonic()

    def show(result: Result, count: int) -> None:
        nonlocal last
        if live or time.monotonic() - last > 10:
            last = time.monotonic()
            bad = sum(result.undocumented().values())
            name = f"{result.oracle.kind}, {result.oracle.against}"
            text = f"{name}: {result.cases:,} of {count:,}, {bad} undocumented"
            print(f"\r\033[K{text}" if live else text, end="" if live else "\n", file=sys.stderr, flush=True)

    return show


def show_results(results: list[Result]) -> None:
    head = [
        "kind",
        "oracle",
        "cases",
        "agree",
        "both refuse",
        "differ",
        "undocumented",
        "left out",
        "seconds",
    ]
    rows = [head]
    for result in results:
        undocumented = result.undocumented()
        differ = sum(result.classes.values())
        numbers = [result.cases, result.agree, result.refused, differ, sum(undocumented.values())]
        numbers += [result.left_out, round(result.seconds)]
        rows.append([result.oracle.kind, result.oracle.against, *(f"{number:,}" for number in numbers)])
        for name, number in result.classes.most_common():
            count = f"{number:,}"
            rows.append(["", f"  {name}", "", "", "", count, count if name in undocumented else "", "", ""])
    widths = [max(len(row[column]) for row in rows) for column in range(len(head))]
    for row in rows:
        cells = [
            cell.ljust(width) if column < 2 else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        print("  ".join(cells).rstrip())


def shown(value: Any) -> str:
    """As JSON, whatever an oracle's module makes of its answers."""
    return json.dumps(value, default=plain, ensure_ascii=False)


def plain(value: Any) -> Any:
    if isinstance(value, datetime):
        return clocks.text(value)
    return asdict(value) if is_dataclass(value) and not isinstance(value, type) else str(value)


def examples_of(result: Result, names: Iterable[str]) -> str:
    lines = []
    for name in names:
        lines.append(f"\n{result.oracle.kind}, {result.oracle.against}: {name}")
        for case, ours, theirs in result.examples[name]:
            lines += [f"  case   {shown(case)}", f"  ours   {shown(ours)}", f"  theirs {shown(theirs)}"]
    return "\n".join(lines)


def write_examples(path: Path, results: list[Result]) -> None:
    with path.open("w", encoding="utf-8") as file:
        for result in results:
            for name, examples in result.examples.items():
                for case, ours, theirs in examples:
                    row = {"kind": result.oracle.kind, "oracle": result.oracle.against, "class": name}
                    file.write(f"{shown({**row, 'case': case, 'ours': ours, 'theirs': theirs})}\n")


def run_rust_test(kind: str, selection: list[str]) -> bool:
    command = ["cargo", "test", "--quiet", "--release", "--package", "deadbeat-domain", *selection]
    command += ["--", "--ignored"]
    print(f"{kind}: {' '.join(command)}", file=sys.stderr)
    done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=False)
    found = re.search(r"test result: .*", done.stdout)
    passed = re.search(r"\b(\d+) passed", found[0] if found else "")
    # A test that is not there shows nothing.
    right = done.returncode == 0 and passed is not None and int(passed[1]) > 0
    if not right:
        print(done.stdout)
    print(f"{kind}: {found[0] if found else 'no test was run'}{'' if right else ' FAILED'}")
    return right


def arguments() -> argparse.Namespace:
    """What scripts/schedule-diff explains with -h."""
    parser = argparse.ArgumentParser(prog="scripts/schedule-diff", add_help=False)
    parser.add_argument("kinds", nargs="*", metavar="kind")
    parser.add_argument("--count", type=int)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--debug", action="store_true")
    parser.add_argument("--examples", type=Path, metavar="FILE")
    given = parser.parse_args()
    unknown = [kind for kind in given.kinds if kind not in KINDS]
    if unknown:
        parser.error(f"there is no kind {unknown[0]}; there are {', '.join(KINDS)}")
    given.kinds = given.kinds or list(KINDS)
    return given


def main() -> int:
    given = arguments()
    there, missing = oracles(given.kinds)
    results = []
    if there:
        slots = build(release=not given.debug)
        check_release(slots)
        for oracle in there:
            count = oracle.full if given.count is None else given.count
            results.append(compare_all(oracle, slots, count, given.seed, given.jobs, show_progress()))
        if sys.stderr.isatty():
            print("\r\033[K", end="", file=sys.stderr)
        programs = ", ".join(f"{name} {version(name)}" for name in PACKAGES)
        print(f"Seed {given.seed}, time zone database {clocks.release()}, {programs}\n")
        show_results(results)
        for result in results:
            if bad := result.undocumented():
                print(examples_of(result, bad))
    for message in missing:
        print(message)
    if given.examples:
        write_examples(given.examples, results)
    right = [run_rust_test(kind, selection) for kind, selection in RUST_TESTS.items() if kind in given.kinds]
    return 0 if all(right) and not any(result.undocumented() for result in results) else 1


if __name__ == "__main__":
    sys.exit(main())
