"""The vectors for servers: what a client may send, and what it must not.

In their world account ``machine`` has a token that lives an hour, ``alice`` has no login, and there
is no other account.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

from encoder import (
    FALSE,
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
Reply = dict[str, Any]

MESSAGE = 64 * 1024
LARGEST_ID = 2**32 - 1
HELLO = array("00", "01", text("hello"), "90")


def cases() -> Iterator[Case]:
    """All of them."""
    yield from _integers()
    yield from _strings_and_containers()
    yield from _messages()
    yield from _ids()
    yield from _params()
    yield from _limits()
    yield from _no_messagepack()
    yield from _utf8()
    yield from _methods()
    yield from _arguments()
    yield from _application()
    yield from _streams()


# --- how a case is written ------------------------------------------------------------------------


def _case(
    name: str, describes: str, data: str, expect: str, afterwards: str, *replies: Reply, **more: Any
) -> Case:
    return {
        "name": name,
        "side": "server",
        "describes": describes,
        "input": data,
        "expect": expect,
        "replies": list(replies),
        "afterwards": afterwards,
        **more,
    }


def _call(msgid: int = 1, method: str = "hello", **arguments: object) -> Reply:
    """The request is a call, and answered with its result."""
    return {"msgid": msgid, "method": method, "arguments": arguments}


def _error(code: str, msgid: int = 1, **details: object) -> Reply:
    """The request is answered with an error, before it is anybody's call."""
    return {"msgid": msgid, "code": code} | ({"details": details} if details else {})


def _fine(name: str, describes: str, data: str, *replies: Reply) -> Case:
    return _case(name, describes, data, "none", "open", *(replies or (_call(),)))


def _token(*pairs: tuple[str, str]) -> str:
    """A request for the token of ``machine`` with further arguments."""
    return array("00", "01", text("token"), array(mapping(_MACHINE, *pairs)))


def _request(method: str, **arguments: object) -> str:
    return value([0, 1, method, [arguments]])


def _broken(name: str, describes: str, data: str, expect: str, *, msgid: int | None = None) -> Case:
    """The end of the connection, with one error if the msgid is known."""
    told = () if msgid is None else (_error("bad_request", msgid),)
    return _case(name, describes, data, expect, "closed", *told)


def _wrong(name: str, describes: str, data: str, **details: object) -> Case:
    """An argument that won't do: an error, and the conversation goes on."""
    return _case(name, describes, data, "arguments", "open", _error("bad_request", **details))


_MACHINE = (text("account"), text("machine"))
_MACHINES = _call(1, "token", account="machine")


# --- the cases ------------------------------------------------------------------------------------


def _integers() -> Iterator[Case]:
    forms = {
        "fixint-zero": ("00", 0),
        "fixint-largest": ("7f", 127),
        "uint8": (uint(7, 8), 7),
        "uint8-needed": (uint(200, 8), 200),
        "uint16": (uint(7, 16), 7),
        "uint32": (uint(7, 32), 7),
        "uint64": (uint(7, 64), 7),
        "int8": (sint(7, 8), 7),
        "int16": (sint(7, 16), 7),
        "int32": (sint(7, 32), 7),
        "int64": (sint(7, 64), 7),
        "largest": (uint(LARGEST_ID, 32), LARGEST_ID),
        "largest-uint64": (uint(LARGEST_ID, 64), LARGEST_ID),
        "largest-int64": (sint(LARGEST_ID, 64), LARGEST_ID),
    }
    for form, (encoded, msgid) in forms.items():
        yield _fine(
            f"msgid-{form}",
            f"A msgid is an unsigned 32-bit integer in whatever form holds it; here {msgid}.",
            array("00", encoded, text("hello"), "90"),
            _call(msgid),
        )
    others = {
        "too-large": (uint(2**32, 64), "an integer of 33 bits"),
        "negative-fixint": ("ff", "-1"),
        "negative-int8": (sint(-1, 8), "-1"),
        "negative-int64": (sint(-1, 64), "-1"),
        "float32": (float32(1.0), "a float, although a whole one"),
        "float64": (float64(1.0), "a float, although a whole one"),
        "true": (TRUE, "true"),
        "nil": (NIL, "nil"),
        "string": (text("1"), "a string"),
        "array": ("90", "an array"),
    }
    for form, (encoded, what) in others.items():
        yield _broken(
            f"msgid-{form}",
            f"A msgid can't be {what}; without one there is nobody to answer.",
            array("00", encoded, text("hello"), "90"),
            "rpc",
        )
    for form, encoded in {"uint8": uint(0, 8), "int64": sint(0, 64)}.items():
        yield _fine(
            f"type-{form}",
            "The type of a message may come in a longer form as well.",
            array(encoded, "01", text("hello"), "90"),
        )
    types = {
        "three": ("03", "3 is no type of message"),
        "negative": ("ff", "-1 is no type of message"),
        "false": (FALSE, "false is not 0"),
        "float": (float64(0.0), "0.0 is not 0"),
        "nil": (NIL, "nil is no type of message"),
        "string": (text("0"), "a string is no type of message"),
    }
    for form, (encoded, what) in types.items():
        yield _broken(
            f"type-{form}",
            f"The type of a message is the integer 0, 1 or 2: {what}.",
            array(encoded, "01", text("hello"), "90"),
            "rpc",
        )
    for form, encoded in {
        "float32": float32(60.0),
        "float64": float64(60.0),
        "uint8": uint(60, 8),
        "int64": sint(60, 64),
        "zero": "00",
    }.items():
        yield _fine(
            f"min-ttl-{form}",
            "Seconds may be an integer or a float in any form.",
            _token((text("min_ttl"), encoded)),
            _call(1, "token", account="machine", min_ttl=0.0 if form == "zero" else 60.0),
        )


def _strings_and_containers() -> Iterator[Case]:
    for bits in (8, 16, 32):
        for kind, form in (("str", text), ("bin", binary)):
            yield _fine(
                f"{kind}{bits}",
                f"Method, key and value as {kind} {bits}: strings may be str or UTF-8 bin, in any form.",
                array(
                    "00",
                    "01",
                    form("token", bits),
                    array(mapping((form("account", bits), form("machine", bits)))),
                ),
                _MACHINES,
            )
    for bits in (16, 32):
        yield _fine(
            f"array{bits}",
            f"The headers of the message and of params as array {bits}.",
            array("00", "01", text("token"), array(mapping(_MACHINE), bits=bits), bits=bits),
            _MACHINES,
        )
        yield _fine(
            f"array{bits}-empty",
            f"Empty params as array {bits}.",
            array("00", "01", text("hello"), array(bits=bits)),
        )
        yield _fine(
            f"map{bits}",
            f"The arguments as map {bits}.",
            array("00", "01", text("token"), array(mapping(_MACHINE, bits=bits))),
            _MACHINES,
        )


def _messages() -> Iterator[Case]:
    yield _broken(
        "response", "A client has nothing to respond to.", array("01", "01", NIL, NIL), "rpc"
    )
    yield _broken(
        "response-with-error",
        "A client has nothing to respond to, not even with an error.",
        value([1, 0, "Received invalid message", None]),
        "rpc",
    )
    for name, thing in {
        "integer": 1,
        "nil": None,
        "string": "hello",
        "map": {"method": "hello"},
        "array-empty": [],
        "array-in-array": [[0, 1, "hello", []]],
        "type-alone": [0],
    }.items():
        yield _broken(
            f"message-{name}",
            "A message is an array that begins with its type; a request goes on with its msgid.",
            value(thing),
            "rpc",
        )
    yield _broken(
        "http",
        "Somebody speaks HTTP: its letters are integers.",
        b"GET / HTTP/1.1\r\n".hex(),
        "rpc",
    )
    for name, thing in {
        "two-elements": [0, 1],
        "three-elements": [0, 1, "hello"],
        "five-elements": [0, 1, "hello", [], None],
    }.items():
        yield _broken(
            f"request-of-{name}", "A request has four elements.", value(thing), "rpc", msgid=1
        )
    notifications: dict[str, tuple[str, Any]] = {
        "empty": ("Notifications of a client are dropped.", [2, "hello", []]),
        "greeting": (
            "Some clients greet with a notification that nobody here knows.",
            [2, b"nvim_set_client_info", ["client", {"major": 1}, "remote", {}, {}]],
        ),
        "named-as-a-method": ("Even one that is named as a method has no effect.", [2, "stop", []]),
        "odd": ("Whatever a notification holds, it is dropped.", [2, 5, None]),
        "params-a-map": ("Whatever a notification holds, it is dropped.", [2, "a", {"b": b"\xff"}]),
    }
    for name, (describes, thing) in notifications.items():
        yield _fine(f"notification-{name}", describes, f"{value(thing)} {HELLO}")
    for name, thing in {"two": [2, "hello"], "four": [2, 1, "hello", []]}.items():
        yield _broken(
            f"notification-of-{name}-elements",
            "A notification has three elements.",
            value(thing),
            "rpc",
        )


def _ids() -> Iterator[Case]:
    status = value([0, 1, "status", []])
    yield _case(
        "msgid-under-way",
        "A msgid whose request is not answered yet can't be used: the replies couldn't be told apart.",
        f"{status} {HELLO}",
        "rpc",
        "closed",
        _error("bad_request"),
        unanswered=[1],
    )
    yield _case(
        "msgid-under-way-in-another-form",
        "Two forms of one integer are one msgid.",
        f"{status} {array('00', uint(1, 64), text('hello'), '90')}",
        "rpc",
        "closed",
        _error("bad_request"),
        unanswered=[1],
    )
    yield _case(
        "msgid-beside-one-under-way",
        "A request that is not answered yet keeps no other one waiting.",
        f"{status} {value([0, 2, 'hello', []])}",
        "none",
        "open",
        _call(2),
        unanswered=[1],
    )
    yield _fine(
        "msgid-again",
        "An answered msgid is free again.",
        f"{HELLO} {HELLO}",
        _call(),
        _call(),
    )


def _params() -> Iterator[Case]:
    yield _fine("params-empty", "A call without arguments.", HELLO)
    yield _fine("params-empty-map", "A call with no named argument.", value([0, 1, "hello", [{}]]))
    yield _fine(
        "argument-nil",
        "nil is as good as absent.",
        _token((text("min_ttl"), NIL), (text("scopes"), NIL)),
        _MACHINES,
    )
    yield _fine(
        "argument-unknown",
        "Arguments that the method doesn't know are ignored, whatever they hold.",
        _token((text("later"), value([{"a": [1.5, None, b"\xff"]}]))),
        _MACHINES,
    )
    yield _fine(
        "argument-twice",
        "Of a key that comes twice the last counts. (A client must not send such a map.)",
        _request_pairs((text("account"), text("nobody")), _MACHINE),
        _MACHINES,
    )
    yield _fine(
        "argument-name-empty",
        "An empty name is one that no method knows.",
        _token(("a0", "01")),
        _MACHINES,
    )
    wrong = "params holds at most one map of named arguments: not "
    for name, what, thing in (
        ("positional", "positional ones", ["machine"]),
        ("two-maps", "two maps", [{"account": "machine"}, {}]),
        ("map-and-more", "a map and something else", [{"account": "machine"}, 1]),
        ("array-in-array", "an array", [[]]),
        ("nil-in-array", "nil", [None]),
    ):
        yield _wrong(f"params-{name}", wrong + what + ".", value([0, 1, "token", thing]))
    for name, thing in {"nil": None, "map": {"account": "machine"}, "string": "machine"}.items():
        yield _broken(
            f"params-{name}", "params is an array.", value([0, 1, "token", thing]), "rpc", msgid=1
        )
    for name, key in {"integer": "01", "nil": NIL, "float": float64(1.0), "true": TRUE}.items():
        yield _wrong(
            f"argument-name-{name}",
            "The name of an argument is a string.",
            _token((key, "01")),
        )
    for name, key in {"array": "90", "map": "80"}.items():
        yield _broken(
            f"argument-name-{name}",
            "Arrays and maps can't be keys.",
            _token((key, "01")),
            "messagepack",
            msgid=1,
        )


def _hello(client: str) -> str:
    return array("00", "01", text("hello"), array(mapping((text("client"), client))))


def _request_pairs(*pairs: tuple[str, str]) -> str:
    return array("00", "01", text("token"), array(mapping(*pairs)))


def _limits() -> Iterator[Case]:
    later = text("later")
    yield _fine(
        "depth-8",
        "Eight levels: the message, params, the map, and five in an argument.",
        _token((later, nested(5))),
        _MACHINES,
    )
    yield _broken(
        "depth-9", "A ninth level is one too many.", _token((later, nested(6))), "limits", msgid=1
    )
    yield _broken(
        "depth-9-of-maps",
        "Maps count as arrays do.",
        _token((later, "81 01 " * 5 + "80")),
        "limits",
        msgid=1,
    )
    yield _broken(
        "depth-10000",
        "However deep, it is refused and harms nobody.",
        _token((later, nested(10_000))),
        "limits",
        msgid=1,
    )
    ones = ["01"] * 65
    yield _fine("array-64", "64 elements.", _token((later, array(*ones[:64]))), _MACHINES)
    yield _broken("array-65", "65 elements.", _token((later, array(*ones))), "limits", msgid=1)
    yield _broken(
        "array-65-in-notification",
        "A limit holds in what will be dropped, too.",
        array("02", text("hello"), array(*ones)),
        "limits",
    )
    entries = [(f"{number:02x}", "01") for number in range(33)]
    yield _fine("map-32", "32 entries.", _token((later, mapping(*entries[:32]))), _MACHINES)
    yield _broken("map-33", "33 entries.", _token((later, mapping(*entries))), "limits", msgid=1)
    many = 2**32 - 1
    for name, header in {
        "array16": array_header(65_535, 16),
        "array32": array_header(many, 32),
        "map16": map_header(65_535, 16),
        "map32": map_header(many, 32),
        "str32": f"dbffffffff 78*{MESSAGE}",
        "bin32": f"c6ffffffff 78*{MESSAGE}",
    }.items():
        yield _broken(
            f"promise-{name}",
            "A header that promises more than a limit allows is not waited for.",
            f"{array_header(4)} 00 01 {text('token')} 91 81 {later} {header}",
            "limits",
            msgid=1,
        )
    yield _broken(
        "promise-message",
        "A message of 65,535 elements: no request, so that it has no msgid.",
        array_header(65_535) + " 00 01",
        "limits",
    )
    yield _broken(
        "promises-in-each-other",
        "64 elements are allowed, each an array of 64, and so on: the depth ends it.",
        f"{array_header(4)} 00 01 {text('token')} 91 81 {later} {array_header(64)}*2000",
        "limits",
        msgid=1,
    )
    head = (
        f"{array_header(4)} 00 01 {text('token')} 91 {map_header(2)} {' '.join(_MACHINE)} {later} "
    )
    for name, total in (("exactly", MESSAGE), ("and-one", MESSAGE + 1)):
        filler = total - size(head) - 5
        data = head + long_text(filler)
        assert size(data) == total
        if name == "exactly":
            yield _fine(f"size-{name}", "A message of 64 KiB.", data, _MACHINES)
        else:
            yield _broken(
                f"size-{name}", "A message of 64 KiB and a byte.", data, "limits", msgid=1
            )
    notice = f"{array_header(3)} 02 {text('hello')} 91 "
    for name, total in (("exactly", MESSAGE), ("and-one", MESSAGE + 1)):
        data = notice + long_text(total - size(notice) - 5)
        if name == "exactly":
            describes = "A notification of 64 KiB is dropped like any other."
            yield _fine(f"size-{name}-of-notification", describes, f"{data} {HELLO}")
        else:
            describes = "A notification of 64 KiB and a byte."
            yield _broken(f"size-{name}-of-notification", describes, data, "limits")
    yield _fine(
        "size-of-pipeline",
        "The limit is that of a message: many small ones together may be longer.",
        f"{value([2, 'hello', []]).replace(' ', '')}*9000 {HELLO}",
    )


def _no_messagepack() -> Iterator[Case]:
    yield _broken("never-used", "0xc1 begins no value.", f"{NEVER_USED} {HELLO}", "messagepack")
    yield _broken(
        "never-used-as-method",
        "0xc1 in the place of the method: by then the msgid is known.",
        array("00", "01", NEVER_USED, "90"),
        "messagepack",
        msgid=1,
    )
    yield _broken(
        "never-used-behind-long-forms",
        "The msgid is known, however long the forms are in which it and what precedes it came.",
        array(sint(0, 64), uint(7, 64), NEVER_USED, "90", bits=32),
        "messagepack",
        msgid=7,
    )
    yield _broken(
        "never-used-in-argument",
        "0xc1 as a value.",
        _token((text("later"), NEVER_USED)),
        "messagepack",
        msgid=1,
    )
    extensions = {
        "fixext1": "d40178",
        "fixext16": "d801" + "78" * 16,
        "ext8": "c7030178 7878",
        "ext8-empty": "c70005",
        "ext16": "c80001 05 78",
        "ext32": "c900000001 05 78",
        "timestamp32": "d6ff 00000001",
        "timestamp64": "d7ff 0000000000000001",
        "timestamp96": "c70cff 00000000 0000000000000001",
    }
    for form, encoded in extensions.items():
        yield _broken(
            f"ext-{form}",
            "There are no extension types, timestamps included: times are numbers.",
            _token((text("later"), encoded)),
            "messagepack",
            msgid=1,
        )
    yield _broken(
        "ext-as-msgid",
        "An extension type in the place of the msgid: there is nobody to answer.",
        array("00", "d40101", text("hello"), "90"),
        "messagepack",
    )


def _utf8() -> Iterator[Case]:
    bad = {
        "byte": (b"\xff", "0xff is never in UTF-8"),
        "cut": (b"a\xc3", "a sequence is cut off"),
        "overlong": (b"\xc0\x80", "an overlong form"),
        "surrogate": (b"\xed\xa0\x80", "half a surrogate pair"),
    }
    for name, (data, what) in bad.items():
        yield _broken(
            f"utf8-{name}-in-str",
            f"A str is UTF-8 wherever it stands: {what}.",
            _token((text("later"), text(data))),
            "messagepack",
            msgid=1,
        )
    yield _broken(
        "utf8-method-str",
        "A method as str that is not UTF-8.",
        array("00", "01", text(b"\xff"), "90"),
        "messagepack",
        msgid=1,
    )
    yield _broken(
        "utf8-key-str",
        "A name of an argument as str that is not UTF-8.",
        _token((text(b"\xff"), "01")),
        "messagepack",
        msgid=1,
    )
    yield _broken(
        "utf8-method-bin",
        "A method as bin must be UTF-8.",
        array("00", "01", binary(b"\xff"), "90"),
        "rpc",
        msgid=1,
    )
    yield _wrong(
        "utf8-key-bin",
        "A name of an argument as bin must be UTF-8.",
        _token((binary(b"\xff"), "01")),
    )
    yield _wrong(
        "utf8-value-bin",
        "A text as bin must be UTF-8.",
        _request_pairs((text("account"), binary(b"\xff"))),
        argument="account",
    )
    yield _fine(
        "utf8-any-character",
        "Any character may be in a text.",
        _request("hello", client="Zoë 音楽 🎵"),
        _call(1, "hello", client="Zoë 音楽 🎵"),
    )


def _methods() -> Iterator[Case]:
    for name, describes, method in (
        ("unknown", "A method that nobody knows.", text("toke")),
        ("unknown-bin", "A method that nobody knows, as bin.", binary("toke")),
        ("other-case", "Names are compared exactly.", text("Token")),
        ("empty", "An empty name is no method.", "a0"),
        ("with-nul", "A NUL belongs to the name.", text("hello\0")),
        ("with-controls", "What a terminal would obey is not repeated.", text("\x1b[2Jhello")),
        ("long", "However long the name is.", long_text(60_000)),
    ):
        yield _case(
            f"method-{name}",
            describes,
            array("00", "01", method, "90"),
            "method",
            "open",
            _error("unknown_method"),
        )
    for name, method in {"integer": "05", "nil": NIL, "array": "90"}.items():
        yield _broken(
            f"method-{name}",
            "A method is named by a string.",
            array("00", "01", method, "90"),
            "rpc",
            msgid=1,
        )


def _arguments() -> Iterator[Case]:
    for method, argument, given in (
        ("reject", "generation", {}),
        ("reject", "generation", {"generation": None}),
        ("logout", "account", {}),
        ("login_finish", "login_id", {"redirect_url": "http://127.0.0.1/callback"}),
        ("login_finish", "redirect_url", {"login_id": "login-1"}),
        ("login_cancel", "login_id", {}),
    ):
        nil = "-nil" if argument in given else ""
        yield _wrong(
            f"missing-{method}-{argument}{nil}".replace("_", "-"),
            f"{method} can't do without {argument}.",
            _request(method, **given),
            argument=argument,
        )
    seconds = {
        "nan32": (float32(math.nan), "NaN"),
        "nan64": (float64(math.nan), "NaN"),
        "infinite": (float64(math.inf), "infinite"),
        "minus-infinite": (float64(-math.inf), "minus infinite"),
        "negative": (sint(-1, 8), "negative"),
        "negative-float": (float64(-0.5), "negative"),
        "string": (text("60"), "a string"),
        "true": (TRUE, "a boolean"),
        "array": (array("3c"), "an array"),
    }
    for name, (encoded, what) in seconds.items():
        yield _wrong(
            f"min-ttl-{name}",
            f"min_ttl is a finite number of seconds from 0 on, and can't be {what}.",
            _token((text("min_ttl"), encoded)),
            argument="min_ttl",
        )
    names = {
        "empty": ("", "not empty"),
        "slash": ("a/b", "without a slash"),
        "dot-first": (".main", "with a letter or digit first"),
        "newline": ("main\n", "without a newline"),
        "letter-beyond-ascii": ("zoë", "of ASCII letters"),
        "61-characters": ("a" * 61, "of at most 60 characters"),
    }
    for name, (account, what) in names.items():
        yield _wrong(
            f"account-{name}",
            f"The name of an account is {what}.",
            _request("token", account=account),
            argument="account",
        )
    for name, method, argument, thing in (
        ("account-integer", "token", "account", 5),
        ("account-array", "token", "account", ["machine"]),
        ("scopes-string", "token", "scopes", "streaming"),
        ("scopes-of-integers", "token", "scopes", [1]),
        ("scopes-with-empty", "token", "scopes", [""]),
        ("scopes-with-nil", "token", "scopes", [None]),
        ("generation-negative", "reject", "generation", -1),
        ("generation-float", "reject", "generation", 1.0),
        ("generation-true", "reject", "generation", True),
        ("tokens-one", "watch", "tokens", 1),
        ("accounts-string", "watch", "accounts", "machine"),
        ("limit-zero", "status", "limit", 0),
        ("limit-51", "status", "limit", 51),
        ("limit-true", "status", "limit", True),
        ("client-empty", "hello", "client", ""),
    ):
        yield _wrong(
            f"wrong-{name}",
            f"{argument} of {method} can't be that; the error names it.",
            _request(method, **{argument: thing}),
            argument=argument,
        )
    most = 8192
    yield _fine(
        f"text-of-{most}-characters",
        f"A text has at most {most} characters, however many bytes they take.",
        _hello(long_text(most, "é")),
        _call(1, "hello", client="é" * most),
    )
    yield _wrong(
        f"text-of-{most + 1}-characters",
        "One more is too many, however few bytes they take.",
        _hello(long_text(most + 1)),
        argument="client",
    )
    yield _fine(
        "scopes-empty",
        "No scopes are asked for.",
        _token((text("scopes"), "90")),
        _call(1, "token", account="machine", scopes=[]),
    )


def _application() -> Iterator[Case]:
    for name, describes, method, arguments, code, details in (
        (
            "unknown-account",
            "An account that does not exist.",
            "token",
            {"account": "nobody"},
            "unknown_account",
            {},
        ),
        (
            "name-of-60-characters",
            "The longest name; nobody has it here.",
            "token",
            {"account": "a" * 60},
            "unknown_account",
            {},
        ),
        (
            "login-required",
            "An account that nobody has logged in to.",
            "token",
            {"account": "alice"},
            "login_required",
            {"account": "alice"},
        ),
        (
            "min-ttl-too-long",
            "More than half of a token's life can't be asked for; the error tells the maximum.",
            "token",
            {"account": "machine", "min_ttl": 1801.0},
            "bad_request",
            {"maximum": 1800.0},
        ),
        (
            "scope-missing",
            "A scope that the token lacks; the error lists what is missing.",
            "token",
            {"account": "machine", "scopes": ["streaming"]},
            "insufficient_scope",
            {"missing": ["streaming"]},
        ),
        (
            "generation-of-the-future",
            "A generation that no token has had yet can't have been refused.",
            "reject",
            {"account": "machine", "generation": 2**64 - 1},
            "bad_request",
            {"account": "machine"},
        ),
        (
            "login-unknown",
            "A login that is over, or never began.",
            "login_finish",
            {"login_id": "login-1", "redirect_url": "http://127.0.0.1/callback?code=1&state=2"},
            "login_required",
            {"outcome": "unknown"},
        ),
    ):
        error = _call(1, method, **arguments) | _error(code, **details)
        yield _case(
            f"application-{name}",
            describes,
            _request(method, **arguments),
            "application",
            "open",
            error,
        )
    yield _fine(
        "application-cancel-unknown",
        "To cancel a login that is over is no error: the result is nil.",
        _request("login_cancel", login_id="login-1"),
        _call(1, "login_cancel", login_id="login-1"),
    )


def _streams() -> Iterator[Case]:
    numbers = range(1, 71)
    yield _fine(
        "pipeline",
        "70 requests at once: each is answered, in whatever order.",
        " ".join(value([0, number, "hello", []]) for number in numbers),
        *(_call(number) for number in numbers),
    )
    yield _case(
        "pipeline-with-a-bad-call",
        "A call that can't be made costs itself only.",
        f"{HELLO} {value([0, 2, 'helo', []])} {value([0, 3, 'hello', []])}",
        "method",
        "open",
        _call(),
        _error("unknown_method", 2),
        _call(3),
    )
    yield _case(
        "pipeline-with-a-breach",
        "What came before is answered; what comes after it is not read.",
        f"{HELLO} {array('00', '02', NEVER_USED, '90')} {value([0, 3, 'hello', []])}",
        "messagepack",
        "closed",
        _call(),
        _error("bad_request", 2),
    )
    whole = _token((text("min_ttl"), float64(60.0))).replace(" ", "")
    for name, cut in (("header", 1), ("method", 5), ("number", len(whole) // 2 - 3)):
        yield _case(
            f"truncated-in-{name}",
            "Half a message is no mistake yet: the rest may come, for ten seconds.",
            whole[: 2 * cut],
            "none",
            "waiting",
        )
    yield _case(
        "truncated-after-a-request",
        "A whole request is answered, whatever has begun behind it.",
        f"{HELLO} 94 00",
        "none",
        "waiting",
        _call(),
    )
