"""``spotokend refresh``: words, and no token."""

from __future__ import annotations

import time

from spotokend.cli import main


def test_a_refresh_is_told_in_words(daemon, token_map, capsys):
    """On stderr; stdout stays empty."""
    token_map["expires_boot"] = time.clock_gettime(time.CLOCK_BOOTTIME) + 3_599.0
    daemon.answers["refresh"] = token_map

    assert main(["refresh", "main"]) == 0
    assert capsys.readouterr() == ("", "main: a new token, good for 60 min.\n")
    assert daemon.asked("refresh") == [{"account": "main"}]
