"""What is wrong with a configuration file: all of it at once, each with its line and its cure."""

from __future__ import annotations

import re
from dataclasses import dataclass

from spotokend.errors import Misconfigured

from .readers import show

Path = tuple[str, ...]
"""The parts of a dotted key, without quotes."""

_BARE = re.compile(r"[A-Za-z0-9_-]+")
_PART = re.compile(r"\"([^\"]*)\"|'([^']*)'|([A-Za-z0-9_-]+)")
_LOOKED_AT = 400
# Characters of a line: enough for a header or a key, and a file of one endless line costs nothing.


def dotted(path: Path) -> str:
    """The key as it would be written in the file."""
    return ".".join(part if _BARE.fullmatch(part) else show(part) for part in path)


@dataclass(frozen=True, slots=True)
class Problem:
    """One mistake: where, what, and the cure. No secret is in it."""

    path: Path
    message: str
    hint: str


class Problems:
    """Collects mistakes, so that one look at the file mends them all."""

    def __init__(self) -> None:
        self._found: list[Problem] = []

    def __len__(self) -> int:
        return len(self._found)

    def add(self, path: Path, message: str, hint: str) -> None:
        """Note a mistake."""
        self._found.append(Problem(path, message, hint))

    def misconfigured(self, text: str, source: str) -> Misconfigured:
        """The error that tells them all, in the order of the file's lines.

        Each line of the message is ``SOURCE:LINE: KEY: what; cure``; ``details["problems"]`` has a
        map of ``key``, ``message`` and ``hint`` for each.
        """
        lines = line_numbers(text)
        placed = sorted(
            ((_line_of(problem.path, lines), problem) for problem in self._found),
            key=lambda pair: pair[0],
        )
        return Misconfigured(
            "\n".join(_told(source, line, problem) for line, problem in placed),
            problems=[
                {"key": dotted(problem.path), "message": problem.message, "hint": problem.hint}
                for _, problem in placed
            ],
            hint=check_again(source),
        )


def check_again(source: str) -> str:
    """The cure for all of them together."""
    return f"mend {source}, then: spotokend config check"


def _told(source: str, line: int, problem: Problem) -> str:
    place = f"{source}:{line}" if line else source
    return (
        ": ".join(filter(None, (place, dotted(problem.path), problem.message)))
        + f"; {problem.hint}"
    )


def _line_of(path: Path, lines: dict[Path, int]) -> int:
    """The line of the key, else of the section it belongs to, else 0."""
    prefixes = (path[:length] for length in range(len(path), 0, -1))
    return next((lines[prefix] for prefix in prefixes if prefix in lines), 0)


def line_numbers(text: str) -> dict[Path, int]:
    """The line, from 1, at which each section and each key first stands.

    tomllib tells no places. A line is taken for what it looks like, so a multi-line string that
    looks like keys can mislead; all that depends on it is the number in a message.
    """
    lines: dict[Path, int] = {}
    section: Path = ()
    for number, line in enumerate(text.splitlines(), 1):
        start = line[:_LOOKED_AT].strip()
        key, assigned, _ = start.partition("=")
        if start.startswith("["):
            path = section = _parts(start.partition("]")[0])
        elif assigned and not start.startswith("#"):
            path = section + _parts(key)
        else:
            continue
        for length in range(1, len(path) + 1):
            lines.setdefault(path[:length], number)
    return lines


def _parts(words: str) -> Path:
    return tuple("".join(groups) for groups in _PART.findall(words))
