"""The table of methods: their arguments, the right that each needs, and one line of documentation.

Data, from which the server checks calls, ``hello`` lists the methods, and the documentation is
made. :func:`check` turns the map that came over the socket into arguments that nobody has to look
at again, or says which one is wrong, how, and what is allowed. It never repeats a value, as an
address or a code is no matter for an error message; but for a misspelt source of a key.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from enum import StrEnum
from types import MappingProxyType

from spotokend.errors import BadRequest, UnknownMethod

from .config.key_reader import writable_source
from .config.readers import Wrong
from .config.values import KeySource

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,59}")
"""Names of accounts and clients: they are parts of paths, of environment files, of URLs."""

TEXT_LIMIT = 8192
"""Characters of a text: longer than any redirect that a browser's address bar hands over."""

PAGE = 50
"""Accounts on one page of ``status``, at most and by default."""


class Right(StrEnum):
    """What a program must be allowed to do with the account that it names."""

    READ = "read"
    REFRESH = "refresh"
    ADMINISTER = "administer"


class Unsuitable(ValueError):
    """A value that an argument can't take; the text says what it is instead."""


@dataclass(frozen=True, slots=True)
class Kind:
    """What an argument can be: in words, and as a function that returns it clean."""

    allowed: str
    clean: Callable[[object], object]


@dataclass(frozen=True, slots=True)
class Argument:
    name: str
    kind: Kind
    meaning: str
    required: bool = False


class Method:
    """One method: ``name``, ``right``, a line of ``documentation``, and ``arguments`` by name."""

    __slots__ = ("arguments", "documentation", "name", "required", "right")

    def __init__(self, name: str, right: Right, documentation: str, *arguments: Argument) -> None:
        self.name = name
        self.right = right
        self.documentation = documentation
        self.arguments = {argument.name: argument for argument in arguments}
        self.required = tuple(argument for argument in arguments if argument.required)


def check(method: str, arguments: Mapping[object, object]) -> dict[str, object]:
    """The arguments of ``method``, clean: only those that it knows, each of its type.

    Keys and text may come as bin, as old MessagePack libraries send them; nil counts as absent.

    Raises:
        UnknownMethod: with the nearest name and all names in the hint.
        BadRequest: ``details["argument"]`` names the argument.
    """
    known = METHODS.get(method)
    if known is None:
        raise UnknownMethod(f"there is no method {_shown(method)}", hint=_nearest(method))
    clean: dict[str, object] = {}
    for key, value in arguments.items():
        name = key if isinstance(key, str) else _decoded(known, key)
        argument = known.arguments.get(name)
        if argument is not None and value is not None:
            try:
                clean[name] = argument.kind.clean(value)
            except Unsuitable as problem:
                raise _bad(known, argument, f"is {problem}") from None
    for argument in known.required:
        if argument.name not in clean:
            raise _bad(known, argument, "is missing")
    return clean


def _decoded(method: Method, key: object) -> str:
    try:
        return _text(key)
    except Unsuitable as problem:
        raise BadRequest(
            f"{method.name}: the name of an argument is {problem}; a string is expected",
            hint=_usage(method),
        ) from None


def _bad(method: Method, argument: Argument, problem: str) -> BadRequest:
    return BadRequest(
        f"{method.name}: {argument.name} {problem}; {argument.kind.allowed} is expected",
        argument=argument.name,
        hint=_usage(method),
    )


def _usage(method: Method) -> str:
    if not method.arguments:
        return f"{method.name} takes no arguments"
    names = ", ".join(
        argument.name if argument.required else f"{argument.name}?"
        for argument in method.arguments.values()
    )
    return f"arguments of {method.name}: {names}"


def _nearest(method: str) -> str:
    every = f"methods: {', '.join(METHODS)}"
    near = get_close_matches(method[:60], METHODS, n=1)
    return f"did you mean {near[0]}? {every}" if near else every


def _shown(text: str) -> str:
    """Short, and harmless to a terminal: this came from outside."""
    return ascii(text if len(text) <= 60 else f"{text[:57]}...")


def _what(value: object) -> str:
    match value:
        case bool():
            return "a boolean"
        case int():
            return "an integer"
        case float():
            return "a number"
        case str():
            return "a string"
        case bytes():
            return "binary data that isn't UTF-8"
        case list():
            return "an array"
        case dict():
            return "a map"
    return "nil"


def _text(value: object) -> str:
    if isinstance(value, bytes):
        try:
            value = value.decode()
        except UnicodeDecodeError:
            raise Unsuitable(_what(value)) from None
    if not isinstance(value, str):
        raise Unsuitable(_what(value))
    if not value:
        raise Unsuitable("empty")
    if len(value) > TEXT_LIMIT:
        raise Unsuitable(f"{len(value)} characters long")
    return value


def _name(value: object) -> str:
    text = _text(value)
    if not NAME.fullmatch(text):
        raise Unsuitable("no valid name")
    return text


def _array_of(item: Callable[[object], str]) -> Callable[[object], tuple[str, ...]]:
    def clean(value: object) -> tuple[str, ...]:
        if not isinstance(value, list):
            raise Unsuitable(_what(value))
        try:
            return tuple(item(element) for element in value)
        except Unsuitable as problem:
            raise Unsuitable(f"an array in which one element is {problem}") from None

    return clean


def _seconds(value: object) -> float:
    # bool is an int to Python; to the caller it is a mistake.
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise Unsuitable(_what(value))
    if not math.isfinite(value):
        raise Unsuitable("not finite")
    if value < 0:
        raise Unsuitable("negative")
    return float(value)


def _integer(low: int, high: int) -> Callable[[object], int]:
    def clean(value: object) -> int:
        if isinstance(value, bool) or not isinstance(value, int):
            raise Unsuitable(_what(value))
        if value < low:
            raise Unsuitable("too small")
        if value > high:
            raise Unsuitable("too large")
        return value

    return clean


def _boolean(value: object) -> bool:
    if not isinstance(value, bool):
        raise Unsuitable(_what(value))
    return value


def _key_source(value: object) -> KeySource:
    try:
        return writable_source(_text(value))
    except Wrong as wrong:
        raise Unsuitable(f"no place for a key: {wrong.message} ({wrong.hint})") from None


_NAME_FORM = "1 to 60 letters, digits, '.', '_' or '-', a letter or a digit first"

ACCOUNT_NAME = Kind(f"a name ({_NAME_FORM})", _name)
ACCOUNT_NAMES = Kind(f"an array of names ({_NAME_FORM})", _array_of(_name))
TEXT = Kind(f"a string of 1 to {TEXT_LIMIT} characters", _text)
TEXTS = Kind(f"an array of strings of 1 to {TEXT_LIMIT} characters", _array_of(_text))
SECONDS = Kind("a finite number of seconds from 0 on", _seconds)
# To the largest integer of MessagePack, which is no limit of its own.
GENERATION = Kind("an integer from 0 on", _integer(0, 2**64 - 1))
PAGE_SIZE = Kind(f"an integer from 1 to {PAGE}", _integer(1, PAGE))
BOOLEAN = Kind("true or false", _boolean)
KEY_SOURCE = Kind("a string such as keyring=main or file=/PATH", _key_source)

_ACCOUNT = Argument("account", ACCOUNT_NAME, "the account; by default the configured or only one")
_SCOPES = Argument("scopes", TEXTS, "scopes that the token must have")

METHODS: Mapping[str, Method] = MappingProxyType(
    {
        method.name: method
        for method in (
            Method(
                "hello",
                Right.READ,
                "Who answers, the version of the protocol, and the names of the methods.",
                Argument("client", TEXT, "what the program calls itself"),
            ),
            Method(
                "token",
                Right.READ,
                "A token that has at least min_ttl left; refreshed first where that takes it.",
                _ACCOUNT,
                Argument("min_ttl", SECONDS, "the least time to live, in seconds"),
                _SCOPES,
            ),
            Method(
                "reject",
                Right.REFRESH,
                "The API refused the token of this generation: a token of a later one.",
                _ACCOUNT,
                Argument("generation", GENERATION, "of the refused token", required=True),
            ),
            Method(
                "refresh",
                Right.REFRESH,
                "A token, after a refresh that is forced.",
                _ACCOUNT,
            ),
            Method(
                "watch",
                Right.READ,
                "The present state; then notifications token, state, notice and resync.",
                Argument("accounts", ACCOUNT_NAMES, "those to hear of; by default all"),
                Argument("tokens", BOOLEAN, "whether tokens are sent; by default true"),
            ),
            Method(
                "status",
                Right.READ,
                "The daemon, its clients and a page of its accounts; without secrets.",
                _ACCOUNT,
                Argument("after", ACCOUNT_NAME, "the last account of the page before"),
                Argument("limit", PAGE_SIZE, "accounts on the page"),
            ),
            Method(
                "login_start",
                Right.ADMINISTER,
                "Begins a login: the URL to open, and the redirect to hand to login_finish.",
                _ACCOUNT,
                Argument("client", ACCOUNT_NAME, "the client of a new account"),
                Argument("scopes", TEXTS, "scopes to ask for besides the granted ones"),
                Argument("redirect_uri", TEXT, "the loopback address with its bound port"),
            ),
            Method(
                "login_finish",
                Right.ADMINISTER,
                "Ends a login with the address to which the browser was redirected.",
                Argument("login_id", TEXT, "as login_start gave it", required=True),
                Argument("redirect_url", TEXT, "the whole address", required=True),
            ),
            Method(
                "login_cancel",
                Right.ADMINISTER,
                "Forgets a login that was begun.",
                Argument("login_id", TEXT, "as login_start gave it", required=True),
            ),
            Method(
                "logout",
                Right.ADMINISTER,
                "Deletes the grant of the account.",
                Argument("account", ACCOUNT_NAME, "the account", required=True),
            ),
            Method("reload", Right.ADMINISTER, "Reads the configuration again."),
            Method("stop", Right.ADMINISTER, "Ends the daemon, after what it must still save."),
            Method("unlock", Right.ADMINISTER, "Asks for the store's key now, if it isn't there."),
            Method(
                "rekey",
                Right.ADMINISTER,
                "Seals everything in the store with a new key; or has its key in another place too.",
                Argument("to", KEY_SOURCE, "the other place, as under [store] key"),
            ),
            Method("store_info", Right.ADMINISTER, "What the store is, and which keys it needs."),
        )
    }
)
