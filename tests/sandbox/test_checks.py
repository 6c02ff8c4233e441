"""Single values: what comes back, and what is said of a wrong one."""

import math

import pytest

from spotokend.sandbox import checks
from spotokend.sandbox.options import Rotation


@pytest.mark.parametrize(
    ("check", "value", "result"),
    [
        (checks.number, 3, 3.0),
        (checks.number, -0.5, -0.5),
        (checks.seconds, 0, 0.0),
        (checks.at_least_a_second, 1, 1.0),
        (checks.flag, False, False),
        (checks.text, "Č", "Č"),
        (checks.optional_text, None, None),
        (checks.optional_text, "a", "a"),
        (checks.texts, ["a", "b"], ("a", "b")),
        (checks.texts, ("a",), ("a",)),
        (checks.choice(Rotation), "always", Rotation.ALWAYS),
        (checks.choice(Rotation), Rotation.NEVER, Rotation.NEVER),
    ],
)
def test_a_good_value_comes_back_as_it_is_used(check, value, result):
    """Every check gives the value in its final type."""
    assert check("name", value) == result


@pytest.mark.parametrize(
    ("check", "value", "words"),
    [
        (checks.number, "3", "a number"),
        (checks.number, True, "a number"),
        (checks.number, math.nan, "sensible size"),
        (checks.number, math.inf, "sensible size"),
        (checks.number, 10**400, "sensible size"),
        (checks.seconds, -1, "at least 0"),
        (checks.at_least_a_second, 0.5, "at least 1"),
        (checks.flag, 1, "true or false"),
        (checks.text, 5, "a string"),
        (checks.text, "\ud800", "printable"),
        (checks.text, "a\r\nb", "printable"),
        (checks.texts, "abc", "a list"),
        (checks.texts, [1], "a string"),
        (checks.choice(Rotation), "alwys", "never, optional, always"),
        (checks.choice(Rotation), ["always"], "one of"),
    ],
)
def test_a_bad_value_is_named_and_told_what_is_wanted(check, value, words):
    """The caller reads the option's name and what it takes."""
    with pytest.raises(ValueError, match=rf"^name: .*{words}"):
        check("name", value)


@pytest.mark.parametrize("value", [0, 4, 2.0, True, "2"])
def test_integers_are_bounded(value):
    """Neither out of range nor another type."""
    with pytest.raises(ValueError, match=r"^count: a whole number from 1 to 3"):
        checks.integer("count", value, least=1, most=3)


def test_an_integer_within_its_bounds_is_itself():
    """Bounds are inclusive."""
    assert [checks.integer("n", n, least=1, most=3) for n in (1, 3)] == [1, 3]
