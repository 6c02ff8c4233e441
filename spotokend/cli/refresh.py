"""``spotokend refresh``: renew one account's token now; the token itself isn't printed."""

from __future__ import annotations

import argparse

from ..client import Client
from ..rules.notice import in_words
from . import terminal


def run(arguments: argparse.Namespace) -> int:
    """Have the token renewed."""
    token = Client().refresh(arguments.account)
    terminal.say(f"{token.account}: a new token, good for {in_words(token.remaining)}.")
    return 0
