"""What a command line is made of: commands, arguments, options, and the values that these take."""

from __future__ import annotations

import math

TYPE_CHECKING = False
if TYPE_CHECKING:  # typing itself stays out of the start of ``spotokend token``
    from collections.abc import Callable


class Argument:
    """A word by its place: ``ACCOUNT``."""

    __slots__ = ("count", "environ", "help", "name")

    def __init__(self, name: str, help: str, *, count: str = "", environ: str = "") -> None:  # noqa: A002 - argparse's own word
        self.name = name
        self.help = help
        self.count = count
        """As argparse's ``nargs``: ``""`` exactly one, ``?`` at most one, ``*`` any number."""
        self.environ = environ
        """The variable that is read where the word is missing."""


class Option:
    """A word by its name: ``--min-ttl S``; without a ``metavar`` a switch."""

    __slots__ = (
        "choices",
        "default",
        "environ",
        "flag",
        "help",
        "kind",
        "metavar",
        "repeatable",
        "short",
    )

    def __init__(
        self,
        flag: str,
        metavar: str,
        help: str,  # noqa: A002 - argparse's own word
        *,
        kind: Callable[[str], object] = str,
        default: object = None,
        choices: tuple[str, ...] = (),
        repeatable: bool = False,
        short: str = "",
        environ: str = "",
    ) -> None:
        self.flag = flag
        self.short = short
        """The same in one letter, ``-X``, where everybody knows it from other programs."""
        self.metavar = metavar
        self.help = help
        self.kind = kind
        self.default = default
        self.choices = choices
        self.repeatable = repeatable
        self.environ = environ
        """The variable that is read where the option is missing."""


class Command:
    """One command, or a group of them: ``config check``."""

    __slots__ = ("arguments", "commands", "daily", "detail", "name", "options", "summary")

    def __init__(
        self,
        name: str,
        summary: str,
        *,
        detail: str = "",
        arguments: tuple[Argument, ...] = (),
        options: tuple[Option, ...] = (),
        commands: tuple[Command, ...] = (),
        daily: bool = False,
    ) -> None:
        self.name = name
        self.summary = summary
        """One line, for the list of commands."""
        self.detail = detail
        """A paragraph, for the command's own help."""
        self.arguments = arguments
        self.options = options
        self.commands = commands
        self.daily = daily
        """Listed among what is typed every day."""


def seconds(text: str) -> float:
    """A number of seconds that makes sense as a length: finite, not negative.

    Raises:
        ValueError: it is none.
    """
    value = float(text)
    if not (math.isfinite(value) and value >= 0):
        raise ValueError(text)
    return value


def port(text: str) -> int:
    """A TCP port; 0 means any free one.

    Raises:
        ValueError: it is none.
    """
    value = int(text)
    if not 0 <= value <= 65535:
        raise ValueError(text)
    return value


def find(commands: tuple[Command, ...], name: str) -> Command | None:
    """The command of that name among ``commands``."""
    return next((command for command in commands if command.name == name), None)
