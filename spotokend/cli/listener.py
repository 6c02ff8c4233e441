"""The loopback listener of one login: plain sockets under one selector, no thread.

Only processes of the same user are answered. A browser opens connections ahead of need and says
nothing on them, so none is waited for: each is read when it has something to say, and where there
are too many the oldest goes.
"""

from __future__ import annotations

import os
import selectors
import socket
import time
from collections import Counter
from collections.abc import Callable

import h11

from . import terminal
from .callback import Exchange, Redirect
from .loopback_peer import Address, peer_uid
from .pages import Page, used

CONNECTIONS = 32
"""Browsers keep at most six to one host; several may be open."""
PATIENCE = 1.0
"""Seconds for the kernel to take a page of 3 KB, which it does at once unless it is being teased."""


class Visit:
    """The browser at the redirect address: ``address`` is for ``login_finish``; answer it once."""

    def __init__(self, listener: Listener, connection: socket.socket, address: str) -> None:
        self._listener = listener
        self._connection = connection
        self.address = address

    def answer(self, page: Page) -> None:
        """Lead the browser to ``page``, away from the address that holds the code."""
        self._listener.lead(self._connection, page)


class Listener:
    """Bound when it is made, so before anybody is told of it; :meth:`close` it.

    ``authorize_url`` has to be set before the browser is sent to :attr:`start_address`.

    Raises:
        OSError: the port is taken, or the host has no such address.
    """

    def __init__(
        self, redirect: Redirect, *, uid_of: Callable[[Address, Address], int | None] = peer_uid
    ) -> None:
        family = socket.AF_INET6 if ":" in redirect.host else socket.AF_INET
        self._socket = socket.socket(family, socket.SOCK_STREAM)
        try:
            # An earlier login's closed connections must not keep the registered port busy.
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            self._socket.bind((redirect.host, redirect.port or 0))
            self._socket.listen()
        except OSError:
            self._socket.close()
            raise
        self._socket.setblocking(False)
        self.port: int = self._socket.getsockname()[1]
        self.redirect = redirect if redirect.port else redirect.at(self.port)
        self.authorize_url = ""
        self._uid_of = uid_of
        self._selector = selectors.EpollSelector()
        self._selector.register(self._socket, selectors.EVENT_READ)
        self._connections: dict[socket.socket, Exchange] = {}
        self._pages: dict[str, Page] = {}
        self._unseen: Counter[str] = Counter()
        self._ended = False
        self._refused: set[int | None] = set()

    @property
    def start_address(self) -> str:
        """Where the browser is sent first."""
        return self.redirect.address("start")

    def fileno(self) -> int:
        """Readable whenever :meth:`serve` has something to do."""
        return self._selector.fileno()

    def serve(self) -> Visit | None:
        """Do what can be done at once; the browser's visit to the redirect address, if it came."""
        for key, _ in self._selector.select(0):
            connection = key.fileobj
            assert isinstance(connection, socket.socket)
            if connection is self._socket:
                self._accept()
            elif (visit := self._read(connection)) is not None:
                return visit
        return None

    def linger(self, seconds: float) -> None:
        """The login has ended: serve until every page was fetched, at most so long."""
        self._ended = True
        deadline = time.monotonic() + seconds
        while self._unseen.total() and (left := deadline - time.monotonic()) > 0:
            self._selector.select(left)
            self.serve()

    def lead(self, connection: socket.socket, page: Page) -> None:
        """Send the browser to a page."""
        path = self.redirect.beside(page.name)
        self._pages[path] = page
        self._unseen[path] += 1
        exchange = self._connections[connection]
        self._send(connection, exchange.see_other(self.redirect.address(page.name)))

    def close(self) -> None:
        """Stop listening and hang up."""
        for connection in list(self._connections):
            self._drop(connection)
        self._selector.close()
        self._socket.close()

    def _accept(self) -> None:
        try:
            connection, peer = self._socket.accept()
        except OSError:  # gone again before it was our turn
            return
        uid = self._uid_of(peer[:2], (self.redirect.host, self.port))
        if uid != os.getuid():
            connection.close()
            self._tell_refusal(uid)
            return
        connection.settimeout(PATIENCE)
        if len(self._connections) >= CONNECTIONS:
            self._drop(next(iter(self._connections)))
        self._connections[connection] = Exchange()
        self._selector.register(connection, selectors.EVENT_READ)

    def _tell_refusal(self, uid: int | None) -> None:
        if uid in self._refused:
            return
        self._refused.add(uid)
        if uid is None:
            terminal.say(
                "A connection was refused, because this system doesn't tell whose it is. If that "
                "was your browser: paste the address that it shows."
            )
        else:
            terminal.say(f"A connection of another user of this computer (uid {uid}) was refused.")

    def _read(self, connection: socket.socket) -> Visit | None:
        exchange = self._connections[connection]
        try:
            data = connection.recv(16 * 1024)
            request = exchange.receive(data)
        except (OSError, h11.RemoteProtocolError):
            self._drop(connection)
            return None
        if request is None:
            if not data:
                self._drop(connection)
            return None
        path, start = self.redirect.path_asked(request), self.redirect.beside("start")
        if self._ended and path in {self.redirect.path, start}:
            self.lead(connection, used())
        elif path == self.redirect.path:
            query = request.target.decode("latin-1").partition("?")[2]
            return Visit(self, connection, f"{self.redirect.uri}?{query}")
        elif path == start and self.authorize_url:
            self._send(connection, exchange.see_other(self.authorize_url))
        elif path in self._pages:
            self._send(connection, exchange.page(self._pages[path]))
            self._unseen[path] -= self._unseen[path] > 0  # not for a page that is reloaded
        else:
            self._send(connection, exchange.not_found())
        return None

    def _send(self, connection: socket.socket, data: bytes) -> None:
        try:
            connection.sendall(data)
            connection.shutdown(socket.SHUT_WR)
        except OSError:  # the browser has gone: nobody is left to be told
            pass
        self._drop(connection)

    def _drop(self, connection: socket.socket) -> None:
        del self._connections[connection]
        self._selector.unregister(connection)
        connection.close()
