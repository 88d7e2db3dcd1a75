"""Audit, watch and doctor for a Celery application, in a terminal.

`python -m deadbeat …` and `celery -A proj deadbeat …` (plugin.py) both end here.

Output of the application's own modules goes to standard error, so that standard output is the report alone
and a program can read `--json`.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import signal
import sys
import traceback
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NoReturn, TextIO

from deadbeat._transport import timeouts
from deadbeat.cli.application import Application, complete, load
from deadbeat.cli.audit.finding import command as shell_command
from deadbeat.cli.audit.finding import error_words
from deadbeat.cli.audit.report import EXIT_BLIND, EXIT_CRITICAL, Choice, make_report
from deadbeat.version import __version__

if TYPE_CHECKING:
    from celery import Celery

# sysexits.h: wrong usage. Not 2, which means "critical".
EXIT_USAGE = 64
# A fault of Deadbeat. Not 1, Python's default, which means "warnings".
EXIT_FAULT = 70

_EXIT_WORDS = """exit status:
  0   nothing found (notices do not count)
  1   warnings
  2   something critical
  3   nothing could be examined: the app does not load, or neither the broker could be asked (its client
      is broken, it refuses the password) nor the server
  64  wrong usage
  70  a fault in Deadbeat itself
The section "not examined" lists what could not be examined: neither good nor bad, and without effect on the
exit status. An unreachable broker is a critical finding (BROKER_DOWN)."""

_AUDIT_WORDS = """Examines broker, workers, configuration and the state at the Deadbeat server, once.

Takes no message, and writes nothing but Celery's inspect broadcast. Asks the server if DEADBEAT_URL is set
and DEADBEAT_READ_KEY is a read key. docs/audit.md explains every code."""

_WATCH_WORDS = "Redraws a terminal; elsewhere it writes a line for each new (+) and each ended (-) finding."

_DOCTOR_WORDS = """Tests the SDK in this set-up: starts a prefork worker with your app, on a queue of
its own, sends it one task that does nothing, and checks which of the SDK's reports the main process
makes, and which the child of the pool. Sends none of these reports. Asks the server whether it accepts
the key. Takes at most 15 s for the worker. Ends with the claims that this set-up supports, and those
that it does not."""

_DOCTOR_EXIT_WORDS = """exit status:
  0   every test passed
  1   it works, with a warning
  2   something does not work, or Celery is not installed
  3   nothing could be tested
  64  wrong usage"""


@dataclass(frozen=True)
class Given:
    """The app that the `celery` program has loaded, and the value of its -A; None without one."""

    app: Celery
    project: str | None


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        self.print_usage(sys.stderr)
        self.exit(EXIT_USAGE, f"{self.prog}: {message}\n")


def main(arguments: Sequence[str] | None = None, given: Given | None = None) -> int:
    """Run the command for the given app, or else for the app of its own -A; returns its exit status."""
    parser = _parser(given)
    chosen = parser.parse_args(arguments)
    if given is not None:
        if given.project is None:
            parser.error("no app is named; its name goes before deadbeat: celery -A APP deadbeat")
        chosen.app = given.project
    chosen.given = given
    with _own_output() as out:
        try:
            status: int = chosen.run(chosen, out)
            out.flush()
        except BrokenPipeError:
            # The reader closed the pipe.
            status = 0
        except KeyboardInterrupt:
            status = 130
        except Exception:
            traceback.print_exc()
            print("deadbeat: this is a fault of Deadbeat; it says nothing about your system", file=sys.stderr)
            status = EXIT_FAULT
    return status


def _parser(given: Given | None) -> argparse.ArgumentParser:
    parser = _Parser(
        prog="python -m deadbeat" if given is None else "celery -A APP deadbeat",
        description="Deadbeat, the dead man's switch for Celery.",
    )
    parser.add_argument("--version", action="version", version=f"deadbeat {__version__}")
    commands = parser.add_subparsers(metavar="COMMAND", required=True, parser_class=_Parser)

    def add(name: str, run: Any, line: str, words: str, end: str) -> argparse.ArgumentParser:
        one: argparse.ArgumentParser = commands.add_parser(
            name,
            help=line,
            description=words,
            epilog=end,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        one.set_defaults(run=run)
        if given is None:
            one.add_argument(
                "-A",
                "--app",
                required=True,
                metavar="APP",
                help="the application, as for `celery -A`: proj, proj.celery:app",
            )
        return one

    audit = add(
        "audit", _audit, "examine the application once, and report what is wrong", _AUDIT_WORDS, _EXIT_WORDS
    )
    audit.add_argument(
        "--json", action="store_true", help="one JSON document on standard output, nothing else"
    )
    _add_choice(audit)
    watch = add(
        "watch",
        _watch,
        "repeat the audit until Ctrl-C",
        f"{_AUDIT_WORDS}\n\n{_WATCH_WORDS}",
        "exit status: 0 after Ctrl-C, SIGTERM or SIGHUP; 3 when the app does not load; 64 wrong usage",
    )
    watch.add_argument(
        "--interval", type=_positive, default=5.0, metavar="SECONDS", help="between two audits (5)"
    )
    _add_choice(watch)
    doctor = add(
        "doctor", _doctor, "test whether the SDK works in this set-up", _DOCTOR_WORDS, _DOCTOR_EXIT_WORDS
    )
    doctor.add_argument(
        "--json", action="store_true", help="one JSON document on standard output, nothing else"
    )
    doctor.add_argument(
        "--worker",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="start the temporary worker (on by default)",
    )
    return parser


def _add_choice(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--timeout",
        type=_positive,
        default=timeouts.AUDIT_ANSWER_SECONDS,
        metavar="SECONDS",
        help="timeout for broker, workers and server (2); the whole takes a second more at most",
    )
    parser.add_argument(
        "--server",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="ask the Deadbeat server, too (on by default)",
    )
    parser.add_argument(
        "--config",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="judge the app's configuration, too (on by default)",
    )


def _positive(text: str) -> float:
    seconds = float(text)
    if not 0 < seconds <= 3600:
        raise argparse.ArgumentTypeError(f"{text} is not a number of seconds between 0 and 3600")
    return seconds


@contextlib.contextmanager
def _own_output() -> Iterator[TextIO]:
    """Standard output for the report; all other output, also of C code and children, goes to stderr."""
    try:
        number = os.dup(1)
    except OSError:
        # There is none, as in some tests.
        yield sys.stdout
        return
    former = sys.stdout
    former.flush()
    out = os.fdopen(number, "w", encoding="utf-8", errors="replace")
    try:
        os.dup2(2, 1)
        with contextlib.redirect_stdout(sys.stderr):
            yield out
    finally:
        with contextlib.suppress(OSError):
            out.flush()
        os.dup2(number, 1)
        with contextlib.suppress(OSError):
            out.close()


def _loaded(chosen: argparse.Namespace, out: TextIO, without_celery: int = EXIT_BLIND) -> Application | int:
    """The application; else an exit status, with the reason on standard error and in the document."""
    try:
        return load(chosen.app) if chosen.given is None else complete(chosen.given.app, chosen.app)
    except ModuleNotFoundError as fault:
        if fault.name != "celery":
            return _say_not_loaded(chosen, out, EXIT_BLIND, _cannot_load(chosen, fault))
        words = (
            f"Celery is not installed for {sys.executable}, which runs this command. "
            "Run it with the Python of the application's workers, or install Celery: "
            f"{shell_command(sys.executable, '-m', 'pip', 'install', 'deadbeat[celery]')}"
        )
        return _say_not_loaded(chosen, out, without_celery, words)
    # A module of the application may raise anything, and may exit as well.
    except (Exception, SystemExit) as fault:
        return _say_not_loaded(chosen, out, EXIT_BLIND, _cannot_load(chosen, fault))


def _cannot_load(chosen: argparse.Namespace, fault: BaseException) -> str:
    return f"{chosen.app} cannot be loaded: {error_words(fault)}"


def _say_not_loaded(chosen: argparse.Namespace, out: TextIO, status: int, words: str) -> int:
    print(f"deadbeat: {words}", file=sys.stderr)
    # `watch` writes no document.
    if getattr(chosen, "json", False):
        _write_json({"exit_code": status, "error": words}, out)
    return status


def _choice(chosen: argparse.Namespace) -> Choice:
    return Choice(timeout=chosen.timeout, server=chosen.server, configuration=chosen.config)


def _audit(chosen: argparse.Namespace, out: TextIO) -> int:
    from deadbeat.cli.audit.screen import render

    application = _loaded(chosen, out)
    if isinstance(application, int):
        return application
    report = make_report(application, _choice(chosen))
    if chosen.json:
        _write_json(report.as_json(), out)
    else:
        out.write(f"{render(report, colour=_has_colour(out))}\n")
    return report.exit_code


def _watch(chosen: argparse.Namespace, out: TextIO) -> int:
    from deadbeat.cli.watch import watch

    application = _loaded(chosen, out)
    if isinstance(application, int):
        return application
    with _interrupted_by(signal.SIGTERM, getattr(signal, "SIGHUP", None)):
        watch(application, _choice(chosen), chosen.interval, out)
    return 0


@contextlib.contextmanager
def _interrupted_by(*numbers: signal.Signals | None) -> Iterator[None]:
    """Let these signals end the body as Ctrl-C does, so that it leaves the terminal as it was.

    A signal that the caller ignores stays ignored: `nohup` asks for that.
    """

    def interrupt(number: int, frame: Any) -> NoReturn:
        raise KeyboardInterrupt

    before = {number: signal.getsignal(number) for number in numbers if number is not None}
    before = {number: handler for number, handler in before.items() if handler is not signal.SIG_IGN}
    for number in before:
        signal.signal(number, interrupt)
    try:
        yield
    except KeyboardInterrupt:
        # The signal came before or after the loop that waits for it.
        pass
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _doctor(chosen: argparse.Namespace, out: TextIO) -> int:
    application = _loaded(chosen, out, without_celery=EXIT_CRITICAL)
    if isinstance(application, int):
        return application
    # Only now: it needs Celery.
    from deadbeat.cli.doctor.examine import examine

    diagnosis = examine(application, worker=chosen.worker)
    if chosen.json:
        _write_json(diagnosis.as_json(), out)
    else:
        out.write(f"{diagnosis.as_text(colour=_has_colour(out))}\n")
    return diagnosis.exit_code


def _write_json(document: dict[str, Any], out: TextIO) -> None:
    json.dump(document, out, indent=2, default=str)
    out.write("\n")


def _has_colour(out: TextIO) -> bool:
    return out.isatty() and not os.environ.get("NO_COLOR")
