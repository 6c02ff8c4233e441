"""What ``status`` tells, as text: an account's state in words, the bar of its token's life, its story.

Pure: the moment is passed in. What comes from outside, names and reasons, leaves here clean.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import ceil
from typing import Any

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

HEALTH_COLOURS = {"ok": "green", "degraded": "yellow", "failing": "red"}

_GATES = {"closed": "not asked for a while", "blocked": "refused"}


def state_words(account: Mapping[str, Any]) -> str:
    """``waiting to retry``."""
    return STATES.get(account["state"], clean(account["state"]))


def who(account: Mapping[str, Any]) -> str:
    """Whose account it is; empty where nobody has logged in, or nobody needs to."""
    return clean(account["display_name"] or account["user"] or "")


def left(account: Mapping[str, Any], now: float) -> str:
    """How long the token lives: ``43 min``, ``ended``, ``none``."""
    at = account["expires_at"]
    if at is None:
        return "none"
    return in_words(at - now) if at > now else "ended"


def due(at: float | None, now: float) -> str:
    """When something is next due: ``in 28 min``, ``now``."""
    if at is None:
        return "–"
    # Not "in 0 s".
    return f"in {in_words(at - now)}" if at - now >= 0.5 else "now"


def login_end(account: Mapping[str, Any], clients: Mapping[str, Any], now: float) -> str:
    """When the login ends: ``in 30 days``, ``ended``, ``never``, ``unknown``."""
    at = account["grant_expires_at"]
    if at is None:
        if not _has_login(account, clients):
            return "–"
        return "unknown" if account["authorized_at"] is None else "never"
    return f"in {in_words(at - now)}" if at > now else "ended"


def life_bar(account: Mapping[str, Any], now: float, width: int) -> tuple[str, str]:
    """The token's life as a bar of ``width`` cells: what is left of it, and what is gone.

    It shortens towards a mark, at which the refresh is due, and is half a cell long as long as the
    token lives. Both parts are empty where there is no token, or nobody knows how long it lived.
    """
    issued_at: float | None = account["issued_at"]
    expires_at: float | None = account["expires_at"]
    due_at: float | None = account["due_at"]
    if width < 1 or issued_at is None or expires_at is None or expires_at <= issued_at:
        return "", ""
    cell = (expires_at - issued_at) / width
    # Rounded up: a living token has a bar.
    halves = max(0, min(2 * width, ceil(2 * (expires_at - now) / cell)))
    full, half = divmod(halves, 2)
    line = ["━"] * full + ["╾"] * half + ["─"] * (width - full - half)
    if due_at is not None and issued_at < due_at < expires_at:
        mark = min(width - 1, int((expires_at - due_at) / cell))
        line[mark] = {"━": "┿", "╾": "┽", "─": "┼"}[line[mark]]
    return "".join(line[: full + half]), "".join(line[full + half :])


def troubles(status: Mapping[str, Any], now: float) -> list[str]:
    """What is wrong and what to do, a line each; the cures are indented.

    What several clients have in common is told once, and not again for each of their accounts.
    """
    lines = [f"warning: {clean(warning)}" for warning in status["daemon"]["warnings"]]
    if locked := status["daemon"].get("locked"):  # an older daemon has no such field
        lines += [f"locked: {clean(locked)}", "  → spotokend unlock"]
    closed: dict[str, dict[str, float | None]] = {}
    for name, client in status["clients"].items():
        gate = client["gate"]
        if gate["state"] in _GATES:
            because = gate["reason"] or "the provider asks for a pause"
            words = f"{_GATES[gate['state']]}: {clean(because)}"
            closed.setdefault(words, {})[clean(name)] = gate["opens_at"]
    for words, clients in closed.items():
        several = len(clients) > 1
        lines.append(f"client{'s' if several else ''} {', '.join(clients)}: {words}")
        tries = [
            f"{name} {due(at, now)}" if several else due(at, now)
            for name, at in clients.items()
            if at is not None
        ]
        if tries:
            lines.append(f"  next try{':' if several else ''} {', '.join(tries)}")
    for account in status["accounts"]:
        client = status["clients"].get(account["client"])
        told = client is not None and client["gate"]["reason"] == account["reason"]
        if account["reason"] and (account["hint"] or not told):
            lines.append(f"{clean(account['account'])}: {clean(account['reason'])}")
            if account["hint"]:
                lines.append(f"  → {clean(account['hint'])}")
    return lines


def story(account: Mapping[str, Any], clients: Mapping[str, Any], now: float) -> list[str]:
    """Everything about one account, in lines."""
    lines = [clean(account["account"]), *facts(account, clients, now)]
    if account["outcomes"]:
        lines.append("  last outcomes")
    return lines + [
        f"    {terminal.civil(outcome['at'])}  {outcome_words(outcome)}"
        for outcome in account["outcomes"]
    ]


def facts(account: Mapping[str, Any], clients: Mapping[str, Any], now: float) -> list[str]:
    """What is known of one account, without its past."""
    name = account["display_name"] or account["user"]
    known = [
        ("state", state_words(account) + _since(account["since"], now)),
        ("health", account["health"]),
        ("reason", account["reason"]),
        ("do", account["hint"]),
        ("logged in as", f"{name} ({account['user']})" if name else None),
        ("client", account["client"]),
        ("scopes", " ".join(account["scope"]) or "none"),
        ("token", _moment(account["expires_at"], now, "ends", "ended")),
        ("refresh", _moment(account["due_at"], now, "due", "due since")),
        ("because", account["why"]),
        ("login", _login(account, clients, now)),
        ("on disk", None if account["durable"] else "not yet; see the reason"),
    ]
    return [f"  {label:<13} {clean(value)}" for label, value in known if value]


def outcome_words(outcome: Mapping[str, Any]) -> str:
    """How one attempt at a refresh ended."""
    return clean(f"{outcome['outcome']}: {outcome['words']}")


def _login(account: Mapping[str, Any], clients: Mapping[str, Any], now: float) -> str | None:
    at = account["grant_expires_at"]
    if at is None and _has_login(account, clients):
        if account["authorized_at"] is None:
            return "nobody knows when it ends: it was not made here"
        return f"made {terminal.civil(account['authorized_at'])}, never ends"
    return _moment(at, now, "ends", "ended")


def _has_login(account: Mapping[str, Any], clients: Mapping[str, Any]) -> bool:
    flow = clients.get(account["client"], {}).get("flow")
    return flow != "client_credentials" and account["state"] not in {"needs_login", "sealed"}


def _since(at: float | None, now: float) -> str:
    return "" if at is None else f", since {terminal.civil(at)} ({in_words(now - at)})"


def _moment(at: float | None, now: float, ahead: str, past: str) -> str | None:
    if at is None:
        return None
    words = f"{ahead} in {in_words(at - now)}" if at > now else past
    return f"{words}, {terminal.civil(at)}"
