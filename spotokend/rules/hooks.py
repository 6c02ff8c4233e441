"""Which hook wants which notice, and how a command is told of it. Pure.

What a hook is given can't hurt it, or whoever reads it: a notice holds no secret, what came from
outside has lost its control characters, and no word of it is taken for an option or for markup.
"""

from __future__ import annotations

import html
from collections.abc import Iterable, Iterator, Mapping

from spotokend.rules.config.values import HookConfig

from .notice import Level, Notice
from .schedule import Wall

NOTIFY_SEND = "notify-send"
"""Of libnotify; each desktop that has notifications has it, or lacks but this package."""

_URGENCY = {Level.ERROR: "critical", Level.WARNING: "normal"}


def heard(event: Mapping[str, object]) -> Notice | None:
    """The notice in a map off the wire; None where a daemon of another kind sent something else."""
    match event:
        case {
            "kind": str(kind),
            "level": str(level),
            "account": str() | None as account,
            "message": str(message),
            "hint": str() | None as hint,
            "at": float(at),
        } if level in set(Level):
            return Notice(kind, Level(level), account, message, hint, Wall(at))
    return None


def wanting(hooks: Iterable[HookConfig], notice: Notice) -> Iterator[HookConfig]:
    """The hooks that are for this notice."""
    for hook in hooks:
        kind = notice.level is not Level.DEBUG if hook.kinds is None else notice.kind in hook.kinds
        if kind and (hook.accounts is None or notice.account in hook.accounts):
            yield hook


def fields(notice: Notice) -> dict[str, str]:
    """The notice as environment variables; empty is what it hasn't.

    ``SPOTOKEND_ACCOUNT`` is also what every command of spotokend reads where none is named.
    """
    return {
        "SPOTOKEND_KIND": _plain(notice.kind),
        "SPOTOKEND_LEVEL": notice.level.value,
        "SPOTOKEND_ACCOUNT": _plain(notice.account or ""),
        "SPOTOKEND_MESSAGE": _plain(notice.message),
        "SPOTOKEND_HINT": _plain(notice.hint or ""),
        "SPOTOKEND_AT": f"{notice.at:.3f}",
    }


def command(hook: HookConfig, notice: Notice) -> tuple[str, ...]:
    """The program to be started and its arguments."""
    return hook.command or _notification(notice)


def _notification(notice: Notice) -> tuple[str, ...]:
    body = f"{notice.message}\n{notice.hint}" if notice.hint else notice.message
    return (
        NOTIFY_SEND,
        "--app-name=spotokend",
        f"--urgency={_URGENCY.get(notice.level, 'low')}",
        "--",
        f"spotokend: {_plain(notice.account)}" if notice.account else "spotokend",
        # Servers may read a little HTML in it: Desktop Notifications Specification, "Markup".
        html.escape("\n".join(map(_plain, body.split("\n"))), quote=False),
    )


def _plain(text: str) -> str:
    """On one line, and with nothing that a terminal or execve(2) would take for something else."""
    return "".join(letter if letter.isprintable() else "\ufffd" for letter in text)
