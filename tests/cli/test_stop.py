"""``spotokend stop`` comes back when the daemon's process has ended, not before."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from spotokend.cli import main, stop

NO_PROCESS = 2**22 + 1
"""Above the kernel's PID_MAX_LIMIT."""


@pytest.fixture
def process():
    """Something that runs until it is told to end."""
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as running:
        yield running
        running.stdin.close()


def test_the_end_of_the_process_is_awaited(daemon, status_map, process, capsys):
    """A script may start the next daemon right away."""
    daemon.answers["status"] = status_map(pid=process.pid)
    daemon.answers["stop"] = lambda arguments: process.stdin.close()

    assert main(["stop"]) == 0
    assert os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None
    assert capsys.readouterr() == ("", "spotokend has stopped.\n")


def test_a_daemon_that_doesn_t_end_is_told(daemon, status_map, process, monkeypatch, capsys):
    """Status 5, and where to look."""
    monkeypatch.setattr(stop, "PATIENCE", 0.01)
    daemon.answers["status"] = status_map(pid=process.pid)
    daemon.answers["stop"] = None

    assert main(["stop"]) == 5
    assert "hasn't ended yet" in capsys.readouterr().err


def test_a_process_that_can_t_be_seen_is_not_awaited(daemon, status_map, capsys):
    """The daemon may be in a container."""
    daemon.answers["status"] = status_map(pid=NO_PROCESS)
    daemon.answers["stop"] = None

    assert main(["stop"]) == 0
    assert capsys.readouterr().err == "spotokend has stopped.\n"
