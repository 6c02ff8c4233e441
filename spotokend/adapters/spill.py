"""Answers that the store does not take, each in a sealed file beside the socket until it does.

    "spotokend spill 1\\n" | SHA-256 of the rest (32 bytes) | the bytes that were given

One file an account, ``NAME.spill``, which is there whole or not at all: it is written under another
name, synced, renamed, and read back. The folder is 0700, each file 0600 from its first instant.
What can't be used is given a name that says why and when, and is never deleted here. Account names
hold nothing that a file name can't.

How long the folder itself lives is the system's matter: one below ``$XDG_RUNTIME_DIR`` is memory,
and ends with the session or with the power.
"""

from __future__ import annotations

import hashlib
import itertools
import os
import stat
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import TypeVar

from anyio import CancelScope, CapacityLimiter, to_thread

_T = TypeVar("_T")

_MAGIC = b"spotokend spill "
_HEAD = _MAGIC + b"1\n"
_DIGEST_BYTES = 32
_SPILL, _DRAFT = ".spill", ".draft"


class SpillError(Exception):
    """A file can't be written or read. The text names it and says what happened."""


class Unusable(SpillError):
    """A file that is there and holds no answer; ``why`` in one word, for its name."""

    def __init__(self, message: str, why: str) -> None:
        super().__init__(message)
        self.why = why


class SpillFolder:
    """The folder and its files. All calls are carried to their end, in a thread, one at a time."""

    def __init__(self, path: str) -> None:
        self.path = path
        self._limiter = CapacityLimiter(1)

    async def write(self, account: str, data: bytes) -> None:
        """Have ``data`` there, in place of an older answer; durable as far as the folder is.

        Raises:
            SpillError: it can't be written, or does not read as it was written.
        """
        await self._call(lambda: self._write(account, data))

    async def accounts(self) -> list[str]:
        """Whose files are there, in order. What a killed process left half written is removed.

        Raises:
            SpillError: the folder can't be read, or is somebody else's.
        """
        return await self._call(self._accounts)

    async def read(self, account: str) -> bytes:
        """What was written.

        Raises:
            Unusable: it is not what a ``write`` has left.
            SpillError: it can't be read.
        """
        return await self._call(lambda: self._read(account))

    async def remove(self, account: str) -> None:
        """Delete the file: what it held is in the store, or was overtaken. None is no error.

        Raises:
            SpillError: it can't be deleted.
        """
        await self._call(lambda: self._remove(account))

    async def put_aside(self, account: str, why: str, *, now: float) -> str:
        """Give the file a name that says ``why`` and when (Unix seconds); returns its path.

        Raises:
            SpillError: it stays where it is.
        """
        return await self._call(lambda: self._put_aside(account, why, now))

    async def _call(self, work: Callable[[], _T]) -> _T:
        with CancelScope(shield=True):
            result = await to_thread.run_sync(work, limiter=self._limiter)
        return result  # noqa: RET504 - to mypy a CancelScope may swallow what is raised in it

    def _write(self, account: str, data: bytes) -> None:
        path, draft = self._file(account), os.path.join(self.path, account + _DRAFT)
        whole = _HEAD + hashlib.sha256(data).digest() + data
        with _in_words(path):
            self._prepare()
            with suppress(FileNotFoundError):
                os.unlink(draft)
            try:
                _create(draft, whole)
                os.rename(draft, path)
            except BaseException:
                with suppress(OSError):
                    os.unlink(draft)
                raise
            _sync(self.path)
        if self._read(account) != data:
            raise SpillError(f"{path} does not read as it was written: the disk may be failing")

    def _accounts(self) -> list[str]:
        with _in_words(self.path):
            try:
                self._check_owner()
            except FileNotFoundError:
                return []
            names = os.listdir(self.path)
            for name in names:
                if name.endswith(_DRAFT):
                    os.unlink(os.path.join(self.path, name))
        return sorted(name.removesuffix(_SPILL) for name in names if name.endswith(_SPILL))

    def _read(self, account: str) -> bytes:
        path = self._file(account)
        with _in_words(path):
            file = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
            with os.fdopen(file, "rb") as stream:
                regular = stat.S_ISREG(os.fstat(file).st_mode)
                whole = stream.read() if regular else b""
        if whole.startswith(_MAGIC) and not whole.startswith(_HEAD):
            raise Unusable(f"{path} was written by another version of spotokend", "version")
        head, rest = whole[: len(_HEAD)], whole[len(_HEAD) :]
        digest, data = rest[:_DIGEST_BYTES], rest[_DIGEST_BYTES:]
        if head != _HEAD or digest != hashlib.sha256(data).digest():
            raise Unusable(f"{path} is damaged", "damaged")
        return data

    def _remove(self, account: str) -> None:
        path = self._file(account)
        with _in_words(path), suppress(FileNotFoundError):
            os.unlink(path)
            _sync(self.path)

    def _put_aside(self, account: str, why: str, now: float) -> str:
        path = self._file(account)
        stem = f"{path}.{why}-{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime(now))}"
        names = (stem + (f"-{number}" if number else "") for number in itertools.count())
        with _in_words(path):
            # One process has the folder, and so what is free stays free: rename(2) hits nothing.
            name = next(name for name in names if not os.path.lexists(name))
            os.rename(path, name)
            _sync(self.path)
        return name

    def _file(self, account: str) -> str:
        return os.path.join(self.path, account + _SPILL)

    def _prepare(self) -> None:
        # The daemon's umask keeps the folders in between private, should they have gone.
        os.makedirs(self.path, mode=0o700, exist_ok=True)
        self._check_owner()
        os.chmod(self.path, 0o700)
        _sync(os.path.dirname(os.path.abspath(self.path)))

    def _check_owner(self) -> None:
        status = os.lstat(self.path)
        if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.geteuid():
            # In a folder like /tmp anybody may have made it before us.
            raise SpillError(f"{self.path} is there already, and is no folder of this user's")


def _create(path: str, data: bytes) -> None:
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    with os.fdopen(os.open(path, flags, 0o600), "wb") as stream:
        stream.write(data)
        stream.flush()
        os.fsync(stream.fileno())


def _sync(folder: str) -> None:
    file = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(file)
    finally:
        os.close(file)


@contextmanager
def _in_words(path: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise SpillError(f"{error.filename or path}: {error.strerror}") from error
