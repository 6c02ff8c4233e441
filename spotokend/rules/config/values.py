"""The configuration as frozen, fully checked values. Below this nobody asks whether a key is there."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from types import MappingProxyType

from spotokend.rules.account import Rotation
from spotokend.rules.oauth import Flow
from spotokend.rules.schedule import DEFAULT_TIMING, GRANT_LIFE, Timing
from spotokend.rules.secret import Secret

AUTHORIZE_URL = "https://accounts.spotify.com/authorize"
TOKEN_URL = "https://accounts.spotify.com/api/token"  # noqa: S105 - an address, not a password
API_URL = "https://api.spotify.com"
IDENTITY_URL = "https://api.spotify.com/v1/me"
REDIRECT_URI = "http://127.0.0.1/callback"
"""Without a port: such a loopback literal, registered so, accepts any port (RFC 8252, 7.3)."""

DEFAULT_ACCOUNT = "main"
"""What ``login`` calls an account when nothing else names one."""

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,59}")
"""What an account or a client may be called (``fullmatch``): names become file names."""

SPOTIFY_SCOPES = (
    "app-remote-control",
    "playlist-modify-private",
    "playlist-modify-public",
    "playlist-read-collaborative",
    "playlist-read-private",
    "streaming",
    "ugc-image-upload",
    "user-follow-modify",
    "user-follow-read",
    "user-library-modify",
    "user-library-read",
    "user-modify-playback-state",
    "user-read-currently-playing",
    "user-read-email",
    "user-read-playback-position",
    "user-read-playback-state",
    "user-read-private",
    "user-read-recently-played",
    "user-top-read",
)
"""Those of Spotify's OpenAPI description, 2026-05. The list grows: another one is passed on."""


class SourceKind(StrEnum):
    """Where a client secret comes from."""

    FILE = "file"
    COMMAND = "command"
    CREDENTIAL = "credential"
    KEYRING = "keyring"
    ENV = "env"
    LITERAL = "literal"
    """In the configuration file itself: warned about loudly."""


@dataclass(frozen=True, slots=True)
class SecretSource:
    """A client secret's source; its value is read by an adapter when it is needed."""

    kind: SourceKind
    value: str | tuple[str, ...] | Secret
    """A path; a credential's, an item's or a variable's name; a command's words; the secret."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DaemonConfig:
    """``[daemon]``"""

    socket: str | None = None
    """None: the default path, or ``$SPOTOKEND_SOCK``."""
    log_level: str = "info"
    log_format: str = "auto"
    """``auto`` (text on a terminal, else JSON), ``text`` or ``json``."""
    default_account: str | None = None


class KeyKind(StrEnum):
    """Where the store's key comes from."""

    FILE = "file"
    CREDENTIAL = "credential"
    KEYRING = "keyring"
    PASSPHRASE = "passphrase"  # noqa: S105 - a word of the configuration


@dataclass(frozen=True, slots=True)
class KeySource:
    """The source of the store's key; an adapter of its own for each kind."""

    kind: KeyKind
    value: str | tuple[str, ...]
    """A path; the name of a credential, of the store in the keyring; what asks for a passphrase:
    ``pinentry``, ``systemd``, or the words of a command."""

    def __str__(self) -> str:
        words = self.value if isinstance(self.value, str) else self.value[0]
        return words if self.kind is KeyKind.FILE else f"{self.kind} {words}"


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreConfig:
    """``[store]``"""

    backend: str = "sqlite"
    path: str | None = None
    """The store's file; None: ``store.sqlite3`` in the state folder."""
    key: KeySource | None = None
    """None: the file ``key`` beside the store."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientConfig:
    """``[clients.NAME]``: one registration at an authorization server."""

    name: str
    client_id: str
    flow: Flow = Flow.PKCE
    client_secret: SecretSource | None = None
    redirect_uri: str = REDIRECT_URI
    scopes: tuple[str, ...] = ()
    authorize_url: str = AUTHORIZE_URL
    token_url: str = TOKEN_URL
    api_url: str | None = API_URL
    """What ``spotokend api`` talks to; None: another server's tokens have no known API."""
    identity_url: str | None = IDENTITY_URL
    """Asked who logged in; None: nobody can say."""
    rotation: Rotation = Rotation.AUTO
    rotation_grace: float = 10.0
    """Seconds, counted from the sending of the request."""
    grant_life: float = GRANT_LIFE
    """Seconds from the user's consent; infinite where grants don't die."""
    proactive: bool = True
    """``schedule = "proactive"``: ahead of the deadline; else (``on_demand``) when somebody asks."""

    @property
    def fingerprint(self) -> str:
        """What decides where a refresh token goes: a row of another fingerprint is never sent.

        Client id, token endpoint, and the flow, which decides the client authentication and keeps
        a client's own tokens apart from a user's grant. Not the secret, which its owner may renew.
        """
        text = f"{self.client_id}\n{self.token_url}\n{self.flow}"
        return hashlib.sha256(text.encode()).hexdigest()[:32]


@dataclass(frozen=True, slots=True, kw_only=True)
class AccountConfig:
    """``[accounts.NAME]``: what differs from the client's defaults."""

    name: str
    client: str
    scopes: tuple[str, ...] | None = None
    """None: the client's."""
    user: str | None = None
    """The provider's user id that must log in here; None: whoever does first."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HookConfig:
    """``[hooks.NAME]``: what ``spotokend hooks`` starts when a notice comes."""

    name: str
    command: tuple[str, ...] | None = None
    """The program and its arguments; None: the desktop is told."""
    desktop: bool = False
    kinds: tuple[str, ...] | None = None
    """None: all that are told, which leaves out those of level debug."""
    accounts: tuple[str, ...] | None = None
    """None: every account, and what concerns none."""
    token: bool = False
    """The account's access token is a line on the command's standard input."""
    timeout: float = 30.0
    """Seconds that it may run."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """The whole configuration."""

    daemon: DaemonConfig = DaemonConfig()
    store: StoreConfig = StoreConfig()
    timing: Timing = DEFAULT_TIMING
    clients: Mapping[str, ClientConfig] = field(default_factory=lambda: MappingProxyType({}))
    accounts: Mapping[str, AccountConfig] = field(default_factory=lambda: MappingProxyType({}))
    hooks: Mapping[str, HookConfig] = field(default_factory=lambda: MappingProxyType({}))
    """Not the daemon's business: ``spotokend hooks`` reads the same file."""
    warnings: tuple[str, ...] = ()
    """What is allowed and still worth saying: unknown scopes, a secret in the file."""
