"""The line between the daemon and its provider, which cuts, delays, halves and mangles on command.

A :class:`Line` listens on loopback and carries one request and its answer at a time to the server
behind it, until :meth:`Line.break_with` gives it a :class:`Fault`; :meth:`Line.mend` takes that away.
It can speak TLS, and be a proxy for HTTPS. It counts what comes, so that a test can say "no request".
"""

from __future__ import annotations

import socket
import ssl
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from enum import Enum, auto
from typing import Self

PATIENCE = 30.0
"""Seconds that a peer may be silent in; no test waits so long."""


class Listens(Enum):
    """What becomes of a connection before anything is said on it."""

    OPEN = auto()
    CLOSED = auto()
    """It is refused: nobody listens."""
    DEAF = auto()
    """It is never answered, as on a line that drops everything."""


class Ends(Enum):
    """What becomes of a connection once all that is to be said on it was said."""

    CLOSED = auto()
    RESET = auto()
    SILENT = auto()
    """It stays open, and nothing comes any more."""


def _as_it_is(answer: bytes) -> bytes:
    return answer


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """What goes wrong with each connection, or with the next ``count``."""

    listens: Listens = Listens.OPEN
    takes: int | None = None
    """Only so many bytes are read, before any encryption, and passed on to nobody; None: all."""
    served: bool = True
    """The request reaches the server; of a proxy: it makes a way to the server."""
    answer: Callable[[bytes], bytes] = _as_it_is
    """The bytes that come back; takes the true answer, which is empty where none was asked for."""
    late: float = 0.0
    """Seconds until the answer begins."""
    pace: float = 0.0
    """Seconds between two bytes of the answer."""
    ends: Ends = Ends.CLOSED
    certificate: ssl.SSLContext | None = None
    """In place of the line's own."""
    count: int | None = None


@dataclass(frozen=True, slots=True)
class Arrival:
    """A request that came whole."""

    at: float
    """On CLOCK_BOOTTIME."""
    what: str
    """Method and target."""


class Line:
    """See the module; a context manager.

    ``target`` is where the server listens, ``host`` the loopback address of the line's own end. With
    ``tls`` the line ends the encryption. With ``proxy`` it waits for CONNECT first, and whatever name
    is asked for it leads to the one server.
    """

    def __init__(
        self,
        target: tuple[str, int],
        *,
        host: str = "127.0.0.1",
        tls: ssl.SSLContext | None = None,
        proxy: bool = False,
    ) -> None:
        self.connected: list[float] = []
        """When each connection was accepted, on CLOCK_BOOTTIME."""
        self.requests: list[Arrival] = []
        self.tunnels: list[str] = []
        """Where a proxy was asked for a way to."""
        self._target = target
        self._host = host
        self._tls = tls
        self._proxy = proxy
        self._fault = Fault()
        self._struck = 0
        self._next: tuple[int, Fault] | None = None
        self._lock = threading.Lock()
        self._arrived = threading.Condition()
        self._over = threading.Event()
        self._open: set[socket.socket] = set()
        self._held: list[socket.socket] = []
        # It never listens, but keeps the port while nobody does.
        self._holder = self._socket()
        self._holder.bind((host, 0))
        self.port: int = self._holder.getsockname()[1]
        shown = f"[{host}]" if ":" in host else host
        self.url = f"http{'s' if tls and not proxy else ''}://{shown}:{self.port}"
        self._listener: socket.socket | None = None
        self._listen()

    def break_with(self, fault: Fault, *, after: int = 0) -> None:
        """From the next connection on, or once ``after`` more of them have come."""
        with self._lock:
            if after:
                self._next = after, fault
            else:
                self._become(fault)

    def mend(self) -> None:
        """From the next connection on it is a good line; one that is silent stays so."""
        self.break_with(Fault())

    def wait_for(self, requests: int) -> None:
        """Return once so many have come whole."""
        with self._arrived:
            assert self._arrived.wait_for(lambda: len(self.requests) >= requests, PATIENCE)

    def close(self) -> None:
        """End all connections."""
        self._over.set()
        self._close_listener()
        self._holder.close()
        with self._lock:
            for connection in self._open:
                with suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def _become(self, fault: Fault) -> None:
        before, self._fault, self._struck, self._next = self._fault, fault, 0, None
        if fault.listens is before.listens:
            return
        self._close_listener()
        if fault.listens is Listens.OPEN:
            self._listen()
        elif fault.listens is Listens.DEAF:
            self._go_deaf()

    def _strike(self) -> Fault:
        """What becomes of the connection that has just come."""
        fault = self._fault
        if fault.count is not None and self._struck >= fault.count:
            fault = Fault()
        self._struck += 1
        if self._next is not None:
            after, following = self._next
            self._next = after - 1, following
            if after == 1:
                self._become(following)
        return fault

    # Listening, or not.

    def _socket(self) -> socket.socket:
        made = socket.socket(socket.AF_INET6 if ":" in self._host else socket.AF_INET)
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        return made

    def _listen(self) -> None:
        listener = self._listener = self._socket()
        listener.bind((self._host, self.port))
        listener.listen(64)
        threading.Thread(target=self._accept, args=(listener,), daemon=True).start()

    def _go_deaf(self) -> None:
        # Linux drops the SYN of whoever comes while the queue of those to be accepted is full.
        listener = self._listener = self._socket()
        listener.bind((self._host, self.port))
        listener.listen(0)
        waiting = self._socket()
        waiting.connect((self._host, self.port))
        self._held = [waiting]

    def _close_listener(self) -> None:
        if self._listener is not None:
            with suppress(OSError):  # close() alone would not end an accept() that waits
                self._listener.shutdown(socket.SHUT_RDWR)
            self._listener.close()
            self._listener = None
        for held in self._held:
            held.close()
        self._held = []

    def _accept(self, listener: socket.socket) -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            with self._lock:
                self.connected.append(_boot())
                self._open.add(connection)
                fault = self._strike()
            threading.Thread(target=self._serve, args=(connection, fault), daemon=True).start()

    # One connection.

    def _serve(self, connection: socket.socket, fault: Fault) -> None:
        connection.settimeout(PATIENCE)
        # A peer that hangs up, or does not believe the certificate, ends its connection only.
        with suppress(OSError):
            self._converse(connection, fault)
        with self._lock:
            self._open.discard(connection)
        connection.close()

    def _converse(self, connection: socket.socket, fault: Fault) -> None:
        if fault.takes is not None:
            _receive(connection, fault.takes)
            connection.sendall(fault.answer(b""))
            self._end(connection, fault)
            return
        if self._proxy:
            target = _request(connection).split()[1].decode()
            self.tunnels.append(target)
            if not fault.served:
                connection.sendall(fault.answer(b""))
                self._end(connection, fault)
                return
            connection.sendall(b"HTTP/1.1 200 Connection established\r\n\r\n")
        if self._tls is not None:
            context = fault.certificate or self._tls
            with context.wrap_socket(connection, server_side=True) as encrypted:
                self._exchange(encrypted, fault)
        else:
            self._exchange(connection, fault)

    def _exchange(self, connection: socket.socket, fault: Fault) -> None:
        request = _request(connection)
        words = request.split(b" ", 2)
        with self._arrived:
            self.requests.append(Arrival(_boot(), b" ".join(words[:2]).decode()))
            self._arrived.notify_all()
        answer = fault.answer(self._ask(request) if fault.served else b"")
        self._over.wait(fault.late)
        if fault.pace:
            for byte in answer:
                connection.sendall(bytes([byte]))
                self._over.wait(fault.pace)
        else:
            connection.sendall(answer)
        self._end(connection, fault)

    def _ask(self, request: bytes) -> bytes:
        with socket.create_connection(self._target, PATIENCE) as server:
            server.sendall(request)
            # To its end: whoever is tested here asks for one answer on a connection.
            return b"".join(iter(lambda: server.recv(64 * 1024), b""))

    def _end(self, connection: socket.socket, fault: Fault) -> None:
        if fault.ends is Ends.RESET:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        elif fault.ends is Ends.SILENT:
            while not self._over.is_set() and connection.recv(64 * 1024):
                pass


def _boot() -> float:
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def _receive(connection: socket.socket, size: int) -> None:
    while size > 0 and (data := connection.recv(size)):
        size -= len(data)


def _request(connection: socket.socket) -> bytes:
    """One request, whole. Raises ``OSError`` where the peer has not sent one."""
    data = b""
    length: int | None = None
    while length is None or len(data) < length:
        piece = connection.recv(64 * 1024)
        if not piece:
            raise ConnectionError("no whole request")
        data += piece
        if length is None and b"\r\n\r\n" in data:
            head = data.partition(b"\r\n\r\n")[0]
            length = len(head) + 4 + _content_length(head)
    return data


def _content_length(head: bytes) -> int:
    for line in head.lower().split(b"\r\n"):
        name, _, value = line.partition(b":")
        if name == b"content-length":
            return int(value)
    return 0
