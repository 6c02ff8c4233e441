"""Every key of the configuration file: how it is read, its default, and what it means.

One literal table, from which the parser works and against which a test holds
``config.example.toml``. The keys of a section are the fields of its class in ``values``, but for
``schedule``, which is the field ``proactive``.
"""

from __future__ import annotations

from dataclasses import dataclass

from spotokend.rules.account import Rotation
from spotokend.rules.oauth import Flow
from spotokend.rules.schedule import ABSURD_LIFE, DAY

from . import hook_readers, key_reader, readers
from .values import API_URL, AUTHORIZE_URL, IDENTITY_URL, REDIRECT_URI, TOKEN_URL


@dataclass(frozen=True, slots=True)
class Key:
    """One key of a section."""

    read: readers.Reader
    default: str | None
    """As it would be written in the file; None: it has none, or one that the meaning tells."""
    meaning: str


DAEMON = {
    "socket": Key(
        readers.file,
        None,
        "where the daemon listens; $SPOTOKEND_SOCK wins over it, and programs need that where this is set",
    ),
    "log_level": Key(
        readers.choice({word: word for word in ("debug", "info", "warning", "error")}),
        '"info"',
        "the least that is logged: debug, info, warning or error",
    ),
    "log_format": Key(
        readers.choice({word: word for word in ("auto", "text", "json")}),
        '"auto"',
        "text, json, or auto: text on a terminal, else json",
    ),
    "default_account": Key(
        readers.name, None, "the account of a program that names none; without it the only one"
    ),
}

STORE = {
    "backend": Key(readers.backend, '"sqlite"', "the kind of store; this version has sqlite"),
    "path": Key(
        readers.file,
        None,
        "the store's file; without it $XDG_STATE_HOME/spotokend/store.sqlite3",
    ),
    "key": Key(
        key_reader.key_source,
        None,
        "the store's key: its file, or a table with one of file, credential, keyring, passphrase; "
        "without it the file key, beside the store",
    ),
}

TIMING = {
    "due_from": Key(
        readers.number(0.01, 0.99), "0.70", "a refresh is due between this share of a token's life"
    ),
    "due_to": Key(readers.number(0.01, 0.99), "0.80", "and this one"),
    "floor": Key(
        readers.duration(0, DAY), "60", "a token with less left is renewed before it is served"
    ),
    "floor_share": Key(
        readers.number(0, 0.5), "0.05", "or with less left than this share of its life"
    ),
    "start_spread": Key(
        readers.duration(0, 3_600), "30", "what is overdue at start is spread over this time"
    ),
    "quiet_margin": Key(
        readers.duration(0, DAY), "600", "failures with more than this left of a token are quiet"
    ),
    "backoff_base": Key(
        readers.duration(0.01, 3_600), "1", "the first wait after a failure, doubled each time"
    ),
    "backoff_cap": Key(readers.duration(0.01, DAY), "60", "the longest wait after a failure"),
    "backoff_cap_waiting": Key(
        readers.duration(0.01, DAY), "5", "the longest wait while a program is waiting"
    ),
    "retry_after_cap": Key(
        readers.duration(1, 30 * DAY), '"1d"', "a server that asks to wait longer isn't believed"
    ),
    "in_flight": Key(readers.whole(1, 64), "8", "refreshes under way at once, a client"),
    "forced_interval": Key(
        readers.duration(0, DAY), "30", "between two forced refreshes of an account"
    ),
    "rejects_per_hour": Key(
        readers.whole(0, 60), "3", "refreshes because a program's token was refused, an account"
    ),
    "default_life": Key(
        readers.duration(1, ABSURD_LIFE), "3600", "a token's life where the server doesn't say"
    ),
    "connect_timeout": Key(readers.duration(0.1, 300), "5", "to connect to the server"),
    "send_timeout": Key(readers.duration(0.1, 300), "5", "to send the request"),
    "answer_timeout": Key(
        readers.duration(0.1, 600), "60", "for the answer; giving up early can lose a login"
    ),
    "nap": Key(
        readers.duration(0.1, 300), "30", "the longest sleep before the clocks are looked at"
    ),
    "login_timeout": Key(
        readers.duration(1, DAY), "600", "for a login, from its address to its end"
    ),
}

CLIENT = {
    "client_id": Key(readers.client_id, None, "from your app's page in the dashboard; needed"),
    "flow": Key(
        readers.choice({flow.value: flow for flow in Flow}),
        '"pkce"',
        "pkce (no secret), authorization_code (with a secret), client_credentials (no user)",
    ),
    "client_secret": Key(
        readers.secret_source,
        None,
        "where the secret is: a table with one of file, command, credential, keyring, env",
    ),
    "redirect_uri": Key(
        readers.redirect_uri,
        f'"{REDIRECT_URI}"',
        "where the browser comes back to; exactly as registered; without a port any port will do",
    ),
    "scopes": Key(readers.scopes, "[]", "what a login asks for: an array, or words in one string"),
    "authorize_url": Key(readers.endpoint, f'"{AUTHORIZE_URL}"', "where the browser logs in"),
    "token_url": Key(readers.endpoint, f'"{TOKEN_URL}"', "where tokens come from"),
    "api_url": Key(
        readers.endpoint,
        f'"{API_URL}"',
        "what `spotokend api` talks to; with another token_url there is no default",
    ),
    "identity_url": Key(
        readers.identity,
        f'"{IDENTITY_URL}"',
        'asked who logged in, or "none", which is the default with another token_url',
    ),
    "rotation": Key(
        readers.choice({rotation.value: rotation for rotation in Rotation}),
        '"auto"',
        "what the server does to a used refresh token: never, grace or strict; auto finds out",
    ),
    "rotation_grace": Key(
        readers.duration(0, DAY), "10", "with grace: how long a replaced refresh token still works"
    ),
    "grant_life": Key(
        readers.duration(60, 3_660 * DAY, endless=True),
        '"180d"',
        'from a login to its end, whatever is refreshed, or "none"',
    ),
    "schedule": Key(
        readers.choice({"proactive": True, "on_demand": False}),
        '"proactive"',
        "proactive: refresh ahead of the end; on_demand: when a program asks",
    ),
}

ACCOUNT = {
    "client": Key(
        readers.name, None, "whose login this is; needed where there are several clients"
    ),
    "scopes": Key(readers.scopes, None, "instead of the client's"),
    "user": Key(readers.text, None, "the provider's id of the user who must log in here"),
}

HOOK = {
    "command": Key(
        hook_readers.command,
        None,
        "what is started: a program and its arguments; no shell reads it",
    ),
    "desktop": Key(
        hook_readers.boolean, "false", "a notification on the desktop instead, by notify-send"
    ),
    "kinds": Key(hook_readers.kinds, None, "the notices that it is for; without it all but token"),
    "accounts": Key(hook_readers.accounts, None, "the accounts that it is for; without it all"),
    "token": Key(
        hook_readers.boolean, "false", "give the command the access token on its standard input"
    ),
    "timeout": Key(
        readers.duration(1, 300), "30", "a command that runs longer is ended, with all it started"
    ),
}

SECTIONS = {
    "daemon": DAEMON,
    "store": STORE,
    "timing": TIMING,
    "clients": CLIENT,
    "accounts": ACCOUNT,
    "hooks": HOOK,
}
"""By name."""

NAMED = frozenset({"clients", "accounts", "hooks"})
"""Those that hold a section for each, ``[clients.NAME]``."""

LATER = {
    "store": {"dsn": 'remove it; what works is backend = "sqlite" with path'},
    "clients": {"allow": "remove it; in this version every program of your user may ask"},
    "accounts": {
        "allow": "remove it; in this version every program of your user may ask",
        "sinks": "remove it; in this version programs ask: spotokend token ACCOUNT",
        "plain_socket": "remove it; in this version programs ask: spotokend token ACCOUNT",
    },
}
"""Keys of a version to come, with the cure: refused, because silence would be taken for consent."""
