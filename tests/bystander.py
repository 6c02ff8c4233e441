"""A good client beside bad ones, and what the daemon takes meanwhile: for the end-to-end tests."""

from __future__ import annotations

import json
import os
import resource
import shutil
import socket
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Self

from daemon_process import DaemonProcess
from system_calls import open_files

import spotokend
from spotokend import wire

ACCOUNT = "machine"
"""Its client asks for its token itself: no login is needed."""
PATIENCE = 30.0
"""Seconds for what takes a fraction of one on an idle machine."""
USUAL_LIMIT = 1024
"""Open files of a process, softly, as systemd and most shells set it."""


class Bystander:
    """Asks for the same stored token again and again, on a connection of its own; a context manager."""

    def __init__(self, daemon: DaemonProcess) -> None:
        self.daemon = daemon
        self._client = spotokend.Client(str(daemon.socket), account=ACCOUNT, timeout=PATIENCE)
        self._token = self._access_token(self._client)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._client.close()

    def asks(self, times: int = 50) -> float:
        """That often, and once on a new connection: each answer is right. The median, in seconds.

        Not the longest: on a machine that has other things to do that is the machine's own. Where the
        daemon makes everybody wait, each wait is long.
        """
        with spotokend.Client(str(self.daemon.socket), timeout=PATIENCE) as newcomer:
            assert self._access_token(newcomer) == self._token
        waits = []
        for _ in range(times):
            asked_at = time.perf_counter()
            assert self._access_token(self._client) == self._token
            waits.append(time.perf_counter() - asked_at)
        return statistics.median(waits)

    @staticmethod
    def _access_token(client: spotokend.Client) -> object:
        token: Any = client.call("token", account=ACCOUNT)
        # Not the whole: when it ends is computed anew at each reload, and rounded.
        return token["access_token"]


class Impatient(DaemonProcess):
    """The real daemon, composed with deadlines in which a test can wait for them.

    An unread reply has two seconds, half a message has one.
    """

    @staticmethod
    def _command(*arguments: str) -> list[str]:
        program = (
            "import sys; from spotokend.cli import main; from spotokend.service.server import Server;"
            "Server.__init__.__kwdefaults__.update(unread_timeout=2.0, half_message_timeout=1.0);"
            "sys.exit(main())"
        )
        return [sys.executable, "-c", program, *arguments]


@contextmanager
def folder() -> Iterator[Path]:
    """A folder with a short name, for longer than one test."""
    path = Path(tempfile.mkdtemp(prefix="spotokend-"))
    try:
        yield path
    finally:
        shutil.rmtree(path)


@contextmanager
def started(daemon: DaemonProcess) -> Iterator[DaemonProcess]:
    """A daemon that found the usual limit of open files, and a test that may have as many as it likes."""
    before = soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(USUAL_LIMIT, soft), hard))
        with daemon:
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
            yield daemon
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


def connect(daemon: DaemonProcess) -> socket.socket:
    """A connection, with which anything can be done."""
    client = socket.socket(socket.AF_UNIX)
    client.settimeout(PATIENCE)
    client.connect(str(daemon.socket))
    return client


@contextmanager
def connections(daemon: DaemonProcess, count: int) -> Iterator[list[socket.socket]]:
    """So many."""
    clients: list[socket.socket] = []
    try:
        clients.extend(connect(daemon) for _ in range(count))
        yield clients
    finally:
        for client in clients:
            client.close()


def fill(clients: list[socket.socket], data: bytes) -> list[int]:
    """Send it on each again and again, until no more is taken; how many bytes of each were."""
    sent = [0] * len(clients)
    for client in clients:
        client.setblocking(False)
    since = time.monotonic()
    while time.monotonic() - since < 0.2:
        for number, client in enumerate(clients):
            with suppress(BlockingIOError):
                sent[number] += client.send(data[sent[number] % len(data) :])
                since = time.monotonic()
        time.sleep(0.005)
    for client in clients:
        client.settimeout(PATIENCE)
    return sent


def messages(client: socket.socket, count: int | None = None) -> list[Any]:
    """So many messages of the daemon, or all until it closes the connection."""
    decoder = wire.Decoder(
        message_limit=wire.REPLY_LIMIT,
        array_limit=wire.REPLY_ARRAY_LIMIT,
        map_limit=wire.REPLY_MAP_LIMIT,
    )
    found: list[Any] = []
    while count is None or len(found) < count:
        try:
            data = client.recv(256 * 1024)
        except ConnectionResetError:  # closed with something of ours unread
            break
        if not data:
            break
        found += decoder.feed(data)
    return found


def until(condition: Callable[[], object]) -> None:
    """Wait for what no event tells."""
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, "it has not happened"
        time.sleep(0.005)


# --- what the daemon takes


def resident(daemon: DaemonProcess, *, peak: bool = False) -> int:
    """Bytes of its memory that are resident now, or were at most since :func:`forget_peak`."""
    name = "VmHWM:" if peak else "VmRSS:"
    for line in Path(f"/proc/{daemon.pid}/status").read_text().splitlines():
        if line.startswith(name):
            return int(line.split()[1]) * 1024
    raise AssertionError(f"the kernel says nothing of {name}")


def forget_peak(daemon: DaemonProcess) -> None:
    """From now on the peak counts anew; see proc(5), clear_refs."""
    Path(f"/proc/{daemon.pid}/clear_refs").write_text("5")


def descriptors(daemon: DaemonProcess) -> int:
    """How many files it has open."""
    return len(open_files(daemon.pid))


def processor_seconds(daemon: DaemonProcess) -> float:
    """User and system time so far."""
    fields = _stat(daemon)
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def at_rest(daemon: DaemonProcess) -> bool:
    """Whether it does next to nothing for a moment, and doesn't wait for a processor either."""
    before = processor_seconds(daemon)
    for _ in range(15):
        if _stat(daemon)[0] != "S":
            return False
        time.sleep(0.02)
    return processor_seconds(daemon) - before < 0.03


def _stat(daemon: DaemonProcess) -> list[str]:
    """From field 3 on: the state; 14 and 15 are the times; see proc(5)."""
    return Path(f"/proc/{daemon.pid}/stat").read_text().rpartition(")")[2].split()


def events(daemon: DaemonProcess, name: str) -> list[dict[str, Any]]:
    """The lines of the log with that event."""
    lines = (json.loads(line) for line in daemon.written().splitlines())
    return [line for line in lines if line["event"] == name]
