"""The real daemon as a process of its own, in a world of its own: for the end-to-end tests."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Self

import leaks

READY_WITHIN = 15.0
GONE_WITHIN = 15.0
"""Seconds; both take well under one on an idle machine."""


class DaemonProcess:
    """``spotokend run`` with home, XDG folders and socket inside ``folder``; a context manager.

    ``folder`` should have a short name (fixture ``short_path``), for the socket's sake. The same
    folder serves several starts: what one daemon stored, the next one finds. Clients of the test's
    own process connect to :attr:`socket`; other programs get :attr:`environ`.
    """

    def __init__(self, folder: Path, config: str) -> None:
        """Write ``config`` (TOML) to a file; nothing is started yet."""
        self.folder = folder
        self.socket = folder / "run" / "spotokend" / "spotokend.sock"
        self.config = folder / "config.toml"
        self.wrapper: tuple[str, ...] = ()
        """The command that becomes the daemon's, such as ``nsenter``; it must not fork."""
        self.errors = folder / "stderr"
        """What all daemons of this folder have written to their standard error."""
        for name in ("home", "run"):
            (folder / name).mkdir(mode=0o700, exist_ok=True)
        self.configure(config)
        home = folder / "home"
        # What coverage needs to measure subprocesses is among the rest of the environment.
        self.environ = os.environ | {
            "HOME": str(home),
            "XDG_CONFIG_HOME": str(home / ".config"),
            "XDG_STATE_HOME": str(home / ".local" / "state"),
            "XDG_RUNTIME_DIR": str(folder / "run"),
            "SPOTOKEND_CONFIG": str(self.config),
            "SPOTOKEND_SOCK": str(self.socket),
        }
        self._process: subprocess.Popen[bytes] | None = None
        self._searched = 0

    def configure(self, config: str) -> None:
        """Replace the configuration file; a running daemon reads it at its next reload."""
        self.config.touch(mode=0o600)
        self.config.write_text(config)

    @property
    def pid(self) -> int:
        """Of the daemon that was started last."""
        return self._started().pid

    def start(self, *arguments: str) -> Self:
        """Start it and wait until its socket answers.

        Raises:
            AssertionError: it ended, or was not ready in time; with what it wrote.
        """
        assert self._process is None or self._process.poll() is not None, "it still runs"
        self._process = self._launch("run", "--config", str(self.config), *arguments)
        deadline = time.monotonic() + READY_WITHIN
        while not self._answers():
            if self._process.poll() is not None:
                raise AssertionError(f"ended with {self._process.returncode}: {self.written()}")
            if time.monotonic() > deadline:
                self.kill()
                raise AssertionError(f"not ready within {READY_WITHIN:.0f} s: {self.written()}")
            time.sleep(0.01)
        return self

    def run(
        self, *arguments: str, stdin: str = "", timeout: float = 30
    ) -> subprocess.CompletedProcess[str]:
        """Run the command line in the same world: ``daemon.run("token", "--min-ttl", "3")``."""
        return subprocess.run(
            self._command(*arguments),
            env=self.environ,
            input=stdin,
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )

    def written(self) -> str:
        """All that the daemons of this folder wrote to standard output and standard error."""
        return self.errors.read_text(errors="replace") if self.errors.exists() else ""

    def reload(self) -> None:
        """SIGHUP: read the configuration again."""
        self._started().send_signal(signal.SIGHUP)

    def terminate(self) -> int:
        """SIGTERM, as systemd does; its exit status."""
        self._started().terminate()
        return self.wait()

    def kill(self) -> int:
        """SIGKILL: no last words, no last write; its exit status (-9)."""
        self._started().kill()
        return self.wait()

    def wait(self, timeout: float = GONE_WITHIN) -> int:
        """Wait for the end; the exit status, negative for a signal.

        Raises:
            subprocess.TimeoutExpired: it goes on.
            AssertionError: it has written a secret.
        """
        status = self._started().wait(timeout)
        self._search()
        return status

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *exception: object) -> None:
        if self._started().poll() is None:
            try:
                self.terminate()
            except subprocess.TimeoutExpired:
                self.kill()
                raise

    def _launch(self, *arguments: str) -> subprocess.Popen[bytes]:
        with self.errors.open("ab") as errors:
            return subprocess.Popen(
                [*self.wrapper, *self._command(*arguments)],
                env=self.environ,
                stdin=subprocess.DEVNULL,
                stdout=errors,
                stderr=errors,
            )

    def _search(self) -> None:
        """What was written since the last search, for secrets of the sandbox and the store's keys."""
        if not self.errors.exists():
            return
        with self.errors.open("rb") as file:
            file.seek(self._searched)
            words = file.read()
        self._searched += len(words)
        keys: list[str] = []
        with suppress(OSError):  # the key is elsewhere, or a test has put something in its way
            key = self.folder / "home" / ".local" / "state" / "spotokend" / "key"
            keys = [line for line in key.read_text().splitlines() if line and line[0] != "#"]
        leaks.search("the daemon's log", words.decode(errors="replace"), *keys)

    @staticmethod
    def _command(*arguments: str) -> list[str]:
        return [sys.executable, "-m", "spotokend", *arguments]

    def _started(self) -> subprocess.Popen[bytes]:
        assert self._process is not None, "no daemon has been started"
        return self._process

    def _answers(self) -> bool:
        with socket.socket(socket.AF_UNIX) as probe:
            try:
                probe.connect(str(self.socket))
            except (FileNotFoundError, ConnectionRefusedError):
                return False
        return True
