"""``spotokend demo``: what a stranger sees first."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from terminal_process import TerminalProcess

from spotokend.cli import demo, main
from spotokend.cli.scene import Scene
from spotokend.errors import InternalError

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


@contextmanager
def on_a_terminal(short_path: Path, *options: str) -> Iterator[TerminalProcess]:
    """The same in a terminal of 80 columns."""
    command = [sys.executable, "-m", "spotokend", "demo", *options]
    with TerminalProcess(command, os.environ | {"TMPDIR": str(short_path)}) as terminal:
        yield terminal


@pytest.mark.timeout(150)
def test_once_ends_by_itself_when_everything_was_seen(short_path: Path):
    """Status 0; an outage and a new login that nobody who asks has noticed; nothing is left behind."""
    # Side by side: each takes 40 s.
    with started(short_path, "--once") as process, on_a_terminal(short_path, "--once") as terminal:
        assert terminal.wait(within=100) == 0
        shown, said = process.communicate(timeout=100)
    assert process.returncode == 0, said
    assert not terminal.screen.cursor.hidden
    for account in ACCOUNTS:
        assert re.search(rf"{account}: token 3, \d+ s before the end", shown)
        assert re.search(rf"^✓ {account} +.*[━╾┿┽]", terminal.shown, re.MULTILINE)
    acts = [
        "the provider is in trouble",
        "the provider is back",
        "alice logs in again",
        "alice: token 3 is handed out meanwhile",
        "alice: logged in again; the login ends ",
        "that was all",
    ]
    assert sorted(acts, key=shown.index) == acts
    assert "status 503" in shown
    assert "alice: logged in again; the login ends " in terminal.shown
    # No bar is ever empty, and no token is shown.
    assert not re.search(" 0 s| ended", shown)
    assert "✗" not in terminal.written
    for text in (shown, terminal.written):
        assert "sandbox-" not in text.replace("sandbox-account", "")
    assert "the demo is over" in said.lower()
    assert list(short_path.iterdir()) == []


@pytest.mark.timeout(120)
@pytest.mark.parametrize(("options", "status"), [((), 0), (("--once",), 130)])
def test_the_view_is_left_at_any_time(short_path: Path, options: tuple[str, ...], status: int):
    """That is no failure, unless there was something to be waited for; nothing is left behind."""
    with on_a_terminal(short_path, *options) as terminal:
        terminal.expect("each token is renewed ahead of its end")
        terminal.expect("✓ machine")
        terminal.type("\x03")
        assert terminal.wait() == status
        assert not terminal.screen.cursor.hidden
    assert "Traceback" not in terminal.written
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


def test_a_daemon_that_ends_ends_the_demo():
    """There would be nothing to look at."""
    scene = Scene()
    scene.miss(1.0)
    with pytest.raises(InternalError, match="the daemon of the demo has ended"):
        demo._Play(None, None, once=False).direct(scene, 1.0)


@pytest.mark.parametrize(("state", "soon"), [("fresh", True), ("unsaved", False)])
def test_the_outage_does_not_begin_in_the_middle_of_a_refresh(state: str, soon: bool):
    """What is on its way is due now, and means nothing: the outage would miss all of them."""
    play = demo._Play(None, None, once=True)
    play._scene.accounts = {
        "alice": {"state": "fresh", "due_at": time.time() + 15},
        "bob": {"state": state, "due_at": time.time()},
    }

    assert (play._until_due() < demo.OUTAGE / 2) is soon
