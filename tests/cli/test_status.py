"""``spotokend status``: the table, the troubles below it, and the story of one account."""

from __future__ import annotations

import json
import re
import sys

import pytest
from rich.cells import cell_len

from spotokend.cli import main, status
from spotokend.errors import DaemonNotRunning, UnknownAccount

NOW = 2_000.0


@pytest.fixture(autouse=True)
def now(monkeypatch):
    """A moment soon after the accounts' tokens were issued."""
    monkeypatch.setattr(status.time, "time", lambda: NOW)


def test_the_table_has_a_row_for_each_account(daemon, status_map, account_map, capsys):
    """Account, who it is, state, what is left of the token, next refresh, end of the login, health."""
    whole = status_map(
        account_map(),
        account_map(
            account="robot",
            client="machine",
            display_name=None,
            user=None,
            state="sealed",
            due_at=None,
            expires_at=None,
            grant_expires_at=None,
        ),
        account_map(account="import", authorized_at=None, grant_expires_at=None),
        account_map(
            account="old", display_name=None, due_at=1.0, expires_at=1.0, grant_expires_at=1.0
        ),
    )
    whole["clients"]["machine"] = {**whole["clients"]["spotify"], "flow": "client_credentials"}
    daemon.answers["status"] = whole

    assert main(["status"]) == 0
    out, err = capsys.readouterr()
    lines = out.splitlines()

    assert err == ""
    assert lines[0] == "spotokend 0.1.0, ok, running for 17 min (process 1)"
    assert [" ".join(line.split()) for line in lines[2:]] == [
        "ACCOUNT AS STATE TOKEN REFRESH LOGIN ENDS HEALTH",
        "main Alice fresh 43 min in 28 min in 30 days ok",
        "robot stored none – – ok",
        "import Alice fresh 43 min in 28 min unknown ok",
        "old alice-1 fresh ended now ended ok",
    ]


def test_the_table_fits_into_80_columns(daemon, status_map, account_map, capsys):
    """Long names are folded, wide letters and emoji counted as they appear."""
    names = ["王小明的很長很長很長的名字", "Čarolína Žluťoučká 🎧🎧🎧", "x" * 60]
    daemon.answers["status"] = status_map(
        *(
            account_map(account="a" * 60, display_name=name, state="quarantined", health="failing")
            for name in names
        )
    )

    main(["status"])
    lines = capsys.readouterr().out.splitlines()

    assert max(cell_len(line) for line in lines) <= 80
    assert sum("login refused" in line for line in lines) == 3
    assert "".join(lines).count("a") > 3 * 60


def test_names_can_neither_paint_nor_be_markup(daemon, status_map, account_map, capsys):
    """What people call themselves is shown as it is, without its control characters."""
    name = "[red]A\x1b[31m[/]"
    daemon.answers["status"] = status_map(account_map(display_name=name))

    main(["status"])

    assert "[red]A\ufffd[31m[/]" in capsys.readouterr().out


def test_troubles_stand_below_the_table(daemon, status_map, account_map, capsys):
    """What is wrong, and the command that mends it."""
    daemon.answers["status"] = status_map(
        account_map(reason="the provider refused the login", hint="spotokend login main"),
        account_map(account="work", reason="no network"),
        gate={"state": "closed", "reason": "429", "opens_at": NOW + 30},
        warnings=["a secret stands in the file"],
        health="failing",
    )

    main(["status"])

    assert capsys.readouterr().out.splitlines()[-7:] == [
        "",
        "warning: a secret stands in the file",
        "client spotify: not asked for a while: 429",
        "  next try in 30 s",
        "main: the provider refused the login",
        "  → spotokend login main",
        "work: no network",
    ]


def test_without_accounts_the_first_step_is_told(daemon, status_map, capsys):
    """No empty table."""
    daemon.answers["status"] = status_map()

    assert main(["status"]) == 0
    assert capsys.readouterr().out.splitlines()[1:] == ["No account yet.", "  → spotokend login"]


def test_colour_on_a_terminal(daemon, status_map, account_map, monkeypatch, capsys):
    """Health is green, unless colour is refused; there is no colour into a pipe."""
    daemon.answers["status"] = status_map(account_map())
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.delenv("NO_COLOR", raising=False)
    main(["status"])
    assert "\x1b" not in capsys.readouterr().out

    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    main(["status"])
    assert "\x1b[32mok" in capsys.readouterr().out

    monkeypatch.setenv("NO_COLOR", "1")
    main(["status"])
    assert "\x1b[3" not in capsys.readouterr().out


@pytest.mark.parametrize(("columns", "cells"), [(120, 12), (67, 6), (66, 0)])
def test_a_bar_takes_what_is_to_spare(
    daemon, status_map, account_map, monkeypatch, capsys, columns, cells
):
    """On a terminal; and no column is folded for it."""
    empty = account_map(account="work", display_name=None, user=None, expires_at=None)
    daemon.answers["status"] = status_map(account_map(), empty)
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("COLUMNS", str(columns))
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)

    main(["status"])
    first, second = (
        re.sub(r"\x1b\[[0-9;]*m", "", line) for line in capsys.readouterr().out.splitlines()[3:5]
    )

    assert len(re.findall("[━╾─┿┽┼]", first)) == cells
    assert first.index("43 min") == second.index("none")
    assert len(first.rstrip()) <= columns


def test_live_is_for_people(daemon, capsys):
    """Programs get the events as JSON, and what is no terminal the lines."""
    assert main(["status", "--live", "--json"]) == 2
    assert "→ spotokend watch --json" in capsys.readouterr().err
    assert main(["status", "--live"]) == 2
    assert capsys.readouterr().err.splitlines() == [
        "spotokend: a live view needs a terminal: standard output is no terminal",
        "  → spotokend watch",
    ]
    assert daemon.calls == []


def test_json_is_what_the_daemon_said(daemon, status_map, account_map, capsys):
    """With all accounts, for programs."""
    daemon.answers["status"] = status_map(account_map())

    assert main(["status", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == status_map(account_map())


def test_the_story_of_an_account(daemon, status_map, account_map, monkeypatch, capsys):
    """Everything that is known, a line each; civil times with the distances."""
    monkeypatch.setattr(status.terminal, "civil", lambda at: f"<{at:.0f}>")
    daemon.answers["status"] = status_map(
        account_map(
            why="ahead of the token's end; due in 28 min",
            outcomes=[{"at": 1_000.0, "outcome": "refreshed", "words": "a new\x1b token"}],
        )
    )

    assert main(["status", "main"]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "main",
        "  state         fresh, since <1500> (8 min)",
        "  health        ok",
        "  logged in as  Alice (alice-1)",
        "  client        spotify",
        "  scopes        streaming user-top-read",
        "  token         ends in 43 min, <4600>",
        "  refresh       due in 28 min, <3700>",
        "  because       ahead of the token's end; due in 28 min",
        "  login         ends in 30 days, <2594000>",
        "  last outcomes",
        "    <1000>  refreshed: a new\ufffd token",
    ]
    assert daemon.asked("status") == [{"account": "main"}]


@pytest.mark.parametrize(
    ("error", "exit_status"), [(UnknownAccount("no account x"), 7), (DaemonNotRunning("gone"), 4)]
)
def test_an_error_has_its_exit_status(daemon, error, exit_status):
    """0 means that the daemon answers, and nothing else."""
    daemon.answers["status"] = error

    assert main(["status", "x"]) == exit_status
