"""``spotokend reload``: apply the configuration as it is now, or nothing of it."""

from __future__ import annotations

import argparse
from typing import Any

from .. import calls
from ..client import Client
from . import terminal


def run(arguments: argparse.Namespace) -> int:  # noqa: ARG001 - every command is called alike
    """Print what changed, a line each."""
    client = Client()
    result: dict[str, Any] = calls.read_map(client.socket_path, client.call("reload"))
    for change in result["changes"]:
        terminal.show(terminal.clean(change))
    for warning in result["warnings"]:
        terminal.say(f"warning: {warning}")
    if not result["changes"]:
        terminal.say("Nothing has changed.")
    return 0
