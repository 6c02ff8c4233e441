"""``spotokend demo``: what a stranger sees first."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from spotokend.cli import demo, main

ACCOUNTS = ("alice", "bob", "machine")


@contextmanager
def started(short_path: Path, *options: str) -> Iterator[subprocess.Popen[str]]:
    """The demo as a process, with ``short_path`` for its temporary files."""
    process = subprocess.Popen(
        [sys.executable, "-m", "spotokend", "demo", *options],
        env=os.environ | {"TMPDIR": str(short_path)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


@pytest.mark.timeout(120)
def test_once_ends_by_itself_after_two_refreshes_of_each_account(short_path: Path):
    """Status 0, an outage that nobody who asks has noticed, and nothing left behind."""
    with started(short_path, "--once") as process:
        shown, said = process.communicate(timeout=100)
    assert process.returncode == 0, said
    for account in ACCOUNTS:
        assert re.search(rf"{account}: token 3, \d+ s before the end", shown)
    began, ended = shown.index("the provider fails"), shown.index("the provider is back")
    assert began < ended
    assert " 0 s" not in shown  # no bar is ever empty
    assert "sandbox-" not in shown.replace("sandbox-account", "")  # no token is shown
    assert list(short_path.iterdir()) == []


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_ends_it_and_removes_its_folder(short_path: Path, how: int):
    """As a person ends it, or whoever started it: quietly, with the daemon gone too."""
    with started(short_path) as process:
        assert process.stdout is not None
        while "alice" not in process.stdout.readline():
            pass
        process.send_signal(how)
        _, said = process.communicate(timeout=20)
    assert process.returncode == 130
    assert "Traceback" not in said
    assert list(short_path.iterdir()) == []


def test_a_daemon_that_does_not_start_is_told_with_its_own_words(
    short_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    """For instance where another configuration could not be read."""
    monkeypatch.setenv("TMPDIR", str(short_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    monkeypatch.setattr(demo, "ready_configuration", lambda *_, **__: "[clients.x]\nclient = 1\n")
    assert main(["demo", "--once"]) == 1
    told = capsys.readouterr().err
    assert "the daemon did not start" in told
    assert "clients.x.client" in told


def test_once_does_not_wait_for_ever(
    short_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    """Where the refreshes don't come the status is not 0."""
    monkeypatch.setenv("TMPDIR", str(short_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    monkeypatch.setattr(demo, "PATIENCE", 1.0)
    assert main(["demo", "--once"]) == 1
    assert "were not refreshed 2 times" in capsys.readouterr().err
