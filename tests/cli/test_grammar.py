"""The values that options take, and how a command is found."""

from __future__ import annotations

import pytest

from spotokend.cli.grammar import Command, find, port, seconds


@pytest.mark.parametrize(("text", "value"), [("0", 0.0), ("2.5", 2.5)])
def test_seconds_are_a_length(text, value):
    """Finite, and not negative."""
    assert seconds(text) == value


@pytest.mark.parametrize("text", ["-1", "nan", "inf", "soon"])
def test_other_seconds_are_refused(text):
    """The parser says that in its own words."""
    with pytest.raises(ValueError, match=text):
        seconds(text)


def test_ports_are_those_of_tcp():
    """0 means any free one."""
    assert (port("0"), port("65535")) == (0, 65535)
    for text in ("-1", "65536"):
        with pytest.raises(ValueError, match=text):
            port(text)


def test_a_command_is_found_by_its_name():
    """Or not at all."""
    command = Command("run", "serve")
    assert find((command,), "run") is command
    assert find((command,), "ru") is None
