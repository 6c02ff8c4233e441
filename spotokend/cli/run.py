"""``spotokend run``: the daemon itself."""

from __future__ import annotations

import argparse
import os

from .. import paths
from . import terminal


def run(arguments: argparse.Namespace) -> int:
    """Serve until SIGTERM, Ctrl-C or ``spotokend stop``."""
    from ..service import daemon  # everything that the daemon needs, and no other command

    config: str = arguments.config or paths.config_path()
    if not arguments.detach:
        return daemon.run(config, log_level=arguments.log_level)

    from ..adapters import detach
    from ..adapters.config_file import read_config
    from ..adapters.hardening import forbid_dumps
    from ..service import places

    forbid_dumps()  # the configuration may hold a secret
    detach.refuse_under_systemd(os.environ)
    config = os.path.abspath(config)  # the daemon's folder is another
    if os.environ.get("SPOTOKEND_SOCK"):
        os.environ["SPOTOKEND_SOCK"] = os.path.abspath(os.environ["SPOTOKEND_SOCK"])
    known = read_config(config)  # what is wrong with it is told here and now
    log, pid = f"{places.place_of_store(known)}.log", f"{places.place_of_socket(known)}.pid"
    status = detach.detached(
        lambda ready: daemon.run(config, log_level=arguments.log_level, ready=ready),
        pid_path=pid,
        log_path=log,
    )
    if status is not None:
        return status  # of the daemon, in its own process
    terminal.say(f"spotokend runs in the background. Its log: {log}\nTo end it: spotokend stop")
    return 0
