"""Where things are: the configuration, else the usual places."""

from __future__ import annotations

import pytest

from spotokend.adapters.keys.credential import CredentialKey
from spotokend.adapters.keys.file import KeyFile
from spotokend.adapters.keys.keyring import KeyringKey
from spotokend.adapters.keys.passphrase import PassphraseKey
from spotokend.rules.config.values import Config, DaemonConfig, KeyKind, KeySource, StoreConfig
from spotokend.service.places import place_of_key, place_of_socket, place_of_store


def config(kind: KeyKind | None = None, value: str = "main") -> Config:
    key = None if kind is None else KeySource(kind, value)
    return Config(store=StoreConfig(path="/state/store.sqlite3", key=key))


@pytest.mark.parametrize(
    ("kind", "source", "words"),
    [
        (None, KeyFile, "the key /state/key"),
        (KeyKind.FILE, KeyFile, "the key main"),
        (KeyKind.CREDENTIAL, CredentialKey, "the credential main"),
        (KeyKind.KEYRING, KeyringKey, "the key main in the keyring"),
        (KeyKind.PASSPHRASE, PassphraseKey, "the passphrase"),
    ],
)
def test_each_source_has_its_adapter(kind, source, words):
    """The file beside the store is the default."""
    place = place_of_key(config(kind))

    assert isinstance(place, source)
    assert place.name == words


def test_the_wrapped_keys_lie_beside_the_store():
    """So that a copy of the folder is whole."""
    assert place_of_key(config(KeyKind.PASSPHRASE)).path == "/state/key.wrapped"


def test_store_and_socket_have_their_usual_places(monkeypatch):
    """The variable wins over the configuration, and this over the default."""
    monkeypatch.setenv("XDG_STATE_HOME", "/home/state")
    monkeypatch.delenv("SPOTOKEND_SOCK", raising=False)
    assert place_of_store(config()) == "/state/store.sqlite3"
    assert place_of_store(Config()) == "/home/state/spotokend/store.sqlite3"
    assert place_of_socket(Config(daemon=DaemonConfig(socket="/a"))) == "/a"
    monkeypatch.setenv("SPOTOKEND_SOCK", "/b")
    assert place_of_socket(Config(daemon=DaemonConfig(socket="/a"))) == "/b"
