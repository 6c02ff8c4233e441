"""One daemon a state folder: a lock that the kernel lets go of with its holder, however that ends.

The file stays when the lock is released: whoever unlinks it may take it from under a process that
has just opened it, and then two hold "the" lock. What it says, the holder's pid, is for people.
"""

from __future__ import annotations

import errno
import fcntl
import os
from types import TracebackType
from typing import Self

from spotokend.errors import Misconfigured


class AlreadyRunning(Exception):
    """Another daemon holds the lock; ``pid`` is its process id, None where it can't be told."""

    def __init__(self, path: str, pid: int | None) -> None:
        who = "another spotokend" if pid is None else f"spotokend with process id {pid}"
        super().__init__(
            f"{who} is running already and holds {path}: stop it first (spotokend stop)"
        )
        self.pid = pid


class StateLock:
    """A context manager that holds the lock while its block runs.

    Entering it raises :class:`AlreadyRunning` at once if another process holds the lock, and
    :class:`~spotokend.errors.Misconfigured` if the file can't be made. Take it after detaching: a
    forked child shares the lock of its parent.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        self._file = -1

    def __enter__(self) -> Self:
        try:
            os.makedirs(os.path.dirname(os.path.abspath(self.path)), mode=0o700, exist_ok=True)
            flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
            self._file = os.open(self.path, flags, 0o600)
        except OSError as error:
            hint = "see the rights of that file and its folder"
            if error.errno == errno.EROFS:
                hint = "the service writes where its unit lets it: spotokend service install"
            raise Misconfigured(
                f"the lock {self.path} can't be opened: {error.strerror}", hint=hint
            ) from error
        try:
            os.fchmod(self._file, 0o600)
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.ftruncate(self._file, 0)  # of an earlier holder's pid, which may be a longer number
            os.pwrite(self._file, f"{os.getpid()}\n".encode(), 0)
        except BlockingIOError:
            holder = os.pread(self._file, 32, 0).strip()
            self._close()
            raise AlreadyRunning(self.path, int(holder) if holder.isdigit() else None) from None
        except BaseException:
            self._close()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._close()

    def _close(self) -> None:
        os.close(self._file)
        self._file = -1
