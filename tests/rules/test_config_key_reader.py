"""``[store] key``: a path, or one source; never the passphrase itself."""

from __future__ import annotations

import pytest

from spotokend.rules.config.key_reader import key_source, writable_source
from spotokend.rules.config.readers import Wrong
from spotokend.rules.config.values import KeyKind, KeySource


@pytest.mark.parametrize(
    ("value", "kind", "inner", "words"),
    [
        ("key", KeyKind.FILE, "key", "key"),
        ({"file": "~/key"}, KeyKind.FILE, "~/key", "~/key"),
        ({"credential": "store-key"}, KeyKind.CREDENTIAL, "store-key", "credential store-key"),
        ({"keyring": "main"}, KeyKind.KEYRING, "main", "keyring main"),
        ({"passphrase": "pinentry"}, KeyKind.PASSPHRASE, "pinentry", "passphrase pinentry"),
        ({"passphrase": ["pass", "x"]}, KeyKind.PASSPHRASE, ("pass", "x"), "passphrase pass"),
    ],
)
def test_each_source_is_understood(value, kind, inner, words):
    """And told without the arguments of a command."""
    source = key_source(value)

    assert source == KeySource(kind, inner)
    assert str(source) == words


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (7, "a path or a table belongs here"),
        ("~other/key", "only ~/ is understood"),
        ({}, "names no source"),
        ({"file": "a", "keyring": "b"}, "names more than one source"),
        ({"keyrin": "b"}, 'did you mean "keyring"'),
        ({"keyring": "a b"}, "keyring: "),
        ({"credential": "a/b"}, "credential: the name of a credential has no slash"),
        ({"credential": ".."}, "credential: the name of a credential has no slash"),
        ({"file": 1}, "file: "),
        ({"passphrase": ["\0"]}, "not the passphrase"),
        ({"passphrase": [" "]}, "not the passphrase"),
        ({"passphrase": []}, "not the passphrase"),
        ({"passphrase": [1]}, "not the passphrase"),
    ],
)
def test_everything_else_is_refused_with_the_cure(value, words):
    """Which names what works."""
    with pytest.raises(Wrong) as caught:
        key_source(value)
    assert words in caught.value.message
    assert caught.value.hint


def test_a_passphrase_that_stands_there_is_not_repeated():
    """Somebody has misunderstood what the key is for."""
    with pytest.raises(Wrong) as caught:
        key_source({"passphrase": "correct horse"})
    assert "horse" not in caught.value.message + caught.value.hint


@pytest.mark.parametrize(
    ("words", "kind", "inner"),
    [
        ("file=/a=b", KeyKind.FILE, "/a=b"),
        ("keyring=main", KeyKind.KEYRING, "main"),
        ("passphrase=pinentry", KeyKind.PASSPHRASE, "pinentry"),
        ("passphrase=systemd", KeyKind.PASSPHRASE, "systemd"),
    ],
)
def test_a_place_to_move_to_is_one_word(words, kind, inner):
    """The source's name, and what it is given in the configuration."""
    assert writable_source(words) == KeySource(kind, inner)


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ("keyring", "names no source"),
        ("keyrin=a", "is no source of a key"),
        ("keyring=", "keyring: is empty"),
        ("file=key", "doesn't begin with a slash"),
        ("file=~/key", "doesn't begin with a slash"),
        ("credential=store-key", "only you can put a key into a credential"),
        ("passphrase=pass", "not the passphrase"),
    ],
)
def test_what_keys_can_not_be_moved_to_is_refused_with_the_cure(words, told):
    """A credential is made by its owner, a program is named by the configuration alone."""
    with pytest.raises(Wrong) as caught:
        writable_source(words)
    assert told in caught.value.message
    assert caught.value.hint
