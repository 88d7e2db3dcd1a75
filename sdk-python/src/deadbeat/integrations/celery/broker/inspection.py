"""Looks at a broker and its workers once, for an audit: all at once, and everything with a deadline.

The workers are asked by one round of Celery's inspect broadcasts, all commands together; the broker is read
over a connection of its own. No message is taken, and nothing is written but that broadcast and the queue for
its replies, which is deleted again. What hangs is left behind in a daemon thread.
"""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Callable

from deadbeat.cli.audit.finding import Unknown, error_words
from deadbeat.integrations.celery.broker.connection import connected, note_blocking
from deadbeat.integrations.celery.broker.look import BrokerLook, look_into

if TYPE_CHECKING:
    from celery import Celery

COMMANDS = ("stats", "active", "reserved", "scheduled", "active_queues", "registered")
SECOND_COMMANDS = ("stats", "active", "reserved")
# Classes of exceptions, by name, after which nothing is known of the broker: it answered, but not to us.
_REFUSALS = {
    "AuthenticationError",
    "AuthorizationError",
    "NoPermissionError",
    "AccessRefused",
    "NotAllowed",
    "AuthenticationFailed",
}


@dataclass
class WorkerLook:
    """What one worker answered; None where it did not."""

    name: str
    stats: dict[str, Any] | None = None
    active: list[dict[str, Any]] | None = None
    reserved: list[dict[str, Any]] | None = None
    scheduled: list[dict[str, Any]] | None = None
    queues: list[str] | None = None
    registered: list[str] | None = None
    # How often it answered each command: more than once, if two workers go by this name.
    answers: dict[str, int] = field(default_factory=dict)

    @property
    def accepted(self) -> int | None:
        """Tasks begun since it started."""
        return None if self.stats is None else sum((self.stats.get("total") or {}).values())

    @property
    def processes(self) -> int | None:
        """How many tasks it may run at once."""
        pool = (self.stats or {}).get("pool") or {}
        # The solo pool names its process only.
        most = pool.get("max-concurrency") or (1 if self.pool == "solo" else None)
        return most if isinstance(most, int) else None

    @property
    def pool(self) -> str | None:
        """As `--pool` names it."""
        name = ((self.stats or {}).get("pool") or {}).get("implementation")
        if not isinstance(name, str):
            return None
        # `celery.concurrency.thread:TaskPool`
        name = name.partition(":")[0].rpartition(".")[2]
        return {"thread": "threads"}.get(name, name)

    @property
    def prefetch(self) -> int | None:
        """How many messages it may hold; 0, any number."""
        return (self.stats or {}).get("prefetch_count")

    @property
    def pid(self) -> int | None:
        """Its main process."""
        return (self.stats or {}).get("pid")


@dataclass
class Look:
    """Everything seen at one moment."""

    at: float
    broker: BrokerLook
    workers: dict[str, WorkerLook] = field(default_factory=dict)
    # How many workers the broadcast reached; None where the broker does not say.
    listeners: int | None = None
    # Whether every one of them is known to have answered everything; None when that cannot be known.
    complete: bool | None = None
    unknown: list[Unknown] = field(default_factory=list)


class Inspection:
    """Looks at the broker and the workers of an app."""

    def __init__(self, app: Celery) -> None:
        self._app = app
        self.url, self._transport = _described(app)

    def look(
        self, names: Iterable[str], commands: tuple[str, ...], deadline: float, expected: int | None = None
    ) -> Look:
        """Look once, at these queues and whatever else is found; ends by `deadline` (monotonic clock).

        `expected` is how many workers will answer, where that is known already.
        """
        began = time.monotonic()
        broker = BrokerLook(self.url, self._transport)
        round_ = _Round()
        looks = [
            _InBackground("broker", lambda: self._look_at_broker(broker, list(names), deadline)),
            _InBackground("workers", lambda: self._ask_workers(round_, commands, expected, deadline)),
        ]
        for one in looks:
            one.join(deadline)
        look = Look(began, broker, unknown=[])
        fault = looks[0].fault
        if not looks[0].done:
            broker.reachable, broker.error = False, f"no answer within {deadline - began:.1f} s"
        elif fault is not None:
            broker.reachable, broker.error = _judged(fault), error_words(fault)
        else:
            broker.reachable = True
        # Copies: a thread that was left behind may still write.
        with round_.lock:
            look.workers = {name: round_.workers[name] for name in sorted(round_.workers)}
            look.listeners = round_.listeners
            broker.blocked = round_.blocked
        look.complete = _completeness(look, commands)
        if broker.reachable and looks[1].fault is not None:
            look.unknown.append(Unknown("the workers", error_words(looks[1].fault)))
        return look

    def consumers(self, deadline: float) -> dict[str, list[str]] | None:
        """The queues that each worker consumes, of those that answer by `deadline`.

        None when they could not be asked.
        """
        round_ = _Round()
        try:
            self._ask_workers(round_, ("active_queues",), None, deadline)
        # A broker that is away is told by others; a driver's fault must not cost them their turn.
        except Exception:
            return None
        return {name: worker.queues for name, worker in round_.workers.items() if worker.queues is not None}

    # -- the workers

    def _ask_workers(
        self, round_: _Round, commands: tuple[str, ...], expected: int | None, deadline: float
    ) -> None:
        from kombu import Consumer, Producer, uuid

        connection = connected(self._app.connection_for_read, deadline)
        try:
            channel = connection.default_channel
            mailbox: Any = self._app.control.mailbox  # type: ignore[attr-defined]  # the stubs lack it
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
                        self._broadcast(producer, mailbox, command, ticket, deadline)
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

    def _broadcast(self, producer: Any, mailbox: Any, command: str, ticket: str, deadline: float) -> None:
        """What `Inspect` sends, without its waiting for each command."""
        left = max(0.1, deadline - time.monotonic())
        # The arguments of tasks are not wanted, so their short form is asked for.
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

    # -- the broker

    def _look_at_broker(self, look: BrokerLook, names: list[str], deadline: float) -> None:
        connection = connected(self._app.connection_for_read, deadline)
        try:
            look_into(connection, names, look)
        finally:
            with contextlib.suppress(Exception):
                connection.release()


class _InBackground:
    """A call in a daemon thread, which is left behind when it does not end in time."""

    def __init__(self, name: str, call: Callable[[], None]) -> None:
        self._call = call
        self.fault: BaseException | None = None
        self.done = False
        self._thread = threading.Thread(target=self._run, name=f"deadbeat-{name}", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            self._call()
        # A broken driver or a worker's answer of another version is something to tell, not to die of.
        except Exception as fault:
            self.fault = fault
        self.done = True

    def join(self, deadline: float) -> None:
        self._thread.join(max(0.0, deadline - time.monotonic()) + 0.05)


class _Round:
    """The replies to one broadcast of all commands."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.workers: dict[str, WorkerLook] = {}
        self.listeners: int | None = None
        self.blocked = False
        self._replies: dict[str, int] = {}

    def take(self, command: str, body: dict[str, Any]) -> None:
        with self.lock:
            for name, reply in body.items():
                worker = self.workers.setdefault(str(name), WorkerLook(str(name)))
                worker.answers[command] = worker.answers.get(command, 0) + 1
                self._replies[command] = self._replies.get(command, 0) + 1
                # An error of the worker's own is an answer, but tells nothing.
                if isinstance(reply, dict) and set(reply) == {"error"}:
                    continue
                _keep(worker, command, reply)

    def note_blocked(self) -> None:
        self.blocked = True

    def is_complete(self, commands: tuple[str, ...]) -> bool:
        if self.listeners is None:
            return False
        return all(self._replies.get(command, 0) >= self.listeners for command in commands)


def _keep(worker: WorkerLook, command: str, reply: Any) -> None:
    if command == "stats":
        worker.stats = reply if isinstance(reply, dict) else None
    elif not isinstance(reply, list):
        return
    elif command == "active_queues":
        worker.queues = [str(queue["name"]) for queue in reply if isinstance(queue, dict) and "name" in queue]
    elif command == "registered":
        # A name, then what is set for it: `shop.tasks.mail [rate_limit=10/m]`.
        worker.registered = [str(name).partition(" [")[0] for name in reply]
    else:
        setattr(worker, command, [request for request in reply if isinstance(request, dict)])


def _completeness(look: Look, commands: tuple[str, ...]) -> bool | None:
    if look.listeners is None:
        return None
    return all(
        sum(worker.answers.get(command, 0) for worker in look.workers.values()) >= look.listeners
        for command in commands
    )


def _count_listeners(channel: Any) -> list[int]:
    """Have this channel note how many workers a broadcast reaches; only Redis says so.

    It is the answer to PUBLISH, which kombu drops. The workers with remote control switched off are not
    among them.
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
    """A consumer on Redis gives back what others held for too long; that is not an audit's business."""
    if type(channel).__module__ == "kombu.transport.redis":
        channel.qos.restore_visible = lambda *_, **__: None


def _described(app: Celery) -> tuple[str, str | None]:
    """The broker's address without name and password, and kombu's word for its kind."""
    try:
        connection = app.connection_for_read()
        place = (
            f"{connection.hostname or ''}:{connection.port}" if connection.port else connection.hostname or ""
        )
        kind = str(connection.transport_cls)
        path = str(connection.virtual_host or "").lstrip("/")
        return f"{kind}://{place}/{path}", kind
    except Exception as fault:
        return f"(unreadable: {error_words(fault)})", None


def _judged(fault: BaseException) -> bool | None:
    """False: the broker is away, as seen from here. None: it could not be tried."""
    chain: list[BaseException] = []
    while fault is not None and len(chain) < 10:
        chain.append(fault)
        fault = fault.__cause__ or fault.__context__  # type: ignore[assignment]
    names = {cls.__name__ for one in chain for cls in type(one).__mro__}
    # A name that does not resolve says more of this machine than of the broker.
    if names & (_REFUSALS | {"gaierror", "ImportError", "SSLError"}):
        return None
    return False if names & {"OSError", "ConnectionError", "TimeoutError"} else None
