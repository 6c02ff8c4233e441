"""``spotokend run``: the daemon itself."""

from __future__ import annotations

import argparse

from .. import paths


def run(arguments: argparse.Namespace) -> int:
    """Serve until SIGTERM, Ctrl-C or ``spotokend stop``."""
    from ..service import daemon  # everything that the daemon needs, and no other command

    return daemon.run(arguments.config or paths.config_path(), log_level=arguments.log_level)
