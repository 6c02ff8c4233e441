"""The store's keys in a file of their own: 0600 from its first instant, whole or not at all.

Lines of base64 below a line for people, the newest key first: two lines while the store goes over
from one key to the next. A file that is made never replaces one that came meanwhile, and one that
is replaced still held what was read from it.
"""

from __future__ import annotations

import os
import shlex
import stat
import tempfile
from collections.abc import Sequence
from contextlib import suppress

from anyio import to_thread

from spotokend.errors import Misconfigured
from spotokend.rules.sealing import SealingKey, read_keys, write_keys

_HEADING = b"# The key to the logins in spotokend's store. Keep a copy apart from the store's.\n"
_MOST_BYTES = 4096
"""Read of a file that is no key: its heading and key have 127."""


class KeyFile:
    """The keys in the file at ``path``."""

    nap = None
    asks = False
    writable = True

    def __init__(self, path: str) -> None:
        self.path = path
        self.name = f"the key {path}"
        self.lost = (
            f"restore {path} from a backup; if there is none, move the store away and"
            " log in again (spotokend login)"
        )
        self.removal = f"rm {shlex.quote(path)}"
        self._seen: tuple[str, ...] = ()

    async def load(self) -> list[SealingKey]:
        """The keys, the newest first; none where there is no file.

        Raises:
            Misconfigured: readable by others, or no key.
        """
        return await to_thread.run_sync(self.read)

    async def save(self, keys: Sequence[SealingKey]) -> None:
        """Have exactly these in the file, durably; those that were loaded are still in it before.

        Raises:
            Misconfigured: it can't be written, or somebody else has changed it.
        """
        await to_thread.run_sync(self._save, keys)

    def read(self) -> list[SealingKey]:
        """As :meth:`load`; blocks."""
        try:
            try:
                keys = self._read()
            except FileNotFoundError:
                keys = []
        except OSError as error:
            raise self._unusable(error) from error
        self._seen = tuple(key.key_id for key in keys)
        return keys

    def _read(self) -> list[SealingKey]:
        # A symbolic link is fine: whoever deploys keys often places them so. A FIFO must not block.
        file = os.open(self.path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            status = os.fstat(file)
            if not stat.S_ISREG(status.st_mode):
                raise Misconfigured(
                    f"the key {self.path} is no regular file",
                    hint="name the key's file under [store] key",
                )
            if status.st_mode & 0o077:
                raise Misconfigured(
                    f"the key {self.path} is open to other users ({stat.filemode(status.st_mode)})",
                    hint=f"chmod 600 {self.path}; if others may have read it, also run"
                    " spotokend store rekey, revoke the app's access at the provider and log in"
                    " again",
                )
            text = os.read(file, _MOST_BYTES)
        finally:
            os.close(file)
        try:
            return read_keys(text)
        except ValueError as wrong:
            raise Misconfigured(
                f"{self.path} holds no key: {wrong}",
                hint=f"restore {self.path} from a backup, or name the key's file under [store] key",
            ) from None

    def _save(self, keys: Sequence[SealingKey]) -> None:
        seen = self._seen
        if tuple(key.key_id for key in self.read()) != seen:
            raise Misconfigured(
                f"the key {self.path} was changed by somebody else, and is left as it is",
                hint="restart spotokend, which reads it anew",
            )
        try:
            if seen:
                self._write(os.path.realpath(self.path), keys, replace=True)
            else:
                self._write(self.path, keys, replace=False)
            self._seen = tuple(key.key_id for key in self._read())
        except OSError as error:
            raise self._unusable(error) from error

    def _write(self, path: str, keys: Sequence[SealingKey], *, replace: bool) -> None:
        folder = os.path.dirname(os.path.abspath(path))
        os.makedirs(folder, mode=0o700, exist_ok=True)
        file, draft = tempfile.mkstemp(prefix=".key-", dir=folder)  # 0600
        try:
            with os.fdopen(file, "wb") as stream:
                stream.write(_HEADING + write_keys(keys))
                stream.flush()
                os.fsync(file)
            if replace:
                os.rename(draft, path)
            else:
                # Complete or not at all, and unlike rename(2) never over a key that somebody else
                # put there in between: that one is then the key.
                with suppress(FileExistsError):
                    os.link(draft, path)
        finally:
            with suppress(FileNotFoundError):
                os.unlink(draft)
        directory = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(directory)  # a store sealed under a key that a power cut takes away is lost
        finally:
            os.close(directory)

    def _unusable(self, error: OSError) -> Misconfigured:
        return Misconfigured(
            f"the key {self.path} can't be used: {error.strerror}",
            hint=f"see what {self.path} is and its rights, and those of its folder",
        )
