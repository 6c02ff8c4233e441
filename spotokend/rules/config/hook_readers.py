"""The values that only ``[hooks.NAME]`` has, read as in :mod:`.readers`."""

from __future__ import annotations

from spotokend.rules.notice import KINDS

from .readers import Wrong, did_you_mean, kind_of, name, show


def boolean(value: object) -> bool:
    """True or false."""
    if not isinstance(value, bool):
        raise Wrong(
            f"a boolean belongs here, not {kind_of(value)}", "write true or false, unquoted"
        )
    return value


def command(value: object) -> tuple[str, ...]:
    """A program and its arguments, as they are given to it."""
    words = _strings(value, "the program and its arguments", '["notify-me", "--loud"]')
    if not words[0].strip():
        raise Wrong("the program has no name", 'such as ["notify-me", "--loud"]')
    if words[0].startswith("~"):
        # Nobody would expand it, and "no such file" would be all that is ever said of it.
        raise Wrong(
            f"{show(words[0])}: no shell reads it, so ~ is a letter", "write the whole path"
        )
    if any("\0" in word for word in words):
        raise Wrong("no argument of a program can hold NUL", "remove the \\u0000")
    return words


def kinds(value: object) -> tuple[str, ...]:
    """Kinds of notices, each once."""
    words = _strings(value, "kinds of notices", '["login_required", "degraded"]')
    for word in words:
        if word not in KINDS:
            raise Wrong(
                f"there is no notice {show(word)}{did_you_mean(word, KINDS)}",
                f"known are: {', '.join(KINDS)}",
            )
    return tuple(dict.fromkeys(words))


def accounts(value: object) -> tuple[str, ...]:
    """Names of accounts, each once; whether they exist is known where they are logged in."""
    return tuple(dict.fromkeys(map(name, _strings(value, "accounts", '["main"]'))))


def _strings(value: object, what: str, example: str) -> tuple[str, ...]:
    if not isinstance(value, list) or not all(isinstance(word, str) for word in value):
        raise Wrong(f"{what} belong here, as an array of strings", f"such as {example}")
    if not value:
        raise Wrong("is empty", f"fill it in, such as {example}, or remove the line")
    return tuple(value)
