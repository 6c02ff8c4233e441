"""The vectors for clients: what a server may answer, and what no client must take for an answer.

Each is what arrives after the client's first request, whose msgid is 1, a ``token`` for account
``main``. In a good answer the token is ``access-1``.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

from encoder import (
    NEVER_USED,
    NIL,
    TRUE,
    array,
    array_header,
    binary,
    float32,
    float64,
    long_text,
    map_header,
    mapping,
    nested,
    sint,
    size,
    text,
    uint,
    value,
)

Case = dict[str, Any]
Outcome = dict[str, Any]

REPLY = 4 * 1024 * 1024
TOKEN: dict[str, object] = {
    "account": "main",
    "access_token": "access-1",
    "token_type": "Bearer",
    "expires_at": 4102444800.5,  # the year 2100
    "expires_boot": 2000000000.25,
    "scope": ["user-read-email", "streaming"],
    "generation": 7,
    "grant_expires_at": 4117996800.0,
}
NO_DAEMON: Outcome = {"code": "no_daemon", "status": 4}
"""What answers is not spotokend, or goes away each time: as good as nobody."""
LATE: Outcome = {"code": "unavailable", "status": 5}
"""No answer in time."""


def cases() -> Iterator[Case]:
    """All of them."""
    yield from _forms()
    yield from _more_than_expected()
    yield from _tokens()
    yield from _errors()
    yield from _no_rpc()
    yield from _no_messagepack()
    yield from _limits()
    yield from _ends()


# --- how a case is written ------------------------------------------------------------------------


def _case(
    name: str, describes: str, data: str, expect: str, outcome: Outcome, then: str = "stays"
) -> Case:
    return {
        "name": name,
        "side": "client",
        "describes": describes,
        "input": data,
        "then": then,
        "expect": expect,
        "outcome": outcome,
    }


def _reply(result: str, msgid: str = "01") -> str:
    return array("01", msgid, NIL, result)


def _fine(name: str, describes: str, data: str) -> Case:
    return _case(name, describes, data, "none", {"access_token": "access-1"})


def _refused(name: str, describes: str, data: str, expect: str) -> Case:
    return _case(name, describes, data, expect, NO_DAEMON)


def _with(**changes: object) -> dict[str, object]:
    return TOKEN | changes


def _pairs(token: dict[str, object]) -> list[tuple[str, str]]:
    return [(value(key), value(thing)) for key, thing in token.items()]


def _replaced(key: str, encoded: str) -> str:
    """A reply whose token has for ``key`` what is encoded already."""
    return _reply(
        mapping(*((value(name), encoded if name == key else value(TOKEN[name])) for name in TOKEN))
    )


GOOD = _reply(value(TOKEN))
NOTICE = value([2, "notice", [{"kind": "recovered", "level": "info"}]])


# --- the cases ------------------------------------------------------------------------------------


def _forms() -> Iterator[Case]:
    yield _fine("token", "An answer as spotokend sends it.", GOOD)
    for form, encoded in {
        "uint8": uint(1, 8),
        "uint16": uint(1, 16),
        "uint32": uint(1, 32),
        "uint64": uint(1, 64),
        "int8": sint(1, 8),
        "int64": sint(1, 64),
    }.items():
        yield _fine(
            f"msgid-{form}",
            "The msgid may come back in another form than it was sent in.",
            _reply(value(TOKEN), encoded),
        )
    for bits in (8, 16, 32):
        yield _fine(
            f"str{bits}",
            f"Keys and texts as str {bits}.",
            _reply(
                mapping(
                    *(
                        (
                            text(key, bits),
                            text(thing, bits) if isinstance(thing, str) else value(thing),
                        )
                        for key, thing in TOKEN.items()
                    )
                )
            ),
        )
    for bits in (16, 32):
        yield _fine(
            f"array{bits}",
            f"The message and its arrays as array {bits}.",
            array(
                "01",
                "01",
                NIL,
                mapping(
                    *_pairs({key: thing for key, thing in TOKEN.items() if key != "scope"}),
                    (text("scope"), array(text("streaming"), bits=bits)),
                ),
                bits=bits,
            ),
        )
        yield _fine(
            f"map{bits}", f"The token as map {bits}.", _reply(mapping(*_pairs(TOKEN), bits=bits))
        )
    for form, encoded in {
        "float32": float32(4294967296.0),
        "uint32": uint(4102444800, 32),
        "uint64": uint(4102444800, 64),
        "int64": sint(4102444800, 64),
    }.items():
        yield _fine(
            f"expires-at-{form}",
            "Times are numbers, in whatever form.",
            _replaced("expires_at", encoded),
        )


def _more_than_expected() -> Iterator[Case]:
    yield _fine(
        "key-unknown",
        "A newer daemon may say more of a token.",
        _reply(value(_with(later={"a": [1, -1.5, None, True, b"\xff", {"b": []}]}))),
    )
    yield _fine(
        "depth-8",
        "The daemon's messages have eight levels at most; the client reads them all.",
        _reply(value(_with(later=[[[[[[]]]]]]))),
    )
    yield _fine(
        "notification-before",
        "Between request and answer notifications may come.",
        f"{NOTICE} {GOOD}",
    )
    yield _fine(
        "notification-unknown",
        "A notification that the client doesn't know is ignored.",
        f"{value([2, 'later', [{'a': [1]}]])} {GOOD}",
    )
    yield _fine(
        "notification-after", "What comes after the answer doesn't spoil it.", f"{GOOD} {NOTICE}"
    )
    yield _fine(
        "answer-to-another-before",
        "Answers come in any order: one that isn't this call's is not taken for it.",
        f"{_reply(value(_with(access_token='access-2')), '02')} {GOOD}",
    )
    yield _fine(
        "error-to-another-before",
        "Nor is an error to another request.",
        f"{value([1, 4294967295, ['busy', 'later', {}], None])} {GOOD}",
    )
    yield _fine(
        "answer-twice",
        "Of two answers to one request the first counts.",
        f"{GOOD} {_reply(value(_with(access_token='access-2')))}",
    )
    yield _fine(
        "half-a-message-after",
        "Half a message behind the answer doesn't spoil it.",
        f"{GOOD} 93 02",
    )
    for name, layer, data in (
        ("garbage", "messagepack", NEVER_USED),
        ("no-rpc", "rpc", value([0, 1, "hello", []])),
    ):
        yield _case(
            f"{name}-after",
            "An answer that has come is good, whatever then ends the connection.",
            f"{GOOD} {data}",
            layer,
            {"access_token": "access-1"},
        )


def _tokens() -> Iterator[Case]:
    for key in TOKEN:
        without = {name: thing for name, thing in TOKEN.items() if name != key}
        optional = key == "grant_expires_at"
        for how, token in (("missing", without), ("nil", _with(**{key: None}))):
            name = f"{how}-{key}".replace("_", "-")
            data = _reply(value(token))
            if optional:
                yield _fine(name, f"{key} is nil or absent where it isn't known.", data)
            else:
                yield _refused(name, f"A token has {key}.", data, "result")
    yield _fine("scope-empty", "A token may have no scope.", _reply(value(_with(scope=[]))))
    for name, key, encoded in (
        ("account-integer", "account", "07"),
        ("access-token-bin", "access_token", binary("access-1")),
        ("access-token-array", "access_token", array(text("access-1"))),
        ("token-type-integer", "token_type", "07"),
        ("expires-at-string", "expires_at", text("4102444800")),
        ("expires-at-nan", "expires_at", float64(math.nan)),
        ("expires-boot-infinite", "expires_boot", float64(math.inf)),
        ("expires-boot-true", "expires_boot", TRUE),
        ("scope-string", "scope", text("user-read-email streaming")),
        ("scope-of-integers", "scope", array("07")),
        ("scope-map", "scope", "80"),
        ("generation-string", "generation", text("7")),
        ("generation-fraction", "generation", float64(7.5)),
        ("generation-true", "generation", TRUE),
        ("grant-expires-at-string", "grant_expires_at", text("never")),
    ):
        yield _refused(
            f"wrong-{name}",
            f"{key} is of its type, or the answer is none.",
            _replaced(key, encoded),
            "result",
        )
    for name, thing in {
        "nil": None,
        "string": "access-1",
        "array": ["access-1"],
        "true": True,
        "map-empty": {},
    }.items():
        yield _refused(
            f"result-{name}", "The result of token is a token.", _reply(value(thing)), "result"
        )


def _errors() -> Iterator[Case]:
    statuses = {
        "bad_request": 2,
        "unknown_method": 2,
        "misconfigured": 2,
        "login_required": 3,
        "unavailable": 5,
        "busy": 5,
        "locked": 5,
        "insufficient_scope": 6,
        "forbidden": 7,
        "unknown_account": 7,
        "internal": 1,
    }
    for code, status in statuses.items():
        yield _error(
            f"code-{code}".replace("_", "-"),
            f"The call fails with {code}.",
            [code, "what happened", {"hint": "what helps"}],
            {"code": code, "status": status, "details": {"hint": "what helps"}},
        )
    yield _error(
        "code-unknown",
        "A newer daemon may know more codes: the call fails, and the code is kept.",
        ["teapot", "what happened", {}],
        {"code": "teapot", "status": 1},
    )
    yield _error(
        "retry-after",
        "When to ask again, in seconds.",
        ["busy", "what happened", {"retry_after": 12.5}],
        {"code": "busy", "status": 5, "details": {"retry_after": 12.5}},
    )
    yield _error(
        "missing-scopes",
        "Which scopes are missing.",
        ["insufficient_scope", "what happened", {"missing": ["streaming"]}],
        {"code": "insufficient_scope", "status": 6, "details": {"missing": ["streaming"]}},
    )
    yield _error(
        "details-unknown",
        "Details that the client doesn't know are no obstacle.",
        ["busy", "what happened", {"later": [{"a": None}]}],
        {"code": "busy", "status": 5},
    )
    for count, error in {
        "two": ["busy", "what happened"],
        "four": ["busy", "what happened", {}, "and more"],
    }.items():
        yield _error(
            f"of-{count}-elements",
            "Details may be missing, and a newer daemon may append something.",
            error,
            {"code": "busy", "status": 5},
        )
    yield _case(
        "error-with-result",
        "Where there is an error, there is no result.",
        value([1, 1, ["busy", "what happened", {}], TOKEN]),
        "application",
        {"code": "busy", "status": 5, "message": "what happened"},
    )
    yield _case(
        "error-after-notification",
        "Between request and error notifications may come.",
        f"{NOTICE} {value([1, 1, ['busy', 'what happened', {}], None])}",
        "application",
        {"code": "busy", "status": 5, "message": "what happened"},
    )
    for name, error in {
        "array-empty": [],
        "of-one-element": ["busy"],
        "string": "what happened",
        "integer": 5,
        "map": {"code": "busy"},
        "true": True,
        "false": False,
    }.items():
        yield _case(
            f"error-{name}",
            "An error in another form than [code, message, details] is an error all the same: internal.",
            value([1, 1, error, None]),
            "error",
            {"code": "internal", "status": 1},
        )
    yield _case(
        "error-details-no-map",
        "Details that are no map are none.",
        value([1, 1, ["busy", "what happened", ["hint"]], None]),
        "application",
        {"code": "busy", "status": 5, "message": "what happened", "details": {}},
    )


def _error(name: str, describes: str, error: list[object], outcome: Outcome) -> Case:
    return _case(
        f"error-{name}",
        describes,
        value([1, 1, error, None]),
        "application",
        outcome | {"message": "what happened"},
    )


def _no_rpc() -> Iterator[Case]:
    for name, describes, data in (
        ("request", "A server asks nothing.", value([0, 1, "hello", []])),
        ("type-three", "There is no such type of message.", value([3, 1, None, TOKEN])),
        ("type-true", "true is not 1.", value([True, 1, None, TOKEN])),
        ("type-nil", "nil is no type of message.", value([None, 1, None, TOKEN])),
        ("of-three-elements", "An answer has four elements.", value([1, 1, None])),
        ("of-five-elements", "An answer has four elements.", value([1, 1, None, TOKEN, None])),
        ("msgid-string", "A msgid is an integer.", value([1, "1", None, TOKEN])),
        ("msgid-nil", "A msgid is an integer.", value([1, None, None, TOKEN])),
        ("msgid-true", "A msgid is an integer.", value([1, True, None, TOKEN])),
        ("msgid-negative", "A msgid has no sign.", value([1, -1, None, TOKEN])),
        ("msgid-too-large", "A msgid has 32 bits.", value([1, 2**32, None, TOKEN])),
        ("notification-of-two-elements", "It has three.", value([2, "notice"])),
        ("notification-of-four-elements", "It has three.", value([2, "notice", [], None])),
        ("notification-unnamed", "It is named by a string.", value([2, 5, []])),
        ("notification-params-a-map", "Its params are an array.", value([2, "notice", {}])),
        ("integer", "A message is an array.", "05"),
        ("nil", "A message is an array.", NIL),
        ("map", "A message is an array.", value(TOKEN)),
        ("array-empty", "A message begins with its type.", "90"),
        ("http", "Somebody speaks HTTP: its letters are integers.", b"HTTP/1.1 400\r\n".hex()),
        ("text", "Somebody sends the bare token.", b"access-1\n".hex()),
    ):
        yield _refused(f"no-rpc-{name}", describes, f"{data} {GOOD}", "rpc")


def _no_messagepack() -> Iterator[Case]:
    for name, describes, data in (
        ("never-used", "0xc1 begins no value.", f"{NEVER_USED} {GOOD}"),
        ("never-used-inside", "0xc1 in the token.", _replaced("scope", NEVER_USED)),
        ("ext", "There are no extension types.", _replaced("scope", "d40178")),
        ("ext8", "There are no extension types.", _replaced("scope", "c7030178 7878")),
        (
            "timestamp",
            "Times are numbers, and no timestamps.",
            _replaced("expires_at", "d6ff f4865700"),
        ),
        ("utf8", "A str is UTF-8.", _replaced("access_token", text(b"access-\xff"))),
        (
            "utf8-in-unknown-key",
            "A str is UTF-8 wherever it stands.",
            _reply(mapping(*_pairs(TOKEN), (text("later"), text(b"a\xc3")))),
        ),
    ):
        yield _refused(f"no-messagepack-{name}", describes, data, "messagepack")


def _limits() -> Iterator[Case]:
    later = text("later")
    head = f"{array_header(4)} 01 01 {NIL} {map_header(len(TOKEN) + 1)} "
    head += " ".join(f"{key} {thing}" for key, thing in _pairs(TOKEN)) + f" {later} "
    exact = head + long_text(REPLY - size(head) - 5)
    assert size(exact) == REPLY
    yield _fine("size-exactly", "An answer of 4 MiB is read.", exact)
    yield _refused(
        "size-and-one",
        "One of 4 MiB and a byte is not.",
        head + long_text(REPLY + 1 - size(head) - 5),
        "limits",
    )
    yield _refused(
        "size-of-a-string",
        "What doesn't end is not collected for ever: here a string of 5 MiB in a notification.",
        f"{array_header(3)} 02 {text('notice')} 91 {long_text(5 * 1024 * 1024)}",
        "limits",
    )
    yield _fine(
        "array-10000",
        "Arrays have at most 10,000 elements.",
        head + f"{array_header(10_000)} 01*10000",
    )
    entries = " ".join(f"{text(str(number))} 01" for number in range(1000))
    yield _fine(
        "map-1000",
        "Maps have at most 1,000 entries.",
        head + f"{map_header(1000)} {entries}",
    )
    for name, header in {
        "array32": f"ddffffffff {long_text(REPLY)}",
        "map32": f"dfffffffff {long_text(REPLY)}",
        "str32": f"dbffffffff 78*{REPLY}",
        "bin32": f"c6ffffffff 78*{REPLY}",
    }.items():
        yield _refused(
            f"promise-{name}",
            "What a header promises is neither believed nor collected without end.",
            head + header,
            "limits",
        )
    yield _refused(
        "depth-100000",
        "However deep it is, the client doesn't fall in.",
        head + nested(100_000),
        "limits",
    )


def _ends() -> Iterator[Case]:
    whole = GOOD.replace(" ", "")
    for name, describes, data in (
        ("at-once", "The connection ends without an answer.", ""),
        ("in-header", "The answer is cut off in its header.", whole[:6]),
        (
            "in-token",
            "The answer is cut off in the token.",
            whole[: whole.index(b"access-1".hex()) + 6],
        ),
        ("before-last-byte", "The answer lacks its last byte.", whole[:-2]),
        ("after-notification", "Only a notification has come.", NOTICE),
        (
            "after-answer-to-another",
            "Only an answer to somebody else has come.",
            _reply(value(TOKEN), "02"),
        ),
    ):
        yield _case(f"end-{name}", describes, data, "transport", NO_DAEMON, "ends")
    yield _case(
        "end-after-answer",
        "An answer that has come is good, although the connection ends behind it.",
        GOOD,
        "none",
        {"access_token": "access-1"},
        "ends",
    )
    for name, describes, data in (
        ("silence", "Nothing comes; the client has a time-out.", ""),
        ("half-an-answer", "The rest doesn't come.", whole[:-2]),
        (
            "answer-to-another",
            "An answer to somebody else is none, and the client waits on.",
            _reply(value(TOKEN), "02"),
        ),
    ):
        yield _case(f"time-out-{name}", describes, data, "transport", LATE)
