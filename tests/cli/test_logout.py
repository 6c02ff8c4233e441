"""``spotokend logout``."""

from __future__ import annotations

from spotokend.cli import main


def test_a_logout_is_told(daemon, capsys):
    """Of the account that was named."""
    daemon.answers["logout"] = None

    assert main(["logout", "work"]) == 0
    assert capsys.readouterr() == ("", "Logged out work; its tokens are deleted here.\n")
    assert daemon.asked("logout") == [{"account": "work"}]
