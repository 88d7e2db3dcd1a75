"""A TCP proxy on a loopback port that can be cut in the ways in which networks are cut."""

from __future__ import annotations

import contextlib
import socket
import struct
import threading

import parts


class Link:
    """One connection through the proxy."""

    def __init__(self, near: socket.socket, far: socket.socket) -> None:
        self.near, self.far = near, far
        # True: bytes vanish without an error; the connection hangs forever.
        self.hangs = threading.Event()
        for source, target in ((near, far), (far, near)):
            threading.Thread(target=self._pump, args=(source, target), daemon=True).start()

    def _pump(self, source: socket.socket, target: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65_536):
                if not self.hangs.is_set():
                    target.sendall(data)
        if not self.hangs.is_set():
            self.close()

    def close(self, *, reset: bool = False) -> None:
        for end in (self.near, self.far):
            with contextlib.suppress(OSError):
                if reset:
                    end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                # Wakes the thread that waits in recv: before that, the socket is not really closed.
                end.shutdown(socket.SHUT_RD if reset else socket.SHUT_RDWR)
            end.close()


class Proxy:
    """Passes connections to a port, until a test refuses or hangs them."""

    def __init__(self, port: int) -> None:
        self.target = port
        self.port = parts.free_port()
        self.links: list[Link] = []
        # Connections accepted while the proxy hangs: never answered, never closed.
        self.held: list[socket.socket] = []
        self.lock = threading.Lock()
        self.is_hanging = False
        self.listener: socket.socket | None = None
        self.heal()

    def _accept(self, listener: socket.socket) -> None:
        while True:
            try:
                near, _ = listener.accept()
            except OSError:
                return
            with self.lock:
                if self.listener is not listener:
                    near.close()
                    continue
                if self.is_hanging:
                    self.held.append(near)
                    continue
                try:
                    far = socket.create_connection(("127.0.0.1", self.target), 5)
                    far.settimeout(None)
                except OSError:
                    near.close()
                    continue
                self.links.append(Link(near, far))

    def refuse(self) -> None:
        """Every connection is reset, and new ones are refused."""
        with self.lock:
            listener, self.listener = self.listener, None
            links, self.links = self.links, []
        if listener is not None:
            # Wakes the thread that waits in accept.
            with contextlib.suppress(OSError):
                listener.shutdown(socket.SHUT_RDWR)
            listener.close()
        for link in links:
            link.close(reset=True)

    def hang(self) -> None:
        """Connections stay open and accept bytes, without an answer. They never recover."""
        with self.lock:
            self.is_hanging = True
            for link in self.links:
                link.hangs.set()

    def heal(self) -> None:
        """New connections pass."""
        with self.lock:
            self.is_hanging = False
            if self.listener is None:
                self.listener = socket.create_server(("127.0.0.1", self.port), backlog=64)
                threading.Thread(target=self._accept, args=(self.listener,), daemon=True).start()

    def stop(self) -> None:
        self.refuse()
        for near in self.held:
            near.close()
