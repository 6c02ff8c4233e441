"""``spotokend status``: how all accounts are, or the story of one. Exit status 0: it answers."""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Mapping
from typing import Any

from ..client import Client
from ..errors import BadRequest
from ..rules.notice import in_words
from . import terminal
from .status_text import (
    HEALTH_COLOURS,
    due,
    left,
    life_bar,
    login_end,
    state_words,
    story,
    troubles,
    who,
)
from .terminal import clean

TYPE_CHECKING = False
if TYPE_CHECKING:  # rich costs a tenth of a second, for whoever wants the table
    from rich.table import Table

_PLAIN_WIDTH = 80
_LONGEST_BAR = 12
_SHORTEST_BAR = 6
"""Cells; of fewer nobody would see anything."""


def run(arguments: argparse.Namespace) -> int:
    """Show the status."""
    if arguments.live:
        if arguments.json:
            raise BadRequest(
                "--live is for people, --json for programs", hint="spotokend watch --json"
            )
        from .live import follow

        follow(Client(), arguments.account)
        return 0
    status: dict[str, Any] = Client().status(arguments.account)
    if arguments.json:
        terminal.show(json.dumps(status))
    elif arguments.account:
        for line in story(status["accounts"][0], status["clients"], time.time()):
            terminal.show(line)
    else:
        _overview(status, time.time())
    return 0


def _overview(status: Mapping[str, Any], now: float) -> None:
    daemon, accounts = status["daemon"], status["accounts"]
    terminal.show(
        f"spotokend {clean(daemon['version'])}, {clean(daemon['health'])}, "
        f"running for {in_words(now - daemon['started_at'])} (process {daemon['pid']})"
    )
    if accounts:
        terminal.show("")
        _show_table(status, now)
    else:
        terminal.show("No account yet.\n  → spotokend login")
    hints = troubles(status, now)
    if hints:
        terminal.show("")
    for line in hints:
        terminal.show(line)


def _show_table(status: Mapping[str, Any], now: float) -> None:
    from rich.console import Console

    on_terminal = sys.stdout.isatty()
    colourful = terminal.colourful(sys.stdout)
    console = Console(
        file=sys.stdout,
        force_terminal=on_terminal,
        no_color=not colourful,
        width=None if on_terminal else _PLAIN_WIDTH,
        legacy_windows=False,
    )
    table = _table(status, now, 0, colourful=colourful)
    if on_terminal and console.encoding.startswith("utf"):
        # The bar takes what is to spare, and no name is folded for it.
        room = console.width - console.measure(table).maximum - 1
        if room >= _SHORTEST_BAR:
            table = _table(status, now, min(room, _LONGEST_BAR), colourful=colourful)
    console.print(table)


def _table(status: Mapping[str, Any], now: float, bar: int, *, colourful: bool) -> Table:
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="")
    for title in ("ACCOUNT", "AS", "STATE", "TOKEN", "REFRESH", "LOGIN ENDS", "HEALTH"):
        # Names may be long, and no part of one is enough; all else is short.
        table.add_column(title, overflow="fold", no_wrap=title not in {"ACCOUNT", "AS"})
    for account in status["accounts"]:
        health = clean(account["health"])
        colour = HEALTH_COLOURS.get(health, "") if colourful else ""
        token = Text(left(account, now))
        if bar:
            lives, gone = life_bar(account, now, bar)
            blank = " " * (bar - len(lives) - len(gone) + 1)
            token = Text.assemble((lives, colour), (gone, "dim"), blank, token)
        # Text, not str: rich would take brackets in a name for markup.
        table.add_row(
            Text(clean(account["account"])),
            Text(who(account)),
            Text(state_words(account)),
            token,
            Text(due(account["due_at"], now)),
            Text(login_end(account, status["clients"], now)),
            Text(health, style=colour),
        )
    return table
