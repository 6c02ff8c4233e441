"""The sandbox on a socket: TCP on the loopback interface, and nowhere else."""

from __future__ import annotations

import secrets
import signal
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import anyio
import anyio.abc
import anyio.from_thread

from ..errors import Misconfigured
from .control import Control, mine
from .conversation import Conversation, Limits
from .faults import Faults
from .messages import Request, Response
from .options import Options
from .provider import Provider

LOOPBACK, LOOPBACK6 = "127.0.0.1", "::1"


class Sandbox:
    """A provider that listens: ``await group.start(sandbox.serve)``, then use :attr:`url`."""

    def __init__(
        self,
        options: Options | None = None,
        *,
        port: int = 0,
        ipv6: bool = False,
        limits: Limits | None = None,
    ) -> None:
        self.provider = Provider(
            options or Options(), now=time.time, random_text=lambda: secrets.token_hex(8)
        )
        self.port = port
        """The port; 0 means a free one, until :meth:`bind` has taken it."""
        self._ipv6 = ipv6
        self._limits = limits or Limits()
        self._sockets: list[socket.socket] = []
        self._connections = 0
        self._control = Control(self.provider, lambda: self.url)
        self._removal = anyio.Event()
        self.faults.changed = self._tell_removal

    @property
    def url(self) -> str:
        """Where it is, without a slash at the end."""
        return f"http://{LOOPBACK}:{self.port}"

    @property
    def faults(self) -> Faults:
        """What goes wrong. For the event loop's own thread; others use ``/sandbox/faults``."""
        return self.provider.faults

    def bind(self) -> None:
        """Take the port; :meth:`serve` does so where nobody did before.

        Raises :class:`~spotokend.errors.Misconfigured` where it can't be had.
        """
        if not 0 <= self.port < 65536:
            raise self._unusable(LOOPBACK, "ports go from 0 to 65535")
        hosts = {LOOPBACK: socket.AF_INET}
        if self._ipv6:
            hosts[LOOPBACK6] = socket.AF_INET6
        for host, family in hosts.items():
            try:
                listening = socket.create_server((host, self.port), family=family, backlog=1024)
            except OSError as error:
                self._close()
                raise self._unusable(host, error.strerror or str(error)) from error
            listening.setblocking(False)
            self._sockets.append(listening)
            self.port = listening.getsockname()[1]

    async def serve(
        self, *, task_status: anyio.abc.TaskStatus[None] = anyio.TASK_STATUS_IGNORED
    ) -> None:
        """Serve until cancelled. Raises as :meth:`bind`."""
        if not self._sockets:
            self.bind()
        try:
            async with anyio.create_task_group() as group:
                for listening in self._sockets:
                    listener = await anyio.abc.SocketListener.from_socket(listening)
                    group.start_soon(listener.serve, self._converse)
                task_status.started()
        finally:
            self._close()

    def _unusable(self, host: str, why: str) -> Misconfigured:
        return Misconfigured(
            f"port {self.port} of {host} can't be used: {why}",
            hint="choose another port; 0 takes a free one",
        )

    def _close(self) -> None:
        for listening in self._sockets:
            listening.close()
        self._sockets = []

    def _answer(self, request: Request) -> Response:
        side = self._control if mine(request.path) else self.provider
        return side.handle(request)

    async def _converse(self, stream: anyio.abc.SocketStream) -> None:
        conversation = Conversation(
            stream, self._limits, answer=self._answer, released=self._released
        )
        self._connections += 1
        try:
            async with stream:
                if self._connections > self._limits.connections:
                    await conversation.turn_away(503, "Too many connections.\n")
                else:
                    await conversation.run()
        except (OSError, anyio.BrokenResourceError, anyio.ClosedResourceError):
            # The peer's misfortune (a time-out is an OSError, too). Out of here it would end the
            # listener, and with it everybody else.
            pass
        finally:
            self._connections -= 1

    async def _released(self, fault_id: int) -> None:
        while self.faults.holds(fault_id):
            await self._removal.wait()

    def _tell_removal(self) -> None:
        self._removal.set()
        self._removal = anyio.Event()


def run(options: Options, *, port: int, ready: Callable[[Sandbox], None]) -> None:
    """Serve in the main thread until SIGINT or SIGTERM; ``ready`` is called once it is reachable.

    Raises :class:`~spotokend.errors.Misconfigured` where the port can't be had.
    """
    sandbox = Sandbox(options, port=port)
    sandbox.bind()
    anyio.run(_until_signalled, sandbox, ready)


async def _until_signalled(sandbox: Sandbox, ready: Callable[[Sandbox], None]) -> None:
    with anyio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
        async with anyio.create_task_group() as group:
            await group.start(sandbox.serve)
            ready(sandbox)
            async for _ in signals:
                group.cancel_scope.cancel()


@contextmanager
def running(options: Options | None = None, *, port: int = 0) -> Iterator[Sandbox]:
    """A sandbox in a thread of its own, for programs and tests that aren't asynchronous."""
    sandbox = Sandbox(options, port=port)
    sandbox.bind()
    with anyio.from_thread.start_blocking_portal() as portal:
        serving, _ = portal.start_task(sandbox.serve)
        try:
            yield sandbox
        finally:
            serving.cancel()
