"""The hooks' process beside the real daemon: it is told, it outlives restarts, and it ends in order."""

from __future__ import annotations

import os
import signal
import stat
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from bystander import until
from daemon_process import DaemonProcess

from spotokend.client import Client
from spotokend.sandbox import Options, ready_configuration, running

HOOKS = """
[timing]
forced_interval = 0
[hooks.player]
command = ["{folder}/player", "an argument"]
kinds = ["token"]
token = true
[hooks.endless]
command = ["{folder}/endless"]
kinds = ["token"]
timeout = 1
"""
PLAYER = """#!/bin/sh
cd "$(dirname "$0")"
tr '\\0' '\\n' </proc/$$/environ >>environ
tr '\\0' ' ' </proc/$$/cmdline >>cmdline
read -r token
echo "$SPOTOKEND_KIND $SPOTOKEND_ACCOUNT $token" >>told.secret
test ! -e slow || sleep 0.5
echo "$SPOTOKEND_MESSAGE" >>done
"""
ENDLESS = """#!/bin/sh
sleep 300 &
echo $! >>"$(dirname "$0")/sleeping"
wait
"""


@pytest.fixture
def daemon(short_path: Path) -> Iterator[DaemonProcess]:
    """One that is not started yet, with an account that needs no login, and two hooks."""
    for name, text in (("player", PLAYER), ("endless", ENDLESS)):
        (short_path / name).write_text(text)
        (short_path / name).chmod(stat.S_IRWXU)
    options = Options(auto_approve=True)
    with running(options) as sandbox:
        config = ready_configuration(sandbox.url, options, folder=str(short_path))
        yield DaemonProcess(short_path, config + HOOKS.format(folder=short_path))


@contextmanager
def hooks(daemon: DaemonProcess) -> Iterator[tuple[subprocess.Popen[bytes], Path]]:
    """The process, and where it writes."""
    errors = daemon.folder / "hooks"
    with errors.open("wb") as file:
        process = subprocess.Popen(
            [sys.executable, "-m", "spotokend", "hooks"],
            env=daemon.environ,
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=file,
        )
    try:
        yield process, errors
    finally:
        process.kill()
        process.wait()


def lines(path: Path) -> list[str]:
    """What is written there by now."""
    return path.read_text().splitlines() if path.exists() else []


def running_still(pid: int) -> bool:
    """Whether there is such a process, and it isn't one that has ended and is not fetched yet."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text()
    except FileNotFoundError:
        return False
    return state.rpartition(")")[2].split()[0] != "Z"


def test_hooks_hear_of_every_token(daemon: DaemonProcess):
    """Before the daemon is there, after a kill of it, and to the end: told, or said to be missed."""
    folder = daemon.folder
    with hooks(daemon) as (process, errors):
        until(lambda: "until it is there, what it tells is missed" in errors.read_text())
        with daemon, Client(daemon.socket) as client:
            until(lambda: "spotokend is there" in errors.read_text())
            first = client.refresh("machine").access_token
            until(lambda: f"token machine {first}" in lines(folder / "told.secret"))
            until(lambda: "endless ran longer than 1 s and was ended" in errors.read_text())
            asleep = int(lines(folder / "sleeping")[0])
            until(lambda: not running_still(asleep))

            daemon.kill()
            daemon.start()
            until(lambda: "may have been missed" in errors.read_text())
            (folder / "slow").touch()
            second = client.refresh("machine").access_token
            until(lambda: f"token machine {second}" in lines(folder / "told.secret"))
            process.send_signal(signal.SIGTERM)
            assert process.wait(15) == 0
    # The command that ran when the end was asked for had its time.
    assert len(lines(folder / "done")) == len(lines(folder / "told.secret"))
    readable = "".join(map(Path.read_text, map(folder.joinpath, ("environ", "cmdline"))))
    assert f"SPOTOKEND_SOCK={daemon.socket}" in readable
    assert "SPOTOKEND_KIND=token" in readable
    assert [token for token in (first, second) if token in readable + errors.read_text()] == []


def test_the_second_signal_ends_it_at_once(daemon: DaemonProcess):
    """And what it has started with it; Ctrl-C counts as SIGTERM does."""
    daemon.configure(daemon.config.read_text().replace("timeout = 1", "timeout = 300"))
    with daemon, hooks(daemon) as (process, _), Client(daemon.socket) as client:
        until(lambda: client.refresh("machine") and lines(daemon.folder / "sleeping"))
        asleep = int(lines(daemon.folder / "sleeping")[0])
        process.send_signal(signal.SIGINT)
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(0.3)
        os.kill(process.pid, signal.SIGTERM)
        assert process.wait(15) == 0
        until(lambda: not running_still(asleep))
