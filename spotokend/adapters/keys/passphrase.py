"""The store's keys under a passphrase, in a small file beside the store.

The passphrase does not seal the store: scrypt (RFC 7914) makes a key of it that wraps the store's
random keys, so that another passphrase, or a change of keys, is one small file written anew. The
file tells how it was made, on lines for people:

    scrypt 131072 8 1 SALT
    WRAPPED

``SALT`` and ``WRAPPED`` (nonce, AES-256-GCM of the keys as lines) in base64. The figures are checked
before they are used: nobody who can write the file can make us fill the memory with them.
"""

from __future__ import annotations

import base64
import os
import shlex
import stat
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import NoReturn

from anyio import to_thread

from spotokend.errors import Locked, Misconfigured
from spotokend.rules.sealing import SealingKey, read_keys, write_keys

from .asking import Declined, ask, confirm

COST, BLOCK, PARALLEL = 2**17, 8, 1
"""scrypt's N, r and p: 128 MiB and some tenths of a second, OWASP's recommendation of 2024."""
_MOST_COST = 2**20
_MOST_BYTES = 16 * 1024
_SALT_BYTES = 16
_HEADING = "# The keys to the logins in spotokend's store, under a passphrase. Keep a copy of it.\n"
TRIES = 3


@dataclass(frozen=True, slots=True)
class Wrapped:
    """What the file says."""

    cost: int
    block: int
    parallel: int
    salt: bytes
    sealed: bytes

    @property
    def figures(self) -> bytes:
        """What the tag covers besides the keys."""
        return f"{self.cost} {self.block} {self.parallel}".encode() + self.salt


class PassphraseKey:
    """The keys in the file at ``path``; ``asker`` asks for the passphrase."""

    nap = None
    asks = True
    writable = True

    def __init__(self, path: str, asker: str | tuple[str, ...], *, cost: int = COST) -> None:
        self.path = path
        self.name = "the passphrase"
        self.lost = (
            f"restore {path} from a backup; if there is none, move the store away and log in again"
            " (spotokend login)"
        )
        self.removal = f"rm {shlex.quote(path)}"
        self._asker = asker
        self._cost = cost
        self._known: tuple[Wrapped, bytes] | None = None
        """The figures, and the key that scrypt made with them: for what is written later."""

    async def load(self) -> list[SealingKey]:
        """The keys, the newest first; none where there is no file.

        Raises:
            Locked: the passphrase was not given, or was wrong.
            Misconfigured: nobody can be asked, or the file holds something else.
        """
        wrapped = await to_thread.run_sync(read_wrapped, self.path)
        if wrapped is None:
            return []
        if self._known is not None and self._known[0].salt == wrapped.salt:
            keys = _unwrapped(wrapped, self._known[1], self.path)
            if keys is not None:
                return keys
        wrong: str | None = None
        for _ in range(1 if isinstance(self._asker, tuple) else TRIES):
            passphrase = await self._ask(wrong)
            key = await to_thread.run_sync(_derived, passphrase, wrapped)
            keys = _unwrapped(wrapped, key, self.path)
            if keys is not None:
                self._known = wrapped, key
                return keys
            wrong = "That was not it."
        raise Locked("the passphrase was wrong", hint="spotokend unlock")

    async def save(self, keys: Sequence[SealingKey]) -> None:
        """Have exactly these in the file; the first time a new passphrase is asked for, twice.

        Raises:
            Locked: it was not given.
            Misconfigured: nobody can be asked, or the file can't be written.
        """
        if self._known is None:
            salt = os.urandom(_SALT_BYTES)
            figures = Wrapped(self._cost, BLOCK, PARALLEL, salt, b"")
            try:
                passphrase = await confirm(
                    self._asker, "Choose a passphrase for spotokend's logins"
                )
            except Declined as declined:
                self._locked(declined)
            self._known = figures, await to_thread.run_sync(_derived, passphrase, figures)
        await to_thread.run_sync(self._write, keys, *self._known)

    async def _ask(self, wrong: str | None) -> bytes:
        try:
            return await ask(self._asker, "The passphrase for spotokend's logins", wrong)
        except Declined as declined:
            self._locked(declined)

    def _locked(self, declined: Declined) -> NoReturn:
        raise Locked(f"the passphrase was not given: {declined}", hint="spotokend unlock") from None

    def _write(self, keys: Sequence[SealingKey], figures: Wrapped, key: bytes) -> None:
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM

        nonce = os.urandom(12)
        sealed = nonce + AESGCM(key).encrypt(nonce, write_keys(keys), figures.figures)
        text = (
            f"{_HEADING}scrypt {figures.cost} {figures.block} {figures.parallel}"
            f" {base64.b64encode(figures.salt).decode()}\n{base64.b64encode(sealed).decode()}\n"
        )
        folder = os.path.dirname(os.path.abspath(self.path))
        try:
            os.makedirs(folder, mode=0o700, exist_ok=True)
            file, draft = tempfile.mkstemp(prefix=".key-", dir=folder)  # 0600
            try:
                with os.fdopen(file, "w", encoding="ascii") as stream:
                    stream.write(text)
                    stream.flush()
                    os.fsync(file)
                os.rename(draft, self.path)
            finally:
                with suppress(FileNotFoundError):
                    os.unlink(draft)
            directory = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                os.fsync(directory)
            finally:
                os.close(directory)
        except OSError as error:
            raise _unusable(self.path, str(error.strerror)) from error


def read_wrapped(path: str) -> Wrapped | None:
    """What the file says; None: there is none. Blocks.

    Raises:
        Misconfigured: it holds something else.
    """
    try:
        file = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise _unusable(path, str(error.strerror)) from None
    try:
        regular = stat.S_ISREG(os.fstat(file).st_mode)
        text = os.read(file, _MOST_BYTES) if regular else b""
    finally:
        os.close(file)
    try:
        figures, sealed = [line for line in text.splitlines() if line and line[:1] != b"#"]
        kind, *numbers, salt = figures.split()
        cost, block, parallel = map(int, numbers)
        wrapped = Wrapped(
            cost,
            block,
            parallel,
            base64.b64decode(salt, validate=True),
            base64.b64decode(sealed, validate=True),
        )
    except ValueError:
        raise _unusable(path, "it holds no keys under a passphrase") from None
    if kind != b"scrypt" or not _sensible(cost, block, parallel):
        raise _unusable(path, "its figures are not those of a version of spotokend")
    return wrapped


def _sensible(cost: int, block: int, parallel: int) -> bool:
    # N is a power of two; at most 1 GiB and the eightfold of our own time.
    return (
        (block, parallel) == (BLOCK, PARALLEL) and 2 <= cost <= _MOST_COST and not cost & (cost - 1)
    )


def _derived(passphrase: bytes, wrapped: Wrapped) -> bytes:
    from cryptography.hazmat.primitives.kdf.scrypt import Scrypt

    figures = {"n": wrapped.cost, "r": wrapped.block, "p": wrapped.parallel}
    return Scrypt(salt=wrapped.salt, length=32, **figures).derive(passphrase)


def _unwrapped(wrapped: Wrapped, key: bytes, path: str) -> list[SealingKey] | None:
    """The keys; None: the passphrase is another."""
    from cryptography.exceptions import InvalidTag
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

    nonce, sealed = wrapped.sealed[:12], wrapped.sealed[12:]
    try:
        return read_keys(AESGCM(key).decrypt(nonce, sealed, wrapped.figures))
    except InvalidTag:
        return None
    except ValueError:
        raise _unusable(path, "it holds no keys under a passphrase") from None


def _unusable(path: str, why: str) -> Misconfigured:
    return Misconfigured(
        f"the wrapped keys {path} can't be used: {why}",
        hint=f"restore {path} from a backup; it was not touched",
    )
