"""A worker that lives for one task, for the command `doctor`: shows which process makes which report.

Run as `python -m deadbeat.cli.doctor.probe <app> <queue> <number of a file descriptor>`. It is the
application's own worker, prefork, with one child, on a queue of its own. It answers no broadcast, so that
nobody counts it. It writes each of the SDK's reports, with the process that made it, to the descriptor
instead of sending it to the server.
"""

from __future__ import annotations

import json
import os
import sys
from typing import Any


def main(project: str, queue: str, number: int) -> None:
    """Run the worker until it is ordered to end."""
    from celery import signals
    from kombu import Exchange, Queue

    from deadbeat.cli.application import load
    from deadbeat.integrations.celery import apps

    app = load(project).app
    main_pid = os.getpid()

    def report(kind: str, **facts: Any) -> None:
        line = json.dumps({"kind": kind, "pid": os.getpid(), "main": main_pid, **facts}, default=str)
        # One write of a short line: parent and child write to the same pipe.
        os.write(number, f"{line}\n".encode())

    reporter = apps.installed(app)
    if reporter is None:
        report("not_installed")
        return

    def put(event: dict[str, Any], **_: Any) -> None:
        if event["type"] != "worker_snapshot":
            report(event["type"], task_id=event.get("task_id"), published_at=event.get("published_at"))
        else:
            report("worker_snapshot", pool=event["pool"], scheduled=event["scheduled"])

    reporter.transport.put = put  # type: ignore[method-assign]

    def ready(**_: Any) -> None:
        report("ready")

    signals.worker_ready.connect(ready, weak=False)
    # Connected after the SDK's handlers, so all their reports of the task are made by then.
    signals.task_postrun.connect(lambda **_: report("task_over"), weak=False)
    app.conf.worker_enable_remote_control = False
    app.amqp.queues.add(Queue(queue, Exchange(queue, auto_delete=True), routing_key=queue, auto_delete=True))
    options = ["--pool", "prefork", "--concurrency", "1", "--queues", queue, "--hostname", f"{queue}@%h"]
    quiet = ["--without-gossip", "--without-mingle", "--without-heartbeat", "--loglevel", "WARNING"]
    app.worker_main(["worker", *options, *quiet])


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]))
