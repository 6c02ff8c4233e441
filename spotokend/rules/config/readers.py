"""One value of the file into one checked value of the program, or :class:`Wrong` with the cure.

A reader takes whatever TOML can hold. It never repeats a value that may be a secret: what stands
under ``client_secret``, and an address with a password in it, are described and not shown.
"""

from __future__ import annotations

import difflib
import ipaddress
import json
import math
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeGuard
from urllib.parse import SplitResult, urlsplit

from spotokend.rules.secret import Secret

from .values import NAME, SecretSource, SourceKind

Reader = Callable[[object], Any]

_SHOWN = 60
_UNITS = {"d": 86_400, "h": 3_600, "m": 60, "s": 1}
_DURATION = re.compile(r"([0-9]+(?:\.[0-9]+)?)\s*([smhd])")
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
# RFC 6749, appendix A.1 and A.4: VSCHAR, and what one scope is made of.
_VSCHARS = re.compile(r"[\x20-\x7e]+")
_SCOPE = re.compile(r"[\x21\x23-\x5b\x5d-\x7e]+")
# RFC 3986 has no other characters. urlsplit would drop some of them without a word.
_URL = re.compile(r"[\x21-\x7e]+")


class Wrong(Exception):
    """A value that can't be used: what is the matter (no secret in it), and the cure."""

    def __init__(self, message: str, hint: str) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


def show(word: str) -> str:
    """A word of the file for a message: quoted, on one line, of bearable length.

    Letters beyond ASCII are escaped, so that a look-alike from another alphabet shows itself.
    """
    return json.dumps(word if len(word) <= _SHOWN else word[:_SHOWN] + "...")


def did_you_mean(word: str, options: Iterable[str]) -> str:
    """`` (did you mean "x"?)`` with the nearest of the options, or nothing if none is near."""
    near = difflib.get_close_matches(word[:_SHOWN].lower(), list(options), n=1)
    return f" (did you mean {show(near[0])}?)" if near else ""


def either(options: Iterable[str]) -> str:
    """``"a", "b" or "c"``."""
    *others, last = map(show, options)
    return f"{', '.join(others)} or {last}" if others else last


def kind_of(value: object) -> str:
    """What TOML calls a value of this type."""
    kinds: tuple[tuple[type, str], ...] = (
        (str, "a string"),
        (bool, "a boolean"),  # before int, which it is a kind of
        (int, "an integer"),
        (float, "a float"),
        (list, "an array"),
        (dict, "a table"),
    )
    return next((words for kind, words in kinds if isinstance(value, kind)), "a date or a time")


def text(value: object) -> str:
    """A string with something in it that can be seen."""
    if not isinstance(value, str):
        raise Wrong(f"a string belongs here, not {kind_of(value)}", 'write it in quotes: "..."')
    if not value.strip():
        raise Wrong("is empty", "fill it in, or remove the line")
    if not value.isprintable() or value != value.strip():
        raise Wrong(
            "has control characters in it, or white space around it", "remove what can't be seen"
        )
    return value


def client_id(value: object) -> str:
    """A client id: RFC 6749, appendix A.1."""
    if value == "":
        raise Wrong("is empty", "copy the client id from your app's page in the dashboard")
    identifier = text(value)
    if not _VSCHARS.fullmatch(identifier):
        raise Wrong(
            "has characters that no client id has",
            "copy it again from your app's page in the dashboard",
        )
    return identifier


def name(value: object) -> str:
    """The name of an account or a client."""
    word = text(value)
    if not NAME.fullmatch(word):
        raise Wrong(
            f"{show(word)} can't be a name",
            "letters, digits, dots, hyphens and underscores, a letter or digit first, at most 60",
        )
    return word


def choice(options: Mapping[str, object]) -> Reader:
    """A reader for one of the words, which gives what the word stands for."""

    def read(value: object) -> object:
        word = text(value)
        if word not in options:
            raise Wrong(
                f"{show(word)} is unknown{did_you_mean(word, options)}", f"use {either(options)}"
            )
        return options[word]

    return read


def backend(value: object) -> str:
    """The kind of store."""
    if value == "postgres":
        raise Wrong("this version has no PostgreSQL store yet", 'what works is backend = "sqlite"')
    word: str = choice({"sqlite": "sqlite"})(value)
    return word


def number(low: float, high: float) -> Reader:
    """A reader for a number from ``low`` to ``high``; gives a float."""

    def read(value: object) -> float:
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise Wrong(f"a number belongs here, not {kind_of(value)}", "write it without quotes")
        # NaN fails both. The value isn't shown: an int may have too many digits to print.
        if not low <= value <= high:
            raise Wrong("is out of range", f"write a number from {low:g} to {high:g}")
        return float(value)

    return read


def whole(low: int, high: int) -> Reader:
    """A reader for a whole number from ``low`` to ``high``."""

    def read(value: object) -> int:
        if isinstance(value, bool) or not isinstance(value, int):
            raise Wrong(f"a whole number belongs here, not {kind_of(value)}", "such as 8")
        if not low <= value <= high:
            raise Wrong("is out of range", f"write a number from {low} to {high}")
        return value

    return read


def duration(low: float, high: float, *, endless: bool = False) -> Reader:
    """A reader for a time: a number of seconds, or such as ``"90s"``, ``"12h"``, ``"180d"``.

    Gives seconds; infinity for ``"none"``, where ``endless`` allows that.
    """
    forms = 'seconds, or such as "30s", "10m", "12h", "180d"' + (', or "none"' if endless else "")

    def read(value: object) -> float:
        if endless and value == "none":
            return math.inf
        if isinstance(value, str) and (match := _DURATION.fullmatch(value)):
            value = float(match[1]) * _UNITS[match[2]]
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise Wrong("a time belongs here", f"write {forms}")
        if not low <= value <= high:
            raise Wrong("is out of range", f"write a time from {_span(low)} to {_span(high)}")
        return float(value)

    return read


def _span(seconds: float) -> str:
    unit = next((unit for unit, size in _UNITS.items() if seconds and seconds % size == 0), "s")
    return f"{seconds / _UNITS[unit]:g}{unit}"


def scopes(value: object) -> tuple[str, ...]:
    """An array of scopes, or one string with spaces between them; each once, in their order."""
    if isinstance(value, str):
        words: list[object] = list(value.split())
        if "," in value:
            raise Wrong(
                "scopes are separated by spaces, not by commas",
                "write an array: [" + ", ".join(map(show, re.findall(r"[^\s,]+", value))) + "]",
            )
    elif isinstance(value, list):
        words = value
    else:
        raise Wrong(
            f"an array of scopes belongs here, not {kind_of(value)}",
            'such as ["user-read-private", "user-top-read"]',
        )
    found: dict[str, None] = {}
    for word in words:
        if not isinstance(word, str) or not _SCOPE.fullmatch(word):
            shown = show(word) if isinstance(word, str) else kind_of(word)
            raise Wrong(f"{shown} can't be a scope", "one scope an element, without any spaces")
        found[word] = None
    return tuple(found)


def file(value: object) -> str:
    """A path. Where a relative one starts is for whoever knows where the file is."""
    path = text(value)
    if path.startswith("~") and not path.startswith("~/"):
        raise Wrong("of paths with a ~ only ~/ is understood", "write the whole path")
    return path


def endpoint(value: object) -> str:
    """An address that secrets are sent to: HTTPS, or plain HTTP to a loopback literal."""
    url, parts = _url(value)
    if parts.scheme not in {"http", "https"}:
        raise Wrong(f"{show(url)} is no web address", "write https://...")
    if parts.scheme == "http" and not _is_loopback(parts):
        # RFC 6749, 3.1 and 3.2: TLS is required. A name, localhost too, is whatever a resolver
        # says it is.
        raise Wrong(
            f"{show(url)} would send secrets unencrypted",
            "write https://..., or http:// with 127.0.0.1 or [::1] for a server on this machine",
        )
    return url


def identity(value: object) -> str | None:
    """As :func:`endpoint`; ``"none"`` where the server can't say who logged in."""
    return None if value == "none" else endpoint(value)


def redirect_uri(value: object) -> str:
    """Where the browser comes back to: a loopback literal, or HTTPS for pasting."""
    url, parts = _url(value)
    example = "http://127.0.0.1:8888/callback"
    host = parts.hostname or ""
    if host == "localhost" or host.endswith(".localhost"):
        raise Wrong(
            f'{show(url)}: Spotify refuses "localhost" as a redirect',
            f"use 127.0.0.1, such as {example}, here and in the dashboard",
        )
    if parts.scheme == "http" and not _is_loopback(parts):
        raise Wrong(
            f"{show(url)}: a redirect over plain HTTP must stay on this machine",
            f"use 127.0.0.1 or [::1], such as {example}, or an https:// address",
        )
    if parts.scheme not in {"http", "https"}:
        raise Wrong(f"{show(url)}: the redirect must be http or https", f"such as {example}")
    return url


def _url(value: object) -> tuple[str, SplitResult]:
    url = text(value)
    advice = "write it whole, such as https://accounts.example/path, and percent-encode the rest"
    if not _URL.fullmatch(url):
        raise Wrong(f"{show(url)} has characters that no URL has", advice)
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:  # a bracket that doesn't close, a port that is none
        raise Wrong(f"{show(url)} is no URL", advice) from None
    if "@" in parts.netloc:
        raise Wrong("holds a user's name or password", "remove everything before the @, and the @")
    if not parts.hostname or port == 0:
        raise Wrong(f"{show(url)} is no URL with a host", advice)
    if "#" in url:
        # RFC 6749, 3.1, 3.1.2 and 3.2: none of these has one.
        raise Wrong(f"{show(url)} has a fragment", "remove the # and what follows it")
    return url, parts


def _is_loopback(parts: SplitResult) -> bool:
    try:
        return ipaddress.ip_address(parts.hostname or "").is_loopback
    except ValueError:
        return False


def secret_source(value: object) -> SecretSource:
    """Where the client secret comes from. What stands here is never repeated."""
    cure = (
        'name one source, such as { file = "client-secret" } or { command = ["pass", "spotify"] }'
    )
    if isinstance(value, str):
        if not value:
            raise Wrong("is empty", cure)
        return SecretSource(SourceKind.LITERAL, Secret(value))
    if not isinstance(value, dict):
        raise Wrong(f"a table belongs here, not {kind_of(value)}", cure)
    word, inner = only_source(value, _SOURCES, "a secret", cure)
    return SecretSource(SourceKind(word), inner)


def only_source(
    table: Mapping[str, object], readers: Mapping[str, Reader], of: str, cure: str
) -> tuple[str, Any]:
    """The one source that the table names, and what is read of it; ``of`` what it is a source."""
    for word in table:
        if word not in readers:
            raise Wrong(
                f"{show(word)} is no source of {of}{did_you_mean(word, readers)}",
                f"use {either(readers)}",
            )
    if len(table) != 1:
        raise Wrong("names more than one source" if table else "names no source", cure)
    [(word, inner)] = table.items()
    try:
        return word, readers[word](inner)
    except Wrong as wrong:
        raise Wrong(f"{word}: {wrong.message}", wrong.hint) from None


def is_command(value: object) -> TypeGuard[list[str]]:
    """Whether it is a program and its arguments."""
    return (
        isinstance(value, list)
        and bool(value)
        and all(isinstance(word, str) and "\0" not in word for word in value)
        and bool(value[0].strip())
    )


def _command(value: object) -> tuple[str, ...]:
    if not is_command(value):
        raise Wrong(
            "the program and its arguments belong here, as an array of strings",
            'such as ["pass", "show", "spotify"]; no shell reads it',
        )
    return tuple(value)


def credential(value: object) -> str:
    """The name of a credential of systemd."""
    found = text(value)
    if "/" in found or found in {".", ".."}:
        raise Wrong("the name of a credential has no slash", "write the name of LoadCredential=")
    return found


def _item(value: object) -> str:
    item = text(value)
    if not NAME.fullmatch(item):
        # Not shown: a secret that was put here by mistake looks like this.
        raise Wrong("the name of the keyring's item belongs here", 'such as "spotify"')
    return item


def _variable(value: object) -> str:
    variable = text(value)
    if not _VARIABLE.fullmatch(variable):
        # Not shown: a secret that was put here by mistake looks like this.
        raise Wrong(
            "the name of an environment variable belongs here, not its value",
            "such as SPOTIFY_CLIENT_SECRET",
        )
    return variable


_SOURCES: Mapping[str, Reader] = {
    "file": file,
    "command": _command,
    "credential": credential,
    "keyring": _item,
    "env": _variable,
}
