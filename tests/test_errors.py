"""The exceptions that cross the socket."""

from __future__ import annotations

import copy
import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spotokend import errors
from spotokend.errors import BY_CODE, SpotokendError

STATUSES = {
    "bad_request": 2,
    "unknown_method": 2,
    "misconfigured": 2,
    "login_required": 3,
    "no_daemon": 4,
    "unavailable": 5,
    "busy": 5,
    "locked": 5,
    "insufficient_scope": 6,
    "forbidden": 7,
    "unknown_account": 7,
    "internal": 1,
}


def kinds(kind=SpotokendError):
    for child in kind.__subclasses__():
        yield child
        yield from kinds(child)


def test_table():
    """Each code has one class and the exit status of the contract."""
    assert {code: kind.exit_status for code, kind in BY_CODE.items()} == STATUSES
    # Others may tell a case of one apart by a class of their own.
    assert set(BY_CODE.values()) == {k for k in kinds() if k.__module__ == "spotokend.errors"}


@pytest.mark.parametrize("kind", BY_CODE.values(), ids=BY_CODE)
def test_there_and_back(kind):
    """What is sent is what is raised on the other side."""
    error = kind("what is the case", hint="the cure", retry_after=5, account="ada")
    back = errors.from_wire(error.to_wire())

    assert type(back) is kind
    assert back.to_wire() == error.to_wire()
    assert str(back) == back.message == "what is the case"


def test_not_now_is_one_class():
    """Who only wants to know "not now" catches Unavailable."""
    assert issubclass(errors.Busy, errors.Unavailable)
    assert issubclass(errors.Locked, errors.Unavailable)


def test_hint():
    """The hint is words, or None."""
    assert SpotokendError("x", hint="spotokend login").hint == "spotokend login"
    assert SpotokendError("x", hint=7).hint is None
    assert SpotokendError("x").hint is None


@pytest.mark.parametrize(
    ("given_value", "expected"),
    [
        (3, 3.0),
        (0.5, 0.5),
        (True, None),
        ("3", None),
        (None, None),
        (-1, None),
        (float("nan"), None),
        (float("inf"), None),
        (2**64, None),
    ],
)
def test_retry_after(given_value, expected):
    """The time to wait is a number of seconds that can be slept, or None."""
    assert SpotokendError("x", retry_after=given_value).retry_after == expected


def test_nothing_is_left_out():
    """Details that are None aren't sent, and any name may be a detail's."""
    error = SpotokendError("x", hint=None, message="y", missing=["streaming"])
    assert error.details == {"message": "y", "missing": ["streaming"]}


def test_unknown_code():
    """A newer daemon's code is kept, in the class that catches all."""
    error = errors.from_wire(["out_of_tea", "no tea left", {"hint": "brew"}])

    assert type(error) is SpotokendError
    assert (error.code, error.message, error.hint) == ("out_of_tea", "no tea left", "brew")
    assert error.to_wire() == ["out_of_tea", "no tea left", {"hint": "brew"}]
    assert SpotokendError.code == "internal"


@pytest.mark.parametrize(
    ("sent", "expected"),
    [
        (["busy", "later"], ["busy", "later", {}]),
        (("busy", "later", None), ["busy", "later", {}]),
        (["busy", "later", {1: 2}, "more"], ["busy", "later", {"1": 2}]),
        (["busy"], ["internal", "['busy']", {}]),
        ("words alone", ["internal", "words alone", {}]),
    ],
)
def test_lenient(sent, expected):
    """Other servers' errors keep their words."""
    assert errors.from_wire(sent).to_wire() == expected


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text() | st.binary(),
        lambda inner: st.lists(inner) | st.dictionaries(st.text() | st.integers(), inner),
    )
)
def test_anything_is_an_error(sent):
    """Whatever stands in the error's place, it can be raised, shown and sent on."""
    error = errors.from_wire(sent)
    assert isinstance(error, SpotokendError)
    assert errors.from_wire(error.to_wire()).to_wire() == error.to_wire()


@pytest.mark.parametrize("again", [copy.copy, lambda error: pickle.loads(pickle.dumps(error))])
def test_pickled(again):
    """Class, code and details survive a way between processes."""
    for error in (errors.Busy("later", retry_after=3), errors.from_wire(["tea", "none", {"a": 1}])):
        back = again(error)
        assert type(back) is type(error)
        assert back.to_wire() == error.to_wire()
