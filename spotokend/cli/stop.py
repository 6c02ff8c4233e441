"""``spotokend stop``: end the daemon, and be back when it has ended."""

from __future__ import annotations

import argparse
import os
import select

from ..client import Client
from ..errors import Unavailable
from . import terminal

PATIENCE = 90.0
"""Seconds. A refresh under way is finished first, which takes 70 at most, and then stored."""


def run(arguments: argparse.Namespace) -> int:  # noqa: ARG001 - every command is called alike
    """Stop the daemon and wait for the end of its process."""
    client = Client()
    process = _process(client.status()["daemon"])
    try:
        client.call("stop")
        # A script that starts it again right away must find the lock free.
        if process is not None and not _ended(process, PATIENCE):
            raise Unavailable(
                "spotokend was told to stop and hasn't ended yet",
                hint="its log says what it waits for: journalctl --user -u spotokend, or the file "
                "that run --detach named",
            )
    finally:
        if process is not None:
            os.close(process)
    terminal.say("spotokend has stopped.")
    return 0


def _process(daemon: object) -> int | None:
    """A descriptor of the daemon's process, which no other process can be taken for."""
    assert isinstance(daemon, dict)
    try:
        return os.pidfd_open(daemon["pid"])
    except OSError:  # in a container of its own
        return None


def _ended(process: int, seconds: float) -> bool:
    poll = select.poll()
    poll.register(process, select.POLLIN)
    return bool(poll.poll(int(seconds * 1000)))
