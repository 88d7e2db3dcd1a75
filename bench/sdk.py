"""What the SDK costs a worker: CPU a task, tasks a second, memory, and a task's time in the SDK's hooks.

No-op tasks, prefork with two children, Redis. The worker runs with and without the SDK in turn, several
rounds in one run; figures are medians, and the ratios compare medians of the same run. Another process
receives the reports, so that only the worker's CPU time counts: main process and children, from /proc.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from stand import children, cpu_seconds, free_port, rss_megabytes, say

TASKS = 4_000
WARM_UP = 300
# Longer than the SDK gathers reports, so that the figures include the sending; the same in every mode.
SETTLE_SECONDS = 3.0

# Mode → (what is tracked, what the server does); None: without the SDK.
MODES: dict[str, tuple[str, str] | None] = {
    "without": None,
    "default": ("", "answers"),
    "default, hanging": ("", "hangs"),
    "default, refusing": ("", "refuses"),
    "all": ("all", "answers"),
    "all, hanging": ("all", "hangs"),
    "all, refusing": ("all", "refuses"),
}

PROJECT = """
import os, time
from celery import Celery, signals
app = Celery("bench", broker=os.environ["BROKER"])
app.conf.task_ignore_result = True
app.conf.task_default_queue = "warm"

@signals.worker_ready.connect(weak=False)
def ready(**_):
    print("ready.", flush=True)

@app.task(name="bench.nothing")
def nothing():
    pass

if "DEADBEAT_URL" in os.environ:
    import deadbeat
    if "TIMES" in os.environ:
        from array import array
        import deadbeat.integrations.celery.handlers as hooks
        wall, cpu = array("Q"), array("Q")

        def timed(hook):
            def around(*args, **kwargs):
                began, began_cpu = time.perf_counter_ns(), time.thread_time_ns()
                hook(*args, **kwargs)
                cpu.append(time.thread_time_ns() - began_cpu)
                wall.append(time.perf_counter_ns() - began)
            return around

        hooks.on_task_prerun = timed(hooks.on_task_prerun)
        hooks.on_task_postrun = timed(hooks.on_task_postrun)

        @signals.worker_process_shutdown.connect(weak=False)
        def write(**_):
            with open(f"{os.environ['TIMES']}-{os.getpid()}", "w") as out:
                out.writelines(f"{a} {b}\\n" for a, b in zip(wall, cpu))
    deadbeat.init(app)
"""


class Receiver(BaseHTTPRequestHandler):
    """Takes a batch and accepts all of it, or never answers."""

    protocol_version = "HTTP/1.1"
    wbufsize = -1
    hangs = False

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        if self.hangs:
            time.sleep(600)
        body = b'{"results": []}'
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        pass


def receive(port: int, answer: str) -> None:
    Receiver.hangs = answer == "hangs"
    server = ThreadingHTTPServer(("127.0.0.1", port), Receiver)
    server.daemon_threads = True
    server.serve_forever()


@contextlib.contextmanager
def running(command: list[str], log: Path, **environment: str) -> Iterator[subprocess.Popen[bytes]]:
    """A process that the end of the block ends."""
    with log.open("wb") as out:
        process = subprocess.Popen(
            command, env={**os.environ, **environment}, stdout=out, stderr=out, cwd=log.parent
        )
    try:
        yield process
    finally:
        process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(30)
        process.kill()


def until(found: Any, limit: float = 120.0) -> None:
    deadline = time.monotonic() + limit
    while not found():
        if time.monotonic() > deadline:
            raise RuntimeError("it did not come to that in time")
        time.sleep(0.005)


class Bench:
    """One Redis, and the worker's project in a temporary folder."""

    def __init__(self, folder: Path, port: int, tasks: int) -> None:
        from celery import Celery
        from redis import Redis

        self.folder, self.tasks = folder, tasks
        self.broker = f"redis://127.0.0.1:{port}/0"
        self.redis = Redis(port=port)
        self.sender = Celery("sender", broker=self.broker, set_as_current=False)
        (folder / "project.py").write_text(PROJECT)

    def send(self, queue: str, count: int) -> None:
        with self.sender.producer_pool.acquire() as producer:
            for _ in range(count):
                self.sender.send_task("bench.nothing", queue=queue, producer=producer, ignore_result=True)

    def worked_off(self, queue: str) -> None:
        # A message is acknowledged when a child takes it.
        until(lambda: not self.redis.llen(queue) and not self.redis.hlen("unacked"))

    def run(self, mode: tuple[str, str] | None, times: str = "") -> dict[str, float]:
        """One worker's life."""
        self.redis.flushall()
        self.send("warm", WARM_UP)
        self.send("work", self.tasks)
        with contextlib.ExitStack() as stack:
            environment = {"BROKER": self.broker}
            if mode is not None:
                tracked, answer = mode
                port = free_port()
                environment |= {
                    "DEADBEAT_URL": f"http://127.0.0.1:{port}",
                    "DEADBEAT_KEY": "bench",
                    "DEADBEAT_TRACK": tracked,
                }
                if times:
                    environment["TIMES"] = times
                if answer != "refuses":
                    command = [sys.executable, __file__, "--receive", str(port), answer]
                    stack.enter_context(running(command, self.folder / "receiver.log"))
            command = [sys.executable, "-m", "celery", "-A", "project", "worker", "-c", "2", "-Q", "warm"]
            log = self.folder / "worker.log"
            worker = stack.enter_context(running([*command, "-n", "bench@here"], log, **environment))
            until(lambda: "ready." in log.read_text())
            self.worked_off("warm")
            pids = [worker.pid, *children(worker.pid)]
            time.sleep(SETTLE_SECONDS)
            before = sum(map(cpu_seconds, pids))
            started = time.monotonic()
            self.sender.control.add_consumer("work")
            self.worked_off("work")
            took = time.monotonic() - started
            time.sleep(SETTLE_SECONDS)
            spent = sum(map(cpu_seconds, pids)) - before
            return {
                "cpu_us": spent / self.tasks * 1e6,
                "per_second": self.tasks / took,
                "main_mb": rss_megabytes(worker.pid),
                "child_mb": max(map(rss_megabytes, pids[1:])),
            }


def percentile(values: list[int], share: float) -> float:
    return sorted(values)[int(len(values) * share)] / 1000


def hook_times(bench: Bench) -> dict[str, float]:
    """Microseconds in the SDK's hooks before and after a task, in the task's thread; all are tracked."""
    bench.run(("all", "answers"), times=str(bench.folder / "times"))
    rows = [
        tuple(map(int, line.split()))
        for file in bench.folder.glob("times-*")
        for line in file.read_text().splitlines()
    ]
    found = {}
    for column, name in enumerate(("wall", "cpu")):
        values = [row[column] for row in rows]
        for share, label in ((0.5, "p50"), (0.99, "p99"), (0.999, "p99.9")):
            found[f"hook {name} {label} us"] = percentile(values, share)
    return found


def measure(rounds: int, tasks: int) -> None:
    binary = shutil.which("redis-server")
    if binary is None:
        raise SystemExit("redis-server is not installed")
    with tempfile.TemporaryDirectory(prefix="deadbeat-bench.") as name:
        folder, port = Path(name), free_port()
        command = [binary, "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"]
        with running(command, folder / "redis.log"):
            until(lambda: "eady to accept connections" in (folder / "redis.log").read_text())
            bench = Bench(folder, port, tasks)
            rows: dict[str, list[dict[str, float]]] = {mode: [] for mode in MODES}
            for number in range(rounds):
                # Change the order each round, so that no mode always follows the same one.
                order = list(MODES)[number % len(MODES) :] + list(MODES)[: number % len(MODES)]
                for mode in order:
                    row = bench.run(MODES[mode])
                    rows[mode].append(row)
                    say(
                        f"round {number + 1}, {mode}: "
                        + ", ".join(f"{key} {value:,.1f}" for key, value in row.items())
                    )
            times = hook_times(bench)
    middle = {
        mode: {key: statistics.median(row[key] for row in found) for key in found[0]}
        for mode, found in rows.items()
    }
    bare = middle["without"]
    print(f"{'mode':>18} {'CPU us/task':>12} {'ratio':>6} {'tasks/s':>8} {'main +MB':>9} {'child +MB':>9}")
    for mode, figures in middle.items():
        print(
            f"{mode:>18} {figures['cpu_us']:12,.0f} {figures['cpu_us'] / bare['cpu_us']:6.3f} "
            f"{figures['per_second']:8,.0f} {figures['main_mb'] - bare['main_mb']:9.1f} "
            f"{figures['child_mb'] - bare['child_mb']:9.1f}"
        )
    for label, value in times.items():
        print(f"{label:>24} {value:8.1f}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--tasks", type=int, default=TASKS)
    parser.add_argument(
        "--receive", nargs=2, metavar=("PORT", "ANSWER"), help="be the server; used by itself"
    )
    given = parser.parse_args()
    if given.receive:
        receive(int(given.receive[0]), given.receive[1])
    else:
        # On SIGTERM, also end the processes started here.
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
        measure(given.rounds, given.tasks)
