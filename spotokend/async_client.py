"""The client for asyncio: the methods of :class:`spotokend.Client`, to be awaited.

What it promises beyond :mod:`spotokend.client`: any number of calls share one connection and are
answered in whatever order they are ready; a call that is cancelled leaves the connection as it was;
there is no task in the background. One object serves one event loop at a time; used from another
one, or in a child process, it connects anew.
"""

from __future__ import annotations

import asyncio
import os
import socket

from . import __version__, calls, paths, wire
from .calls import Lost, Patience, Subscription
from .errors import Busy
from .token import Token

TYPE_CHECKING = False
if TYPE_CHECKING:  # typing itself stays out of a client's import
    from collections.abc import AsyncIterator, Iterable
    from types import TracebackType
    from typing import Self

    from .calls import Event, Kept

UNSENT_LIMIT = 256 * 1024
"""Bytes that may wait to be sent; the daemon reads on with every answer that it has given."""


class AsyncClient:
    """Tokens from the daemon, for programs on asyncio.

    ::

        async with spotokend.AsyncClient() as client:
            headers = {"Authorization": (await client.token()).authorization}

    Arguments and errors are those of :class:`spotokend.Client`.
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
        self._link: _Link | None = None
        self._watching: set[socket.socket] = set()
        self._met = False
        self._closed = False

    async def token(
        self, account: str | None = None, *, min_ttl: float = 0.0, scopes: Iterable[str] = ()
    ) -> Token:
        """As :meth:`spotokend.Client.token`."""
        account = account or self.account or calls.default_account()
        wanted = calls.listed(scopes) if scopes else []
        token = calls.find(self._kept, account, min_ttl, wanted)
        if token is None:
            arguments = calls.given(account=account, min_ttl=min_ttl or None, scopes=wanted or None)
            token = await self._ask_token("token", account, arguments)
        return token

    async def reject(self, refused: Token | int, account: str | None = None) -> Token:
        """As :meth:`spotokend.Client.reject`."""
        if isinstance(refused, Token):
            account, generation = account or refused.account, refused.generation
        else:
            account, generation = account or self.account or calls.default_account(), refused
        self._kept = {}
        return await self._ask_token(
            "reject", account, calls.given(account=account, generation=generation)
        )

    async def refresh(self, account: str | None = None) -> Token:
        """As :meth:`spotokend.Client.refresh`."""
        account = account or self.account or calls.default_account()
        self._kept = {}
        return await self._ask_token("refresh", account, calls.given(account=account))

    async def status(self, account: str | None = None) -> dict[str, object]:
        """As :meth:`spotokend.Client.status`."""
        whole = await self._ask_map("status", calls.given(account=account))
        after = calls.add_page(self.socket_path, whole, whole)
        while after is not None:
            page = await self._ask_map("status", {"after": after})
            after = calls.add_page(self.socket_path, whole, page)
        return whole

    async def hello(self) -> dict[str, object]:
        """As :meth:`spotokend.Client.hello`."""
        return await self._ask_map("hello", {"client": f"spotokend {__version__}"})

    async def call(self, method: str, /, **arguments: object) -> object:
        """As :meth:`spotokend.Client.call`."""
        return await self._request(method, arguments)

    async def watch(
        self, accounts: Iterable[str] | None = None, *, tokens: bool = True
    ) -> AsyncIterator[Event]:
        """As :meth:`spotokend.Client.watch`; on a connection of its own."""
        # Read by the consumer's own task and not by a callback: a slow consumer holds back the
        # daemon, which keeps the newest token for it, and nothing piles up here.
        loop = asyncio.get_running_loop()
        subscription = Subscription(self.socket_path, accounts, tokens=tokens)
        patience = Patience()
        while not self._closed:
            try:
                watching = self._open()
                self._watching.add(watching)
                try:
                    async with asyncio.timeout(self.timeout):
                        await loop.sock_sendall(watching, subscription.begin())
                    while True:
                        limit = self.timeout if subscription.expecting else None
                        async with asyncio.timeout(limit):
                            data = await loop.sock_recv(watching, calls.READ_SIZE)
                        if not data:
                            raise calls.ended(self.socket_path)
                        for event in subscription.feed(data):
                            yield event
                        patience = Patience()
                finally:
                    self._watching.discard(watching)
                    watching.close()
            except TimeoutError:
                raise calls.timed_out("watch", self.timeout) from None
            except (Lost, OSError) as error:
                lost = error if isinstance(error, Lost) else calls.ended(self.socket_path)
                await asyncio.sleep(patience.nap(lost))

    async def close(self) -> None:
        """Close the connection; each :meth:`watch` ends, and calls under way are not answered."""
        self._closed = True
        self._kept = {}
        for watching in self._watching:
            watching.shutdown(socket.SHUT_RDWR)
        if self._link is not None:
            self._link.leave()
            self._link = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.close()

    async def _ask_token(
        self, method: str, account: str | None, arguments: dict[str, object]
    ) -> Token:
        kept = self._kept  # as of now: see calls.keep
        token = calls.read_token(self.socket_path, await self._request(method, arguments))
        calls.keep(kept, account, token)
        return token

    async def _ask_map(self, method: str, arguments: dict[str, object]) -> dict[str, object]:
        return calls.read_map(self.socket_path, await self._request(method, arguments))

    async def _request(self, method: str, arguments: dict[str, object]) -> object:
        patience = Patience()
        try:
            async with asyncio.timeout(self.timeout):
                while True:
                    try:
                        answer = await self._linked().exchange(method, arguments)
                        break
                    except Lost as lost:
                        nap = patience.nap(lost)
                    await asyncio.sleep(nap)
        except TimeoutError:
            raise calls.timed_out(method, self.timeout) from None
        return calls.result_of(answer)

    def _linked(self) -> _Link:
        if self._link is None or not self._link.usable():
            if self._link is not None:
                self._link.leave()
            self._link = _Link(self._open(), self.socket_path)
        return self._link

    def _open(self) -> socket.socket:
        if self._closed:
            raise RuntimeError("this spotokend.AsyncClient is closed")
        opened = calls.open_socket(self.socket_path, known=self._met)
        self._met = True
        return opened


class _Link:
    """One connection in one event loop, with all the calls that wait for an answer on it.

    On the bare socket and not on asyncio's transports: those can't be closed once their loop is.
    """

    def __init__(self, connected: socket.socket, path: str) -> None:
        self._socket = connected
        self._path = path
        self._loop = asyncio.get_running_loop()
        self._pid = os.getpid()
        self._open = True
        self._msgid = 0
        self._waiting: dict[int, tuple[str, asyncio.Future[tuple[object, object]]]] = {}
        self._unsent = bytearray()
        self._decoder = calls.reply_decoder()
        self._loop.add_reader(connected, self._read)

    async def exchange(self, method: str, arguments: dict[str, object]) -> tuple[object, object]:
        """``(error, result)`` of one request. Cancelled, it only stops waiting."""
        if len(self._unsent) > UNSENT_LIMIT:
            raise Busy(
                f"spotokend at {self._path} doesn't read: {len(self._unsent)} bytes of earlier "
                "calls wait to be sent"
            )
        self._msgid = msgid = calls.next_msgid(self._msgid)
        request = calls.request_bytes(msgid, method, arguments)
        answer: asyncio.Future[tuple[object, object]] = self._loop.create_future()
        self._waiting[msgid] = method, answer
        try:
            self._unsent += request
            self._write()
            return await answer
        finally:
            self._waiting.pop(msgid, None)

    def usable(self) -> bool:
        """True if it is of the running loop and, as far as can be seen, nobody has ended it."""
        if self._loop is not asyncio.get_running_loop():
            return False
        if self._open:
            # The end may have come since the loop looked last.
            self._read()
        return self._open

    def leave(self) -> None:
        """Close it from whatever loop or process."""
        if self._loop is asyncio.get_running_loop():
            self._close()
        elif self._pid == os.getpid() and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._close)
        else:
            # Not a word to the loop: a child shares its parent's epoll, and would unregister there.
            self._socket.close()

    def _read(self) -> None:
        try:
            data = self._socket.recv(calls.READ_SIZE)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self._close()
            return
        try:
            for message in self._decoder.feed(data):
                found = calls.read_answer(message)
                # Not waited for: its caller was cancelled.
                if found is not None and found[0] in self._waiting:
                    _, answer = self._waiting[found[0]]
                    if not answer.done():
                        answer.set_result(found[1:])
        except wire.Malformed as error:
            self._close(error)

    def _write(self) -> None:
        try:
            # A program may have set SIGPIPE to kill it, as command line tools do.
            sent = self._socket.send(self._unsent, socket.MSG_NOSIGNAL)
        except BlockingIOError:
            sent = 0
        except OSError:
            self._close()
            return
        del self._unsent[:sent]
        if self._unsent:
            self._loop.add_writer(self._socket, self._write)
        else:
            self._loop.remove_writer(self._socket)

    def _close(self, malformed: wire.Malformed | None = None) -> None:
        if not self._open:
            return
        self._open = False
        self._loop.remove_reader(self._socket)
        self._loop.remove_writer(self._socket)
        self._socket.close()
        for method, answer in self._waiting.values():
            if not answer.done():
                answer.set_exception(
                    calls.cut_off(self._path, method)
                    if malformed is None
                    else calls.not_spotokend(self._path, malformed)
                )

    def __del__(self) -> None:
        # As in the blocking client: no warning about a socket left open.
        self._socket.close()
