"""README.md is correct: its commands run as they are written.

The test runs each block of shell after `<!-- tested -->`, in order. It starts a block after
`<!-- tested: background -->` and leaves it running, as in another terminal. The blocks run in a folder
that looks like a new checkout (links to the real one, and the server's data folder). The test replaces
address, port and keys by those of a new server, and changes nothing else.
"""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import parts

BLOCK = re.compile(r"<!-- tested(?P<how>: background)? -->\n```sh\n(?P<script>.*?)```", re.DOTALL)
LINKS = ("Cargo.toml", "Makefile", "examples", "scripts", "sdk-python", "target", "tests")


def blocks() -> list[tuple[bool, str]]:
    """The marked blocks: true for one to leave running, and its text."""
    text = (parts.ROOT / "README.md").read_text()
    return [(found["how"] is not None, found["script"]) for found in BLOCK.finditer(text)]


def test_the_commands_of_the_readme_work_as_written(server: parts.Server, tmp_path: Path) -> None:
    found = blocks()
    assert len(found) >= 6, "README.md lost its marks"
    for name in LINKS:
        (tmp_path / name).symlink_to(parts.ROOT / name)
    sink_port = str(parts.free_port())
    real = {
        "http://127.0.0.1:8000": server.url,
        "127.0.0.1:9000": f"127.0.0.1:{sink_port}",
        "--sink 9000": f"--sink {sink_port}",
        "dbw_...": server.keys["API key"],
        "dbp_...": server.keys["ping key"],
    }
    exports = ""
    running: list[parts.Part] = []
    try:
        for stays, script in found:
            for written, meant in real.items():
                script = script.replace(written, meant)
            if stays:
                running.append(parts.Part("background", ["bash", "-euc", script], tmp_path, {}, cwd=tmp_path))
                parts.wait_for("its first line", running[-1].text)
                continue
            done = subprocess.run(
                ["bash", "-euo", "pipefail", "-c", exports + script],
                cwd=tmp_path,
                env=os.environ,
                capture_output=True,
                text=True,
                timeout=120,
                check=False,
            )
            assert done.returncode == 0, f"{script}\n{done.stdout}\n{done.stderr}"
            # One terminal: the next blocks see what a block exports.
            exports += "".join(line + "\n" for line in script.splitlines() if line.startswith("export "))

        [sink] = running
        parts.wait_for("the alert in the sink", lambda: "MISSED" in sink.text())
        parts.wait_for("its end in the sink", lambda: "RESOLVED" in sink.text())
        names = {monitor["slug"] for monitor in server.api("GET", "/monitors")["monitors"]}
        assert {"my-first-job", "nightly-backup"} <= names
        assert (tmp_path / "deadbeat.dump").stat().st_size > 1000
    finally:
        for part in running:
            part.stop()
