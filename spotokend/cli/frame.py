"""One frame of a live view: a scene, drawn for a terminal of some size.

A frame never has more lines than the terminal, nor a line that is wider, whatever the scene holds:
columns give way in a fixed order, names are cut, words are folded, the oldest happenings go. What
colour tells is told by a sign or a word too.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from rich.cells import cell_len
from rich.console import Console
from rich.text import Text

from ..rules.notice import in_words
from .scene import Scene
from .status_text import (
    HEALTH_COLOURS,
    due,
    facts,
    left,
    life_bar,
    login_end,
    state_words,
    troubles,
    who,
)
from .terminal import clean

Row = Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Column:
    """A column of the accounts' table; the widths are cells."""

    title: str = ""
    width: int = 0
    gap: int = 2
    """To the next one."""
    right: bool = False


COLUMNS = {
    "sign": Column(width=1, gap=1),
    "account": Column(title="ACCOUNT"),
    "who": Column(title="AS"),
    "state": Column(title="STATE", width=11),
    "bar": Column(title="TOKEN", width=12, gap=1),
    "left": Column(title="LEFT", width=7, right=True),
    "refresh": Column(title="REFRESH", width=9, right=True),
    "login": Column(title="LOGIN", width=8, right=True),
    "number": Column(title="NO.", width=4, right=True),
}
"""Names are as wide as they need to be, and the bar as there is room for."""
EXPENDABLE = ("number", "who", "login", "refresh", "state", "bar", "left")
"""Which column goes first where a line is too short."""
NAMES_SHARE = 5
"""A name may have this part of the line; all others would pay for a longer one."""
LEAST_WHO = 8
LONGEST_BAR = 48

SIGNS = {"ok": "✓", "degraded": "!", "failing": "✗"}
LEVELS = {"info": "", "quiet": "dim", "warning": "yellow", "error": "red"}
SHORT = {
    "needs_login": "needs login",
    "waiting": "will retry",
    "unsaved": "unsaved",
    "elsewhere": "other host",
    "quarantined": "refused",
}
"""States whose words would take the bar's place."""
FLASH = 2.0
"""Seconds for which a refresh is pointed at: it takes some milliseconds itself."""
LEAST_HAPPENINGS = 5
LEAST_TROUBLES = 5
"""Lines that the accounts leave for these, where there are so many: one is blank."""


def draw(scene: Scene, now: float, console: Console, hint: str = "") -> list[Text]:
    """The lines for a console of that size, from the top; fewer where there is less to show.

    ``hint``: some words at the end of the first line.
    """
    width, height = console.size
    lines = [_head(scene, now, width, hint)]
    if scene.caption:
        lines += _fold(Text(clean(scene.caption), "bold cyan"), console)
    lines.append(Text())
    lines += _accounts(scene, now, console, height - len(lines) - LEAST_HAPPENINGS)
    lines += _happenings(scene, console, height - len(lines))
    del lines[height:]
    for line in lines:
        line.rstrip()
        line.truncate(width, overflow="ellipsis")
    return lines


def _head(scene: Scene, now: float, width: int, hint: str) -> Text:
    daemon = scene.daemon
    name = Text(f"spotokend {clean(daemon['version'])}", "bold")
    if scene.away_since is not None:
        words = (
            f"{SIGNS['failing']} doesn't answer since {_clock(scene.away_since)}; waiting for it"
        )
        return Text(" · ").join([name, Text(words, "red")])
    count = daemon["accounts"]
    parts = [
        name,
        _health(daemon["health"], f" {clean(daemon['health'])}"),
        Text(f"{count} account{'' if count == 1 else 's'}"),
        Text(f"running for {in_words(now - daemon['started_at'])}"),
        Text(f"process {daemon['pid']}"),
    ]
    end = Text(hint, "dim")
    separator = Text(" · ")
    while len(parts) > 1 and separator.join(parts).cell_len + 2 + end.cell_len > width:
        parts.pop()
    head = separator.join(parts)
    head.pad_right(width - head.cell_len - end.cell_len)
    return head.append_text(end)


def _accounts(scene: Scene, now: float, console: Console, room: int) -> list[Text]:
    """The rows, and what is wrong or the one account's story; ``room`` is for all of that."""
    if not scene.accounts:
        return [Text("No account yet."), Text("  → spotokend login", "bold")]
    rows, hidden = _rows(scene, room - 1)
    lines = _table(scene, rows, now, console.width)
    if hidden:
        lines.append(Text(f"  and {hidden} more", "dim"))
    if scene.account is not None:
        told = [Text(line) for row in rows for line in facts(row, scene.clients, now)]
    else:
        status = {"daemon": scene.daemon, "clients": scene.clients, "accounts": rows}
        told = [Text(line, _trouble_style(line)) for line in troubles(status, now)]
    folded = [part for line in told for part in _fold(line, console, indent=4)]
    return [*lines, *[Text(), *folded][: room - len(lines)]] if folded else lines


def _rows(scene: Scene, room: int) -> tuple[list[Row], int]:
    """The accounts that are shown, and the number of those that aren't."""
    ailing = any(account["reason"] for account in scene.accounts.values())
    if ailing or any(client["gate"]["state"] != "open" for client in scene.clients.values()):
        room -= LEAST_TROUBLES
    if len(scene.accounts) > room:
        room -= 1  # to say so
    rows = scene.rows(max(1, room))
    return rows, len(scene.accounts) - len(rows)


def _trouble_style(line: str) -> str:
    if line.startswith("  →"):
        return "bold"
    return "" if line.startswith(" ") else "yellow"


def _table(scene: Scene, rows: list[Row], now: float, width: int) -> list[Text]:
    names = max(cell_len(clean(row["account"])) for row in rows)
    people = max(cell_len(who(row)) for row in rows)
    widths = _widths(names, people, width)
    lines = [_line({name: Text(COLUMNS[name].title, "dim") for name in widths}, widths)]
    for row in rows:
        line = _line(_cells(scene, row, now, widths.get("bar", 0)), widths)
        if scene.away_since is not None:
            line.stylize("dim")  # it is what was known last
        lines.append(line)
    return lines


def _widths(names: int, people: int, width: int) -> dict[str, int]:
    """The columns that a line of ``width`` has room for, and their cells."""
    widths = {name: column.width for name, column in COLUMNS.items()}
    most = width // NAMES_SHARE
    widths["account"] = max(min(names, most), len(COLUMNS["account"].title))
    widths["who"] = min(people, most)
    if not people:
        del widths["who"]
    for name in EXPENDABLE:
        missing = _taken(widths) - width
        if missing <= 0:
            break
        if name == "who" and widths.get(name, 0) - missing >= LEAST_WHO:
            widths[name] -= missing
        else:
            widths.pop(name, None)
    if "bar" in widths:
        widths["bar"] = min(LONGEST_BAR, widths["bar"] + width - _taken(widths))
    return widths


def _taken(widths: Mapping[str, int]) -> int:
    *before, last = widths
    return sum(widths[name] + COLUMNS[name].gap for name in before) + widths[last]


def _line(cells: Mapping[str, Text], widths: Mapping[str, int]) -> Text:
    line = Text()
    for name, width in widths.items():
        cell, column = cells[name], COLUMNS[name]
        cell.truncate(width, overflow="ellipsis")
        pad = width - cell.cell_len
        cell.pad_left(pad if column.right else 0)
        cell.pad_right((0 if column.right else pad) + column.gap)
        line.append_text(cell)
    return line


def _cells(scene: Scene, row: Row, now: float, bar: int) -> dict[str, Text]:
    colour = HEALTH_COLOURS.get(row["health"], "")
    state = Text(SHORT.get(row["state"], state_words(row)))
    if now - scene.refreshed_at.get(row["account"], float("-inf")) < FLASH:
        state = Text("refreshed", f"bold {colour}")
    elif row["state"] != "fresh":
        state.stylize(colour)
    lives, gone = life_bar(row, now, bar)
    return {
        "sign": _health(row["health"]),
        "account": Text(clean(row["account"])),
        "who": Text(who(row), "dim"),
        "state": state,
        "bar": Text.assemble((lives, colour), (gone, "dim")),
        "left": Text(left(row, now)),
        "refresh": Text(due(row["due_at"], now)),
        "login": Text(login_end(row, scene.clients, now).removeprefix("in ")),
        "number": Text(str(row["generation"]), "dim"),
    }


def _health(health: str, words: str = "") -> Text:
    return Text(SIGNS.get(health, "?") + words, HEALTH_COLOURS.get(health, ""))


def _happenings(scene: Scene, console: Console, room: int) -> list[Text]:
    """A blank line and the newest that fit, each folded below its own beginning."""
    lines: list[Text] = []
    for happening in reversed(scene.happenings):
        style = LEVELS.get(happening.level, "")
        words = Text.assemble((f"{_clock(happening.at)}  ", "dim"), (str(happening), style))
        folded = _fold(words, console, indent=10)
        if len(lines) + len(folded) >= room:
            break
        lines[:0] = folded
    return [Text(), *lines] if lines else []


def _clock(at: float) -> str:
    return time.strftime("%H:%M:%S", time.localtime(at))


def _fold(text: Text, console: Console, *, indent: int = 0) -> list[Text]:
    """``text`` on as many lines as it takes, all but the first indented where there is room."""
    first, *more = text.wrap(console, console.width)
    if not more:
        return [first]
    if console.width < 3 * indent:
        indent = 0
    rest = text[len(text) - len(text.plain[len(first) :].lstrip()) :]
    folded = rest.wrap(console, console.width - indent)
    return [first, *(Text(" " * indent).append_text(line) for line in folded)]
