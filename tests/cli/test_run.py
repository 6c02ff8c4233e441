"""``spotokend run`` hands over to the daemon, in the foreground or behind."""

from __future__ import annotations

import os
import sys
from types import SimpleNamespace

import pytest

from spotokend import paths, service
from spotokend.adapters import detach, hardening
from spotokend.cli import main

CONFIG = '[clients.spotify]\nclient_id = "client-1"\n'


@pytest.fixture
def started(monkeypatch):
    """A daemon that only takes note of how it was started, and ends with 6."""
    calls = []

    def run(config_path, *, log_level, ready=None):
        calls.append((config_path, log_level))
        if ready is not None:
            ready()
        return 6

    stand_in = SimpleNamespace(run=run)
    monkeypatch.setitem(sys.modules, "spotokend.service.daemon", stand_in)
    monkeypatch.setattr(service, "daemon", stand_in, raising=False)
    return calls


@pytest.fixture
def detached(monkeypatch):
    """Nothing is forked: what the daemon's process would do, or what the caller's would."""
    seen = SimpleNamespace(calls=[], in_daemon=False)

    def stand_in(serve, *, pid_path, log_path):
        seen.calls.append((pid_path, log_path))
        return serve(lambda: seen.calls.append("ready")) if seen.in_daemon else None

    monkeypatch.setattr(detach, "detached", stand_in)
    monkeypatch.setattr(hardening, "forbid_dumps", lambda: "")  # it would be for this process
    return seen


def test_the_usual_configuration_is_the_default(started):
    """The daemon's status is the command's."""
    assert main(["run"]) == 6
    assert started == [(paths.config_path(), None)]


def test_another_file_and_level_can_be_named(started):
    """For this run only."""
    main(["run", "--config", "FILE", "--log-level", "debug"])

    assert started == [("FILE", "debug")]


def test_a_detached_daemon_has_its_files_beside_store_and_socket(
    started, detached, tmp_path, monkeypatch, capsys
):
    """And the user is told where its log is, and how it is ended."""
    (tmp_path / "c.toml").write_text(f'{CONFIG}[store]\npath = "a.db"\n')
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SPOTOKEND_SOCK", "here.sock")

    assert main(["run", "--detach", "--config", "c.toml"]) == 0
    assert detached.calls == [(f"{tmp_path}/here.sock.pid", f"{tmp_path}/a.db.log")]
    assert started == []
    out, err = capsys.readouterr()
    assert out == ""
    assert err.splitlines() == [
        f"spotokend runs in the background. Its log: {tmp_path}/a.db.log",
        "To end it: spotokend stop",
    ]


def test_the_daemon_s_folder_is_another_and_its_places_are_not(
    started, detached, tmp_path, monkeypatch, capsys
):
    """What was relative to the caller's folder stays there; the status is the daemon's."""
    (tmp_path / "c.toml").write_text(CONFIG)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SPOTOKEND_SOCK", "here.sock")
    detached.in_daemon = True

    assert main(["run", "--detach", "--config", "c.toml", "--log-level", "error"]) == 6
    assert started == [(f"{tmp_path}/c.toml", "error")]
    assert os.environ["SPOTOKEND_SOCK"] == f"{tmp_path}/here.sock"
    assert detached.calls[1:] == ["ready"]
    assert capsys.readouterr() == ("", "")


def test_a_wrong_configuration_is_told_before_anything_is_forked(
    started, detached, tmp_path, capsys
):
    """In the terminal in which it was typed."""
    (tmp_path / "c.toml").write_text("[clients.spotify]\n")

    assert main(["run", "--detach", "--config", str(tmp_path / "c.toml")]) == 2
    assert detached.calls == []
    assert "client_id" in capsys.readouterr().err


def test_under_systemd_it_is_refused(started, detached, monkeypatch, capsys):
    """As a usage error, with what a unit says instead."""
    monkeypatch.setenv("NOTIFY_SOCKET", "/run/x")

    assert main(["run", "--detach"]) == 2
    assert detached.calls == []
    assert "ExecStart=" in capsys.readouterr().err
