"""What a person types, or a script pipes in, as the stdin of the test's own process."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import pytest


class Stdin:
    """A pipe, or a terminal with its line discipline: echo, editing, Ctrl-D."""

    def __init__(self, *, terminal: bool) -> None:
        self.terminal = terminal
        self._writing, reading = os.openpty() if terminal else reversed(os.pipe())
        self.file = os.fdopen(reading)

    def give(self, *lines: str) -> None:
        """Lines, each with its newline."""
        self.write("".join(f"{line}\n" for line in lines).encode())

    def write(self, data: bytes) -> None:
        """Just that."""
        os.write(self._writing, data)

    def end(self) -> None:
        """No more will come: Ctrl-D, or the pipe's other end is closed."""
        if self.terminal:
            self.write(b"\x04")
        else:
            self.hang_up()

    def hang_up(self) -> None:
        """The terminal's window, or the writer of the pipe, is gone."""
        if self._writing >= 0:
            os.close(self._writing)
        self._writing = -1

    def rest(self) -> bytes:
        """What nobody has read, of a pipe whose writer is gone."""
        self.hang_up()
        return os.read(self.file.fileno(), 64 * 1024)


@contextmanager
def stdin(*, terminal: bool) -> Iterator[Stdin]:
    """An empty one in the place of the process's own."""
    with pytest.MonkeyPatch.context() as patch:
        replaced = Stdin(terminal=terminal)
        patch.setattr(sys, "stdin", replaced.file)
        try:
            yield replaced
        finally:
            replaced.hang_up()
            replaced.file.close()
