"""``spotokend unlock``: the daemon asks again."""

from __future__ import annotations

from spotokend.cli import main
from spotokend.errors import Locked


def test_unlocked_is_said(daemon, capsys):
    """Also where it was before."""
    daemon.answers["unlock"] = None

    assert main(["unlock"]) == 0
    assert capsys.readouterr() == ("", "The logins are unlocked.\n")


def test_still_locked_is_status_5_with_what_to_do(daemon, capsys):
    """The daemon's words."""
    daemon.answers["unlock"] = Locked("the keyring is locked", hint="open it")

    assert main(["unlock"]) == 5
    assert capsys.readouterr().err == "spotokend: the keyring is locked\n  → open it\n"
