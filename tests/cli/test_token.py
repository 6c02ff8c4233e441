"""``spotokend token``: a token in four forms, and nothing beside it."""

from __future__ import annotations

import json
import shlex
import subprocess

import pytest

from spotokend.cli import main


@pytest.fixture
def served(daemon, token_map):
    """A daemon with a token."""
    daemon.answers["token"] = token_map
    return daemon


@pytest.mark.parametrize(
    ("words", "line"),
    [
        ([], "access-1"),
        (["--format", "raw"], "access-1"),
        (["--format", "header"], "Authorization: Bearer access-1"),
        (["--format", "env"], "SPOTIFY_ACCESS_TOKEN=access-1"),
    ],
)
def test_one_line_and_no_words(served, capsys, words, line):
    """The token and a newline on stdout; stderr is silent."""
    assert main(["token", *words]) == 0
    assert capsys.readouterr() == (f"{line}\n", "")


def test_json_is_the_whole_token(served, capsys, token_map):
    """With its account, expiry, scopes and generation."""
    assert main(["token", "--format", "json"]) == 0
    assert json.loads(capsys.readouterr().out) == token_map


def test_a_shell_can_read_any_token(served, capsys, token_map):
    """Quoted, so that ``eval`` runs nothing that a provider has sent."""
    token_map["access_token"] = "a b';touch x;'$(id)"

    assert main(["token", "--format", "env"]) == 0
    line = capsys.readouterr().out
    done = subprocess.run(
        ["sh", "-c", f'{line}printf %s "$SPOTIFY_ACCESS_TOKEN"'],
        capture_output=True,
        text=True,
        timeout=10,
        check=True,
    )

    assert done.stdout == token_map["access_token"]
    assert len(shlex.split(line)) == 1


def test_the_daemon_hears_what_was_asked_for(served):
    """Account, life and scopes; nothing that wasn't said."""
    main(["token", "work", "--min-ttl", "90", "--scope", "a", "--scope", "b"])
    main(["token"])

    assert served.asked("token") == [{"account": "work", "min_ttl": 90.0, "scopes": ["a", "b"]}, {}]
