"""`celery -A proj deadbeat …`: how the `celery` program calls the commands.

Celery imports this module by its entry point group `celery.commands` at each start of `celery`, also for a
worker. So it imports the commands themselves only when one is called. Only `celery` may import it, because it
needs Celery and click.
"""

from __future__ import annotations

import contextlib
import os
import sys
from typing import Any

import click
from celery.bin.base import handle_preload_options


# Parse the arguments after `deadbeat` as `python -m deadbeat` does: same options, same exit status.
@click.command(
    "deadbeat",
    help="Audit, watch and doctor: find faults from a terminal.",
    add_help_option=False,
    context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False},
)
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
@click.pass_context
@handle_preload_options
def deadbeat(context: click.Context, arguments: tuple[str, ...], **_preloaded: Any) -> None:
    """Run a command for the app that `celery` has loaded."""
    from deadbeat.cli.command import Given, main

    if context.obj.no_color:
        os.environ["NO_COLOR"] = "1"
    context.exit(main(arguments, Given(context.obj.app, _project(context.find_root()))))


def _project(root: click.Context) -> str | None:
    """The value of `celery -A`, or of its variable; None without one, or if it is the app itself."""
    named = root.params.get("app")
    if not isinstance(named, str):
        # Older releases (5.3.6 is one) keep the app object there, so parse the arguments again.
        (option,) = [one for one in root.command.params if one.name == "app"]
        with contextlib.suppress(click.UsageError):
            words, _, _ = root.command.make_parser(root).parse_args(sys.argv[1:])
            named, _ = option.consume_value(root, words)
    return named if isinstance(named, str) else None
