"""``spotokend token``: a token on stdout, and nothing else.

Once a day it says on stderr that the login ends before long: nobody but its user can renew it, and
a script that only ever asks for tokens looks at no status.
"""

from __future__ import annotations

import os
import shlex
import time

from .. import paths
from ..client import Client
from . import terminal

TYPE_CHECKING = False
if TYPE_CHECKING:  # typing itself stays out of the start of this command
    import argparse
    from collections.abc import Callable

    from ..token import Token


_SOON = 14 * 86_400.0
"""Seconds before the end of the login."""


def run(arguments: argparse.Namespace) -> int:
    """Print one token."""
    token = Client().token(
        arguments.account, min_ttl=arguments.min_ttl or 0.0, scopes=arguments.scope
    )
    terminal.show(_FORMATS[arguments.format](token))
    if token.grant_expires_at is not None:
        left = token.grant_expires_at - time.time()
        if left < _SOON and _first_today(token.account):
            _remind(token.account, left)
    return 0


def _remind(account: str, left: float) -> None:
    from ..rules.notice import in_words  # as much as all the rest of this command, once a day

    end = f"ends in {in_words(left)}" if left > 0 else "has reached its end"
    terminal.say(f"the login of {account} {end}: spotokend login {account}")


def _first_today(account: str) -> bool:
    """True once a calendar day of the user's, and only if that can be taken down."""
    stamp, now = os.path.join(paths.runtime_dir(), f"{account}.reminded"), time.time()
    try:
        try:
            told_at = os.stat(stamp).st_mtime
        except FileNotFoundError:
            os.makedirs(os.path.dirname(stamp), mode=0o700, exist_ok=True)
            os.close(os.open(stamp, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600))
        else:
            if time.localtime(told_at)[:3] == time.localtime(now)[:3]:
                return False
        os.utime(stamp, (now, now))
    except OSError:
        return False  # rather never than with each of a thousand calls
    return True


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
