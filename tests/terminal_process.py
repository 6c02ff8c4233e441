"""A program in a terminal: what it draws is read off a screen, what a person types goes in."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import select
import signal
import struct
import subprocess
import termios
import time
from collections.abc import Mapping, Sequence
from typing import Self

import leaks
import pyte
from overheard import may_tell

PATIENCE = 20.0
"""Seconds; what is waited for takes one at most on an idle machine."""

_ESCAPE = re.compile(r"\x1b(?:\[[0-9;?]*[ -/]*[@-~]|\][^\x07]*\x07|[@-Z\\-_])")
"""Control sequences of ECMA-48: colours, movements of the cursor, titles."""


class TerminalProcess:
    """``command`` as the foreground job of a terminal of its own; a context manager that ends it.

    The program gets the terminal as its controlling one, so that Ctrl-C reaches it as from a
    keyboard. What scrolled off the screen is in :attr:`written`.
    """

    def __init__(
        self,
        command: Sequence[str],
        environ: Mapping[str, str],
        *,
        columns: int = 80,
        lines: int = 24,
    ) -> None:
        self.screen = pyte.Screen(columns, lines)
        self._stream = pyte.ByteStream(self.screen)
        self._written = bytearray()
        self._terminal, theirs = pty.openpty()
        self.resize(columns, lines)
        with may_tell("what is on the screen is searched in the end"):
            self._process = subprocess.Popen(
                # A session of its own, with this terminal as the controlling one (util-linux).
                ["setsid", "--ctty", *command],
                env={"TERM": "xterm-256color", "LANG": "C.UTF-8"} | dict(environ),
                stdin=theirs,
                stdout=theirs,
                stderr=theirs,
            )
        os.close(theirs)

    @property
    def written(self) -> str:
        """All that it has written so far, escape sequences and all."""
        return self._written.decode(errors="replace")

    @property
    def shown(self) -> str:
        """What the screen shows now."""
        return "\n".join(line.rstrip() for line in self.screen.display).rstrip()

    def type(self, text: str) -> None:
        """As from the keyboard; ``\\x03`` is Ctrl-C, ``\\x04`` Ctrl-D."""
        os.write(self._terminal, text.encode())

    def resize(self, columns: int, lines: int) -> None:
        """Drag the window to that size."""
        size = struct.pack("HHHH", lines, columns, 0, 0)
        fcntl.ioctl(self._terminal, termios.TIOCSWINSZ, size)
        self.screen.resize(lines, columns)

    def expect(self, text: str, within: float = PATIENCE) -> None:
        """Wait until that was written, escape sequences apart.

        Raises:
            AssertionError: it ended or fell silent without; with what it shows.
        """
        deadline = time.monotonic() + within
        while text not in self._plain():
            if not self._read(deadline - time.monotonic()) and text not in self._plain():
                raise AssertionError(f"no {text!r} came; it shows:\n{self.shown}")

    def wait(self, within: float = PATIENCE) -> int:
        """Its exit status, negative for a signal, once it has ended."""
        deadline = time.monotonic() + within
        while self._read(deadline - time.monotonic()):
            pass
        return self._process.wait(max(0.1, deadline - time.monotonic()))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        if self._process.poll() is None:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
        os.close(self._terminal)
        # A code may have been pasted, and was echoed then.
        leaks.search("the terminal", re.sub(r"sandbox-code-\d+-\w+", "", self._plain()))

    def _plain(self) -> str:
        return _ESCAPE.sub("", self.written)

    def _read(self, seconds: float) -> bool:
        """Take in what comes within so many seconds; False: nothing came, or the end did."""
        ready, _, _ = select.select([self._terminal], [], [], max(0.0, seconds))
        if not ready:
            return False
        try:
            data = os.read(self._terminal, 64 * 1024)
        except OSError:  # how a terminal says that nobody has it open any more
            return False
        self._written += data
        self._stream.feed(data)
        return bool(data)
