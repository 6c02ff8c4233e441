"""Scopes by purpose: every one is there, every way to name them is understood."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spotokend.cli.scopes import PURPOSES, read, table
from spotokend.rules.config import readers
from spotokend.rules.config.readers import Wrong
from spotokend.rules.config.values import SPOTIFY_SCOPES

WORDS = [purpose.word for purpose in PURPOSES]
NUMBERS = [str(number) for number in range(1, len(PURPOSES) + 1)]
KNOWN = st.sampled_from([*WORDS, *NUMBERS, *SPOTIFY_SCOPES, "all", "none"])


def test_each_scope_belongs_to_a_purpose():
    """Nobody needs to know the names that Spotify gives them."""
    assert {scope for purpose in PURPOSES for scope in purpose.scopes} == set(SPOTIFY_SCOPES)


def test_a_word_means_one_thing():
    """No purpose is called like another, like a scope, or like the words for all and none."""
    names = [*WORDS, *NUMBERS, *SPOTIFY_SCOPES, "all", "none"]
    assert len(set(names)) == len(names)


def test_the_table_numbers_the_purposes_and_fits_the_screen():
    """A line each, in the order of the numbers, within 80 columns of plain ASCII."""
    lines = table().splitlines()
    assert [line.split()[:2] for line in lines] == [
        [number, word] for number, word in zip(NUMBERS, WORDS, strict=True)
    ]
    assert max(map(len, lines)) < 80
    assert table().isascii()


@pytest.mark.parametrize(
    ("answer", "scopes"),
    [
        ("", ()),
        ("none", ()),
        ("8", ("user-follow-read",)),
        ("following", ("user-follow-read",)),
        ("user-follow-read", ("user-follow-read",)),
        ("8, 9", ("user-follow-read", "user-follow-modify")),
        ("9 8", ("user-follow-modify", "user-follow-read")),
        (
            "8,9;following  user-top-read",
            ("user-follow-read", "user-follow-modify", "user-top-read"),
        ),
        ("FOLLOWING", ("user-follow-read",)),
        ("all", SPOTIFY_SCOPES),
        ("streaming", ("streaming",)),
        ("none 8", ("user-follow-read",)),
    ],
)
def test_answers(answer, scopes):
    """Numbers, words and scopes, mixed, with commas or spaces; each scope once."""
    assert read(answer) == scopes


@pytest.mark.parametrize("scope", ["user-read-concerts", "playlist-read-public", "soa-link"])
def test_a_scope_that_is_new_is_passed_on(scope):
    """The list grows, and this version can't know how; that it is unknown is said elsewhere."""
    assert read(f"8 {scope}") == ("user-follow-read", scope)


@pytest.mark.parametrize(
    ("answer", "message", "hint"),
    [
        ("user-top-reed", '"user-top-reed" is no purpose and no scope', "user-top-read"),
        ("user-read-privat", '"user-read-privat" is no purpose and no scope', "user-read-private"),
        ("8 playin", '"playin" is no purpose and no scope', "did you mean playing?"),
        ("playlist", '"playlist" is no purpose and no scope', "did you mean playlists?"),
        ("12", 'there is no number "12"', "they go from 1 to 11"),
        ("0", 'there is no number "0"', "from 1 to 11"),
        ("qqq", '"qqq" is no purpose and no scope', "numbers and words are those of the list"),
        ("\x1b[A", '"\\u001b[a" is no purpose and no scope', "of the list"),
        ("https://example.test", "is no purpose and no scope", "of the list"),
    ],
)
def test_what_is_nothing_of_that_is_named(answer, message, hint):
    """With the nearest that there is: a scope with a slip would end the login at Spotify."""
    with pytest.raises(Wrong, match=re.escape(message)) as caught:
        read(answer)
    assert hint in caught.value.hint


@given(words=st.lists(KNOWN), separator=st.sampled_from([" ", ",", ", ", " ; ", "\t"]))
def test_whatever_is_known_can_be_mixed(words, separator):
    """The union of what each word means alone, in the order of the answer, without repetitions."""
    union = [scope for word in words for scope in read(word)]
    assert read(separator.join(words)) == tuple(dict.fromkeys(union))


@given(st.text())
def test_any_answer_is_scopes_or_is_refused(answer):
    """What is taken can stand in a configuration."""
    try:
        scopes = read(answer)
    except Wrong:
        return
    assert readers.scopes(list(scopes)) == scopes
