"""From the words of the command line to a command and its arguments, by the table of options.

Only the parser of the command that was asked for is built. What is wrong with the words is a
:class:`BadRequest`, so that a usage error is told and ends like every other one.
"""

from __future__ import annotations

import argparse
import os

from ..errors import BadRequest
from .grammar import Command, Option, find
from .options import COMMANDS

TYPE_CHECKING = False
if TYPE_CHECKING:  # typing itself stays out of the start of ``spotokend token``
    from collections.abc import Iterable
    from typing import NoReturn

PROGRAM = "spotokend"
_ABOUT = """\
Keeps the access tokens of your Spotify accounts fresh
and hands them to local programs."""
_HELP = ("-h", "--help")


def parse(words: list[str]) -> argparse.Namespace:
    """The arguments; ``arguments.command`` is the command's name, with its group's before it.

    Raises:
        BadRequest: no such command, argument or option, or a value that can't be one.
        SystemExit: help was asked for, and printed.
    """
    path: tuple[str, ...] = ()
    commands, summary = COMMANDS, _ABOUT
    while True:
        name, words = (words[0], words[1:]) if words else ("", [])
        typed = " ".join((PROGRAM, *path))
        if name in _HELP:
            print(overview(path, commands, summary))
            raise SystemExit(0)
        if not name:
            raise BadRequest(
                f"which command? {', '.join(command.name for command in commands)}",
                hint=f"{typed} --help",
            )
        command = find(commands, name)
        if command is None:
            what = "option" if name.startswith("-") else "command"
            raise BadRequest(
                f"there is no {what} {name}",
                hint=_guess(name, (command.name for command in commands)) or f"{typed} --help",
            )
        path = (*path, command.name)
        if not command.commands:
            return _arguments(path, command, words)
        commands, summary = command.commands, f"{command.summary.capitalize()}."


def overview(path: tuple[str, ...], commands: tuple[Command, ...], summary: str) -> str:
    """The help of the program, or of a group of commands."""
    typed = " ".join((PROGRAM, *path))
    width = max(len(command.name) for command in commands)
    lines = [f"usage: {typed} COMMAND …", "", summary]
    for title, daily in (("every day:", True), ("the rest:", False)):
        listed = [command for command in commands if command.daily is daily]
        if listed:
            lines += ["", title if len(listed) < len(commands) else "commands:"]
            lines += [f"  {command.name:<{width}}  {command.summary}" for command in listed]
    return "\n".join([*lines, "", f"{typed} COMMAND --help tells more about a command."])


def _arguments(path: tuple[str, ...], command: Command, words: list[str]) -> argparse.Namespace:
    parser = _parser(path, command)
    arguments, unknown = parser.parse_known_args(words)
    if unknown:
        flag = unknown[0].partition("=")[0]
        parser.error(f"there is no {'option' if flag.startswith('-') else 'use for'} {flag} here")
    arguments.command = path
    return arguments


class _Parser(argparse.ArgumentParser):
    """argparse, but for what happens to an error."""

    def error(self, message: str) -> NoReturn:
        raise BadRequest(message, hint=f"{self.prog} --help")


def _parser(path: tuple[str, ...], command: Command) -> argparse.ArgumentParser:
    parser = _Parser(
        prog=" ".join((PROGRAM, *path)),
        description=command.detail or f"{command.summary.capitalize()}.",
        # An abbreviation that works today is a usage error once another option begins like it.
        allow_abbrev=False,
    )
    for argument in command.arguments:
        parser.add_argument(
            argument.name,
            metavar=argument.name.removesuffix("s").upper(),
            nargs=argument.count or None,
            default=(os.environ.get(argument.environ) or None) if argument.environ else None,
            help=argument.help,
        )
    for option in command.options:
        if not option.metavar:
            parser.add_argument(option.flag, action="store_true", help=option.help)
            continue
        parser.add_argument(
            *filter(None, (option.short, option.flag)),
            metavar=option.metavar,
            type=option.kind,
            action="append" if option.repeatable else "store",
            default=[] if option.repeatable else _default(option),
            choices=option.choices or None,
            help=f"{option.help}; may be repeated" if option.repeatable else option.help,
        )
    return parser


def _default(option: Option) -> object:
    return (os.environ.get(option.environ) if option.environ else None) or option.default


def _guess(name: str, known: Iterable[str]) -> str:
    from difflib import get_close_matches  # only for whoever mistyped

    close = get_close_matches(name, known, n=1)
    return f"did you mean {close[0]}?" if close else ""
