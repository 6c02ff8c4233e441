"""The configuration's values: their defaults, and what the fingerprint depends on."""

import dataclasses

import pytest

from spotokend.rules.account import Rotation
from spotokend.rules.config.values import (
    NAME,
    SPOTIFY_SCOPES,
    ClientConfig,
    Config,
    KeyKind,
    KeySource,
    SecretSource,
    SourceKind,
)
from spotokend.rules.oauth import Flow
from spotokend.rules.schedule import Timing
from spotokend.rules.secret import Secret

CLIENT = ClientConfig(name="spotify", client_id="id-1")


def test_an_empty_configuration_has_all_defaults():
    """Nobody below has to ask whether a section is there."""
    config = Config()
    assert config.timing == Timing()
    assert dict(config.clients) == {}
    assert dict(config.accounts) == {}
    assert config.warnings == ()


@pytest.mark.parametrize(
    "change",
    [
        {"client_id": "id-2"},
        {"token_url": "https://accounts.example/token"},
        {"flow": Flow.AUTHORIZATION_CODE},
        {"flow": Flow.CLIENT_CREDENTIALS},
    ],
)
def test_what_decides_where_a_refresh_token_goes_changes_the_fingerprint(change):
    """Client id, token endpoint and flow: another value is another fingerprint."""
    assert dataclasses.replace(CLIENT, **change).fingerprint != CLIENT.fingerprint


@pytest.mark.parametrize(
    "change",
    [
        {"name": "renamed"},
        {"client_secret": SecretSource(SourceKind.ENV, "CLIENT_SECRET")},
        {"scopes": ("streaming",)},
        {"redirect_uri": "http://127.0.0.1:8888/callback"},
        {"authorize_url": "https://accounts.example/authorize"},
        {"api_url": None},
        {"identity_url": None},
        {"rotation": Rotation.STRICT},
        {"grant_life": 60.0},
        {"proactive": False},
    ],
)
def test_everything_else_keeps_the_fingerprint(change):
    """A renewed secret or other scopes don't put a grant aside."""
    assert dataclasses.replace(CLIENT, **change).fingerprint == CLIENT.fingerprint


def test_a_fingerprint_is_short_and_stable():
    """It is stored in rows: another value for the same client would put every grant aside."""
    assert CLIENT.fingerprint == "4991f4964257c3c2029c435032f45935"


def test_a_literal_secret_does_not_show():
    """Printing a configuration shows no secret."""
    source = SecretSource(SourceKind.LITERAL, Secret("client-secret-1"))
    assert "client-secret-1" not in repr(dataclasses.replace(CLIENT, client_secret=source))


@pytest.mark.parametrize(
    ("source", "words"),
    [
        (KeySource(KeyKind.FILE, "/keys/store"), "/keys/store"),
        (KeySource(KeyKind.KEYRING, "main"), "keyring main"),
        (KeySource(KeyKind.PASSPHRASE, ("ask-me", "--twice")), "passphrase ask-me"),
    ],
    ids=str,
)
def test_the_source_of_a_key_in_words(source: KeySource, words: str):
    """As people are told of it; of a command, its name."""
    assert str(source) == words


@pytest.mark.parametrize("name", ["a", "0", "main", "Work.2_b-c", "x" * 60])
def test_names(name):
    """Letters, digits, dots, hyphens and underscores make a name."""
    assert NAME.fullmatch(name) is not None


@pytest.mark.parametrize(
    "name", ["", ".", "..", ".a", "-a", "_a", "a/b", "a b", "a\n", "ä", "x" * 61]
)
def test_what_is_no_name(name):
    """No path, no option and no hidden file can be a name."""
    assert NAME.fullmatch(name) is None


def test_spotify_has_nineteen_scopes():
    """As many as the official description lists, each once."""
    assert len(set(SPOTIFY_SCOPES)) == len(SPOTIFY_SCOPES) == 19
