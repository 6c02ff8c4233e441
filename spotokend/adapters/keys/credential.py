"""The store's keys as a credential of systemd: made by the user, decrypted by systemd, only read here.

systemd puts it into memory that is never swapped, and takes it away with the service; where it can,
it lies encrypted on the disk (``systemd-creds``, systemd.exec(5)). Nobody but its owner can change
it, and so a change of keys begins with the owner: the new key as the first of two lines.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Sequence

from anyio import to_thread

from spotokend.errors import Misconfigured
from spotokend.rules.sealing import SealingKey, read_keys

_MOST_BYTES = 4096

MAKE = "head -c 32 /dev/urandom | base64"
"""Prints a key."""


class CredentialKey:
    """The keys in the credential ``credential`` of the daemon's unit."""

    nap = None
    asks = False
    writable = False

    def __init__(self, credential: str) -> None:
        self.credential = credential
        self.name = f"the credential {credential}"
        self.removal = f"the line LoadCredential={credential} of the unit, and what it names"
        self.lost = (
            f"in the unit's [Service] section: LoadCredential={credential}:/path/to/the/key; a new"
            f" one is printed by: {MAKE}"
        )

    async def load(self) -> list[SealingKey]:
        """The keys, the newest first; none where systemd passed no such credential.

        Raises:
            Misconfigured: not started by systemd with any credentials, or it holds no key.
        """
        return await to_thread.run_sync(self._read)

    async def save(self, keys: Sequence[SealingKey]) -> None:  # noqa: ARG002 - as every source's
        """Say how its owner does that.

        Raises:
            Misconfigured: always.
        """
        raise Misconfigured(
            f"only you can put a key into {self.name}: systemd gives it for reading",
            hint=f"put a new key, as printed by `{MAKE}`, on a line of its own before the present"
            " one (the first key stays alone where there is none yet), restart spotokend, then:"
            " spotokend store rekey",
        )

    def _read(self) -> list[SealingKey]:
        folder = os.environ.get("CREDENTIALS_DIRECTORY")
        if not folder:
            raise Misconfigured(
                f"$CREDENTIALS_DIRECTORY isn't set, so systemd passed no credential"
                f" {self.credential}",
                hint=f"{self.lost}; outside of systemd name another source under [store] key",
            )
        path = os.path.join(folder, self.credential)
        try:
            # Its mode isn't looked at: systemd lets a unit's user in by an access control list,
            # whose mask shows as the group's bits.
            file = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
            try:
                regular = stat.S_ISREG(os.fstat(file).st_mode)
                text = os.read(file, _MOST_BYTES) if regular else b""
            finally:
                os.close(file)
        except FileNotFoundError:
            return []
        except OSError as error:
            raise Misconfigured(
                f"{self.name} can't be read: {error.strerror}", hint=self.lost
            ) from None
        try:
            return read_keys(text)
        except ValueError as wrong:
            raise Misconfigured(f"{self.name} holds no key: {wrong}", hint=self.lost) from None
