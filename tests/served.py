"""A server on a real socket with handlers of the test's own, and a client that has no manners."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import anyio
import anyio.abc
from anyio.lowlevel import checkpoint

from spotokend import wire
from spotokend.adapters.listener import bind
from spotokend.service.connection import Connection
from spotokend.service.server import Server

OK = wire.pack("ok")
PATIENCE = 10.0
"""Seconds until a test is given up; what it waits for comes at once or never."""

Handle = Callable[[Connection, str, dict[str, object]], Any]


class Served:
    """A server that is running: its ``path``, what it ``logged``, and those who ``joined``."""

    def __init__(self, path: str, handle: Handle, **options: Any) -> None:
        self.path = path
        self.logged: list[tuple[str, dict[str, object]]] = []
        self.joined: list[Connection] = []
        self._handle = handle
        self.server = Server(self, own_uid=os.getuid(), log=self._log, **options)

    def handle(self, connection: Connection, method: str, arguments: dict[str, object]) -> Any:
        if connection not in self.joined:
            self.joined.append(connection)
        return self._handle(connection, method, arguments)

    def _log(self, event: str, *, level: str = "info", **fields: object) -> None:
        self.logged.append((event, {"level": level, **fields}))

    def words(self, event: str) -> list[object]:
        """What was logged as this event."""
        return [fields["words"] for name, fields in self.logged if name == event]


def at_once(connection: Connection, method: str, arguments: dict[str, object]) -> bytes:
    """Handlers that answer everything in the same turn."""
    return OK


async def until(condition: Callable[[], object]) -> None:
    """Let the loop run until something is the case that no event tells."""
    with anyio.fail_after(PATIENCE):
        while not condition():
            await checkpoint()


@asynccontextmanager
async def serving(
    folder: os.PathLike[str], handle: Handle = at_once, **options: Any
) -> AsyncIterator[Served]:
    """A server in ``folder`` that is closed in the end."""
    served = Served(os.path.join(folder, "socket"), handle, **options)
    async with anyio.create_task_group() as tasks:
        await tasks.start(served.server.serve, bind(served.path))
        yield served
        with anyio.fail_after(PATIENCE):
            await served.server.close()


class Client:
    """Bytes out, messages in; ``stream`` is there for worse."""

    def __init__(self, stream: anyio.abc.SocketStream) -> None:
        self.stream = stream
        self._decoder = wire.Decoder(
            message_limit=wire.REPLY_LIMIT,
            array_limit=wire.REPLY_ARRAY_LIMIT,
            map_limit=wire.REPLY_MAP_LIMIT,
        )
        self._messages: deque[Any] = deque()

    async def send(self, *messages: bytes) -> None:
        """Send them in one piece."""
        await self.stream.send(b"".join(messages))

    async def receive(self) -> Any:
        """The next message.

        Raises:
            anyio.EndOfStream, anyio.BrokenResourceError: the server closed.
        """
        with anyio.fail_after(PATIENCE):
            while not self._messages:
                self._messages.extend(self._decoder.feed(await self.stream.receive()))
        return self._messages.popleft()

    async def ask(self, method: str = "token", msgid: int = 1, **arguments: object) -> Any:
        """A request, and the next message."""
        await self.send(wire.request(msgid, method, arguments))
        return await self.receive()

    async def rest(self) -> list[Any]:
        """All messages until the server closes."""
        messages = []
        try:
            while True:
                messages.append(await self.receive())
        except (anyio.EndOfStream, anyio.BrokenResourceError):
            return messages


@asynccontextmanager
async def connected(served: Served) -> AsyncIterator[Client]:
    """A client."""
    async with await anyio.connect_unix(served.path) as stream:
        yield Client(stream)
