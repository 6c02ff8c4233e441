"""``spotokend token``: a token in four forms, and nothing beside it."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
import time

import pytest

from spotokend.cli import main, token


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


# --- a login that ends

DAY = 86_400.0
NOON = time.mktime((2026, 11, 23, 12, 0, 0, 0, 0, -1))


@pytest.fixture
def now(monkeypatch):
    """A moment that a test sets."""
    moment = [NOON]
    monkeypatch.setattr(token.time, "time", lambda: moment[0])
    return moment


@pytest.fixture
def runtime(monkeypatch, tmp_path):
    """Where the stamp is to lie; there is nothing yet."""
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path / "run"))
    return tmp_path / "run" / "spotokend"


REMINDER = "the login of main ends in 6 days: spotokend login main\n"


@pytest.mark.parametrize("words", [[], ["--format", "json"], ["--format", "env"]])
def test_once_a_day_it_is_said_that_the_login_ends(served, capsys, token_map, now, runtime, words):
    """On stderr, in every format; the first call of each calendar day, not the next thousand."""
    token_map["grant_expires_at"] = NOON + 6 * DAY
    said = []
    for moment in (NOON, NOON + 1, NOON + 11 * 3600, NOON + 13 * 3600, NOON + 14 * 3600):
        now[0] = moment
        assert main(["token", *words]) == 0
        out, err = capsys.readouterr()
        assert "access-1" in out
        assert "access-1" not in err
        said.append(err)
    assert said == [REMINDER, "", "", REMINDER.replace("6", "5"), ""]
    assert oct(runtime.stat().st_mode & 0o777) == "0o700"
    assert oct((runtime / "main.reminded").stat().st_mode & 0o777) == "0o600"


@pytest.mark.parametrize(
    ("left", "words"),
    [
        (None, ""),
        (14 * DAY, ""),
        (14 * DAY - 1, "the login of main ends in 14 days: spotokend login main\n"),
        (3600, "the login of main ends in 60 min: spotokend login main\n"),
        (0, "the login of main has reached its end: spotokend login main\n"),
        (-DAY, "the login of main has reached its end: spotokend login main\n"),
    ],
)
def test_from_two_weeks_before_the_end_on(served, capsys, token_map, now, runtime, left, words):
    """Earlier, or where nobody knows the end, nothing is said, and no file is looked at."""
    token_map["grant_expires_at"] = None if left is None else NOON + left
    assert main(["token"]) == 0
    assert capsys.readouterr().err == words
    assert runtime.exists() == bool(words)


def test_each_account_has_its_own_reminder(served, capsys, token_map, now, runtime):
    """Both logins have to be renewed."""
    token_map["grant_expires_at"] = NOON + 6 * DAY
    for account in ("main", "other", "main"):
        token_map["account"] = account
        main(["token"])
    assert capsys.readouterr().err == REMINDER + REMINDER.replace("main", "other")


def test_what_can_not_be_taken_down_is_not_said(served, capsys, token_map, now, runtime):
    """A folder that takes no file: rather silent than a line with each of a thousand calls."""
    runtime.parent.mkdir()
    runtime.write_text("")
    token_map["grant_expires_at"] = NOON + 6 * DAY
    assert main(["token"]) == 0
    assert capsys.readouterr() == ("access-1\n", "")


def test_a_reminder_that_was_given_costs_no_import(served, token_map, runtime):
    """What a thousand calls a day load is what they have always loaded."""
    token_map["grant_expires_at"] = NOON + 6 * DAY
    program = (
        f"import sys, time; time.time = lambda: {NOON}; from spotokend.cli import main; main(['token']);"
        "print([n for n in sys.modules if n.startswith('spotokend.rules')])"
    )
    told = [
        subprocess.run(
            [sys.executable, "-c", program],
            env=dict(os.environ),
            capture_output=True,
            text=True,
            timeout=30,
            check=True,
        )
        for _ in range(2)
    ]
    assert "rules.notice" in told[0].stdout
    assert told[1].stdout == "access-1\n[]\n"
    assert told[1].stderr == ""
