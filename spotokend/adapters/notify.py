"""What the service manager is told, as in sd_notify(3), and how often it wants a sign of life.

A datagram a message on the socket that ``$NOTIFY_SOCKET`` names. Without one nothing is told; and
whatever goes wrong with it, the daemon goes on.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import MutableMapping
from contextlib import suppress

VARIABLES = ("NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID")


class Notify:
    """Tells the manager. Takes its variables out of ``environ``: they aren't for our children."""

    def __init__(self, environ: MutableMapping[str, str]) -> None:
        address, period, pid = (environ.pop(name, "") for name in VARIABLES)
        self._socket: socket.socket | None = None
        if address.startswith(("/", "@")):
            self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
            self._socket.setblocking(False)  # a manager that doesn't read must not hold us up
        # "@" stands for the zero byte of an abstract address.
        self._address = "\0" + address[1:] if address.startswith("@") else address
        ours = not pid or pid == str(os.getpid())
        self.watchdog = int(period) / 1e6 if ours and period.isdigit() and int(period) else None
        """Seconds within which :meth:`alive` is expected; None: never."""

    @property
    def heard(self) -> bool:
        """Whether there is anybody to be told."""
        return self._socket is not None

    def ready(self) -> None:
        """The start, or a reload, is over."""
        self._tell("READY=1")

    def reloading(self) -> None:
        """The configuration is read anew; :meth:`ready` follows."""
        # The time lets the manager tell this message from one of an earlier reload (since 253).
        now = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
        self._tell("RELOADING=1", f"MONOTONIC_USEC={now}")

    def stopping(self) -> None:
        """The end has begun."""
        self._tell("STOPPING=1")

    def status(self, words: str) -> None:
        """How it is, in a line for people: ``systemctl status`` shows it."""
        self._tell("STATUS=" + " ".join(words.split()))

    def alive(self) -> None:
        """A sign of life, for the watchdog."""
        self._tell("WATCHDOG=1")

    def extend(self, seconds: float) -> None:
        """Starting or stopping takes so much longer, counted from now."""
        self._tell(f"EXTEND_TIMEOUT_USEC={int(seconds * 1e6)}")

    def close(self) -> None:
        """Tell nothing more."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def _tell(self, *assignments: str) -> None:
        if self._socket is not None:
            with suppress(OSError):
                self._socket.sendto("\n".join(assignments).encode(), self._address)
