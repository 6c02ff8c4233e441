"""``spotokend status``: how all accounts are, or the story of one. Exit status 0: it answers."""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Mapping
from typing import Any

from ..client import Client
from ..rules.notice import in_words
from . import terminal
from .terminal import clean

STATES = {
    "sealed": "stored",
    "needs_login": "needs a login",
    "fresh": "fresh",
    "refreshing": "refreshing",
    "waiting": "waiting to retry",
    "unsaved": "not saved yet",
    "elsewhere": "at another host",
    "quarantined": "login refused",
    "blocked": "blocked",
}
"""The states in words short enough for a table. A newer daemon's unknown ones are shown as they are."""

_PLAIN_WIDTH = 80
_HEALTH_COLOURS = {"ok": "green", "degraded": "yellow", "failing": "red"}
_GATES = {"closed": "not asked for a while", "blocked": "refused"}


def run(arguments: argparse.Namespace) -> int:
    """Show the status."""
    status: dict[str, Any] = Client().status(arguments.account)
    if arguments.json:
        terminal.show(json.dumps(status))
    elif arguments.account:
        for line in story(status["accounts"][0], time.time()):
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
        _table(accounts, status["clients"], now)
    else:
        terminal.show("No account yet.\n  → spotokend login")
    hints = troubles(status, now)
    if hints:
        terminal.show("")
    for line in hints:
        terminal.show(line)


def _table(accounts: list[Mapping[str, Any]], clients: Mapping[str, Any], now: float) -> None:
    from rich.console import Console  # a tenth of a second, for whoever wants the table
    from rich.table import Table
    from rich.text import Text

    on_terminal = sys.stdout.isatty()
    colourful = terminal.colourful(sys.stdout)
    console = Console(
        file=sys.stdout,
        force_terminal=on_terminal,
        no_color=not colourful,
        width=None if on_terminal else _PLAIN_WIDTH,
        legacy_windows=False,
    )
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="")
    for title in ("ACCOUNT", "AS", "STATE", "TOKEN", "REFRESH", "LOGIN ENDS", "HEALTH"):
        # Names may be long, and no part of one is enough; all else is short.
        table.add_column(title, overflow="fold", no_wrap=title not in {"ACCOUNT", "AS"})
    for account in accounts:
        health = clean(account["health"])
        colour = _HEALTH_COLOURS.get(health, "") if colourful else ""
        cells = [
            clean(account["account"]),
            clean(account["display_name"] or account["user"] or ""),
            _state(account),
            _left(account["expires_at"], now),
            _due(account["due_at"], now),
            _end(account, clients, now),
        ]
        # Text, not str: rich would take brackets in a name for markup.
        table.add_row(*(Text(cell) for cell in cells), Text(health, style=colour))
    console.print(table)


def troubles(status: Mapping[str, Any], now: float) -> list[str]:
    """What is wrong and what to do, a line each; the cures are indented."""
    lines = [f"warning: {clean(warning)}" for warning in status["daemon"]["warnings"]]
    for name, client in status["clients"].items():
        gate = client["gate"]
        if gate["state"] in _GATES:
            because = gate["reason"] or "the provider asks for a pause"
            lines.append(f"client {clean(name)}: {_GATES[gate['state']]}: {clean(because)}")
            if gate["opens_at"] is not None:
                lines.append(f"  next try {_due(gate['opens_at'], now)}")
    for account in status["accounts"]:
        if account["reason"]:
            lines.append(f"{clean(account['account'])}: {clean(account['reason'])}")
            if account["hint"]:
                lines.append(f"  → {clean(account['hint'])}")
    return lines


def story(account: Mapping[str, Any], now: float) -> list[str]:
    """Everything about one account, in lines."""
    who = account["display_name"] or account["user"]
    facts = [
        ("state", _state(account) + _since(account["since"], now)),
        ("health", account["health"]),
        ("reason", account["reason"]),
        ("do", account["hint"]),
        ("logged in as", f"{who} ({account['user']})" if who else None),
        ("client", account["client"]),
        ("scopes", " ".join(account["scope"]) or "none"),
        ("token", _moment(account["expires_at"], now, "ends", "ended")),
        ("refresh", _moment(account["due_at"], now, "due", "due since")),
        ("because", account["why"]),
        ("login", _moment(account["grant_expires_at"], now, "ends", "ended")),
        ("on disk", None if account["durable"] else "not yet; see the reason"),
    ]
    lines = [clean(account["account"])]
    lines += [f"  {label:<13} {clean(value)}" for label, value in facts if value]
    if account["outcomes"]:
        lines.append("  last outcomes")
    for outcome in account["outcomes"]:
        told = clean(f"{outcome['outcome']}: {outcome['words']}")
        lines.append(f"    {terminal.civil(outcome['at'])}  {told}")
    return lines


def _state(account: Mapping[str, Any]) -> str:
    return STATES.get(account["state"], clean(account["state"]))


def _since(at: float | None, now: float) -> str:
    return "" if at is None else f", since {terminal.civil(at)} ({in_words(now - at)})"


def _left(at: float | None, now: float) -> str:
    if at is None:
        return "none"
    return in_words(at - now) if at > now else "ended"


def _due(at: float | None, now: float) -> str:
    if at is None:
        return "–"
    return f"in {in_words(at - now)}" if at > now else "now"


def _end(account: Mapping[str, Any], clients: Mapping[str, Any], now: float) -> str:
    at = account["grant_expires_at"]
    if at is None:
        flow = clients.get(account["client"], {}).get("flow")
        return "–" if flow == "client_credentials" else "unknown"
    return f"in {in_words(at - now)}" if at > now else "ended"


def _moment(at: float | None, now: float, ahead: str, past: str) -> str | None:
    if at is None:
        return None
    words = f"{ahead} in {in_words(at - now)}" if at > now else past
    return f"{words}, {terminal.civil(at)}"
