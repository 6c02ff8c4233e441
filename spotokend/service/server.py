"""The server: connections, back-pressure and deadlines around the pure session.

What is promised here, and tested by trying to break it:

- A client that is silent, slow, flooding or malformed costs its own connection only: reads are
  small, clients take turns, output is bounded, half a message and an unread reply have deadlines,
  and whatever is raised inside a connection ends that connection at most.
- Where no descriptor is left, those that are connected are served on, and new ones wait.
- An idle connection costs a few kilobytes, no task and no timer.
- A reply that is ready is written in the turn of the loop in which the request came.
- Nothing of an exception crosses the socket but the id under which it is logged.
- No path is ever unlinked.

The one module of the service that is asyncio's and not anyio's: an asyncio protocol needs two
thirds of the processor time of anyio's streams a request (``tests/bench/transport.py``).
"""

from __future__ import annotations

import asyncio
import resource
import socket
from collections import Counter
from collections.abc import Callable, Collection
from contextlib import suppress
from functools import partial
from typing import Any

import anyio
import anyio.abc

from spotokend import wire
from spotokend.adapters.peercred import Peer, read_peer
from spotokend.errors import Forbidden, SpotokendError
from spotokend.service.connection import (
    HALF_MESSAGE_TIMEOUT,
    UNREAD_TIMEOUT,
    Connection,
    Handlers,
    Log,
    Shared,
)

_ACCEPTED_AT_ONCE = 16
# Clients taken in a turn: a millisecond.
_ACCEPT_PAUSE = 0.5
_CONNECTIONS_LIMIT = 4096
# An idle one takes 4 KB, one that reads nothing of what it asked for 150 KB.
_RESERVED_DESCRIPTORS = 64
# Never given to clients: the store, the journal and the connections to the endpoint need theirs.
_LAST_REQUESTS_TIME = 1.0
# Seconds for those who have just connected to ask, and for what was asked to be answered, when the
# server closes. Under socket activation nobody notices a restart who doesn't stay connected.
_LAST_REQUESTS_PAUSE = 0.01
_FLUSH_TIME = 2.0
# Seconds for clients to take their last replies when the server closes.
_REFUSING_TIME = 0.2
# Seconds in which those who wait are let in to be refused; whoever comes later has it tried again.
_HELLO = wire.request(0, "hello", {})


class Server:
    """Serves every client of one listening Unix socket.

    Clients of another user than ``own_uid`` are refused, root too: a daemon with grants for
    everybody would be a different program. With a ``refusal`` everybody gets that. ``read_peer`` and the timeouts (seconds) are for tests.
    """

    def __init__(
        self,
        handlers: Handlers,
        *,
        own_uid: int,
        log: Log,
        read_peer: Callable[[socket.socket], Peer] = read_peer,
        refusal: SpotokendError | None = None,
        unread_timeout: float = UNREAD_TIMEOUT,
        half_message_timeout: float = HALF_MESSAGE_TIMEOUT,
    ) -> None:
        self._shared = Shared(
            handlers,
            log=log,
            unread_timeout=unread_timeout,
            half_message_timeout=half_message_timeout,
        )
        self._own_uid = own_uid
        self._log = log
        self._read_peer = read_peer
        self._refusal = refusal
        self._full = False
        self._pause: asyncio.TimerHandle | None = None
        self._arriving: set[asyncio.Task[None]] = set()
        self._closing = asyncio.Event()
        self._closed = asyncio.Event()

    @property
    def connections(self) -> int:
        """How many clients are connected."""
        return len(self._shared.connections)

    async def serve(
        self,
        listener: socket.socket,
        *,
        task_status: anyio.abc.TaskStatus[None] = anyio.TASK_STATUS_IGNORED,
    ) -> None:
        """Serve until :meth:`close` or cancellation. Takes the listener over, and closes it."""
        listener.setblocking(False)
        _raise_limit()
        self._accept_from(listener)
        try:
            task_status.started()
            await self._closing.wait()
            self._accept_no_more(listener)
            await _ended(self._arriving)
            with anyio.move_on_after(_LAST_REQUESTS_TIME):
                await self._last_requests()
            for connection in list(self._shared.connections):
                connection.dismiss()
            with anyio.move_on_after(_FLUSH_TIME):
                await self._shared.everybody_left()
        finally:
            self._accept_no_more(listener)
            with anyio.CancelScope(shield=True):
                await _ended(self._arriving)
                for connection in list(self._shared.connections):
                    connection.abort()
                await self._shared.everybody_left()
                await _ended(self._shared.turns.tasks)
            self._closed.set()

    async def close(self) -> None:
        """Accept nobody any more, let clients take what is answered, and end :meth:`serve`.

        Those who are connected have a second to ask and to be answered; what isn't answered then
        is answered with "unavailable". They have two seconds to take it.
        """
        self._closing.set()
        await self._closed.wait()

    async def answers(self) -> None:
        """Return when a request has gone the way of every client's and was answered.

        Where no descriptor is left for it, that is no fault of the server's loop.
        """
        if self._closing.is_set():
            return
        loop = asyncio.get_running_loop()
        with suppress(OSError):
            ours, theirs = socket.socketpair()
            with ours:
                ours.setblocking(False)
                await self._welcome(theirs)
                await loop.sock_sendall(ours, _HELLO)
                await loop.sock_recv(ours, len(_HELLO))

    async def _last_requests(self) -> None:
        settled = False
        while not settled:
            # Each time what has arrived is read by the loop, in the first turn too.
            await asyncio.sleep(_LAST_REQUESTS_PAUSE)
            settled = all(connection.settled for connection in self._shared.connections)

    def _accept_from(self, listener: socket.socket) -> None:
        self._pause = None
        asyncio.get_running_loop().add_reader(listener, self._accept, listener)

    def _accept_no_more(self, listener: socket.socket) -> None:
        if self._pause is not None:
            self._pause.cancel()
        if listener.fileno() >= 0:
            asyncio.get_running_loop().remove_reader(listener)
            listener.close()

    def _accept(self, listener: socket.socket) -> None:
        """Take in those that wait, some a turn.

        asyncio's own way (up to 3.12) tries a hundred times more once no descriptor is left.
        """
        room = _most_connections() - len(self._shared.connections) - len(self._arriving)
        if room <= 0:
            return self._wait_for_room(listener, "the limit of open files is nearly reached")
        for _ in range(min(room, _ACCEPTED_AT_ONCE)):
            try:
                client, _ = listener.accept()
            except BlockingIOError:
                self._full = False
                return None
            except OSError as error:
                return self._wait_for_room(listener, str(error.strerror))
            task = asyncio.get_running_loop().create_task(self._welcome(client))
            self._arriving.add(task)
            task.add_done_callback(self._arriving.discard)
        return None

    def _wait_for_room(self, listener: socket.socket, reason: str) -> None:
        loop = asyncio.get_running_loop()
        loop.remove_reader(listener)
        self._pause = loop.call_later(_ACCEPT_PAUSE, self._accept_from, listener)
        if not self._full:
            self._full = True  # until nobody waits any more: told once, not at each try
            self._log(
                "clients must wait",
                level="warning",
                words=reason,
                connections=self.connections,
                hint=self._cure(),
            )

    def _cure(self) -> str:
        pids = Counter(connection.peer.pid for connection in self._shared.connections)
        for pid, count in pids.most_common(1):
            return f"process {pid} has {count} of them: end it, or raise LimitNOFILE"
        return "raise LimitNOFILE"

    async def _welcome(self, client: socket.socket) -> None:
        try:
            client.setblocking(False)
            peer = self._read_peer(client)
            await asyncio.get_running_loop().connect_accepted_socket(
                partial(Connection, self._shared, peer, self._refuses(peer)), client
            )
        except OSError as error:
            client.close()
            self._log("a client went at once", level="debug", words=error.strerror)

    def _refuses(self, peer: Peer) -> SpotokendError | None:
        if peer.uid == self._own_uid:
            return self._refusal
        return Forbidden(
            f"this daemon serves user {self._own_uid} only, and this is user {peer.uid}",
            hint="run the command as that user, or a daemon of your own: spotokend run",
        )


async def refuse_those_who_wait(
    listener: socket.socket, error: SpotokendError, *, own_uid: int
) -> None:
    """Tell everybody who waits at ``listener`` why there is no daemon; closes the listener."""

    server = Server(_Nobody(error), own_uid=own_uid, log=_tell_nobody, refusal=error)
    async with anyio.create_task_group() as tasks:
        await tasks.start(server.serve, listener)
        await asyncio.sleep(_REFUSING_TIME)
        await server.close()


class _Nobody:
    """Handlers that are never asked: the first request of everybody is refused before."""

    def __init__(self, error: SpotokendError) -> None:
        self._error = error

    def handle(self, *_: object) -> bytes:
        raise self._error


def _tell_nobody(event: str, *, level: str = "info", **fields: object) -> None:
    """How the refused ones went is of no interest."""


async def _ended(tasks: Collection[asyncio.Task[Any]]) -> None:
    if tasks:
        await asyncio.wait(tasks)


def _raise_limit() -> None:
    """Have as many descriptors as clients may need, where the hard limit allows it.

    The soft one is 1024 for the sake of programs that use select(2), which we don't.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _CONNECTIONS_LIMIT + _RESERVED_DESCRIPTORS
    if hard != resource.RLIM_INFINITY:
        wanted = min(wanted, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def _most_connections() -> int:
    limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)  # anybody may change it: prlimit(1)
    if limit == resource.RLIM_INFINITY:
        return _CONNECTIONS_LIMIT
    return min(_CONNECTIONS_LIMIT, max(limit - _RESERVED_DESCRIPTORS, limit // 2))
