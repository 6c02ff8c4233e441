"""``spotokend run --detach`` as a person uses it, who has no systemd: in a terminal, then without."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import leaks
import pytest
from daemon_process import DaemonProcess
from terminal_process import TerminalProcess

from spotokend.sandbox import Options, ready_configuration, running

PATIENCE = 20.0


class Detached(DaemonProcess):
    """A world whose daemon is nobody's child."""

    def __init__(self, folder: Path, config: str) -> None:
        super().__init__(folder, config)
        self.log = folder / "home" / ".local" / "state" / "spotokend" / "store.sqlite3.log"
        self.pid_file = folder / "run" / "spotokend" / "spotokend.sock.pid"

    def written(self) -> str:
        return self.log.read_text()


def gone(pid: int) -> bool:
    """It has ended, whether or not anybody has asked how."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except FileNotFoundError:
        return True
    return "\nState:\tZ" in status


def until(true) -> None:
    """Wait until it is so."""
    deadline = time.monotonic() + PATIENCE
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.fixture
def world(short_path: Path) -> Iterator[Detached]:
    """A sandbox, and no daemon yet; whatever is left over is stopped."""
    with running(Options(auto_approve=True)) as sandbox:
        text = ready_configuration(sandbox.url, sandbox.provider.options, folder=str(short_path))
        world = Detached(short_path, text)
        yield world
        world.run("stop")
    if world.log.exists():
        leaks.search("the log", world.written())


def test_it_outlives_its_terminal_and_is_stopped(world: Detached):
    """Started, the terminal closed, a token served, stopped: and then the next one."""
    command = [sys.executable, "-m", "spotokend", "run", "--detach"]
    with TerminalProcess(command, world.environ) as terminal:
        terminal.expect("To end it: spotokend stop")
        assert terminal.wait() == 0
        # It answers by now, not some time later.
        assert world.run("token", "machine").returncode == 0
    pid = int(world.pid_file.read_text())
    assert os.getsid(pid) not in (pid, os.getsid(0))
    assert world.run("token", "machine").returncode == 0  # and the terminal is closed

    again = world.run("run", "--detach")
    assert again.returncode == 2
    assert f"spotokend runs already: process {pid} holds {world.pid_file}" in again.stderr
    foreground = world.run("run")
    assert foreground.returncode == 2
    assert f"process id {pid}" in foreground.stderr

    stopped = world.run("stop")
    assert (stopped.returncode, stopped.stderr) == (0, "spotokend has stopped.\n")
    assert gone(pid)
    assert not world.pid_file.exists()
    assert '"event": "ready"' in world.written()
    assert world.run("stop").returncode == 4


def test_a_pid_file_that_a_crash_left_is_no_obstacle(world: Detached):
    """Its number may be anybody's by now; the lock is what counts."""
    assert world.run("run", "--detach").returncode == 0
    pid = int(world.pid_file.read_text())
    os.kill(pid, 9)
    until(lambda: gone(pid))
    assert world.pid_file.read_text() == f"{pid}\n"

    assert world.run("run", "--detach").returncode == 0
    assert int(world.pid_file.read_text()) != pid
    assert world.run("token", "machine").returncode == 0


def test_why_it_can_not_start_is_told_where_it_was_typed(world: Detached):
    """The configuration, before anything is detached; and what only the daemon meets."""
    world.configure("[clients.x]\n")
    wrong = world.run("run", "--detach")
    assert (wrong.returncode, "clients.x" in wrong.stderr) == (2, True)
    assert not world.log.exists()

    world.configure('[clients.x]\nclient_id = "1"\n')
    world.log.parent.mkdir(parents=True, mode=0o700)
    world.log.with_name("store.sqlite3").write_text("this is a shopping list, and no store at all")
    world.log.with_name("store.sqlite3.lock").mkdir()
    refused = world.run("run", "--detach")
    assert refused.returncode == 2
    assert "store.sqlite3.lock can't be opened: Is a directory" in refused.stderr
    assert not world.pid_file.exists()


def test_a_unit_of_systemd_s_is_told_to_do_without(world: Detached):
    """Status 2, and nothing runs."""
    done = subprocess.run(
        world._command("run", "--detach"),
        env=world.environ | {"NOTIFY_SOCKET": str(world.folder / "notify")},
        capture_output=True,
        text=True,
        check=False,
        timeout=PATIENCE,
    )
    assert done.returncode == 2
    assert "--detach isn't for a process that systemd has started" in done.stderr
    assert not world.pid_file.exists()
