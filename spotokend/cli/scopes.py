"""Spotify's scopes by purpose: what a person may answer when asked what programs shall do.

Pure. Each of the scopes that this version knows belongs to at least one purpose. The list grows at
Spotify's: a scope that isn't known here, and isn't one mistyped either, is taken as it stands.
"""

from __future__ import annotations

import difflib
import re
from dataclasses import dataclass

from ..rules.config.readers import Wrong, show
from ..rules.config.values import SPOTIFY_SCOPES

MISTYPED = 0.9
"""The likeness from which on a word is a known one with a slip in it: one letter in ten.
``playlist-read-public``, which there isn't yet, is 0.78 of ``playlist-read-private``."""
RESEMBLING = 0.6
"""The likeness from which on a known word is worth proposing: difflib's own default."""

_SEPARATORS = re.compile(r"[\s,;]+")
# What all of them look like, but for "streaming": words of small letters with hyphens between.
_SCOPE = re.compile(r"[a-z]+(-[a-z]+)+")


@dataclass(frozen=True, slots=True)
class Purpose:
    """What somebody wants to do, and the scopes that it takes."""

    word: str
    meaning: str
    scopes: tuple[str, ...]


PURPOSES = (
    Purpose(
        "playing",
        "what plays now, and on which device",
        ("user-read-playback-state", "user-read-currently-playing"),
    ),
    Purpose(
        # Which device to play on is in the state.
        "control",
        "play, pause, skip, volume, choose the device (Premium)",
        ("user-modify-playback-state", "user-read-playback-state"),
    ),
    Purpose(
        "library",
        "what I have saved, and where I stopped in an episode",
        ("user-library-read", "user-read-playback-position"),
    ),
    Purpose("library-edit", "add to it, and remove from it", ("user-library-modify",)),
    Purpose(
        "playlists",
        "my private playlists, and those I share in",
        ("playlist-read-private", "playlist-read-collaborative"),
    ),
    Purpose(
        "playlists-edit",
        "make and change playlists, and their covers",
        ("playlist-modify-private", "playlist-modify-public", "ugc-image-upload"),
    ),
    Purpose(
        "history",
        "what I play most, and what I played last",
        ("user-top-read", "user-read-recently-played"),
    ),
    Purpose("following", "whom I follow", ("user-follow-read",)),
    Purpose("following-edit", "follow and unfollow", ("user-follow-modify",)),
    Purpose(
        "profile",
        "my country, my subscription, my e-mail address",
        ("user-read-private", "user-read-email"),
    ),
    Purpose(
        # As far as a token goes. librespot and what is made of it takes none of an app of one's own
        # (librespot-org/librespot#1737).
        "sdk",
        "play in a web page or app of mine; not in librespot",
        ("streaming", "app-remote-control"),
    ),
)


ALL, NONE = "all", "none"

_NUMBERED = {str(number): purpose.scopes for number, purpose in enumerate(PURPOSES, 1)}
_NAMED = {
    ALL: SPOTIFY_SCOPES,
    NONE: (),
    **{purpose.word: purpose.scopes for purpose in PURPOSES},
    **{scope: (scope,) for scope in SPOTIFY_SCOPES},
}


def table() -> str:
    """The purposes with their numbers, a line each."""
    width = max(len(purpose.word) for purpose in PURPOSES)
    return "\n".join(
        f"{number:4}  {purpose.word:<{width}}  {purpose.meaning}"
        for number, purpose in enumerate(PURPOSES, 1)
    )


def read(answer: str) -> tuple[str, ...]:
    """The scopes of an answer, each once: numbers and words of purposes, scopes, ``all``, ``none``.

    Raises:
        Wrong: a word is nothing of that; with the nearest one that is.
    """
    words = [word for word in _SEPARATORS.split(answer.lower()) if word]
    return tuple(dict.fromkeys(scope for word in words for scope in _scopes(word)))


def _scopes(word: str) -> tuple[str, ...]:
    if word in _NUMBERED:
        return _NUMBERED[word]
    if word in _NAMED:
        return _NAMED[word]
    if word.isdecimal():
        raise Wrong(f"there is no number {show(word)}", f"they go from 1 to {len(PURPOSES)}")
    formed = _SCOPE.fullmatch(word) is not None
    near = difflib.get_close_matches(word, _NAMED, n=1, cutoff=MISTYPED if formed else RESEMBLING)
    if formed and not near:
        return (word,)
    raise Wrong(
        f"{show(word)} is no purpose and no scope",
        f"did you mean {near[0]}?" if near else "numbers and words are those of the list",
    )
