"""The real daemon, which stops at named moments of a refresh until it is told to go on.

What runs is ``spotokend run`` with its store, its endpoint and its publishing wrapped: the fault
points are here, in a composition of the tests. At each moment the daemon says so on a socket of the
test's (:class:`Steps`) and waits; all else in it goes on meanwhile. The two moments that belong to
the line and to the provider are made by :class:`SteppedLine`, which stands between them.

Its civil time is wrapped as well: it is off by what the test says.
"""

from __future__ import annotations

import mmap
import os
import socket
import struct
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

from anyio import CancelScope, to_thread
from fault_matrix import Moment
from faulty_line import Line
from forked_daemon import ForkedDaemon, ForkServer

from spotokend import cli
from spotokend.adapters.endpoint import Endpoint, Reply
from spotokend.adapters.store.base import Intent, Lease, Row
from spotokend.adapters.store.sqlite import SqliteStore
from spotokend.rules.account import Fresh, Unsaved
from spotokend.rules.notice import Change
from spotokend.rules.oauth import TokenRequest
from spotokend.service import daemon
from spotokend.service.registry import Account

PATIENCE = 30.0
"""Seconds for which either side waits for the other."""
REDEEMS = b"grant_type=refresh_token"

# ------------------------------------------------------------------------------- the test's side


class Steps:
    """Where the moments are told, and which of them stops whoever reaches it."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "steps"
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(self.path))
        self._listener.listen()
        self._held: Moment | None = None
        self._reached = threading.Event()
        self._go_on = threading.Event()
        threading.Thread(target=self._accept, daemon=True).start()

    @contextmanager
    def stopped_at(self, moment: Moment) -> Iterator[threading.Event]:
        """The next to reach the moment waits there for the end of the block.

        Yields what is set once it is reached.
        """
        self._reached.clear()
        self._go_on.clear()
        self._held = moment
        try:
            yield self._reached
        finally:
            self._held = None
            self._go_on.set()

    def at(self, moment: Moment) -> None:
        """Somebody is there: return when it may go on."""
        if moment is self._held:
            self._held = None
            self._reached.set()
            self._go_on.wait(PATIENCE)

    def close(self) -> None:
        """Nobody is stopped any more."""
        self._listener.close()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        with connection:
            self.at(Moment(connection.recv(100).decode()))


class SteppedLine(Line):
    """A line that stops with a request before the provider gets it, and with its answer."""

    def __init__(self, target: tuple[str, int], steps: Steps) -> None:
        super().__init__(target)
        self.torn = False
        """What is under way gets no further."""
        self._steps = steps

    def _ask(self, request: bytes) -> bytes:
        if REDEEMS not in request:
            return super()._ask(request)
        self._steps.at(Moment.SENT)
        self._pass()
        answer = super()._ask(request)
        self._steps.at(Moment.ROTATED)
        self._pass()
        return answer

    def _pass(self) -> None:
        if self.torn:
            raise ConnectionResetError


class SteppedDaemon(ForkedDaemon):
    """Started by a fork server of this module."""

    def __init__(self, folder: Path, config: str, server: ForkServer, steps: Steps) -> None:
        super().__init__(folder, config, server)
        self._wall = folder / "wall"
        self.set_wall(0.0)
        self.environ |= {"STEPS": str(steps.path), "WALL": str(self._wall)}

    def set_wall(self, offset: float) -> None:
        """Set its civil time: by so many seconds ahead of the host's."""
        with self._wall.open("r+b" if self._wall.exists() else "wb") as file:
            file.write(struct.pack("d", offset))


# ----------------------------------------------------------------------------- the daemon's side


def tell(moment: Moment) -> None:
    """Stop here until the test lets go on."""
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(PATIENCE)
        connection.connect(os.environ["STEPS"])
        connection.sendall(moment.encode())
        connection.recv(1)


async def stop_at(moment: Moment) -> None:
    """The same, while all else goes on."""
    with CancelScope(shield=True):
        await to_thread.run_sync(tell, moment)


class SteppedStore(SqliteStore):
    """Around the two writes of a refresh."""

    async def begin(self, account: str, version: int, intent: Intent) -> Lease:
        await stop_at(Moment.BEFORE_INTENT)
        lease = await super().begin(account, version, intent)
        await stop_at(Moment.AFTER_INTENT)
        return lease

    async def commit(self, lease: Lease, row: Row) -> int:
        await stop_at(Moment.BEFORE_COMMIT)
        version = await super().commit(lease, row)
        await stop_at(Moment.AFTER_COMMIT)
        return version


class SteppedEndpoint(Endpoint):
    """Behind the last byte of an answer."""

    async def post(self, request: TokenRequest) -> Reply:
        reply = await super().post(request)
        if request.grant_type == "refresh_token":
            await stop_at(Moment.READ)
        return reply


class SteppedPublishing(daemon.Daemon):
    """Before anybody hears. Nothing can come in between, and so all of it stands still."""

    def publish(self, account: Account, change: Change) -> None:
        if isinstance(change.before, Unsaved) and isinstance(change.after, Fresh):
            tell(Moment.BEFORE_PUBLISH)
        super().publish(account, change)


def main(argv: list[str]) -> int:
    """``spotokend``, so composed."""
    with open(os.environ["WALL"], "rb") as file:
        offset = mmap.mmap(file.fileno(), 8, prot=mmap.PROT_READ)
    daemon.SqliteStore = SteppedStore
    daemon.Daemon = SteppedPublishing
    daemon._import_endpoint = lambda: SteppedEndpoint
    daemon.time = SimpleNamespace(
        time=lambda: time.time() + struct.unpack("d", offset)[0],
        clock_gettime=time.clock_gettime,
        CLOCK_BOOTTIME=time.CLOCK_BOOTTIME,
    )
    return cli.main(argv)
