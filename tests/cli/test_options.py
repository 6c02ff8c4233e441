"""The table of commands: whole, without double meanings, and honest about its defaults."""

from __future__ import annotations

from itertools import chain
from pathlib import Path

import pytest

from spotokend import cli
from spotokend.cli import options

GROUPS = [command for command in options.COMMANDS if command.commands]
LEAVES = [
    command
    for command in chain(options.COMMANDS, *(group.commands for group in GROUPS))
    if not command.commands
]


def test_names_are_unique():
    """Within the program and within each group."""
    for commands in (options.COMMANDS, *(group.commands for group in GROUPS)):
        names = [command.name for command in commands]
        assert len(set(names)) == len(names)


@pytest.mark.parametrize("command", options.COMMANDS, ids=lambda command: command.name)
def test_every_command_has_a_module(command):
    """Of its own name, beside this table."""
    assert Path(cli.__file__).with_name(f"{command.name}.py").is_file()


@pytest.mark.parametrize("command", LEAVES, ids=lambda command: command.name)
def test_every_word_is_explained(command):
    """A summary without a full stop, as it stands in a list; a help text for each word."""
    assert command.summary
    assert not command.summary.endswith(".")
    assert all(word.help for word in (*command.arguments, *command.options))


@pytest.mark.parametrize("command", LEAVES, ids=lambda command: command.name)
def test_a_default_is_one_of_the_choices(command):
    """Where there are choices and a default."""
    for option in command.options:
        assert option.default is None or not option.choices or option.default in option.choices
