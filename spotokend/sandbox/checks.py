"""Checks of single values, for options and faults: the value, or a ``ValueError`` that names it."""

from __future__ import annotations

from collections.abc import Callable
from enum import StrEnum

Check = Callable[[str, object], object]
"""Takes a name and a value; gives the value as it is used from then on."""


def number(name: str, value: object) -> float:
    """A finite number."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError(f"{name}: a number, not {value!r}")
    # Compared before any conversion: an int may be too large for a float. NaN fails both.
    if not -1e12 <= value <= 1e12:
        raise ValueError(f"{name}: a number of sensible size, not {value!r}")
    return float(value)


def seconds(name: str, value: object) -> float:
    """A time, 0 or more."""
    time = number(name, value)
    if time < 0:
        raise ValueError(f"{name}: seconds, at least 0, not {value!r}")
    return time


def at_least_a_second(name: str, value: object) -> float:
    """The life of an access token: ``expires_in`` is an integer, and less would be told as 0."""
    time = number(name, value)
    if time < 1:
        raise ValueError(f"{name}: seconds, at least 1, not {value!r}")
    return time


def integer(name: str, value: object, *, least: int, most: int) -> int:
    """A whole number within bounds."""
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
        raise ValueError(f"{name}: a whole number from {least} to {most}, not {value!r}")
    return value


def flag(name: str, value: object) -> bool:
    """True or false."""
    if not isinstance(value, bool):
        raise ValueError(f"{name}: true or false, not {value!r}")
    return value


def text(name: str, value: object) -> str:
    """A string that can be sent: JSON can spell half of a surrogate pair, UTF-8 can't."""
    if not isinstance(value, str) or not value.isprintable():
        raise ValueError(f"{name}: a string of printable characters, not {value!r}")
    return value


def optional_text(name: str, value: object) -> str | None:
    """A string, or None."""
    return None if value is None else text(name, value)


def texts(name: str, value: object) -> tuple[str, ...]:
    """A list of strings."""
    if not isinstance(value, list | tuple):
        raise ValueError(f"{name}: a list of strings, not {value!r}")
    return tuple(text(name, item) for item in value)


def choice(kind: type[StrEnum]) -> Check:
    """A check for one of an enumeration's values."""

    def check(name: str, value: object) -> StrEnum:
        try:
            return kind(str(value))
        except ValueError:
            allowed = ", ".join(member.value for member in kind)
            raise ValueError(f"{name}: one of {allowed}, not {value!r}") from None

    return check
