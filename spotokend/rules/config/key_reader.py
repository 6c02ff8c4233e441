"""``[store] key``: where the key of the store comes from, read as in :mod:`.readers`."""

from __future__ import annotations

from collections.abc import Mapping

from .readers import (
    Reader,
    Wrong,
    credential,
    either,
    file,
    is_command,
    kind_of,
    name,
    only_source,
)
from .values import KeyKind, KeySource

ASKERS = ("pinentry", "systemd")
"""What can ask for a passphrase by its own name."""

_WRITABLE = "file=PATH, keyring=NAME, passphrase=pinentry or passphrase=systemd"


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
    word, inner = only_source(value, _READERS, "a key", cure)
    return KeySource(KeyKind(word), inner)


def writable_source(words: str) -> KeySource:
    """A source that keys can be moved to, as it is named on one line: ``keyring=main``.

    Not a program that prints the passphrase: whoever may name one to the daemon could have it run
    anything. The configuration alone names those.
    """
    kind, equals, value = words.partition("=")
    if not equals:
        raise Wrong("names no source", f"use {_WRITABLE}")
    source = key_source({kind: value})
    if source.kind is KeyKind.CREDENTIAL:
        raise Wrong(
            "only you can put a key into a credential",
            "put the key in use where LoadCredential= of the unit takes it from, and name it in the"
            " configuration (docs/security.md, The key)",
        )
    if source.kind is KeyKind.FILE and not value.startswith("/"):
        raise Wrong("the path doesn't begin with a slash", "use file=/PATH")  # whose folder is it?
    return source


def _asker(value: object) -> str | tuple[str, ...]:
    """Who asks for the passphrase."""
    if isinstance(value, str) and value in ASKERS:
        return value
    if is_command(value):
        return tuple(value)
    # A string is not shown: somebody may have put the passphrase itself here.
    raise Wrong(
        "what asks for the passphrase belongs here, not the passphrase",
        f'use {either(ASKERS)}, or a program that prints it, such as ["pass", "show", "spotokend"]',
    )


_READERS: Mapping[str, Reader] = {
    KeyKind.FILE: file,
    KeyKind.CREDENTIAL: credential,
    KeyKind.KEYRING: name,
    KeyKind.PASSPHRASE: _asker,
}
