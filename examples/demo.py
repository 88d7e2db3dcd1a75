"""What `make demo` shows: a real Celery, whose Beat is killed with -9, and the alert that arrives.

Also a sink for webhooks: with `--sink PORT` it prints every alert that is posted to it, until Ctrl-C.
Only the standard library is needed for the sink; the demonstration needs what `scripts/install test` brings.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import signal
import sys
import tempfile
import time
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

# The tests' helpers: real parts on free ports.
sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))
import parts

# Short, so that nobody waits; the product's defaults are 15 and 60 seconds.
BEAT_PERIOD = 1
BEAT_GRACE = 3
WATCHED = {"send-greetings", "count-stock", "deadbeat.canary"}
BEGAN = time.monotonic()


def describe(alert: dict[str, Any]) -> str:
    """An alert's JSON as a person reads it: what, why, and what to type."""
    incident = alert.get("incident")
    if incident is None:
        return f"{alert['type']}: the way from Deadbeat to here works"
    if alert["type"] == "incident.resolved":
        subject, cause = incident["subject"], incident["cause"]
        return f"RESOLVED  {subject['kind']} {subject['name']}: {cause['code']} is over"
    lines = [f"{incident['cause']['code']}  {incident['cause']['summary']}"]
    lines += [
        f"  evidence  {fact['fact']}" + (f" ({fact['at']})" if fact["at"] else "")
        for fact in incident["evidence"]
    ]
    for step in incident["repair"]:
        lines.append(f"  repair    {step['text']}")
        if step["command"]:
            lines.append(f"            $ {step['command']}")
    return "\n".join(lines)


def serve_sink(port: int) -> None:
    """Print every alert that is posted to this port."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:  # the name that http.server calls
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            try:
                print(describe(json.loads(body)), flush=True)
            except (ValueError, KeyError, TypeError, AttributeError):
                print(body.decode(errors="replace"), flush=True)
            self.send_response(204)
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            pass

    print(f"alerts that are posted to http://127.0.0.1:{port}/ appear here; Ctrl-C ends this", flush=True)
    with contextlib.suppress(KeyboardInterrupt):
        HTTPServer(("127.0.0.1", port), Handler).serve_forever()


def say(text: str) -> None:
    """A line of the story, with the seconds since its beginning."""
    print(f"[{time.monotonic() - BEGAN:4.0f} s] {text}", flush=True)


def show(alert: dict[str, Any]) -> None:
    """An alert as it arrived."""
    text = describe(alert["json"]).replace("\n", "\n         | ")
    print(f"         | {text}", flush=True)


def celery(name: str, arguments: list[str], folder: Path, env: dict[str, str]) -> parts.Part:
    """The example's worker or Beat."""
    command = [parts.program("celery"), "-A", "proj", *arguments]
    return parts.Part(name, command, folder, env, cwd=parts.ROOT / "examples" / "celery")


def play(folder: Path, cleaning: contextlib.ExitStack) -> None:
    """The story. What does not come in time raises an AssertionError."""
    say("starting a Redis, a Deadbeat server with a database of its own, and a webhook sink")
    broker = cleaning.enter_context(parts.redis(folder))
    sink = parts.Sink()
    cleaning.callback(sink.stop)
    server = parts.Server(folder)
    cleaning.callback(server.stop)
    server.ready()
    server.api("POST", "/channels", {"kind": "webhook", "name": "the sink", "settings": {"url": sink.url}})
    say(f"Deadbeat serves at {server.url} (admin@localhost, {server.keys['password']}) and alerts the sink")

    env = {
        "CELERY_BROKER_URL": broker,
        "DEADBEAT_URL": server.url,
        "DEADBEAT_KEY": server.keys["ping key"],
        "DEMO_SECONDS": "2",
        "DEADBEAT_GRACE_SECONDS": "3",
        "DEADBEAT_CANARY_SECONDS": "2",
        "DEADBEAT_CANARY_GRACE_SECONDS": "3",
        "DEADBEAT_BEAT_PERIOD_SECONDS": str(BEAT_PERIOD),
        "DEADBEAT_BEAT_GRACE_SECONDS": str(BEAT_GRACE),
    }
    beat_command = ["beat", "--schedule", str(folder / "celerybeat-schedule")]
    worker = celery("worker", ["worker", "--pool", "prefork", "--concurrency", "2"], folder, env)
    cleaning.callback(worker.stop)
    beat = celery("beat", beat_command, folder, env)
    cleaning.callback(beat.stop)
    say("started Celery's worker and Beat of examples/celery; nothing in its tasks knows of Deadbeat")

    def monitors() -> dict[str, dict[str, Any]]:
        return {monitor["name"]: monitor for monitor in server.api("GET", "/monitors")["monitors"]}

    def all_report() -> bool:
        seen = monitors()
        return set(seen) >= WATCHED and all(
            seen[name]["status"] in ("up", "late") and seen[name]["ping_count"] >= 4 for name in WATCHED
        )

    parts.wait_for("reports of every monitor", all_report)
    say("Beat's schedule became monitors by itself, and their runs report:")
    for name, monitor in sorted(monitors().items()):
        if name in WATCHED:
            schedule, signals = monitor["schedule_summary"], monitor["ping_count"]
            print(f"         | {name:16} {monitor['status']:5} {schedule}, {signals} signals")
    if sink.received:
        raise AssertionError("a healthy Celery was alerted about")

    beat.kill()
    say(f"kill -9 {beat.process.pid}: Beat is dead. The worker is green and nothing raises. Waiting ...")
    killed_at = time.time()
    opened = parts.wait_for("the alert", lambda: sink.alerts("incident.opened"))[0]
    say(f"the alert arrived, {opened['at'] - killed_at:.1f} s after the kill:")
    show(opened)
    if opened["json"]["incident"]["cause"]["code"] != "BEAT_DOWN":
        raise AssertionError("the alert names another cause than BEAT_DOWN")

    def members() -> set[str]:
        return {member["name"] for member in server.api("GET", "/incidents")["incidents"][0]["members"]}

    parts.wait_for("the monitors that Beat feeds", lambda: members() >= WATCHED)
    names = ", ".join(sorted(WATCHED))
    say(f"its monitors joined that one incident ({names}); alerts so far: {len(sink.received)}")

    beat = celery("beat", beat_command, folder, env)
    cleaning.callback(beat.stop)
    say("did what the alert says: Beat is started again. Waiting ...")
    resolved = parts.wait_for("the end of the incident", lambda: sink.alerts("incident.resolved"))[0]
    say("the second alert arrived:")
    show(resolved)
    if len(sink.received) != 2:
        raise AssertionError(f"{len(sink.received)} alerts came, not two")
    say("two alerts in all: one when it broke, one when it was whole again")


def main() -> int:
    """Play the story, or serve the sink."""
    parser = argparse.ArgumentParser(prog="examples/demo.py", description=__doc__.splitlines()[0])
    parser.add_argument(
        "--sink", type=int, metavar="PORT", help="only print what is posted to this port of 127.0.0.1"
    )
    asked = parser.parse_args()
    if asked.sink is not None:
        serve_sink(asked.sink)
        return 0

    # What is set for a server or an app of yours must not reach the ones that are started here.
    for name in [
        name for name in os.environ if name.startswith("DEADBEAT_") and name != "DEADBEAT_POSTGRES_BIN"
    ]:
        del os.environ[name]
    # SIGTERM cleans up like Ctrl-C.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    with tempfile.TemporaryDirectory(prefix="deadbeat-demo-", ignore_cleanup_errors=True) as text:
        folder = Path(text)
        try:
            with contextlib.ExitStack() as cleaning:
                play(folder, cleaning)
        except AssertionError as missing:
            say(f"the demonstration failed: {missing}")
            for log in sorted(folder.glob("*.log")):
                print(f"---- {log.name}\n{log.read_text(errors='replace')[-3000:]}", file=sys.stderr)
            return 1
        except KeyboardInterrupt:
            return 130
    say("everything is cleaned up")
    return 0


if __name__ == "__main__":
    sys.exit(main())
