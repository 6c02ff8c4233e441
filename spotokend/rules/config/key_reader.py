"""``[store] key``: where the key of the store comes from, read as in :mod:`.readers`."""

from __future__ import annotations

from .readers import Wrong, did_you_mean, either, file, kind_of, name, show, text
from .values import KeyKind, KeySource

ASKERS = ("pinentry", "systemd")
"""What can ask for a passphrase by its own name."""


def key_source(value: object) -> KeySource:
    """A path, or a table that names one source."""
    cure = (
        'write the path of a file, or one of { file = "PATH" }, { credential = "NAME" },'
        ' { keyring = "NAME" }, { passphrase = "pinentry" }'
    )
    if isinstance(value, str):
        return KeySource(KeyKind.FILE, file(value))
    if not isinstance(value, dict):
        raise Wrong(f"a path or a table belongs here, not {kind_of(value)}", cure)
    kinds = [kind.value for kind in KeyKind]
    for word in value:
        if word not in kinds:
            raise Wrong(
                f"{show(word)} is no source of a key{did_you_mean(word, kinds)}",
                f"use {either(kinds)}",
            )
    if len(value) != 1:
        raise Wrong("names more than one source" if value else "names no source", cure)
    [(word, inner)] = value.items()
    try:
        return KeySource(KeyKind(word), _READERS[KeyKind(word)](inner))
    except Wrong as wrong:
        raise Wrong(f"{word}: {wrong.message}", wrong.hint) from None


def _credential(value: object) -> str:
    credential = text(value)
    if "/" in credential or credential in {".", ".."}:
        raise Wrong("the name of a credential has no slash", "write the name of LoadCredential=")
    return credential


def _asker(value: object) -> str | tuple[str, ...]:
    """Who asks for the passphrase."""
    if isinstance(value, str) and value in ASKERS:
        return value
    if (
        isinstance(value, list)
        and value
        and all(isinstance(word, str) and "\0" not in word for word in value)
        and value[0].strip()
    ):
        return tuple(value)
    # A string is not shown: somebody may have put the passphrase itself here.
    raise Wrong(
        "what asks for the passphrase belongs here, not the passphrase",
        f'use {either(ASKERS)}, or a program that prints it, such as ["pass", "show", "spotokend"]',
    )


_READERS = {
    KeyKind.FILE: file,
    KeyKind.CREDENTIAL: _credential,
    KeyKind.KEYRING: name,
    KeyKind.PASSPHRASE: _asker,
}
