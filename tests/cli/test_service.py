"""``spotokend service``: which program is installed, and where."""

from __future__ import annotations

import os
import sys

import pytest

from spotokend.adapters import systemd
from spotokend.cli import main


@pytest.fixture
def manager(monkeypatch):
    """Takes the adapter's place."""
    calls = []

    def install(executable, unit_dir):
        calls.append((executable, unit_dir))
        return ["Wrote it.", "Started it."]

    def uninstall(unit_dir):
        calls.append(unit_dir)
        return ["Removed it."]

    monkeypatch.setattr(systemd, "install", install)
    monkeypatch.setattr(systemd, "uninstall", uninstall)
    return calls


def test_install_names_the_program_that_was_called(manager, monkeypatch, tmp_path, capsys):
    """By its whole path, wherever it was called from."""
    program = tmp_path / "spotokend"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(sys, "argv", ["spotokend"])

    assert main(["service", "install"]) == 0
    assert manager == [(str(program), systemd.user_unit_dir(os.environ))]
    assert capsys.readouterr() == ("", "Wrote it.\nStarted it.\n")


def test_a_relative_path_is_made_absolute(manager, monkeypatch, tmp_path):
    """``./spotokend service install``; also where it can't be found again."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["./spotokend"])

    main(["service", "install"])

    assert manager[0][0] == str(tmp_path / "spotokend")


def test_under_the_interpreter_it_is_the_script_beside_it(manager, monkeypatch):
    """``python -m spotokend service install``."""
    monkeypatch.setattr(sys, "argv", ["/somewhere/spotokend/__main__.py"])

    main(["service", "install"])

    assert manager[0][0] == os.path.join(os.path.dirname(sys.executable), "spotokend")


def test_uninstall_needs_no_program(manager, capsys):
    """Only the place of the units."""
    assert main(["service", "uninstall"]) == 0
    assert manager == [systemd.user_unit_dir(os.environ)]
    assert capsys.readouterr() == ("", "Removed it.\n")
