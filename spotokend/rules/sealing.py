"""The envelope around what must not be readable on disk: AES-256-GCM, bound to its row.

    format (1 byte: 1) | key id (8) | nonce (12) | ciphertext | tag (16)

The tag covers the first two fields too, and the account, fingerprint and version of the row: an
envelope that is moved to another account, kept under another client registration or put back after
a newer one doesn't open. What is inside is the caller's business.

A :class:`KeyRing` is all that the rest of the program knows of keys: while it is empty nothing can
be sealed or opened, and whoever tries gets the error that says why.

Nonces come from outside, 96 random bits each: at 100,000 accounts refreshed hourly one key reaches
the 2**32 envelopes that NIST SP 800-38D (8.3) allows for such nonces after five years.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterable, Sequence
from contextlib import suppress
from typing import NoReturn

from spotokend.errors import Locked

FORMAT = 1
KEY_BYTES = 32
NONCE_BYTES = 12

_ID_BYTES = 8
_TAG_BYTES = 16
_HEADER_BYTES = 1 + _ID_BYTES
_LEAST_BYTES = _HEADER_BYTES + NONCE_BYTES + _TAG_BYTES


class SealingError(Exception):
    """An envelope that can't be opened; the text says whose it is and why."""


class WrongKey(SealingError):
    """Another key sealed it: ``key_id`` is that one's name."""

    def __init__(self, message: str, key_id: str) -> None:
        super().__init__(message)
        self.key_id = key_id


class Tampered(SealingError):
    """It isn't what was sealed for this row: changed, cut off, or another row's."""


class UnknownFormat(SealingError):
    """A newer version of this program sealed it."""


class SealingKey:
    """32 bytes that nothing prints, and the name under which envelopes know them."""

    __slots__ = ("_value", "key_id")

    def __init__(self, value: bytes) -> None:
        if len(value) != KEY_BYTES:
            raise ValueError(f"a sealing key has {KEY_BYTES} bytes, not {len(value)}")
        self._value = value
        # One way, and of a value that nobody can guess: the name tells nothing about the key.
        self.key_id = hashlib.sha256(b"spotokend sealing key\0" + value).digest()[:_ID_BYTES].hex()

    def reveal(self) -> bytes:
        """The bytes themselves, for the cipher."""
        return self._value

    def __repr__(self) -> str:
        return f"SealingKey({self.key_id}, ***)"

    def __reduce__(self) -> NoReturn:
        raise TypeError("a SealingKey is not pickled: it would lie readable in the pickle")


class KeyRing:
    """The keys at hand: the newest seals, and each opens what it has sealed.

    Two of them while a store goes over from one to the next. Without any, what needs one raises
    :class:`~spotokend.errors.Locked`, with the words of :meth:`lock`.
    """

    __slots__ = ("_hint", "_keys", "_why")

    def __init__(self, *keys: SealingKey) -> None:
        self._keys = keys
        self._why, self._hint = "the key has not been asked for yet", "spotokend unlock"

    @property
    def ids(self) -> tuple[str, ...]:
        """The names of the keys, the newest first."""
        return tuple(key.key_id for key in self._keys)

    @property
    def newest(self) -> SealingKey:
        """The key that seals.

        Raises:
            Locked: there is none.
        """
        self.check()
        return self._keys[0]

    def check(self) -> None:
        """See that there is a key.

        Raises:
            Locked: there is none; why, and what to type.
        """
        if not self._keys:
            raise Locked(self._why, hint=self._hint)

    def lock(self, why: str, hint: str) -> None:
        """Let go of all keys, for that reason."""
        self._keys, self._why, self._hint = (), why, hint

    def take(self, keys: Iterable[SealingKey]) -> None:
        """Hold these, the newest first, and behind them those that were held before.

        What was read from the disk a moment ago must still open.
        """
        held = {key.key_id: key for key in (*keys, *self._keys)}
        self._keys = tuple(held.values())

    def seal(
        self, plaintext: bytes, *, account: str, fingerprint: str, version: int, nonce: bytes
    ) -> bytes:
        """See :func:`seal`.

        Raises:
            Locked: there is no key.
        """
        return seal(
            self.newest,
            plaintext,
            account=account,
            fingerprint=fingerprint,
            version=version,
            nonce=nonce,
        )

    def open(self, envelope: bytes, *, account: str, fingerprint: str, version: int) -> bytes:
        """See :func:`open_envelope`, which names the newest key where none of them fits.

        Raises:
            Locked: there is no key.
        """
        key = self.newest
        sealed_by = envelope[1:_HEADER_BYTES].hex()
        key = next((known for known in self._keys if known.key_id == sealed_by), key)
        return open_envelope(
            key, envelope, account=account, fingerprint=fingerprint, version=version
        )


def write_keys(keys: Sequence[SealingKey]) -> bytes:
    """Keys as lines of base64, the newest first: what files, credentials and keyrings hold."""
    return b"".join(base64.b64encode(key.reveal()) + b"\n" for key in keys)


def read_keys(text: bytes) -> list[SealingKey]:
    """The keys in such lines; empty ones, and those that begin with ``#``, are passed over.

    Raises:
        ValueError: there is none, or something else. No part of it is repeated.
    """
    lines = [line.strip() for line in text.split(b"\n")]
    with suppress(ValueError):
        keys = [
            SealingKey(base64.b64decode(line, validate=True))
            for line in lines
            if line and not line.startswith(b"#")
        ]
        if keys:
            return keys
    raise ValueError(f"lines with the base64 of {KEY_BYTES} bytes are expected, the newest first")


def seal(
    key: SealingKey,
    plaintext: bytes,
    *,
    account: str,
    fingerprint: str,
    version: int,
    nonce: bytes,
) -> bytes:
    """The envelope; ``nonce`` must be :data:`NONCE_BYTES` random bytes, never used before."""
    # Imported when first needed: 20 to 50 ms that the start of a daemon can do without.
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

    if len(nonce) != NONCE_BYTES:
        raise ValueError(f"a nonce has {NONCE_BYTES} bytes, not {len(nonce)}")
    header = bytes((FORMAT,)) + bytes.fromhex(key.key_id)
    binding = _binding(header, account, fingerprint, version)
    return header + nonce + AESGCM(key.reveal()).encrypt(nonce, plaintext, binding)


def open_envelope(
    key: SealingKey, envelope: bytes, *, account: str, fingerprint: str, version: int
) -> bytes:
    """What was sealed for exactly this row.

    Raises:
        WrongKey: another key is needed.
        Tampered: it was changed, or sealed for another row.
        UnknownFormat: a newer version is needed.
    """
    from cryptography.exceptions import InvalidTag
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

    if len(envelope) < _LEAST_BYTES:
        raise Tampered(
            f"the envelope of account {account!r} is cut off after {len(envelope)} bytes"
        )
    if envelope[0] != FORMAT:
        raise UnknownFormat(
            f"the envelope of account {account!r} has format {envelope[0]}, this version of"
            f" spotokend knows {FORMAT}: install the newer one again"
        )
    header, nonce = envelope[:_HEADER_BYTES], envelope[_HEADER_BYTES:][:NONCE_BYTES]
    sealed_by = header[1:].hex()
    if sealed_by != key.key_id:
        raise WrongKey(
            f"the envelope of account {account!r} was sealed by key {sealed_by},"
            f" this is key {key.key_id}",
            sealed_by,
        )
    binding = _binding(header, account, fingerprint, version)
    try:
        return AESGCM(key.reveal()).decrypt(nonce, envelope[_HEADER_BYTES + NONCE_BYTES :], binding)
    except InvalidTag:
        raise Tampered(
            f"the envelope of account {account!r} is not what was sealed for it at version"
            f" {version}: it was changed, or belongs to another row"
        ) from None


def _binding(header: bytes, account: str, fingerprint: str, version: int) -> bytes:
    # Each part with its length before it, or ("ab", "c") and ("a", "bc") would be one binding.
    parts = (header, account.encode(), fingerprint.encode(), str(version).encode())
    return b"".join(len(part).to_bytes(4, "big") + part for part in parts)
