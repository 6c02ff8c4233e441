"""The envelope around what must not be readable on disk: AES-256-GCM, bound to its row.

    format (1 byte: 1) | key id (8) | nonce (12) | ciphertext | tag (16)

The tag covers the first two fields too, and the account, fingerprint and version of the row: an
envelope that is moved to another account, kept under another client registration or put back after
a newer one doesn't open. What is inside is the caller's business.

Nonces come from outside, 96 random bits each: at 100,000 accounts refreshed hourly one key reaches
the 2**32 envelopes that NIST SP 800-38D (8.3) allows for such nonces after five years.
"""

from __future__ import annotations

import hashlib
from typing import NoReturn

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
