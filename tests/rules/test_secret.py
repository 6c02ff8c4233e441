"""A Secret shows itself to nobody who does not ask for it by name."""

from __future__ import annotations

import copy
import json
import logging
import pickle
import traceback

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from spotokend.rules.secret import Secret

VALUE = "access-that-shows-itself"


@pytest.mark.parametrize(
    "shown",
    [
        repr(Secret(VALUE)),
        str(Secret(VALUE)),
        format(Secret(VALUE)),
        f"{Secret(VALUE)}",
        f"{Secret(VALUE)!r:>80}",
        f"{Secret(VALUE):>80}",
        "%s %r" % (Secret(VALUE), Secret(VALUE)),  # noqa: UP031 - the old way is a way, too
        "{} {!s}".format(Secret(VALUE), Secret(VALUE)),  # noqa: UP032
        str([Secret(VALUE), {"token": Secret(VALUE)}]),
        logging.makeLogRecord({"msg": "got %s", "args": (Secret(VALUE),)}).getMessage(),
    ],
)
def test_whatever_prints_it_gets_the_placeholder(shown):
    """All ways from an object to text."""
    assert VALUE not in shown
    assert "Secret(***)" in shown


def test_a_traceback_with_its_locals_does_not_show_it():
    """As an error report with local variables would print it."""

    def use(token):
        raise ValueError(token)

    with pytest.raises(ValueError, match="Secret") as caught:
        use(Secret(VALUE))
    report = traceback.TracebackException.from_exception(caught.value, capture_locals=True)
    shown = "".join(report.format())

    assert "token = Secret(***)" in shown
    assert VALUE not in shown


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_it_is_not_pickled(protocol):
    """A pickle would hold it readable, wherever it is put."""
    with pytest.raises(
        TypeError,
        match=r"^a Secret is not pickled: it would lie readable in whatever holds the pickle$",
    ):
        pickle.dumps(Secret(VALUE), protocol)


@pytest.mark.parametrize("duplicate", [copy.copy, copy.deepcopy])
def test_it_is_not_copied(duplicate):
    """Copies take the way of pickles; nothing here needs a second one."""
    with pytest.raises(TypeError, match="not pickled"):
        duplicate(Secret(VALUE))


@pytest.mark.parametrize("pack", [json.dumps, msgpack.packb])
def test_no_format_takes_it_as_a_string(pack):
    """What is to be sent or stored has to be revealed first."""
    with pytest.raises(TypeError):
        pack({"token": Secret(VALUE)})


def test_reveal_is_the_way_to_the_value():
    """And the only one: it has no attributes that anybody could list."""
    assert Secret(VALUE).reveal() == VALUE
    assert not hasattr(Secret(VALUE), "__dict__")


def test_an_empty_one_is_false():
    """As an empty string is."""
    assert [bool(Secret("")), bool(Secret("0"))] == [False, True]


@given(st.text(), st.text())
def test_equal_by_value_whatever_the_value_is(one, other):
    """Any text, also what is no UTF-8: comparing raises nothing while an answer is being saved."""
    assert (Secret(one) == Secret(other)) == (one == other)
    assert (Secret(one) != Secret(other)) == (one != other)
    assert hash(Secret(one)) == hash(Secret(one))


def test_halves_of_characters_are_compared_as_well():
    """A lone surrogate, which JSON can hold and UTF-8 can't."""
    assert Secret("\ud800") == Secret("\ud800")
    assert Secret("\ud800") != Secret("\udfff")


def test_never_equal_to_a_string():
    """Who compares with a str has revealed one too many."""
    assert Secret(VALUE) != VALUE
    assert Secret(VALUE) not in [VALUE, None, VALUE.encode()]


def test_it_can_be_a_member_of_a_set():
    """Equal ones are one."""
    assert len({Secret("a"), Secret("a"), Secret("b")}) == 2


def test_a_format_shows_what_repr_shows():
    """Not the value, and not nothing either; and sets of them are no lists."""
    secret = Secret("value-1")
    assert f"{secret}" == f"{secret:>40}" == repr(secret)
    assert hash(secret) == hash(Secret("value-1"))
    assert len({hash(Secret(f"value-{number}")) for number in range(100)}) > 1
