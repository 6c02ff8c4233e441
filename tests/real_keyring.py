"""gnome-keyring on a session bus of its own: a Secret Service that nobody here wrote.

    with RealKeyring(folder) as keyring:      # locked; its password is "correct horse"
        keyring.unlock("correct horse")

Needs gnome-keyring and dbus (Debian: the packages of these names), and SecretStorage.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Self

import pytest

PASSWORD = "correct horse"
WITHIN = 10.0
"""Seconds for each step; all of them together take one on an idle machine."""

CALL = """
import sys
import secretstorage
from secretstorage.util import DBusAddressWrapper, format_secret, open_session

bus = secretstorage.dbus_init()
if sys.argv[1] == "lock":
    secretstorage.Collection(bus).lock()
else:
    # What PAM's module does at a login; there is no prompt here that somebody could type into.
    service = DBusAddressWrapper(
        "/org/freedesktop/secrets",
        "org.gnome.keyring.InternalUnsupportedGuiltRiddenInterface",
        bus,
    )
    password = format_secret(open_session(bus), sys.argv[2].encode(), "text/plain")
    service.call(
        "UnlockWithMasterPassword",
        "o(oayays)",
        "/org/freedesktop/secrets/collection/login",
        password,
    )
"""
"""A program that does what its arguments say: ``lock``, or ``unlock`` and a password."""


class RealKeyring:
    """See the module; :attr:`environ` is what its clients need."""

    def __init__(self, folder: Path) -> None:
        for program in ("gnome-keyring-daemon", "dbus-daemon"):
            if shutil.which(program) is None:
                pytest.skip("no gnome-keyring here (Debian: apt-get install gnome-keyring dbus)")
        self._folder = folder
        for name in ("home", "run"):
            (folder / name).mkdir(mode=0o700, exist_ok=True)
        self._bus: subprocess.Popen[str] | None = None
        self._daemon: subprocess.Popen[bytes] | None = None
        own = {name: text for name, text in os.environ.items() if not name.startswith("XDG_")}
        self.environ = own | {
            "HOME": str(folder / "home"),
            "XDG_RUNTIME_DIR": str(folder / "run"),
        }

    def __enter__(self) -> Self:
        # One that knows of no services: it starts no second keyring by itself.
        config = self._folder / "bus.conf"
        config.write_text(
            "<busconfig><type>session</type>"
            f"<listen>unix:path={self._folder}/bus</listen><auth>EXTERNAL</auth>"
            '<policy context="default"><allow send_destination="*" eavesdrop="true"/>'
            '<allow eavesdrop="true"/><allow own="*"/></policy></busconfig>'
        )
        self._bus = subprocess.Popen(
            ["dbus-daemon", f"--config-file={config}", "--nofork", "--print-address"],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env=self.environ,
        )
        assert self._bus.stdout is not None
        self.environ["DBUS_SESSION_BUS_ADDRESS"] = self._bus.stdout.readline().strip()
        self.start()  # makes the collection
        self.lock()
        return self

    def __exit__(self, *exception: object) -> None:
        self.stop()
        if self._bus is not None:
            self._bus.kill()
            self._bus.communicate()

    def start(self) -> None:
        """Have the service there, unlocked if it is the first time, else locked."""
        first = not (self._folder / "home" / ".local" / "share" / "keyrings").exists()
        self._daemon = subprocess.Popen(
            [
                "gnome-keyring-daemon",
                "--foreground",
                "--components=secrets",
                *(["--unlock"] if first else []),
            ],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env=self.environ,
        )
        assert self._daemon.stdin is not None
        self._daemon.stdin.write(PASSWORD.encode() if first else b"")
        self._daemon.stdin.close()
        deadline = time.monotonic() + WITHIN
        while self._ask("lock" if not first else "unlock", PASSWORD):
            assert time.monotonic() < deadline, "gnome-keyring is not there"
            time.sleep(0.02)

    def stop(self) -> None:
        """End the service: nobody answers to its name."""
        if self._daemon is not None:
            self._daemon.kill()
            self._daemon.wait()
            self._daemon = None

    def lock(self) -> None:
        """Lock the collection."""
        assert self._ask("lock") == 0

    def unlock(self, password: str) -> bool:
        """Unlock it; False where that isn't its password."""
        return self._ask("unlock", password) == 0

    def _ask(self, *arguments: str) -> int:
        return subprocess.run(
            [sys.executable, "-c", CALL, *arguments],
            env=self.environ,
            stderr=subprocess.DEVNULL,
            check=False,
        ).returncode
