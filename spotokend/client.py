"""The blocking client: a thin shim over the daemon's socket.

What it promises:

- A token that is kept costs no system call, only a look at the clock; it is never expired, whatever
  happens to the wall clock, and never one that was reported as refused.
- A restart of the daemon is invisible. Whoever never met a daemon is told so at once.
- No call waits longer than its time-out, or behind another thread's call: each takes a connection
  of its own from those at rest, or opens one. There is no lock, so a fork can't inherit a held one,
  and no thread; a child process never touches its parent's connections.
"""

from __future__ import annotations

import os
import socket
import time

from . import __version__, calls, paths, wire
from .calls import Lost, Patience, Subscription
from .token import Token

TYPE_CHECKING = False
if TYPE_CHECKING:  # typing itself stays out of a client's import
    from collections.abc import Iterable, Iterator
    from types import TracebackType
    from typing import Self

    from .calls import Event, Kept

IDLE_LIMIT = 4
"""Connections kept at rest; threads beyond that pay for a new one, some 50 microseconds."""


class Client:
    """Tokens from the daemon; one object for all threads of a program.

    ::

        client = spotokend.Client()
        token = client.token()
        response = get(url, headers={"Authorization": token.authorization})
        if response.status == 401:
            token = client.reject(token)  # once more with this one

    ``socket_path``: ``$SPOTOKEND_SOCK``, else the usual place. ``account``: what calls that name
    none mean; else ``$SPOTOKEND_ACCOUNT`` at the moment of the call; else the daemon decides.
    ``timeout``: seconds for a whole call, see :data:`spotokend.calls.TIMEOUT`.

    Every method raises :class:`~spotokend.SpotokendError` in one of its kinds, and
    :class:`RuntimeError` after :meth:`close`.
    """

    def __init__(
        self,
        socket_path: str | os.PathLike[str] | None = None,
        *,
        account: str | None = None,
        timeout: float = calls.TIMEOUT,
    ) -> None:
        self.socket_path = os.fspath(socket_path or paths.socket_path())
        self.account = account
        self.timeout = timeout
        self._kept: Kept = {}
        self._idle: list[_Connection] = []
        self._watching: set[_Connection] = set()
        self._met = False
        self._closed = False

    def token(
        self, account: str | None = None, *, min_ttl: float = 0.0, scopes: Iterable[str] = ()
    ) -> Token:
        """A token with at least ``min_ttl`` seconds to live that has all ``scopes``.

        It is kept in the process until it nears its end, so a changed default account or a logout
        is noticed then, or after :meth:`reject` or :meth:`refresh`.
        """
        account = account or self.account or calls.default_account()
        wanted = calls.listed(scopes) if scopes else []
        token = calls.find(self._kept, account, min_ttl, wanted)
        if token is None:
            arguments = calls.given(account=account, min_ttl=min_ttl or None, scopes=wanted or None)
            token = self._ask_token("token", account, arguments)
        return token

    def reject(self, refused: Token | int, account: str | None = None) -> Token:
        """A token of a later generation than ``refused``, which the API has answered with 401.

        ``refused`` is the token or its generation. The daemon serves it to nobody any more, and
        nothing that was kept here before is used again.
        """
        if isinstance(refused, Token):
            account, generation = account or refused.account, refused.generation
        else:
            account, generation = account or self.account or calls.default_account(), refused
        self._kept = {}
        return self._ask_token(
            "reject", account, calls.given(account=account, generation=generation)
        )

    def refresh(self, account: str | None = None) -> Token:
        """A new token at any rate; the daemon allows one such call in 30 s an account."""
        account = account or self.account or calls.default_account()
        self._kept = {}
        return self._ask_token("refresh", account, calls.given(account=account))

    def status(self, account: str | None = None) -> dict[str, object]:
        """What the daemon knows of itself and of one account, or of all; holds no secret.

        All pages are in the result; between two of them an account may have changed.
        """
        whole = self._ask_map("status", calls.given(account=account))
        after = calls.add_page(self.socket_path, whole, whole)
        while after is not None:
            page = self._ask_map("status", {"after": after})
            after = calls.add_page(self.socket_path, whole, page)
        return whole

    def hello(self) -> dict[str, object]:
        """``server``, ``protocol`` and ``methods`` of whoever answers."""
        return self._ask_map("hello", {"client": f"spotokend {__version__}"})

    def call(self, method: str, /, **arguments: object) -> object:
        """Any method of the socket, with its arguments as they are there; the bare result."""
        return self._request(method, arguments)

    def watch(
        self, accounts: Iterable[str] | None = None, *, tokens: bool = True
    ) -> Iterator[Event]:
        """``(method, map)`` for what is, and then for each thing that happens, without end.

        First a ``state`` for each account and, if ``tokens``, a ``token`` for each that is usable.
        After a restart of the daemon ``resync`` (its ``dropped`` is None: nobody knows how much was
        missed), and again all that is. Ends when the client is closed.
        """
        subscription = Subscription(self.socket_path, accounts, tokens=tokens)
        patience = Patience()
        while not self._closed:
            try:
                connection = self._open()
                self._watching.add(connection)
                try:
                    deadline = time.monotonic() + self.timeout
                    connection.send(subscription.begin(), "watch", deadline)
                    while True:
                        data = connection.receive(
                            "watch", deadline if subscription.expecting else None
                        )
                        yield from subscription.feed(data)
                        patience, deadline = Patience(), time.monotonic() + self.timeout
                finally:
                    self._watching.discard(connection)
                    connection.close()
            except Lost as lost:
                time.sleep(patience.nap(lost))
            except TimeoutError:
                raise calls.timed_out("watch", self.timeout) from None

    def close(self) -> None:
        """Close what is at rest and end each :meth:`watch`; calls under way still get an answer."""
        self._closed = True
        self._kept = {}
        for connection in list(self._watching):
            connection.wake()
        while self._idle:
            self._idle.pop().close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def _ask_token(self, method: str, account: str | None, arguments: dict[str, object]) -> Token:
        kept = self._kept  # as of now: see calls.keep
        token = calls.read_token(self.socket_path, self._request(method, arguments))
        calls.keep(kept, account, token)
        return token

    def _ask_map(self, method: str, arguments: dict[str, object]) -> dict[str, object]:
        return calls.read_map(self.socket_path, self._request(method, arguments))

    def _request(self, method: str, arguments: dict[str, object]) -> object:
        deadline = time.monotonic() + self.timeout
        patience = Patience()
        try:
            while True:
                try:
                    answer = self._exchange(method, arguments, deadline)
                    break
                except Lost as lost:
                    time.sleep(min(patience.nap(lost), _left(deadline)))
        except TimeoutError:
            raise calls.timed_out(method, self.timeout) from None
        return calls.result_of(answer)

    def _exchange(
        self, method: str, arguments: dict[str, object], deadline: float
    ) -> tuple[object, object]:
        connection = self._take()
        try:
            answer = connection.exchange(method, arguments, deadline)
        except BaseException:
            # Also on KeyboardInterrupt: the rest of an answer may still come.
            connection.close()
            raise
        if self._closed or len(self._idle) >= IDLE_LIMIT:
            connection.close()
        else:
            self._idle.append(connection)
        return answer

    def _take(self) -> _Connection:
        while True:
            try:
                connection = self._idle.pop()
            except IndexError:
                return self._open()
            if connection.at_rest():
                return connection
            connection.close()

    def _open(self) -> _Connection:
        if self._closed:
            raise RuntimeError("this spotokend.Client is closed")
        connection = _Connection(self.socket_path, known=self._met)
        self._met = True
        return connection


class _Connection:
    """One connection, for one thread at a time and for the process that opened it."""

    __slots__ = ("_decoder", "_msgid", "_path", "_pid", "_socket")

    def __init__(self, path: str, *, known: bool) -> None:
        self._socket = calls.open_socket(path, known=known)
        self._path = path
        self._pid = os.getpid()
        self._msgid = 0
        self._decoder = calls.reply_decoder()

    def exchange(
        self, method: str, arguments: dict[str, object], deadline: float
    ) -> tuple[object, object]:
        """``(error, result)`` of one request."""
        self._msgid = calls.next_msgid(self._msgid)
        self.send(calls.request_bytes(self._msgid, method, arguments), method, deadline)
        answer: tuple[object, object] | None = None
        while answer is None:
            data = self.receive(method, deadline)
            try:
                # To the end: the decoder must not be left in the middle of what it was fed.
                for message in self._decoder.feed(data):
                    found = calls.read_answer(message)
                    if answer is None and found is not None and found[0] == self._msgid:
                        answer = found[1:]
            except wire.Malformed as error:
                if answer is None:
                    raise calls.not_spotokend(self._path, error) from None
                # The answer is good, what came behind it is not: no more of this connection.
                self.close()
        return answer

    def send(self, data: bytes, method: str, deadline: float) -> None:
        """Send a request whole, before the deadline (monotonic, seconds)."""
        try:
            self._socket.settimeout(_left(deadline))
            # A program may have set SIGPIPE to kill it, as command line tools do.
            self._socket.sendall(data, socket.MSG_NOSIGNAL)
        except TimeoutError:
            raise
        except OSError:
            raise calls.cut_off(self._path, method) from None

    def receive(self, method: str, deadline: float | None) -> bytes:
        """What has come, at least one byte; without a deadline it may take for ever."""
        if os.getpid() != self._pid:
            raise calls.cut_off(self._path, method)
        try:
            self._socket.settimeout(None if deadline is None else _left(deadline))
            data = self._socket.recv(calls.READ_SIZE)
        except TimeoutError:
            raise
        except OSError:
            data = b""
        if not data:
            raise calls.cut_off(self._path, method)
        return data

    def at_rest(self) -> bool:
        """True if the next request may use it: it is this process's, and nothing is to be read.

        What could be read is the end, or bytes that nobody asked for.
        """
        if os.getpid() != self._pid:
            return False
        try:
            self._socket.settimeout(0)
            self._socket.recv(1, socket.MSG_PEEK)
        except BlockingIOError:
            return True
        except OSError:
            return False
        return False

    def wake(self) -> None:
        """End a :meth:`receive` that waits in another thread."""
        try:
            self._socket.shutdown(socket.SHUT_RDWR)
        except OSError:
            return  # it has just ended by itself

    def close(self) -> None:
        """Close this process's descriptor; a parent's goes on."""
        self._socket.close()

    def __del__(self) -> None:
        # ``Client().token()`` is a whole program: no warning about a socket left open. Where
        # nobody listened there is no socket.
        if hasattr(self, "_socket"):
            self._socket.close()


def _left(deadline: float) -> float:
    """Seconds until the deadline; never 0, which would mean "don't block" to a socket."""
    left = deadline - time.monotonic()
    if left <= 0:
        raise TimeoutError
    return left
