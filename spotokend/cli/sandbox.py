"""``spotokend sandbox``: the offline stand-in for Spotify, with a configuration that uses it."""

from __future__ import annotations

import argparse

from ..errors import BadRequest
from ..sandbox import Options, Rotation, Sandbox, ready_configuration
from ..sandbox import run as run_sandbox
from . import terminal


def run(arguments: argparse.Namespace) -> int:
    """Serve until Ctrl-C or SIGTERM."""
    try:
        options = Options(
            access_life=arguments.token_life,
            grant_life=arguments.grant_life,
            rotation=Rotation(arguments.rotation),
            grace=arguments.grace,
            revoke_family=not arguments.keep_family,
            auto_approve=arguments.auto_approve,
        )
    except ValueError as error:
        raise BadRequest(str(error), hint="spotokend sandbox --help") from None
    run_sandbox(options, port=arguments.port, ready=_tell)
    return 0


def _tell(sandbox: Sandbox) -> None:
    terminal.show(ready_configuration(sandbox.url, sandbox.provider.options).rstrip("\n"))
    terminal.flush()
    terminal.say(
        f"The sandbox is ready at {sandbox.url}, where a page describes it; Ctrl-C ends it.\n"
        "With the configuration above in a file, and the secrets exported that it names:\n"
        "  spotokend run --config FILE"
    )
