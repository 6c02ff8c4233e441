"""``spotokend service install`` and ``uninstall``: the daemon as a systemd user unit."""

from __future__ import annotations

import argparse
import os
import shutil
import sys

from ..adapters import systemd
from . import terminal
from .parser import PROGRAM


def run(arguments: argparse.Namespace) -> int:
    """Install or remove the unit."""
    unit_dir = systemd.user_unit_dir(os.environ)
    if arguments.path[-1] == "install":
        done = systemd.install(_executable(), unit_dir)
    else:
        done = systemd.uninstall(unit_dir)
    for sentence in done:
        terminal.say(sentence)
    return 0


def _executable() -> str:
    """The command as it was called now; under ``python -m`` the script beside the interpreter."""
    called = sys.argv[0]
    if os.path.basename(called) == PROGRAM:
        return os.path.abspath(shutil.which(called) or called)
    return os.path.join(os.path.dirname(sys.executable), PROGRAM)
