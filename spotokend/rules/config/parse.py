"""The text of the configuration file → a :class:`Config` that is right, or every mistake in it.

Pure. Nothing is guessed and nothing ignored: a key that isn't understood is an error, since a typing
mistake that is passed over in silence shows itself months later. What is legal and still unwise
is a warning.
"""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from types import MappingProxyType
from typing import Any

from spotokend.errors import Misconfigured
from spotokend.rules.oauth import Flow
from spotokend.rules.schedule import Timing

from . import keys, readers
from .problems import Path, Problems, check_again, dotted
from .readers import did_you_mean, either, show
from .values import (
    REDIRECT_URI,
    SPOTIFY_SCOPES,
    TOKEN_URL,
    AccountConfig,
    ClientConfig,
    Config,
    DaemonConfig,
    HookConfig,
    SourceKind,
    StoreConfig,
)

DASHBOARD = "https://developer.spotify.com/dashboard"
SPOTIFY_CLIENT_ID = re.compile(r"[0-9a-f]{32}")
"""What all of Spotify's look like (``fullmatch``); its client secrets do, too."""

_PLACE = re.compile(r" \((at (?:line (\d+), column \d+|end of document))\)$")
_LISTED = 60
"""Characters of an array on one line: with its key, and shown indented, within 80 columns."""


def parse(text: str, *, source: str = "config.toml") -> Config:
    """The configuration that the text means; ``source`` names it in messages.

    Paths come out as they were written: what is relative, or begins with ``~/``, is for
    :mod:`spotokend.adapters.config_file` to resolve.

    :raises Misconfigured: with all mistakes at once, a line each: place, what, cure;
        ``details["problems"]`` holds maps of key, message and hint
    """
    document = _document(text, source)
    problems = Problems()
    warnings: list[str] = []
    for word in document:
        if word not in keys.SECTIONS:
            problems.add((word,), *_unknown(word, keys.SECTIONS))
    clients = {
        name: _client(name, table, problems, warnings)
        for name, table in _named("clients", document, problems)
    }
    if not clients:
        # Also what an editor leaves behind that was interrupted: a reload of an empty file must
        # not be taken for the wish to drop every client.
        problems.add(
            (),
            "there is no client",
            'add a section: [clients.spotify] with client_id = "..." below it; its value is on '
            f"your app's page: {DASHBOARD}",
        )
    accounts = {
        name: _account(name, table, clients, problems, warnings)
        for name, table in _named("accounts", document, problems)
    }
    config = Config(
        daemon=DaemonConfig(**_section("daemon", document, problems)),
        store=StoreConfig(**_section("store", document, problems)),
        timing=_timing(document, problems),
        clients=MappingProxyType(clients),
        accounts=MappingProxyType(accounts),
        hooks=MappingProxyType(
            {
                name: _hook(name, table, problems)
                for name, table in _named("hooks", document, problems)
            }
        ),
        warnings=tuple(warnings),
    )
    _check_default_account(config, problems)
    if problems:
        raise problems.misconfigured(text, source)
    return config


def starter(client_id: str, scopes: Iterable[str], redirect_uri: str = REDIRECT_URI) -> str:
    """The text of a first configuration file: Spotify with PKCE, one client, everything else default.

    :raises Misconfigured: the client id, a scope or the redirect URI isn't one
    """
    scopes = list(scopes)
    for what, reader, value in (
        ("the client id", readers.client_id, client_id),
        ("the scopes", readers.scopes, scopes),
        ("the redirect URI", readers.redirect_uri, redirect_uri),
    ):
        try:
            reader(value)
        except readers.Wrong as wrong:
            raise Misconfigured(f"{what}: {wrong.message}", hint=wrong.hint) from None
    # What JSON makes of strings of printable ASCII, TOML reads back.
    listed = json.dumps(scopes)
    if len(listed) > _LISTED:
        # With the comma after the last one, so that a line more changes no other line.
        listed = "[\n" + "".join(f"    {json.dumps(scope)},\n" for scope in scopes) + "]"
    redirect = (
        "" if redirect_uri == REDIRECT_URI else f"redirect_uri = {json.dumps(redirect_uri)}\n"
    )
    return (
        "# spotokend's configuration. Every other key has a default; all of them are\n"
        "# shown by: spotokend config show\n"
        "# After a change: spotokend config check, then spotokend reload.\n"
        "\n"
        "[clients.spotify]\n"
        f"client_id = {json.dumps(client_id)}\n"
        f"{redirect}"
        f"scopes = {listed}\n"
    )


def _document(text: str, source: str) -> dict[str, Any]:
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        words = str(error)
    except ValueError:  # from int(), of which tomllib doesn't think
        words = "a number has too many digits"
    except RecursionError:
        words = "arrays or tables nest too deep"
    # Outside of the handlers: newer Pythons keep the whole text, with its secrets, in that error.
    raise _no_toml(words, source)


def _no_toml(words: str, source: str) -> Misconfigured:
    place = _PLACE.search(words)
    what = words[: place.start()] if place else words
    where = f" {place[1]}" if place else ""
    line = f":{place[2]}" if place and place[2] else ""
    message = f"this is no TOML{where}: {what[:1].lower()}{what[1:]}"
    cure = 'text stands in quotes, key = "value", and a section begins with its name, [section]'
    return Misconfigured(
        f"{source}{line}: {message}; {cure}",
        problems=[{"key": "", "message": message, "hint": cure}],
        hint=check_again(source),
    )


def _unknown(word: str, known: Mapping[str, object]) -> tuple[str, str]:
    """What to say about a key that isn't known here, and the cure."""
    homes = [
        f"[{section}.NAME]" if section in keys.NAMED else f"[{section}]"
        for section, table in keys.SECTIONS.items()
        if word in table
    ]
    if homes:
        return "unknown key", f"it belongs below {' or '.join(homes)}"
    return f"unknown key{did_you_mean(word, known)}", f"known here: {', '.join(known)}"


def _section(section: str, document: dict[str, Any], problems: Problems) -> dict[str, Any]:
    """What could be read of ``[daemon]``, ``[store]`` or ``[timing]``."""
    return _values((section,), _table((section,), document.get(section, {}), problems), problems)


def _named(
    section: str, document: dict[str, Any], problems: Problems
) -> Iterator[tuple[str, dict[str, Any]]]:
    """The sections ``[clients.NAME]`` and their like: their names and tables."""
    for name, value in _table((section,), document.get(section, {}), problems).items():
        path = (section, name)
        try:
            readers.name(name)
        except readers.Wrong as wrong:
            problems.add(path, wrong.message, wrong.hint)
        yield name, _table(path, value, problems)


def _table(path: Path, value: object, problems: Problems) -> dict[str, Any]:
    if isinstance(value, dict):
        return value
    title = dotted(path) if path[0] not in keys.NAMED else f"{path[0]}.NAME"
    problems.add(
        path,
        f"a section belongs here, not {readers.kind_of(value)}",
        f"write [{title}], in single brackets, and its keys below that line",
    )
    return {}


def _values(path: Path, table: dict[str, Any], problems: Problems) -> dict[str, Any]:
    """Those of the table's keys that could be read; a problem for each that couldn't."""
    known, later = keys.SECTIONS[path[0]], keys.LATER.get(path[0], {})
    values: dict[str, Any] = {}
    for word, value in table.items():
        if word in known:
            try:
                values[word] = known[word].read(value)
            except readers.Wrong as wrong:
                problems.add((*path, word), wrong.message, wrong.hint)
        elif word in later:
            problems.add((*path, word), "this version doesn't have that yet", later[word])
        else:
            problems.add((*path, word), *_unknown(word, known))
    return values


def _client(
    name: str, table: dict[str, Any], problems: Problems, warnings: list[str]
) -> ClientConfig:
    path = ("clients", name)
    values = _values(path, table, problems)
    # None for one that couldn't be read: nothing that depends on it is worth saying then.
    flow = values.get("flow") if "flow" in table else Flow.PKCE
    spotify = table.get("token_url", TOKEN_URL) == TOKEN_URL
    if "client_id" not in table:
        problems.add(
            (*path, "client_id"),
            "missing: a client has an id",
            f'add client_id = "..."; its value is on your app\'s page: {DASHBOARD}',
        )
    if flow is Flow.PKCE and "client_secret" in table:
        problems.add(
            (*path, "client_secret"),
            'flow = "pkce" has no use for a client secret',
            'remove it, or write flow = "authorization_code"',
        )
    if flow in {Flow.AUTHORIZATION_CODE, Flow.CLIENT_CREDENTIALS} and "client_secret" not in table:
        problems.add(
            (*path, "client_secret"),
            f'flow = "{flow}" needs a secret, and there is none',
            'add client_secret = { file = "client-secret" }, or use flow = "pkce"'
            if flow is Flow.AUTHORIZATION_CODE
            else 'add client_secret = { file = "client-secret" }',
        )
    if flow is Flow.CLIENT_CREDENTIALS:
        for word, none in (("redirect_uri", REDIRECT_URI), ("scopes", ())):
            if values.get(word, none) != none:
                problems.add(
                    (*path, word),
                    'flow = "client_credentials" has no user who could be asked',
                    'remove it, or use flow = "pkce"',
                )
    elif flow is not None and not spotify and "authorize_url" not in table:
        problems.add(
            (*path, "authorize_url"),
            "token_url is another server's than Spotify's, and this is missing",
            'add authorize_url = "https://...", that server\'s address for logins',
        )
    if spotify:
        warnings.extend(_spotify_warnings(path, values))
    else:
        # Another server's token must not be sent to Spotify, not even to ask whose it is.
        values.setdefault("api_url", None)
        values.setdefault("identity_url", None)
    secret = values.get("client_secret")
    if secret is not None and secret.kind is SourceKind.LITERAL:
        warnings.append(
            f"{dotted((*path, 'client_secret'))}: THE SECRET STANDS IN THE CONFIGURATION FILE, and "
            "so in its backups and in whatever the file is copied to; better a file of its own, "
            'readable by you alone: client_secret = { file = "client-secret" }'
        )
    proactive = values.pop("schedule", True)
    # A client without an id is thrown away with the problem that was noted.
    return ClientConfig(name=name, proactive=proactive, **{"client_id": "", **values})


def _spotify_warnings(path: Path, values: dict[str, Any]) -> Iterator[str]:
    identifier = values.get("client_id")
    if identifier is not None and not SPOTIFY_CLIENT_ID.fullmatch(identifier):
        yield (
            f"{dotted((*path, 'client_id'))}: Spotify's client ids are 32 digits and letters a to f; "
            f"copy it from your app's page: {DASHBOARD}"
        )
    for scope in values.get("scopes", ()):
        if scope not in SPOTIFY_SCOPES:
            yield (
                f"{dotted((*path, 'scopes'))}: {show(scope)} is no scope of Spotify's that this "
                f"version knows{did_you_mean(scope, SPOTIFY_SCOPES)}; it is asked for all the same"
            )


def _account(
    name: str,
    table: dict[str, Any],
    clients: Mapping[str, ClientConfig],
    problems: Problems,
    warnings: list[str],
) -> AccountConfig:
    path = ("accounts", name)
    values = _values(path, table, problems)
    if "client" not in table and len(clients) == 1:
        values["client"] = next(iter(clients))
    elif "client" not in table and clients:
        problems.add(
            (*path, "client"),
            "there are several clients, and nothing says which one this account is of",
            f'add client = "NAME", which is one of {either(clients)}',
        )
    client = clients.get(values.get("client", ""))
    if client is None and clients and "client" in values:
        problems.add(
            (*path, "client"),
            f"there is no client {show(values['client'])}{did_you_mean(values['client'], clients)}",
            f"use {either(clients)}, or add [{dotted(('clients', values['client']))}]",
        )
    if client is not None and client.flow is Flow.CLIENT_CREDENTIALS:
        for word in ("scopes", "user"):
            if word in table:
                problems.add(
                    (*path, word),
                    f'its client {show(client.name)} has flow = "client_credentials", without a user',
                    "remove it, or name another client",
                )
    elif client is not None and client.token_url == TOKEN_URL:
        warnings.extend(_spotify_warnings(path, values))
    return AccountConfig(name=name, **{"client": "", **values})


def _hook(name: str, table: dict[str, Any], problems: Problems) -> HookConfig:
    path = ("hooks", name)
    values = _values(path, table, problems)
    if "command" not in table and not table.get("desktop"):
        problems.add(
            path,
            "nothing says what it does",
            'add command = ["program", "argument"], or desktop = true',
        )
    if values.get("desktop"):
        for word, why in (
            ("command", "desktop = true has a command of its own, notify-send"),
            ("token", "a notification on the desktop has no place for a token"),
        ):
            if table.get(word):
                problems.add((*path, word), why, "remove it, or desktop = true")
    return HookConfig(name=name, **values)


def _timing(document: dict[str, Any], problems: Problems) -> Timing:
    mistakes = len(problems)
    timing = Timing(**_section("timing", document, problems))
    if len(problems) > mistakes:
        return timing  # a default stands where a value couldn't be read: they needn't fit
    if not timing.due_from < timing.due_to:
        problems.add(
            ("timing", "due_from"),
            f"{timing.due_from:g} isn't below due_to, which is {timing.due_to:g}",
            "a refresh is due between the two: due_from = 0.70 and due_to = 0.80",
        )
    if not timing.due_to < 1 - timing.floor_share:
        problems.add(
            ("timing", "due_to"),
            f"{timing.due_to:g} of the life is later than the token is served, which is until "
            f"floor_share, {timing.floor_share:g}, is left of it",
            f"write less than {1 - timing.floor_share:g}",
        )
    if timing.backoff_base > timing.backoff_cap:
        problems.add(
            ("timing", "backoff_base"),
            f"{timing.backoff_base:g} s is more than backoff_cap, {timing.backoff_cap:g} s",
            "write no more than that, or raise backoff_cap",
        )
    return timing


def _check_default_account(config: Config, problems: Problems) -> None:
    """With one client any account may be logged in without a section; with several it has one."""
    name = config.daemon.default_account
    if name is None or name in config.accounts or len(config.clients) < 2:
        return
    problems.add(
        ("daemon", "default_account"),
        f"there is no account {show(name)}{did_you_mean(name, config.accounts)}",
        f"add [{dotted(('accounts', name))}], with client set to one of {either(config.clients)}",
    )
