"""Asks the workers behind a broker, in one round of Celery's inspect broadcasts, with a deadline.

It writes nothing but that broadcast and the queue for its replies, which it deletes again.
"""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from deadbeat.integrations.celery.broker.connection import connected, note_blocking

if TYPE_CHECKING:
    from celery import Celery


@dataclass
class WorkerAnswer:
    """One worker's answers; None where it did not answer."""

    name: str
    stats: dict[str, Any] | None = None
    active: list[dict[str, Any]] | None = None
    reserved: list[dict[str, Any]] | None = None
    scheduled: list[dict[str, Any]] | None = None
    queues: list[str] | None = None
    registered: list[str] | None = None
    # How often it answered each command: more than once if two workers have this name.
    answers: dict[str, int] = field(default_factory=dict)

    @property
    def accepted(self) -> int | None:
        """Tasks started since the worker's start."""
        return None if self.stats is None else sum((self.stats.get("total") or {}).values())

    @property
    def processes(self) -> int | None:
        """How many tasks it may run at once."""
        pool = (self.stats or {}).get("pool") or {}
        # The solo pool reports only its process.
        most = pool.get("max-concurrency") or (1 if self.pool == "solo" else None)
        return most if isinstance(most, int) else None

    @property
    def pool(self) -> str | None:
        """The value of `--pool`."""
        name = ((self.stats or {}).get("pool") or {}).get("implementation")
        if not isinstance(name, str):
            return None
        # `celery.concurrency.thread:TaskPool`
        name = name.partition(":")[0].rpartition(".")[2]
        return {"thread": "threads"}.get(name, name)

    @property
    def prefetch(self) -> int | None:
        """How many messages it may prefetch; 0 means any number."""
        return (self.stats or {}).get("prefetch_count")

    @property
    def pid(self) -> int | None:
        """Its main process."""
        return (self.stats or {}).get("pid")


class Round:
    """The replies to one broadcast of all commands."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.workers: dict[str, WorkerAnswer] = {}
        self.listeners: int | None = None
        self.blocked = False
        self._replies: dict[str, int] = {}

    def take(self, command: str, body: dict[str, Any]) -> None:
        with self.lock:
            for name, reply in body.items():
                worker = self.workers.setdefault(str(name), WorkerAnswer(str(name)))
                worker.answers[command] = worker.answers.get(command, 0) + 1
                self._replies[command] = self._replies.get(command, 0) + 1
                # A worker's error is an answer without content.
                if isinstance(reply, dict) and set(reply) == {"error"}:
                    continue
                _keep(worker, command, reply)

    def note_blocked(self) -> None:
        self.blocked = True

    def is_complete(self, commands: tuple[str, ...]) -> bool:
        if self.listeners is None:
            return False
        return all(self._replies.get(command, 0) >= self.listeners for command in commands)


def consumed_queues(app: Celery, deadline: float) -> dict[str, list[str]] | None:
    """The queues that each worker consumes, of those that answer by `deadline`.

    None when they could not be asked.
    """
    round_ = Round()
    try:
        ask_workers(app, round_, ("active_queues",), deadline)
    # Others report a broker that is away; a fault of the driver must not stop them.
    except Exception:
        return None
    return {name: worker.queues for name, worker in round_.workers.items() if worker.queues is not None}


def ask_workers(
    app: Celery, round_: Round, commands: tuple[str, ...], deadline: float, expected: int | None = None
) -> None:
    """Send one broadcast of all commands; `round_` collects the replies that come by `deadline`.

    `expected` is the number of workers that will answer, if known. Raises what the client raises.
    """
    from kombu import Consumer, Producer, uuid

    connection = connected(app.connection_for_read, deadline)
    try:
        channel = connection.default_channel
        mailbox: Any = app.control.mailbox  # type: ignore[attr-defined]  # the stubs lack it
        queue = mailbox.get_reply_queue()(channel)
        queue.declare()
        tickets = {uuid(): command for command in commands}
        round_.listeners = expected
        counted = _count_listeners(channel) if expected is None else []
        _restore_nothing(channel)
        note_blocking(connection, round_.note_blocked)

        def on_reply(body: Any, message: Any) -> None:
            command = tickets.get(message.headers.get("ticket"))
            if command is not None and isinstance(body, dict):
                round_.take(command, body)

        try:
            with Consumer(channel, [queue], callbacks=[on_reply], accept=mailbox.accept, no_ack=True):
                producer = Producer(channel, serializer=mailbox.serializer, auto_declare=False)
                for ticket, command in tickets.items():
                    _broadcast(producer, mailbox, command, ticket, deadline)
                if counted:
                    round_.listeners = min(counted)
                while not round_.is_complete(commands):
                    left = deadline - time.monotonic()
                    if left <= 0:
                        break
                    with contextlib.suppress(socket.timeout):
                        connection.drain_events(timeout=left)
        finally:
            queue.delete()
    finally:
        connection.release()


def _broadcast(producer: Any, mailbox: Any, command: str, ticket: str, deadline: float) -> None:
    """Send what `Inspect` sends, without waiting after each command."""
    left = max(0.1, deadline - time.monotonic())
    # Nobody needs the tasks' arguments, so ask for the short form.
    arguments = {"safe": True} if command == "active" else {}
    producer.publish(
        {
            "method": command,
            "arguments": arguments,
            "destination": None,
            "pattern": None,
            "matcher": None,
            "ticket": ticket,
            "reply_to": {"exchange": mailbox.reply_exchange.name, "routing_key": mailbox.oid},
        },
        exchange=mailbox.exchange.name,
        declare=[mailbox.exchange],
        headers={"clock": mailbox.clock.forward(), "expires": time.time() + left + 1},
    )


def _keep(worker: WorkerAnswer, command: str, reply: Any) -> None:
    if command == "stats":
        worker.stats = reply if isinstance(reply, dict) else None
    elif not isinstance(reply, list):
        return
    elif command == "active_queues":
        worker.queues = [str(queue["name"]) for queue in reply if isinstance(queue, dict) and "name" in queue]
    elif command == "registered":
        # A name, then its settings: `shop.tasks.mail [rate_limit=10/m]`.
        worker.registered = [str(name).partition(" [")[0] for name in reply]
    else:
        setattr(worker, command, [request for request in reply if isinstance(request, dict)])


def _count_listeners(channel: Any) -> list[int]:
    """Let this channel count how many workers a broadcast reaches; only Redis counts them.

    The count is the answer to PUBLISH, which kombu drops. It leaves out workers with remote control switched
    off.
    """
    counts: list[int] = []
    if not hasattr(channel, "_put_fanout") or type(channel).__module__ != "kombu.transport.redis":
        return counts
    from kombu.utils.json import dumps

    def put(exchange: str, message: Any, routing_key: str, **_: Any) -> None:
        topic = channel._get_publish_topic(exchange, routing_key)
        counts.append(int(channel.client.publish(topic, dumps(message))))

    channel._put_fanout = put
    return counts


def _restore_nothing(channel: Any) -> None:
    """Keep this consumer from redelivering overdue messages: an audit must change nothing."""
    if type(channel).__module__ == "kombu.transport.redis":
        channel.qos.restore_visible = lambda *_, **__: None
