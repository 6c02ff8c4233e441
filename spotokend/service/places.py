"""Where the daemon's things are, as its configuration and its environment say."""

from __future__ import annotations

import os

from spotokend import paths
from spotokend.adapters.keys.credential import CredentialKey
from spotokend.adapters.keys.file import KeyFile
from spotokend.adapters.keys.keyring import KeyringKey
from spotokend.adapters.keys.passphrase import PassphraseKey
from spotokend.rules.config.values import Config, KeyKind, KeySource

from .keys import KeyPlace

WRAPPED = "key.wrapped"
"""Beside the store: its keys under a passphrase."""


def place_of_store(config: Config) -> str:
    """The store's file."""
    return config.store.path or os.path.join(paths.state_dir(), "store.sqlite3")


def place_of_wrapped(config: Config) -> str:
    """Where a passphrase has its keys, if it has any."""
    return os.path.join(os.path.dirname(place_of_store(config)), WRAPPED)


def place_of_key(config: Config, other: KeySource | None = None) -> KeyPlace:
    """Where the key is, or would be from that other source; nothing is read, and no library loaded
    for it."""
    folder = os.path.dirname(place_of_store(config))
    source = other or config.store.key
    if source is None:
        return KeyFile(os.path.join(folder, "key"))
    match source.kind:
        case KeyKind.FILE:
            return KeyFile(str(source.value))
        case KeyKind.CREDENTIAL:
            return CredentialKey(str(source.value))
        case KeyKind.KEYRING:
            return KeyringKey(str(source.value))
    return PassphraseKey(place_of_wrapped(config), source.value)


def place_of_socket(config: Config) -> str:
    """The socket: as for clients, but that the configuration may name another."""
    return os.environ.get("SPOTOKEND_SOCK") or config.daemon.socket or paths.socket_path()
