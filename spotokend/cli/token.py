"""``spotokend token``: a token on stdout, and nothing else."""

from __future__ import annotations

import shlex

from ..client import Client
from . import terminal

TYPE_CHECKING = False
if TYPE_CHECKING:  # typing itself stays out of the start of this command
    import argparse
    from collections.abc import Callable

    from ..token import Token


def run(arguments: argparse.Namespace) -> int:
    """Print one token."""
    token = Client().token(
        arguments.account, min_ttl=arguments.min_ttl or 0.0, scopes=arguments.scope
    )
    terminal.show(_FORMATS[arguments.format](token))
    return 0


def _raw(token: Token) -> str:
    return token.access_token


def _header(token: Token) -> str:
    return f"Authorization: {token.authorization}"


def _env(token: Token) -> str:
    # The name that Spotify's own examples and most scripts use; quoted, as it goes into an eval.
    return f"SPOTIFY_ACCESS_TOKEN={shlex.quote(token.access_token)}"


def _json(token: Token) -> str:
    import json  # half of this command's start, for whoever asks for it

    return json.dumps(token.to_wire())


_FORMATS: dict[str, Callable[[Token], str]] = {
    "raw": _raw,
    "header": _header,
    "env": _env,
    "json": _json,
}
