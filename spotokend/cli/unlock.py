"""``spotokend unlock``: have the daemon ask for the store's key again, now."""

from __future__ import annotations

import argparse

from ..client import Client
from . import terminal

PATIENCE = 600.0
"""Seconds: somebody may have to type a passphrase."""


def run(arguments: argparse.Namespace) -> int:  # noqa: ARG001 - every command is called alike
    """Return when the logins are unlocked."""
    Client(timeout=PATIENCE).call("unlock")
    terminal.say("The logins are unlocked.")
    return 0
