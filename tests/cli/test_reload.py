"""``spotokend reload``: what changed, line by line."""

from __future__ import annotations

from spotokend.cli import main
from spotokend.errors import Misconfigured


def test_changes_are_data_and_warnings_are_words(daemon, capsys):
    """A script may read the former."""
    daemon.answers["reload"] = {
        "changes": ["client a: new", "b\x1b: gone"],
        "warnings": ["careful"],
    }

    assert main(["reload"]) == 0
    assert capsys.readouterr() == ("client a: new\nb\ufffd: gone\n", "warning: careful\n")


def test_no_change_is_told_too(daemon, capsys):
    """Silence would leave the user wondering."""
    daemon.answers["reload"] = {"changes": [], "warnings": []}

    assert main(["reload"]) == 0
    assert capsys.readouterr() == ("", "Nothing has changed.\n")


def test_a_bad_configuration_is_told_with_all_its_problems(daemon, capsys):
    """Status 2, each problem on its line."""
    daemon.answers["reload"] = Misconfigured("config:1: a\nconfig:2: b", hint="mend it")

    assert main(["reload"]) == 2
    assert capsys.readouterr().err == "spotokend: config:1: a\nconfig:2: b\n  → mend it\n"
