"""The store's key in a file of its own: 0600 from its first instant, never overwritten.

A line of base64 below a line for people. A key is made only for a store that holds nothing yet:
beside one that does, a new key would be the silent loss of every login in it.
"""

from __future__ import annotations

import base64
import binascii
import os
import stat
import tempfile
from collections.abc import Callable
from contextlib import suppress

from spotokend.errors import Misconfigured
from spotokend.rules.sealing import KEY_BYTES, SealingKey

_HEADING = "# The key to the logins in spotokend's store. Keep a copy apart from the store's.\n"
_MOST_BYTES = 4096
"""Read of a file that is no key: its heading and key have 127."""


def load_or_create_key(
    path: str, *, store_is_empty: bool, random_bytes: Callable[[int], bytes]
) -> SealingKey:
    """The key in the file; a new one if there is no file and nothing that a lost one had sealed.

    ``random_bytes`` is os.urandom.

    Raises:
        Misconfigured: missing beside a store in use, readable by others, or no key.
    """
    try:
        try:
            return _load(path)
        except FileNotFoundError:
            if not store_is_empty:
                raise Misconfigured(
                    f"the key {path} is missing, and the store holds what it has sealed",
                    hint=f"restore {path} from a backup; if there is none, move the store away and"
                    " log in again (spotokend login)",
                ) from None
            return _create(path, random_bytes(KEY_BYTES))
    except OSError as error:
        raise Misconfigured(
            f"the key {path} can't be used: {error.strerror}",
            hint=f"see what {path} is and its rights, and those of its folder",
        ) from error


def _load(path: str) -> SealingKey:
    # A symbolic link is fine: whoever deploys keys often places them so. A FIFO must not block.
    file = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        status = os.fstat(file)
        if not stat.S_ISREG(status.st_mode):
            raise Misconfigured(
                f"the key {path} is no regular file", hint="name the key's file under [store] key"
            )
        if status.st_mode & 0o077:
            raise Misconfigured(
                f"the key {path} is open to other users ({stat.filemode(status.st_mode)})",
                hint=f"chmod 600 {path}; if others may have read it, revoke the app's access at the "
                "provider, too, and log in again",
            )
        text = os.read(file, _MOST_BYTES)
    finally:
        os.close(file)
    lines = [line for line in text.split(b"\n") if line.strip() and not line.startswith(b"#")]
    with suppress(binascii.Error, ValueError):
        (line,) = lines
        return SealingKey(base64.b64decode(line.strip(), validate=True))
    raise Misconfigured(
        f"{path} holds no key: one line with the base64 of {KEY_BYTES} bytes is expected",
        hint=f"restore {path} from a backup, or name the key's file under [store] key",
    )


def _create(path: str, value: bytes) -> SealingKey:
    folder = os.path.dirname(os.path.abspath(path))
    os.makedirs(folder, mode=0o700, exist_ok=True)
    file, draft = tempfile.mkstemp(prefix=".key-", dir=folder)  # 0600
    try:
        with os.fdopen(file, "wb") as stream:
            stream.write(_HEADING.encode() + base64.b64encode(value) + b"\n")
            stream.flush()
            os.fsync(file)
        # Complete or not at all, and unlike rename(2) never over a key that somebody else put
        # there in between: that one is then the key.
        with suppress(FileExistsError):
            os.link(draft, path)
    finally:
        os.unlink(draft)
    directory = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(directory)  # a store sealed under a key that a power cut takes away is lost
    finally:
        os.close(directory)
    return _load(path)
