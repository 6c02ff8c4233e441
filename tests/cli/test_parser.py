"""Words to arguments: by the table alone, and each mistake in words of its own."""

from __future__ import annotations

import pytest

from spotokend.cli.options import COMMANDS
from spotokend.cli.parser import parse
from spotokend.errors import BadRequest


def test_a_command_gets_its_arguments():
    """Values are converted, repeated options collected, the path says which command it is."""
    arguments = parse(["token", "main", "--min-ttl", "90", "--scope", "a", "--scope", "b"])

    assert arguments.command == ("token",)
    assert arguments.account == "main"
    assert arguments.min_ttl == 90.0
    assert arguments.scope == ["a", "b"]
    assert arguments.format == "raw"


def test_a_group_s_command_has_both_names():
    """``config check``."""
    arguments = parse(["config", "check", "--config", "FILE"])

    assert arguments.command == ("config", "check")
    assert arguments.config == "FILE"


def test_collected_options_don_t_leak():
    """One command line's scopes are not the next one's."""
    parse(["token", "--scope", "a"])

    assert parse(["token"]).scope == []


def test_the_account_may_come_from_the_environment(monkeypatch):
    """An argument is stronger; an empty variable is none."""
    monkeypatch.setenv("SPOTOKEND_ACCOUNT", "work")
    assert parse(["token"]).account == "work"
    assert parse(["token", "main"]).account == "main"
    monkeypatch.setenv("SPOTOKEND_ACCOUNT", "")
    assert parse(["token"]).account is None


def test_an_option_may_come_from_the_environment(monkeypatch):
    """As the account of ``api``; and the letter is the same option as the word."""
    monkeypatch.setenv("SPOTOKEND_ACCOUNT", "work")
    assert parse(["api", "/v1/me"]).account == "work"
    assert parse(["api", "/v1/me", "--account", "main"]).account == "main"
    monkeypatch.setenv("SPOTOKEND_ACCOUNT", "")
    assert parse(["api", "/v1/me"]).account is None
    assert parse(["api", "/v1/me", "-X", "PUT"]).method == "PUT"
    assert parse(["api", "/v1/me", "-H", "A: b", "--header", "C: d"]).header == ["A: b", "C: d"]


def test_status_and_logout_ask_for_the_account_by_name(monkeypatch):
    """The variable hides no account from ``status``, and logs nobody out."""
    monkeypatch.setenv("SPOTOKEND_ACCOUNT", "work")

    assert parse(["status"]).account is None
    with pytest.raises(BadRequest, match="ACCOUNT"):
        parse(["logout"])


def test_several_accounts_can_be_watched():
    """Any number of them."""
    assert parse(["watch"]).accounts == []
    assert parse(["watch", "a", "b"]).accounts == ["a", "b"]


@pytest.mark.parametrize(
    ("words", "message", "hint"),
    [
        ([], "which command? login, token", "spotokend --help"),
        (["config"], "which command? check, init, show", "spotokend config --help"),
        (["lgoin"], "there is no command lgoin", "did you mean login?"),
        (["config", "chekc"], "there is no command chekc", "did you mean check?"),
        (["xyzzy"], "there is no command xyzzy", "spotokend --help"),
        (["--verbose"], "there is no option --verbose", "spotokend --help"),
        (["stop", "--now=1"], "there is no option --now here", "spotokend stop --help"),
        (["stop", "it"], "there is no use for it here", "spotokend stop --help"),
        (["logout"], "the following arguments are required: ACCOUNT", "spotokend logout --help"),
        (["token", "--min-ttl", "x"], "argument --min-ttl: invalid seconds value: 'x'", "--help"),
        (["token", "--format", "x"], "argument --format: invalid choice: 'x'", "--help"),
        (["config", "check", "--config"], "expected one argument", "spotokend config check --help"),
        # What is an abbreviation today is a riddle once there is another option like it.
        (["token", "--min", "1"], "there is no option --min here", "spotokend token --help"),
    ],
)
def test_each_mistake_has_its_words(words, message, hint):
    """What is wrong, and what to type instead."""
    with pytest.raises(BadRequest) as caught:
        parse(words)

    assert message in caught.value.message
    assert hint in caught.value.hint


def test_the_overview_names_every_command(capsys):
    """What is typed every day comes first."""
    with pytest.raises(SystemExit):
        parse(["--help"])
    text = capsys.readouterr().out

    for command in COMMANDS:
        assert f"  {command.name}" in text
    assert text.index("every day:") < text.index("  token") < text.index("the rest:")
    assert max(len(line) for line in text.splitlines()) <= 80


def test_a_group_has_an_overview(capsys):
    """Of its own commands, under its own name."""
    with pytest.raises(SystemExit):
        parse(["service", "--help"])
    text = capsys.readouterr().out

    assert "usage: spotokend service COMMAND" in text
    assert "commands:\n  install " in text
    assert "the rest" not in text


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command.name)
def test_each_command_explains_itself(command, capsys):
    """``--help`` names every argument and option of the table."""
    with pytest.raises(SystemExit):
        parse([command.name, "--help"])
    text = capsys.readouterr().out

    for option in command.options:
        assert option.flag in text
    for inner in command.commands:
        assert inner.name in text
