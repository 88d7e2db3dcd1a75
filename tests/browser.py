"""A real browser: headless Chromium, driven over its DevTools protocol through a pipe."""

from __future__ import annotations

import itertools
import json
import os
import select
import shutil
import signal
import time
from pathlib import Path
from types import TracebackType
from typing import Any

import parts

NAMES = ("chromium-headless-shell", "chromium", "chromium-browser", "google-chrome")
# Seconds that a page or an answer of the browser may take on a loaded machine.
LIMIT = 60.0


def program() -> str:
    for name in NAMES:
        if found := shutil.which(name) or next(iter(parts.ROOT.glob(f".tools/usr/bin/{name}")), None):
            return str(found)
    raise AssertionError("there is no Chromium; run scripts/install test")


class Browser:
    """One page. Records each request and each complaint of the browser: errors, refusals of a policy."""

    def __init__(self, folder: Path, *, scripts: bool = True, width: int = 1_280) -> None:
        read_commands, self.commands = os.pipe()
        self.answers, write_answers = os.pipe()
        arguments = [
            program(),
            "--headless",
            "--remote-debugging-pipe",
            f"--user-data-dir={folder / 'browser'}",
            # As root and in containers Chromium cannot use its sandbox.
            "--no-sandbox",
            "--disable-dev-shm-usage",
            "--disable-gpu",
            "--no-first-run",
            "--disable-background-networking",
        ]
        # The protocol uses the file descriptors 3 and 4; other output is discarded.
        self.pid = os.posix_spawn(
            arguments[0],
            arguments,
            dict(os.environ),
            file_actions=[
                (os.POSIX_SPAWN_DUP2, read_commands, 3),
                (os.POSIX_SPAWN_DUP2, write_answers, 4),
                (os.POSIX_SPAWN_OPEN, 1, "/dev/null", os.O_WRONLY, 0),
                (os.POSIX_SPAWN_OPEN, 2, str(folder / "browser.log"), os.O_WRONLY | os.O_CREAT, 0o600),
            ],
        )
        os.close(read_commands)
        os.close(write_answers)
        self.buffer = b""
        self.numbers = itertools.count(1)
        self.session: str | None = None
        self.events: list[dict[str, Any]] = []
        self.complaints: list[str] = []
        self.requests: list[str] = []
        page = self.call("Target.createTarget", url="about:blank")["targetId"]
        self.session = self.call("Target.attachToTarget", targetId=page, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")
        self.call("Emulation.setScriptExecutionDisabled", value=not scripts)
        metrics = {"width": width, "height": 800, "deviceScaleFactor": 1, "mobile": width < 600}
        self.call("Emulation.setDeviceMetricsOverride", **metrics)

    def __enter__(self) -> Browser:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        os.kill(self.pid, signal.SIGKILL)
        os.waitpid(self.pid, 0)
        os.close(self.commands)
        os.close(self.answers)

    def call(self, method: str, **params: Any) -> Any:
        """Send the browser a command, and wait for its answer."""
        number = next(self.numbers)
        message: dict[str, Any] = {"id": number, "method": method, "params": params}
        if self.session is not None:
            message["sessionId"] = self.session
        os.write(self.commands, json.dumps(message).encode() + b"\0")
        end = time.monotonic() + LIMIT
        while True:
            answer = self.read(end, method)
            if answer.get("id") == number:
                assert "error" not in answer, (method, params, answer["error"])
                return answer["result"]
            self.note(answer)

    def read(self, end: float, what: str) -> dict[str, Any]:
        while b"\0" not in self.buffer:
            left = end - time.monotonic()
            ready = select.select([self.answers], [], [], left)[0] if left > 0 else []
            assert ready, f"{what} took longer than {LIMIT:.0f} s"
            piece = os.read(self.answers, 65_536)
            assert piece, "the browser ended"
            self.buffer += piece
        text, self.buffer = self.buffer.split(b"\0", 1)
        read: dict[str, Any] = json.loads(text)
        return read

    def note(self, event: dict[str, Any]) -> None:
        method, params = event.get("method"), event.get("params", {})
        if method == "Log.entryAdded":
            self.complaints.append(f"{params['entry']['level']}: {params['entry']['text']}")
        elif method == "Runtime.exceptionThrown":
            self.complaints.append(params["exceptionDetails"]["text"])
        elif method == "Network.requestWillBeSent":
            self.requests.append(f"{params['request']['method']} {params['request']['url']}")
        self.events.append(event)

    def loaded(self) -> None:
        """Wait until the page has loaded."""
        end = time.monotonic() + LIMIT
        while not any(event.get("method") == "Page.loadEventFired" for event in self.events):
            self.note(self.read(end, "loading a page"))

    def open(self, url: str) -> None:
        self.events.clear()
        answer = self.call("Page.navigate", url=url)
        assert "errorText" not in answer, (url, answer)
        self.loaded()

    def evaluate(self, expression: str) -> Any:
        # This evaluation works even if the page's scripts are off.
        answer = self.call("Runtime.evaluate", expression=expression, returnByValue=True)
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    def text(self) -> str:
        """The text that a person sees."""
        return str(self.evaluate("document.body.innerText"))

    def press(self, words: str) -> None:
        """Click the button with this text, as a mouse does, and wait for the next page."""
        found = (
            "(() => { const button = [...document.querySelectorAll('button')]"
            f".find(one => one.innerText.trim() === {json.dumps(words)});"
            " if (!button) return null; button.scrollIntoView({block: 'center'});"
            " const box = button.getBoundingClientRect();"
            " return [box.x + box.width / 2, box.y + box.height / 2]; })()"
        )
        place = self.evaluate(found)
        assert place is not None, f"no button {words!r} in: {self.text()}"
        self.events.clear()
        for kind in ("mousePressed", "mouseReleased"):
            self.call(
                "Input.dispatchMouseEvent", type=kind, x=place[0], y=place[1], button="left", clickCount=1
            )
        self.loaded()
