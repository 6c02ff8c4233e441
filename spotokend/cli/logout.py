"""``spotokend logout``: forget an account's grant."""

from __future__ import annotations

import argparse

from ..client import Client
from . import terminal


def run(arguments: argparse.Namespace) -> int:
    """Have the grant and the tokens deleted."""
    Client().call("logout", account=arguments.account)
    terminal.say(f"Logged out {arguments.account}; its tokens are deleted here.")
    return 0
