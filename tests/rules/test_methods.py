"""The table of methods, and the check of what came over the socket against it."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spotokend.errors import BadRequest, UnknownMethod
from spotokend.rules.config.values import KeyKind, KeySource
from spotokend.rules.methods import BOOLEAN, METHODS, Argument, Method, Right, check

CONTRACT = {
    "hello": ["client?"],
    "token": ["account?", "min_ttl?", "scopes?"],
    "reject": ["account?", "generation"],
    "refresh": ["account?"],
    "watch": ["accounts?", "tokens?"],
    "status": ["account?", "after?", "limit?"],
    "login_start": ["account?", "client?", "scopes?", "redirect_uri?"],
    "login_finish": ["login_id", "redirect_url"],
    "login_cancel": ["login_id"],
    "logout": ["account"],
    "reload": [],
    "stop": [],
    "unlock": [],
    "rekey": ["to?"],
    "store_info": [],
}
FORM = "1 to 60 letters, digits, '.', '_' or '-', a letter or a digit first"
NAME = f"a name ({FORM})"
NAMES = f"an array of names ({FORM})"
SECONDS = "a finite number of seconds from 0 on"
TEXT = "a string of 1 to 8192 characters"
TEXTS = "an array of strings of 1 to 8192 characters"


def refused(method, **arguments):
    """The error that a call gets."""
    with pytest.raises(BadRequest) as caught:
        check(method, arguments)
    return caught.value


class TestTable:
    """The data itself."""

    def test_contract(self):
        """The methods and the names of their arguments are the protocol's, in its order."""
        actual = {
            method.name: [
                f"{argument.name}{'' if argument.required else '?'}"
                for argument in method.arguments.values()
            ]
            for method in METHODS.values()
        }
        assert actual == CONTRACT

    def test_names_are_keys(self):
        """Each method is found under its own name."""
        assert all(name == method.name for name, method in METHODS.items())

    def test_rights(self):
        """Only what changes a grant or the daemon needs the right to administer."""
        by_right = {
            right: {name for name, method in METHODS.items() if method.right is right}
            for right in Right
        }
        assert by_right == {
            Right.READ: {"hello", "token", "watch", "status"},
            Right.REFRESH: {"reject", "refresh"},
            Right.ADMINISTER: {
                "login_start",
                "login_finish",
                "login_cancel",
                "logout",
                "reload",
                "stop",
                "unlock",
                "rekey",
                "store_info",
            },
        }

    def test_documented(self):
        """Each method has its sentence, and each argument a meaning."""
        for method in METHODS.values():
            assert method.documentation.endswith(".")
            assert all(argument.meaning for argument in method.arguments.values())

    def test_row(self):
        """A method finds its arguments by name, in their order, and knows those that it needs."""
        may = Argument("may", BOOLEAN, "if you like")
        must = Argument("must", BOOLEAN, "if you please", required=True)
        method = Method("do", Right.REFRESH, "Does it.", may, must)
        assert (method.name, method.right, method.documentation) == (
            "do",
            Right.REFRESH,
            "Does it.",
        )
        assert list(method.arguments.items()) == [("may", may), ("must", must)]
        assert method.required == (must,)

    def test_fixed(self):
        """Nobody adds a method at run time."""
        with pytest.raises(TypeError):
            METHODS["more"] = METHODS["token"]


class TestAccepted:
    """What comes out clean."""

    @pytest.mark.parametrize(
        ("method", "arguments", "expected"),
        [
            ("hello", {}, {}),
            ("hello", {"client": "a player 1.0"}, {"client": "a player 1.0"}),
            ("token", {"account": "main", "min_ttl": 60}, {"account": "main", "min_ttl": 60.0}),
            ("token", {"min_ttl": 0}, {"min_ttl": 0.0}),
            ("token", {"scopes": []}, {"scopes": ()}),
            ("token", {"scopes": ["one", b"two"]}, {"scopes": ("one", "two")}),
            ("token", {b"account": b"main"}, {"account": "main"}),
            ("token", {"account": None, "scopes": None}, {}),
            ("token", {"account": "A" * 60}, {"account": "A" * 60}),
            ("hello", {"client": "a" * 8192}, {"client": "a" * 8192}),
            ("token", {"account": "0._-"}, {"account": "0._-"}),
            ("reject", {"generation": 0}, {"generation": 0}),
            ("reject", {"generation": 2**64 - 1}, {"generation": 2**64 - 1}),
            ("watch", {"accounts": ["a", "b"], "tokens": False}, None),
            ("status", {"after": "a", "limit": 1}, None),
            ("status", {"limit": 50}, None),
            ("login_finish", {"login_id": "1", "redirect_url": "http://x/?code=c"}, None),
            ("stop", {"whatever": object()}, {}),
            ("stop", {"": 1, "a" * 8193: 1}, {}),
        ],
    )
    def test_arguments(self, method, arguments, expected):
        """Text may be bin, nil is absent, unknown keys are ignored, numbers of seconds are floats."""
        if expected is None:
            expected = {
                name: tuple(value) if isinstance(value, list) else value
                for name, value in arguments.items()
            }
        actual = check(method, arguments)
        assert actual == expected
        assert [type(value) for value in actual.values()] == [
            type(value) for value in expected.values()
        ]


class TestRefused:
    """What is told about arguments that can't be."""

    @pytest.mark.parametrize(
        ("method", "argument", "value", "problem", "allowed"),
        [
            ("token", "account", 1, "an integer", NAME),
            ("token", "account", "", "empty", NAME),
            ("token", "account", "-a", "no valid name", NAME),
            ("token", "account", "a/b", "no valid name", NAME),
            ("token", "account", "a\n", "no valid name", NAME),
            ("token", "account", "ä", "no valid name", NAME),
            ("token", "account", "a" * 61, "no valid name", NAME),
            ("token", "account", b"\xff", "binary data that isn't UTF-8", NAME),
            ("token", "min_ttl", "60", "a string", SECONDS),
            ("token", "min_ttl", True, "a boolean", SECONDS),
            ("token", "min_ttl", -1, "negative", SECONDS),
            ("token", "min_ttl", float("nan"), "not finite", SECONDS),
            ("token", "min_ttl", float("inf"), "not finite", SECONDS),
            ("token", "scopes", "a b", "a string", TEXTS),
            (
                "token",
                "scopes",
                ["a", {}],
                "an array in which one element is a map",
                TEXTS,
            ),
            ("reject", "generation", 1.5, "a number", "an integer from 0 on"),
            ("reject", "generation", False, "a boolean", "an integer from 0 on"),
            ("reject", "generation", -1, "too small", "an integer from 0 on"),
            ("status", "limit", 0, "too small", "an integer from 1 to 50"),
            ("status", "limit", 51, "too large", "an integer from 1 to 50"),
            ("watch", "tokens", 1, "an integer", "true or false"),
            ("watch", "accounts", [None], "an array in which one element is nil", NAMES),
            ("hello", "client", [], "an array", TEXT),
            ("hello", "client", "a" * 8193, "8193 characters long", TEXT),
        ],
    )
    def test_value(self, method, argument, value, problem, allowed):
        """The error names the argument, what it is, and what is allowed."""
        error = refused(method, **{argument: value})
        assert error.message == f"{method}: {argument} is {problem}; {allowed} is expected"
        assert error.details["argument"] == argument

    @pytest.mark.parametrize(
        ("method", "argument"),
        [
            ("reject", "generation"),
            ("login_finish", "login_id"),
            ("login_finish", "redirect_url"),
            ("login_cancel", "login_id"),
            ("logout", "account"),
        ],
    )
    @pytest.mark.parametrize("nil", [False, True])
    def test_missing(self, method, argument, nil):
        """A required argument that is absent, or nil, is named; the hint shows how to call."""
        arguments = {
            name: "x" for name, known in METHODS[method].arguments.items() if known.required
        }
        del arguments[argument]
        error = refused(method, **(arguments | ({argument: None} if nil else {})))
        assert error.message.startswith(f"{method}: {argument} is missing; ")
        assert error.hint == f"arguments of {method}: {', '.join(CONTRACT[method])}"

    def test_key_source(self):
        """The other place of a key is read as from the configuration; text may come as bin."""
        for words in ("keyring=main", b"keyring=main"):
            assert check("rekey", {"to": words}) == {"to": KeySource(KeyKind.KEYRING, "main")}

    @pytest.mark.parametrize(
        ("words", "problem"),
        [
            (7, "an integer"),
            ("keyring=a b", 'no place for a key: keyring: "a b" can\'t be a name'),
            ("passphrase=correct horse", "no place for a key: passphrase: what asks for the"),
        ],
    )
    def test_no_key_source(self, words, problem):
        """And a passphrase that stands there by mistake is not repeated."""
        error = refused("rekey", to=words)
        assert error.message.startswith(f"rekey: to is {problem}")
        assert error.message.endswith("a string such as keyring=main or file=/PATH is expected")
        assert "correct" not in error.message

    @pytest.mark.parametrize(
        ("key", "problem"),
        [
            (1, "an integer"),
            (1.5, "a number"),
            (True, "a boolean"),
            (None, "nil"),
            (b"\xff", "binary data that isn't UTF-8"),
        ],
    )
    def test_key(self, key, problem):
        """A key that names nothing is refused."""
        with pytest.raises(BadRequest) as caught:
            check("stop", {key: 1})
        assert caught.value.message == (
            f"stop: the name of an argument is {problem}; a string is expected"
        )
        assert caught.value.hint == "stop takes no arguments"

    @pytest.mark.parametrize(
        ("method", "shown", "near"),
        [
            ("tokens", "'tokens'", "did you mean token? "),
            ("Status", "'Status'", "did you mean status? "),
            ("adopt", "'adopt'", ""),
            ("audit", "'audit'", ""),
            ("", "''", ""),
            ("\x1b[31m", "'\\x1b[31m'", ""),
            ("é" * 70_000, "'" + 57 * r"\xe9" + "...'", ""),
            ("é" * 60, "'" + 60 * r"\xe9" + "'", ""),
            ("é" * 61, "'" + 57 * r"\xe9" + "...'", ""),
        ],
        ids=["near", "case", "later", "other", "empty", "control", "long", "just", "over"],
    )
    def test_unknown_method(self, method, shown, near):
        """The nearest name is offered, all are listed, and what came is shown short and harmless."""
        with pytest.raises(UnknownMethod) as caught:
            check(method, {})
        assert caught.value.message == f"there is no method {shown}"
        assert caught.value.hint == f"{near}methods: {', '.join(CONTRACT)}"


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=9) | st.binary(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=5,
)
KEYS = st.sampled_from([*{name.rstrip("?") for names in CONTRACT.values() for name in names}])


@given(st.sampled_from([*CONTRACT]), st.dictionaries(KEYS, VALUES))
def test_any_arguments(method, arguments):
    """Whatever comes is refused as a bad request, or comes out as known arguments."""
    try:
        clean = check(method, arguments)
    except BadRequest as error:
        assert error.details["argument"] in METHODS[method].arguments
        json.dumps(error.to_wire())
    else:
        assert clean.keys() <= METHODS[method].arguments.keys() & arguments.keys()
