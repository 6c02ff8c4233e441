"""The token that clients see."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scripted import token_map

from spotokend.token import Token


def test_there_and_back():
    """Every field of the wire is kept."""
    sent = token_map(7, grant_expires_at=1e9)
    token = Token.from_wire(sent)

    assert token.to_wire() == sent
    assert token.scope == ("user-read-email", "streaming")


def test_unknown_keys():
    """A newer daemon may say more."""
    sent = token_map()
    assert Token.from_wire({**sent, "news": "x"}) == Token.from_wire(sent)


@pytest.mark.parametrize("key", sorted(set(token_map()) - {"grant_expires_at"}))
def test_missing(key):
    """What is missing is named."""
    sent = token_map()
    del sent[key]
    with pytest.raises(ValueError, match=f"a token without {key}"):
        Token.from_wire(sent)


@pytest.mark.parametrize(
    "changes",
    [
        {"account": 7},
        {"access_token": b"access-1"},
        {"access_token": ""},
        {"token_type": None},
        {"expires_at": "soon"},
        {"expires_boot": True},
        {"expires_boot": float("inf")},
        {"expires_boot": float("nan")},
        {"scope": "streaming"},
        {"scope": None},
        {"scope": [7]},
        {"generation": 1.0},
        {"generation": True},
        {"grant_expires_at": "never"},
    ],
    ids=str,
)
def test_wrong_type(changes):
    """A value of a wrong type is refused, and not shown."""
    with pytest.raises(
        ValueError,
        match=r"^a token that is no map, or a value of a wrong type in it, or an empty one$",
    ):
        Token.from_wire(token_map(**changes))


@given(
    st.none()
    | st.integers()
    | st.lists(st.integers())
    | st.dictionaries(
        st.sampled_from(sorted(token_map())), st.none() | st.text() | st.floats() | st.integers()
    )
)
def test_anything(sent):
    """Nothing but ValueError comes out of what is no token."""
    with pytest.raises(ValueError, match="a token"):
        Token.from_wire(sent)


def test_remaining(monkeypatch):
    """What is left is counted on the clock that counts suspend, whatever the wall clock says."""
    token = Token.from_wire(token_map(expires_boot=160.0))
    clocks = {time.CLOCK_BOOTTIME: 100.0}
    monkeypatch.setattr(time, "clock_gettime", clocks.__getitem__)
    monkeypatch.setattr(time, "time", lambda: 0.0)

    assert token.remaining == 60.0
    clocks[time.CLOCK_BOOTTIME] = 170.0
    assert token.remaining == -10.0


@pytest.mark.parametrize(
    ("kind", "expected"),
    [("Bearer", "Bearer access-1"), ("bearer", "Bearer access-1"), ("MAC", "MAC access-1")],
)
def test_authorization(kind, expected):
    """The header is spelt as every API takes it."""
    assert Token.from_wire(token_map(token_type=kind)).authorization == expected


def test_shows_no_secret():
    """Neither repr nor str nor a format shows the token."""
    token = Token.from_wire(token_map(3, expires_at=1000.4))
    assert repr(token) == "<Token account='main' generation=3 expires_at=1000>"
    assert "access-3" not in f"{token} {token!r} {token!s} {[token]}"


def test_equality():
    """Tokens are equal if all that is known of them is; then their hashes are, too."""
    sent = token_map()
    assert Token.from_wire(sent) == Token.from_wire(sent)
    assert hash(Token.from_wire(sent)) == hash(Token.from_wire(sent))
    assert Token.from_wire(sent) != Token.from_wire({**sent, "generation": 2})
    assert Token.from_wire(sent) != sent


def test_tokens_that_differ_rarely_share_a_hash():
    """A set of them is no list: each of the three that a hash is made of counts."""
    sent = token_map()
    others = [{"account": "other"}, {"generation": 2}, {"access_token": "access-of-another"}]
    hashes = {hash(Token.from_wire({**sent, **changes})) for changes in ({}, *others)}
    assert len(hashes) == 4
