"""``service uninstall --purge`` beside a real daemon: all of ours goes, no other byte changes."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from daemon_process import DaemonProcess

from spotokend import Client
from spotokend.rules.config.parse import starter

PURGE = ("service", "uninstall", "--purge")

# A manager that keeps a diary, and whose service is the daemon with the process id in `pid`: it is
# told to end, and waited for until it is at most a zombie, which is for its own parent to reap.
SYSTEMCTL = """#!/bin/sh
echo "$@" >> '{diary}'
case "$2" in
show) echo Environment=;;
stop)
    kill "$(cat '{folder}/pid')"
    while grep -q '^State:.[^Z]' "/proc/$(cat '{folder}/pid')/status"; do sleep 0.02; done;;
esac
"""


class Place:
    """A home with neighbours of ours in it, the daemon, and what there is to be seen."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.daemon = DaemonProcess(folder, "")
        self.config = folder / "home" / ".config" / "spotokend" / "config.toml"
        self.state = folder / "home" / ".local" / "state" / "spotokend"
        self.units = folder / "home" / ".config" / "systemd" / "user"
        self.diary = folder / "diary"
        self.daemon.config.unlink()
        self.daemon.config = self.config
        self.daemon.environ["SPOTOKEND_CONFIG"] = str(self.config)
        for name, text in {
            ".config/player/config.toml": "spotokend = true",
            ".config/systemd/user/player.service": "[Service]",
            ".config/systemd/user/player.service.d/spotokend.conf": "[Service]",
            ".local/state/player/store.sqlite3": "mine",
            ".ssh/key": "mine",
            "run/spotokend.sock": "no socket",
            "spotokend/key": "a checkout, perhaps",
        }.items():
            self.write(folder / "home" / name, text)
        (folder / "run" / "bus").touch(mode=0o600)
        self.neighbours = self.snapshot()
        self.write(self.config, starter("a" * 32, [])).chmod(0o600)

    def write(self, path: Path, text: str) -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        return path

    def manage(self) -> None:
        """Have a systemctl, and the unit installed by it."""
        self.write(
            self.folder / "bin" / "systemctl",
            SYSTEMCTL.format(diary=self.diary, folder=self.folder),
        ).chmod(0o755)
        self.daemon.environ["PATH"] = f"{self.folder / 'bin'}:{os.environ['PATH']}"
        assert self.daemon.run("service", "install").returncode == 0
        # What the real one makes of `enable`.
        links = self.units / "default.target.wants"
        links.mkdir()
        (links / "spotokend.service").symlink_to(self.units / "spotokend.service")

    def snapshot(self) -> dict[str, tuple[int, object]]:
        """Mode and content of everything but what belongs to the test itself."""
        found = {}
        for path in sorted(self.folder.rglob("*")):
            name = str(path.relative_to(self.folder))
            if name.partition("/")[0] not in ("bin", "diary", "pid", "stderr"):
                mode = path.lstat().st_mode
                content: object = None
                if stat.S_ISLNK(mode):
                    content = os.readlink(path)
                elif stat.S_ISREG(mode):
                    content = path.read_bytes()
                found[name] = (mode, content)
        return found

    def settled(self) -> dict[str, tuple[int, object]]:
        """The same when the daemon has made all its files: it answers questions only then."""
        Client(self.daemon.socket).status()
        return self.snapshot()


@pytest.fixture
def place(short_path):
    return Place(short_path)


def test_a_service_is_purged_without_a_trace(place):
    """Installed, run, stopped, removed; no other file has another byte or mode. Then it's done."""
    place.manage()
    place.write(place.units / "spotokend.service.d" / "override.conf", "[Service]")
    with place.daemon:
        (place.folder / "pid").write_text(str(place.daemon.pid))
        ours = set(place.settled()) - set(place.neighbours)

        done = place.daemon.run(*PURGE)

        assert place.daemon.wait() == 0

    assert (done.returncode, done.stdout) == (0, "")
    assert place.snapshot() == place.neighbours
    announced = {line.strip() for line in done.stderr.splitlines() if line.startswith("  ")}
    gone = {str(place.folder / name) for name in ours}
    # What the daemon itself took along when it was stopped needs no word.
    assert gone - announced == {str(place.daemon.socket), f"{place.state}/store.sqlite3-wal"}
    assert announced <= gone
    assert place.diary.read_text().split("\n")[-10:-1] == [
        "--user show --property=Environment spotokend.service",
        "--user show --property=Version",
        "--user stop spotokend.socket",
        "--user stop spotokend-hooks.service",
        "--user stop spotokend.service",
        "--user reset-failed spotokend.socket",
        "--user reset-failed spotokend.service",
        "--user reset-failed spotokend-hooks.service",
        "--user daemon-reload",
    ]

    again = place.daemon.run(*PURGE)

    assert (again.returncode, place.snapshot()) == (0, place.neighbours)
    assert "There is nothing of spotokend's to remove." in again.stderr


def test_without_systemd_what_a_crash_left_is_purged(place):
    """No systemctl at all, and a daemon that was killed: its socket and log are still there."""
    place.daemon.environ["PATH"] = str(place.folder)
    with place.daemon:
        place.daemon.kill()
    assert place.daemon.socket.is_socket()

    done = place.daemon.run(*PURGE)

    assert (done.returncode, place.snapshot()) == (0, place.neighbours)
    assert done.stderr.startswith("No service is installed")


def test_without_systemd_the_unit_goes_as_well(place):
    """As in a container that was given somebody's home."""
    place.manage()
    place.daemon.environ["PATH"] = str(place.folder)

    done = place.daemon.run(*PURGE)

    assert (done.returncode, place.snapshot()) == (0, place.neighbours)
    assert "systemctl is not there: this machine runs no systemd" in done.stderr


def test_a_daemon_that_runs_on_keeps_everything(place):
    """One of `spotokend run`: the purge names it and how to end it, and works after that."""
    with place.daemon:
        before = place.settled()

        refused = place.daemon.run(*PURGE)

        assert refused.returncode == 2
        assert f"a daemon runs (process {place.daemon.pid})" in refused.stderr
        assert "→ spotokend stop" in refused.stderr
        assert place.snapshot() == before
        assert place.daemon.run("stop").returncode == 0
    assert place.daemon.run(*PURGE).returncode == 0
    assert place.snapshot() == place.neighbours


def test_a_daemon_on_another_socket_is_seen_by_its_lock(place):
    """Nobody answers on the shell's socket, and the store is in use all the same."""
    with place.daemon:
        before = place.settled()
        place.daemon.environ["SPOTOKEND_SOCK"] = str(place.folder / "another")

        refused = place.daemon.run(*PURGE)

        assert f"a daemon runs (process {place.daemon.pid})" in refused.stderr
        assert f"kill {place.daemon.pid}" in refused.stderr
        assert (refused.returncode, place.snapshot()) == (2, before)


def test_a_store_on_another_disk_behind_a_link_is_named_and_stays(place):
    """Not a byte changes there, though the daemon worked in it."""
    disk = place.folder / "disk"
    disk.mkdir(mode=0o700)
    place.state.symlink_to(disk)
    with place.daemon:
        place.daemon.terminate()
    there = {name: it for name, it in place.snapshot().items() if name.startswith("disk")}
    assert len(there) == 4

    done = place.daemon.run(*PURGE)

    assert (done.returncode, place.snapshot()) == (0, place.neighbours | there)
    assert f"{disk}: {place.state} was a link to it; see what is in it" in done.stderr


def test_a_guest_stays_and_is_named(place):
    """In a folder of ours, whose other contents go."""
    guest = place.write(place.state / "notes.txt", "mine")
    with place.daemon:
        place.daemon.terminate()

    done = place.daemon.run(*PURGE)

    assert done.returncode == 0
    assert f"{guest}: spotokend doesn't use it" in done.stderr
    assert {name: it for name, it in place.snapshot().items() if name in place.neighbours} == (
        place.neighbours
    )
    left = set(place.snapshot()) - set(place.neighbours)
    assert left == {str(path.relative_to(place.folder)) for path in (guest, place.state)}


@pytest.mark.parametrize("mode", [0o000, 0o500])
def test_a_folder_without_rights_stops_nothing_else(place, mode):
    """It can't be looked into, or nothing in it be removed: told at the end, status 1."""
    with place.daemon:
        place.daemon.terminate()
    place.state.chmod(mode)
    # What stops every other user doesn't stop root, but for one who has given that up (util-linux).
    powers = "-dac_override,-dac_read_search"
    ordinary = [] if os.geteuid() else ["setpriv", f"--bounding-set={powers}"]

    done = subprocess.run(
        [*ordinary, sys.executable, "-m", "spotokend", *PURGE],
        env=place.daemon.environ,
        capture_output=True,
        text=True,
        check=False,
    )
    place.state.chmod(0o700)

    assert done.returncode == 1
    trouble = done.stderr.partition("spotokend: this could not be removed:\n")[2]
    stuck = [place.state] if mode == 0 else place.state.iterdir()
    assert set(trouble.splitlines()[:-1]) == {f"  {path}: Permission denied" for path in stuck}
    assert not place.config.parent.exists()
    left = {name for name in place.snapshot() if name not in place.neighbours}
    assert {place.folder / name for name in left} == {place.state, *place.state.iterdir()}
    assert place.daemon.run(*PURGE).returncode == 0
    assert place.snapshot() == place.neighbours
