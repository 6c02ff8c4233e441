"""Where things are."""

from __future__ import annotations

import os

import pytest

from spotokend import paths

HOME = {"HOME": "/home/ada"}


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        ({"SPOTOKEND_SOCK": "/s"}, "/s"),
        ({"SPOTOKEND_SOCK": "/s", "XDG_RUNTIME_DIR": "/run/user/7"}, "/s"),
        ({"XDG_RUNTIME_DIR": "/run/user/7"}, "/run/user/7/spotokend/spotokend.sock"),
        (
            {"SPOTOKEND_SOCK": "", "XDG_RUNTIME_DIR": "/run/user/7"},
            "/run/user/7/spotokend/spotokend.sock",
        ),
    ],
)
def test_socket(environ, expected):
    """The variable, else the runtime folder."""
    assert paths.socket_path(environ) == expected


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        ({"SPOTOKEND_CONFIG": "/c"}, "/c"),
        ({**HOME, "SPOTOKEND_CONFIG": ""}, "/home/ada/.config/spotokend/config.toml"),
        ({**HOME, "XDG_CONFIG_HOME": "/etc/xdg"}, "/etc/xdg/spotokend/config.toml"),
        ({**HOME, "XDG_CONFIG_HOME": ""}, "/home/ada/.config/spotokend/config.toml"),
        ({**HOME, "XDG_CONFIG_HOME": "etc"}, "/home/ada/.config/spotokend/config.toml"),
    ],
)
def test_config(environ, expected):
    """The variable, else the XDG folder; a relative one counts as none."""
    assert paths.config_path(environ) == expected


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        (HOME, "/home/ada/.local/state/spotokend"),
        ({**HOME, "XDG_STATE_HOME": "/var/state"}, "/var/state/spotokend"),
        ({**HOME, "XDG_STATE_HOME": "../state"}, "/home/ada/.local/state/spotokend"),
    ],
)
def test_state(environ, expected):
    """The XDG folder, else the usual one in the home."""
    assert paths.state_dir(environ) == expected


@pytest.mark.parametrize("base", [None, "", "run"])
def test_runtime_without_the_variable(monkeypatch, tmp_path, base):
    """The folder of the login manager where there is one, so that cron meets the session."""
    environ = HOME if base is None else {**HOME, "XDG_RUNTIME_DIR": base}
    usual = f"/run/user/{os.getuid()}"
    monkeypatch.setattr(os.path, "isdir", lambda path: path == usual)
    allowed = [True]
    monkeypatch.setattr(os, "access", lambda path, mode: path == usual and allowed[0])
    assert paths.runtime_dir(environ) == f"{usual}/spotokend"

    allowed[0] = False
    assert paths.runtime_dir(environ) == "/home/ada/.local/state/spotokend/run"

    monkeypatch.setattr(os.path, "isdir", lambda _: False)
    assert paths.runtime_dir(environ) == "/home/ada/.local/state/spotokend/run"


def test_home_without_the_variable(monkeypatch):
    """Without HOME the user database knows it."""
    monkeypatch.delenv("HOME")
    assert paths.state_dir({}) == os.path.expanduser("~/.local/state/spotokend")


def test_the_process_itself(monkeypatch):
    """By default the environment is this process's, as it is now."""
    for name in ("SPOTOKEND_SOCK", "SPOTOKEND_CONFIG"):
        monkeypatch.delenv(name, raising=False)
    for name in ("XDG_RUNTIME_DIR", "XDG_CONFIG_HOME", "XDG_STATE_HOME"):
        monkeypatch.setenv(name, f"/now/{name}")

    assert paths.socket_path() == "/now/XDG_RUNTIME_DIR/spotokend/spotokend.sock"
    assert paths.runtime_dir() == "/now/XDG_RUNTIME_DIR/spotokend"
    assert paths.config_path() == "/now/XDG_CONFIG_HOME/spotokend/config.toml"
    assert paths.state_dir() == "/now/XDG_STATE_HOME/spotokend"


def test_what_could_not_be_saved_lies_beside_the_socket():
    """In a folder that no other socket's daemon has."""
    assert paths.unsaved_dir("/run/a/b.sock") == "/run/a/b.sock.unsaved"
