"""``spotokend watch``: one line an event, as it happens."""

from __future__ import annotations

import argparse
import json
import time

from ..client import Client
from ..rules.notice import in_words
from . import terminal
from .status_text import STATES


def run(arguments: argparse.Namespace) -> int:
    """Print events until Ctrl-C, or until the daemon stays away."""
    events = Client().watch(arguments.accounts or None, tokens=arguments.tokens)
    for method, event in events:
        if arguments.json:
            terminal.show(json.dumps({"event": method, **event}))
        else:
            now = time.time()
            terminal.show(f"{terminal.civil(now)}  {terminal.clean(describe(method, event, now))}")
        terminal.flush()  # whoever reads a pipe wants it now
    return 0


def describe(method: str, event: dict[str, object], now: float) -> str:
    """An event in one line."""
    account = event.get("account")
    match method, event:
        case "state", {"state": str(state)}:
            words = [STATES.get(state, state)]
            if isinstance(due := event.get("due_at"), float):
                words.append(f"next refresh in {in_words(due - now)}")
            if event.get("reason"):
                words.append(str(event["reason"]))
            return f"{account}: {'; '.join(words)}{_cure(event)}"
        case "notice", {"level": level, "message": message}:
            return f"{account or 'spotokend'}: {level}: {message}{_cure(event)}"
        case "token", {"access_token": token, "expires_at": float(expires_at)}:
            return f"{account}: a token, good for {in_words(expires_at - now)}: {token}"
        case "resync", _:
            return "events were missed; what follows is the present state"
    return f"{account or 'spotokend'}: {method}"  # of a newer daemon


def _cure(event: dict[str, object]) -> str:
    return f" → {event['hint']}" if event.get("hint") else ""
