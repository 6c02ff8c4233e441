"""What a sandbox pretends to be: its users, its registered apps, and how it treats tokens.

Frozen and fully checked when made, from Python as well as from JSON. Every error is a ``ValueError``
that names the option and what it takes.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from enum import StrEnum
from typing import cast
from urllib.parse import urlsplit

from .checks import Check, at_least_a_second, choice, flag, seconds, text, texts

DAY = 86_400.0
LOOPBACK_LITERALS = ("127.0.0.1", "::1")

SCOPES = {
    "app-remote-control": "Control the app on your device",
    "playlist-modify-private": "Change your private playlists",
    "playlist-modify-public": "Change your public playlists",
    "playlist-read-collaborative": "See your collaborative playlists",
    "playlist-read-private": "See your private playlists",
    "streaming": "Play music and control playback on your devices",
    "ugc-image-upload": "Upload images for your playlists",
    "user-follow-modify": "Change whom you follow",
    "user-follow-read": "See whom you follow",
    "user-library-modify": "Change what is saved in your library",
    "user-library-read": "See what is saved in your library",
    "user-modify-playback-state": "Control playback on your devices",
    "user-read-currently-playing": "See what is playing now",
    "user-read-email": "See your e-mail address",
    "user-read-playback-position": "See where you are in episodes",
    "user-read-playback-state": "See what is playing, and on which device",
    "user-read-private": "See your country and your subscription",
    "user-read-recently-played": "See what you played lately",
    "user-top-read": "See what you play most",
}
"""The nineteen of the Web API's official description, and what the consent page says of each."""


class Rotation(StrEnum):
    """What a refresh does to the refresh token."""

    NEVER = "never"
    """It stays good; the answer says nothing of it. Spotify since mid-2026."""
    OPTIONAL = "optional"
    """It is replaced at every second refresh of a grant."""
    ALWAYS = "always"
    """It is replaced each time. Spotify's PKCE before that."""


class Kept(StrEnum):
    """How an answer says that the refresh token was not replaced; all of them mean *keep it*."""

    OMIT = "omit"
    NULL = "null"
    EMPTY = "empty"
    SAME = "same"


class RefreshScope(StrEnum):
    """The ``scope`` in the answer to a refresh."""

    GRANT = "grant"
    """What this consent was about."""
    ALL = "all"
    """All that the user ever granted the app, which may be more (spotify/web-api#814)."""
    OMIT = "omit"
    """None: the old value stands (RFC 6749, section 5.1)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class User:
    """Somebody with an account at the pretended provider."""

    id: str
    account_id: str
    """What accounts are linked by since May 2026; ``id`` before."""
    display_name: str

    @property
    def email(self) -> str:
        """Under a name that never resolves (RFC 2606)."""
        return f"{self.id}@example.test"


@dataclass(frozen=True, slots=True, kw_only=True)
class App:
    """A registered client. Without a secret it is public and has to use PKCE."""

    client_id: str
    name: str
    redirect_uris: tuple[str, ...]
    secret: str | None = field(default=None, repr=False)

    def accepts(self, redirect_uri: str) -> bool:
        """Exactly a registered one; a loopback literal without a port stands for all its ports."""
        return any(
            redirect_uri == registered or _same_but_for_port(registered, redirect_uri)
            for registered in self.redirect_uris
        )


def secure(redirect_uri: str) -> bool:
    """HTTPS, another app's own scheme, or plain HTTP to a loopback *literal*.

    ``http://localhost`` is none: Spotify has refused it since 2025-11-27.
    """
    try:
        parts = urlsplit(redirect_uri)
        return (
            bool(parts.scheme)
            and re.fullmatch(r"[!-~]+", redirect_uri) is not None
            and (parts.scheme != "http" or parts.hostname in LOOPBACK_LITERALS)
        )
    except ValueError:
        return False


def _same_but_for_port(registered: str, asked: str) -> bool:
    # RFC 8252, 7.3: the server MUST allow any port, since the app takes a free one when it asks.
    portless = _PORTLESS.fullmatch(registered)
    if portless is None:
        return False
    origin, rest = portless.groups()
    ported = re.fullmatch(f"{re.escape(origin)}:([0-9]{{1,5}}){re.escape(rest)}", asked)
    return ported is not None and 0 < int(ported[1]) < 65536


_PORTLESS = re.compile(r"(http://(?:127\.0\.0\.1|\[::1\]))((?:[/?].*)?)")

USERS = (
    User(id="alice", account_id="sandbox-account-alice", display_name="Alice"),
    User(id="bob", account_id="sandbox-account-bob", display_name="Bob & Bobby"),
    User(id="carol", account_id="sandbox-account-carol", display_name="Čarolína Žluťoučká 🎧"),
)
_LOOPBACK = ("http://127.0.0.1/callback", "http://[::1]/callback")
APPS = (
    App(client_id="sandbox-pkce-client", name="Sandbox PKCE app", redirect_uris=_LOOPBACK),
    App(
        client_id="sandbox-secret-client",
        name="Sandbox confidential app",
        redirect_uris=(*_LOOPBACK, "https://app.example.test/callback"),
        secret="sandbox-client-secret",  # noqa: S106 - printed in every ready configuration
    ),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """How the sandbox behaves; the defaults are Spotify's. All times in seconds.

    Raises ``ValueError`` for a value that makes no sense.
    """

    users: tuple[User, ...] = USERS
    apps: tuple[App, ...] = APPS
    access_life: float = 3600.0
    code_life: float = 600.0
    """RFC 6749, 4.1.2: at most ten minutes are recommended."""
    grant_life: float = 180 * DAY
    """From the user's consent; no refresh extends it."""
    rotation: Rotation = Rotation.NEVER
    grace: float = 0.0
    """For so long after its use a replaced refresh token still gets the newest one."""
    revoke_family: bool = True
    """A replaced refresh token that comes after its grace ends the whole grant."""
    kept: Kept = Kept.OMIT
    refresh_scope: RefreshScope = RefreshScope.GRANT
    expires_in: bool = True
    """False: answers don't tell the access token's life."""
    token_type: str = "Bearer"  # noqa: S105 - a kind of token, not one
    """Compared without case by whoever reads it (RFC 6749, 5.1): ``bearer`` occurs."""
    auto_approve: bool = False
    """The consent page agrees by itself, without being shown."""
    user: str = ""
    """Who is logged in where a request names nobody; empty: the first one."""
    unlisted: tuple[str, ...] = ()
    """Users who can log in, but aren't on the app's list: API calls get 403 (zmb3/spotify#232)."""
    scopes: tuple[str, ...] = tuple(SCOPES)
    """The scopes that exist; others get a page that never calls back (fondberg/spotcast#547)."""

    def __post_init__(self) -> None:
        for name, check in _CHECKS.items():
            # Frozen for everybody else; the check turns "always" into Rotation.ALWAYS.
            object.__setattr__(self, name, check(name, getattr(self, name)))
        known = [user.id for user in self.users]
        if not known:
            raise ValueError("users: at least one is needed")
        for name in (*self.unlisted, *((self.user,) if self.user else ())):
            if name not in known:
                raise ValueError(f"no user {name!r}; there are {', '.join(known)}")
        for app in self.apps:
            for uri in app.redirect_uris:
                if not secure(uri):
                    raise ValueError(
                        f"{app.client_id}: {uri} can't be registered; plain http is for"
                        " http://127.0.0.1 and http://[::1] alone"
                    )

    def changed(self, values: Mapping[str, object]) -> Options:
        """These options with some of :data:`CHANGEABLE` replaced. Raises ``ValueError``."""
        for name in values:
            if name not in CHANGEABLE:
                raise ValueError(f"no option {name!r}; there are {', '.join(CHANGEABLE)}")
        return replace(self, **cast("dict[str, object]", values))  # type: ignore[arg-type]  # __post_init__ checks each

    def to_json(self) -> dict[str, object]:
        """The changeable ones."""
        return {name: getattr(self, name) for name in CHANGEABLE}

    def app(self, client_id: str) -> App | None:
        """The app registered under that id."""
        return next((app for app in self.apps if app.client_id == client_id), None)

    def find_user(self, user_id: str) -> User | None:
        """The user of that id; of an empty one, who is logged in."""
        wanted = user_id or self.user or self.users[0].id
        return next((user for user in self.users if user.id == wanted), None)


_CHECKS: dict[str, Check] = {
    "access_life": at_least_a_second,
    "code_life": seconds,
    "grant_life": seconds,
    "rotation": choice(Rotation),
    "grace": seconds,
    "revoke_family": flag,
    "kept": choice(Kept),
    "refresh_scope": choice(RefreshScope),
    "expires_in": flag,
    "token_type": text,
    "auto_approve": flag,
    "user": text,
    "unlisted": texts,
    "scopes": texts,
}
CHANGEABLE = tuple(item.name for item in fields(Options) if item.name in _CHECKS)
"""What may be changed while a sandbox runs; users and apps are fixed."""
