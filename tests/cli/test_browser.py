"""Which browser is opened, and where none is."""

from __future__ import annotations

import os
import time

import pytest

from spotokend.cli.browser import graphical, open_browser, remote

DISPLAY = {"DISPLAY": ":0"}
ADDRESS = "http://127.0.0.1:4000/callback/start"


@pytest.fixture
def browser(tmp_path):
    """Makes a program that takes note of how it was called; its file appears at once and whole."""

    def make(name):
        note = tmp_path / f"{name}.note"
        program = tmp_path / name
        program.write_text(
            f"#!/bin/sh\nPATH={os.defpath}\n"
            f'echo "$1|$(readlink /proc/$$/fd/1)" > {note}.new\nmv {note}.new {note}\n'
        )
        program.chmod(0o755)
        return program, note

    return make


def wait_for(path):
    deadline = time.monotonic() + 20
    while not path.exists():
        assert time.monotonic() < deadline
        time.sleep(0.01)
    return path.read_text().strip().split("|")


@pytest.mark.parametrize("shown", [DISPLAY, {"WAYLAND_DISPLAY": "wayland-0"}])
def test_a_display_shows_windows(shown):
    """X11 or Wayland."""
    assert graphical(shown)


@pytest.mark.parametrize(
    "environ",
    [
        {},
        {"DISPLAY": ""},
        {**DISPLAY, "SSH_CONNECTION": "::1 1 ::1 22"},
        {**DISPLAY, "SSH_TTY": "/dev/pts/0"},
        {**DISPLAY, "SSH_CLIENT": "::1 1 22"},
    ],
)
def test_without_a_display_of_the_user_s_no_browser_is_opened(environ):
    """A forwarded DISPLAY would open one on the far side, slow and without the user's logins."""
    assert not graphical(environ)
    assert not open_browser(ADDRESS, environ)


def test_ssh_is_recognised():
    """By any of its variables."""
    assert remote({"SSH_CONNECTION": "::1 1 ::1 22"})
    assert not remote(DISPLAY)


def test_the_user_s_browser_is_started(browser):
    """With the address, away from the terminal's output; text browsers are passed over."""
    lynx, lynx_note = browser("lynx")
    chosen, note = browser("browser")
    environ = {
        **DISPLAY,
        "PATH": os.environ["PATH"],
        "TERM": "xterm",
        "BROWSER": f"{lynx} %s:{chosen}",
    }

    assert open_browser(ADDRESS, environ)
    address, output = wait_for(note)
    assert (address, output) == (ADDRESS, "/dev/null")
    assert not lynx_note.exists()


def test_a_text_browser_alone_is_no_choice(browser, tmp_path):
    """Then the system's graphical ones are looked for; here there is one, and no real one."""
    lynx, lynx_note = browser("lynx")
    _, note = browser("xdg-open")
    environ = {**DISPLAY, "PATH": str(tmp_path), "BROWSER": str(lynx)}

    assert open_browser(ADDRESS, environ)
    assert wait_for(note)[0] == ADDRESS
    assert not lynx_note.exists()


def test_the_own_environment_is_the_default(monkeypatch):
    """Without a display, as here."""
    for name in ("DISPLAY", "WAYLAND_DISPLAY"):
        monkeypatch.delenv(name, raising=False)

    assert not open_browser(ADDRESS)
