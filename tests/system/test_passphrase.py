"""The store's key under a passphrase that real programs ask for: pinentry in a terminal, systemd's agents."""

from __future__ import annotations

import os
import pty
import re
import select
import shutil
import subprocess
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from daemon_process import DaemonProcess

import spotokend
from spotokend.sandbox import Options, Sandbox, ready_configuration, running

WITHIN = 20.0
"""Seconds for each step; on an idle machine one, most of it scrypt's."""
UNDER_A_PASSPHRASE = '\n[store]\nkey = { passphrase = "pinentry" }\n'
_ESCAPE = re.compile(r"\x1b(?:\[[0-9;?]*[A-Za-z]|[()].|[=>])")


@pytest.fixture(scope="module")
def sandbox() -> Iterator[Sandbox]:
    """The provider."""
    with running(Options(auto_approve=True)) as sandbox:
        yield sandbox


class Terminal:
    """One with nobody's program in it, as GPG_TTY names it; and the person before it."""

    def __init__(self) -> None:
        self._person, self._theirs = pty.openpty()
        self.name = os.ttyname(self._theirs)

    def close(self) -> None:
        os.close(self._person)
        os.close(self._theirs)

    def answer(self, question: str, keys: str) -> None:
        """Type that once the question is there, which ends with the prompt."""
        seen = ""
        deadline = time.monotonic() + WITHIN
        while not re.search(f"{question}.*Passphrase: ", seen, re.DOTALL):
            ready, _, _ = select.select([self._person], [], [], deadline - time.monotonic())
            assert ready, f"no {question!r} came: {seen}"
            seen += _ESCAPE.sub("", os.read(self._person, 65536).decode(errors="replace"))
        os.write(self._person, keys.encode())


@contextmanager
def asked(daemon: DaemonProcess, *command: str) -> Iterator[None]:
    """A block in which that command runs, whose questions are answered; it succeeds."""
    with ThreadPoolExecutor(1) as threads:
        done = threads.submit(daemon.run, *command)
        yield
        assert done.result().returncode == 0, done.result().stderr


def token(daemon: DaemonProcess) -> str:
    """What a program gets, as soon as there is a key."""
    deadline = time.monotonic() + WITHIN
    with spotokend.Client(str(daemon.socket)) as client:
        while time.monotonic() < deadline:
            with suppress(spotokend.Locked):
                return client.token("machine").access_token
            time.sleep(0.02)
    raise AssertionError(daemon.written())


@pytest.mark.parametrize("program", ["pinentry-tty", "pinentry-curses"])
def test_from_a_file_to_a_passphrase_and_on_to_another_one(
    sandbox: Sandbox, short_path: Path, program: str
):
    """In a real pinentry: chosen, cancelled, given, mistyped, changed; and no login is lost."""
    found = shutil.which(program)
    if found is None:
        pytest.skip(f"no {program} here (Debian: apt-get install {program})")
    programs = short_path / "bin"
    programs.mkdir()
    (programs / "pinentry").symlink_to(found)
    config = ready_configuration(sandbox.url, sandbox.provider.options, folder=str(short_path))
    daemon = DaemonProcess(short_path, config)
    terminal = Terminal()
    daemon.environ |= {
        "GPG_TTY": terminal.name,
        "TERM": "xterm",
        "PATH": f"{programs}:{os.environ['PATH']}",
    }
    to_a_passphrase = ("store", "rekey", "--to", "passphrase=pinentry")

    with daemon:
        first = token(daemon)
        with asked(daemon, *to_a_passphrase):
            terminal.answer("Choose a passphrase", "correct horse\r")
            terminal.answer("Once more", "correct horse\r")

    daemon.configure(config + UNDER_A_PASSPHRASE)
    with daemon:
        terminal.answer("The passphrase for", "\r")  # empty: nobody gave one
        with asked(daemon, "unlock"):
            terminal.answer("The passphrase for", "correct horse\r")
        assert "the passphrase was not given: it was empty" in daemon.written()
        assert token(daemon) == first
        assert daemon.run("store", "rekey").returncode == 0  # the file's key opens nothing now
        with asked(daemon, *to_a_passphrase):
            terminal.answer("The passphrase for", "wrong horse\r")
            terminal.answer("That was not it", "correct horse\r")
            terminal.answer("Choose a passphrase", "battery staple\r")
            terminal.answer("Once more", "battery staple\r")

    with daemon:
        terminal.answer("The passphrase for", "correct horse\r")
        terminal.answer("That was not it", "battery staple\r")
        assert token(daemon) == first
    terminal.close()


def test_an_end_waits_for_nobody_s_answer(sandbox: Sandbox, short_path: Path):
    """Neither that of the start nor that of whoever asks for another question."""
    programs = short_path / "bin"
    programs.mkdir()
    silent = programs / "pinentry"
    silent.write_text("#!/bin/sh\necho OK\nexec sleep 60\n")
    silent.chmod(0o700)
    config = ready_configuration(sandbox.url, sandbox.provider.options, folder=str(short_path))
    daemon = DaemonProcess(short_path, config + UNDER_A_PASSPHRASE)
    daemon.environ["PATH"] = f"{programs}:{os.environ['PATH']}"
    with daemon, ThreadPoolExecutor(1) as threads:
        waiting = threads.submit(daemon.run, "unlock")
        with spotokend.Client(str(daemon.socket)) as client:
            while client.status()["daemon"]["connections"] < 2:
                time.sleep(0.01)
        assert daemon.terminate() == 0
        assert waiting.result().returncode != 0


def test_a_systemd_that_asks_no_users_is_named(sandbox: Sandbox, short_path: Path):
    """The daemon is up, and says what to change; it neither waits for an answer nor calls it cancelled."""
    if shutil.which("systemd-ask-password") is None:
        pytest.skip("no systemd-ask-password here (Debian: apt-get install systemd)")
    if b"--user" in subprocess.check_output(["systemd-ask-password", "--help"]):
        pytest.skip("this systemd is 257 or newer, and asks users")
    config = ready_configuration(sandbox.url, sandbox.provider.options, folder=str(short_path))
    daemon = DaemonProcess(short_path, config + UNDER_A_PASSPHRASE.replace("pinentry", "systemd"))
    with daemon:
        unlocked = daemon.run("unlock")
        assert unlocked.returncode == 2
        assert "can't ask its users for a passphrase: that came with 257" in unlocked.stderr
        assert 'passphrase = "pinentry"' in unlocked.stderr
        assert "that came with 257" in daemon.run("status").stdout
