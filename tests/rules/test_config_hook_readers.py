"""The values of a hook: what is taken, what is refused, and with which cure."""

import pytest

from spotokend.rules.config import hook_readers as readers
from spotokend.rules.config.readers import Wrong


@pytest.mark.parametrize(
    ("reader", "value", "read"),
    [
        (readers.boolean, True, True),
        (readers.boolean, False, False),
        (readers.command, ["light", "", "~"], ("light", "", "~")),
        (readers.kinds, ["token", "degraded", "token"], ("token", "degraded")),
        (readers.accounts, ["main", "a.b", "main"], ("main", "a.b")),
    ],
)
def test_what_is_taken(reader, value, read):
    """In its order, and what is said twice once."""
    assert reader(value) == read


@pytest.mark.parametrize(
    ("reader", "value", "said"),
    [
        (
            readers.boolean,
            "yes",
            "a boolean belongs here, not a string; write true or false, unquoted",
        ),
        (
            readers.command,
            "light --on",
            (
                "the program and its arguments belong here, as an array of strings; "
                'such as ["notify-me", "--loud"]'
            ),
        ),
        (
            readers.command,
            ["light", 1],
            (
                "the program and its arguments belong here, as an array of strings; "
                'such as ["notify-me", "--loud"]'
            ),
        ),
        (
            readers.command,
            [],
            'is empty; fill it in, such as ["notify-me", "--loud"], or remove the line',
        ),
        (readers.command, [" "], 'the program has no name; such as ["notify-me", "--loud"]'),
        (
            readers.command,
            ["~/light"],
            '"~/light": no shell reads it, so ~ is a letter; write the whole path',
        ),
        (
            readers.command,
            ["light", "\0"],
            "no argument of a program can hold NUL; remove the \\u0000",
        ),
        (
            readers.accounts,
            ["-"],
            (
                '"-" can\'t be a name; letters, digits, dots, hyphens and underscores, a letter or digit '
                "first, at most 60"
            ),
        ),
    ],
)
def test_what_is_refused(reader, value, said):
    """With the cure."""
    with pytest.raises(Wrong) as caught:
        reader(value)
    assert f"{caught.value.message}; {caught.value.hint}" == said


def test_a_kind_that_is_none_is_told_with_its_neighbour():
    """And with all that there are."""
    with pytest.raises(Wrong) as caught:
        readers.kinds(["tokens"])
    assert caught.value.message == 'there is no notice "tokens" (did you mean "token"?)'
    assert caught.value.hint.startswith("known are: login_required, grant_expiring, ")
